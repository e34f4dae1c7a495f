"""Widths and layers of OpenStreetMap's ways. A width follows from its tag, else the lanes, else the class.

The classes' lanes are the defaults of OpenStreetMap's wiki (Key:lanes). Lane widths follow NACTO's Urban
Street Design Guide (10 feet in towns, 11 on bus routes); those of motorways and trunk roads follow AASHTO's
Green Book (12 feet, shoulders of 10 and 4). `kerb` is the asphalt beside the lanes: shoulders, or a row of
parked cars in residential areas.
"""

import re
from typing import NamedTuple


class Usual(NamedTuple):
    """A class of streets: lanes of both directions, and metres of a lane and of the asphalt beside."""

    lanes: int
    lane: float
    kerb: float = 0.0


CARRIAGEWAYS = {
    "motorway": Usual(4, 3.6, 4.3),
    "motorway_link": Usual(2, 3.6, 2.4),
    "trunk": Usual(4, 3.6, 2.4),
    "trunk_link": Usual(2, 3.6, 1.2),
    "primary": Usual(2, 3.35, 2.4),
    "primary_link": Usual(2, 3.35),
    "secondary": Usual(2, 3.35, 2.4),
    "secondary_link": Usual(2, 3.35),
    "tertiary": Usual(2, 3.05, 2.4),
    "tertiary_link": Usual(2, 3.05),
    "unclassified": Usual(2, 3.05),
    "residential": Usual(2, 3.05, 2.4),
    "living_street": Usual(2, 2.75),
    "road": Usual(2, 3.05),
    "busway": Usual(2, 3.35),
}
SERVICE = {"service": Usual(1, 3.05), "track": Usual(1, 2.5)}
PATHS = {
    "pedestrian": Usual(1, 4.0),
    "footway": Usual(1, 1.8),
    "path": Usual(1, 1.5),
    "cycleway": Usual(1, 2.5),
    "bridleway": Usual(1, 2.0),
}
CLASSES = {**CARRIAGEWAYS, **SERVICE, **PATHS}
_PARKED_M = {"parallel": 2.2, "diagonal": 4.3, "perpendicular": 5.0}  # depth of a row of cars
_CYCLE_LANE_M = 1.5
_WIDEST_M = 80.0  # larger widths are mapping errors
_FOOT_M = 0.3048
_NUMBER = r"(\d+(?:[.,]\d+)?)"
_METRES = re.compile(rf"{_NUMBER} ?(m|meters?|metres?|ft|feet|foot)?")
_FEET = re.compile(rf"{_NUMBER} ?['’′](?: ?{_NUMBER} ?(?:\"|''|”|″))?")


def street_width(tags):
    """(width of a carriageway in metres, the text of a width that cannot be read or None), for CLASSES."""
    unread = None
    for key in ("width:carriageway", "width", "est_width"):
        if text := tags.get(key):
            if width := parse_metres(text):
                return width, unread
            unread = text
    usual = CLASSES[tags["highway"]]
    is_ring = tags.get("junction") in ("roundabout", "circular")
    oneway = is_ring or tags.get("oneway") in ("yes", "-1", "1", "true") or tags["highway"] == "motorway"
    lanes = max(1, usual.lanes // 2) if oneway else usual.lanes
    if tags.get("lanes", "").isdecimal() and 0 < int(tags["lanes"]) < 20:
        lanes = int(tags["lanes"])
    beside = _beside_lanes(tags, oneway)
    return lanes * usual.lane + (usual.kerb if beside is None else beside), unread


def _beside_lanes(tags, oneway):
    """Metres of parked cars and bicycle lanes on a carriageway, or None if its tags do not mention them."""
    widths = []
    for key, sides in (("both", 2), ("left", 1), ("right", 1)):
        old, new = tags.get(f"parking:lane:{key}"), tags.get(f"parking:{key}")
        if new == "lane":
            orientation = tags.get(f"parking:{key}:orientation")
            widths.append(sides * _PARKED_M.get(orientation, _PARKED_M["parallel"]))
        elif old or new:
            widths.append(sides * _PARKED_M.get(old, 0.0))
        if tags.get(f"cycleway:{key}") == "lane":
            widths.append(sides * _CYCLE_LANE_M)
    if tags.get("cycleway") == "lane":
        widths.append((1 if oneway else 2) * _CYCLE_LANE_M)
    return sum(widths) if widths else None


def parse_metres(text):
    """Metres of a width as mappers write it ('6', '6 m', '5,5', '20 ft', 20', 16'3\"), or None."""
    text = text.strip().lower().replace(",", ".")
    if match := _METRES.fullmatch(text):
        metres = float(match[1]) * (_FOOT_M if (match[2] or "m").startswith("f") else 1.0)
    elif match := _FEET.fullmatch(text):
        metres = (float(match[1]) + float(match[2] or 0) / 12) * _FOOT_M
    else:
        return None
    return metres if 0 < metres <= _WIDEST_M else None


def layer_of(tags):
    """The layer of a way or area: its tag `layer`, else 1 for a bridge, else 0."""
    try:
        return int(tags["layer"])
    except (KeyError, ValueError):
        return 1 if tags.get("bridge", "no") != "no" else 0


def is_hidden(tags):
    """Whether it is invisible from above: tunnels and everything underground."""
    return tags.get("location") == "underground" or tags.get("tunnel", "no") != "no"
