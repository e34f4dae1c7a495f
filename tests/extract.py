"""A small OpenStreetMap extract, for tests."""

from common import geometry


def write_extract(path, ends):
    """An extract with one residential street between two positions (row, col) on the map; its path."""
    places = [geometry.latitude_longitude(*end) for end in ends]
    nodes = [f'<node id="{n}" lat="{a:.9f}" lon="{b:.9f}"/>' for n, (a, b) in enumerate(places, 1)]
    south, west = (min(side) - 0.01 for side in zip(*places, strict=True))
    north, east = (max(side) + 0.01 for side in zip(*places, strict=True))
    bounds = f'<bounds minlat="{south}" minlon="{west}" maxlat="{north}" maxlon="{east}"/>'
    way = '<way id="9"><nd ref="1"/><nd ref="2"/><tag k="highway" v="residential"/></way>'
    path.write_text(f'<osm version="0.6">{bounds}{"".join(nodes)}{way}</osm>')
    return path
