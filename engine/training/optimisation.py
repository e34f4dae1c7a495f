"""Learning rate, mixed precision, averaged weights, and statistics of batch norms early in a run."""

import math
from contextlib import contextmanager
from copy import deepcopy

import torch

from common.settings import NOT_NEGATIVE, Check

PRECISIONS = ("auto", "bf16", "fp16", "off")
SMALLEST_SCALE = 1.0  # of fp16's losses; below it gradients do not overflow, they are broken


def _is_duration(value):
    try:
        return NOT_NEGATIVE.allows(float(value.removesuffix("steps")))
    except (ValueError, AttributeError):
        return False


DURATION = Check("a number of epochs, or of steps: 0.5 or 500steps", _is_duration)


def steps_of(duration, steps):
    """A `DURATION` in steps, where an epoch has `steps`."""
    if duration.endswith("steps"):
        return int(duration.removesuffix("steps"))
    return round(float(duration) * steps)


def cosine_learning_rate(step, total_steps, base, minimum=1e-6, warmup_steps=0):
    """The learning rate of a step, without state: a linear warm-up to `base`, half a cosine to `minimum`."""
    if step < warmup_steps:
        return base * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - 1 - warmup_steps)
    return minimum + (base - minimum) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def validation_is_due(epoch, epochs, every=None):
    """Whether to validate after an epoch, counted from 1: after the last, and after every `every` epochs.

    every: None validates after each third epoch up to the 30th, then after each one.
    """
    return epoch == epochs or epoch % (every or (3 if epoch <= 30 else 1)) == 0


class Precision:
    """Mixed precision: 'bf16', 'fp16' (with a loss `scaler`), 'off', or 'auto': bf16 on GPUs that have it."""

    def __init__(self, flag, device):
        if flag == "auto":
            has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
            flag = "bf16" if has_bf16 else "off"
        self.name, self.device = flag, device
        self.scaler = torch.amp.GradScaler(device.type, enabled=flag == "fp16")

    def autocast(self):
        """The context for the forward pass."""
        dtype = torch.float16 if self.name == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=self.name != "off")


class MovingAverage:
    """A copy of a network whose weights and batch norms' statistics are exponential moving averages.

    One update keeps the share `decay`. From a random start, the share rises as (1 + t) / (10 + t), so that
    the start is forgotten soon; from a `trained` one it is constant. (PyTorch's AveragedModel begins with a
    copy of the first update and counts on the GPU.)
    """

    def __init__(self, network, decay, trained=False):
        self.trained = trained
        self.network, self.decay = deepcopy(network).eval().requires_grad_(False), decay
        networks = self.network.state_dict(), network.state_dict()
        self._mine, self._its = ([v for v in part.values() if v.is_floating_point()] for part in networks)

    @torch.no_grad()
    def update(self, step):
        """Follow the original after its update `step`, counted from 0 over the run."""
        kept = self.decay if self.trained else min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._mine, self._its, 1 - kept)


class BatchNormWarmUp:
    """Raises the momentum of batch norms' running statistics early in a run.

    With the backbones' momentum of 0.01, the statistics still depend on their start after 200 batches. At
    batch t of the run the momentum is 3 / (t + 3), until that falls below a layer's own. The updates are
    lengthened afterwards, since torch.compile would compile anew for each value of `momentum`.
    """

    def __init__(self, network):
        kind = torch.nn.modules.batchnorm._BatchNorm
        self.norms = [m for m in network.modules() if isinstance(m, kind) and m.track_running_stats]

    @contextmanager
    def __call__(self, batch_number):
        """Around the forward and backward pass of a batch of the run."""
        momentum = 3 / (batch_number + 3)
        norms = [norm for norm in self.norms if norm.momentum < momentum]
        moved = [(n.running_mean, n.running_mean.clone(), momentum / n.momentum) for n in norms]
        moved += [(n.running_var, n.running_var.clone(), momentum / n.momentum) for n in norms]
        yield
        with torch.no_grad():
            for statistic, before, gain in moved:
                statistic.copy_(before.lerp(statistic, gain))
