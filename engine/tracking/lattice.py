"""Lattices of places and headings, and beliefs over them.

Places are metres (south, east) of an origin. Cell (i, j) of a lattice covers [i, i + 1) cells south and
[j, j + 1) cells east of it; heading k is k steps clockwise from north. A belief is kept only where there is
any: its lattice is a window that moves, widens and narrows with it. Lattices of several levels share the
origin, and a coarser cell is made of whole finer ones.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

CIRCLE = 360.0
# Heat maps that are calibrated on single images cover their failures, which a drive leaves to the doubt; the
# log-likelihoods of those that fit are so many times larger.
SHARPER = 1.7


class Level(NamedTuple):
    """How finely a belief is kept, and how far it may spread there."""

    cell_m: float  # side of a cell
    step_deg: float  # between headings; divides 360
    reach_m: float = np.inf  # half of the longest side
    span_deg: float = CIRCLE  # of headings
    correlated_m: float = 5.0  # over which the errors of images are correlated
    sharper: float = 1.0  # a factor of the log-likelihoods of images
    states: int = 4_000_000  # cells times headings

    @property
    def headings(self):
        """How many make a full circle."""
        return round(CIRCLE / self.step_deg)

    @property
    def state(self):
        """The size of a state, square metres times degrees."""
        return self.cell_m**2 * self.step_deg


class Lattice(NamedTuple):
    """A window of a `Level`."""

    level: Level
    heading: int  # the first one, in steps
    row: int  # the first one, in cells
    col: int
    shape: tuple  # (headings K, rows, columns)

    def centres(self, like=None):
        """(headings (K,) in degrees, south (h,), east (w,) in metres) of the cells' middles, tensors."""
        K, h, w = self.shape
        headings = (self.heading + torch.arange(K)) * self.level.step_deg
        south, east = (
            (first + torch.arange(side) + 0.5) * self.level.cell_m
            for first, side in ((self.row, h), (self.col, w))
        )
        return headings, south, east

    @property
    def end(self):
        """(row, col) behind the last cell."""
        return self.row + self.shape[1], self.col + self.shape[2]

    @property
    def whole_circle(self):
        """Whether it has all headings."""
        return self.shape[0] == self.level.headings


class Belief(NamedTuple):
    """A probability, (K, h, w) float32 with the sum 1, of the states of a `Lattice`."""

    lattice: Lattice
    p: torch.Tensor


def window(level, centre, reach_m, heading=None, span_deg=CIRCLE):
    """The `Lattice` around a place (south, east), with all headings or a span of them around one."""
    first = np.floor((np.asarray(centre) - reach_m) / level.cell_m).astype(int)
    end = np.ceil((np.asarray(centre) + reach_m) / level.cell_m).astype(int)
    count, start = level.headings, 0
    if heading is not None and span_deg < CIRCLE:
        half = int(np.ceil(span_deg / 2 / level.step_deg))
        count = min(level.headings, 2 * half + 1)
        start = round(heading / level.step_deg) - half if count < level.headings else 0
    return Lattice(level, start, *first.tolist(), (count, *np.maximum(end - first, 1).tolist()))


def uniform(lattice, centre=None, radius_m=None):
    """The `Belief` that is uniform over a lattice, or over a circle in it."""
    p = torch.ones(lattice.shape)
    if radius_m is not None:
        _, south, east = lattice.centres()
        inside = torch.hypot(south[:, None] - centre[0], east - centre[1]) <= radius_m
        p = p * inside if inside.any() else p
    return Belief(lattice, p / p.sum())


def crop(belief, share=1e-5):
    """The belief without the outer rows, columns and headings that hold less than a share in all."""
    p, lattice = belief.p, belief.lattice
    bounds = []
    for axis in range(3):
        mass = p.sum([other for other in range(3) if other != axis]).double()
        if axis == 0 and lattice.whole_circle:
            bounds.append(_arc(mass, share))
            continue
        before, after = mass.cumsum(0), mass.flip(0).cumsum(0)
        first = int((before <= share / 6).sum())
        bounds.append((first, len(mass) - int((after <= share / 6).sum()) - first))
    (k, K), (i, h), (j, w) = bounds
    p = p[torch.arange(k, k + K) % p.shape[0], i : i + h, j : j + w]
    heading = (lattice.heading + k) % lattice.level.headings if K < lattice.level.headings else 0
    if K == lattice.level.headings:
        p, heading = belief.p[:, i : i + h, j : j + w], lattice.heading
    kept = Lattice(lattice.level, heading, lattice.row + i, lattice.col + j, (K, h, w))
    return Belief(kept, p / p.sum())


def _arc(mass, share):
    """(first, count) of the shortest arc of a circle of headings beside which less than a share lies."""
    n, empty = len(mass), mass <= share / (3 * len(mass))
    if not empty.any():
        return 0, n
    longest, run, end = 0, 0, 0
    for i in range(2 * n):
        run = run + 1 if empty[i % n] else 0
        if run > longest:
            longest, end = run, i + 1
        if longest >= n:
            break
    return end % n, max(1, n - longest)


def squares(belief, reach_m, most, share):
    """Up to so many parts of a belief, `Belief`s, with most of it: squares that reach so far from their
    middles and hold at least a share of it, each without what holds little; what one holds counts for no
    other."""
    lattice, half = belief.lattice, int(reach_m / belief.lattice.level.cell_m)
    p, side = belief.p / belief.p.sum(), 2 * half + 1
    for _ in range(most):
        held = F.avg_pool2d(p.sum(0)[None], side, 1, half)[0] * side**2
        i, j = divmod(int(held.argmax()), held.shape[1])
        if held[i, j] < share:
            return
        i, j = max(0, i - half), max(0, j - half)
        part = p[:, i : i + side, j : j + side]
        there = Lattice(lattice.level, lattice.heading, lattice.row + i, lattice.col + j, tuple(part.shape))
        yield crop(Belief(there, part / part.sum()), 0.05)
        p[:, i : i + side, j : j + side] = 0


def place_in(p, lattice, target):
    """Values (K, h, w) of a lattice put into another one of its level, 0 elsewhere; others are lost."""
    if lattice == target:
        return p
    n, out = lattice.level.headings, torch.zeros(target.shape, dtype=p.dtype)
    k = (lattice.heading + torch.arange(p.shape[0]) - target.heading) % n
    keep = k < target.shape[0]
    down, right = lattice.row - target.row, lattice.col - target.col
    top, left = max(0, down), max(0, right)
    bottom, far = min(target.shape[1], down + p.shape[1]), min(target.shape[2], right + p.shape[2])
    if keep.any() and bottom > top and far > left:
        part = p[keep, top - down : bottom - down, left - right : far - right]
        out[k[keep], top:bottom, left:far] = part
    return out


def covering(lattice, level):
    """The smallest `Lattice` of another level that covers one."""
    if level == lattice.level:
        return lattice
    scale, turn = lattice.level.cell_m / level.cell_m, lattice.level.step_deg / level.step_deg
    first = [int(np.floor(side * scale + 1e-6)) for side in (lattice.row, lattice.col)]
    end = [int(np.ceil(side * scale - 1e-6)) for side in lattice.end]
    K = level.headings
    start = 0
    if not lattice.whole_circle:
        low = int(np.floor((lattice.heading - 0.5) * turn + 0.5 + 1e-6))
        high = int(np.ceil((lattice.heading + lattice.shape[0] - 0.5) * turn - 0.5 - 1e-6))
        K, start = (high - low + 1, low) if high - low + 1 < K else (K, 0)
    return Lattice(level, start, *first, (K, end[0] - first[0], end[1] - first[1]))


def change_level(p, lattice, level):
    """(values, `Lattice`) of a lattice's values at another level: sums over cells, or cells split evenly."""
    target = covering(lattice, level)
    if level == lattice.level:
        return p, lattice
    if level.cell_m > lattice.level.cell_m:
        return _sum(p, lattice, target), target
    return _split(p, lattice, target), target


def _ratios(fine, coarse):
    return round(coarse.cell_m / fine.cell_m), round(coarse.step_deg / fine.step_deg)


def _numbers(fine, coarse, cells, steps):
    """The coarse (heading, row, col) of each fine heading, row and column, counted from the coarse first."""
    half = (steps - 1) // 2
    k = torch.div(fine.heading + torch.arange(fine.shape[0]) + half, steps, rounding_mode="floor")
    k = (k - coarse.heading) % coarse.level.headings
    i = torch.div(fine.row + torch.arange(fine.shape[1]), cells, rounding_mode="floor") - coarse.row
    j = torch.div(fine.col + torch.arange(fine.shape[2]), cells, rounding_mode="floor") - coarse.col
    return k, i, j


def _sum(p, lattice, target):
    cells, steps = _ratios(lattice.level, target.level)
    for axis, numbers in enumerate(_numbers(lattice, target, cells, steps)):
        shape = [*p.shape[:axis], target.shape[axis], *p.shape[axis + 1 :]]
        p = torch.zeros(shape, dtype=p.dtype).index_add_(axis, numbers, p)
    return p


def _split(p, lattice, target):
    cells, steps = _ratios(target.level, lattice.level)
    k, i, j = _numbers(target, lattice, cells, steps)
    inside = k < p.shape[0]
    parts = p[k.clamp_max(p.shape[0] - 1)] * inside[:, None, None]
    return parts[:, i][:, :, j] / (cells * cells * steps)


def pooled_ratio(ratio, lattice, level):
    """(values, `Lattice`) of a ratio of two beliefs at another, finer level: each part has its cell's."""
    values, target = change_level(ratio, lattice, level)
    cells, steps = _ratios(level, lattice.level)
    return values * (cells * cells * steps), target
