"""Districts that differ: a `Style` drawn from wide distributions, for worlds whose appearance holds no habit to lean on."""

import colorsys
from dataclasses import replace

import numpy as np

# What a district is -> bounds of its plan, metres and shares, each drawn on its own.
KINDS = {
    "suburb": dict(
        block=(70, 150), width=(5.5, 11), pavement=(1.6, 5), storeys=((1, 1), (1, 2.6)), lot=(14, 28),
        setback=(4, 10), green=(0.6, 1), parks=(0.1, 0.35), closed=(0.05, 0.3), parked=(0.02, 0.25), bend=(2, 16),
        verge=(1.5, 7), corner=(4, 9), driveways=(0.3, 0.95), islands=(0, 0.5), roundabouts=(0, 0.15),
        crowns=(1.6, 5.5), marked=(0.2, 1), poles=(25, 80), squares=(0, 0.06), fences=(0, 0.7),
    ),
    "town": dict(
        block=(55, 115), width=(6, 15), pavement=(2, 5), storeys=((1, 2), (2, 6)), lot=(8, 20), setback=(0, 5),
        green=(0.2, 0.9), parks=(0.03, 0.15), closed=(0.03, 0.15), parked=(0.1, 0.5), bend=(0, 9), verge=(0, 2.5),
        corner=(2, 7), driveways=(0, 0.4), islands=(0, 0.4), roundabouts=(0, 0.06), crowns=(1.2, 4), marked=(0.5, 1),
        poles=(12, 50), squares=(0, 0.15), fences=(0, 0.5),
    ),
    "downtown": dict(
        block=(55, 110), width=(7, 22), pavement=(2.5, 6), storeys=((2, 5), (5, 17)), lot=(9, 34), setback=(0, 1.5),
        green=(0.05, 0.5), parks=(0.02, 0.1), closed=(0, 0.1), parked=(0.1, 0.45), bend=(0, 5), verge=(0, 0),
        corner=(1, 6), driveways=(0, 0.1), islands=(0, 0.5), roundabouts=(0, 0.03), crowns=(1.2, 3.2),
        marked=(0.6, 1), poles=(8, 30), squares=(0, 0.2), fences=(0, 0.05),
    ),
    "parkland": dict(
        block=(90, 180), width=(5, 12), pavement=(2, 6), storeys=((1, 1), (1, 3)), lot=(16, 36), setback=(5, 12),
        green=(0.8, 1), parks=(0.45, 0.85), closed=(0.1, 0.4), parked=(0, 0.1), bend=(4, 20), verge=(3, 9),
        corner=(5, 12), driveways=(0.2, 0.8), islands=(0, 0.6), roundabouts=(0, 0.2), crowns=(2, 6), marked=(0.3, 1),
        poles=(40, 120), squares=(0, 0.1), fences=(0, 0.4),
    ),
}  # fmt: skip
OFTEN = {"suburb": 0.38, "town": 0.27, "downtown": 0.2, "parkland": 0.15}


def draw_style(rng, base):
    """A `Style` for a district at the place of another one, `base`."""
    kind = KINDS[rng.choice(list(OFTEN), p=list(OFTEN.values()))]

    def between(name):
        return float(rng.uniform(*kind[name]))

    narrow, wide = sorted(rng.uniform(*kind["width"], 2))
    storeys = tuple(float(rng.uniform(*bounds)) for bounds in kind["storeys"])
    lot = float(rng.uniform(kind["lot"][0], np.mean(kind["lot"])))
    setback = sorted(rng.uniform(*kind["setback"], 2).tolist())
    grey = rng.uniform(52, 150)
    paving = _grey(rng, rng.uniform(max(105, grey + 10), 215), 16)
    verge = between("verge")
    dry = rng.uniform()
    lawn = _mix((70, 112, 58), (158, 140, 98), dry) * rng.uniform(0.65, 1.15) + rng.normal(0, 6, 3)
    if rng.random() < 0.12:
        lawn = np.array((124, 98, 74)) * rng.uniform(0.7, 1.15)  # soil
    leaf = _mix((32, 58, 30), (66, 62, 40), rng.uniform()) * rng.uniform(0.7, 1.3)
    light = leaf * rng.uniform(1.5, 2.6) + rng.uniform(0, 25)
    if rng.random() < 0.12:  # autumn
        leaf, light = leaf * (1.5, 0.9, 0.7), light * (1.35, 0.85, 0.55)
    walls = [
        _colour(rng, rng.uniform(0, 1) if rng.random() < 0.25 else rng.uniform(0.02, 0.13), (0, 0.42), (0.35, 0.95))
        for _ in range(6)
    ]
    roofs = [_colour(rng, rng.uniform(0.02, 0.1), (0, 0.6 if rng.random() < 0.4 else 0.15), (0.25, 0.9)) for _ in range(5)]
    yellow = rng.random() < 0.35
    lean = rng.uniform(1, 14) if rng.random() < 0.6 else 0.0
    overcast = rng.random() < 0.25
    return replace(
        base,
        turn_deg=float(rng.uniform(-45, 45)),
        skew=float(rng.uniform(-0.25, 0.25) if rng.random() < 0.3 else 0.0),
        bend=between("bend"),
        swing=tuple(rng.uniform(34, 90, 2).tolist()),
        block=tuple(rng.uniform(*kind["block"], 2).tolist()),
        streets=(narrow, (narrow + wide) / 2, wide),
        pavement=between("pavement") + (verge if verge >= 0.8 else 0.0),
        lot=(lot, lot + float(rng.uniform(3, 14))),
        setback=tuple(setback),
        storeys=(storeys[0], max(storeys)),
        green=between("green"),
        parks=between("parks"),
        closed=between("closed"),
        parked=between("parked"),
        asphalt=tuple(_grey(rng, grey, 9)),
        paving=tuple(paving),
        lawn=tuple(np.clip(lawn, 15, 225)),
        walls=tuple(walls),
        roofs=tuple(roofs),
        leaves=(tuple(np.clip(leaf, 8, 150)), tuple(np.clip(light, 30, 215))),
        centre_line=(222, 178, 52) if yellow else (226, 226, 220),
        gables=bool(rng.random() < 0.6),
        sun_deg=(float(rng.uniform(0, 360)), float(rng.uniform(14, 72))),
        shade=float(rng.uniform(0.85, 1.0) if overcast else rng.uniform(0.06, 0.75)),
        satellite_cast=(1.0, 1.0, 1.0),
        panorama_cast=(1.0, 1.0, 1.0),
        outside=0.08,
        **_streets(rng, between, lawn, verge),
        **_things(rng, kind),
        lean_deg=(float(lean), float(rng.uniform(0, 360))),
    )


def _streets(rng, between, lawn, verge):
    """What is painted on streets and built into them and beside them; between: draws a number within the bounds of its name."""
    return dict(
        marked=between("marked"),
        paint=tuple(_grey(rng, rng.uniform(175, 240), 6)),
        wear=float(rng.uniform(0, 0.75) if rng.random() < 0.7 else 0.0),
        kerb=float(rng.uniform(0.12, 0.9)),
        kerb_colour=tuple(_grey(rng, rng.uniform(110, 225), 10)),
        ground=tuple(np.clip(lawn * rng.uniform(0.9, 1.1), 15, 225)) if verge >= 0.8 else None,
        verge=verge if verge >= 0.8 else 0.0,
        footpath=float(rng.uniform(1.0, 2.4)),
        corner=between("corner"),
        driveways=between("driveways"),
        islands=between("islands"),
        roundabouts=between("roundabouts"),
        medians=float(rng.uniform(0, 0.6) if rng.random() < 0.4 else 0.0),
        slips=float(rng.uniform(0, 0.3) if rng.random() < 0.4 else 0.0),
        edges=float(rng.uniform(0, 0.8) if rng.random() < 0.5 else 0.0),
        hatchings=float(rng.uniform(0, 0.25)),
        words=float(rng.uniform(0, 0.15)),
        squares=between("squares"),
        fences=between("fences"),
    )


def _things(rng, kind):
    """How streets were mended, what stands along them, how trees are and shadows fall."""
    return dict(
        patchy=float(rng.uniform(0.05, 0.8)),
        boxes=float(rng.uniform(0, 0.6) ** 2),
        mixed=float(rng.uniform(0, 0.5)),
        poles=float(rng.uniform(*kind["poles"])),
        crowns=tuple(sorted(rng.uniform(*kind["crowns"], 2).tolist())),
        tops=tuple(sorted(rng.uniform(3.8, 15, 2).tolist())),
        under_trees=True,
        edge_of_crown=float(rng.uniform(0.3, 0.8)),
        ragged=float(rng.uniform(0, 0.8)),
        soft=float(rng.uniform(0, 0.8)),
        blue=float(rng.uniform(0, 0.3)),
    )


def _mix(first, last, share):
    return np.array(first, float) + (np.array(last, float) - first) * share


def _grey(rng, value, tint):
    """A grey that leans towards a warm or a cold tone."""
    warm = rng.normal(0, tint / 2)
    return np.clip(np.array([value + warm, value + rng.normal(0, tint / 5), value - warm]), 8, 245).tolist()


def _colour(rng, hue, saturation, value):
    return tuple(255 * channel for channel in colorsys.hsv_to_rgb(hue % 1.0, rng.uniform(*saturation), rng.uniform(*value)))
