"""How wide streets are, from the tags that mappers write."""

import pytest

from dataset.masks.streets import is_hidden, layer_of, parse_metres, street_width


@pytest.mark.parametrize(
    ("text", "metres"),
    [
        ("6", 6.0),
        ("6 m", 6.0),
        ("6m", 6.0),
        ("5,5", 5.5),
        ("5.5", 5.5),
        ("7 metres", 7.0),
        ("20'", 6.096),
        ("20 ft", 6.096),
        ("20 feet", 6.096),
        ("16'3\"", 4.953),
        ("16’3”", 4.953),
        ("narrow", None),
        ("3;4", None),
        ("0", None),
        ("1200", None),
        ("", None),
    ],
)
def test_widths_as_mappers_write_them(text, metres):
    assert parse_metres(text) == (None if metres is None else pytest.approx(metres))


def width(**tags):
    return street_width({key.replace("_", ":", 1) if key.startswith("parking") else key: value for key, value in tags.items()})[0]


def test_a_width_wins_over_lanes_and_lanes_over_the_class():
    usual = width(highway="residential")
    assert width(highway="residential", width="11", lanes="2") == 11
    assert width(highway="residential", lanes="4") > width(highway="residential", lanes="2") == usual
    assert street_width({"highway": "residential", "width:carriageway": "9", "width": "15"}) == (9, None)


def test_a_width_that_cannot_be_read_is_told_and_does_without():
    assert street_width({"highway": "residential", "width": "narrow"}) == (width(highway="residential"), "narrow")


def test_one_way_streets_have_half_the_lanes_of_their_class():
    both, one = width(highway="secondary"), width(highway="secondary", oneway="yes")
    assert both - one == pytest.approx(3.35)
    assert width(highway="secondary", oneway="-1") == width(highway="secondary", junction="roundabout") == one
    assert width(highway="secondary", oneway="yes", lanes="3") > both  # but a number of lanes counts as it is
    assert width(highway="secondary", oneway="no") == both


def test_parked_cars_and_bicycle_lanes_lie_on_the_carriageway():
    bare = street_width({"highway": "tertiary", "lanes": "2", "parking:both": "no"})[0]
    assert bare == pytest.approx(2 * 3.05)
    assert street_width({"highway": "tertiary", "lanes": "2", "parking:both": "lane"})[0] == pytest.approx(bare + 2 * 2.2)
    tags = {"highway": "tertiary", "lanes": "2", "parking:right": "lane", "parking:right:orientation": "perpendicular"}
    assert street_width(tags)[0] == pytest.approx(bare + 5)
    assert street_width({"highway": "tertiary", "lanes": "2", "parking:lane:left": "diagonal"})[0] == pytest.approx(bare + 4.3)
    assert street_width({"highway": "tertiary", "lanes": "2", "cycleway": "lane"})[0] == pytest.approx(bare + 3)


def test_layers_and_tunnels():
    assert layer_of({}) == layer_of({"layer": "x"}) == 0
    assert layer_of({"bridge": "yes"}) == 1
    assert layer_of({"layer": "-1"}) == -1 and layer_of({"layer": "2", "bridge": "yes"}) == 2
    assert is_hidden({"tunnel": "yes"}) and is_hidden({"tunnel": "building_passage"}) and is_hidden({"location": "underground"})
    assert not is_hidden({"tunnel": "no"}) and not is_hidden({"layer": "-1"})  # an open cutting
