"""What lies between mini-VIGOR's streets, in metres (u, v): houses with gardens, parks, car parks, trees."""

from itertools import product

import numpy as np

from dataset.mini_vigor.city import QUARTER_M, fixed_point, rect


def gaps(streets):
    """(n - 1, 2): start and stop of the ground between the carriageways of parallel streets."""
    middle, half = streets[:, 0], streets[:, 1] / 2
    return np.stack([(middle + half)[:-1], (middle - half)[1:]], 1)


def lay_out(city, rng, lines):
    """Fill every block between the streets with houses, a park or a square."""
    style = city.style
    for u, v in product(*(gaps(streets) + (style.pavement, -style.pavement) for streets in lines)):
        if not city.shows(rect(u, v)):
            continue
        if rng.random() < style.parks:
            _park(city, rng, u, v)
        elif style.squares and rng.random() < style.squares:
            draw = _parking if rng.random() < 0.5 else _square
            draw(city, rng, u, v)
        else:
            _houses(city, rng, *((u, v, 0) if u[1] - u[0] > v[1] - v[0] else (v, u, 1)))


def _park(city, rng, u, v):
    """A lawn with a diagonal and a straight path, and trees."""
    style = city.style
    city.note(rect(u, v), {"leisure": "park"})
    city.fill(rect(u, v), style.lawn)
    city.fill([[u[0], v[0]], [u[0] + 3, v[0]], [u[1], v[1]], [u[1] - 3, v[1]]], style.paving)
    middle = rng.uniform(0.3, 0.7) * (v[1] - v[0]) + v[0]
    city.fill(rect(u, (middle, middle + 2.5)), style.paving)
    for _ in range(int((u[1] - u[0]) * (v[1] - v[0]) / 90)):
        plant(city, rng, (rng.uniform(*u), rng.uniform(*v)), rng.uniform(2.0, 4.2))


def _square(city, rng, u, v):
    """Slabs in two tones with rows of trees."""
    tone, size = np.array(city.style.paving) * rng.uniform(0.8, 1.05), rng.uniform(2, 7)
    city.note(rect(u, v), {"highway": "pedestrian", "area": "yes"})
    city.fill(rect(u, v), tone)
    second = np.clip(tone * rng.choice((0.8, 0.88, 1.1)), 0, 240)
    for i, along in enumerate(np.arange(u[0], u[1] - size, size)):
        for across in np.arange(v[0] + size * (i % 2), v[1] - size, 2 * size):
            city.fill(rect((along, along + size), (across, across + size)), second)
    pitch = rng.uniform(8, 16)
    for spot in product(np.arange(u[0] + 4, u[1] - 3, pitch), np.arange(v[0] + 4, v[1] - 3, pitch)):
        if rng.random() < 0.5 * city.style.green:
            plant(city, rng, spot, rng.uniform(1.5, 3), pit=True)


def _parking(city, rng, u, v):
    """A car park with rows of bays, some with cars in each of the two images."""
    city.note(rect(u, v), {"amenity": "parking"})
    city.fill(rect(u, v), np.clip(np.array(city.style.asphalt) * rng.uniform(0.85, 1.2), 20, 235))
    for across in np.arange(v[0] + 1, v[1] - 5.5, 11.5):
        for along in np.arange(u[0] + 2, u[1] - 3, 2.6):
            city.fill(rect((along, along + 0.14), (across, across + 5)), city.style.paint)
            city.bays.append((along + 1.35, across + 2.5))


def _houses(city, rng, along, across, axis):
    """Two rows of lots back to back, each facing its street."""
    style = city.style
    yard = style.lawn if rng.random() < style.green else rng.uniform(0.7, 0.9) * np.array(style.paving)
    city.fill(rect(along, across, axis), yard)
    middle, in_a_row = (across[0] + across[1]) / 2, style.setback[1] <= 1
    for front, inward in ((across[0], 1), (across[1], -1)):
        setback, start = rng.uniform(*style.setback), along[0]
        while along[1] - start > style.lot[0] / 2:
            width = min(rng.uniform(*style.lot), along[1] - start)
            gap = rng.choice((0.0, 0.0, 0.0, 0.0, 2.5) if in_a_row else (0.0, 0.0, 1.2, 3.0))
            kind = rng.random()
            lot = (start + gap / 2, start + width - gap / 2)
            depth = min(rng.uniform(*style.depth), abs(middle - front) - setback - 1.5)
            wall = front + inward * (setback + rng.uniform(0, 1.2) * (not in_a_row))
            if kind < 0.07 and style.green < rng.random() + 0.4:
                _small_car_park(city, lot, sorted((front, front + inward * 15)), axis)
            elif kind > 0.1:
                building(city, rng, lot, sorted((wall, wall + inward * depth)), axis)
                _front_garden(city, rng, lot, sorted((front, wall)), axis)
            if style.driveways and rng.random() < style.driveways:
                _driveway(city, rng, lot, front, inward, setback + 4, axis)
            if style.fences and rng.random() < style.fences:
                _fence(city, rng, lot, front + inward * 0.2, inward, setback + depth, axis)
            if rng.random() < style.green:
                spot = (rng.uniform(*lot), front + inward * (setback + depth + 3.5))
                plant(city, rng, spot if axis == 0 else spot[::-1], rng.uniform(1.5, 3.2))
            start += width


def _small_car_park(city, along, across, axis):
    """One row of bays on a lot, always without cars."""
    city.note(rect(along, across, axis), {"amenity": "parking"})
    city.fill(rect(along, across, axis), [c * 1.1 for c in city.style.asphalt])
    for line in np.arange(along[0] + 0.5, along[1], 2.6):
        city.fill(rect((line, line + 0.14), (across[0] + 1, across[0] + 5.5), axis), city.style.paint)


def _driveway(city, rng, lot, front, inward, depth, axis):
    """A driveway from the carriageway over kerb and verge to the house; no camera stands on it."""
    width = rng.uniform(2.4, 5.5)
    start = rng.uniform(lot[0], max(lot[1] - width, lot[0] + 0.1))
    tone = city.style.asphalt if rng.random() < 0.3 else city.style.paving
    tone = np.clip(np.array(tone) * rng.uniform(0.8, 1.1), 0, 240)
    across = sorted((front - inward * (city.style.pavement + 0.1), front + inward * depth))
    city.fill(rect((start, start + width), across, axis), tone, height=0)


def _fence(city, rng, lot, front, inward, depth, axis):
    """A wall, a fence or a hedge with a gate along the street, and along one side of a lot."""
    kind = rng.integers(3)
    colour = (city.style.paving, (96, 78, 60), city.style.leaves[0])[kind]
    wide, height = (0.15, 0.1, rng.uniform(0.4, 1.0))[kind], int(rng.uniform(0.7, 1.9) / QUARTER_M)
    gate = rng.uniform(*lot)
    street, side = (sorted((front, front + inward * long)) for long in (wide, depth))
    pieces = ((lot[0], gate - 0.8), street), ((gate + 2.5, lot[1]), street), ((lot[0], lot[0] + wide), side)
    for along, across in pieces:
        if along[1] > along[0]:
            city.fill(rect(along, across, axis), colour, height=height)


def _front_garden(city, rng, along, across, axis):
    """A path from the pavement to the door and sometimes a hedge."""
    if across[1] - across[0] < 0.8:
        return
    door = rng.uniform(along[0] + 1, max(along[1] - 2.2, along[0] + 1.1))
    if rng.random() < 0.35 * city.style.green:
        hedge = rect(along, (across[0] + 0.1, across[0] + 0.7), axis)
        city.fill(hedge, city.style.leaves[0], height=4)
    city.fill(rect((door, door + 1.3), across, axis), [c * 0.95 for c in city.style.paving], height=0)


def building(city, rng, along, across, axis):
    """A house: its facade, and a roof in the facade's tint with a gable or with a parapet and a few boxes."""
    style = city.style
    facade, (low, high) = int(rng.integers(1, 256)), style.storeys
    storeys = low + (high - low) * rng.random() ** 2
    height = min(int((storeys * city.facades["storey_m"][facade] + 1.2) / QUARTER_M), 255)
    roof = np.array(style.roofs[rng.integers(len(style.roofs))]) * rng.uniform(0.85, 1.1)
    roof = 0.65 * roof + 0.35 * city.facades["colour"][facade]
    outline = rect(along, across, axis)
    city.note(outline, {"building": "yes", "building:levels": f"{max(1, round(storeys))}"})
    city.fill(outline, roof * 0.72, height=height, wall=facade)
    inset = [(first + 0.4, last - 0.4) for first, last in (along, across)]
    city.fill(rect(*inset, axis), roof)
    if style.gables and storeys < 3.5:
        city.fill(rect(inset[0], (inset[1][0], np.mean(across)), axis), roof * 0.82)
        return
    for _ in range(rng.integers(1, 4)):
        starts = [rng.uniform(first, max(last - 2.5, first + 0.1)) for first, last in inset]
        box = rect(*zip(starts, starts + rng.uniform(1, 2.6, 2), strict=True), axis)
        city.fill(box, roof * rng.choice((0.6, 1.25)), height=min(height + 8, 255))


def plant(city, rng, spot, radius, pit=False):
    """Plant a tree: a crown of overlapping discs on a trunk. With `pit` it stands in a square of earth."""
    style, scale = city.style, 1 / city.metres_per_pixel
    if style.crowns:
        radius = radius / 2.2 * rng.uniform(*style.crowns)
    if pit:
        city.fill(rect(*((at - 0.7, at + 0.7) for at in spot)), (96, 80, 62))
    centre = city.to_px([spot])[0]
    if not city.is_free(centre, "wall"):
        return
    x, y = fixed_point(centre).tolist()
    trunk = int(rng.uniform(0.15, 0.3) * scale * 16)
    city.fill_disc(x, y, trunk, (74, 60, 48), height=3.0 / QUARTER_M)
    top, tone = rng.uniform(*style.tops), rng.uniform(60, 190)
    for part in np.linspace(0, 1, 6):
        away, bearing = (1 - part) * radius * 0.6, rng.uniform(0, 2 * np.pi)
        right, down = int(away * np.cos(bearing) * scale * 16), int(away * np.sin(bearing) * scale * 16)
        size = int(radius * (0.75 - 0.4 * part) * scale * 16)
        height = top * (style.edge_of_crown + (1 - style.edge_of_crown) * part)
        leaf = np.clip(tone + rng.uniform(-50, 65), 1, 255)
        city.fill_disc(x + right, y + down, size, canopy=height / QUARTER_M, leaf=leaf)
