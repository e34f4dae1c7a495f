"""One epoch of training, and one update of the weights."""

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from common.camera import CameraRange
from common.errors import UserError
from dataset.augment import augment
from dataset.loader import UnreadableBatch
from dataset.negatives import choose_negatives, pair_up
from engine import distributed
from engine.batch import forward, to_device
from engine.run import seed_step
from engine.training.precision import SMALLEST_SCALE, Precision
from engine.training.signals import EndOfLoader, next_batch
from loss.criterion import Criterion


class NonFiniteLoss(UserError):
    """The loss is no number any more. `values` tell where, when and what; `indices` are the samples of all processes."""

    def __init__(self, message, values, indices):
        super().__init__(message)
        self.values, self.indices = values, indices


@dataclass
class Objective:
    """What a training step minimises over a batch: augment it, run the network in its precision, compare in float32.

    augment: a mode of `dataset.augment` · FoV: degrees of the panorama that are kept · cameras: a `CameraRange` of photographs
    that are cut out of it instead, or None · negatives: other satellite images of the batch that each panorama is compared with;
    mined ones, which a sample brings with it, come on top · scale_noise: as of `augment`.
    """

    criterion: Criterion
    precision: Precision
    augment: str
    FoV: float
    cameras: CameraRange | None = None
    negatives: int = 0
    scale_noise: float = 1.0

    def __call__(self, network, batch):
        """The criterion's losses by name, of which 'loss' is the one to minimise; the batch is on the network's device."""
        compared = self.negatives or "others" in batch
        chosen = choose_negatives(batch, self.negatives) if compared else None
        batch = augment(batch, self.augment, self.FoV, self.cameras, self.scale_noise)
        shown, pairs, missing = pair_up(batch, chosen) if compared else (batch, None, None)
        with self.precision.autocast():
            result = forward(network, shown, pairs=pairs)
        return self.criterion(result, batch, missing)


def train_epoch(
    learner,
    loader,
    objective,
    *,
    seed,
    steps,
    learning_rate,
    stop=False,
    accumulate=1,
    clip_norm=1.0,
    after_step=None,
):
    """Train from `learner.progress` to the end of its epoch of `steps` steps; true where it was stopped before.

    loader: the batches that the epoch has left; an UnreadableBatch counts but teaches nothing.
    objective(network, batch): gives a dict of scalar tensors of which 'loss' is minimised.
    learning_rate(step): of a step of the run.
    stop: becomes true where training is to end after the step at hand; one process's request stops all.
    accumulate: batches in one step.
    clip_norm: the most that the gradients' norm may be.
    after_step(values): is told each step's losses, gradient norm and learning rate.

    Every random draw of a batch comes from (seed, epoch, batch of the epoch, rank). Raises NonFiniteLoss, in every process,
    before such a loss reaches the weights.
    """
    progress, batches = learner.progress, iter(loader)
    learner.network.train()
    while progress.step < steps:
        start, step = time.perf_counter(), progress.epoch * steps + progress.step
        group = [next_batch(batches, stop) for _ in range(accumulate)]
        if any(isinstance(batch, EndOfLoader) for batch in group):
            if not stop:
                raise RuntimeError(f"the loader ended before step {progress.step + 1} of {steps}")
            return True
        group = [(k, batch) for k, batch in enumerate(group) if not isinstance(batch, UnreadableBatch)]
        if len(group) < accumulate and distributed.world_size() > 1:
            raise UserError(f"process {distributed.rank()}: no pair of a batch can be read; several processes need one in each")
        rate, values, stopping = learning_rate(step), {}, bool(stop)
        if group:
            first = progress.step * accumulate, step * accumulate  # batch of the epoch, and of the run
            values, stopping = train_step(learner, group, objective, seed, step, first, rate, clip_norm, stop)
        progress.count(values, sum(len(batch["index"]) for _, batch in group), time.perf_counter() - start)
        if after_step:
            after_step({**values, "learning_rate": rate})
        if stopping:
            return True
    return False


def train_step(learner, group, objective, seed, step, first, rate, clip_norm, stop):
    """One update of the weights from a group of batches: (losses and gradient norm as floats, whether to stop after it).

    group: (number within the step, batch) of each that could be read · step: of the run · first: the numbers of the step's first
    batch in the epoch and in the run; all else as of `train_epoch`. Every process gets the same values.
    """
    optimizer, scaler, losses = learner.optimizer, learner.precision.scaler, {}
    optimizer.zero_grad(set_to_none=True)
    for k, batch in group:
        seed_step(seed, learner.progress.epoch, first[0] + k, distributed.rank())
        last = k == group[-1][0]
        exchange = nullcontext() if last else distributed.without_exchange(learner.network)
        with exchange, learner.warm_up(first[1] + k) if learner.warm_up else nullcontext():
            parts = objective(learner.network, to_device(batch, learner.precision.device))
            scaler.scale(parts["loss"] / len(group)).backward()
        losses = {name: losses.get(name, 0.0) + value.detach() / len(group) for name, value in parts.items()}
    scaler.unscale_(optimizer)
    losses["gradient_norm"] = torch.nn.utils.clip_grad_norm_(learner.model.parameters(), clip_norm)

    values = dict(zip(losses, torch.stack([value.float() for value in losses.values()]).tolist(), strict=True))
    values = distributed.mean({**values, "stop": float(bool(stop))})
    stopping = values.pop("stop") > 0
    if scaler.is_enabled() and math.isfinite(values["loss"]):  # fp16 tries scales until gradients overflow
        skipped = not math.isfinite(values["gradient_norm"]) and scaler.get_scale() >= SMALLEST_SCALE
        values |= {"skipped_steps": float(skipped)} | ({"gradient_norm": 0.0} if skipped else {})
    if not all(math.isfinite(value) for value in values.values()):
        raise _non_finite(values, learner.progress, group, rate)

    for part in optimizer.param_groups:
        part["lr"] = rate
    scaler.step(optimizer)
    scaler.update()
    if learner.average:
        learner.average.update(step)
    return values, stopping


def _non_finite(values, progress, group, rate):
    """The NonFiniteLoss of these values, the same in every process."""
    indices = [index for _, batch in group for index in batch["index"].tolist()]
    indices = [index for part in distributed.gather(indices) for index in part]
    found = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
    message = f"epoch {progress.number}, step {progress.step}: {found} at learning rate {rate:.3g}; the weights are those before"
    return NonFiniteLoss(message, {"epoch": progress.number, "step": progress.step, "learning_rate": rate, **values}, indices)
