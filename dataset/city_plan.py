"""Lays out a district of mini-VIGOR: streets and their marks, blocks of houses, parks, trees, and the cars of both times.

Everything is planned in metres (u, v) along the street grid. Steps draw over what earlier ones drew, from the ground up.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from dataset import geometry
from dataset.city import MARGIN_PX, QUARTER_M, STYLES, TILE_STEP_PX, City, fixed_point, generator

_APART_PX = 8192  # between the corners of a city's districts
_WHITE = (226, 226, 220)
_PAINTS = ((214, 214, 212), (40, 42, 46), (128, 132, 136), (150, 36, 34), (44, 66, 118), (176, 168, 150), (228, 178, 40))


def build(name, seed, cells, district=0):
    """Build a district of the city `name`.

    cells     (rows, cols) of the squares, TILE_STEP_PX on a side, in which panoramas stand; MARGIN_PX of world surrounds them
    district  number of the district: districts of a city lie apart from each other
    """
    style = STYLES[name]
    shape = tuple(count * TILE_STEP_PX + 2 * MARGIN_PX for count in cells)
    anchor = np.floor(geometry.mercator_px(style.latitude, style.longitude)) + (0, district * _APART_PX)
    rng = generator(seed, name, "world", district)
    layers = {layer: np.zeros(shape, np.uint8) for layer in ("height", "canopy", "leaf", "wall", "drivable")}
    city = City(
        style=style, metres_per_pixel=float(geometry.metres_per_pixel(style.latitude)), origin=tuple(anchor),
        centre=(shape[0] / 2, shape[1] / 2), phases=tuple(rng.uniform(0, 2 * np.pi, 2)),
        colour=np.full((*shape, 3), style.paving, np.uint8), facades=_facades(style, rng), **layers)  # fmt: skip
    reach = np.hypot(*shape) / 2 * city.metres_per_pixel + 30
    lines = [_street_lines(rng, reach, mean, style.streets) for mean in style.block]
    closed = rng.random((2, len(lines[0]), len(lines[1]))) < style.closed
    segments = [segment for segment in _segments(lines) if city.shows(segment.rect((segment.start, segment.stop), (-9, 9)))]
    streets = [segment for segment in segments if not closed[segment.key]]
    junctions = list(_junctions(lines))
    _carriageways(city, junctions + streets)
    for segment in junctions + streets:
        _asphalt(city, rng, segment)
    for segment in streets:
        _paint(city, rng, segment)
    _blocks(city, rng, lines)
    for segment in segments:
        _street_trees(city, rng, segment, closed[segment.key])
    _weather(city, rng)
    city.cars = {time: _cars(city, generator(seed, name, time, district), streets) for time in ("satellite", "panorama")}
    return city


@dataclass
class Segment:
    """A street between two crossings: it runs along u (axis 0) or v (axis 1). All in metres."""

    axis: int
    key: tuple
    middle: float
    width: float
    start: float
    stop: float

    def rect(self, along, across):
        """Outline (u, v) of a rectangle; `across` counts from the middle of the street."""
        return _rect(along, (self.middle + across[0], self.middle + across[1]), self.axis)


def _rect(along, across, axis=0):
    """Outline of a rectangle, its long sides in pieces short enough to follow a bent street."""
    pieces = 2 + int(abs(along[1] - along[0]) / 8)
    there = np.linspace(along[0], along[1], pieces)
    outline = np.concatenate([np.stack([there, np.full(pieces, across[0])], 1),
                              np.stack([there[::-1], np.full(pieces, across[1])], 1)])  # fmt: skip
    return outline if axis == 0 else outline[:, ::-1]


def _street_lines(rng, reach, mean, widths):
    """(n, 2): position and carriageway width of parallel streets."""
    gaps = mean * rng.uniform(0.75, 1.25, int(2.9 * reach / mean) + 2)
    positions = np.cumsum(gaps) - gaps.sum() / 2
    return np.stack([positions, rng.choice(widths, len(positions))], 1)


def _segments(lines):
    """All street segments between neighbouring crossings."""
    for axis in (0, 1):
        own, other = lines[1 - axis], lines[axis]
        for i, (middle, width) in enumerate(own):
            for j in range(len(other) - 1):
                start, stop = other[j, 0] + other[j, 1] / 2, other[j + 1, 0] - other[j + 1, 1] / 2
                yield Segment(axis, (axis, j, i) if axis == 0 else (axis, i, j), middle, width, start, stop)


def _junctions(lines):
    """The squares where streets meet, as segments without marks."""
    for u, width_u in lines[0]:
        for v, width_v in lines[1]:
            yield Segment(0, (), v, width_v, u - width_u / 2, u + width_u / 2)


def _carriageways(city, streets):
    """Asphalt between light kerbs on a ground of paving."""
    kerb = [c * 1.16 for c in city.style.paving]
    for grow, colour in ((0.3, kerb), (0.0, city.style.asphalt)):
        layers = {} if grow else {"drivable": 255}
        for segment in streets:
            half = segment.width / 2 + grow
            city.fill(segment.rect((segment.start - grow, segment.stop + grow), (-half, half)), colour, **layers)


def _asphalt(city, rng, segment):
    """Patches, sealed cracks and manholes of a piece of street."""
    half, start, stop, asphalt = segment.width / 2, segment.start, segment.stop, np.array(city.style.asphalt)
    _resurfacing(city, rng, segment)
    for _ in range(rng.poisson((stop - start) / 4)):
        along, across = rng.uniform(start, stop), rng.uniform(-half, half * 0.7)
        size = rng.uniform(1, 7), rng.uniform(0.7, 2.6)
        patch = segment.rect((along, min(along + size[0], stop)), (across, min(across + size[1], half)))
        city.fill(patch, asphalt * rng.choice((0.68, 0.8, 1.2, 1.36)))
    for _ in range(rng.poisson((stop - start) / 12)):
        knots = np.stack([rng.uniform(start, stop) + np.cumsum(rng.normal(0, 1, 7)), np.linspace(-half, half, 7)])
        knots = knots[:, : rng.integers(3, 8)]
        there = np.clip(np.concatenate([knots[0], knots[0, ::-1] + 0.16]), start, stop)
        city.fill(_place(segment, there, np.concatenate([knots[1], knots[1, ::-1]])), asphalt * 0.6)
    for _ in range(rng.poisson((stop - start) / 15)):
        along, across = rng.uniform(start, stop), rng.uniform(-half + 0.6, half - 0.6)
        turn = np.linspace(0, 2 * np.pi, 12)
        city.fill(_place(segment, along + 0.4 * np.cos(turn), across + 0.4 * np.sin(turn)), asphalt * 0.5)


def _resurfacing(city, rng, segment):
    """Stretches of street that were laid at different times, and slabs of different tone beside them.

    Without them long streets look alike everywhere between two junctions, and no network could tell where along them it is.
    """
    half, asphalt, paving = segment.width / 2, np.array(city.style.asphalt), np.array(city.style.paving)
    along = segment.start
    while along < segment.stop:
        end = min(along + rng.uniform(7, 22), segment.stop)
        side = rng.choice((-half, 0.0)), rng.choice((0.0, half))
        if side[0] < side[1]:
            city.fill(segment.rect((along, end), side), asphalt * rng.uniform(0.7, 1.45))
        along = end
    for side in (-1, 1):
        along = segment.start
        while along < segment.stop:
            end = min(along + rng.uniform(2, 8), segment.stop)
            edges = sorted((side * (half + 0.3), side * (half + city.style.pavement)))
            if rng.random() < 0.5:
                city.fill(segment.rect((along, end), edges), np.clip(paving * rng.uniform(0.72, 1.15), 0, 240))
            along = end


def _paint(city, rng, segment):
    """Every painted mark of a street segment: a coloured lane, boxes, crossings, lines."""
    half = segment.width / 2
    if segment.width > 10 and rng.random() < 0.3:  # for buses or bicycles
        lane = rng.choice(((66, 120, 84), (140, 70, 58), (70, 96, 132)))
        side = rng.choice((-1, 1))
        edges = sorted((side * (half - 3.8), side * (half - 2.4)))
        city.fill(segment.rect((segment.start + 6, segment.stop - 6), edges), lane)
    for _ in range(rng.poisson((segment.stop - segment.start) / 8)):  # bus stops, loading bays, ramps, warnings
        along, across = rng.uniform(segment.start, segment.stop - 3), rng.uniform(-half, half - 2)
        size = rng.uniform(1.2, 5), rng.uniform(1.2, 2.6)
        box = ((150, 60, 50), (60, 110, 80), (66, 90, 140), (196, 160, 60), (206, 206, 200))[rng.integers(5)]
        city.fill(segment.rect((along, along + size[0]), (across, min(across + size[1], half))), box)
    _crossings(city, rng, segment)
    _lane_marks(city, rng, segment)


def _place(segment, along, across):
    """Points given along and across a segment -> (n, 2) (u, v)."""
    points = np.stack([along, segment.middle + np.asarray(across)], 1)
    return points if segment.axis == 0 else points[:, ::-1]


def _crossings(city, rng, segment):
    """Zebra crossings, their stop lines and turn arrows, at both ends."""
    half = segment.width / 2
    for end, inward in ((segment.start, 1), (segment.stop, -1)):
        kind = rng.choice(("bars", "bars", "lines", "brick", "none"))
        depth = rng.uniform(2.4, 4.0)
        near, far = end + inward * 0.8, end + inward * (0.8 + depth)
        if kind == "bars":
            pitch = rng.choice((1.0, 1.2, 1.6))
            for across in np.arange(-half + 0.5, half - 0.5, pitch):
                city.fill(segment.rect((near, far), (across, across + pitch / 2)), _WHITE)
        elif kind == "lines":
            for edge in (near, far):
                city.fill(segment.rect((edge, edge + inward * 0.35), (-half + 0.2, half - 0.2)), _WHITE)
        elif kind == "brick":
            city.fill(segment.rect((near, far), (-half, half)), (150, 92, 76))
        if kind == "none":
            continue
        # traffic keeps right: seen from the crossing, those who arrive do so on the left of the segment's own direction
        side = -1 if (inward > 0) == (segment.axis == 0) else 1
        lane = sorted((side * 0.3, side * (half - 0.3)))
        stop_line = far + inward * 1.2
        city.fill(segment.rect((stop_line, stop_line + inward * 0.5), lane), _WHITE)
        if rng.random() < 0.5:
            _arrow(city, segment, stop_line + inward * 2.5, inward, side * min(half / 2, 2.4))


def _arrow(city, segment, tip, inward, across):
    along = tip + inward * np.array([0, 1.4, 1.4, 3.6, 3.6, 1.4, 1.4])
    city.fill(_place(segment, along, across + np.array([0, 0.7, 0.2, 0.2, -0.2, -0.2, -0.7])), _WHITE)


def _lane_marks(city, rng, segment):
    """The centre line, the lanes of a wide street, and marked parking bays."""
    half, start, stop = segment.width / 2, segment.start + 7, segment.stop - 7
    if segment.width >= 12:
        for across in (-0.3, 0.15):
            city.fill(segment.rect((start, stop), (across, across + 0.18)), city.style.centre_line)
    elif segment.width > 8:
        for along in np.arange(start, stop - 3, rng.choice((6.0, 9.0))):
            if rng.random() < 0.25:  # worn away
                continue
            city.fill(segment.rect((along, along + 3), (-0.1, 0.1)), city.style.centre_line)
    if segment.width >= 15:
        for along in np.arange(start, stop - 3, 8.0):
            for across in (-half / 2 + 0.5, half / 2 - 0.5):
                city.fill(segment.rect((along, along + 3), (across - 0.09, across + 0.09)), _WHITE)
    for side in (-1, 1):
        if rng.random() < 0.45:
            inner, outer = sorted((side * (half - 2.2), side * (half - 0.1)))
            for along in np.arange(start, stop, 6.0):
                city.fill(segment.rect((along, along + 0.14), (inner, outer)), _WHITE)


def _blocks(city, rng, lines):
    """Whatever lies between the streets: houses, parks, car parks."""
    style = city.style
    for (u0, width0), (u1, width1) in zip(lines[0][:-1], lines[0][1:], strict=True):
        for (v0, width2), (v1, width3) in zip(lines[1][:-1], lines[1][1:], strict=True):
            u = (u0 + width0 / 2 + style.pavement, u1 - width1 / 2 - style.pavement)
            v = (v0 + width2 / 2 + style.pavement, v1 - width3 / 2 - style.pavement)
            if not city.shows(_rect(u, v)):
                continue
            if rng.random() < style.parks:
                _park(city, rng, u, v)
            elif u[1] - u[0] > v[1] - v[0]:
                _houses(city, rng, u, v, 0)
            else:
                _houses(city, rng, v, u, 1)


def _park(city, rng, u, v):
    city.fill(_rect(u, v), city.style.lawn)
    city.fill(np.array([[u[0], v[0]], [u[0] + 3, v[0]], [u[1], v[1]], [u[1] - 3, v[1]]]), city.style.paving)
    middle = rng.uniform(0.3, 0.7) * (v[1] - v[0]) + v[0]
    city.fill(_rect(u, (middle, middle + 2.5)), city.style.paving)
    for _ in range(int((u[1] - u[0]) * (v[1] - v[0]) / 90)):
        _tree(city, rng, (rng.uniform(*u), rng.uniform(*v)), rng.uniform(2.0, 4.2))


def _houses(city, rng, along, across, axis):
    """Two rows of lots back to back, each facing its street."""
    style = city.style
    yard = style.lawn if rng.random() < style.green else rng.uniform(0.7, 0.9) * np.array(style.paving)
    city.fill(_rect(along, across, axis), yard)
    middle = (across[0] + across[1]) / 2
    for front, inward in ((across[0], 1), (across[1], -1)):
        setback, here = rng.uniform(*style.setback), along[0]
        while along[1] - here > style.lot[0] / 2:
            width = min(rng.uniform(*style.lot), along[1] - here)
            gap = rng.choice((0.0, 0.0, 1.2, 3.0)) if style.setback[1] > 1 else rng.choice((0.0, 0.0, 0.0, 0.0, 2.5))
            kind = rng.random()
            lot = (here + gap / 2, here + width - gap / 2)
            depth = min(rng.uniform(11, 18), abs(middle - front) - setback - 1.5)
            wall = front + inward * (setback + rng.uniform(0, 1.2) * (style.setback[1] > 1))
            if kind < 0.07 and style.green < rng.random() + 0.4:
                _car_park(city, lot, sorted((front, front + inward * 15)), axis)
            elif kind > 0.1:
                _building(city, rng, lot, sorted((wall, wall + inward * depth)), axis)
                _front_garden(city, rng, lot, sorted((front, wall)), axis)
            if rng.random() < style.green:
                back = front + inward * (setback + depth + 3.5)
                spot = (rng.uniform(*lot), back)
                _tree(city, rng, spot if axis == 0 else spot[::-1], rng.uniform(1.5, 3.2))
            here += width


def _car_park(city, along, across, axis):
    city.fill(_rect(along, across, axis), [c * 1.1 for c in city.style.asphalt])
    for there in np.arange(along[0] + 0.5, along[1], 2.6):
        city.fill(_rect((there, there + 0.14), (across[0] + 1, across[0] + 5.5), axis), _WHITE)


def _front_garden(city, rng, along, across, axis):
    """Between house and pavement: a path to the door, and now and then a hedge."""
    if across[1] - across[0] < 0.8:
        return
    door = rng.uniform(along[0] + 1, max(along[1] - 2.2, along[0] + 1.1))
    if rng.random() < 0.35 * city.style.green:
        city.fill(_rect(along, (across[0] + 0.1, across[0] + 0.7), axis), city.style.leaves[0], height=4)
    city.fill(_rect((door, door + 1.3), across, axis), [c * 0.95 for c in city.style.paving], height=0)


def _building(city, rng, along, across, axis):
    """A house: its height, its facade, and a roof in the facade's tint with a parapet or gable and a few boxes on it."""
    style = city.style
    facade = int(rng.integers(1, 256))
    low, high = style.storeys
    storeys = low + (high - low) * rng.random() ** 2
    height = min(int((storeys * city.facades["storey_m"][facade] + 1.2) / QUARTER_M), 255)
    roof = np.array(style.roofs[rng.integers(len(style.roofs))]) * rng.uniform(0.85, 1.1)
    roof = 0.65 * roof + 0.35 * city.facades["colour"][facade]
    city.fill(_rect(along, across, axis), roof * 0.72, height=height, wall=facade)
    inset = [(along[0] + 0.4, along[1] - 0.4), (across[0] + 0.4, across[1] - 0.4)]
    city.fill(_rect(*inset, axis), roof)
    if style.gables and storeys < 3.5:
        city.fill(_rect(inset[0], (inset[1][0], np.mean(across)), axis), roof * 0.82)
        return
    for _ in range(rng.integers(1, 4)):
        at = [rng.uniform(low, max(high - 2.5, low + 0.1)) for low, high in inset]
        size = rng.uniform(1, 2.6, 2)
        box = _rect((at[0], at[0] + size[0]), (at[1], at[1] + size[1]), axis)
        city.fill(box, roof * rng.choice((0.6, 1.25)), height=min(height + 8, 255))


def _street_trees(city, rng, segment, footpath):
    """Trees along both pavements, or two loose rows on a closed street."""
    style, half = city.style, segment.width / 2
    offset = half * 0.5 if footpath else half + 1.1
    for side in (-1, 1):
        if rng.random() < 0.25 + 0.7 * style.green or footpath:
            gap = rng.uniform(7, 14)
            for along in np.arange(segment.start + 5, segment.stop - 5, gap):
                if rng.random() < 0.45 + 0.4 * style.green:
                    spot = _place(segment, np.array([along + rng.uniform(-1, 1)]), np.array([side * offset]))[0]
                    _tree(city, rng, spot, rng.uniform(1.3, 2.8), pit=True)


def _tree(city, rng, spot, radius, pit=False):
    """A crown of overlapping discs on a trunk; `pit`: it grows out of a square of earth."""
    if pit:
        square = _rect((spot[0] - 0.7, spot[0] + 0.7), (spot[1] - 0.7, spot[1] + 0.7))
        city.fill(square, (96, 80, 62))
    centre, scale = city.to_px([spot])[0], 1 / city.metres_per_pixel
    if (centre < 0).any() or (centre >= city.height.shape).any() or city.wall[tuple(centre.astype(int))]:
        return
    x, y = (int(c) for c in fixed_point(centre))
    trunk = int(rng.uniform(0.15, 0.3) * scale * 16)
    cv2.circle(city.colour, (x, y), trunk, (74, 60, 48), -1, cv2.LINE_AA, 4)
    cv2.circle(city.height, (x, y), trunk, int(3.0 / QUARTER_M), -1, cv2.LINE_8, 4)
    top, tone = rng.uniform(4.5, 9.0), rng.uniform(60, 190)
    for part in np.linspace(0, 1, 6):
        away, bearing = (1 - part) * radius * 0.6, rng.uniform(0, 2 * np.pi)
        middle = (x + int(away * np.cos(bearing) * scale * 16), y + int(away * np.sin(bearing) * scale * 16))
        size = int(radius * (0.75 - 0.4 * part) * scale * 16)
        cv2.circle(city.canopy, middle, size, int(top * (0.7 + 0.3 * part) / QUARTER_M), -1, cv2.LINE_8, 4)
        cv2.circle(city.leaf, middle, size, int(np.clip(tone + rng.uniform(-50, 65), 1, 255)), -1, cv2.LINE_8, 4)


def _weather(city, rng):
    """Stains, worn spots and grain on every surface, in bands of rows to spare memory."""
    height, width = city.height.shape
    stains = cv2.resize(rng.normal(0, 7, (height // 64, width // 64)).astype(np.float32), (width, height))
    grain = rng.normal(0, 1, (512, 512)).astype(np.float32)
    grain = cv2.GaussianBlur(grain, (0, 0), 1.2) * 16 + cv2.GaussianBlur(grain, (0, 0), 5) * 34
    grain = np.tile(grain, (1, width // 512 + 1))[:, :width]
    for top in range(0, height, 512):
        rows = slice(top, min(top + 512, height))
        tone = (stains[rows] + np.roll(grain, int(rng.integers(512)), 1)[: rows.stop - top]).astype(np.int16)
        band = cv2.add(city.colour[rows], cv2.merge([tone] * 3), dtype=cv2.CV_8U)
        city.colour[rows] = band


def _facades(style, rng):
    """255 kinds of front (row 0 is not used): name -> array with one row each."""
    pick = np.array(style.walls)[rng.integers(len(style.walls), size=256)]
    return {
        "colour": np.clip(pick * rng.uniform(0.82, 1.1, (256, 1)), 0, 245),
        "glass": rng.uniform(0.25, 0.5, (256, 1)) * np.array([150, 170, 190]),
        "shop": rng.choice(np.array([[150, 50, 44], [44, 92, 64], [52, 70, 120], [196, 160, 70], [70, 66, 64]]), 256),
        "storey_m": rng.uniform(2.9, 3.7, 256),
        "pitch_m": rng.uniform(1.8, 3.6, 256),
        "window": rng.uniform(0.35, 0.7, 256),
    }


def _cars(city, rng, segments):
    """Cars along the kerbs and a few on the lanes: outlines in raster pixels and colours, as `City.cars` holds them."""
    outlines, colours = [], []
    for segment in segments:
        for side in (-1, 1):
            bays = np.arange(segment.start + 9, segment.stop - 8, 6.0)
            spots = [(along, side * (segment.width / 2 - 1.15)) for along in bays if rng.random() < city.style.parked]
            if rng.random() < 0.35:
                spots.append((rng.uniform(segment.start, segment.stop), side * max(segment.width / 2 - 3.9, 1.3)))
            for along, across in spots:
                length, front = rng.uniform(3.9, 4.9), rng.choice((-1, 1))
                along += rng.uniform(-0.4, 0.4)
                for long, wide, shift in ((length, 1.8, 0.0), (length * 0.6, 1.62, 0.3), (length * 0.36, 1.45, 0.3)):
                    middle = along + front * shift
                    ends, sides = (middle - long / 2, middle + long / 2), (across - wide / 2, across + wide / 2)
                    outlines.append(_place(segment, ends + ends[::-1], (sides[0], sides[0], sides[1], sides[1])))
                colours.append(_PAINTS[rng.integers(len(_PAINTS))])
    outlines = city.to_px(np.reshape(outlines, (-1, 2))).reshape(-1, 3, 4, 2)
    return outlines, np.array(colours, int).reshape(-1, 3)
