"""Lays out a district of mini-VIGOR: streets and marks, the blocks between them, the cars of both times.

Everything is planned in metres (u, v) along the street grid. Later steps draw over earlier ones.
"""

from itertools import product

import numpy as np

from common import geometry
from dataset.layout import STEP_PX
from dataset.mini_vigor import city as world
from dataset.mini_vigor import country, downtown, land
from dataset.mini_vigor import streets as extra
from dataset.mini_vigor.blocks import gaps, lay_out, plant
from dataset.mini_vigor.cars import park_and_drive
from dataset.mini_vigor.city import MARGIN_PX, TABLES, circle, generator
from dataset.mini_vigor.extract import map_streets
from dataset.mini_vigor.segment import Segment
from dataset.mini_vigor.varied import draw_style

_APART_PX = 8192  # between the corners of a city's districts
_COLOURS = TABLES["colours"]


def build(name, seed, cells, district=0, styles="default", attempt=0):
    """Build district number `district` of the city `name` as a `DrawnCity`. Districts do not touch.

    cells: (rows, cols) of STEP_PX with panoramas, surrounded by MARGIN_PX. styles: 'default', the city's
    look, or another of `writer.WORLD_PANORAMAS`, whose districts draw their looks from wide distributions.
    attempt: another one gives another world in the same place, if the first has too little room.
    """
    style, key = world.STYLES[name], (district, attempt) if attempt else (district,)
    if styles != "default":
        style = draw_style(generator(seed, name, "style", *key), style, styles)
    shape = tuple(count * STEP_PX + 2 * MARGIN_PX for count in cells)
    anchor = np.floor(geometry.mercator_px(style.latitude, style.longitude)) + (0, district * _APART_PX)
    rng = generator(seed, name, "world", *key)
    city = world.DrawnCity(
        style=style,
        metres_per_pixel=float(geometry.metres_per_pixel(style.latitude)),
        origin=tuple(anchor),
        centre=(shape[0] / 2, shape[1] / 2),
        phases=tuple(rng.uniform(0, 2 * np.pi, 2)),
        colour=np.full((*shape, 3), style.ground or style.paving, np.uint8),
        facades=_facades(style, rng),
        **{layer: np.zeros(shape, np.uint8) for layer in ("height", "canopy", "leaf", "wall", "drivable")},
    )
    reach = np.hypot(*shape) / 2 * city.metres_per_pixel + 30
    lines = [_street_lines(rng, reach, mean, style.streets) for mean in style.block]
    closed = rng.random((2, len(lines[0]), len(lines[1]))) < style.closed
    if style.fields:
        lines, closed = country.plan_roads(city, rng, lines)
    segments = list(_segments(city, lines))
    map_streets(city, segments, closed, lines)
    streets = (_country if style.fields else _town)(city, rng, lines, closed, segments)
    extra.weather(city, rng)
    for time in ("satellite", "panorama"):
        city.cars[time] = park_and_drive(city, generator(seed, name, time, district), streets)
    return city


def _town(city, rng, lines, closed, segments):
    """Draw streets, the blocks between them, trees and furniture; returns the open streets."""
    style = city.style
    streets = [segment for segment in segments if not closed[segment.key]]
    pairs = product(*lines)
    junctions = [Segment(0, (), v, wide, u - long / 2, u + long / 2) for (u, long), (v, wide) in pairs]
    if style.verge:
        extra.verges(city, rng, segments, closed)
    _carriageways(city, junctions + streets, rng)
    if style.corner:
        extra.round_corners(city, rng, lines, closed)
    for segment in junctions + streets:
        _resurfacing(city, rng, segment)
        _repairs(city, rng, segment)
    for segment in streets:
        if style.marked >= 1 or rng.random() < style.marked:
            _coloured_boxes(city, rng, segment)
            (downtown.crossings if style.avenues else _crossings)(city, rng, segment)
            (downtown.lanes if style.avenues else _lane_marks)(city, rng, segment)
            extra.more_marks(city, rng, segment)
    if style.wear:
        extra.wear_off(city, rng)
    if style.islands or style.medians or style.roundabouts:
        extra.islands(city, rng, streets, lines)
    lay_out(city, rng, lines)
    for segment in segments:
        _street_trees(city, rng, segment, closed[segment.key])
        if style.poles:
            extra.furniture(city, rng, segment)
    if style.avenues:
        downtown.furnish(city, rng, streets, lines)
    if style.ragged:
        extra.ragged_crowns(city, rng)
    return streets


def _country(city, rng, lines, closed, segments):
    """Draw roads, fields and farms; returns the roads."""
    style = city.style
    roads, paved = country.lay_roads(city, rng, lines, closed, segments)
    for road in paved:
        _repairs(city, rng, road)
        if rng.random() < style.marked:
            country.mark(city, rng, road)
    if style.wear:
        extra.wear_off(city, rng)
    land.lay_land(city, rng, lines)
    for road in roads:
        country.line_road(city, rng, road)
        if style.poles:
            extra.furniture(city, rng, road)
    if style.ragged:
        extra.ragged_crowns(city, rng)
    return roads


def _street_lines(rng, reach, mean, widths):
    """Positions and carriageway widths of parallel streets: (n, 2)."""
    gaps = mean * rng.uniform(0.75, 1.25, int(2.9 * reach / mean) + 2)
    positions = np.cumsum(gaps) - gaps.sum() / 2
    return np.stack([positions, rng.choice(widths, len(positions))], 1)


def _segments(city, lines):
    """Yield the street segments between neighbouring crossings that the raster may show."""
    for axis in (0, 1):
        ways = product(enumerate(lines[1 - axis]), enumerate(gaps(lines[axis])))
        for (i, (middle, width)), (j, (start, stop)) in ways:
            key = (0, j, i) if axis == 0 else (1, i, j)
            segment = Segment(axis, key, middle, width, start, stop)
            if city.shows(segment.rect((start, stop), (-9, 9))):
                yield segment


def _carriageways(city, streets, rng):
    """Asphalt between light kerbs on a ground of paving."""
    style = city.style
    for segment in streets:
        half = segment.width / 2 + style.kerb
        along = segment.start - style.kerb, segment.stop + style.kerb
        city.fill(segment.rect(along, (-half, half)), style.kerb_colour)
    for segment in streets:
        colour = extra.surface(city, rng) if style.mixed else style.asphalt
        outline = segment.rect((segment.start, segment.stop), (-segment.width / 2, segment.width / 2))
        city.fill(outline, colour, drivable=255)


def _resurfacing(city, rng, segment):
    """Stretches of different age and slabs beside them; along a uniform street, nothing can be localized."""
    style, half = city.style, segment.width / 2
    darker, lighter = 1 - 0.3 * style.patchy, 1 + 0.45 * style.patchy
    for along in _stretches(segment, rng, 7, 22):
        left, right = rng.choice((-half, 0.0)), rng.choice((0.0, half))
        if left < right:
            tone = np.array(style.asphalt) * rng.uniform(darker, lighter)
            city.fill(segment.rect(along, (left, right)), tone)
    for side in () if style.verge else (-1, 1):
        for along in _stretches(segment, rng, 2, 8):
            if rng.random() < 0.5:
                tone = np.clip(np.array(style.paving) * rng.uniform(0.72, 1.15), 0, 240)
                edges = side * (half + style.kerb), side * (half + style.pavement)
                city.fill(segment.rect(along, edges), tone)


def _stretches(segment, rng, least, most):
    """Yield (start, stop) of consecutive stretches of a street with random lengths."""
    start = segment.start
    while start < segment.stop:
        stop = min(start + rng.uniform(least, most), segment.stop)
        yield start, stop
        start = stop


def _repairs(city, rng, segment):
    """Patches, sealed cracks and manholes of a piece of street."""
    style, half, start, stop = city.style, segment.width / 2, segment.start, segment.stop
    asphalt = np.array(style.asphalt)
    for _ in range(rng.poisson((stop - start) / 4 * style.patchy)):
        along, across = rng.uniform(start, stop), rng.uniform(-half, half * 0.7)
        long, wide = rng.uniform(1, 7), rng.uniform(0.7, 2.6)
        patch = segment.rect((along, min(along + long, stop)), (across, min(across + wide, half)))
        city.fill(patch, asphalt * rng.choice((0.68, 0.8, 1.2, 1.36)))
    for _ in range(rng.poisson((stop - start) / 12 * (style.patchy if style.fields else 1))):
        along, across = rng.uniform(start, stop) + np.cumsum(rng.normal(0, 1, 7)), np.linspace(-half, half, 7)
        along, across = np.stack([along, across])[:, : rng.integers(3, 8)]
        crack = np.clip(np.concatenate([along, along[::-1] + 0.16]), start, stop)
        city.fill(segment.place(crack, np.concatenate([across, across[::-1]])), asphalt * 0.6)
    for _ in range(rng.poisson((stop - start) / 15) if not style.fields else 0):
        centre = rng.uniform(start, stop), rng.uniform(-half + 0.6, half - 0.6)
        city.fill(segment.place(*(circle(0.4, 12) + centre).T), asphalt * 0.5)


def _coloured_boxes(city, rng, segment):
    """A coloured lane; bus stops, loading bays, ramps and warnings as coloured boxes."""
    half, boxes = segment.width / 2, city.style.boxes
    if segment.width > 10 and rng.random() < 0.3 * min(1, boxes * 2):
        lane, side = rng.choice(_COLOURS["lanes"]), rng.choice((-1, 1))
        edges = side * (half - 3.8), side * (half - 2.4)
        city.fill(segment.rect((segment.start + 6, segment.stop - 6), edges), lane)
    for _ in range(rng.poisson((segment.stop - segment.start) / 8 * boxes)):
        along, across = rng.uniform(segment.start, segment.stop - 3), rng.uniform(-half, half - 2)
        long, wide = rng.uniform(1.2, 5), rng.uniform(1.2, 2.6)
        box = segment.rect((along, along + long), (across, min(across + wide, half)))
        city.fill(box, _COLOURS["boxes"][rng.integers(5)])


def _crossings(city, rng, segment):
    """Zebra crossings, stop lines and turn arrows at both ends."""
    half, paint = segment.width / 2, city.style.paint
    for end, inward in segment.ends():
        kind = rng.choice(("bars", "bars", "lines", "brick", "none"))
        near, far = end + inward * 0.8, end + inward * (0.8 + rng.uniform(2.4, 4.0))
        if kind == "none":
            continue
        if kind == "bars":
            pitch = rng.choice((1.0, 1.2, 1.6))
            for across in np.arange(-half + 0.5, half - 0.5, pitch):
                city.fill(segment.rect((near, far), (across, across + pitch / 2)), paint)
        elif kind == "lines":
            for edge in (near, far):
                city.fill(segment.rect((edge, edge + inward * 0.35), (-half + 0.2, half - 0.2)), paint)
        else:
            city.fill(segment.rect((near, far), (-half, half)), (150, 92, 76))
        side, stop_line = segment.arriving(inward), far + inward * 1.2
        lane = side * 0.3, side * (half - 0.3)
        city.fill(segment.rect((stop_line, stop_line + inward * 0.5), lane), paint)
        if rng.random() < 0.5:
            tip, middle = stop_line + inward * 2.5, side * min(half / 2, 2.4)
            along = tip + inward * np.array([0, 1.4, 1.4, 3.6, 3.6, 1.4, 1.4])
            across = middle + np.array([0, 0.7, 0.2, 0.2, -0.2, -0.2, -0.7])
            city.fill(segment.place(along, across), paint)


def _lane_marks(city, rng, segment):
    """The centre line, the lanes of a wide street, and marked parking bays."""
    style, half, start, stop = city.style, segment.width / 2, segment.start + 7, segment.stop - 7
    if segment.width >= 12:
        for across in (-0.3, 0.15):
            city.fill(segment.rect((start, stop), (across, across + 0.18)), style.centre_line)
    elif segment.width > 8:
        for along in np.arange(start, stop - 3, rng.choice((6.0, 9.0))):
            if rng.random() >= 0.25:  # not worn off
                city.fill(segment.rect((along, along + 3), (-0.1, 0.1)), style.centre_line)
    if segment.width >= 15:
        for along, across in product(np.arange(start, stop - 3, 8.0), (-half / 2 + 0.5, half / 2 - 0.5)):
            city.fill(segment.rect((along, along + 3), (across - 0.09, across + 0.09)), style.paint)
    for side in (-1, 1):
        if rng.random() < 0.45:
            edges = side * (half - 2.2), side * (half - 0.1)
            for along in np.arange(start, stop, 6.0):
                city.fill(segment.rect((along, along + 0.14), edges), style.paint)


def _street_trees(city, rng, segment, footpath):
    """Trees along both pavements, or in two irregular rows on a closed street."""
    green = city.style.green
    offset = segment.width / 2 * 0.5 if footpath else segment.width / 2 + 1.1
    for side in (-1, 1):
        if rng.random() < 0.25 + 0.7 * green or footpath:
            for along in np.arange(segment.start + 5, segment.stop - 5, rng.uniform(7, 14)):
                if rng.random() < 0.45 + 0.4 * green:
                    spot = segment.place([along + rng.uniform(-1, 1)], [side * offset])[0]
                    plant(city, rng, spot, rng.uniform(1.3, 2.8), pit=True)


def _facades(style, rng):
    """255 kinds of facade, {property: array with one row each}; row 0 is not used."""
    colours = np.array(style.walls)[rng.integers(len(style.walls), size=256)]
    return {
        "colour": np.clip(colours * rng.uniform(0.82, 1.1, (256, 1)), 0, 245),
        "glass": rng.uniform(0.25, 0.5, (256, 1)) * np.array([150, 170, 190]),
        "shop": rng.choice(_COLOURS["shops"], 256),
        "storey_m": rng.uniform(2.9, 3.7, 256),
        "pitch_m": rng.uniform(1.8, 3.6, 256),
        "window": rng.uniform(0.35, 0.7, 256),
    }
