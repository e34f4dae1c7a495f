"""The target heat map, and the losses that compare a map of logits with it.

Every loss takes logits (B, H, W) and a target (B, H, W), looks at each sample alone and returns the mean over the batch.
"""

from functools import partial

import torch
import torch.nn.functional as F

SIGMA_AT_512 = 4.0  # pixels of a 512 px heat map


def gaussian_target(position, size, sigma=None):
    """Gaussian around each position, not normalised: 1 at the position itself.

    position: (B, 2) row and col in pixels, pixel centres at + 0.5 · size: side of the heat map in pixels ·
    sigma: in pixels; by default the published 4 px at 512, scaled. Returns (B, size, size) float32.
    """
    sigma = SIGMA_AT_512 * size / 512 if sigma is None else sigma
    centres = torch.arange(size, device=position.device, dtype=torch.float32) + 0.5
    along = torch.exp(-((centres - position.float()[:, :, None]) ** 2) / (2 * sigma**2))  # (B, 2, size)
    return along[:, 0, :, None] * along[:, 1, None, :]


def infonce(logits, target, temperature=0.1):
    """InfoNCE over all pixels: minus the target-weighted mean of log softmax(logits / temperature).

    Pixels of weight up to 1e-6 take no part, as in the published system.
    """
    weight = torch.where(target > 1e-6, target, 0.0).flatten(1)
    log_probability = F.log_softmax(logits.float().flatten(1) / temperature, dim=1)
    return -((weight * log_probability).sum(1) / weight.sum(1)).mean()


def cross_entropy(logits, target):
    """Cross entropy between the softmax over all pixels and the target, normalised to sum to 1."""
    target = target.flatten(1)
    return -((target * F.log_softmax(logits.float().flatten(1), dim=1)).sum(1) / target.sum(1)).mean()


def focal(logits, target, gamma=2.0):
    """Cross entropy with each pixel's term scaled by (1 - probability) ** gamma, after Lin et al., ICCV 2017."""
    target = target.flatten(1)
    log_probability = F.log_softmax(logits.float().flatten(1), dim=1)
    hardness = (1 - log_probability.exp()) ** gamma
    return -((target * hardness * log_probability).sum(1) / target.sum(1)).mean()


LOSSES = ("infonce", "cross_entropy", "focal")


def make_loss(name, temperature=0.1):
    """The loss of a name in LOSSES, as a function of (logits, target)."""
    if name == "infonce":
        return partial(infonce, temperature=temperature)
    return {"cross_entropy": cross_entropy, "focal": focal}[name]


def heading_place_loss(scores, headings, position, heading, size):
    """Joint cross entropy over heading and place, on the grid of the scores.

    scores: (B, K, h, w) log-likelihoods · headings: (K,) degrees, evenly spaced · position: (B, 2) row and col in pixels of the
    satellite image, `size` on a side · heading: (B,) true degrees. The target shares each sample between the two nearest
    headings and is a Gaussian of 0.7 cells in place.
    """
    h = scores.shape[2]
    step = headings[1] - headings[0]
    apart = (heading[:, None] - headings + 180) % 360 - 180
    turn = (1 - apart.abs() / step).clamp_min(0)  # (B, K)
    place = gaussian_target(position * (h / size), h, sigma=0.7)
    target = turn[:, :, None, None] * place[:, None]
    log_probability = F.log_softmax(scores.float().flatten(1), dim=1)
    return -((target.flatten(1) * log_probability).sum(1) / target.flatten(1).sum(1)).mean()
