"""The cars of mini-VIGOR's worlds, which differ between satellite image and panorama."""

import numpy as np

from dataset.mini_vigor.city import TABLES
from dataset.mini_vigor.segment import Segment

_COLOURS = TABLES["colours"]
LONG_M = 7.5  # vehicles from this length on are high
_CORNERS = np.array([[-1, 1, 1, -1], [-1, -1, 1, 1]]) / 2  # along and across


def park_and_drive(city, rng, streets):
    """Cars along the kerbs, on lanes and in car parks: outlines and colours, as in `DrawnCity.cars`."""
    outlines, colours = [], []

    def add(segment, along, across, shapes=None):
        length, front = rng.uniform(3.9, 4.9), rng.choice((-1, 1))
        along += rng.uniform(-0.4, 0.4)
        car = (length, 1.8, 0.0), (length * 0.6, 1.62, 0.3), (length * 0.36, 1.45, 0.3)
        for long, wide, shift in shapes or car:
            corners = along + front * shift + long * _CORNERS[0]
            outlines.append(segment.place(corners, across + wide * _CORNERS[1]))
        colours.append(_COLOURS["cars"][rng.integers(7)])

    for segment in streets:
        for side in (-1, 1):
            bays = np.arange(segment.start + 9, segment.stop - 8, 6.0)
            kerb = side * (segment.width / 2 - 1.15)
            spots = [(along, kerb) for along in bays if rng.random() < city.style.parked]
            if city.style.traffic:
                for shapes, along, lane in _traffic(city.style, rng, segment, side):
                    add(segment, along, lane, shapes)
            elif rng.random() < 0.35:
                lane = side * max(segment.width / 2 - 3.9, 1.3)
                spots.append((rng.uniform(segment.start, segment.stop), lane))
            for along, across in spots:
                add(segment, along, across)
    car_park = Segment(1, (), 0.0, 0.0, 0.0, 0.0)
    for u, v in city.bays:
        if rng.random() < 0.55:
            add(car_park, v, u)
    outlines = city.to_px(np.reshape(outlines, (-1, 2))).reshape(-1, 3, 4, 2)
    return outlines, np.array(colours, int).reshape(-1, 3)


def _traffic(style, rng, segment, side):
    """Yield what drives on one side of a street: (outlines of a lorry or bus or None, along, across)."""
    count = max(1, int((segment.width / 2 - 1.5) / 3.1)) if segment.width > 8 else 1
    lane = segment.width / 2 / count
    for middle in side * (np.arange(count) + 0.5) * lane:
        along = segment.start + rng.exponential(1 / style.traffic)
        while along < segment.stop:
            long = rng.uniform(LONG_M, 12) if rng.random() < 0.12 else 0
            yield (
                ((long, 2.5, 0.0), (long - 0.1, 2.4, 0.0), (long - 0.3, 2.3, 0.0)) if long else None,
                along,
                middle,
            )
            along += 6.5 + long + rng.exponential(1 / style.traffic)
