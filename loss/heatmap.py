"""Targets and losses of the heat map, the softmax of logits / temperature over all pixels of a sample.

Logits and targets are (B, S, S), or (B, N, S, S) where a sample has N maps with one softmax over all. Every
loss is the mean over the batch and depends on logits / temperature alone. To add one, add a function and its
name in `LOSSES`.
"""

import math

import torch
import torch.nn.functional as F

from common.geometry import REFERENCE_PX

SIGMA_PX = 4.0  # of the target, in pixels of a reference image
OUTLIERS = 0.05  # share of inexact labels that may lie anywhere; without it the furthest would dominate


def gaussian_target(position, size, sigma=None):
    """A Gaussian around each position, (B, size, size) float32, 1 at the position itself.

    Positions (B, 2) are row and col in pixels, whose centres lie at + 0.5; `size`, the side of the heat map,
    and `sigma`, one or (B,), by default the published 4 px at 512, scaled, are in pixels too.
    """
    sigma = SIGMA_PX * size / REFERENCE_PX if sigma is None else sigma
    sigma = sigma.view(-1, 1, 1) if torch.is_tensor(sigma) else sigma
    centres = torch.arange(size, device=position.device, dtype=torch.float32) + 0.5
    along = torch.exp(-((centres - position.float()[:, :, None]) ** 2) / (2 * sigma**2))  # (B, 2, size)
    return along[:, 0, :, None] * along[:, 1, None, :]


def infonce(logits, target, temperature):
    """InfoNCE over all pixels: minus the target-weighted mean of the log probability.

    Pixels with a weight of at most 1e-6 are ignored, as in the published system.
    """
    return cross_entropy(logits, torch.where(target > 1e-6, target, 0.0), temperature)


def cross_entropy(logits, target, temperature):
    """Cross entropy between the heat map and the target, normalised to sum to 1."""
    log_probability = F.log_softmax(logits.float().flatten(1) / temperature, dim=1)
    weight = target.flatten(1)
    return (-(weight * log_probability).sum(1) / weight.sum(1)).mean()


def inexact_label(logits, likely, temperature):
    """The negative log-likelihood of labels that may be wrong.

    logits: (B, ...), whose softmax is the probability of each place (and heading).
    likely: (B, ...), the likelihood of the label if the truth is there, at most 1; it covers the first
    entries of the logits.

    The likelihood is the sum of probability times `likely`, plus a uniform share of `OUTLIERS`. In one pair
    all places near the label are equally good; over many pairs the place where the views agree wins.
    """
    likely = likely.flatten(1)
    log_p = F.log_softmax(logits.float().flatten(1) / temperature, dim=1)[:, : likely.shape[1]]
    near = (log_p + likely.clamp_min(1e-30).log()).logsumexp(1)
    anywhere = likely.mean(1).log()
    return -torch.logaddexp(near + math.log(1 - OUTLIERS), anywhere + math.log(OUTLIERS)).mean()


def distillation(logits, teacher, temperature, kept):
    """Cross entropy between heat maps and a teacher's, sharpened to its square; the mean over the batch.

    logits, teacher: (B, S, S). kept: (B,), the weight of each sample.
    """
    target = (teacher.float().flatten(1) * (2 / temperature)).softmax(1)
    log_probability = F.log_softmax(logits.float().flatten(1) / temperature, dim=1)
    return -((target * log_probability).sum(1) * kept).mean()


LOSSES = {"infonce": infonce, "cross_entropy": cross_entropy}
