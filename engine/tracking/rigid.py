"""A few frames whose relative poses are exact, such as those of a rig: log maps shifted, turned and added."""

import torch
import torch.nn.functional as F

from engine.tracking.lattice import Belief


def add_rigid(lattice, maps, poses):
    """The `Belief` over the first frame's state given all frames.

    lattice: of the log-likelihoods `maps`, one (K, h, w) for each frame; with a whole circle of headings, or
    one heading if none of the frames is turned.
    poses: of each frame relative to the first: (forward, left) in metres in the first frame's axes, and how
    far it is turned clockwise, degrees; those of the first are zero.

    What a frame would see outside the lattice counts as its least likely state.
    """
    headings = lattice.centres()[0]
    angle, (h, w) = torch.deg2rad(headings.double()), lattice.shape[1:]
    total = torch.zeros(lattice.shape)
    rows, cols = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    for log, (forward, left, turn) in zip(maps, poses, strict=True):
        log = _turned(log.float(), turn / lattice.level.step_deg)
        south = -(forward * angle.cos() + left * angle.sin()) / lattice.level.cell_m
        east = (forward * angle.sin() - left * angle.cos()) / lattice.level.cell_m
        y = (rows + south[:, None, None] + 0.5) * 2 / h - 1
        x = (cols + east[:, None, None] + 0.5) * 2 / w - 1
        least = log.min()
        there = torch.stack((x, y), -1).float()
        total += F.grid_sample((log - least)[:, None], there, align_corners=False)[:, 0] + least
    return Belief(lattice, total.flatten().softmax(0).view(lattice.shape))


def _turned(log, steps):
    """Log-likelihoods (K, h, w) whose heading k holds those of heading k + steps, on a circle."""
    low = int(steps // 1)
    share = steps - low
    return (1 - share) * log.roll(-low, 0) + (share * log.roll(-low - 1, 0) if share else 0)
