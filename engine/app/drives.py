"""Drives to follow on the page: those of the data's cities, or a user's table with its images."""

import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from common.errors import UserError
from dataset.images import read_whole
from engine.app.cities import Cities
from engine.app.scene import (
    PREDICTION,
    TRUTH,
    circle,
    city_scene,
    data_url,
    ellipse,
    heat_image,
    layer,
    street_of,
)
from engine.figures.search import CityMap
from engine.figures.tracks import SIGMAS_95
from engine.tracking.drive import DriveTracker, Track
from engine.tracking.evaluate import truth_of
from engine.tracking.motion import MotionNoise
from engine.tracking.report import as_geojson, as_gpx, as_table, in_words
from engine.tracking.table import SENSORS, TABLE, read_frames
from engine.tracking.tracker import LOST
from engine.visualization.samples import as_seen
from engine.visualization.tracks import belief_of, track_ellipse, track_map, track_picture

_STREET_PX = 640  # of the longer side of a frame's image on the page


class FollowedDrive(NamedTuple):
    """A followed drive: its name, `Track`, map, and true positions on the map or None."""

    track: Track
    name: str
    city_map: CityMap
    truth: object

    def words(self):
        """A summary of the drive."""
        return in_words(self.track)

    def scene(self):
        """The scene: the map with the track; belief, street image and position of each frame."""
        track, layers = self.track, [layer("Belief", beliefs=True)]

        def place(map_px):
            return list(self.city_map.place(map_px)[::-1])

        if track.near is not None:
            layers.append(layer("Begin", colour=TRUTH, shapes=[circle(self.city_map, track.near)]))
        if self.truth is not None:
            line = {"line": [place(one) for one in self.truth], "width": 3}
            layers.append(layer("Truth", colour=TRUTH, shapes=[line]))
        smoothed = [{"line": [place(one) for one in track.map_px()], "width": 2}]
        layers.append(layer("Track", colour=PREDICTION, shapes=smoothed))
        ellipses = []
        for one, where in zip(track.tracked, track.map_px(), strict=True):
            along, across, bearing = track_ellipse(one.smoothed.matrix)
            sides = SIGMAS_95 * along / self.city_map.metres, SIGMAS_95 * across / self.city_map.metres
            ellipses.append(ellipse(self.city_map.place(where), *sides, bearing, width=1))
        layers.append(layer("Ellipses, 95 %", colour=PREDICTION, shapes=ellipses, shown=False))
        frames = [self._frame(number, place) for number in range(len(track.tracked))]
        return city_scene(self.city_map, layers, frames=frames, picks=False)

    def _frame(self, number, place):
        track, one = self.track, self.track.tracked[number]
        mass, corner, cell_px = belief_of(track, number)
        (top, left), side = self.city_map.place(corner), cell_px / self.city_map.pixel
        box = left, top, mass.shape[1] * side, mass.shape[0] * side
        known, pose = one.filtered.near >= LOST, one.filtered
        words = f"{number + 1} of {len(track.tracked)}: {100 * pose.near:.0f} % within 5 m"
        if one.doubted:
            words += "; the image fits nothing, the motion carries it"
        sample = track.likelihood.sample(number)
        frame = {"belief": {"image": data_url(heat_image(mass)), "box": box}, "words": words}
        frame["place"] = place(track.map_px("filtered")[number]) if known else None
        if sample is not None:
            image = as_seen(read_whole(track.frames[number].file, _STREET_PX), sample, track.likelihood.view)
            frame["street"] = street_of(image, sample["camera"][None], pose.heading)
        return frame

    def files(self):
        """{file name: text} to download."""
        table = as_table(self.track, self.name)
        return {"drive.geojson": as_geojson(table, self.track.near), "drive.gpx": as_gpx(table, self.name)}

    def picture(self):
        """The figure of `track_VIGOR.py`."""
        return track_picture(self.track, self.city_map, self.name, self.truth)


class CityDrives:
    """Follows drives with a `Localizer`: those of a `Source`'s cities, by name, or of a user's table."""

    def __init__(self, cities: Cities):
        self.cities, self.names = cities, {}
        root = Path(cities.source.found().dataset_root)
        for city in cities.names:
            if (table := root / city / TABLE).is_file():
                self.names |= {f"{city}, drive {drive}": (city, table, drive) for drive in read_frames(table)}

    def follow(self, name, use=tuple(SENSORS), near=None, files=(), city=None):
        """The `FollowedDrive` of a drive, by its name, or of an uploaded table with its images, in a city.

        use: kinds of `SENSORS`; near: (latitude, longitude, radius in metres) of the start. Raises UserError.
        """
        with tempfile.TemporaryDirectory() as folder:
            if files:
                name, frames = _uploaded(files, Path(folder), use)
            elif name in self.names:
                city, table, drive = self.names[name]
                frames = read_frames(table, use)[drive]
            else:
                raise UserError("choose a drive, or give a table and its images")
            localizer = self.cities.localizer
            photos = localizer.kind_of(frames[0].file) == "photo"
            compass = all("heading" in frame.numbers for frame in frames)
            answerer = localizer.answerer(photos, compass)
            searcher = self.cities.open(city, answerer)[0]
            how = answerer.checkpoint, searcher.view, searcher, searcher.cities[0], MotionNoise()
            track = DriveTracker(*how).follow(frames, Path(folder, "beliefs"), near)
            truth = truth_of(frames)
            truth = None if truth is None else truth[0]
            made = FollowedDrive(track, name, track_map(track, truth), truth)
            return made, made.scene()  # while beliefs and images are on the disk


def _uploaded(files, folder, use):
    """(name, frames) of the one drive in the one table among uploaded files, (path, name) each."""
    tables = [name for _, name in files if name.lower().endswith(".csv")]
    if len(tables) != 1:
        says = "expected one .csv and the images that it names"
        raise UserError(f"{len(tables)} tables among the files; {says}")
    for path, name in files:
        shutil.copy(path, folder / Path(name).name)
    drives = read_frames(folder / Path(tables[0]).name, use)
    if len(drives) > 1:
        raise UserError(f"{tables[0]}: {len(drives)} drives; the page follows one")
    return next(iter(drives.items()))[0] or Path(tables[0]).stem, next(iter(drives.values()))
