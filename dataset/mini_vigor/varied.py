"""Varied districts: each draws its `Style` from wide distributions, so that they share no appearance."""

import colorsys
from dataclasses import replace

import numpy as np

from dataset.mini_vigor.city import TABLES, WHITE, uniform

_KINDS = TABLES["kinds"]
_OWN = ("clear", "traffic", "avenues", "works", "kiosks", "fields", "woods", "farms", "plot", "hedges")
_OWN += ("shoulder", "ditches", "unpaved", "wires", "twins", "sheds", "railways")


def draw_style(rng, base, styles="varied"):
    """A `Style` for a district, drawn within the bounds in styles.yaml; `base` is the city's.

    styles: 'varied', for one of its kinds of districts, or the name of another table of bounds.
    """
    kind = rng.choice(len(_KINDS["often"]), p=_KINDS["often"])
    kinds = {name: bounds[kind] for name, bounds in _KINDS.items()}
    bounds = TABLES["varied"] | (kinds if styles == "varied" else TABLES[styles])

    def draw(*names):
        return {name: uniform(rng, *bounds[name]) for name in names}

    def pair(name):
        return tuple(rng.uniform(*bounds[name], 2).tolist())

    narrow, wide = sorted(pair("width"))
    low, high = (rng.uniform(*limits) for limits in bounds["storeys"])
    lot = rng.uniform(bounds["lot"][0], np.mean(bounds["lot"]))
    setback = tuple(sorted(pair("setback")))
    grey = rng.uniform(*bounds["grey"])
    paving = _grey(rng, rng.uniform(max(105, grey + 10), 215), 16)
    verge = rng.uniform(*bounds["verge"])
    verge = verge if verge >= 0.8 else 0.0
    lawn, leaves = _lawn(rng), _leaves(rng)
    walls, roofs = _walls_and_roofs(rng)
    yellow = rng.random() < 0.35
    lean = uniform(rng, *bounds["lean"])
    overcast = rng.random() < bounds["overcast"]
    return replace(
        base,
        **draw("turn_deg", "skew", "bend"),
        swing=pair("swing"),
        block=pair("block"),
        streets=(narrow, (narrow + wide) / 2, wide),
        pavement=rng.uniform(*bounds["pavement"]) + verge,
        lot=(lot, lot + rng.uniform(3, 14)),
        setback=setback,
        storeys=(low, max(low, high)),
        depth=tuple(bounds["depth"]),
        **draw("green", "parks", "closed", "parked"),
        asphalt=_grey(rng, grey, 9),
        paving=paving,
        lawn=_rgb(lawn, 15, 225),
        walls=walls,
        roofs=roofs,
        leaves=leaves,
        centre_line=(222, 178, 52) if yellow else WHITE,
        gables=rng.random() < 0.6,
        sun_deg=(rng.uniform(0, 360), rng.uniform(14, 72)),
        shade=rng.uniform(0.85, 1.0) if overcast else rng.uniform(*bounds["shade"]),
        satellite_cast=(1.0, 1.0, 1.0),
        panorama_cast=(1.0, 1.0, 1.0),
        outside=0.08,
        **draw("marked"),
        paint=_grey(rng, rng.uniform(175, 240), 6),
        **draw("wear", "kerb"),
        kerb_colour=_grey(rng, rng.uniform(110, 225), 10),
        ground=_rgb(lawn * rng.uniform(0.9, 1.1), 15, 225) if verge else None,
        verge=verge,
        **draw("footpath", "corner", "driveways", "islands", "roundabouts", "medians", "slips", "edges"),
        **draw("hatchings", "words", "squares", "fences", "patchy"),
        boxes=rng.uniform(0, 0.6) ** 2,
        **draw("mixed", "poles"),
        crowns=tuple(sorted(pair("crowns"))),
        tops=tuple(sorted(pair("tops"))),
        under_trees=True,
        **draw("edge_of_crown", "ragged", "soft", "blue"),
        lean_deg=(lean, rng.uniform(0, 360)),
        **draw(*(name for name in _OWN if name in bounds)),
    )


def _lawn(rng):
    """Green or dry grass, sometimes soil: a colour (3,), not clipped."""
    lawn = _blend((70, 112, 58), (158, 140, 98), rng.uniform())
    lawn = lawn * rng.uniform(0.65, 1.15) + rng.normal(0, 6, 3)
    return np.array((124, 98, 74)) * rng.uniform(0.7, 1.15) if rng.random() < 0.12 else lawn


def _leaves(rng):
    """The darkest and the lightest colour of leaves, sometimes autumn's."""
    dark = _blend((32, 58, 30), (66, 62, 40), rng.uniform()) * rng.uniform(0.7, 1.3)
    light = dark * rng.uniform(1.5, 2.6) + rng.uniform(0, 25)
    if rng.random() < 0.12:
        dark, light = dark * (1.5, 0.9, 0.7), light * (1.35, 0.85, 0.55)
    return _rgb(dark, 8, 150), _rgb(light, 30, 215)


def _walls_and_roofs(rng):
    """Lists of colours: of six walls, some of them bright, and of five roofs, some of them tiles."""
    walls, roofs = [], []
    for _ in range(6):
        hue = rng.uniform(0, 1) if rng.random() < 0.25 else rng.uniform(0.02, 0.13)
        walls.append(_colour(rng, hue, 0.42, 0.35, 0.95))
    for _ in range(5):
        hue, saturation = rng.uniform(0.02, 0.1), 0.6 if rng.random() < 0.4 else 0.15
        roofs.append(_colour(rng, hue, saturation, 0.25, 0.9))
    return walls, roofs


def _blend(first, last, share):
    return np.array(first, float) + (np.array(last, float) - first) * share


def _rgb(values, low, high):
    return tuple(np.clip(values, low, high).tolist())


def _grey(rng, value, tint):
    """A grey with a warm or a cold tone."""
    warm = rng.normal(0, tint / 2)
    return _rgb((value + warm, value + rng.normal(0, tint / 5), value - warm), 8, 245)


def _colour(rng, hue, saturation, darkest, lightest):
    """A colour of a hue, with a saturation from 0 up and a value between two bounds."""
    rgb = colorsys.hsv_to_rgb(hue, rng.uniform(0, saturation), rng.uniform(darkest, lightest))
    return tuple(255 * channel for channel in rgb)
