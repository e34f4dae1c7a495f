"""One update of the weights."""

import math
from contextlib import nullcontext

import torch

from common.errors import UserError
from dataset.loader import UnreadableBatch
from engine import distributed
from engine.inference.predictor import to_device
from engine.run import seed_step
from engine.training.optimisation import SMALLEST_SCALE

CLIP_NORM = 1.0  # largest norm of the gradients


class NonFiniteLoss(UserError):
    """The loss is not finite. values: step, losses and rate by name; indices: samples of all processes."""

    def __init__(self, message, values, indices):
        super().__init__(message)
        self.values, self.indices = values, indices


def train_step(state, group, losses, seed, run_step, rate, stop=False, clip_norm=CLIP_NORM):
    """Update the weights of a `TrainingState` once from a group of batches.

    group: an `UnreadableBatch` counts as a batch without pairs.
    losses: a function of a batch on the device that returns scalar tensors by name; 'loss' is minimised.
    run_step: steps since the run began. Every random draw of a batch comes from (seed, epoch, batch, rank).
    stop: true if training should end after this step; one process's request stops all.

    Returns (losses and gradient norm as floats, pairs, whether to stop), the same values in every process.
    Raises `NonFiniteLoss`, in every process, before such a loss reaches the weights.
    """
    optimizer, scaler, totals = state.optimizer, state.precision.scaler, {}
    readable = [(k, batch) for k, batch in enumerate(group) if not isinstance(batch, UnreadableBatch)]
    if len(readable) < len(group) and distributed.world_size() > 1:
        says = "no pair of a batch can be read; several processes need one in each"
        raise UserError(f"process {distributed.rank()}: {says}")
    if not readable:
        return {}, 0, bool(stop)
    optimizer.zero_grad(set_to_none=True)
    for k, batch in readable:
        of_epoch, of_run = (step * len(group) + k for step in (state.progress.step, run_step))
        seed_step(seed, state.progress.epoch, of_epoch, distributed.rank())
        last = k == readable[-1][0]
        exchange = nullcontext() if last else distributed.without_exchange(state.model)
        with exchange, state.warm_up(of_run) if state.warm_up else nullcontext():
            parts = losses(to_device(batch, state.precision.device))
            scaler.scale(parts["loss"] / len(readable)).backward()
        for name, value in parts.items():
            totals[name] = totals.get(name, 0.0) + value.detach() / len(readable)
    scaler.unscale_(optimizer)
    totals["gradient_norm"] = torch.nn.utils.clip_grad_norm_(state.network.parameters(), clip_norm)
    numbers = torch.stack([value.float() for value in totals.values()]).tolist()
    values = dict(zip(totals, numbers, strict=True))
    values = distributed.mean({**values, "stop": float(bool(stop))})
    stopping = values.pop("stop") > 0
    if scaler.is_enabled() and math.isfinite(values["loss"]):  # fp16 tries scales until gradients overflow
        skipped = not math.isfinite(values["gradient_norm"]) and scaler.get_scale() >= SMALLEST_SCALE
        values |= {"skipped_steps": float(skipped)} | ({"gradient_norm": 0.0} if skipped else {})
    if not all(math.isfinite(value) for value in values.values()):
        raise _non_finite(values, [batch for _, batch in readable], state.progress, rate)

    for part in optimizer.param_groups:
        part["lr"] = rate * part.get("factor", 1.0)
    scaler.step(optimizer)
    scaler.update()
    if state.average:
        state.average.update(run_step)
    return values, sum(len(batch["index"]) for _, batch in readable), stopping


def _non_finite(values, batches, progress, rate):
    """The `NonFiniteLoss` of these values, the same in every process."""
    indices = [index for batch in batches for index in batch["index"].tolist()]
    indices = [index for part in distributed.gather(indices) for index in part]
    found = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
    where = f"epoch {progress.number}, step {progress.step}: {found} at learning rate {rate:.3g}"
    context = {"epoch": progress.number, "step": progress.step, "learning_rate": rate}
    return NonFiniteLoss(f"{where}; the weights are those before", {**context, **values}, indices)
