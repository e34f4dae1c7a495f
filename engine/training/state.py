"""Everything that learns, and how far it has come: what a run saves and goes on from."""

import math
from copy import deepcopy
from dataclasses import asdict, dataclass, field

import torch

from engine import distributed
from engine.training.precision import Precision
from engine.training.warm_up import BatchNormWarmUp


@dataclass
class Progress:
    """How far a run has come: all of its state that is neither weights nor optimizer.

    A step is an update of the weights, made from `accumulate` batches.
    """

    epoch: int = 0  # epochs finished, with their validation
    step: int = 0  # steps done of the epoch after those
    updates: int = 0  # of those, the ones that had something to learn from
    totals: dict = field(default_factory=dict)  # sums over those updates
    pairs: int = 0  # seen in those steps, by this process
    seconds: float = 0.0  # that those steps took
    best: float = math.inf  # mean validation error, pixels at 512
    since_best: int = 0  # validations without a gain
    log: list = field(default_factory=list)  # rows of training_log.csv

    @property
    def number(self):
        """Of the epoch under way, counted from 1, as the log and all that is told to somebody count."""
        return self.epoch + 1

    def count(self, values, pairs, seconds):
        """Count a step: what it came to, a dict of floats, empty where there was nothing to learn from."""
        self.step += 1
        self.updates += bool(values)
        self.pairs += pairs
        self.seconds += seconds
        for name, value in values.items():
            self.totals[name] = self.totals.get(name, 0.0) + value

    def means(self):
        """What the steps of the epoch came to: the mean of each value, and pairs per second over all processes; a flat dict."""
        means = {name: total / max(1, self.updates) for name, total in self.totals.items()}
        speed = distributed.world_size() * self.pairs / max(self.seconds, 1e-9)
        return {**means, "pairs_per_second": speed, "seconds": self.seconds}

    def start_epoch(self, row):
        """Count an epoch as finished; `row` is what the log says of it."""
        self.log.append(row)
        self.epoch, self.step, self.updates, self.totals, self.pairs, self.seconds = self.number, 0, 0, {}, 0, 0.0


class MovingAverage:
    """A copy of a network whose weights, and batch norms' statistics, are exponential moving averages of the original's.

    decay: share of the average that one update keeps, reached by degrees, (1 + t) / (10 + t) at first, so that the random
    start is soon forgotten. (PyTorch's AveragedModel begins with a copy of the first update and keeps its count on the GPU.)
    """

    def __init__(self, model, decay):
        self.model, self.decay = deepcopy(model).eval().requires_grad_(False), decay
        self._mine, self._its = (
            [value for value in network.state_dict().values() if value.is_floating_point()] for network in (self.model, model)
        )

    @torch.no_grad()
    def update(self, step):
        """Follow the original after its update `step`, counted from 0 over the run."""
        torch._foreach_lerp_(self._mine, self._its, 1 - min(self.decay, (1 + step) / (10 + step)))


@dataclass
class Learner:
    """Everything that learns, so that it is saved and restored in one piece.

    `network` is `model` as training calls it: compiled, or spread over processes. `average` is a MovingAverage or None, and so is
    `warm_up` a BatchNormWarmUp.
    """

    model: torch.nn.Module
    network: torch.nn.Module
    optimizer: torch.optim.Optimizer
    precision: Precision
    average: MovingAverage | None = None
    warm_up: BatchNormWarmUp | None = None
    progress: Progress = field(default_factory=Progress)

    @property
    def measured(self):
        """The network that is validated and becomes best.pt: the moving average where there is one."""
        return self.average.model if self.average else self.model

    def state(self):
        """Tensors and plain values, from which `restore` continues bit for bit."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.model.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.precision.scaler.state_dict(),
            "progress": asdict(self.progress),
        }

    def restore(self, state):
        """Take over what `state` gave."""
        self.model.load_state_dict(state["model"])
        if self.average:
            self.average.model.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.precision.scaler.load_state_dict(state["scaler"])
        self.progress = Progress(**state["progress"])
