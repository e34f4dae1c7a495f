"""What varied worlds have in their streets beside the four cities': verges, rounded kerbs, islands, furniture, worn paint.

Everything in metres (u, v), as `plan`; a `Segment` is a street between two crossings.
"""

from itertools import pairwise

import cv2
import numpy as np

from dataset.mini_vigor.city import QUARTER_M, fixed_point


def surface(city, rng):
    """The colour of a street's own surface: (3,), about the style's, now and then concrete or gravel."""
    asphalt = np.array(city.style.asphalt, float) * (1 + city.style.mixed * rng.uniform(-0.5, 0.6))
    if rng.random() < 0.15 * city.style.mixed:
        asphalt = np.array(city.style.paving) * rng.uniform(0.75, 1.0)
    return np.clip(asphalt + rng.normal(0, 3 * city.style.mixed, 3), 20, 235)


def verges(city, rng, segments, closed):
    """Grass from the kerb on, and a footpath in it, on one side or both; a closed street is a path through grass."""
    style = city.style
    for segment in segments:
        half = segment.width / 2
        if closed[segment.key]:
            width = rng.uniform(1.4, 3.5)
            city.fill(segment.rect((segment.start - 8, segment.stop + 8), (-width / 2, width / 2)), style.paving)
            continue
        for side in (-1, 1):
            if rng.random() < 0.75:
                near = half + style.verge + rng.uniform(-0.2, 0.2) * style.verge
                edges = sorted((side * near, side * (near + style.footpath)))
                tone = np.clip(np.array(style.paving) * rng.uniform(0.85, 1.05), 0, 240)
                city.fill(segment.rect((segment.start, segment.stop), edges), tone)


def kerb_colour(city):
    """Of the kerbs: the style's, or a little lighter than the paving."""
    return city.style.kerb_colour or [c * 1.16 for c in city.style.paving]


def round_corners(city, rng, lines, closed):
    """The kerbs of two open streets meet in an arc: carriageway inside it, kerb along it; some corners have a slip lane."""
    style = city.style
    turn = np.linspace(0, np.pi / 2, 7)
    for corner, way in _corners(lines, closed):
        slip = rng.random() < style.slips
        reach = style.corner + (rng.uniform(6, 10) if slip else 0.0)
        for grow, layers in ((style.kerb, {}), (0.0, {"drivable": 255})):
            arc = corner + way * (reach - (reach - grow) * np.stack([np.cos(turn), np.sin(turn)], 1))
            city.fill(np.concatenate([[corner], arc[::-1]]), style.asphalt if layers else kerb_colour(city), **layers)
        if slip:  # an island keeps the lane apart from the junction
            for grow, colour in ((0.0, kerb_colour(city)), (0.35, style.lawn if style.verge else style.paving)):
                arc = corner + way * (reach - (reach + 4.2 + grow) * np.stack([np.cos(turn), np.sin(turn)], 1))
                island = np.concatenate([[corner + way * (0.6 + grow)], arc[1:-1][::-1]])
                inside = ((island - corner) * way).min(1) > 0.3
                if inside.sum() > 2:
                    city.fill(island[inside], colour, drivable=0)


def _corners(lines, closed):
    """Of the open streets' junctions: each corner (u, v) of the carriageways, and the way (+-1, +-1) into its block."""
    for i, (u, width_u) in enumerate(lines[0]):
        for j, (v, width_v) in enumerate(lines[1]):
            for du in (-1, 1):
                for dv in (-1, 1):
                    a, b = i + (0 if du > 0 else -1), j + (0 if dv > 0 else -1)
                    there = 0 <= a < len(lines[0]) - 1 and 0 <= b < len(lines[1]) - 1
                    if there and not closed[0, a, j] and not closed[1, i, b]:
                        yield np.array([u + du * width_u / 2, v + dv * width_v / 2]), np.array([du, dv])


def islands(city, rng, streets, lines):
    """Medians along wide streets, islands at streets' ends, and roundabouts: no camera stands on them."""
    style = city.style
    top = np.array(style.lawn if style.verge else style.paving) * rng.uniform(0.9, 1.1)
    edge = np.clip(top * 1.3 + 25, 0, 240)
    for segment in streets:
        if segment.width > 11 and rng.random() < style.medians:
            half, ends = rng.uniform(0.5, 1.6), (segment.start + rng.uniform(3, 9), segment.stop - rng.uniform(3, 9))
            for grow, colour in ((0.25, edge), (0.0, top)):
                if ends[1] - ends[0] > 4:
                    city.fill(segment.rect(ends, (-half - grow, half + grow)), colour, drivable=0)
            continue
        for end, inward in ((segment.start, 1), (segment.stop, -1)):
            if segment.width > 8.5 and rng.random() < style.islands:
                length, wide = rng.uniform(5, 16), rng.uniform(0.5, 1.2)
                first = end + inward * rng.uniform(1.5, 4.0)
                along = first + inward * length * np.array([0, 0.3, 1, 0.3])
                for grow, colour in ((0.25, edge), (0.0, top)):
                    city.fill(segment.place(along, np.array([0, wide + grow, 0, -wide - grow])), colour, drivable=0)
    for u, width_u in lines[0]:
        for v, width_v in lines[1]:
            if rng.random() < style.roundabouts:
                outer = 0.75 * max(width_u, width_v) + rng.uniform(0, 3)
                inner = outer - rng.uniform(4.5, 6)
                for radius, colour, drivable in (
                    (outer + style.kerb, kerb_colour(city), None),
                    (outer, style.asphalt, 255),
                    (inner + 0.4, edge, 0),
                    (inner, top, 0),
                ):
                    if radius > 1:
                        city.fill(_circle(u, v, radius), colour, **({} if drivable is None else {"drivable": drivable}))


def _circle(u, v, radius):
    turn = np.linspace(0, 2 * np.pi, 28)[:-1]
    return np.stack([u + radius * np.cos(turn), v + radius * np.sin(turn)], 1)


def more_marks(city, rng, segment):
    """Lines along the kerbs, hatched areas and words, where the style has them."""
    style, half = city.style, segment.width / 2
    start, stop = segment.start + 5, segment.stop - 5
    if style.edges and rng.random() < style.edges:
        for across in (-half + 0.35, half - 0.5):
            city.fill(segment.rect((start, stop), (across, across + rng.uniform(0.1, 0.2))), style.paint)
    for end, inward in ((start, 1), (stop, -1)):
        if style.hatchings and segment.width > 8 and rng.random() < style.hatchings:
            wide, length = rng.uniform(0.6, 1.3), rng.uniform(8, 18)
            for along in np.arange(0, length, 1.6):
                across = wide * (1 - along / length)
                stroke = end + inward * (along + np.array([0, 0.9, 1.3, 0.4]))
                city.fill(segment.place(stroke, np.array([-across, across, across, -across])), style.centre_line)
        if style.words and rng.random() < style.words:
            side = -1 if (inward > 0) == (segment.axis == 0) else 1
            _word(city, segment, rng.choice(list(_WORDS)), end + inward * rng.uniform(4, 12), inward, side * half / 2)


# Letters as strokes between the keys of a telephone: 123 above, 789 below.
_STROKES = {
    "A": "7139 46", "B": "71364697", "E": "3179 46", "I": "28", "K": "17 34 49", "L": "179", "N": "7193", "O": "13971",
    "P": "71364", "S": "314697", "T": "13 28", "U": "1793", "W": "17593", "X": "19 37", "Y": "15 35 58",
}  # fmt: skip
_WORDS = ("BUS", "SLOW", "STOP", "ONLY", "TAXI", "KEEP")


def _word(city, segment, word, first, inward, middle):
    """Letters of 0.8 x 2.2 m for drivers who come towards the segment's end."""
    for number, letter in enumerate(word):
        for stroke in _STROKES[letter].split():
            keys = np.array([divmod(int(key) - 1, 3) for key in stroke])  # (row, column)
            along = first + inward * keys[:, 0] * 1.1
            across = middle + inward * (number - len(word) / 2 + keys[:, 1] * 0.4) * (1 if segment.axis else -1)
            for a, b in pairwise(range(len(keys))):
                away = np.array([along[b] - along[a], across[b] - across[a]])
                side = 0.13 * away[::-1] * (-1, 1) / np.hypot(*away)
                ends = np.array([[along[a], across[a]], [along[b], across[b]]])
                outline = np.concatenate([ends + side, (ends - side)[::-1]])
                city.fill(segment.place(outline[:, 0], outline[:, 1]), city.style.paint)


def wear_off(city, rng):
    """Paint that has gone: marks lose themselves in the ground beside them, in patches."""
    height, width = city.height.shape
    blurred = cv2.blur(cv2.resize(city.colour, (width // 4, height // 4), interpolation=cv2.INTER_AREA), (5, 5))
    for top in range(0, height, 512):
        rows = slice(top, min(top + 512, height))
        size = width, rows.stop - top
        ground = cv2.resize(blurred[top // 4 : rows.stop // 4], size)
        spots = cv2.resize(rng.uniform(-0.5, 0.5, (max(2, size[1] // 24), width // 24)).astype(np.float32), size)
        gone = np.clip(city.style.wear + spots * min(0.8, 2 * city.style.wear), 0, 0.95) * (city.drivable[rows] > 0)
        city.colour[rows] = (city.colour[rows] + (ground.astype(np.float32) - city.colour[rows]) * gone[..., None]).astype(
            np.uint8
        )


def furniture(city, rng, segment):
    """Lamps, signs and people along the kerbs: what a panorama sees and a satellite hardly does."""
    scale = 1 / city.metres_per_pixel
    for _ in range(rng.poisson(2 * (segment.stop - segment.start) / city.style.poles)):
        across = rng.choice((-1, 1)) * (segment.width / 2 + rng.uniform(0.5, max(0.8, city.style.pavement - 0.3)))
        spot = city.to_px(segment.place(np.array([rng.uniform(segment.start, segment.stop)]), np.array([across])))[0]
        if (spot < 0).any() or (spot >= city.height.shape).any() or city.height[tuple(spot.astype(int))]:
            continue
        radius, height_m = ((0.09, rng.uniform(4, 9)), (0.05, 2.4), (0.25, 1.7))[rng.integers(3)]
        colour = rng.integers(40, 200, 3).tolist() if radius > 0.2 else [int(rng.uniform(70, 170))] * 3
        x, y = (int(c) for c in fixed_point(spot))
        size = max(int(radius * scale * 16), 8)
        cv2.circle(city.colour, (x, y), size, colour, -1, cv2.LINE_AA, 4)
        cv2.circle(city.height, (x, y), size, int(height_m / QUARTER_M), -1, cv2.LINE_8, 4)


def ragged_crowns(city, rng):
    """Holes in the crowns of trees, through which the ground shows from above."""
    noise = rng.normal(0, 1, (512, 512)).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), 1.6)
    holes = noise < np.quantile(noise, 0.6 * city.style.ragged)
    tall = [-(-side // 512) for side in city.canopy.shape]
    city.canopy[np.tile(holes, tall)[: city.canopy.shape[0], : city.canopy.shape[1]]] = 0
