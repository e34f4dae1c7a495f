"""A drive from its first to its last frame and back: filtered beliefs wait on the disk for the way back."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from common.files import replacing, resumable
from engine.tracking.filter import DOUBTED, SPREAD, Filtered, advance, filter_frame, predict, smooth
from engine.tracking.lattice import Belief, Lattice, Level, change_level, place_in
from engine.tracking.motion import motions_of, weight_after
from engine.tracking.pose import Pose, estimate

_JUMPED = 0.5  # probability that a belief had been wrong, from which on it is
LOST = 0.5  # a frame whose smoothed probability within 5 m is lower has no place
_ABOUT = Filtered._fields[1:]  # numbers beside a belief


class Tracked(NamedTuple):
    """A frame of a track."""

    filtered: Pose  # given all frames up to it
    smoothed: Pose  # given all frames
    doubt: float  # probability that its image is of no use

    @property
    def doubted(self):
        """Whether its image fits nothing, so that the motion carries it."""
        return self.doubt > DOUBTED

    @property
    def lost(self):
        """Whether its place is not known."""
        return self.smoothed.near < LOST


class Beliefs:
    """The `Filtered` of frames in a folder, a file for each."""

    def __init__(self, folder):
        self.folder = Path(folder)
        with resumable(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, frame):
        """The file of a frame."""
        return self.folder / f"{frame:06d}.npz"

    def __contains__(self, frame):
        return self.path(frame).exists()

    def save(self, frame, filtered):
        """Write a frame's `Filtered` as a whole."""
        lattice, p = filtered.belief
        window = [lattice.heading, lattice.row, lattice.col]
        with resumable(self.folder), replacing(self.path(frame), durable=False) as beside:
            with open(beside, "wb") as file:
                about = {name: getattr(filtered, name) for name in _ABOUT}
                np.savez(file, level=np.array(lattice.level), window=window, p=p.numpy(), **about)

    def load(self, frame):
        """The `Filtered` of a frame."""
        with np.load(self.path(frame), allow_pickle=False) as held:
            *numbers, states = held["level"].tolist()
            p = torch.from_numpy(held["p"])
            lattice = Lattice(Level(*numbers, int(states)), *held["window"].tolist(), tuple(p.shape))
            return Filtered(Belief(lattice, p), *(held[name].item() for name in _ABOUT))


def track(sensed, likelihood, start, levels, noise, beliefs, description="tracking"):
    """The `Tracked` of each frame of a drive.

    sensed: its frames' `Sensed`; `forward`, `left` and `turn` lead from the frame before.
    likelihood: a function of (frame, `Belief` before its image is seen) that gives the log-likelihood of the
    image, 0 where it says nothing, broadcastable to the lattice's (K, h, w).
    start: the `Belief` before the first frame; levels: `Level`s, fine to coarse.
    noise: the sensors' `MotionNoise`.
    beliefs: the `Beliefs` to keep; frames that are there already are taken from it.
    """
    motions = motions_of(sensed, noise)

    def look(frame, predicted, before, motion):
        """A frame's `Filtered`, coming by a `Motion` from another one's."""

        def log_likelihood(belief):
            return weight_after(motion, belief.lattice.level) * likelihood(frame, belief)

        return filter_frame(predicted, sensed[frame], noise, log_likelihood, levels, before)

    filtered, before = [], None
    for frame in tqdm(range(len(sensed)), desc=description, unit="frame", leave=False, disable=None):
        if frame in beliefs:
            before = beliefs.load(frame)
        else:
            motion = motions[frame - 1] if frame else None
            before = look(frame, advance(before, motion) if frame else start, before, motion)
            beliefs.save(frame, before)
        filtered.append((estimate(before.belief), before.doubt, before.evidence))
    smoothed, later, frame = [], None, len(sensed) - 1
    while frame >= 0:
        own = beliefs.load(frame)
        if later is None:
            later = own
        else:
            belief, jump = smooth(own, motions[frame], later.belief)
            if jump > _JUMPED:
                past = _other_past(frame, later, motions, look)
                evidence = [evidence for *_, evidence in filtered[: frame + 1]]
                right = _last_right(evidence, past, start, advance(own, motions[frame]))
                smoothed += [(estimate(one.belief), one.doubt) for one in past[: frame - right]]
                frame, later = right, None
                continue
            if later.belief.lattice.level == levels[0] != own.belief.lattice.level:
                # Found by later frames, so that its image may be looked at in detail.
                later = _back(frame, later, motions, look)._replace(doubt=own.doubt)
            else:
                later = own._replace(belief=belief)
        smoothed.append((estimate(later.belief), later.doubt))
        frame -= 1
    return [
        Tracked(early, late, doubt)
        for (early, *_), (late, doubt) in zip(filtered, smoothed[::-1], strict=True)
    ]


def _back(frame, later, motions, look):
    """The `Filtered` of a frame from the one after it alone."""
    back = motions[frame].reversed
    return look(frame, predict(later.belief, back), later, back)


def _other_past(frame, later, motions, look):
    """The `Filtered` of the frames down to the first, from the one after them alone."""
    past = []
    for number in range(frame, -1, -1):
        later = _back(number, later, motions, look)
        past.append(later)
    return past


def _last_right(evidence, past, start, spread):
    """The last frame at which what was believed was right, before a drive jumped to its later frames' way.

    evidence: of the frames in what was believed; past: their `Filtered` by the later frames, backwards. The
    jump leads to some state of the region over which the lost belief was `spread`. -1: nothing was right, and
    the drive came that way from where it may begin, or nearly so rarely as beliefs are lost.
    """
    first = past[-1].belief
    values, lattice = change_level(first.p, first.lattice, start.lattice.level)
    begin = float((place_in(values, lattice, start.lattice) * start.p).sum()) / start.lattice.level.state
    jump = SPREAD / (spread.p.numel() * spread.lattice.level.state)
    before = np.cumsum([0.0, *evidence])
    after = np.cumsum([0.0, *(one.evidence for one in past)])[::-1]
    prior = np.full(len(before), math.log(jump))
    prior[0] = math.log(max(begin, SPREAD * jump))
    return int((before + after + prior).argmax()) - 1
