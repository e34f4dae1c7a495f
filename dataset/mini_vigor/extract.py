"""mini-VIGOR's plan as an OpenStreetMap extract: centre lines of streets, outlines of everything else."""

from itertools import chain

import numpy as np
import osmium

from common import geometry
from common.files import replacing

_DEGREE = 10**7  # OpenStreetMap keeps coordinates as whole ten-millionths of a degree
_CLASSES = {"secondary": 15, "tertiary": 12, "residential": 0}  # least width of the carriageway, metres


def map_streets(city, segments, closed, lines):
    """Record streets from crossing to crossing, so that neighbours share nodes. Closed ones are footways."""
    for segment in segments:
        first = segment.key[1 + segment.axis]
        start, stop = lines[segment.axis][first : first + 2, 0]
        along = np.linspace(start, stop, 2 + int((stop - start) / 8))
        highway = next(name for name, width in _CLASSES.items() if segment.width >= width)
        tags = {"highway": highway, "width": f"{segment.width:g}"}
        tags = {"highway": "footway"} if closed[segment.key] else tags
        city.note(segment.place(along, np.zeros(len(along))), tags, closed=False)


def features(city):
    """[(tags, (n, 2) of `whole_degrees`), ...] of the objects on a district's map."""
    return [(tags, whole_degrees(city.to_px(outline) + city.origin)) for outline, tags in city.mapped]


def whole_degrees(places):
    """(n, 2) (row, col) on the map -> (n, 2) whole ten-millionths of a degree (latitude, longitude)."""
    return np.rint(np.stack(geometry.latitude_longitude(*places.T), 1) * _DEGREE).astype(np.int64)


def write_extract(path, mapped):
    """Write an .osm.pbf extract of what `features` returns; equal coordinates become one node."""
    ways = [(tags, list(map(tuple, points.tolist()))) for tags, points in mapped]
    points = dict.fromkeys(chain.from_iterable(line for _, line in ways))
    nodes = {point: number for number, point in enumerate(points, 1)}
    latitudes, longitudes = np.array(list(nodes)).T / _DEGREE
    header = osmium.io.Header()
    header.add_box(osmium.osm.Box(longitudes.min(), latitudes.min(), longitudes.max(), latitudes.max()))
    with replacing(path, durable=False) as beside:
        with osmium.SimpleWriter(osmium.io.File(str(beside), "pbf"), header=header) as writer:
            for number, location in enumerate(zip(longitudes.tolist(), latitudes.tolist(), strict=True), 1):
                writer.add_node(osmium.osm.mutable.Node(id=number, version=1, location=location))
            for number, (tags, points) in enumerate(ways, 1):
                refs = [nodes[point] for point in points]
                writer.add_way(osmium.osm.mutable.Way(id=number, version=1, tags=tags, nodes=refs))
