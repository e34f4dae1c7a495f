"""Masks from hand-written extracts: where a camera may stand, exactly, and unsound mapping."""

import tracemalloc

import numpy as np
import pytest
import shapely

from common import geometry
from common.errors import UserError
from dataset.masks.draw import draw_mask
from dataset.masks.osm import read_map

LATITUDE, LONGITUDE = 52.0114, 4.3584
CORNER = np.rint(np.array(geometry.mercator_px(LATITUDE, LONGITUDE))) - 320  # of the satellite image
METRE = 1 / geometry.metres_per_pixel(LATITUDE)  # in pixels


def gps(row, col):
    """Latitude and longitude of a position in the satellite image."""
    return geometry.latitude_longitude(*(CORNER + (row, col)))


def extract(path, ways=(), relations=(), bounds=True):
    """Write an .osm file.

    ways: (tags, [(row, col), or None for a missing node]) · relations: (tags, [(number of a way, role)]).
    """
    nodes, parts = {}, []

    def add(kind, number, tags, members):
        members += "".join(f'<tag k="{key}" v="{value}"/>' for key, value in tags.items())
        parts.append(f'<{kind} id="{number}" version="1">{members}</{kind}>')

    for number, (tags, points) in enumerate(ways, 1):
        refs = [nodes.setdefault(tuple(point), len(nodes) + 1) if point else 999_999 for point in points]
        add("way", number, tags, "".join(f'<nd ref="{ref}"/>' for ref in refs))
    for number, (tags, members) in enumerate(relations, 1):
        members = [f'<member type="way" ref="{way}" role="{role}"/>' for way, role in members]
        add("relation", number, tags, "".join(members))
    for point, number in nodes.items():
        latitude, longitude = gps(*point)
        parts.insert(0, f'<node id="{number}" version="1" lat="{latitude:.7f}" lon="{longitude:.7f}"/>')
    (south, west), (north, east) = gps(900, -300), gps(-300, 900)
    box = f'<bounds minlat="{south}" minlon="{west}" maxlat="{north}" maxlon="{east}"/>' if bounds else ""
    path.write_text(f'<osm version="0.6">{box}{"".join(parts)}</osm>')
    return path


@pytest.fixture
def mask(tmp_path):
    """A function that draws the mask of an extract with these ways and relations."""

    def draw(ways=(), relations=(), also=("area_highway",)):
        streets = read_map([extract(tmp_path / "town.osm", ways, relations)], [CORNER], also)
        drawn = draw_mask(*streets.around(CORNER), CORNER)
        assert drawn.shape == (640, 640) and set(np.unique(drawn)) <= {0, 255}
        draw.notes = streets.notes
        return drawn > 0

    return draw


STREET = {"highway": "residential", "width": "8"}
ACROSS = [(300.0, 0.0), (300.0, 640.0)]
SQUARE = [(200, 200), (200, 440), (440, 440), (440, 200), (200, 200)]


def block(top, left, bottom, right):
    return [(top, left), (top, right), (bottom, right), (bottom, left), (top, left)]


def test_a_street_lies_where_it_is_mapped(mask):
    drawn = mask([(STREET, [(100.0, -50.0), (100.0, 700.0)])])
    rows = np.flatnonzero(drawn.any(1))
    assert drawn[rows].all()  # from edge to edge
    assert rows.mean() + 0.5 == pytest.approx(100, abs=0.26)  # OpenStreetMap's digits are 0.1 px here
    assert len(rows) == pytest.approx(8 * METRE, abs=1.5)


def test_pixels_are_those_that_the_outline_holds(mask):
    """To half a pixel at the border, which OpenCV draws, and without a shift."""
    outline = [(100.3, 150.7), (180.2, 460.1), (420.9, 510.4), (350.5, 90.2), (100.3, 150.7)]
    drawn = mask([({"area:highway": "residential"}, outline)])
    polygon = shapely.Polygon([(col, row) for row, col in outline])
    rows, cols = np.mgrid[:640, :640] + 0.5
    centres = shapely.points(cols.ravel(), rows.ravel())
    far = shapely.distance(polygon.exterior, centres).reshape(640, 640) > 1
    assert (drawn == shapely.contains(polygon, centres).reshape(640, 640))[far].all()
    middle = np.argwhere(drawn).mean(0) + 0.5
    assert middle == pytest.approx([polygon.centroid.y, polygon.centroid.x], abs=0.15)


def test_rows_and_columns_are_not_swapped(mask):
    drawn = mask([(STREET, [(10.0, 500.0), (200.0, 500.0)])])
    assert drawn[100, 500] and not drawn[500, 100] and not drawn[300, 500]


def test_a_dead_end_is_as_long_as_mapped_and_a_bend_has_no_gap(mask):
    drawn = mask([(STREET, [(100.0, 100.0), (100.0, 300.0)]), (STREET, [(100.0, 300.0), (300.0, 400.0)])])
    assert not drawn[100, 95] and drawn[100, 105]
    angles, radius = np.radians(np.arange(0, 63, 5)), 4 * METRE - 2  # outside of the bend, between both sides
    rows, cols = 100 - radius * np.cos(angles), 300 + radius * np.sin(angles)
    assert drawn[rows.astype(int), cols.astype(int)].all()


def test_a_wide_street_does_not_reach_across_a_narrow_one(mask):
    narrow, wide = {"highway": "residential", "width": "4"}, {"highway": "secondary", "width": "24"}
    crossing = [(300.0, 0.0), (300.0, 320.0), (300.0, 640.0)]
    drawn = mask([(narrow, crossing), (wide, [(640.0, 320.0), (300.0, 320.0)])])
    assert drawn[310, 320] and drawn[300, 320]
    assert not drawn[300 - int(2 * METRE) - 4, 320]


def test_a_way_that_leaves_the_extract_keeps_what_is_there(mask):
    drawn = mask([(STREET, [(100.0, 0.0), (100.0, 200.0), None, (100.0, 400.0), (100.0, 640.0)])])
    assert drawn[100, 100] and drawn[100, 500] and not drawn[100, 300]
    assert mask.notes == {"streets with missing nodes": 1}


def test_a_roundabout_is_a_ring(mask):
    turn = np.radians(np.arange(0, 361, 10))
    ring = [(320 + 150 * np.sin(a), 320 + 150 * np.cos(a)) for a in turn[:-1]]
    tags = {"highway": "tertiary", "junction": "roundabout", "width": "6"}
    drawn = mask([(tags, [*ring, ring[0]])])
    assert drawn[170, 320] and drawn[320, 470] and drawn[470, 320] and drawn[320, 170]
    assert not drawn[320, 320]


def test_a_square_with_a_hole(mask):
    ways = [({}, SQUARE), ({}, block(280, 280, 360, 360))]
    relation = ({"type": "multipolygon", "highway": "pedestrian"}, [(1, "outer"), (2, "inner")])
    assert not mask(ways, [relation]).any()  # squares are asked for
    drawn = mask(ways, [relation], also=("squares",))
    assert drawn[220, 220] and not drawn[320, 320] and not drawn[150, 320]


def test_a_multipolygon_with_missing_parts_is_noted(mask):
    relation = ({"type": "multipolygon", "highway": "pedestrian"}, [(1, "outer"), (77, "outer")])
    assert not mask([({}, [(200, 200), (200, 440), (440, 440)])], [relation], also=("squares",)).any()
    assert mask.notes == {"outlines (multipolygons) with missing parts": 1}


def test_unsound_outlines_do_not_spoil_the_extract(mask):
    """A ring that crosses itself, an open one, and a boundary, as in real extracts."""
    bow = ({"building": "yes"}, [(100, 100), (200, 200), (100, 200), (200, 100), (100, 100)])
    opened = ({}, [(200, 200), (200, 440), (440, 440)])
    relations = [
        ({"type": "multipolygon", "building": "yes"}, [(3, "outer")]),
        ({"type": "boundary", "place": "square"}, [(4, "outer")]),
    ]
    drawn = mask([(STREET, ACROSS), bow, opened, ({}, SQUARE)], relations, also=("squares",))
    assert drawn[300, 100] and drawn[320, 320]
    assert all(note.startswith("outlines") for note in mask.notes) and sum(mask.notes.values()) == 2


def test_one_long_way_does_not_make_all_others_as_long(mask):
    """Memory: a way may have 2,000 nodes."""
    long = (STREET, [(600.0, col) for col in np.linspace(0, 600, 2000)])
    short = [(STREET, [(float(row), 10.0), (float(row), 14.0)]) for row in np.linspace(0, 500, 3000)]
    tracemalloc.start()
    mask([long, *short])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


def test_a_multi_storey_car_park_is_a_building(mask):
    tags = {"building": "parking", "amenity": "parking", "parking": "multi-storey"}
    drawn = mask([(STREET, ACROSS), (tags, block(280, 200, 330, 300))], also=("car_parks",))
    assert drawn[300, 100] and not drawn[300, 250]


def test_buildings_cut_out_and_bridges_lie_above_them(mask):
    street, house = (STREET, ACROSS), ({"building": "yes"}, block(280, 200, 330, 300))
    drawn = mask([street, house])
    assert drawn[300, 100] and not drawn[300, 250]
    bridge = ({**STREET, "bridge": "yes"}, street[1])
    assert mask([bridge, house])[300, 250]
    roof = ({"building": "roof"}, house[1])
    assert mask([street, roof])[300, 250]  # of a petrol station


def test_a_bridge_over_a_street(mask):
    bridge = {**STREET, "bridge": "yes", "layer": "1"}
    drawn = mask([(STREET, [(0.0, 320.0), (640.0, 320.0)]), (bridge, ACROSS)])
    assert drawn[300, 100] and drawn[100, 320] and drawn[300, 320]
    assert not mask([({**STREET, "tunnel": "yes", "layer": "-1"}, ACROSS)]).any()


def test_what_counts_beside_carriageways_is_asked_for(mask):
    ways = {
        "service": ({"highway": "service"}, [(100.0, 0.0), (100.0, 640.0)]),
        "paths": ({"highway": "footway"}, [(200.0, 0.0), (200.0, 640.0)]),
        "car_parks": ({"amenity": "parking"}, block(300, 100, 400, 500)),
        "area_highway": ({"area:highway": "residential"}, block(450, 100, 500, 500)),
        "squares": ({"place": "square"}, block(550, 100, 600, 500)),
    }
    rows = {"service": 100, "paths": 200, "car_parks": 350, "area_highway": 475, "squares": 575}
    for kind in ways:
        drawn = mask(list(ways.values()), also=(kind,))
        assert {name for name, row in rows.items() if drawn[row, 300]} == {kind}
    underground = {"amenity": "parking", "parking": "underground"}
    assert not mask([(underground, ways["car_parks"][1])], also=("car_parks",)).any()


def test_points_along_centre_lines_lie_inside_the_image_and_apart(tmp_path):
    path = extract(tmp_path / "town.osm", [(STREET, [(100.0, -200.0), (100.0, 900.0)])])
    points = read_map([path], [CORNER]).points(CORNER, 64)
    assert points[:, 0] == pytest.approx(100, abs=0.3) and len(points) == 10
    assert np.diff(np.sort(points[:, 1])) == pytest.approx(64, abs=0.1)
    assert ((points >= 0) & (points < 640)).all()


def test_a_large_extract_s_nodes_may_lie_on_the_disk(mask, monkeypatch):
    ways = [(STREET, [(100.0, 0.0), (100.0, 640.0)]), ({"building": "yes"}, block(90, 100, 120, 200))]
    drawn = mask(ways)
    monkeypatch.setattr("dataset.masks.osm.LARGE_BYTES", 0)
    assert drawn.any() and np.array_equal(mask(ways), drawn)


def test_an_extract_of_another_place_says_how_far(tmp_path):
    path = extract(tmp_path / "town.osm", [(STREET, [(100.0, 0.0), (100.0, 640.0)])])
    with pytest.raises(UserError, match=r"town.osm: 1 of 2 satellite images lie outside.* by (9|10)\.\d"):
        read_map([path], [CORNER, CORNER + (0, 10_000 * METRE)])


def test_several_extracts_count_together(tmp_path):
    first = extract(tmp_path / "a.osm", [(STREET, [(100.0, 0.0), (100.0, 640.0)])], bounds=False)
    second = extract(tmp_path / "b.osm", [(STREET, [(100.0, 0.0), (600.0, 640.0)])], bounds=False)
    with pytest.raises(UserError, match="lie outside"):  # without a stated box, what there is is the box
        read_map([first], [CORNER])
    drawn = draw_mask(*read_map([first, second], [CORNER]).around(CORNER), CORNER)
    assert drawn[100, 600] and drawn[600, 639]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("town.osm", b"<osm><node", "not a whole OpenStreetMap extract"),
        ("town.osm.pbf", b"\x00\x00\x00\x0d\x0a\x09OSMHeader", "not a whole OpenStreetMap extract"),
        ("town.osm", b'<osm version="0.6"></osm>', "neither a street nor a building"),
        ("town.shp", b"", "not the name of an extract"),
    ],
)
def test_files_that_are_no_extract(tmp_path, name, content, says):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=says) as error:
        read_map([path], [CORNER])
    assert name in str(error.value) and "\n" not in str(error.value)
