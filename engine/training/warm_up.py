"""Batch norms' statistics in the first batches of a run."""

from contextlib import contextmanager

import torch


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
