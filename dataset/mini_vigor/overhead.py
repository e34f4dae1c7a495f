"""Structures above the ground of downtown districts: an elevated railway, roofs over pavements.

Each is a slab, SLAB_M thick, on pillars. The layer `deck` of a `DrawnCity` holds the height of its top,
`deck_tone` its grey.
"""

import numpy as np

from dataset.mini_vigor.city import QUARTER_M
from dataset.mini_vigor.segment import Segment

SLAB_M = 1.25
TONES = (28, 27, 26), (222, 217, 208)  # colours of the tones 0 and 255
_STEPS = 5  # of a slab's height, at which a ray may meet its side


def raise_railway(city, rng, lines):
    """An elevated railway on two rows of pillars, along the street nearest to the district's middle."""
    axis, reach = int(rng.integers(2)), np.hypot(*city.height.shape) / 2 * city.metres_per_pixel
    middle, width = min(lines[1 - axis], key=lambda line: abs(line[0]))
    half, top = rng.uniform(3.5, 4.5), rng.uniform(6, 8.5)
    way, tone = Segment(axis, (), middle, width, -reach, reach), rng.uniform(50, 190)
    _slab(city, way.rect((-reach, reach), (-half, half)), top, tone)
    for edge in (-half, half - 0.5):  # footways
        _slab(city, way.rect((-reach, reach), (edge, edge + 0.5)), top, min(tone * 1.25, 255))
    for track in (-half / 2, half / 2):
        for along in np.arange(-reach, reach, 1.4):  # each second sleeper
            _slab(city, way.rect((along, along + 0.5), (track - 1.2, track + 1.2)), top, tone * 0.7)
        for rail in (track - 0.72, track + 0.72):
            _slab(city, way.rect((-reach, reach), (rail - 0.08, rail + 0.08)), top, 215)
    colour = [rng.uniform(60, 170)] * 3
    side = half - 0.5 if rng.random() < 0.5 or width < 2 * half + 4 else width / 2 + 0.6
    for along in np.arange(-reach + rng.uniform(0, 12), reach, rng.uniform(11, 18)):
        for across in (-side, side):
            base = way.rect((along - 0.45, along + 0.45), (across - 0.45, across + 0.45))
            city.fill(base, colour, height=(top - SLAB_M) / QUARTER_M, drivable=0)


def shed(city, rng, segment):
    """A roof on posts over a stretch of pavement, as in front of a building site."""
    side, long, tall = rng.choice((-1, 1)), rng.uniform(8, 35), rng.choice((3.0, 3.5, 4.0)) + SLAB_M / 2
    if segment.stop - segment.start < long + 4:
        return
    start = rng.uniform(segment.start + 2, segment.stop - long - 2)
    near = segment.width / 2 + rng.uniform(0.3, 1)
    edges = side * near, side * (segment.width / 2 + city.style.pavement)
    _slab(city, segment.rect((start, start + long), edges), tall, rng.uniform(30, 220))
    for along in np.arange(start + 0.1, start + long, rng.uniform(2, 4)):
        post = segment.rect((along, along + 0.2), (side * near, side * (near + 0.2)))
        city.fill(post, [110] * 3, height=(tall - SLAB_M) / QUARTER_M)


def _slab(city, outline, top_m, tone):
    """A piece of a slab; it removes the tree crowns above it."""
    city.fill(outline, deck=top_m / QUARTER_M, deck_tone=tone, canopy=0)


def hits(scene, sight, height_m, tangents):
    """Where the lines of sight of a panorama's upper rows meet a slab: (distance in metres, brightness).

    sight: a function of distances (n, 1), in metres, to the raster (row, col) along each column.
    tangents: (n,), above 0. Both results are float32 (n, W), the distance infinite where none is met, and the
    brightness 0 to 255.
    """
    shape = len(tangents), len(sight(np.zeros((1, 1)))[0][0])
    nearest, tone = np.full(shape, np.inf, np.float32), np.zeros(shape, np.float32)
    for level in np.unique(scene.deck)[1:]:
        bottom = level * QUARTER_M - SLAB_M
        for step, z in enumerate(np.linspace(bottom, bottom + SLAB_M, _STEPS)):
            distance = ((z - height_m) / tangents)[:, None].astype(np.float32)
            row, col = (side.astype(np.int32) for side in sight(distance))
            inside = (row >= 0) & (row < scene.deck.shape[0]) & (col >= 0) & (col < scene.deck.shape[1])
            row, col = np.where(inside, row, 0), np.where(inside, col, 0)
            seen = inside & (scene.deck[row, col] == level) & (distance < nearest) & (distance > 0)
            light = scene.deck_tone[row, col] * np.float32(0.62 if step else 0.4)
            nearest, tone = np.where(seen, distance, nearest), np.where(seen, light, tone)
    return nearest, tone
