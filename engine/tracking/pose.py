"""A belief in a few numbers: place, heading, and how sure they are."""

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from engine.inference.decode import NEAR_M


class Pose(NamedTuple):
    """A place and a heading, with how sure they are."""

    place: tuple  # (south, east), metres
    heading: float  # degrees
    covariance: tuple  # of the place: (south south, south east, east east), square metres
    heading_std: float  # degrees
    near: float  # probability within `NEAR_M`

    @property
    def matrix(self):
        """The covariance as an array (2, 2) of (south, east)."""
        return np.array(self.covariance)[[0, 1, 1, 2]].reshape(2, 2)


_BIAS_M = 0.2  # by which all frames of a drive are off alike, in each direction
_RADII_M = (5.0, 10.0, 20.0, 40.0, 80.0, 1e9)
_HELD = 0.95  # of the probability, within the radius over which a spread is measured


def estimate(belief):
    """The `Pose` of a belief: the mean around the spot with most probability within `NEAR_M`.

    The covariance is that of what lies within the smallest of a few radii that holds 95 %, and of the error
    that no further frame of a drive takes away.
    """
    lattice, (headings, south, east) = belief.lattice, belief.lattice.centres()
    mass, cell = belief.p.sum(0), lattice.level.cell_m
    half = round(NEAR_M / cell)
    rows = F.avg_pool2d(mass[None], (2 * half + 1, 1), 1, (half, 0))
    box = F.avg_pool2d(rows, (1, 2 * half + 1), 1, (0, half))[0]
    # The peak breaks ties of the box around it.
    i, j = divmod(int((box * (2 * half + 1) ** 2 + 0.01 * mass).argmax()), mass.shape[1])
    place = float(south[i]), float(east[j])
    for _ in range(3):
        distance = torch.hypot(south[:, None] - place[0], east - place[1])
        near = mass * (distance <= NEAR_M)
        total = near.sum()
        place = float((near.sum(1) @ south) / total), float((near.sum(0) @ east) / total)
    distance = torch.hypot(south[:, None] - place[0], east - place[1])
    share = float((mass * (distance <= NEAR_M)).sum())
    for radius in _RADII_M:
        held = mass * (distance <= radius)
        if held.sum() >= _HELD:
            break
    held = held / held.sum()
    down, right = south - place[0], east - place[1]
    own = cell**2 / 12 + _BIAS_M**2
    covariance = (
        float(held.sum(1) @ down.square()) + own,
        float(down @ held @ right),
        float(held.sum(0) @ right.square()) + own,
    )
    turned = (belief.p * (distance <= NEAR_M)).sum((1, 2)).double()
    angle = torch.deg2rad(headings.double())
    mean = torch.stack([turned @ angle.cos(), turned @ angle.sin()]) / turned.sum()
    heading = float(torch.rad2deg(torch.atan2(mean[1], mean[0])))
    variance = -2 * math.log(min(max(float(mean.norm()), 1e-6), 1.0))  # of a wrapped normal distribution
    spread = math.sqrt(math.degrees(1) ** 2 * variance + lattice.level.step_deg**2 / 12)
    return Pose(place, heading, covariance, spread, min(1.0, share))


def mean_place(belief):
    """The mean place (south, east) of a belief, metres."""
    _, south, east = belief.lattice.centres()
    mass = belief.p.sum(0)
    total = mass.sum()
    return float(mass.sum(1) @ south / total), float(mass.sum(0) @ east / total)


def mean_heading(belief):
    """The mean heading of a belief, degrees."""
    angle = torch.deg2rad(belief.lattice.centres()[0].double())
    mass = belief.p.sum((1, 2)).double()
    return math.degrees(math.atan2(float(mass @ angle.sin()), float(mass @ angle.cos())))
