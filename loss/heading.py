"""The loss of heading and place together."""

import torch.nn.functional as F

from common.geometry import wrap_degrees
from loss.heatmap import gaussian_target


def heading_place_loss(scores, headings, position, heading, size):
    """Joint cross entropy over heading and place, on the grid of the scores.

    scores: (B, N, K, h, w) log-likelihoods, of N satellite images each, of which the first holds the place.
    headings: (K,) degrees, evenly spaced.
    position: (B, 2) row and col in pixels of the satellite image, `size` on a side.
    heading: (B,) true degrees.

    The target shares each sample between the two nearest headings and is a Gaussian of 0.7 cells in place.
    """
    h = scores.shape[-1]
    apart = wrap_degrees(heading[:, None] - headings)
    turn = (1 - apart.abs() / (headings[1] - headings[0])).clamp_min(0)  # (B, K)
    place = gaussian_target(position * (h / size), h, sigma=0.7)
    target = (turn[:, :, None, None] * place[:, None]).flatten(1)
    log_probability = F.log_softmax(scores.float().flatten(1), dim=1)[:, : target.shape[1]]
    return -((target * log_probability).sum(1) / target.sum(1)).mean()
