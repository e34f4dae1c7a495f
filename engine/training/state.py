"""The state of a run: its data, its progress, and everything that learns; saved and resumed from."""

import math
from dataclasses import asdict, dataclass, field

import torch

from dataset.loader import EpochSampler, ReadableLoader
from dataset.vigor import VigorDataset
from engine import distributed
from engine.training.optimisation import BatchNormWarmUp, MovingAverage, Precision


@dataclass
class Data:
    """The training and validation data of a run."""

    train_set: VigorDataset
    val_set: VigorDataset
    train_loader: ReadableLoader
    sampler: EpochSampler  # of the training loader; it is set to the epoch and to the first step
    val_loader: ReadableLoader
    shown: dict | None  # a few validation samples that rank 0 draws


@dataclass
class Progress:
    """The progress of a run in steps (updates of the weights), without weights and optimizer."""

    epoch: int = 0  # epochs finished, with their validation
    step: int = 0  # steps done of the epoch after those
    updates: int = 0  # steps among them with at least one readable pair
    totals: dict = field(default_factory=dict)  # sums over those updates
    pairs: int = 0  # seen in those steps, by this process
    seconds: float = 0.0  # of those steps
    best: float = math.inf  # mean validation error, pixels at 512
    since_best: int = 0  # validations without a gain
    log: list = field(default_factory=list)  # rows of training_log.csv

    @property
    def number(self):
        """The epoch under way, counted from 1, as in the log and all messages."""
        return self.epoch + 1

    def count(self, values, pairs, seconds):
        """Count a step. values: its dict of floats, empty where no batch could be read."""
        self.step += 1
        self.updates += bool(values)
        self.pairs += pairs
        self.seconds += seconds
        for name, value in values.items():
            self.totals[name] = self.totals.get(name, 0.0) + value

    def means(self):
        """The mean of each value over the epoch's steps, and pairs per second over all processes."""
        means = {name: total / max(1, self.updates) for name, total in self.totals.items()}
        speed = distributed.world_size() * self.pairs / max(self.seconds, 1e-9)
        return {**means, "pairs_per_second": speed, "seconds": self.seconds}

    def start_epoch(self, row):
        """Count an epoch as finished; `row` is its row of the log."""
        self.log.append(row)
        self.epoch, self.step, self.updates = self.number, 0, 0
        self.totals, self.pairs, self.seconds = {}, 0, 0.0


@dataclass
class TrainingState:
    """Everything that learns, in one piece; `model` is `network` compiled, or spread over processes."""

    network: torch.nn.Module
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    precision: Precision
    average: MovingAverage | None = None
    warm_up: BatchNormWarmUp | None = None
    progress: Progress = field(default_factory=Progress)

    @property
    def measured(self):
        """The network that is validated and becomes best.pt: the moving average if there is one."""
        return self.average.network if self.average else self.network

    def state(self):
        """Tensors and plain values, from which `restore` continues bit for bit."""
        return {
            "model": self.network.state_dict(),
            "average": self.average.network.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.precision.scaler.state_dict(),
            "progress": asdict(self.progress),
        }

    def restore(self, state):
        """Continue from the dict of `state`."""
        self.network.load_state_dict(state["model"])
        if self.average:
            self.average.network.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.precision.scaler.load_state_dict(state["scaler"])
        self.progress = Progress(**state["progress"])
