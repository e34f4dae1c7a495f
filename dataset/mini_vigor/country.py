"""Country districts: long roads with soft shoulders, farm tracks, poles; `land` lies between them.

Everything is planned in metres (u, v), as in `plan`; a road is a `Segment` over several crossings.
"""

from itertools import product

import numpy as np

from dataset.mini_vigor import streets as extra
from dataset.mini_vigor.blocks import gaps, plant
from dataset.mini_vigor.city import MARGIN_PX, QUARTER_M, fixed_point
from dataset.mini_vigor.segment import Segment

_DASHES = ((3, 9), (3, 6), (2, 4), (4, 8), (6, 3))  # painted and bare metres
_CENTRES = ("dashes", "dashes", "solid", "double", "none")


def plan_roads(city, rng, lines):
    """Plan a main road, with one or two carriageways, near the middle of a district.

    lines: those of a grid of streets, as in `plan.build`. Returns the lines of country roads, and which of
    their segments are closed, bool (2, number along u, along v).
    """
    axis = int(rng.integers(2))
    positions, widths = lines[axis].T
    near = abs(positions).argmin()
    room = (min(city.height.shape) / 2 - MARGIN_PX) * city.metres_per_pixel
    swung = city.style.bend * np.sin(city.phases[axis])
    roads = np.stack([positions - positions[near] - swung + rng.uniform(-0.4, 0.4) * room, widths], 1)
    if twin := rng.random() < city.style.twins:
        second = roads[near] + (widths[near] + rng.uniform(5, 22), 0)
        roads = np.insert(roads, near + 1, second, 0)
        roads[near + 2 :, 0] += second[0] - roads[near, 0]
    lines = [roads if axis == number else others for number, others in enumerate(lines)]
    closed = rng.random((2, len(lines[0]), len(lines[1]))) < city.style.closed
    for open_road in range(near, near + 1 + twin):
        (closed[1, open_road] if axis == 0 else closed[0, :, open_road])[:] = False
    return lines, closed


def lay_roads(city, rng, lines, closed, segments):
    """Draw verges, tracks and roads; returns (roads, paved roads)."""
    style = city.style
    beside = soil(rng) if rng.random() < 0.5 else np.array(style.paving) * rng.uniform(0.75, 1.0)
    for segment in segments:
        _weeds(city, rng, segment, beside)
        if closed[segment.key]:
            along = segment.start - 9, segment.stop + 9
            track(city, rng, segment.axis, along, segment.middle, soil(rng))
    roads = [road for road in _runs(lines, closed) if city.shows(road.rect((road.start, road.stop), (-9, 9)))]
    for road in roads:
        _shoulders(city, rng, road, beside)
    paved = []
    for road in roads:
        bare = rng.random() < style.unpaved
        colour = soil(rng) * 1.25 if bare else extra.surface(city, rng)
        ragged = 0.3 if bare else rng.choice((0.02, 0.15))
        city.fill(_band(road, rng, road.width, ragged), colour, drivable=255)
        if bare:
            _ruts(city, rng, road, colour)
        else:
            paved.append(road)
            _stretches(city, rng, road, colour)
    _junctions(city, rng, lines, closed)
    return roads, paved


def _runs(lines, closed):
    """Yield the roads: runs of adjacent open segments, with the crossings between them."""
    for axis in (0, 1):
        spans = gaps(lines[axis])
        for number, (middle, width) in enumerate(lines[1 - axis]):
            shut = (closed[0, :, number] if axis == 0 else closed[1, number])[: len(spans)]
            ends = np.flatnonzero(np.diff(np.concatenate([[True], shut, [True]]).astype(int)))
            for first, last in ends.reshape(-1, 2):
                key = (axis, first, number) if axis == 0 else (axis, number, first)
                yield Segment(axis, key, middle, width, spans[first, 0], spans[last - 1, 1])


def _junctions(city, rng, lines, closed):
    """The surface of crossings that an open road reaches, with rounded corners."""
    style = city.style
    for (i, (u, long)), (j, (v, wide)) in product(enumerate(lines[0]), enumerate(lines[1])):
        arms = [closed[0, k, j] for k in (i - 1, i) if 0 <= k < len(lines[0]) - 1]
        across = [closed[1, i, k] for k in (j - 1, j) if 0 <= k < len(lines[1]) - 1]
        if not all(arms) and not all(across):
            square = Segment(0, (), v, wide, u - long / 2, u + long / 2)
            city.fill(
                square.rect((square.start, square.stop), (-wide / 2, wide / 2)), style.asphalt, drivable=255
            )
    if style.corner:
        extra.round_corners(city, rng, lines, closed)


def soil(rng):
    """A colour of soil or gravel, (3,)."""
    grey = rng.uniform(90, 185)
    return np.clip(grey + np.array([1.0, 0.25, -0.9]) * rng.uniform(2, 32) + rng.normal(0, 4, 3), 20, 235)


def _band(road, rng, width, spread, step=4.0):
    """Outline (u, v) of a band along a road, with edges that vary by about `spread`."""
    along = np.arange(road.start, road.stop + step, step).clip(road.start, road.stop)
    wander = rng.normal(0, spread, (2, len(along) + 2))
    left, right = (wander[:, :-2] + wander[:, 1:-1] + wander[:, 2:]) / 1.7 + [[-width / 2], [width / 2]]
    return road.place(np.append(along, along[::-1]), np.append(left, right[::-1]))


def _weeds(city, rng, segment, bare):
    """Tufts and spots of a bare colour on the verge."""
    style, half = city.style, segment.width / 2
    for _ in range(rng.poisson((segment.stop - segment.start) / 4)):
        spot = (
            rng.uniform(segment.start, segment.stop),
            rng.choice((-1, 1)) * (half + 6 * rng.random() ** 0.5),
        )
        turn = np.linspace(0, 2 * np.pi, 9)[:-1]
        radius = rng.uniform(0.3, 2.6) * rng.uniform(0.6, 1.2, 8)
        blot = np.stack(
            [spot[0] + radius * rng.uniform(1, 3) * np.cos(turn), spot[1] + radius * np.sin(turn)]
        )
        base = soil(rng) if rng.random() < 0.3 else np.array(style.lawn) * rng.uniform(0.7, 1.3)
        city.fill(segment.place(*blot), np.clip(base, 10, 235))


def _shoulders(city, rng, road, colour):
    """Gravel or soil beside a road, with ragged edges, and ditches."""
    style, half = city.style, road.width / 2
    for side in (-1, 1):
        if rng.random() < style.ditches:
            near = half + style.shoulder + rng.uniform(0.5, 2)
            edges = side * near, side * (near + rng.uniform(0.5, 1.6))
            tone = np.array(style.lawn) * rng.uniform(0.45, 0.8)
            city.fill(road.rect((road.start, road.stop), edges), tone)
    city.fill(_band(road, rng, road.width + 2 * style.shoulder, 0.08 + 0.15 * style.shoulder), colour)


def _stretches(city, rng, road, colour):
    """Resurfaced stretches of one or both lanes."""
    start, half = road.start, road.width / 2
    while start < road.stop:
        stop = min(start + rng.uniform(25, 160), road.stop)
        if rng.random() < 0.35:
            edges = (-half, half) if rng.random() < 0.6 else (0, rng.choice((-half, half)))
            tone = np.clip(colour * (1 + city.style.patchy * rng.uniform(-0.35, 0.4)), 20, 235)
            city.fill(road.rect((start, stop), edges), tone)
        start = stop


def _ruts(city, rng, road, colour):
    """The wheel tracks of an unpaved road."""
    middle, apart = rng.uniform(-0.4, 0.4), rng.uniform(0.75, 0.9)
    for across in (middle - apart, middle + apart):
        band = road.rect((road.start, road.stop), (across - 0.3, across + 0.3))
        city.fill(band, np.clip(colour * rng.uniform(1.04, 1.16), 20, 240))
    if rng.random() < 0.3:
        city.fill(road.rect((road.start, road.stop), (middle - 0.3, middle + 0.3)), city.style.lawn)


def track(city, rng, axis, along, middle, colour):
    """A farm track or driveway: a band of soil, often with grass between the wheel tracks."""
    way = Segment(axis, (), middle, rng.uniform(2.2, 3.6), *sorted(along))
    city.fill(_band(way, rng, way.width, 0.12), colour, height=0, canopy=0)
    if rng.random() < 0.5:
        grass = np.array(city.style.lawn) * rng.uniform(0.8, 1.1)
        city.fill(way.rect((way.start, way.stop), (-0.45, 0.45)), grass)


def mark(city, rng, road):
    """The centre line and the lines along the edges of a road, and stop lines at its ends."""
    style, half, whole = city.style, road.width / 2, (road.start + 3, road.stop - 3)
    kind = rng.choice(_CENTRES) if road.width > 4.8 else "none"
    wide = rng.uniform(0.1, 0.16)
    if kind == "dashes":
        long, bare = _DASHES[rng.integers(len(_DASHES))]
        for along in np.arange(*whole, long + bare):
            city.fill(road.rect((along, along + long), (-wide / 2, wide / 2)), style.centre_line)
    elif kind != "none":
        for across in (0.0,) if kind == "solid" else (-0.16, 0.16):
            city.fill(road.rect(whole, (across - wide / 2, across + wide / 2)), style.centre_line)
    if rng.random() < style.edges:
        inset = rng.uniform(0.12, 0.4 if road.width < 6.5 else 1.3)
        for across in (-half + inset, half - inset):
            city.fill(road.rect(whole, (across - wide / 2, across + wide / 2)), style.paint)
    for end, inward in road.ends(rng.uniform(0.3, 1.5)):
        if rng.random() < 0.35:
            lane = road.arriving(inward) * 0.2, road.arriving(inward) * (half - 0.3)
            city.fill(road.rect(sorted((end, end + inward * 0.4)), lane), style.paint)


def line_road(city, rng, road):
    """Objects beside a road: power poles, posts, guard rails, a row of trees."""
    style, half = city.style, road.width / 2
    if style.wires:
        side, away = rng.choice((-1, 1)), rng.uniform(style.shoulder + 1.2, style.pavement + 5)
        grey = rng.uniform(60, 130)
        for along in np.arange(road.start + rng.uniform(0, 40), road.stop, style.wires):
            across = [side * (half + away + rng.uniform(-0.5, 0.5))]
            _pole(city, road.place([along + rng.uniform(-2, 2)], across)[0], 0.15, rng.uniform(7, 11), grey)
    for side in (-1, 1):
        if rng.random() < 0.2 * style.green and style.pavement > 2.5:
            for along in np.arange(road.start, road.stop, rng.uniform(8, 25)):
                across = [side * (half + rng.uniform(2, style.pavement))]
                spot = road.place([along + rng.uniform(-2, 2)], across)[0]
                if city.is_free(city.to_px([spot])[0], "drivable"):
                    plant(city, rng, spot, rng.uniform(1.3, 3))
        near = side * (half + style.shoulder * 0.7 + 0.3)
        kind, start = rng.random(), rng.uniform(road.start, road.stop)
        stop = min(start + rng.uniform(30, 140), road.stop)
        if kind < 0.2:
            city.fill(
                road.rect((start, stop), (near - 0.08, near + 0.08)), (150, 152, 152), height=0.75 / QUARTER_M
            )
        elif kind < 0.5:
            for along in np.arange(start, stop + 150, rng.choice((12.0, 25.0, 50.0))):
                _pole(city, road.place([along], [near])[0], 0.06, 1.0, 215)


def _pole(city, spot, radius, height_m, grey):
    place = city.to_px([spot])[0]
    if city.is_free(place, "height") and city.is_free(place, "drivable"):
        colour = np.clip(np.array([1.08, 1.0, 0.9]) * grey, 0, 235).tolist()
        size = max(int(radius / city.metres_per_pixel * 16), 8)
        city.fill_disc(*fixed_point(place).tolist(), size, colour, height=height_m / QUARTER_M)
