"""What lies between mini-VIGOR's streets: houses with their gardens, parks, car parks, trees. In metres (u, v), as `plan`."""

import cv2
import numpy as np

from dataset.mini_vigor.city import QUARTER_M, fixed_point, rect


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
            elif style.squares and rng.random() < style.squares:
                _square(city, rng, u, v)
            elif u[1] - u[0] > v[1] - v[0]:
                _houses(city, rng, u, v, 0)
            else:
                _houses(city, rng, v, u, 1)


def _park(city, rng, u, v):
    city.note(rect(u, v), {"leisure": "park"})
    city.fill(rect(u, v), city.style.lawn)
    city.fill(np.array([[u[0], v[0]], [u[0] + 3, v[0]], [u[1], v[1]], [u[1] - 3, v[1]]]), city.style.paving)
    middle = rng.uniform(0.3, 0.7) * (v[1] - v[0]) + v[0]
    city.fill(rect(u, (middle, middle + 2.5)), city.style.paving)
    for _ in range(int((u[1] - u[0]) * (v[1] - v[0]) / 90)):
        plant(city, rng, (rng.uniform(*u), rng.uniform(*v)), rng.uniform(2.0, 4.2))


def _square(city, rng, u, v):
    """An open place: slabs in two tones with trees in rows, or a car park."""
    if rng.random() < 0.5:
        _parking(city, rng, u, v)
        return
    tone, size = np.array(city.style.paving) * rng.uniform(0.8, 1.05), rng.uniform(2, 7)
    city.note(rect(u, v), {"highway": "pedestrian", "area": "yes"})
    city.fill(rect(u, v), tone)
    second = np.clip(tone * rng.choice((0.8, 0.88, 1.1)), 0, 240)
    for i, along in enumerate(np.arange(u[0], u[1] - size, size)):
        for across in np.arange(v[0] + size * (i % 2), v[1] - size, 2 * size):
            city.fill(rect((along, along + size), (across, across + size)), second)
    pitch = rng.uniform(8, 16)
    for along in np.arange(u[0] + 4, u[1] - 3, pitch):
        for across in np.arange(v[0] + 4, v[1] - 3, pitch):
            if rng.random() < 0.5 * city.style.green:
                plant(city, rng, (along, across), rng.uniform(1.5, 3), pit=True)


def _parking(city, rng, u, v):
    """Rows of bays, of which cars take some at either time."""
    city.note(rect(u, v), {"amenity": "parking"})
    city.fill(rect(u, v), np.clip(np.array(city.style.asphalt) * rng.uniform(0.85, 1.2), 20, 235))
    for across in np.arange(v[0] + 1, v[1] - 5.5, 11.5):
        for along in np.arange(u[0] + 2, u[1] - 3, 2.6):
            city.fill(rect((along, along + 0.14), (across, across + 5)), city.style.paint)
            city.bays.append(((along + 1.35, across + 2.5), 1))


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
            if style.driveways and rng.random() < style.driveways:
                _driveway(city, rng, lot, front, inward, setback + 4, axis)
            if style.fences and rng.random() < style.fences:
                _fence(city, rng, lot, front + inward * 0.2, inward, setback + depth, axis)
            if rng.random() < style.green:
                back = front + inward * (setback + depth + 3.5)
                spot = (rng.uniform(*lot), back)
                plant(city, rng, spot if axis == 0 else spot[::-1], rng.uniform(1.5, 3.2))
            here += width


def _car_park(city, along, across, axis):
    city.note(rect(along, across, axis), {"amenity": "parking"})
    city.fill(rect(along, across, axis), [c * 1.1 for c in city.style.asphalt])
    for there in np.arange(along[0] + 0.5, along[1], 2.6):
        city.fill(rect((there, there + 0.14), (across[0] + 1, across[0] + 5.5), axis), city.style.paint)


def _driveway(city, rng, lot, front, inward, depth, axis):
    """From the carriageway over kerb and verge to the house; no camera stands on it."""
    width = rng.uniform(2.4, 5.5)
    along = rng.uniform(lot[0], max(lot[1] - width, lot[0] + 0.1))
    tone = np.array(city.style.asphalt if rng.random() < 0.3 else city.style.paving) * rng.uniform(0.8, 1.1)
    across = sorted((front - inward * (city.style.pavement + 0.1), front + inward * depth))
    city.fill(rect((along, along + width), across, axis), np.clip(tone, 0, 240), height=0)


def _fence(city, rng, lot, front, inward, depth, axis):
    """Along the street and one side of a lot: a wall, boards or a hedge."""
    kind = rng.integers(3)
    colour = (city.style.paving, (96, 78, 60), city.style.leaves[0])[kind]
    wide, height = (0.15, 0.1, rng.uniform(0.4, 1.0))[kind], int(rng.uniform(0.7, 1.9) / QUARTER_M)
    gate = rng.uniform(*lot)
    for along in ((lot[0], gate - 0.8), (gate + 2.5, lot[1])):
        if along[1] > along[0]:
            city.fill(rect(along, sorted((front, front + inward * wide)), axis), colour, height=height)
    city.fill(rect((lot[0], lot[0] + wide), sorted((front, front + inward * depth)), axis), colour, height=height)


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
    city.note(rect(along, across, axis), {"building": "yes", "building:levels": f"{max(1, round(storeys))}"})
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
    style = city.style
    if style.crowns:
        radius = radius / 2.2 * rng.uniform(*style.crowns)
    if pit:
        city.fill(rect((spot[0] - 0.7, spot[0] + 0.7), (spot[1] - 0.7, spot[1] + 0.7)), (96, 80, 62))
    centre, scale = city.to_px([spot])[0], 1 / city.metres_per_pixel
    if (centre < 0).any() or (centre >= city.height.shape).any() or city.wall[tuple(centre.astype(int))]:
        return
    x, y = (int(c) for c in fixed_point(centre))
    trunk = int(rng.uniform(0.15, 0.3) * scale * 16)
    cv2.circle(city.colour, (x, y), trunk, (74, 60, 48), -1, cv2.LINE_AA, 4)
    cv2.circle(city.height, (x, y), trunk, int(3.0 / QUARTER_M), -1, cv2.LINE_8, 4)
    top, tone = rng.uniform(*style.tops), rng.uniform(60, 190)
    for part in np.linspace(0, 1, 6):
        away, bearing = (1 - part) * radius * 0.6, rng.uniform(0, 2 * np.pi)
        middle = (x + int(away * np.cos(bearing) * scale * 16), y + int(away * np.sin(bearing) * scale * 16))
        size = int(radius * (0.75 - 0.4 * part) * scale * 16)
        height = top * (style.edge_of_crown + (1 - style.edge_of_crown) * part)
        cv2.circle(city.canopy, middle, size, int(height / QUARTER_M), -1, cv2.LINE_8, 4)
        cv2.circle(city.leaf, middle, size, int(np.clip(tone + rng.uniform(-50, 65), 1, 255)), -1, cv2.LINE_8, 4)
