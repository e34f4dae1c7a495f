"""Headings and camera heights that matching tries, and the likelihood of places over all of them."""

import math
from typing import NamedTuple

import torch

from model.interface import resize

USUAL_SHARE = 0.98  # of cameras that stand at the settings' camera_height
HEIGHT_STEP = 1.3  # between neighbouring heights at most; half of it moves the ground at 10 m by 1.3 m


def heading_hypotheses(heading_noise, heading_bins):
    """Headings (K,) in degrees, 360 / heading_bins apart, that cover +- heading_noise, or only 0 for 0."""
    if heading_noise == 0:
        return torch.zeros(1)
    step = 360 / heading_bins
    reach = math.ceil(heading_noise / step)
    if 2 * reach + 1 >= heading_bins:
        return (torch.arange(heading_bins) - heading_bins // 2) * step
    return torch.arange(-reach, reach + 1) * step


def height_hypotheses(settings, camera_height=None, usual_height=False):
    """Camera heights (H,) in metres, and the logarithm of each one's probability times H.

    If the height is None, they are those of training, evenly spaced in their logarithm, up to the settings'
    height_factor up and down: equally likely or, with usual_height, the settings' camera_height with a
    probability of `USUAL_SHARE`.
    """
    if camera_height is not None:
        return torch.tensor([float(camera_height)]), torch.zeros(1)
    count = math.ceil(math.log(settings.height_factor) / math.log(HEIGHT_STEP))
    powers = [i / max(count, 1) for i in range(-count, count + 1)]
    heights = torch.tensor([settings.camera_height * settings.height_factor**power for power in powers])
    prior = torch.zeros(len(heights))
    if usual_height and len(heights) > 1:
        shares = torch.full((len(heights),), (1 - USUAL_SHARE) / (len(heights) - 1))
        shares[len(heights) // 2] = USUAL_SHARE
        prior = (shares * len(heights)).log()
    return heights, prior


class Hypotheses(NamedTuple):
    """Headings (K,) in degrees relative to the prior, and camera heights (H,) in metres.

    There is a template for each height and heading, heights outermost. height_prior: (H,), the logarithm of
    each height's probability times H, so that 0 stands for equally likely ones.
    """

    headings: torch.Tensor
    heights: torch.Tensor
    height_prior: torch.Tensor

    @property
    def template_prior(self):
        """The `height_prior` of each template, (H K,)."""
        return self.height_prior.repeat_interleave(len(self.headings))

    @property
    def template_headings(self):
        """The heading of each template, (H K,), degrees."""
        return self.headings.repeat(len(self.heights))

    @property
    def shown(self):
        """Index of the template for pictures: the first heading, the middle height."""
        return len(self.heights) // 2 * len(self.headings)


def log_mean(scores, axis):
    """The log-likelihood over one axis of hypotheses that are equally likely; the axis is kept."""
    if scores.shape[axis] == 1:
        return scores
    return torch.logsumexp(scores, axis, keepdim=True) - math.log(scores.shape[axis])


def agreement_of(scores):
    """(joint, agreement) of scores of headings {stride: (P, K, h, w)}, on the grid of the finest stride.

    joint: (P, K, h, w), the log-likelihood of each heading by all strides. agreement: (P, 1, h, w), the
    log-likelihood of a place by `joint` less the sum of those by each stride alone; 0 for one heading.
    """
    size = scores[min(scores)].shape[-2:]
    resized = [resize(x, size) for x in scores.values()]
    joint = sum(resized)
    return joint, log_mean(joint, 1) - sum(log_mean(x, 1) for x in resized)
