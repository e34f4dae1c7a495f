"""OpenStreetMap extracts -> outlines of where a camera may stand, on the Web Mercator map at zoom 20.

An extract is streamed: `osmium` filters streets, areas and buildings by their tags, and only those near the
satellite images are kept. Frame: x is the map's column, y its row, both in pixels at zoom 20.
"""

import itertools
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import osmium
import pandas as pd
import shapely
from osmium.filter import EntityFilter, KeyFilter
from osmium.osm import AREA, RELATION, WAY

from common import geometry
from common.errors import UserError
from dataset.decoding import check_file
from dataset.masks import streets

KINDS = {
    "area_highway": "outlines of carriageways (area:highway)",
    "squares": "squares (place=square, pedestrian areas)",
    "car_parks": "car parks (amenity=parking)",
    "service": "service roads and tracks",
    "paths": "footways, paths, cycleways, pedestrian streets",
}
ALSO = ("area_highway",)  # of them, by default
FORMATS = (".osm.pbf", ".osm", ".osm.gz", ".osm.bz2", ".pbf")
LARGE_BYTES = 256e6  # larger extracts keep their nodes on the disk, not in memory
_KEYS = ("highway", "building", "area:highway", "amenity", "place")
_OPEN_ROOFS = ("no", "roof", "carport", "canopy")  # values of `building` under which a camera may stand
_NO_GROUND = ("underground", "multi-storey", "rooftop")  # values of `parking`
_CHUNK = 20_000  # objects projected at a time
_CELL_PX, _NEAR_PX = 1024, 512  # raster of the places to keep, and their margin: no street is wider


def add_also(group):
    """The flag for what counts besides carriageways."""
    text = "what counts besides carriageways: " + "; ".join(f"{name}: {what}" for name, what in KINDS.items())
    choices = {"choices": tuple(KINDS), "default": list(ALSO)}
    group.add_argument("--also", nargs="*", **choices, metavar="KIND", help=text)


@dataclass(eq=False)
class StreetMap:
    """Outlines in painting order, lowest layer first. Buildings cut out what is below them."""

    outlines: np.ndarray  # (N,) polygons
    stands: np.ndarray  # (N,) booleans: a camera may stand there
    lines: np.ndarray  # (M,) centre lines of the streets
    notes: dict = field(default_factory=dict)  # {what was left out or repaired: how often}

    def __post_init__(self):
        self._outlines, self._lines = shapely.STRtree(self.outlines), shapely.STRtree(self.lines)
        for tree in (self._outlines, self._lines):  # the first query is not thread-safe
            tree.query(shapely.box(0, 0, 1, 1))

    def around(self, corner):
        """(outlines (n,), stands (n,)) near the image with this north-west corner (row, col)."""
        near = np.sort(self._outlines.query(_image_box(corner)))
        return self.outlines[near], self.stands[near]

    def points(self, corner, spacing_px):
        """(n, 2) (row, col) in the image with this corner: equally spaced points along the centre lines."""
        box = _image_box(corner)
        pieces = shapely.get_parts(shapely.intersection(self.lines[self._lines.query(box)], box))
        points = [np.zeros((0, 2))]
        for line in (piece for piece in pieces if piece.length > 0):
            distances = np.arange(min(spacing_px, line.length) / 2, line.length, spacing_px)
            points.append(shapely.get_coordinates(line.interpolate(distances)))
        return np.concatenate(points)[:, ::-1] - np.asarray(corner)


def _image_box(corner):
    row, col = corner
    return shapely.box(col, row, col + geometry.SATELLITE_PX, row + geometry.SATELLITE_PX)


def read_map(paths, corners, also=ALSO):
    """The `StreetMap` of extracts near images with north-west corners (n, 2), (row, col) of the map.

    also: the KINDS that count besides carriageways. Raises UserError for a file that is no extract, and for
    images outside all extracts, with their number and the furthest distance.
    """
    corners = np.asarray(corners)
    reader = _Reader(corners, also)
    boxes = [reader.read(path) for path in paths]
    centres = corners + geometry.SATELLITE_PX / 2
    outside, far, metres = count_outside(centres, boxes)
    if outside:
        latitude, longitude = geometry.latitude_longitude(*centres[far])
        raise UserError(
            f"{', '.join(map(str, paths))}: {outside} of {len(centres)} satellite images lie outside; the "
            f"furthest, at {latitude:.6f} {longitude:.6f}, by {geometry.distance_in_words(metres)}; give an "
            "extract that covers them (--osm takes several)"
        )
    return reader.street_map()


def count_outside(positions, boxes):
    """(number of positions outside all boxes, index of the furthest one, its distance in metres).

    positions: (n, 2) (row, col) on the map · boxes: (south, west, north, east) on the map.
    """
    beyond_px = geometry.outside_box(*positions.T, np.array(boxes).T[..., None]).min(0)
    far = int(beyond_px.argmax())
    latitude, _ = geometry.latitude_longitude(*positions[far])
    return int((beyond_px > 0).sum()), far, beyond_px[far] * geometry.metres_per_pixel(latitude)


def check_extract(path):
    """The path of a readable file with the name of an extract. Raises UserError for another one."""
    path = Path(path)
    try:
        open(check_file(path, "--osm takes OpenStreetMap extracts"), "rb").close()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; --osm takes OpenStreetMap extracts") from None
    if not path.name.endswith(FORMATS):
        raise UserError(f"{path}: not the name of an extract; --osm takes {', '.join(FORMATS)}")
    return path


def stated_box(path):
    """The bounds in an extract's header, (south, west, north, east) on the map, or None. Raises UserError."""
    try:
        box = osmium.FileProcessor(str(check_extract(path))).header.box()
    except RuntimeError as error:
        raise _damaged(path, error) from None
    if not box.valid():
        return None
    north, west = geometry.mercator_px(box.top_right.lat, box.bottom_left.lon)
    south, east = geometry.mercator_px(box.bottom_left.lat, box.top_right.lon)
    return float(south), float(west), float(north), float(east)


def _damaged(path, error):
    """The UserError for osmium's error about a damaged or truncated file."""
    return UserError(f"{path}: not a whole OpenStreetMap extract ({error}); download it again")


class _Reader:
    """Collects everything near the images, chunk by chunk."""

    def __init__(self, corners, also):
        cells = np.unique(np.floor(corners / _CELL_PX), axis=0) * _CELL_PX
        rows, cols = (cells - _NEAR_PX).T
        reach = _CELL_PX + geometry.SATELLITE_PX + 2 * _NEAR_PX
        self.cells = shapely.STRtree(shapely.box(cols, rows, cols + reach, rows + reach))
        self.classes = {**streets.CARRIAGEWAYS, **(streets.SERVICE if "service" in also else {})}
        self.classes |= streets.PATHS if "paths" in also else {}
        self.also, self.kept, self.notes = also, [], Counter()
        self.broken = 0  # multipolygons of interest without those that osmium could assemble
        self.wkb = osmium.geom.WKBFactory()

    def read(self, path):
        """Collect from an extract; returns the box that it covers, (south, west, north, east) on the map."""
        stated, shapes = stated_box(path), self._shapes(path)
        boxes = []
        while chunk := list(itertools.islice(shapes, _CHUNK)):
            boxes.append(self._keep(chunk))
        if stated:
            return stated
        if not boxes:
            raise UserError(f"{path}: contains neither a street nor a building; give another extract")
        west, north, east, south = np.transpose(boxes)
        return south.max(), west.min(), north.min(), east.max()

    def _shapes(self, path):
        """Yields (WKB, width in metres or NaN, layer, stands) of each way and area that counts."""
        with tempfile.TemporaryDirectory() as folder:
            on_disk = Path(path).stat().st_size > LARGE_BYTES
            nodes = f"sparse_file_array,{folder}/nodes" if on_disk else "flex_mem"
            keys, kinds = KeyFilter(*_KEYS), EntityFilter(WAY | AREA | RELATION)
            try:
                file = osmium.FileProcessor(str(path)).with_locations(nodes).with_areas(keys)
                for item in file.with_filter(kinds).with_filter(keys):
                    tags = dict(item.tags)
                    if streets.is_hidden(tags):
                        continue
                    if item.is_way():
                        yield from self._line(item, tags)
                    elif item.is_area():
                        yield from self._area(item, tags)
                    elif tags.get("type") in ("multipolygon", "boundary"):
                        self.broken += self._stands(tags, True) is not None
            except RuntimeError as error:
                raise _damaged(path, error) from None

    def _area(self, item, tags):
        """The shape of an area, which osmium assembles from a closed way or a multipolygon."""
        stands = self._stands(tags, not item.from_way())
        if stands is None:
            return
        self.broken -= not item.from_way()
        try:
            yield self.wkb.create_multipolygon(item), np.nan, streets.layer_of(tags), stands
        except RuntimeError:  # a ring that crosses itself or stays open
            self.notes["outlines that cross themselves or do not close"] += 1

    def _stands(self, tags, multipolygon):
        """Whether a camera may stand on an area (True), it cuts out (False), or it does not matter (None)."""
        if tags.get("building", "no") not in _OPEN_ROOFS:
            return False
        street, area = tags.get("highway"), multipolygon or tags.get("area") == "yes"
        parking = tags.get("amenity") == "parking" and tags.get("parking") not in _NO_GROUND
        square = tags.get("place") == "square" or (street == "pedestrian" and area)
        wanted = (
            ("area_highway" in self.also and tags.get("area:highway") in self.classes)
            or ("car_parks" in self.also and parking)
            or ("squares" in self.also and square)
            or (area and street in self.classes)
        )
        return True if wanted else None

    def _line(self, way, tags):
        """Shapes of a street: its line, or the pieces of one with missing nodes."""
        if tags.get("highway") not in self.classes or tags.get("area") == "yes":
            return
        width, unread = streets.street_width(tags)
        if unread:
            self.notes[f"width {unread!r} that cannot be read"] += 1
        layer = streets.layer_of(tags)
        try:
            lines = [self.wkb.create_linestring(way)]
        except (osmium.InvalidLocationError, RuntimeError):  # nodes outside the extract, or a single node
            runs = itertools.groupby((node.location for node in way.nodes), lambda place: place.valid())
            pieces = [[(place.lon, place.lat) for place in run] for valid, run in runs if valid]
            pieces = [shapely.linestrings(piece) for piece in pieces if len(set(piece)) > 1]
            lines = [shapely.to_wkb(piece, hex=True) for piece in pieces]
            self.notes["streets with missing nodes"] += 1
        yield from ((line, width, layer, True) for line in lines)

    def _keep(self, chunk):
        """Keep the shapes of a chunk that lie near the images; returns (west, north, east, south) of all."""
        wkb, *numbers = zip(*chunk, strict=True)
        width, layer, stands = (np.array(column) for column in numbers)
        # an array of text would make every shape as long as the longest
        shapes = shapely.transform(shapely.from_wkb(np.array(wkb, object)), _project)
        bounds = shapely.bounds(shapes)
        near = np.unique(self.cells.query(shapely.box(*bounds.T))[0])
        self.kept.append((shapes[near], width[near], layer[near], stands[near]))
        return *bounds[:, :2].min(0), *bounds[:, 2:].max(0)

    def street_map(self):
        """Lines become outlines of their width, and everything is sorted into painting order."""
        empty = (np.zeros(0, object), np.zeros(0), np.zeros(0, int), np.zeros(0, bool))
        columns = zip(empty, *self.kept, strict=True)
        shapes, width, layer, stands = (np.concatenate(column) for column in columns)
        is_line = ~np.isnan(width)
        lines, line_layers = shapes[is_line], layer[is_line]
        middle = shapely.bounds(lines).reshape(-1, 4)[:, 1::2].mean(1)
        metres_per_pixel = geometry.metres_per_pixel(geometry.latitude_longitude(middle, 0.0)[0])
        half_px = width[is_line] / 2 / metres_per_pixel
        discs, disc_layers = _joints(lines, half_px, line_layers)
        areas, owner = shapely.get_parts(shapes[~is_line], return_index=True)
        carriageways = shapely.buffer(lines, half_px, cap_style="flat", quad_segs=4)
        outlines = np.concatenate([carriageways, discs, areas])
        stands = np.concatenate([np.ones(len(lines) + len(discs), bool), stands[~is_line][owner]])
        layers = np.concatenate([line_layers, disc_layers, layer[~is_line][owner]])
        order = np.lexsort((~stands, layers))
        if self.broken > 0:
            self.notes["outlines (multipolygons) with missing parts"] = self.broken
        return StreetMap(outlines[order], stands[order], lines, dict(self.notes))


def _project(points):
    """(n, 2) longitude, latitude -> (n, 2) x, y."""
    row, col = geometry.mercator_px(points[:, 1], points[:, 0])
    return np.stack([col, row], 1)


def _joints(lines, half_px, layers):
    """Discs where streets meet at their ends, and their layers: (n,) polygons, (n,).

    Lines end flat, so that a dead end is as long as it is mapped. Where another street continues at an angle,
    a disc fills the gap. Its radius is the second largest half width there, so that a wide street does not
    reach across a narrow one.
    """
    points, owner = shapely.get_coordinates(lines, return_index=True)
    changes = owner[1:] != owner[:-1]
    is_end = np.append(True, changes)[: len(owner)] | np.append(changes, True)[: len(owner)]
    col, row = np.rint(points * 16).astype(np.int64).T
    columns = {"col": col, "row": row, "radius": half_px[owner], "layer": layers[owner], "is_end": is_end}
    arms = pd.DataFrame(columns | {"point": np.arange(len(points))})
    arms = pd.concat([arms, arms[~is_end]], ignore_index=True)  # inner points have two arms
    arms = arms.sort_values("radius", ascending=False, kind="stable")
    nodes = arms.groupby(["col", "row"])
    second = arms[(nodes.cumcount() == 1) & nodes["is_end"].transform("any")]
    discs = shapely.buffer(shapely.points(points[second["point"]]), second["radius"].to_numpy(), quad_segs=8)
    return discs, second["layer"].to_numpy()
