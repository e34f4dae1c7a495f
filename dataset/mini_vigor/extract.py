"""mini-VIGOR's plan as an OpenStreetMap extract, as a mapper would draw it: streets by centre lines, outlines of the rest."""

import numpy as np
import osmium

from common import geometry
from common.files import replacing

_DEGREE = 10**7  # OpenStreetMap keeps coordinates as whole ten-millionths of a degree
_CLASSES = ((15, "secondary"), (12, "tertiary"), (0, "residential"))  # by the carriageway's least width, metres


def map_streets(city, segments, closed, lines):
    """Note each street from crossing to crossing, so that neighbours share a node; a closed one is a footway."""
    for segment in segments:
        axis, first, second = segment.key
        along = (first, first + 1) if axis == 0 else (second, second + 1)
        ends = lines[axis][list(along), 0]
        there = np.linspace(*ends, 2 + int((ends[1] - ends[0]) / 8))
        highway = next(name for width, name in _CLASSES if segment.width >= width)
        tags = {"highway": highway, "width": f"{segment.width:g}"}
        line = segment.place(there, np.zeros(len(there)))
        city.note(line, {"highway": "footway"} if closed[segment.key] else tags, closed=False)


def features(city):
    """Yield (tags, (n, 2) of `whole_degrees`) of what a district's map shows."""
    for outline, tags in city.mapped:
        yield tags, whole_degrees(city.to_px(outline) + city.origin)


def whole_degrees(places):
    """(n, 2) (row, col) on the map -> (n, 2) whole ten-millionths of a degree (latitude, longitude)."""
    return np.rint(np.stack(geometry.latitude_longitude(*places.T), 1) * _DEGREE).astype(np.int64)


def write_extract(path, mapped):
    """Write an extract, .osm.pbf, of features as `features` gives them; equal coordinates become one node."""
    mapped = [(tags, [tuple(point) for point in points.tolist()]) for tags, points in mapped]
    nodes = {point: number for number, point in enumerate(dict.fromkeys(p for _, points in mapped for p in points), 1)}
    (south, west), (north, east) = ([pick(values) / _DEGREE for values in zip(*nodes, strict=True)] for pick in (min, max))
    header = osmium.io.Header()
    header.add_box(osmium.osm.Box(west, south, east, north))
    with replacing(path, durable=False) as beside:
        with osmium.SimpleWriter(osmium.io.File(str(beside), "pbf"), header=header) as writer:
            for (latitude, longitude), number in nodes.items():
                location = longitude / _DEGREE, latitude / _DEGREE
                writer.add_node(osmium.osm.mutable.Node(id=number, version=1, location=location))
            for number, (tags, points) in enumerate(mapped, 1):
                refs = [nodes[point] for point in points]
                writer.add_way(osmium.osm.mutable.Way(id=number, version=1, tags=tags, nodes=refs))
