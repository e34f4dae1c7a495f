"""How a camera moved from one frame to the next, as far as sensors tell, and how sure that is.

Odometry is the way since the previous frame in that frame's axes: `forward` along its heading and `left` of
it in metres, and `turn`, how far the camera has turned since in degrees, clockwise as headings grow. Where it
is not given, GPS, compass and times of the frames around give the velocity, and most turns are small. What
nothing tells is zero with a spread as wide as the time and the largest speed allow.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from common.geometry import wrap_degrees
from common.settings import NOT_NEGATIVE, POSITIVE, Settings, setting

_UNKNOWN_S = 1.0  # between frames without times
_TURNS_DEG_S, _RARE_DEG_S = 6.0, 40.0  # standard deviations of turns without odometry
RARE = 0.2  # share of turns with the larger one
_WINDOW_S = 3.0  # GPS so long before and after a motion gives its velocity,
_LEAST_FRAMES = 5  # if it is of so many frames
_REWEIGHTED, _SINGULAR = 10, 1e8
_SPEEDS_M_S = 0.7  # standard deviation of a velocity from the mean over that time
_LEAST_M, _LEAST_DEG = 0.03, 0.2  # standard deviations of a motion
_SAMPLED = 0.7  # cells, from which on a sampled Gaussian has a Gaussian's moments
_motion = partial(setting, group="motion")
_SIDEWAYS = 0.1  # of a way forward, where the way to the left is not known


class Sensed(NamedTuple):
    """What is known of a frame's pose besides its image, None where nothing is."""

    time: float | None = None  # seconds
    place: tuple | None = None  # by GPS, metres (south, east)
    accuracy: float = 5.0  # root mean square of its error, metres
    forward: float | None = None  # since the frame before
    left: float | None = None
    turn: float | None = None
    heading: float | None = None  # by a compass, degrees


class Motion(NamedTuple):
    """A motion between two frames and its standard deviations."""

    forward: float = 0.0  # metres
    left: float = 0.0
    spread_m: float = 0.0  # in each direction
    turn: float = 0.0  # degrees
    spread_deg: float = 0.0
    rare_deg: float | None = None  # standard deviation of a share `RARE` of turns, where it is another

    @property
    def turns(self):
        """[(share, standard deviation in degrees)] of the turns' Gaussians."""
        if self.rare_deg is None:
            return [(1.0, self.spread_deg)]
        return [(1 - RARE, self.spread_deg), (RARE, self.rare_deg)]

    @property
    def reversed(self):
        """The motion from the later frame to the earlier one, in the later one's axes."""
        sine, cosine = math.sin(math.radians(self.turn)), math.cos(math.radians(self.turn))
        forward = self.left * sine - self.forward * cosine
        left = -self.forward * sine - self.left * cosine
        return self._replace(forward=forward, left=left, turn=-self.turn)


@dataclass(frozen=True)
class MotionNoise(Settings):
    """How far sensors of motion and heading are off."""

    odometry: float = _motion(
        0.02, NOT_NEGATIVE, "odometry's error, a share of the way between frames", metavar="SHARE"
    )
    turn: float = _motion(1.0, NOT_NEGATIVE, "error of a turn between frames, degrees", metavar="DEG")
    compass: float = _motion(2.0, POSITIVE, "error of headings in the table, degrees", metavar="DEG")
    max_speed: float = _motion(15.0, POSITIVE, "largest speed where no odometry is given, m/s", metavar="V")


def motions_of(sensed, noise):
    """The `Motion` from each frame to the next by their `Sensed` and the `MotionNoise` of the sensors."""
    return [_motion_to(sensed, frame, noise) for frame in range(1, len(sensed))]


def weight_after(motion, level):
    """The weight of a frame's log-likelihood at a `Level` after a `Motion` from another frame, or None.

    Frames near each other see the same ground and are wrong alike. Errors with the correlation r, which falls
    by e within a length, leave (1 - r) / (1 + r) of the information of equally spaced frames. Where the
    motion is less certain than a cell, frames are not averaged and r counts less.
    """
    if motion is None:
        return level.sharper
    way = math.hypot(motion.forward, motion.left)
    r = math.exp(-way / level.correlated_m) / (1 + (motion.spread_m / level.cell_m) ** 2)
    return level.sharper * (1 - r) / (1 + r)


def _motion_to(sensed, frame, noise):
    before, now = sensed[frame - 1], sensed[frame]
    known = None not in (before.time, now.time)
    seconds = now.time - before.time if known else _UNKNOWN_S
    forward, left, turn = now.forward, now.left, now.turn
    spread_m = noise.max_speed * seconds / 2  # 95 % of all motions are slower in either direction
    if forward is not None:
        way = (forward**2 + (left or 0.0) ** 2) ** 0.5
        share = noise.odometry if left is not None else max(_SIDEWAYS, noise.odometry)
        spread_m = max(_LEAST_M, share * way)
    elif known and (velocity := _velocity(sensed, frame, noise.max_speed)) is not None:
        (forward, left), spread = velocity[0] * seconds, velocity[1] * seconds
        spread_m = min(spread_m, max(_LEAST_M, spread))
    if turn is not None:
        return Motion(forward or 0.0, left or 0.0, spread_m, turn, max(_LEAST_DEG, noise.turn))
    turns = max(_LEAST_DEG, _TURNS_DEG_S * seconds), _RARE_DEG_S * seconds
    return Motion(forward or 0.0, left or 0.0, spread_m, 0.0, *turns)


def _velocity(sensed, frame, max_speed):
    """((forward, left) in m/s, its standard deviation) of the motion to a frame, by the GPS around it.

    It is constant in the camera's axes for a few seconds: least squares over the frames that have time, place
    and heading, robust against outliers. None where these are too few.
    """
    middle = (sensed[frame - 1].time + sensed[frame].time) / 2
    near = [
        one
        for one in sensed
        if None not in (one.time, one.place, one.heading) and abs(one.time - middle) <= _WINDOW_S
    ]
    if len(near) < _LEAST_FRAMES:
        return None
    seconds = np.diff([one.time for one in near])
    heading = np.array([one.heading for one in near])
    mean = np.radians(heading[:-1] + wrap_degrees(np.diff(heading)) / 2)
    # How far a forward and a left velocity of 1 m/s lead south and east, up to each frame: (n, 2, 2).
    axes = np.array([[-np.cos(mean), -np.sin(mean)], [np.sin(mean), -np.cos(mean)]]).transpose(2, 0, 1)
    led = np.concatenate([np.zeros((1, 2, 2)), np.cumsum(axes * seconds[:, None, None], 0)])
    design = np.concatenate([led, np.broadcast_to(np.eye(2), led.shape)], 2)
    place, sigma = np.array([one.place for one in near]), np.array([one.accuracy for one in near]) / 2**0.5
    weights = 1 / sigma**2
    for _ in range(_REWEIGHTED):
        normal = np.einsum("nik,nil,n->kl", design, design, weights)
        if np.linalg.cond(normal) > _SINGULAR:
            return None
        found = np.linalg.solve(normal, np.einsum("nik,ni,n->k", design, place, weights))
        squares = np.square(place - design @ found).sum(1) / sigma**2
        weights = 1 / (sigma**2 * (1 + squares / 4))  # of a Student's t distribution, about
    if np.hypot(*found[:2]) > max_speed:
        return None
    variance = np.trace(np.linalg.inv(normal)[:2, :2]) / 2
    return found[:2], float(np.sqrt(variance + _SPEEDS_M_S**2))


def taps(shift, spread):
    """(first target, weights (N, T)) by which cells move by `shift` (N,), in cells, with a `spread`.

    Mean and variance of the targets are exactly those asked for, so that a lattice blurs nothing by itself,
    but where the spread is too small for the shift: what lies f cells from a cell's middle has a variance of
    f (1 - f) at least.
    """
    wanted = shift.double()
    reach = 4.0 * spread + 1.5
    n = torch.arange(math.floor(shift.min() - reach), math.ceil(shift.max() + reach) + 1, dtype=torch.float64)
    off = n - wanted[:, None]
    if spread >= _SAMPLED:
        weights = torch.exp(-0.5 * (off / spread) ** 2)  # sampled, its moments are the Gaussian's
    else:
        nearest = wanted.round()
        f = (wanted - nearest)[:, None]
        variance = (f.abs() * (1 - f.abs())).clamp_min(spread**2)
        step = n - nearest[:, None]
        side = (variance + f.square() + step * f) / 2
        weights = side * (step.abs() == 1) + (1 - variance - f.square()) * (step == 0)
    return int(n[0]), (weights / weights.sum(1, keepdim=True)).float()
