"""The user's two images on the page, before and after localization: sentence, scene and files."""

import json
from pathlib import Path
from typing import NamedTuple

from common.camera import WHOLE_DEG, panorama, pinhole
from dataset.decoding import shown_size
from dataset.exif import read_header
from dataset.images import panorama_span, read_whole
from dataset.photograph import hfov_of_file
from engine.app.forms import on_page
from engine.app.scene import OTHER, layer, map_of, mark, pair_scene, street_of
from engine.inference.decode import NEAR_M
from engine.localizer import RIDGE, RIDGE_M, SURE, Located
from engine.search.report import feature, gpx, map_link

SHOWN_PX = 1600  # of the longer side of an image on the page
_REACHES_M = (0.5, 1, 2, 3, NEAR_M, 10)
_SAID = 0.9  # probability from which a radius is worth saying
_USUAL_DEG = 67.0  # a photograph's field of view while it is not known
_POINTS = "north north-east east south-east south south-west west north-west".split()


def street_entries(localizer, street, lens=None, vertical=None):
    """Arguments of `Localizer.locate` for a street image's file and what is known of its camera.

    lens: a photograph's, a dict; vertical: a cropped panorama's. Both may be None.
    """
    kind = localizer.kind_of(street) if vertical is None else "panorama"
    return {kind: street, "vertical": vertical, **(lens or {})}


def preview(street, satellite, heading=None, lens=None, vertical=None):
    """The scene of images before localization, for looking, measuring and setting the heading.

    Both are files; one of them may be None. Raises UserError.
    """
    scene = {"layers": [], "aim": bool(street and satellite), "measure": bool(satellite)}
    scene["compass"] = heading is not None
    if satellite:
        width, height = shown_size(satellite)
        scene["map"] = map_of(read_whole(satellite, SHOWN_PX), (height, width))
        scene["place"] = [width / 2, height / 2]
    if street:
        image, header = read_whole(street, SHOWN_PX), read_header(street)
        height, width = image.shape[:2]
        span = panorama_span(width, height, vertical or WHOLE_DEG)
        if vertical or span == 360:
            camera = panorama(span=span, **dict(zip(("top", "bottom"), vertical or WHOLE_DEG, strict=True)))
        else:
            lens = {"hfov": hfov_of_file(header, width, height) or _USUAL_DEG} | (lens or {})
            camera = pinhole(width, height, **lens)
        scene["street"] = street_of(image, camera[None], heading or 0.0)
    return scene


class LocatedFiles(NamedTuple):
    """A `Located`, the files of its two images, and whether the heading was given."""

    located: Located
    street: Path
    satellite: Path
    heading_given: bool

    @classmethod
    def by(cls, localizer, street, satellite, lens=None, vertical=None, **known):
        """The answer of a `Localizer`; arguments: see `street_entries` and its `locate`. Raises UserError."""
        known |= street_entries(localizer, street, lens, vertical)
        (located,) = localizer.answers([{"satellite": satellite, **known}])
        return cls(located, Path(street), Path(satellite), known.get("heading") is not None)

    def sentence(self):
        """The answer in one sentence."""
        place, estimated = self.located, self.located.estimate.heading is not None
        words = _where(place)
        if not (estimated or self.heading_given):
            return words
        heading = round(place.heading) % 360
        point = _POINTS[round(heading / 45) % 8]
        return f"{words} Facing {point}, {heading}°{'' if estimated else ' as given'}."

    def words(self):
        """The answer as Markdown: the sentence and, if known, latitude and longitude."""
        place = self.located
        where = "" if place.latitude is None else f"\n\n{map_link(place.latitude, place.longitude)}"
        return f"## {self.sentence()}{where}"

    def details(self):
        """The numbers and assumptions, as Markdown."""
        place = self.located
        lines = [f"row {place.row:.2f}, column {place.col:.2f} of {self.satellite.name}"]
        return "\n".join(f"- {line}" for line in [*lines, *map(on_page, place.words())])

    def scene(self, truth=None):
        """The scene. truth: (row, col) in the satellite image as given, or None."""
        place, one = self.located, self.located.estimate
        camera = one.camera if one.camera.kind == "photo" else place.sample["camera"][None]
        scale = [seen / given for seen, given in zip(one.probability.shape, place.size, strict=True)]
        if truth is not None:
            one = one._replace(truth=tuple(at * by for at, by in zip(truth, scale, strict=True)))
        others = [mark(other, "dot", label=f"{100 * share:.0f}") for other, share in place.other_places]
        more = [layer("Other places, %", colour=OTHER, marks=others)] if others else []
        views = read_whole(self.street, SHOWN_PX), read_whole(self.satellite, SHOWN_PX)
        how = {"size": place.size, "height_m": place.camera_height, "more": more}
        return pair_scene(views, one, camera, place.heading, **how, aim=True, measure=True)

    def picture(self):
        """The figure of `visualize_loc.py`."""
        from engine.visualization.localization import own_images  # Matplotlib, for this alone

        return own_images(self.located, self.street, self.satellite)[0]

    def files(self):
        """{file name: text} to download: JSON and, if the position is known in degrees, GeoJSON and GPX."""
        place = self.located
        texts = {"localization.json": json.dumps(place.record(), indent=2)}
        if place.latitude is None:
            return texts
        about = {"heading_deg": round(place.heading % 360, 2), "probability_5m": round(place.probability, 6)}
        point = feature("Point", [round(place.longitude, 8), round(place.latitude, 8)], **about)
        points = {"type": "FeatureCollection", "features": [point]}
        texts["localization.geojson"] = json.dumps(points, indent=1) + "\n"
        return texts | {"localization.gpx": gpx([(place.latitude, place.longitude, self.street.name)])}


def _where(place):
    """The sentence about the position of a `Located`."""
    if place.along_m is None:
        return f"Here; {_per_cent(place.probability)} sure." if place.probability >= SURE else "Not sure."
    if place.along_m > RIDGE_M and place.along_m > RIDGE * place.across_m:
        way = _POINTS[round(place.along_deg / 45) % 4], _POINTS[round(place.along_deg / 45) % 4 + 4]
        spread = f"about {place.along_m:.0f} m each way"
        return f"Somewhere along here: {spread} on a line from {way[1]} to {way[0]}."
    for reach in _REACHES_M:
        share = place.probability_near(place.row, place.col, reach)
        if share >= _SAID:
            return f"Here, within {reach:g} m; {_per_cent(share)} sure."
    near = f"{_per_cent(place.probability)} that it is within {NEAR_M:g} m of here"
    if not place.other_places:
        return f"Not sure: {near}; the rest is spread."
    shares = " and ".join(_per_cent(share) for _, share in place.other_places)
    return f"Not sure: {near}; {shares} at the other marks."


def _per_cent(share):
    return "more than 99 %" if share > 0.995 else f"{100 * share:.0f} %"
