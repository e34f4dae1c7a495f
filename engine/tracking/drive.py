"""A drive of real files: frames of a table, a network and a city -> a `Track`."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common import geometry
from common.camera import pinhole
from common.errors import UserError
from dataset.decoding import shown_size
from dataset.images import panorama_size_fault, read_panorama
from dataset.own import Needs, own_query
from dataset.protocol import Protocol
from dataset.vigor import as_sample
from engine.inference.temperatures import conditions_key, find_heat_map
from engine.tracking.lattice import uniform, window
from engine.tracking.likelihoods import Likelihood
from engine.tracking.motion import Sensed
from engine.tracking.tracker import Beliefs, track

AHEAD_DEG = 90.0  # field of view of photographs that are cut out of a drive's panoramas
_GPS_RADII = 30.0  # times GPS's accuracy: how far around its first position a drive begins
_LEAST_RADIUS_M = 60.0
_FAR_M = 20_000.0


class Track(NamedTuple):
    """A drive that was followed."""

    frames: list  # its `Frame`s
    tracked: list  # a `Tracked` for each
    near: tuple | None  # (latitude, longitude, radius in metres) in which it was known to begin
    likelihood: Likelihood  # which turns places into degrees
    beliefs: Beliefs

    @property
    def city(self):
        """The `SearchCity` in which it was driven."""
        return self.likelihood.city

    def gps(self, which="smoothed"):
        """(T, 2) latitudes and longitudes of the frames' places, 'smoothed' or 'filtered'."""
        return np.array([self.likelihood.to_gps(getattr(one, which).place) for one in self.tracked])

    def map_px(self, which="smoothed"):
        """(T, 2) places on the map, pixels at zoom 20."""
        return np.array([self.likelihood.to_map(getattr(one, which).place) for one in self.tracked])


class DriveTracker:
    """Follows drives through a city with the network of a `Checkpoint`.

    checkpoint, view: the network and how it is asked; searcher: a `Searcher` of it.
    city: the `SearchCity`; noise: the `MotionNoise` of the sensors.
    """

    def __init__(self, checkpoint, view, searcher, city, noise):
        self.checkpoint, self.view, self.city, self.noise = checkpoint, view, city, noise
        network = checkpoint.network
        self.needs = Needs.of(network)
        key = conditions_key(checkpoint, Protocol.pick(checkpoint.data, {"pos_only": True}), view)
        self.heat_map, self.cells = find_heat_map(checkpoint, key), searcher.temperatures.cells
        self.device = searcher.device

    def likelihood(self, files, lens=None):
        """The `Likelihood` of images by their files, None for a frame without one.

        lens: of all frames' photographs, or of each: a list of dicts as `own_photograph` takes them.
        """

        def sample(frame):
            if files[frame] is None:
                return None
            own = lens[frame] if isinstance(lens, list) else lens or {}
            return self.sample(files[frame], own)

        asked = self.city, self.checkpoint.network, self.view, self.device, sample
        return Likelihood(*asked, self.heat_map, self.cells)

    def sample(self, file, lens):
        """The sample of an image; a network for photographs sees what lies ahead in a panorama."""
        if not self.view.photographs:
            own = {"vertical": lens["vertical"]} if "vertical" in lens else {}
            return own_query(self.view, self.needs, panorama=file, heading=0.0, **own)[0]
        if panorama_size_fault(*shown_size(file)) is None and not {"hfov", "intrinsics"} & lens.keys():
            return self._ahead(file)
        return own_query(self.view, self.needs, photo=file, heading=0.0, **lens)[0]

    def _ahead(self, file):
        height, width = self.view.photo_px
        camera = pinhole(width, height, hfov=AHEAD_DEG)
        query = read_panorama(file, *self.view.panorama_px)
        return as_sample(query) | {"camera": camera, "taken": camera}

    def sensed(self, frames, likelihood):
        """The `Sensed` of frames, places as a `Likelihood` has them. UserError for GPS far from the city."""
        found = []
        for frame in frames:
            latitude, longitude = frame.known("latitude", "longitude")
            place = None
            if latitude is not None:
                self._check_gps(frame, latitude, longitude)
                place = likelihood.from_gps(latitude, longitude)
            accuracy = frame.numbers.get("accuracy", Sensed().accuracy)
            time, *odometry, heading = frame.known("time", "forward", "left", "turn", "heading")
            found.append(Sensed(time, place, accuracy, *odometry, heading))
        return found

    def _check_gps(self, frame, latitude, longitude):
        if self._distance_m(latitude, longitude) < _FAR_M:
            return
        hint = "is it another city's drive?"
        if abs(longitude) <= 85 and self._distance_m(longitude, latitude) < _FAR_M:
            hint = "are latitude and longitude swapped?"
        says = f"GPS {latitude:g} {longitude:g} is far from {self.city.name}"
        raise UserError(f"{frame.name}: {says}; {hint}")

    def _distance_m(self, latitude, longitude):
        centre = self.city.tiles.centres_px
        away = np.hypot(*(centre - geometry.mercator_px(latitude, longitude)).T).min()
        return away * float(geometry.metres_per_pixel(self.city.tiles.gps[0, 0]))

    def start(self, first, likelihood, near=None):
        """(the `Belief` before a drive's first `Frame`, the circle in which it is: `near`, by GPS, or None).

        near: (latitude, longitude, radius in metres). Raises UserError where the city has no image there.
        """
        latitude, longitude = first.known("latitude", "longitude")
        if near is None and latitude is not None:
            accuracy = first.numbers.get("accuracy", Sensed().accuracy)
            near = latitude, longitude, max(_LEAST_RADIUS_M, _GPS_RADII * accuracy)
        heading, span = first.numbers.get("heading"), 12 * self.noise.compass
        for level in likelihood.levels[1:]:
            if near is not None:
                centre = likelihood.from_gps(*near[:2])
                lattice = window(level, centre, near[2], heading, span)
            else:
                middle = window(level, (0, 0), 1.0, heading, span)
                cells = round(level.cell_m / likelihood.grid.cell_m)
                row, col, end_row, end_col = self.city.index.bounds
                sides = -(-(end_row - row) // cells) + 1, -(-(end_col - col) // cells) + 1
                lattice = middle._replace(row=row // cells, col=col // cells)
                lattice = lattice._replace(shape=(lattice.shape[0], *sides))
            if np.prod(lattice.shape) <= level.states:
                break
        if near is None:
            return uniform(lattice), None
        away = self._distance_m(*near[:2])
        if away > near[2] + 60:
            where = f"within {near[2]:g} m of {near[0]:g} {near[1]:g}"
            says = f"no satellite image of {self.city.name} lies {where}"
            raise UserError(f"{says}; the nearest one's centre is {geometry.distance_in_words(away)} away")
        return uniform(lattice, centre, near[2]), near

    def follow(self, frames, folder, near=None, lens=None, description="tracking"):
        """The `Track` of a drive's `Frame`s, a list.

        folder: where filtered beliefs wait; a track of the same frames that was stopped goes on there.
        near: (latitude, longitude, radius in metres) of a drive's begin, as `start` takes it.
        lens: of all frames' photographs, where the table does not have them.
        """
        own = [
            (lens or {}) | {n: frame.numbers[n] for n in ("hfov", "pitch", "roll") if n in frame.numbers}
            for frame in frames
        ]
        likelihood = self.likelihood([frame.file for frame in frames], own)
        sensed = self.sensed(frames, likelihood)
        start, near = self.start(frames[0], likelihood, near)
        beliefs = Beliefs(self._own_folder(Path(folder), frames, near, own))
        found = track(sensed, likelihood, start, likelihood.levels, self.noise, beliefs, description)
        return Track(frames, found, near, likelihood, beliefs)

    def _own_folder(self, folder, frames, near, lens):
        """A folder for these frames under these settings; those of others are removed."""
        asked = {"checkpoint": self.checkpoint.sha256, "view": self.view.conditions}
        asked |= {"noise": self.noise.plain(), "city": self.city.name, "near": near, "lens": lens}
        reliability = self.heat_map.reliability and self.heat_map.reliability.plain()
        asked |= {"temperatures": [self.heat_map.temperature, self.cells], "reliability": reliability}
        asked |= {"frames": [[str(frame.file.resolve()), frame.numbers] for frame in frames]}
        name = hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()[:12]
        for other in folder.glob("*"):
            if other.is_dir() and other.name != name:
                shutil.rmtree(other)
        return folder / name
