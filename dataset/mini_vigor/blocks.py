"""What lies between mini-VIGOR's streets: houses with their gardens, parks, car parks, trees. In metres (u, v), as `plan`."""

import cv2
import numpy as np

from dataset.mini_vigor.city import QUARTER_M, WHITE, fixed_point, rect


def lay_out(city, rng, lines):
    """Whatever lies between the streets: houses, parks, car parks."""
    style = city.style
    for (u0, width0), (u1, width1) in zip(lines[0][:-1], lines[0][1:], strict=True):
        for (v0, width2), (v1, width3) in zip(lines[1][:-1], lines[1][1:], strict=True):
            u = (u0 + width0 / 2 + style.pavement, u1 - width1 / 2 - style.pavement)
            v = (v0 + width2 / 2 + style.pavement, v1 - width3 / 2 - style.pavement)
            if not city.shows(rect(u, v)):
                continue
            if rng.random() < style.parks:
                _park(city, rng, u, v)
            elif u[1] - u[0] > v[1] - v[0]:
                _houses(city, rng, u, v, 0)
            else:
                _houses(city, rng, v, u, 1)


def _park(city, rng, u, v):
    city.fill(rect(u, v), city.style.lawn)
    city.fill(np.array([[u[0], v[0]], [u[0] + 3, v[0]], [u[1], v[1]], [u[1] - 3, v[1]]]), city.style.paving)
    middle = rng.uniform(0.3, 0.7) * (v[1] - v[0]) + v[0]
    city.fill(rect(u, (middle, middle + 2.5)), city.style.paving)
    for _ in range(int((u[1] - u[0]) * (v[1] - v[0]) / 90)):
        plant(city, rng, (rng.uniform(*u), rng.uniform(*v)), rng.uniform(2.0, 4.2))


def _houses(city, rng, along, across, axis):
    """Two rows of lots back to back, each facing its street."""
    style = city.style
    yard = style.lawn if rng.random() < style.green else rng.uniform(0.7, 0.9) * np.array(style.paving)
    city.fill(rect(along, across, axis), yard)
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
                plant(city, rng, spot if axis == 0 else spot[::-1], rng.uniform(1.5, 3.2))
            here += width


def _car_park(city, along, across, axis):
    city.fill(rect(along, across, axis), [c * 1.1 for c in city.style.asphalt])
    for there in np.arange(along[0] + 0.5, along[1], 2.6):
        city.fill(rect((there, there + 0.14), (across[0] + 1, across[0] + 5.5), axis), WHITE)


def _front_garden(city, rng, along, across, axis):
    """Between house and pavement: a path to the door, and now and then a hedge."""
    if across[1] - across[0] < 0.8:
        return
    door = rng.uniform(along[0] + 1, max(along[1] - 2.2, along[0] + 1.1))
    if rng.random() < 0.35 * city.style.green:
        city.fill(rect(along, (across[0] + 0.1, across[0] + 0.7), axis), city.style.leaves[0], height=4)
    city.fill(rect((door, door + 1.3), across, axis), [c * 0.95 for c in city.style.paving], height=0)


def _building(city, rng, along, across, axis):
    """A house: its height, its facade, and a roof in the facade's tint with a parapet or gable and a few boxes on it."""
    style = city.style
    facade = int(rng.integers(1, 256))
    low, high = style.storeys
    storeys = low + (high - low) * rng.random() ** 2
    height = min(int((storeys * city.facades["storey_m"][facade] + 1.2) / QUARTER_M), 255)
    roof = np.array(style.roofs[rng.integers(len(style.roofs))]) * rng.uniform(0.85, 1.1)
    roof = 0.65 * roof + 0.35 * city.facades["colour"][facade]
    city.fill(rect(along, across, axis), roof * 0.72, height=height, wall=facade)
    inset = [(along[0] + 0.4, along[1] - 0.4), (across[0] + 0.4, across[1] - 0.4)]
    city.fill(rect(*inset, axis), roof)
    if style.gables and storeys < 3.5:
        city.fill(rect(inset[0], (inset[1][0], np.mean(across)), axis), roof * 0.82)
        return
    for _ in range(rng.integers(1, 4)):
        at = [rng.uniform(low, max(high - 2.5, low + 0.1)) for low, high in inset]
        size = rng.uniform(1, 2.6, 2)
        box = rect((at[0], at[0] + size[0]), (at[1], at[1] + size[1]), axis)
        city.fill(box, roof * rng.choice((0.6, 1.25)), height=min(height + 8, 255))


def plant(city, rng, spot, radius, pit=False):
    """A crown of overlapping discs on a trunk; `pit`: it grows out of a square of earth."""
    if pit:
        city.fill(rect((spot[0] - 0.7, spot[0] + 0.7), (spot[1] - 0.7, spot[1] + 0.7)), (96, 80, 62))
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
