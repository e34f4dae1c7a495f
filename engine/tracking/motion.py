"""How a camera moved from one frame to the next, as far as sensors tell, and how sure that is.

Odometry is the way since the previous frame in that frame's axes: `forward` along its heading and `left` of
it in metres, and `turn`, how far the camera has turned since in degrees, clockwise as headings grow. What is
not given is zero with a spread as wide as the time and the largest speed allow.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch

from common.settings import NOT_NEGATIVE, POSITIVE, Settings, setting

_UNKNOWN_S = 1.0  # between frames without times
_TURNS_DEG_S = 40.0  # standard deviation of turns without odometry
_LEAST_M, _LEAST_DEG = 0.03, 0.2  # standard deviations of a motion
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


def motion_between(before, now, noise):
    """The `Motion` from a frame's `Sensed` to the next one's by the `MotionNoise` of the sensors."""
    known = None not in (before.time, now.time)
    seconds = now.time - before.time if known else _UNKNOWN_S
    forward, left, turn = now.forward, now.left, now.turn
    spread_m = noise.max_speed * seconds / 2  # 95 % of all motions are slower in either direction
    if forward is not None:
        way = (forward**2 + (left or 0.0) ** 2) ** 0.5
        share = noise.odometry if left is not None else max(_SIDEWAYS, noise.odometry)
        spread_m = max(_LEAST_M, share * way)
    spread_deg = _TURNS_DEG_S * seconds if turn is None else max(_LEAST_DEG, noise.turn)
    return Motion(forward or 0.0, left or 0.0, spread_m, turn or 0.0, spread_deg)


def taps(shift, spread):
    """(first target, weights (N, T)) by which cells move by `shift` (N,), in cells, with a `spread`.

    The weight of a target n is the share of an evenly filled cell 0, moved and blurred by a Gaussian, that
    lands in cell n; the mean of the targets is the shift exactly.
    """
    reach = 3.5 * spread + 1
    first = int(torch.floor(shift.min() - reach))
    last = int(torch.ceil(shift.max() + reach))
    n = torch.arange(first, last + 1, dtype=torch.float64) - shift.double()[:, None]
    sigma = max(float(spread), 1e-6)

    def twice(x):  # the second integral of a Gaussian
        z = x / sigma
        return x * torch.special.ndtr(z) + sigma * torch.exp(-0.5 * z * z) / (2 * torch.pi) ** 0.5

    weights = (twice(n + 1) - 2 * twice(n) + twice(n - 1)).clamp_min(0)
    return first, (weights / weights.sum(1, keepdim=True)).float()
