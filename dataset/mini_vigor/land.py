"""The land between the roads of country districts, in metres (u, v): fields, woods, meadows, farms, hedges.

A side of a piece of land is (axis, along, front, inward): it runs along u (axis 0) or v (axis 1) over the
range `along`, at `front` on the other axis; `inward` (-1 or 1) is the direction into the land.
"""

from itertools import product

import cv2
import numpy as np

from dataset.mini_vigor.blocks import building, gaps, plant
from dataset.mini_vigor.city import QUARTER_M, TABLES, circle, fixed_point, rect
from dataset.mini_vigor.country import soil, track


def lay_land(city, rng, lines):
    """Fill the land between the roads with fields, woods, meadows and farms."""
    style = city.style
    for u, v in product(*(gaps(roads) + (style.pavement, -style.pavement) for roads in lines)):
        for piece in _pieces(rng, u, v, style.plot):
            if min(stop - start for start, stop in piece) < 8:  # of roads side by side, negative
                continue
            if not city.shows(rect(*piece)):
                continue
            sides = _sides(*piece)
            fronts = [side for side in sides if side[2] in (*u, *v)]
            if rng.random() < style.fields:
                _field(city, rng, piece)
            elif rng.random() < style.woods:
                _wood(city, rng, piece, fronts)
            else:
                _meadow(city, rng, piece)
            for side in sides:
                _border(city, rng, side)
            if fronts and rng.random() < style.farms:
                _farm(city, rng, fronts[rng.integers(len(fronts))])
            elif fronts and rng.random() < 0.5:
                _, (start, stop), *_ = side = fronts[rng.integers(len(fronts))]
                _access(city, rng, side, rng.uniform(start, stop), rng.uniform(3, 25))


def _pieces(rng, u, v, size):
    """Cut a rectangle into pieces with sides of about `size`; yields (range of u, range of v) of each."""
    axis = int(v[1] - v[0] > u[1] - u[0])
    start, stop = (u, v)[axis]
    if stop - start < size * rng.uniform(1.0, 2.0):
        yield tuple(u), tuple(v)
        return
    cut = start + rng.uniform(0.3, 0.7) * (stop - start)
    for part in ((start, cut), (cut, stop)):
        yield from _pieces(rng, *((part, v) if axis == 0 else (u, part)), size)


def _sides(u, v):
    return [(0, u, v[0], 1), (0, u, v[1], -1), (1, v, u[0], 1), (1, v, u[1], -1)]


def _field(city, rng, piece):
    """Soil or a crop in straight rows, which may be high."""
    colours = TABLES["colours"]["land"]
    colour = np.array(colours[rng.integers(len(colours))]) * rng.uniform(0.75, 1.15)
    colour += (colour.mean() - colour) * rng.uniform(0, 0.5) + rng.normal(0, 5, 3)
    inset = rng.uniform(0, 2.5)
    outline = rect(*((first + inset, last - inset) for first, last in piece))
    bearing = np.radians(city.style.turn_deg) + rng.choice((0, np.pi / 2)) + rng.normal(0, 0.08)
    x = np.arange(4096) / 8  # metres across the rows, which repeat after 512
    tone = 1 + rng.uniform(0.02, 0.2) * np.sin(2 * np.pi * x / rng.choice((0.75, 0.75, 1.5, 3.0, 6.0)))
    rough = rng.normal(0, 1, len(x) // 8)
    tone += rng.uniform(0.02, 0.09) * np.interp(x, np.arange(len(rough)), rough)
    if rng.random() < 0.5:  # the wheel tracks of tractors
        tone[x % rng.choice((12.0, 18.0, 24.0)) % 2.2 < (x % 12 < 4.4) * 0.5] *= 0.8
    _paint_rows(city, outline, bearing, np.clip(tone[:, None] * colour, 5, 240).astype(np.uint8))
    if rng.random() < 0.3:
        city.fill(outline, height=rng.uniform(0.3, 2.3) / QUARTER_M)


def _paint_rows(city, outline, bearing, colours):
    """Paint a polygon in stripes an eighth of a metre wide, with colours (n, 3)."""
    points = city.to_px(outline)
    low = np.clip(np.floor(points.min(0)), 0, city.height.shape).astype(int)
    high = np.clip(np.ceil(points.max(0)), 0, city.height.shape).astype(int)
    if (high <= low).any():
        return
    inside = np.zeros(high - low, np.uint8)
    cv2.fillPoly(inside, [fixed_point(points - low)], 255, cv2.LINE_8, 4)
    row, col = (np.arange(first, last) for first, last in zip(low, high, strict=True))
    away = row[:, None] * np.cos(bearing) - col * np.sin(bearing)
    stripe = (away * (8 * city.metres_per_pixel)).astype(np.int32) % len(colours)
    window = city.colour[low[0] : high[0], low[1] : high[1]]
    window[inside > 0] = colours[stripe[inside > 0]]


def _meadow(city, rng, piece):
    """Grass in spots of two tones, shrubs and single trees."""
    style = city.style
    city.fill(rect(*piece), np.clip(np.array(style.lawn) * rng.uniform(0.8, 1.2), 10, 235))
    area = np.prod(np.ptp(piece, 1))
    for _ in range(rng.poisson(area / 250)):
        spot = np.array([rng.uniform(*side) for side in piece])
        blot = spot + circle(1, 10)[:-1] * rng.uniform(0.5, 5, 2) * rng.uniform(0.7, 1.2, (9, 1))
        city.fill(blot, np.clip(np.array(style.lawn) * rng.uniform(0.7, 1.3), 10, 235))
    for _ in range(rng.poisson(area / 900 * rng.random())):
        _bush(city, rng, [rng.uniform(*side) for side in piece])
    for _ in range(rng.poisson(area / 1200 * style.green * rng.random())):
        plant(city, rng, [rng.uniform(*side) for side in piece], rng.uniform(1.5, 3.5))


def _wood(city, rng, piece, fronts):
    """Dense trees over a dark floor, with bushes along the roads."""
    style = city.style
    floor = np.array(style.leaves[0]) * rng.uniform(0.8, 1.3) + rng.uniform(0, 30) * np.array([1, 0.8, 0.5])
    city.fill(rect(*piece), np.clip(floor, 8, 200))
    step = np.clip(np.mean(style.crowns) * rng.uniform(1.1, 2.4), 2.8, 8)
    for spot in product(*(np.arange(first + 1, last - 1, step) for first, last in piece)):
        if rng.random() < 0.92:
            plant(city, rng, np.array(spot) + rng.uniform(-0.45, 0.45, 2) * step, rng.uniform(1.6, 3))
    for axis, (start, stop), front, inward in fronts:
        for along in np.arange(start, stop, rng.uniform(1.5, 6)):
            spot = along + rng.uniform(-1, 1), front + inward * rng.uniform(0, 4)
            _bush(city, rng, spot if axis == 0 else spot[::-1])


def _bush(city, rng, spot):
    place = city.to_px([spot])[0]
    if city.is_free(place, "height") and city.is_free(place, "drivable"):
        dark, light = np.array(city.style.leaves)
        colour = (dark + (light - dark) * rng.uniform(0.1, 0.7)).tolist()
        size = int(rng.uniform(0.4, 1.5) / city.metres_per_pixel * 16)
        city.fill_disc(*fixed_point(place).tolist(), size, colour, height=rng.uniform(0.4, 2.4) / QUARTER_M)


def _border(city, rng, side):
    """A hedge, a wall, a fence or nothing along a side of a piece of land, sometimes with trees."""
    axis, (start, stop), front, inward = side
    style, kind = city.style, rng.random()
    front += inward * 0.5
    if kind < style.hedges:
        tone = np.array(style.leaves[0]) * rng.uniform(0.8, 1.6)
        height, wide = rng.uniform(0.9, 2.8), rng.uniform(0.8, 2.2)
        while start < stop:
            end = min(start + rng.uniform(1.5, 6), stop)
            if rng.random() < 0.95:
                across = sorted((front, front + inward * wide * rng.uniform(0.7, 1.2)))
                tall = height * rng.uniform(0.7, 1.15) / QUARTER_M
                city.fill(
                    rect((start, end), across, axis),
                    np.clip(tone * rng.uniform(0.85, 1.2), 5, 200),
                    height=tall,
                )
            start = end
    elif kind < style.hedges + style.fences * 0.25:
        across, grey = sorted((front, front + inward * 0.45)), rng.uniform(90, 170)
        city.fill(rect((start, stop), across, axis), [grey] * 3, height=rng.uniform(0.6, 1.3) / QUARTER_M)
    elif kind < style.hedges + style.fences:
        grey, pitch, tall = rng.uniform(70, 190), rng.uniform(2.2, 5), rng.uniform(1, 1.5)
        for along in np.arange(start, stop, pitch):
            spot = (along, front) if axis == 0 else (front, along)
            place = city.to_px([spot])[0]
            if city.is_free(place, "height"):
                city.fill_disc(*fixed_point(place).tolist(), 10, [grey] * 3, height=tall / QUARTER_M)
    if rng.random() < 0.3 * style.green:
        for along in np.arange(start, stop, rng.uniform(5, 20)):
            spot = along + rng.uniform(-2, 2), front + inward * rng.uniform(0.5, 3)
            plant(city, rng, spot if axis == 0 else spot[::-1], rng.uniform(1.4, 3))


def _access(city, rng, side, middle, depth):
    """A driveway from the road over the verge into the land, with a widened mouth and sometimes a gate."""
    axis, _, front, inward = side
    colour = soil(rng) if rng.random() < 0.75 else np.array(city.style.asphalt)
    edge = front - inward * city.style.pavement
    turn, half = rng.uniform(1.5, 5), 1.4
    mouth = np.array(
        [
            [-half - turn, 0],
            [-half, turn],
            [-half, turn + 0.5],
            [half, turn + 0.5],
            [half, turn],
            [half + turn, 0],
        ]
    )
    mouth = np.array([middle, edge]) + mouth * (1, inward)
    city.fill(mouth if axis == 0 else mouth[:, ::-1], colour, height=0, canopy=0)
    track(city, rng, 1 - axis, (edge, front + inward * depth), middle, colour)
    if rng.random() < 0.5:
        tall = rng.uniform(1, 1.8) / QUARTER_M
        for along in (middle - 2.2, middle + 2.2):
            spot = (along, front + inward * 0.7) if axis == 0 else (front + inward * 0.7, along)
            city.fill_disc(*fixed_point(city.to_px([spot])[0]).tolist(), 20, (110, 96, 80), height=tall)
        if rng.random() < 0.4:
            gate = rect((middle - 2.2, middle + 2.2), (front + inward * 0.65, front + inward * 0.8), axis)
            city.fill(gate, (140, 140, 136), height=1.1 / QUARTER_M)


def _farm(city, rng, side):
    """A house with a yard, barns and trees at the end of a driveway."""
    axis, (start, stop), front, inward = side
    style = city.style
    setback = rng.uniform(*style.setback)
    long, deep = rng.uniform(9, 18), rng.uniform(7, 11)
    if stop - start < long + 14:
        return
    first = rng.uniform(start + 3, stop - long - 8)
    yard = first - rng.uniform(2, 12), first + long + rng.uniform(5, 20)
    lawn = np.array(style.lawn) * rng.uniform(0.85, 1.15)
    if rng.random() < 0.7:
        across = sorted(
            (front + inward * rng.uniform(0, 3), front + inward * (setback + deep + rng.uniform(3, 20)))
        )
        city.fill(rect(yard, across, axis), np.clip(lawn, 10, 235), height=0, canopy=0)
    wall = front + inward * setback
    _access(city, rng, side, first + long + 3.5, setback + deep * rng.uniform(0.3, 1.5))
    building(city, rng, (first, first + long), sorted((wall, wall + inward * deep)), axis)
    for _ in range(rng.integers(0, 4)):
        long, deep = rng.uniform(5, 26), rng.uniform(4, 14)
        near = wall + inward * rng.uniform(12, 30)
        begin = first + rng.uniform(-20, 25)
        across = sorted((near, near + inward * deep))
        city.fill(
            rect((begin - 2, begin + long + 2), (across[0] - 2, across[1] + 2), axis),
            soil(rng),
            height=0,
            canopy=0,
        )
        building(city, rng, (begin, begin + long), across, axis)
    for _ in range(rng.poisson(2 + 8 * style.green)):
        spot = rng.uniform(yard[0] - 6, yard[1] + 6), front + inward * rng.uniform(3, setback + deep + 18)
        spot = spot if axis == 0 else spot[::-1]
        if city.is_free(city.to_px([spot])[0], "height"):
            plant(city, rng, spot, rng.uniform(1.4, 3.2))
    for _ in range(rng.integers(0, 3)):
        spot = first + long + rng.uniform(2, 6), wall + inward * rng.uniform(-4, 4)
        city.bays.append(spot if axis == 0 else spot[::-1])
