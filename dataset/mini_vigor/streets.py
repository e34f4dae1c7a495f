"""Street features of varied worlds only: verges, rounded kerbs, islands, furniture and worn paint.

Everything is planned in metres (u, v), as in `plan`; a `Segment` is a street between two crossings.
"""

from itertools import pairwise, product

import cv2
import numpy as np

from dataset.mini_vigor.city import QUARTER_M, TABLES, bands, circle, fixed_point


def surface(city, rng):
    """The colour, (3,), of a street's surface: near the style's asphalt, sometimes concrete or gravel."""
    mixed = city.style.mixed
    asphalt = np.array(city.style.asphalt, float) * (1 + mixed * rng.uniform(-0.5, 0.6))
    if rng.random() < 0.15 * mixed:
        asphalt = np.array(city.style.paving) * rng.uniform(0.75, 1.0)
    return np.clip(asphalt + rng.normal(0, 3 * mixed, 3), 20, 235)


def verges(city, rng, segments, closed):
    """Grass beside the kerb with a footpath on one side or both; a closed street is a path through grass."""
    style = city.style
    for segment in segments:
        if closed[segment.key]:
            half = rng.uniform(1.4, 3.5) / 2
            city.fill(segment.rect((segment.start - 8, segment.stop + 8), (-half, half)), style.paving)
            continue
        for side in (-1, 1):
            if rng.random() < 0.75:
                near = segment.width / 2 + style.verge + rng.uniform(-0.2, 0.2) * style.verge
                edges = side * near, side * (near + style.footpath)
                tone = np.clip(np.array(style.paving) * rng.uniform(0.85, 1.05), 0, 240)
                city.fill(segment.rect((segment.start, segment.stop), edges), tone)


def round_corners(city, rng, lines, closed):
    """Join the kerbs of two open streets by an arc of carriageway. Some corners get a slip lane."""
    style = city.style
    turn = np.linspace(0, np.pi / 2, 7)
    quarter = np.stack([np.cos(turn), np.sin(turn)], 1)
    for corner, way in _corners(lines, closed):
        slip = rng.random() < style.slips
        reach = style.corner + (rng.uniform(6, 10) if slip else 0.0)
        outside = corner + way * (reach - (reach - style.kerb) * quarter[::-1])
        city.fill([corner, *outside], style.kerb_colour)
        city.fill([corner, *(corner + way * (reach - reach * quarter[::-1]))], style.asphalt, drivable=255)
        if slip:  # an island separates the lane from the junction
            top = style.lawn if style.verge else style.paving
            for grow, colour in ((0.0, style.kerb_colour), (0.35, top)):
                arc = corner + way * (reach - (reach + 4.2 + grow) * quarter)
                island = np.concatenate([[corner + way * (0.6 + grow)], arc[1:-1][::-1]])
                inside = ((island - corner) * way).min(1) > 0.3
                if inside.sum() > 2:
                    city.fill(island[inside], colour, drivable=0)


def _corners(lines, closed):
    """Yield each corner (u, v) where two open streets meet, and the direction (+-1, +-1) into its block."""
    for (i, (u, width_u)), (j, (v, width_v)) in product(enumerate(lines[0]), enumerate(lines[1])):
        for du, dv in product((-1, 1), (-1, 1)):
            a, b = i + min(du, 0), j + min(dv, 0)
            in_plan = 0 <= a < len(lines[0]) - 1 and 0 <= b < len(lines[1]) - 1
            if in_plan and not closed[0, a, j] and not closed[1, i, b]:
                yield np.array([u + du * width_u / 2, v + dv * width_v / 2]), np.array([du, dv])


def islands(city, rng, streets, lines):
    """Medians along wide streets, islands at street ends, and roundabouts; no camera stands on them."""
    style = city.style
    top = np.array(style.lawn if style.verge else style.paving) * rng.uniform(0.9, 1.1)
    edge = np.clip(top * 1.3 + 25, 0, 240)
    rings = ((0.25, edge), (0.0, top))
    for segment in streets:
        if segment.width > 11 and rng.random() < style.medians:
            half = rng.uniform(0.5, 1.6)
            first, last = segment.start + rng.uniform(3, 9), segment.stop - rng.uniform(3, 9)
            for grow, colour in rings if last - first > 4 else ():
                city.fill(segment.rect((first, last), (-half - grow, half + grow)), colour, drivable=0)
            continue
        for end, inward in segment.ends():
            if segment.width > 8.5 and rng.random() < style.islands:
                length, wide = rng.uniform(5, 16), rng.uniform(0.5, 1.2)
                first = end + inward * rng.uniform(1.5, 4.0)
                along = first + inward * length * np.array([0, 0.3, 1, 0.3])
                for grow, colour in rings:
                    city.fill(segment.place(along, [0, wide + grow, 0, -wide - grow]), colour, drivable=0)
    for (u, width_u), (v, width_v) in product(*lines):
        if rng.random() < style.roundabouts:
            outer = 0.75 * max(width_u, width_v) + rng.uniform(0, 3)
            inner = outer - rng.uniform(4.5, 6)
            city.fill(circle(outer + style.kerb, 28)[:-1] + (u, v), style.kerb_colour)
            city.fill(circle(outer, 28)[:-1] + (u, v), style.asphalt, drivable=255)
            for radius, colour in ((inner + 0.4, edge), (inner, top)):
                if radius > 1:
                    city.fill(circle(radius, 28)[:-1] + (u, v), colour, drivable=0)


def more_marks(city, rng, segment):
    """Lines along the kerbs, hatched areas and words, if the style has them."""
    style, half = city.style, segment.width / 2
    if style.edges and rng.random() < style.edges:
        for across in (-half + 0.35, half - 0.5):
            edges = across, across + rng.uniform(0.1, 0.2)
            city.fill(segment.rect((segment.start + 5, segment.stop - 5), edges), style.paint)
    for end, inward in segment.ends(5):
        if style.hatchings and segment.width > 8 and rng.random() < style.hatchings:
            wide, length = rng.uniform(0.6, 1.3), rng.uniform(8, 18)
            for along in np.arange(0, length, 1.6):
                across = wide * (1 - along / length)
                stroke = end + inward * (along + np.array([0, 0.9, 1.3, 0.4]))
                city.fill(segment.place(stroke, [-across, across, across, -across]), style.centre_line)
        if style.words and rng.random() < style.words:
            _word(city, segment, rng.choice(TABLES["words"]), end + inward * rng.uniform(4, 12), inward)


def _word(city, segment, word, first, inward):
    """Letters of 0.8 x 2.2 m for drivers who come towards the segment's end."""
    middle = segment.arriving(inward) * segment.width / 4
    for number, letter in enumerate(word):
        for stroke in TABLES["strokes"][letter]:
            row, col = np.array([divmod(int(key) - 1, 3) for key in stroke]).T
            across = middle + inward * (number - len(word) / 2 + col * 0.4) * (1 if segment.axis else -1)
            for line in pairwise(np.stack([first + inward * row * 1.1, across], 1)):
                away = line[1] - line[0]
                side = 0.13 * away[::-1] * (-1, 1) / np.hypot(*away)
                outline = np.concatenate([line + side, (line - side)[::-1]])
                city.fill(segment.place(*outline.T), city.style.paint)


def wear_off(city, rng):
    """Blend worn paint, in patches, with the ground beside it."""
    height, width = city.height.shape
    small = cv2.resize(city.colour, (width // 4, height // 4), interpolation=cv2.INTER_AREA)
    blurred = cv2.blur(small, (5, 5))
    for rows in bands(height):
        size = width, rows.stop - rows.start
        ground = cv2.resize(blurred[rows.start // 4 : rows.stop // 4], size).astype(np.float32)
        spots = rng.uniform(-0.5, 0.5, (max(2, size[1] // 24), width // 24)).astype(np.float32)
        wear = city.style.wear + cv2.resize(spots, size) * min(0.8, 2 * city.style.wear)
        gone = (np.clip(wear, 0, 0.95) * (city.drivable[rows] > 0))[..., None]
        city.colour[rows] = (city.colour[rows] + (ground - city.colour[rows]) * gone).astype(np.uint8)


def weather(city, rng):
    """Stains, worn spots and grain on every surface."""
    height, width = city.height.shape
    stains = cv2.resize(rng.normal(0, 7, (height // 64, width // 64)).astype(np.float32), (width, height))
    grain = rng.normal(0, 1, (512, 512)).astype(np.float32)
    grain = cv2.GaussianBlur(grain, (0, 0), 1.2) * 16 + cv2.GaussianBlur(grain, (0, 0), 5) * 34
    grain = np.tile(grain, (1, width // 512 + 1))[:, :width]
    for rows in bands(height):
        shifted = np.roll(grain, int(rng.integers(512)), 1)[: rows.stop - rows.start]
        tone = (stains[rows] + shifted).astype(np.int16)
        city.colour[rows] = cv2.add(city.colour[rows], cv2.merge([tone] * 3), dtype=cv2.CV_8U)


def furniture(city, rng, segment):
    """Lamps, signs and people along the kerbs, visible in panoramas but hardly in satellite images."""
    scale = 1 / city.metres_per_pixel
    for _ in range(rng.poisson(2 * (segment.stop - segment.start) / city.style.poles)):
        side, away = rng.choice((-1, 1)), rng.uniform(0.5, max(0.8, city.style.pavement - 0.3))
        across = side * (segment.width / 2 + away)
        spot = city.to_px(segment.place([rng.uniform(segment.start, segment.stop)], [across]))[0]
        if city.is_free(spot, "height"):
            radius, height_m = ((0.09, rng.uniform(4, 9)), (0.05, 2.4), (0.25, 1.7))[rng.integers(3)]
            colour = rng.integers(40, 200, 3).tolist() if radius > 0.2 else [int(rng.uniform(70, 170))] * 3
            x, y = fixed_point(spot).tolist()
            city.fill_disc(x, y, max(int(radius * scale * 16), 8), colour, height=height_m / QUARTER_M)


def ragged_crowns(city, rng):
    """Cut holes into the crowns of trees, through which the satellite image shows the ground."""
    noise = cv2.GaussianBlur(rng.normal(0, 1, (512, 512)).astype(np.float32), (0, 0), 1.6)
    holes = noise < np.quantile(noise, 0.6 * city.style.ragged)
    rows, cols = city.canopy.shape
    city.canopy[np.tile(holes, (-(-rows // 512), -(-cols // 512)))[:rows, :cols]] = 0
