"""Heat maps of a few images, each in a satellite image of its own, followed as one drive."""

import tempfile
from argparse import ArgumentTypeError
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from common.errors import UserError
from common.geometry import latitude_longitude, mercator_px, metres_per_pixel
from common.settings import Number, checked, shown
from engine.tracking.lattice import SHARPER, Level, uniform, window
from engine.tracking.motion import MotionNoise, Sensed
from engine.tracking.tracker import Beliefs, track

_FINER = 4  # fine cells along a coarse one
LEVELS = Level(0.5, 2.0, 30.0, 60.0, sharper=SHARPER), Level(0.5 * _FINER, 10.0, sharper=SHARPER)
_METRES = Number(least=-10_000, most=10_000)  # or degrees
_NOWHERE = -60.0


class PlacedMap(NamedTuple):
    """A heat map on the ground."""

    probability: np.ndarray  # (H, W), summing to 1
    centre: tuple  # (latitude, longitude) of the satellite image
    metres_per_pixel: float  # of the heat map
    heading: float | None = None  # of the query image, known or estimated, degrees


class Followed(NamedTuple):
    """Where a frame of a sequence was taken, given all of its frames."""

    latitude: float
    longitude: float
    heading: float  # degrees
    std_m: float  # standard deviation of the place, over both axes together
    probability: float  # that the camera stood within 5 m
    doubted: bool  # its image fits nothing, the motion carries it


def follow_maps(maps, motion, noise=None):
    """A `Followed` for each of some `PlacedMap`s.

    motion: (forward, left, turn) from each frame to the next, one less than maps: metres in the earlier
    frame's axes, degrees clockwise; a number that is not known is None.
    noise: the `MotionNoise` of these. Raises UserError.
    """
    if not (hasattr(motion, "__iter__") and isinstance(noise, (MotionNoise, type(None)))):
        given = f"motion {shown(motion)}, noise {shown(noise)}"
        raise UserError(f"{given}: expected (forward, left, turn) for each step, and a MotionNoise")
    motion = list(motion)
    if len(motion) != len(maps) - 1:
        says = f"{len(motion)} motions for {len(maps)} frames; each leads from a frame to the next"
        raise UserError(f"motion: {says}, so there is one less")
    motion = [checked(f"motion {number}", _read_motion, step) for number, step in enumerate(motion)]
    origin = np.array(mercator_px(*maps[0].centre))
    metres = float(metres_per_pixel(maps[0].centre[0]))
    sensed = [Sensed(heading=maps[0].heading)]
    for one, (forward, left, turn) in zip(maps[1:], motion, strict=True):
        sensed.append(Sensed(forward=forward, left=left, turn=turn, heading=one.heading))
    corners = []
    for one in maps:
        half = np.array(one.probability.shape) * one.metres_per_pixel / 2
        corners.append((np.array(mercator_px(*one.centre)) - origin) * metres - half)

    def likelihood(frame, belief):
        return _on_lattice(maps[frame], corners[frame], belief.lattice)

    reach = max(maps[0].probability.shape) * maps[0].metres_per_pixel / 2
    start = uniform(window(LEVELS[-1], (0, 0), reach))
    with tempfile.TemporaryDirectory() as folder:
        found = track(sensed, likelihood, start, LEVELS, noise or MotionNoise(), Beliefs(folder))
    followed = []
    for one in found:
        pose = one.smoothed
        gps = latitude_longitude(*(origin + np.array(pose.place) / metres))
        spread = float(np.sqrt(pose.covariance[0] + pose.covariance[2]))
        followed.append(Followed(*map(float, gps), pose.heading % 360, spread, pose.near, one.doubted))
    return followed


def _read_motion(given):
    """(forward, left, turn), each a number or None. Raises ArgumentTypeError."""
    try:
        forward, left, turn = given
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"{shown(given)} is not (forward, left, turn)") from None
    return tuple(None if number is None else _METRES(number) for number in (forward, left, turn))


def _on_lattice(one, corner, lattice):
    """The log-likelihood (1, h, w) of a heat map, whose north-west corner lies at metres (south, east)."""
    finer = round(lattice.level.cell_m / LEVELS[0].cell_m)
    side = lattice.level.cell_m / finer
    shares = []
    for first, count, at, pixels in zip(
        (lattice.row, lattice.col), lattice.shape[1:], corner, one.probability.shape, strict=True
    ):
        middles = (
            first * lattice.level.cell_m + (torch.arange(count * finer, dtype=torch.float64) + 0.5) * side
        )
        shares.append((2 * (middles - at) / (pixels * one.metres_per_pixel) - 1).float())
    y, x = torch.meshgrid(*shares, indexing="ij")
    ratio = torch.from_numpy(np.asarray(one.probability, np.float32))[None, None] * one.probability.size
    there = torch.stack((x, y), -1)[None]
    ratio = F.grid_sample(ratio, there, padding_mode="zeros", align_corners=False)
    return F.avg_pool2d(ratio, finer)[0].log().clamp_min(_NOWHERE)
