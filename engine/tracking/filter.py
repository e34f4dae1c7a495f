"""A histogram filter over places and headings, and the backward pass that lets early frames learn from late
ones (Thrun, Burgard and Fox, Probabilistic Robotics, 2005, chapter 4; forward-backward smoothing).

    predict      a belief moves and widens by a motion
    update       it is multiplied by what an image, GPS and a compass say
    smooth       the belief of a frame given all frames, from its own and the next frame's

An image may fit nothing: a tunnel, a covered lens. Its likelihood is therefore mixed with one that is the
same everywhere, by the probability that the image is of no use, its doubt; images of no use come in rows.
After a few of them in a row the belief itself is doubted, and a little of it is spread over a region that
grows.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F

from common.geometry import wrap_degrees
from engine.tracking.lattice import Belief, Lattice, change_level, crop, place_in, pooled_ratio, window
from engine.tracking.motion import taps
from engine.tracking.pose import estimate

BAD_BEGINS, BAD_STAYS = 0.03, 0.8  # probabilities that a frame is of no use, after a good one and a bad one
DOUBTED = 0.5  # a frame whose doubt is higher counts as doubted
PATIENCE = 4  # doubted frames in a row before the belief is spread
SPREAD, SPREAD_M, SPREAD_STEP_M, SPREAD_MOST_M = 0.05, 60.0, 20.0, 200.0  # share; radius, its growth, its end
_OUTLIERS, _OUTLIER_TIMES = 0.05, 10.0  # of GPS: share, and how much further off they are
_LOST_COMPASS = 0.003  # share of compass headings that are plainly wrong
_CUT = 5e-3  # share of a belief that may be cut off around it for the finest level
_TINY = 1e-30


class Filtered(NamedTuple):
    """A frame's belief given all frames up to it."""

    belief: Belief  # at the level of the next prediction
    doubt: float = 0.0  # probability that the frame's image is of no use
    row: int = 0  # of doubted frames that ends here
    evidence: float = 0.0  # log-likelihood of the frame's image given those before

    @property
    def spread_m(self):
        """How far the next prediction spreads a part of the belief, in metres; 0: not at all."""
        if self.row < PATIENCE:
            return 0.0
        return min(SPREAD_M + SPREAD_STEP_M * (self.row - PATIENCE), SPREAD_MOST_M)


def _kernels(lattice, motion):
    """(first row, first col, weights of rows (K, T), of columns (K, T)) that move places by a motion."""
    cell, heading = lattice.level.cell_m, torch.deg2rad(lattice.centres()[0].double())
    north = motion.forward * heading.cos() + motion.left * heading.sin()
    east = motion.forward * heading.sin() - motion.left * heading.cos()
    spread = motion.spread_m / cell
    (row, rows), (col, cols) = taps(-north / cell, spread), taps(east / cell, spread)
    return row, col, rows, cols


def _turning(lattice, motion):
    """(first heading, matrix (K', K)) that turns the headings of a lattice by a motion."""
    n, K = lattice.level.headings, lattice.shape[0]
    step = lattice.level.step_deg
    if max(spread for _, spread in motion.turns) > 120:
        return 0, torch.full((n, K), 1 / n)
    shift = torch.tensor([motion.turn / step])
    parts = [(share, *taps(shift, spread / step)) for share, spread in motion.turns]
    first = min(start for _, start, _ in parts)
    T = max(start + weights.shape[1] for _, start, weights in parts) - first
    count = min(n, K + T - 1)
    begin = 0 if count == n else lattice.heading + first
    matrix = torch.zeros(count, K)
    for share, start, weights in parts:
        for t, weight in enumerate((share * weights[0]).tolist()):
            target = (lattice.heading + torch.arange(K) + start + t - begin) % n
            matrix[target, torch.arange(K)] += weight
    return begin, matrix


def predict(belief, motion):
    """The `Belief` after a `Motion`, on a lattice that has grown by it."""
    lattice, p = belief
    row, col, rows, cols = _kernels(lattice, motion)
    K = len(p)
    down, right = rows.shape[1] - 1, cols.shape[1] - 1
    p = F.conv2d(p[None], rows.flip(1)[:, None, :, None], padding=(down, 0), groups=K)
    p = F.conv2d(p, cols.flip(1)[:, None, None, :], padding=(0, right), groups=K)[0]
    heading, matrix = _turning(lattice, motion)
    p = (matrix @ p.flatten(1)).unflatten(1, p.shape[1:])
    moved = Lattice(lattice.level, heading, lattice.row + row, lattice.col + col, tuple(p.shape))
    return Belief(moved, p)


def predict_back(ratio, lattice, motion):
    """The transpose of `predict`: the mean (K, h, w) over where a motion leads from each state of a lattice.

    ratio: values on the lattice that `predict` gives from it.
    """
    _, _, rows, cols = _kernels(lattice, motion)
    _, matrix = _turning(lattice, motion)
    r = (matrix.T @ ratio.flatten(1)).unflatten(1, ratio.shape[1:])
    r = F.conv2d(r[None], rows[:, None, :, None], groups=len(r))
    return F.conv2d(r, cols[:, None, None, :], groups=r.shape[1])[0]


def advance(before, motion):
    """The predicted `Belief` of the next frame from a `Filtered`, a part spread where that is lost."""
    moved = predict(before.belief, motion)
    if not before.spread_m:
        return moved
    lattice = _spread_lattice(moved.lattice, before, motion)
    p = (1 - SPREAD) * place_in(moved.p, moved.lattice, lattice)
    return Belief(lattice, p + SPREAD / p.numel())


def _spread_lattice(moved, before, motion):
    """The lattice of a prediction together with the region over which a part of the belief is spread."""
    pose = estimate(before.belief)
    around = window(moved.level, pose.place, before.spread_m)
    first = [min(one, other) for one, other in ((moved.row, around.row), (moved.col, around.col))]
    end = [max(pair) for pair in zip(moved.end, around.end, strict=True)]
    return Lattice(moved.level, moved.heading, *first, (moved.shape[0], end[0] - first[0], end[1] - first[1]))


def by_gps(lattice, place, accuracy):
    """Likelihood (h, w) of a GPS position (south, east) with an accuracy, in metres, some being far off."""
    _, south, east = lattice.centres()
    squares = (south[:, None] - place[0]).square() + (east - place[1]).square()
    own = lattice.level.cell_m**2 / 12  # a cell is as wide as itself

    def density(sigma):
        variance = sigma**2 + own
        return torch.exp(-squares / (2 * variance)) / variance

    sigma = accuracy / 2**0.5
    return (1 - _OUTLIERS) * density(sigma) + _OUTLIERS * density(_OUTLIER_TIMES * sigma)


def by_compass(lattice, heading, spread_deg):
    """Likelihood (K,) of a compass heading in degrees with a standard deviation, 1 on average."""
    off, half = wrap_degrees(lattice.centres()[0] - heading).double(), lattice.level.step_deg / 2
    inside = torch.special.ndtr((off + half) / spread_deg) - torch.special.ndtr((off - half) / spread_deg)
    return ((1 - _LOST_COMPASS) * inside * lattice.level.headings + _LOST_COMPASS).float()


def measure(belief, sensed, noise):
    """The `Belief` multiplied by what GPS and compass of a `Sensed` say."""
    p, lattice = belief.p, belief.lattice
    if sensed.place is not None:
        p = p * by_gps(lattice, sensed.place, sensed.accuracy)
    if sensed.heading is not None:
        p = p * by_compass(lattice, sensed.heading, noise.compass)[:, None, None]
    total = p.sum()
    return Belief(lattice, p / total) if total > _TINY else belief


def update(belief, log_likelihood, bad):
    """(`Belief` given an image, its doubt, the log-likelihood of the image).

    log_likelihood: of the states, broadcastable to (K, h, w), 0 where the image says nothing.
    bad: the probability, before the image is seen, that it is of no use.
    """
    likelihood = (1 - bad) * log_likelihood.clamp(-60, 60).exp() + bad
    p = belief.p * likelihood
    evidence = float(p.sum())
    return Belief(belief.lattice, p / evidence), min(1.0, bad / evidence), math.log(evidence)


def choose_level(belief, levels, spread_m=0.0):
    """The `Belief` at the finest of some levels, fine to coarse, that may hold it and a region around it."""
    lattice = belief.lattice
    K, h, w = lattice.shape
    half = max(max(h, w) * lattice.level.cell_m / 2, spread_m)
    span = K * lattice.level.step_deg
    for level in levels:
        side = 2 * half / level.cell_m
        states = side * side * min(level.headings, span / level.step_deg + 1)
        wide_enough = half <= level.reach_m and (span <= level.span_deg or lattice.level == level)
        if wide_enough and states <= level.states:
            break
    p, lattice = change_level(belief.p, lattice, level)
    return Belief(lattice, p)


def filter_frame(predicted, sensed, noise, log_likelihood, levels, before=None):
    """The `Filtered` of a frame.

    predicted: its `Belief` before anything of it is known.
    log_likelihood: a function of a `Belief` that gives what `update` takes, on its lattice.
    before: the `Filtered` of the frame before.

    Where the belief becomes narrow enough for a finer level, the image is looked at again at that level, and
    what was found first serves as a window alone.
    """
    bad = BAD_BEGINS if before is None else before.doubt * BAD_STAYS + (1 - before.doubt) * BAD_BEGINS
    prior = crop(measure(predicted, sensed, noise))
    belief, doubt, evidence = update(prior, log_likelihood(prior), bad)
    belief = crop(belief)
    row = (before.row if before else 0) + 1 if doubt > DOUBTED else 0
    filtered = Filtered(belief, doubt, row, evidence)
    # Little that lies far away does not keep a belief from the finest level, and is kept at others.
    seen = crop(belief, _CUT)
    belief = choose_level(seen, levels, filtered.spread_m)
    if belief.lattice.level != levels[0]:
        seen, belief = filtered.belief, choose_level(filtered.belief, levels, filtered.spread_m)
    if belief.lattice.level.cell_m < prior.lattice.level.cell_m:
        within = place_in(predicted.p, predicted.lattice, seen.lattice)
        values, lattice = change_level(within, seen.lattice, belief.lattice.level)
        prior = measure(Belief(lattice, values / values.sum()), sensed, noise)
        belief = crop(update(prior, log_likelihood(prior), bad)[0])
    return filtered._replace(belief=belief)


def smooth(filtered, motion, following):
    """(the `Belief` of a frame given all frames, the probability that it had been wrong until here).

    filtered: its `Filtered`; motion: to the next frame, whose smoothed `Belief` is `following`.
    """
    ahead = advance(filtered, motion)
    values, lattice = following.p, following.lattice
    if lattice.level.cell_m < ahead.lattice.level.cell_m:
        values, lattice = change_level(values, lattice, ahead.lattice.level)
    if lattice.level == ahead.lattice.level:
        ratio = place_in(values, lattice, ahead.lattice) / ahead.p.clamp_min(_TINY)
    else:  # the next frame's belief is coarser: its ratio holds for all parts of a cell
        coarse, there = change_level(ahead.p, ahead.lattice, lattice.level)
        ratio, there = pooled_ratio(
            place_in(values, lattice, there) / coarse.clamp_min(_TINY), there, ahead.lattice.level
        )
        ratio = place_in(ratio, there, ahead.lattice)
    ratio = ratio.where(ahead.p > _TINY, torch.zeros(()))
    own, base = filtered.belief, 0.0
    if filtered.spread_m:
        base = SPREAD * float(ratio.mean())
        moved = predict(own, motion).lattice
        ratio = (1 - SPREAD) * place_in(ratio, ahead.lattice, moved)
    p = own.p * (predict_back(ratio, own.lattice, motion) + base)
    total = float(p.sum())
    if total <= _TINY:
        return own, 1.0
    return crop(Belief(own.lattice, p / total)), base / total
