"""One epoch of training: the loop, the schedule of the learning rate, and everything that learns in one object."""

import math
import signal
import time
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import asdict, dataclass, field

import torch

from engine import distributed
from engine.batch import to_device
from engine.run import RunError, seed_step

SMALLEST_SCALE = 1.0  # of fp16's losses; below it gradients do not overflow, they are broken


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

    def start_epoch(self, row):
        """Count an epoch as finished; `row` is what the log says of it."""
        self.log.append(row)
        self.epoch, self.step, self.updates, self.totals, self.pairs, self.seconds = self.epoch + 1, 0, 0, {}, 0, 0.0


class NonFiniteLoss(Exception):
    """The loss is no number any more. `values` tell where, when and what; `indices` are the samples of all processes."""

    def __init__(self, message, values, indices):
        super().__init__(message)
        self.values, self.indices = values, indices


def cosine_learning_rate(step, total_steps, base, minimum=1e-6, warmup_steps=0):
    """The learning rate of a step: a linear warm-up to `base`, then half a cosine down to `minimum` at the last step.

    A function of the step alone, so that resuming needs no scheduler's state.
    """
    if step < warmup_steps:
        return base * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - 1 - warmup_steps)
    return minimum + (base - minimum) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


class Precision:
    """Mixed precision by its flag: 'bf16', 'fp16', 'off', or 'auto' for bf16 on GPUs that have it.

    `name` is what it came to, `autocast()` the context for the network's forward pass, and `scaler` keeps fp16's gradients
    from vanishing; for the others it passes everything through.
    """

    def __init__(self, flag, device):
        if flag == "auto":
            flag = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "off"
        self.name, self.device = flag, device
        self.scaler = torch.amp.GradScaler(device.type, enabled=flag == "fp16")

    def autocast(self):
        """The context for the forward pass."""
        dtype = torch.float16 if self.name == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=self.name != "off")


class MovingAverage:
    """A copy of a network whose weights, and batch norms' statistics, are exponential moving averages of the original's.

    decay: share of the average that one update keeps, reached by degrees, (1 + t) / (10 + t) at first, so that the random
    start is soon forgotten.
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

    `network` is `model` as training calls it: compiled, or spread over processes. `average` is a MovingAverage or None.
    """

    model: torch.nn.Module
    network: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: MovingAverage | None = None
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
            "scaler": self.scaler.state_dict(),
            "progress": asdict(self.progress),
        }

    def restore(self, state):
        """Take over what `state` gave."""
        self.model.load_state_dict(state["model"])
        if self.average:
            self.average.model.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.progress = Progress(**state["progress"])


class BatchNormWarmUp:
    """Lets the running statistics of batch norms follow faster while a run is young.

    With the backbones' momentum of 0.01 they still hold a good part of their start after 200 batches, so that a short run is
    measured with statistics that are not its own. At batch t of the run, counted from 0, they move here with a momentum of
    3 / (t + 3), until that falls below a layer's own. The move that a layer has made is lengthened afterwards, since
    torch.compile would compile anew for each value of `momentum`.
    """

    def __init__(self, model):
        norms = [module for module in model.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
        self.norms = [norm for norm in norms if norm.track_running_stats]

    @contextmanager
    def __call__(self, batch_number):
        """Around the forward and backward pass of a batch of the run."""
        momentum = 3 / (batch_number + 3)
        moved = [
            (statistic, statistic.clone(), momentum / norm.momentum)
            for norm in self.norms
            if norm.momentum < momentum
            for statistic in (norm.running_mean, norm.running_var)
        ]
        yield
        with torch.no_grad():
            for statistic, before, gain in moved:
                statistic.copy_(before.lerp(statistic, gain))


def next_batch(batches, stop):
    """The next batch of a loader's iterator, or None where a stop request has taken the loader's workers too.

    A job manager's SIGTERM often goes to every process of a job. torch would report a worker's death by an exception at any
    moment, even in the middle of an update; without its handler of SIGCHLD it comes from the loader alone.
    """
    try:
        batch = next(batches)
    except RuntimeError:
        if stop:
            return None
        raise
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return batch


class Until:
    """A loader that ends early when `stop` becomes true."""

    def __init__(self, loader, stop):
        self.loader, self.stop = loader, stop

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        batches = iter(self.loader)
        while not self.stop:
            try:
                batch = next_batch(batches, self.stop)
            except StopIteration:
                return
            if batch is not None:
                yield batch


def train_epoch(
    learner,
    loader,
    batch_losses,
    *,
    device,
    seed,
    steps,
    learning_rate,
    stop=False,
    accumulate=1,
    clip_norm=1.0,
    warm_up=None,
    after_step=None,
):
    """Train from `learner.progress` to the end of its epoch of `steps` steps, or until `stop` is true in some process.

    loader: the batches that the epoch has left; an empty one, of which nothing could be read, counts but teaches nothing ·
    batch_losses(network, batch) gives a dict of scalar tensors of which 'loss' is minimised · learning_rate(step): of a step of
    the run · warm_up: a BatchNormWarmUp · after_step(values) is told each step's losses, gradient norm and learning rate.
    Returns true where it was stopped.
    Every random draw of a batch comes from (seed, epoch, batch of the epoch, rank). Raises NonFiniteLoss, in every process,
    before such a loss reaches the weights.
    """
    progress, batches = learner.progress, iter(loader)
    learner.network.train()
    while progress.step < steps:
        start, step = time.perf_counter(), progress.epoch * steps + progress.step
        group = [next_batch(batches, stop) for _ in range(accumulate)]
        if any(batch is None for batch in group):
            return True
        if not all(group) and distributed.world_size() > 1:
            raise RunError(f"process {distributed.rank()}: no pair of a batch can be read; several processes need one in each")
        rate, values, stopping = learning_rate(step), {}, bool(stop)
        if any(group):
            losses = _backward(learner, group, batch_losses, device, seed, step * accumulate, warm_up)
            values, stopping = _measure(learner, losses, clip_norm, stop)
            _check(values, learner, group, rate)
            _update(learner, rate, step)
        progress.step += 1
        progress.updates += bool(values)
        progress.pairs += sum(len(batch["index"]) for batch in group if batch)
        progress.seconds += time.perf_counter() - start
        for name, value in values.items():
            progress.totals[name] = progress.totals.get(name, 0.0) + value
        if after_step:
            after_step({**values, "learning_rate": rate})
        if stopping:
            return True
    return False


def _backward(learner, group, batch_losses, device, seed, batch_number, warm_up):
    """Fill the gradients with the mean over a group of batches; returns the mean losses, still on the device."""
    learner.optimizer.zero_grad(set_to_none=True)
    first_of_epoch = learner.progress.step * len(group)
    readable = [(k, batch) for k, batch in enumerate(group) if batch]
    means = {}
    for k, batch in readable:
        seed_step(seed, learner.progress.epoch, first_of_epoch + k, distributed.rank())
        last = k == readable[-1][0]
        exchange = nullcontext() if last else distributed.without_exchange(learner.network)
        with exchange, warm_up(batch_number + k) if warm_up else nullcontext():
            losses = batch_losses(learner.network, to_device(batch, device))
            learner.scaler.scale(losses["loss"] / len(readable)).backward()
        for name, value in losses.items():
            means[name] = means.get(name, 0.0) + value.detach() / len(readable)
    return means


def _measure(learner, losses, clip_norm, stop):
    """Clip the gradients; (losses and gradient norm as floats, whether to stop after this step), the same in every process."""
    learner.scaler.unscale_(learner.optimizer)
    norm = torch.nn.utils.clip_grad_norm_(learner.model.parameters(), clip_norm)
    tensors = {**losses, "gradient_norm": norm}
    values = dict(zip(tensors, torch.stack([value.float() for value in tensors.values()]).tolist(), strict=True))
    values = distributed.mean({**values, "stop": float(bool(stop))})
    stopping = values.pop("stop") > 0
    if learner.scaler.is_enabled() and math.isfinite(values["loss"]):  # fp16 tries scales until gradients overflow
        skipped = not math.isfinite(values["gradient_norm"]) and learner.scaler.get_scale() >= SMALLEST_SCALE
        values |= {"skipped_steps": float(skipped)} | ({"gradient_norm": 0.0} if skipped else {})
    return values, stopping


def _check(values, learner, group, rate):
    """Raise NonFiniteLoss unless every value is a finite number."""
    if all(math.isfinite(value) for value in values.values()):
        return
    indices = [index for batch in group if batch for index in batch["index"].tolist()]
    indices = [index for part in distributed.gather(indices) for index in part]
    found = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
    progress = learner.progress
    message = f"epoch {progress.epoch}, step {progress.step}: {found} at learning rate {rate:.3g}; the weights are those before"
    raise NonFiniteLoss(message, {"epoch": progress.epoch, "step": progress.step, "learning_rate": rate, **values}, indices)


def _update(learner, rate, step):
    for group in learner.optimizer.param_groups:
        group["lr"] = rate
    learner.scaler.step(learner.optimizer)
    learner.scaler.update()
    if learner.average:
        learner.average.update(step)


def epoch_means(progress):
    """What the steps of an epoch came to: the mean of each value, and pairs per second over all processes; a flat dict."""
    means = {name: total / max(1, progress.updates) for name, total in progress.totals.items()}
    seconds = max(progress.seconds, 1e-9)
    return {**means, "pairs_per_second": distributed.world_size() * progress.pairs / seconds, "seconds": progress.seconds}
