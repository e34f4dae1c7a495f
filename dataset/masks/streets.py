"""What a way of OpenStreetMap is to a camera, and how wide: by its width, else by its lanes, else as its class usually is.

The classes' lanes are those that OpenStreetMap's wiki takes for granted (Key:lanes), their widths the usual ones of NACTO's Urban
Street Design Guide (10 feet in towns, 11 where buses go) and, for motorways and trunk roads, of AASHTO's Green Book (12 feet, and
shoulders of 10 and 4). `kerb` is what asphalt has beside them: shoulders, or one row of parked cars where homes are.
"""

import re
from typing import NamedTuple


class Usual(NamedTuple):
    """A class of streets: lanes in both directions together, the width of one and of what lies beside them, metres."""

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
_PARKED = {"parallel": 2.2, "diagonal": 4.3, "perpendicular": 5.0}  # depth of a row of cars on the carriageway
_CYCLES_M = 1.5  # of a lane for bicycles
_WIDEST_M = 80.0  # what is more is a mistake of the map
_FOOT_M = 0.3048
_NUMBER = r"(\d+(?:[.,]\d+)?)"
_METRES = re.compile(rf"{_NUMBER} ?(m|meters?|metres?|ft|feet|foot)?")
_FEET = re.compile(rf"{_NUMBER} ?['’′](?: ?{_NUMBER} ?(?:\"|''|”|″))?")


def street_width(tags):
    """(width in metres of the carriageway of a way in CLASSES, the text of a width that could not be read or None)."""
    unread = None
    for key in ("width:carriageway", "width", "est_width"):
        if text := tags.get(key):
            if width := parse_metres(text):
                return width, unread
            unread = text
    usual = CLASSES[tags["highway"]]
    oneway = tags.get("oneway") in ("yes", "-1", "1", "true") or tags.get("junction") in ("roundabout", "circular")
    oneway = oneway or tags["highway"] == "motorway"
    lanes = max(1, usual.lanes // 2) if oneway else usual.lanes
    if tags.get("lanes", "").isdecimal() and 0 < int(tags["lanes"]) < 20:
        lanes = int(tags["lanes"])
    beside = _beside(tags, oneway)
    return lanes * usual.lane + (usual.kerb if beside is None else beside), unread


def _beside(tags, oneway):
    """Metres of parked cars and bicycle lanes that a carriageway's tags tell of, None where they tell nothing."""
    metres, told = 0.0, False
    for key, sides in (("both", 2), ("left", 1), ("right", 1)):
        old, new = tags.get(f"parking:lane:{key}"), tags.get(f"parking:{key}")
        told |= bool(old or new)
        if new == "lane":
            metres += sides * _PARKED.get(tags.get(f"parking:{key}:orientation"), _PARKED["parallel"])
        elif old in _PARKED:
            metres += sides * _PARKED[old]
        if tags.get(f"cycleway:{key}") == "lane":
            metres, told = metres + sides * _CYCLES_M, True
    if tags.get("cycleway") == "lane":
        metres, told = metres + (1 if oneway else 2) * _CYCLES_M, True
    return metres if told else None


def parse_metres(text):
    """A width as mappers write it ('6', '6 m', '5,5', '20 ft', 20', 16'3\") in metres, or None for what is no width."""
    text = text.strip().lower()
    if match := _METRES.fullmatch(text):
        metres = _number(match[1]) * (_FOOT_M if (match[2] or "m").startswith("f") else 1.0)
    elif match := _FEET.fullmatch(text):
        metres = _number(match[1]) * _FOOT_M + _number(match[2] or "0") * _FOOT_M / 12
    else:
        return None
    return metres if 0 < metres <= _WIDEST_M else None


def _number(text):
    return float(text.replace(",", "."))


def layer_of(tags):
    """How high a thing lies: its `layer`, else 1 for a bridge, else 0."""
    try:
        return int(tags["layer"])
    except (KeyError, ValueError):
        return 1 if tags.get("bridge", "no") != "no" else 0


def is_hidden(tags):
    """Whether a satellite cannot see it: tunnels and what lies underground."""
    return tags.get("location") == "underground" or tags.get("tunnel", "no") != "no"
