"""A drive from its first to its last frame and back: filtered beliefs wait on the disk for the way back."""

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from common.files import replacing, resumable
from engine.tracking.filter import DOUBTED, Filtered, advance, filter_frame, predict, smooth
from engine.tracking.lattice import Belief, Lattice, Level
from engine.tracking.motion import motion_between
from engine.tracking.pose import Pose, estimate

_JUMPED = 0.5  # probability that a belief had been wrong, from which on it is
LOST = 0.5  # a frame whose smoothed probability within 5 m is lower has no place


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
                about = {"doubt": filtered.doubt, "row": filtered.row}
                np.savez(file, level=np.array(lattice.level), window=window, p=p.numpy(), **about)

    def load(self, frame):
        """The `Filtered` of a frame."""
        with np.load(self.path(frame), allow_pickle=False) as held:
            *numbers, states = held["level"].tolist()
            p = torch.from_numpy(held["p"])
            lattice = Lattice(Level(*numbers, int(states)), *held["window"].tolist(), tuple(p.shape))
            return Filtered(Belief(lattice, p), float(held["doubt"]), int(held["row"]))


def track(sensed, likelihood, start, levels, noise, beliefs, description="tracking"):
    """The `Tracked` of each frame of a drive.

    sensed: its frames' `Sensed`; `forward`, `left` and `turn` lead from the frame before.
    likelihood: a function of (frame, `Belief` before its image is seen) that gives the log-likelihood of the
    image, 0 where it says nothing, broadcastable to the lattice's (K, h, w).
    start: the `Belief` before the first frame; levels: `Level`s, fine to coarse.
    noise: the sensors' `MotionNoise`.
    beliefs: the `Beliefs` to keep; frames that are there already are taken from it.
    """
    filtered, before = [], None
    motions = [motion_between(*pair, noise) for pair in pairwise(sensed)]
    for frame, known in enumerate(tqdm(sensed, desc=description, unit="frame", leave=False, disable=None)):
        if frame in beliefs:
            before = beliefs.load(frame)
        else:
            predicted = advance(before, motions[frame - 1]) if frame else start
            of_frame = partial(likelihood, frame)
            before = filter_frame(predicted, known, noise, of_frame, levels, before)
            beliefs.save(frame, before)
        filtered.append((estimate(before.belief), before.doubt))
    smoothed, later, found_back = [], None, False
    for frame in reversed(range(len(sensed))):
        own = beliefs.load(frame)
        if later is None:
            later = own
        else:
            if not found_back:
                belief, jump = smooth(own, motions[frame], later.belief)
                found_back = jump > _JUMPED
            if found_back:
                # What was believed until then was wrong; the frame is found from the later ones alone.
                predicted = predict(later.belief, motions[frame].reversed)
                of_frame = partial(likelihood, frame)
                later = filter_frame(predicted, sensed[frame], noise, of_frame, levels, later)
            else:
                later = own._replace(belief=belief)
        smoothed.append((estimate(later.belief), later.doubt))
    return [
        Tracked(early, late, doubt)
        for (early, _), (late, doubt) in zip(filtered, smoothed[::-1], strict=True)
    ]
