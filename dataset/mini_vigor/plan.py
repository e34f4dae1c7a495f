"""Lays out a district of mini-VIGOR: streets and their marks, the blocks between them, and the cars of both times.

Everything is planned in metres (u, v) along the street grid. Steps draw over what earlier ones drew, from the ground up.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from common import geometry
from dataset.mini_vigor import streets as extra
from dataset.mini_vigor.blocks import lay_out, plant
from dataset.mini_vigor.city import MARGIN_PX, STYLES, TILE_STEP_PX, City, generator, rect
from dataset.mini_vigor.extract import map_streets
from dataset.mini_vigor.varied import draw_style

_APART_PX = 8192  # between the corners of a city's districts
_PAINTS = ((214, 214, 212), (40, 42, 46), (128, 132, 136), (150, 36, 34), (44, 66, 118), (176, 168, 150), (228, 178, 40))


def build(name, seed, cells, district=0, styles="default", attempt=0):
    """Build a district of the city `name`.

    cells     (rows, cols) of the squares, TILE_STEP_PX on a side, in which panoramas stand; MARGIN_PX of world surrounds them
    district  number of the district: districts of a city lie apart from each other
    styles    'default': the city's own look; 'varied': one of the district's own, drawn from wide distributions
    attempt   another world in the same place, where the one before had not room enough
    """
    style, key = STYLES[name], (district, attempt) if attempt else (district,)
    if styles == "varied":
        style = draw_style(generator(seed, name, "style", *key), style)
    shape = tuple(count * TILE_STEP_PX + 2 * MARGIN_PX for count in cells)
    anchor = np.floor(geometry.mercator_px(style.latitude, style.longitude)) + (0, district * _APART_PX)
    rng = generator(seed, name, "world", *key)
    layers = {layer: np.zeros(shape, np.uint8) for layer in ("height", "canopy", "leaf", "wall", "drivable")}
    city = City(
        style=style, metres_per_pixel=float(geometry.metres_per_pixel(style.latitude)), origin=tuple(anchor),
        centre=(shape[0] / 2, shape[1] / 2), phases=tuple(rng.uniform(0, 2 * np.pi, 2)),
        colour=np.full((*shape, 3), style.ground or style.paving, np.uint8), facades=_facades(style, rng), **layers)  # fmt: skip
    reach = np.hypot(*shape) / 2 * city.metres_per_pixel + 30
    lines = [_street_lines(rng, reach, mean, style.streets) for mean in style.block]
    closed = rng.random((2, len(lines[0]), len(lines[1]))) < style.closed
    segments = [segment for segment in _segments(lines) if city.shows(segment.rect((segment.start, segment.stop), (-9, 9)))]
    streets = [segment for segment in segments if not closed[segment.key]]
    map_streets(city, segments, closed, lines)
    junctions = list(_junctions(lines))
    if style.verge:
        extra.verges(city, rng, segments, closed)
    _carriageways(city, junctions + streets, rng)
    if style.corner:
        extra.round_corners(city, rng, lines, closed)
    for segment in junctions + streets:
        _asphalt(city, rng, segment)
    for segment in streets:
        if style.marked >= 1 or rng.random() < style.marked:
            _paint(city, rng, segment)
    if style.wear:
        extra.wear_off(city, rng)
    if style.islands or style.medians or style.roundabouts:
        extra.islands(city, rng, streets, lines)
    lay_out(city, rng, lines)
    for segment in segments:
        _street_trees(city, rng, segment, closed[segment.key])
        if style.poles:
            extra.furniture(city, rng, segment)
    if style.ragged:
        extra.ragged_crowns(city, rng)
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
        return rect(along, (self.middle + across[0], self.middle + across[1]), self.axis)

    def place(self, along, across):
        """Points given along and across the street -> (n, 2) (u, v)."""
        points = np.stack([along, self.middle + np.asarray(across)], 1)
        return points if self.axis == 0 else points[:, ::-1]


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


def _carriageways(city, streets, rng):
    """Asphalt between light kerbs on a ground of paving."""
    for grow, layers in ((city.style.kerb, {}), (0.0, {"drivable": 255})):
        colour = city.style.asphalt if layers else extra.kerb_colour(city)
        for segment in streets:
            if layers and city.style.mixed:
                colour = extra.surface(city, rng)
            half = segment.width / 2 + grow
            city.fill(segment.rect((segment.start - grow, segment.stop + grow), (-half, half)), colour, **layers)


def _asphalt(city, rng, segment):
    """Patches, sealed cracks and manholes of a piece of street."""
    half, start, stop, asphalt = segment.width / 2, segment.start, segment.stop, np.array(city.style.asphalt)
    _resurfacing(city, rng, segment)
    for _ in range(rng.poisson((stop - start) / 4 * city.style.patchy)):
        along, across = rng.uniform(start, stop), rng.uniform(-half, half * 0.7)
        size = rng.uniform(1, 7), rng.uniform(0.7, 2.6)
        patch = segment.rect((along, min(along + size[0], stop)), (across, min(across + size[1], half)))
        city.fill(patch, asphalt * rng.choice((0.68, 0.8, 1.2, 1.36)))
    for _ in range(rng.poisson((stop - start) / 12)):
        knots = np.stack([rng.uniform(start, stop) + np.cumsum(rng.normal(0, 1, 7)), np.linspace(-half, half, 7)])
        knots = knots[:, : rng.integers(3, 8)]
        there = np.clip(np.concatenate([knots[0], knots[0, ::-1] + 0.16]), start, stop)
        city.fill(segment.place(there, np.concatenate([knots[1], knots[1, ::-1]])), asphalt * 0.6)
    for _ in range(rng.poisson((stop - start) / 15)):
        along, across = rng.uniform(start, stop), rng.uniform(-half + 0.6, half - 0.6)
        turn = np.linspace(0, 2 * np.pi, 12)
        city.fill(segment.place(along + 0.4 * np.cos(turn), across + 0.4 * np.sin(turn)), asphalt * 0.5)


def _resurfacing(city, rng, segment):
    """Stretches of street that were laid at different times, and slabs of different tone beside them.

    Without them long streets look alike everywhere between two junctions, and no network could tell where along them it is.
    """
    half, asphalt, paving = segment.width / 2, np.array(city.style.asphalt), np.array(city.style.paving)
    darker, lighter = 0.3 * city.style.patchy, 0.45 * city.style.patchy
    along = segment.start
    while along < segment.stop:
        end = min(along + rng.uniform(7, 22), segment.stop)
        side = rng.choice((-half, 0.0)), rng.choice((0.0, half))
        if side[0] < side[1]:
            city.fill(segment.rect((along, end), side), asphalt * rng.uniform(1 - darker, 1 + lighter))
        along = end
    for side in () if city.style.verge else (-1, 1):
        along = segment.start
        while along < segment.stop:
            end = min(along + rng.uniform(2, 8), segment.stop)
            edges = sorted((side * (half + city.style.kerb), side * (half + city.style.pavement)))
            if rng.random() < 0.5:
                city.fill(segment.rect((along, end), edges), np.clip(paving * rng.uniform(0.72, 1.15), 0, 240))
            along = end


def _paint(city, rng, segment):
    """Every painted mark of a street segment: a coloured lane, boxes, crossings, lines."""
    half = segment.width / 2
    if segment.width > 10 and rng.random() < 0.3 * min(1, city.style.boxes * 2):  # for buses or bicycles
        lane = rng.choice(((66, 120, 84), (140, 70, 58), (70, 96, 132)))
        side = rng.choice((-1, 1))
        edges = sorted((side * (half - 3.8), side * (half - 2.4)))
        city.fill(segment.rect((segment.start + 6, segment.stop - 6), edges), lane)
    for _ in range(
        rng.poisson((segment.stop - segment.start) / 8 * city.style.boxes)
    ):  # bus stops, loading bays, ramps, warnings
        along, across = rng.uniform(segment.start, segment.stop - 3), rng.uniform(-half, half - 2)
        size = rng.uniform(1.2, 5), rng.uniform(1.2, 2.6)
        box = ((150, 60, 50), (60, 110, 80), (66, 90, 140), (196, 160, 60), (206, 206, 200))[rng.integers(5)]
        city.fill(segment.rect((along, along + size[0]), (across, min(across + size[1], half))), box)
    _crossings(city, rng, segment)
    _lane_marks(city, rng, segment)
    extra.more_marks(city, rng, segment)


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
                city.fill(segment.rect((near, far), (across, across + pitch / 2)), city.style.paint)
        elif kind == "lines":
            for edge in (near, far):
                city.fill(segment.rect((edge, edge + inward * 0.35), (-half + 0.2, half - 0.2)), city.style.paint)
        elif kind == "brick":
            city.fill(segment.rect((near, far), (-half, half)), (150, 92, 76))
        if kind == "none":
            continue
        # traffic keeps right: seen from the crossing, those who arrive do so on the left of the segment's own direction
        side = -1 if (inward > 0) == (segment.axis == 0) else 1
        lane = sorted((side * 0.3, side * (half - 0.3)))
        stop_line = far + inward * 1.2
        city.fill(segment.rect((stop_line, stop_line + inward * 0.5), lane), city.style.paint)
        if rng.random() < 0.5:
            tip, middle = stop_line + inward * 2.5, side * min(half / 2, 2.4)
            along = tip + inward * np.array([0, 1.4, 1.4, 3.6, 3.6, 1.4, 1.4])
            city.fill(segment.place(along, middle + np.array([0, 0.7, 0.2, 0.2, -0.2, -0.2, -0.7])), city.style.paint)


def _lane_marks(city, rng, segment):
    """The centre line, the lanes of a wide street, and marked parking bays."""
    half, start, stop = segment.width / 2, segment.start + 7, segment.stop - 7
    if segment.width >= 12:
        for across in (-0.3, 0.15):
            city.fill(segment.rect((start, stop), (across, across + 0.18)), city.style.centre_line)
    elif segment.width > 8:
        for along in np.arange(start, stop - 3, rng.choice((6.0, 9.0))):
            if rng.random() >= 0.25:  # not worn away
                city.fill(segment.rect((along, along + 3), (-0.1, 0.1)), city.style.centre_line)
    if segment.width >= 15:
        for along in np.arange(start, stop - 3, 8.0):
            for across in (-half / 2 + 0.5, half / 2 - 0.5):
                city.fill(segment.rect((along, along + 3), (across - 0.09, across + 0.09)), city.style.paint)
    for side in (-1, 1):
        if rng.random() < 0.45:
            inner, outer = sorted((side * (half - 2.2), side * (half - 0.1)))
            for along in np.arange(start, stop, 6.0):
                city.fill(segment.rect((along, along + 0.14), (inner, outer)), city.style.paint)


def _street_trees(city, rng, segment, footpath):
    """Trees along both pavements, or two loose rows on a closed street."""
    style, half = city.style, segment.width / 2
    offset = half * 0.5 if footpath else half + 1.1
    for side in (-1, 1):
        if rng.random() < 0.25 + 0.7 * style.green or footpath:
            gap = rng.uniform(7, 14)
            for along in np.arange(segment.start + 5, segment.stop - 5, gap):
                if rng.random() < 0.45 + 0.4 * style.green:
                    spot = segment.place(np.array([along + rng.uniform(-1, 1)]), np.array([side * offset]))[0]
                    plant(city, rng, spot, rng.uniform(1.3, 2.8), pit=True)


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
        city.colour[rows] = cv2.add(city.colour[rows], cv2.merge([tone] * 3), dtype=cv2.CV_8U)


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
                outlines += _car(rng, segment, along, across)
                colours.append(_PAINTS[rng.integers(len(_PAINTS))])
    for (u, v), axis in city.bays:  # of car parks
        if rng.random() < 0.55:
            along, across = (u, v) if axis == 0 else (v, u)
            outlines += _car(rng, Segment(axis, (), 0.0, 0.0, 0.0, 0.0), along, across)
            colours.append(_PAINTS[rng.integers(len(_PAINTS))])
    outlines = city.to_px(np.reshape(outlines, (-1, 2))).reshape(-1, 3, 4, 2)
    return outlines, np.array(colours, int).reshape(-1, 3)


def _car(rng, segment, along, across):
    """Outlines (u, v) of a car's body, windows and roof."""
    length, front = rng.uniform(3.9, 4.9), rng.choice((-1, 1))
    along += rng.uniform(-0.4, 0.4)
    outlines = []
    for long, wide, shift in ((length, 1.8, 0.0), (length * 0.6, 1.62, 0.3), (length * 0.36, 1.45, 0.3)):
        middle = along + front * shift
        ends, sides = (middle - long / 2, middle + long / 2), (across - wide / 2, across + wide / 2)
        outlines.append(segment.place(ends + ends[::-1], (sides[0], sides[0], sides[1], sides[1])))
    return outlines
