"""OpenStreetMap extracts -> where a camera may stand, as outlines on the Web Mercator map at zoom 20.

An extract is streamed: `osmium` hands over only what has a street's, an area's or a building's tags, and of that only what lies
near the satellite images is kept. Frame: x is the map's column, y its row, both in pixels at zoom 20.
"""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import osmium
import shapely
from osmium.filter import EntityFilter, KeyFilter
from osmium.osm import AREA, RELATION, WAY

from common import geometry
from common.errors import UserError
from dataset.masks import streets

KINDS = {
    "area_highway": "outlines of carriageways (area:highway)",
    "squares": "squares (place=square, pedestrian areas)",
    "car_parks": "car parks (amenity=parking)",
    "service": "service roads and tracks",
    "paths": "footways, paths, cycleways, pedestrian streets",
}
FORMATS = (".osm.pbf", ".osm", ".osm.gz", ".osm.bz2", ".pbf")
_KEYS = ("highway", "building", "area:highway", "amenity", "place")
_OPEN_ROOFS = ("no", "roof", "carport", "canopy")  # that a camera may stand under
_NO_GROUND = ("underground", "multi-storey", "rooftop")  # of car parks
_CHUNK = 20_000  # objects that are projected at a time
_CELL_PX, _NEAR_PX = 1024, 512  # of the raster of places to keep; no street reaches further across than that
_LARGE = 256e6  # bytes of an extract whose nodes are better kept on the disk than in memory


@dataclass(eq=False)
class StreetMap:
    """Outlines in painting order, lowest layer first: where a camera may stand, and buildings, which cut out what lies below."""

    outlines: np.ndarray  # (N,) polygons
    stands: np.ndarray  # (N,) booleans
    lines: np.ndarray  # (M,) centre lines of the streets among them
    notes: dict = field(default_factory=dict)  # {what was left out or mended: how often}

    def __post_init__(self):
        self._outlines, self._lines = shapely.STRtree(self.outlines), shapely.STRtree(self.lines)
        for tree in (self._outlines, self._lines):  # the first query builds it, which threads must not do at once
            tree.query(shapely.box(0, 0, 1, 1))

    def around(self, corner):
        """Outlines, (n,), and whether one stands there, (n,), of what may show in the image with this corner (row, col)."""
        found = np.sort(self._outlines.query(_image_box(corner)))
        return self.outlines[found], self.stands[found]

    def points(self, corner, apart_px):
        """(n, 2) (row, col) in the image with this corner: points along the centre lines, so far apart."""
        box = _image_box(corner)
        pieces = shapely.intersection(self.lines[self._lines.query(box)], box)
        pieces = [line for line in shapely.get_parts(pieces) if line.length > 0]
        spots = [line.interpolate(np.arange(min(apart_px, line.length) / 2, line.length, apart_px)) for line in pieces]
        points = shapely.get_coordinates(np.concatenate(spots))[:, ::-1] if spots else np.zeros((0, 2))
        return points - np.asarray(corner)


def _image_box(corner):
    row, col = corner
    return shapely.box(col, row, col + geometry.SATELLITE_PX, row + geometry.SATELLITE_PX)


def read_map(paths, corners, also=("area_highway",)):
    """The `StreetMap` of extracts, .osm.pbf or .osm, near images with these north-west corners, (n, 2) (row, col) of the map.

    also: those of KINDS that count beside carriageways. Raises UserError for a file that is no extract, and where images lie
    outside all extracts: how many, and how far the furthest.
    """
    paths, reader = [Path(path) for path in paths], _Reader(np.asarray(corners), also)
    boxes = np.array([reader.read(path) for path in paths])
    _check_cover(paths, boxes, np.asarray(corners) + geometry.SATELLITE_PX / 2)
    return reader.street_map()


def stated_box(path):
    """What an extract says that it covers, (south, west, north, east) in pixels of the map, or None. Raises UserError."""
    try:
        return _map_box(osmium.FileProcessor(str(_checked(path))).header.box())
    except RuntimeError as error:
        raise _damaged(path, error) from None


def _map_box(box):
    if not box.valid():
        return None
    north, west = geometry.mercator_px(box.top_right.lat, box.bottom_left.lon)
    south, east = geometry.mercator_px(box.bottom_left.lat, box.top_right.lon)
    return float(south), float(west), float(north), float(east)


def _checked(path):
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; --osm takes OpenStreetMap extracts, .osm.pbf or .osm")
    if not path.name.endswith(FORMATS):
        raise UserError(f"{path}: not the name of an extract ({', '.join(FORMATS[:2])}); --osm takes OpenStreetMap extracts")
    return path


def _damaged(path, error):
    """The UserError for what osmium says of a damaged or truncated file."""
    return UserError(f"{path}: not a whole OpenStreetMap extract ({error}); download it again")


class _Reader:
    """Collects what lies near some images, chunk by chunk."""

    def __init__(self, corners, also):
        cells = np.unique(np.floor(corners / _CELL_PX), axis=0) * _CELL_PX
        rows, cols = (cells - _NEAR_PX).T
        reach = _CELL_PX + geometry.SATELLITE_PX + 2 * _NEAR_PX
        self.cells = shapely.STRtree(shapely.box(cols, rows, cols + reach, rows + reach))
        self.classes = {**streets.CARRIAGEWAYS, **(streets.SERVICE if "service" in also else {})}
        self.classes |= streets.PATHS if "paths" in also else {}
        self.also, self.kept, self.notes, self.pending = also, [], {}, []
        self.relations = self.whole = 0  # multipolygons that count, and those of them that osmium could put together
        self.wkb = osmium.geom.WKBFactory()

    def read(self, path):
        """Take what an extract holds; returns the box of what it covers: south, west, north, east, in pixels of the map."""
        self.extent = np.array([-np.inf, np.inf, np.inf, -np.inf])
        stated = stated_box(path)
        with tempfile.TemporaryDirectory() as folder:
            large = path.stat().st_size > _LARGE
            nodes = f"sparse_file_array,{folder}/nodes" if large else "flex_mem"
            try:
                file = osmium.FileProcessor(str(path)).with_locations(nodes).with_areas(KeyFilter(*_KEYS))
                for thing in file.with_filter(EntityFilter(WAY | AREA | RELATION)).with_filter(KeyFilter(*_KEYS)):
                    self._take(thing)
            except RuntimeError as error:
                raise _damaged(path, error) from None
            self._keep()
        if stated:
            return stated
        if not np.isfinite(self.extent).all():
            raise UserError(f"{path}: holds neither a street nor a building; is this the extract that was meant?")
        return tuple(self.extent)

    def _note(self, what):
        self.notes[what] = self.notes.get(what, 0) + 1

    def _take(self, thing):
        """A way, a relation or an area, as osmium makes them of closed ways and of multipolygons."""
        tags = dict(thing.tags)
        if thing.is_way():
            self._take_line(thing, tags)
        elif thing.is_area():
            stands = self._stands(tags, not thing.from_way())
            if stands is None or streets.is_hidden(tags):
                return
            self.whole += not thing.from_way()
            try:
                self._add(self.wkb.create_multipolygon(thing), np.nan, streets.layer_of(tags), stands)
            except RuntimeError:  # osmium makes no outline of a ring that crosses itself or stays open
                self._note("outlines that cross themselves or do not close")
        elif (
            tags.get("type") in ("multipolygon", "boundary")
            and self._stands(tags, True) is not None
            and not streets.is_hidden(tags)
        ):
            self.relations += 1

    def _stands(self, tags, multipolygon):
        """Of an outline: does a camera stand on it, does it cut out (False), or does it not matter (None)?"""
        if tags.get("building", "no") not in _OPEN_ROOFS:
            return False
        street, area = tags.get("highway"), multipolygon or tags.get("area") == "yes"
        wanted = (
            ("area_highway" in self.also and tags.get("area:highway") in self.classes)
            or ("car_parks" in self.also and tags.get("amenity") == "parking" and tags.get("parking") not in _NO_GROUND)
            or ("squares" in self.also and (tags.get("place") == "square" or (street == "pedestrian" and area)))
            or (area and street in self.classes)
        )
        return True if wanted else None

    def _take_line(self, way, tags):
        if tags.get("highway") not in self.classes or tags.get("area") == "yes" or streets.is_hidden(tags):
            return
        width, unread = streets.street_width(tags)
        if unread:
            self._note(f"width {unread!r} that cannot be read")
        layer = streets.layer_of(tags)
        try:
            self._add(self.wkb.create_linestring(way), width, layer, True)
        except (osmium.InvalidLocationError, RuntimeError):  # nodes outside the extract, or one node only
            pieces = [[]]
            for node in way.nodes:
                if node.location.valid():
                    pieces[-1].append((node.location.lon, node.location.lat))
                elif pieces[-1]:
                    pieces.append([])
            for piece in pieces:
                if len(set(piece)) > 1:
                    self._add(shapely.to_wkb(shapely.linestrings(piece), hex=True), width, layer, True)
            self._note("streets of which nodes are missing")

    def _add(self, wkb, width, layer, stands):
        self.pending.append((wkb, width, layer, stands))
        if len(self.pending) >= _CHUNK:
            self._keep()

    def _keep(self):
        """Of what is pending, keep what lies near the images."""
        if not self.pending:
            return
        wkb, *numbers = zip(*self.pending, strict=True)
        width, layer, stands = (np.array(column) for column in numbers)
        shapes = shapely.transform(
            shapely.from_wkb(np.array(wkb, object)), _project
        )  # as text all would be as long as the longest
        west, north, east, south = shapely.bounds(shapes).T
        self.extent = np.array([
            max(self.extent[0], south.max()), min(self.extent[1], west.min()),
            min(self.extent[2], north.min()), max(self.extent[3], east.max()),
        ])  # fmt: skip
        near = np.unique(self.cells.query(shapely.box(west, north, east, south))[0])
        self.kept.append((shapes[near], width[near], layer[near], stands[near]))
        self.pending = []

    def street_map(self):
        """Lines become outlines of their width; everything in painting order."""
        empty = [(np.zeros(0, object), np.zeros(0), np.zeros(0, int), np.zeros(0, bool))]
        shapes, width, layer, stands = (np.concatenate(part) for part in zip(*(self.kept or empty), strict=True))
        is_line = ~np.isnan(width)
        lines, half = shapes[is_line], width[is_line] / 2
        middle = (shapely.bounds(lines)[:, 1::2]).mean(1) if len(lines) else np.zeros(0)
        half = half / geometry.metres_per_pixel(geometry.latitude_longitude(middle, 0.0)[0])
        layers = layer[is_line]
        outlines = [shapely.buffer(lines, half, cap_style="flat", quad_segs=4)]
        discs, disc_layers = _joints(lines, half, layers)
        areas, owner = shapely.get_parts(shapes[~is_line], return_index=True)
        outlines = np.concatenate([*outlines, discs, areas])
        stands = np.concatenate([np.ones(len(lines) + len(discs), bool), stands[~is_line][owner]])
        layers = np.concatenate([layers, disc_layers, layer[~is_line][owner]])
        order = np.lexsort((~stands, layers))
        if (broken := self.relations - self.whole) > 0:
            self.notes["outlines (multipolygons) of which parts are missing"] = broken
        return StreetMap(outlines[order], stands[order], lines, self.notes)


def _project(points):
    """(n, 2) longitude, latitude -> (n, 2) x, y."""
    row, col = geometry.mercator_px(points[:, 1], points[:, 0])
    return np.stack([col, row], 1)


def _joints(lines, half, layers):
    """Discs where streets meet at their ends, and their layers: (n,) polygons, (n,).

    Lines end flat, so that a dead end is as long as it is mapped; where another goes on from there, at an angle, a disc of the
    second widest that meets fills the gap, and a wide street does not reach across a narrow one.
    """
    points, owner = shapely.get_coordinates(lines, return_index=True)
    if not len(points):
        return np.zeros(0, object), np.zeros(0, int)
    first, last = np.r_[True, owner[1:] != owner[:-1]], np.r_[owner[1:] != owner[:-1], True]
    ends = first | last
    arms = np.concatenate([np.arange(len(points)), np.flatnonzero(~ends)])  # a line leaves an inner point on both sides
    _, node = np.unique(np.rint(points * 16).astype(np.int64), axis=0, return_inverse=True)
    node = node.reshape(-1)
    some_end = np.zeros(node.max() + 1, bool)
    some_end[node[ends]] = True
    node, width, layer = node[arms], half[owner[arms]], layers[owner[arms]]
    order = np.lexsort((-width, node))
    node, width, layer, arms = node[order], width[order], layer[order], arms[order]
    new = np.r_[True, node[1:] != node[:-1]]
    second = np.r_[False, new[:-1]] & ~new & some_end[node]
    return shapely.buffer(shapely.points(points[arms[second]]), width[second], quad_segs=8), layer[second]


def _check_cover(paths, boxes, centres):
    """Raises UserError where an image's centre, (n, 2) (row, col), lies in none of the boxes."""
    beyond = geometry.outside_box(*centres.T, boxes.T[..., None]).min(0)
    if outside := int((beyond > 0).sum()):
        far = int(beyond.argmax())
        latitude, longitude = geometry.latitude_longitude(*centres[far])
        metres = beyond[far] * geometry.metres_per_pixel(latitude)
        raise UserError(
            f"{', '.join(map(str, paths))}: {outside} of {len(centres)} satellite images lie outside; the furthest, at "
            f"{latitude:.6f} {longitude:.6f}, by {geometry.distance_in_words(metres)}; give an extract that covers them "
            "(--osm takes several)"
        )
