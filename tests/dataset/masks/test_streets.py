"""How wide streets are, from the tags that mappers write."""

import pytest

from dataset.masks.streets import is_hidden, layer_of, parse_metres, street_width


@pytest.mark.parametrize(
    ("text", "metres"),
    [
        *((text, 6.0) for text in ("6", "6 m", "6m")),
        *((text, 5.5) for text in ("5,5", "5.5")),
        *((text, 6.096) for text in ("20'", "20 ft", "20 feet")),
        *((text, 4.953) for text in ("16'3\"", "16’3”")),
        ("7 metres", 7.0),
        *((text, None) for text in ("narrow", "3;4", "0", "1200", "")),
    ],
)
def test_widths_as_mappers_write_them(text, metres):
    assert parse_metres(text) == (None if metres is None else pytest.approx(metres))


def width(highway="residential", **tags):
    return street_width({"highway": highway, **tags})[0]


def test_a_width_wins_over_lanes_and_lanes_over_the_class():
    assert width(width="11", lanes="2") == 11
    assert width(lanes="4") > width(lanes="2") == width()
    assert street_width({"highway": "residential", "width:carriageway": "9", "width": "15"}) == (9, None)


def test_a_width_that_cannot_be_read_is_returned_and_ignored():
    assert street_width({"highway": "residential", "width": "narrow"}) == (width(), "narrow")


def test_one_way_streets_have_half_the_lanes_of_their_class():
    both, one = width("secondary"), width("secondary", oneway="yes")
    assert both - one == pytest.approx(3.35)
    assert width("secondary", oneway="-1") == width("secondary", junction="roundabout") == one
    assert width("secondary", oneway="yes", lanes="3") > both  # but a number of lanes counts as it is
    assert width("secondary", oneway="no") == both


@pytest.mark.parametrize(
    ("tags", "metres"),
    [
        ({"parking:both": "no"}, 0),
        ({"parking:both": "lane"}, 2 * 2.2),
        ({"parking:right": "lane", "parking:right:orientation": "perpendicular"}, 5),
        ({"parking:lane:left": "diagonal"}, 4.3),
        ({"cycleway": "lane"}, 3),
        ({"cycleway:right": "lane"}, 1.5),
    ],
)
def test_parked_cars_and_bicycle_lanes_lie_on_the_carriageway(tags, metres):
    assert width("tertiary", lanes="2", **tags) == pytest.approx(2 * 3.05 + metres)


def test_layers_and_tunnels():
    assert layer_of({}) == layer_of({"layer": "x"}) == 0
    assert layer_of({"bridge": "yes"}) == 1
    assert layer_of({"layer": "-1"}) == -1 and layer_of({"layer": "2", "bridge": "yes"}) == 2
    hidden = {"tunnel": "yes"}, {"tunnel": "building_passage"}, {"location": "underground"}
    assert all(map(is_hidden, hidden))
    assert not is_hidden({"tunnel": "no"}) and not is_hidden({"layer": "-1"})  # an open cutting
