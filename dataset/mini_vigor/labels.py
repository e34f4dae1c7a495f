"""Inaccurate labels, as of phones, beside the true ones: `splits/`, which `--labels original` reads.

    splits/<city>/                  lists with wrong positions, and labels.csv: wrong headings, and accuracies
    splits__corrected/<city>/       the true ones, only for evaluation

Errors depend on (seed, panorama). Half of their variance comes from a field that changes slowly over the
city, so that errors along a drive are correlated, as with a phone between walls.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from common import geometry
from common.errors import UserError
from common.files import locked
from common.settings import POSITIVE, SHARE, Number, Settings, setting
from dataset.lists import (
    LISTS,
    coordinates,
    label_line,
    lists_of,
    read_labels,
    satellite_list,
    write_label_table,
    write_lists,
)
from dataset.mini_vigor.city import generator

OUTLIER_M = 30.0  # by which outliers are off, in a random direction
WAVE_M, WAVES = 100.0, 8  # of the field
_noise = partial(setting, group="wrong labels, beside the true ones")
_HEADING = Number(above=0, most=180, unit="DEG")


@dataclass(frozen=True)
class LabelNoise(Settings):
    """The errors of labels."""

    label_noise: float = _noise(
        None, POSITIVE, "standard deviation of positions east and north, metres", metavar="SIGMA"
    )
    heading_noise: float = _noise(None, _HEADING, "headings are wrong by up to so many degrees")
    outliers: float = _noise(None, SHARE, f"share of positions that are {OUTLIER_M:g} m off", metavar="SHARE")

    @property
    def drawn(self):
        """Whether labels are wrong at all."""
        return any(value is not None for value in self.plain().values())


def write_wrong_labels(root, cities, noise, seed):
    """Write lists and tables of labels with the errors of a `LabelNoise`, for a finished mini-VIGOR's cities.

    Raises UserError while another process draws there.
    """
    with locked(root, "is drawing labels into"):
        for city in cities:
            _write_city(lists_of(root, city), lists_of(root, city, "original"), city, noise, seed)


def _write_city(true, folder, city, noise, seed):
    satellites = satellite_list(true)
    degrees = dict(zip(satellites, coordinates(satellites, "satellite"), strict=True))
    rows = {name: number for number, name in enumerate(satellites)}
    parts = [read_labels(true / f"{part}__corrected.txt", rows) for part in LISTS]
    names, four, _ = parts[-1]
    field = partial(_field, *_waves(generator(seed, city, "field")))
    lines, table = [], []
    for name, images, gps in zip(
        names, np.reshape(four, (-1, 4)), coordinates(names, "panorama"), strict=True
    ):
        rng = generator(seed, city, "label", name)
        around = [(satellites[row], degrees[satellites[row]]) for row in images]
        place, ordered = _labelled(gps, around, noise, field, rng)
        lines.append(label_line(name, place, ordered))
        heading = rng.uniform(-1, 1) * (noise.heading_noise or 0.0)
        table.append((name, heading, noise.label_noise and noise.label_noise * 2**0.5))
    number = {name: i for i, name in enumerate(names)}
    train, test = ([number[name] for name in part[0]] for part in parts[:2])
    folder.mkdir(parents=True, exist_ok=True)
    write_label_table(folder, table)
    write_lists(folder, satellites, lines, train, test, "original")


def _labelled(gps, around, noise, field, rng):
    """(labelled position of a panorama at `gps`, its satellite images, the nearest to that position first).

    Images are (name, (latitude, longitude)). An error that leads out of all four is drawn again.
    """
    place, scale = np.array(geometry.mercator_px(*gps)), float(geometry.metres_per_pixel(gps[0]))
    half, is_outlier = geometry.SATELLITE_PX / 2, rng.random() < (noise.outliers or 0.0)
    for _ in range(1000):
        error = np.sqrt(0.5) * (noise.label_noise or 0.0) * (field(place * scale) + rng.normal(size=2))
        if is_outlier:
            bearing = rng.uniform(0, 2 * np.pi)
            error = error + OUTLIER_M * np.array([np.sin(bearing), np.cos(bearing)])
        there = place + error / scale
        apart = [np.abs(there - geometry.mercator_px(*centre)).max() for _, centre in around]
        if min(apart) < half - 1:
            return geometry.latitude_longitude(*there), [around[i] for i in np.argsort(apart, kind="stable")]
    raise UserError(f"--label_noise {noise.label_noise:g}: labels leave their satellite images; draw less")


def _waves(rng):
    """(directions (W, 2) in radians per metre, phases (W, 2)) of a field of errors."""
    bearing = rng.uniform(0, 2 * np.pi, WAVES)
    ways = np.stack([np.cos(bearing), np.sin(bearing)], 1) * 2 * np.pi / WAVE_M
    return ways, rng.uniform(0, 2 * np.pi, (WAVES, 2))


def _field(ways, phases, place):
    """The field's error (2,) at a place in metres, of standard deviation 1 along each axis."""
    return np.sqrt(2 / WAVES) * np.cos((ways @ place)[:, None] + phases).sum(0)
