"""Street features of --styles downtown only: many kinds of crossings, lanes, roadworks, kiosks.

Everything is planned in metres (u, v), as in `plan`; a `Segment` is a street between two crossings.
"""

import numpy as np

from dataset.mini_vigor import overhead
from dataset.mini_vigor.city import QUARTER_M, TABLES

_CROSSINGS = ("zebra", "zebra", "ladder", "lines", "diagonal", "brick", "none")
_ARROWS = {  # outlines along and across, the tip away from the driver
    "ahead": ([0, 1.4, 1.4, 4, 4, 1.4, 1.4], [0, 0.6, 0.15, 0.15, -0.15, -0.15, -0.6]),
    "turn": ([1.1, 0.5, 0.9, 0.9, 4, 4, 1.3, 1.3, 1.7], [1.3, 0.5, 0.5, 0.15, 0.15, -0.15, -0.15, 0.5, 0.5]),
}


def crossings(city, rng, segment):
    """Crossings of many kinds at both ends, their stop lines, and an arrow for each lane that arrives."""
    half, paint = segment.width / 2, city.style.paint
    for end, inward in segment.ends():
        kind = rng.choice(_CROSSINGS)
        near = end + inward * rng.uniform(0.4, 2.5)
        far = near + inward * rng.uniform(2.4, 5.5)
        if kind in ("zebra", "ladder", "diagonal"):
            pitch, slant = rng.uniform(0.9, 1.8), rng.uniform(1, 2.5) * (kind == "diagonal")
            for across in np.arange(-half + 0.3, half - 0.4 - slant, pitch):
                bar = across + np.array([0, pitch / 2, pitch / 2 + slant, slant])
                city.fill(segment.place(np.array([near, near, far, far]), bar), paint)
        if kind in ("lines", "ladder", "brick"):
            if kind == "brick":
                colour = np.array((150, 92, 76)) * rng.uniform(0.75, 1.2)
                city.fill(segment.rect((near, far), (-half, half)), colour)
            for edge in (near, far):
                city.fill(segment.rect((edge, edge + inward * 0.3), (-half + 0.2, half - 0.2)), paint)
        side, stop_line = segment.arriving(inward), far + inward * rng.uniform(0.8, 2.5)
        lane = side * 0.3, side * (half - 0.3)
        city.fill(segment.rect((stop_line, stop_line + inward * rng.uniform(0.3, 0.6)), lane), paint)
        for number, middle in enumerate(_lanes(segment.width)):
            if middle * side > 0 and rng.random() < 0.7:
                kind = "turn" if number == 0 or rng.random() < 0.2 else "ahead"
                along, across = np.array(_ARROWS[kind])
                mirror = rng.choice((-1, 1)) if kind == "turn" else 1
                tip = stop_line + inward * (rng.uniform(2, 4) + along)
                city.fill(segment.place(tip, middle + mirror * across), paint)


def _lanes(width):
    """Offsets of the lanes' centres from the street's; both sides have the same number of lanes."""
    count = max(1, int((width / 2 - 0.3) / 3.1))
    return (np.arange(2 * count) + 0.5) * (width / 2 / count) - width / 2


def lanes(city, rng, segment):
    """The centre line, dashes between lanes, and a coloured lane for buses or bicycles on some streets."""
    style, half, start, stop = city.style, segment.width / 2, segment.start + 9, segment.stop - 9
    if stop - start < 4:
        return
    if rng.random() < style.avenues:
        colours, wide = TABLES["colours"]["lanes"], rng.choice((1.6, 3.2))
        colour = np.clip(np.array(colours[rng.integers(len(colours))]) * rng.uniform(0.7, 1.4), 10, 235)
        for side in (-1, 1) if rng.random() < 0.4 else rng.choice((-1, 1), 1):
            outer = half - rng.choice((0.1, 0.5, 2.3))
            city.fill(segment.rect((start, stop), (side * outer, side * (outer - wide))), colour)
            city.fill(
                segment.rect((start, stop), (side * (outer - wide), side * (outer - wide - 0.18))),
                style.paint,
            )
    middles = _lanes(segment.width)
    for edge in (middles[1:] + middles[:-1]) / 2:
        if abs(edge) < 0.1:
            for across in (-0.25, 0.1) if rng.random() < 0.6 else (-0.08,):
                city.fill(segment.rect((start, stop), (across, across + 0.16)), style.centre_line)
        else:
            long = rng.choice((2.0, 3.0))
            for along in np.arange(start, stop - long, long * rng.choice((2, 3))):
                city.fill(segment.rect((along, along + long), (edge - 0.08, edge + 0.08)), style.paint)


def furnish(city, rng, streets, lines):
    """Roadworks, kiosks, sheds and, in some districts, an elevated railway."""
    for segment in streets:
        _works(city, rng, segment)
        _kiosks(city, rng, segment)
    city.deck, city.deck_tone = np.zeros_like(city.height), np.zeros_like(city.height)
    for segment in streets:
        for _ in range(rng.poisson((segment.stop - segment.start) / 100 * city.style.sheds)):
            overhead.shed(city, rng, segment)
    if rng.random() < city.style.railways:
        overhead.raise_railway(city, rng, lines)


def _works(city, rng, segment):
    """Roadworks: closed stretches of a lane with barriers, new patches and steel plates, without cameras."""
    half = segment.width / 2
    for _ in range(rng.poisson((segment.stop - segment.start) / 100 * city.style.works)):
        side, long, wide = rng.choice((-1, 1)), rng.uniform(5, 26), rng.uniform(2, min(4, half))
        start = rng.uniform(segment.start, max(segment.stop - long, segment.start + 0.1))
        stop, inner, outer = min(start + long, segment.stop), side * (half - wide), side * half
        dug = np.array((134, 108, 82)) if rng.random() < 0.5 else np.array(city.style.asphalt) * 0.6
        tone = np.clip(dug * rng.uniform(0.8, 1.3), 15, 235)
        city.fill(segment.rect((start, stop), (inner, outer)), tone, drivable=0)
        colours = ((214, 96, 40), (222, 222, 218)) if rng.random() < 0.7 else ((170, 174, 178),) * 2
        for number, along in enumerate(np.arange(start, stop - 0.5, 2.0)):
            barrier = segment.rect((along, along + 1.8), (inner, inner + side * 0.3))
            city.fill(barrier, colours[number % 2], height=1.0 / QUARTER_M)
        for along in (start, stop - 0.3):
            city.fill(segment.rect((along, along + 0.3), (inner, outer)), colours[0], height=1.0 / QUARTER_M)
        if rng.random() < 0.5 and stop - start > 8:  # a container or a machine
            box = segment.rect(
                (start + 2, start + rng.uniform(4, 7)), (inner + side * 0.6, outer - side * 0.2)
            )
            city.fill(box, rng.integers(40, 210, 3).tolist(), height=rng.uniform(1.5, 3) / QUARTER_M)
    for _ in range(rng.poisson((segment.stop - segment.start) / 60 * city.style.works)):
        along, across = rng.uniform(segment.start, segment.stop - 3), rng.uniform(-half, half - 2)
        plate = segment.rect((along, along + rng.uniform(1.5, 3)), (across, across + rng.uniform(1.2, 2)))
        city.fill(plate, [rng.uniform(40, 95)] * 3)


def _kiosks(city, rng, segment):
    """Kiosks, planters, shelters and boxes on the pavements."""
    style = city.style
    for _ in range(rng.poisson((segment.stop - segment.start) / 100 * style.kiosks)):
        side = rng.choice((-1, 1))
        near = segment.width / 2 + rng.uniform(0.5, max(0.6, style.pavement - 2.2))
        along, long, deep = (
            rng.uniform(segment.start + 2, segment.stop - 4),
            rng.uniform(0.6, 4.5),
            rng.uniform(0.5, 1.7),
        )
        box = segment.rect((along, along + long), (side * near, side * (near + deep)))
        if (city.to_px(box) < 0).any() or not city.is_free(city.to_px(box).mean(0), "height"):
            continue
        if rng.random() < 0.3:  # a planter
            city.fill(box, np.array(style.paving) * 0.8, height=0.6 / QUARTER_M)
            inside = segment.rect(
                (along + 0.15, along + long - 0.15), (side * (near + 0.15), side * (near + deep - 0.15))
            )
            city.fill(inside, style.leaves[0], height=rng.uniform(0.8, 1.6) / QUARTER_M)
        else:
            city.fill(box, rng.integers(30, 200, 3).tolist(), height=rng.uniform(1, 2.9) / QUARTER_M)
