"""What every way of matching panorama and satellite features gives, whatever it does inside.

A way of matching is a module made from (channels of the features by stride, channels of the decoder's activations by stride,
`ModelSettings`), and called with both views' features {stride: (B, C, h, w)} and metres per pixel, (B,) or None. Its attribute
`has_templates` says whether it lays the panorama out on the ground: then it needs metres per pixel and gives a finest map.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F


class Matched(NamedTuple):
    """How well a panorama fits the places of its satellite image.

    map_for(stride, activation): the matching map (B, 1, h, w) of a decoder stage, at its activation's (B, C, h, w) size.
    finest: (B, 1, h, w), a map that speaks for itself in units of the network's logits, or None.
    maps: {stride: (B, 1, h, w)} of all that `map_for` chooses from, None where they come of an activation.
    heading_scores: (B, K, h, w) log-likelihoods of the `headings` (K,), degrees; None where the heading is known.
    height_scores: (B, K, h, w) log-likelihoods of cameras' `heights` (K,), metres; None where their height is known.
    templates: {stride: (B, C, n, n)}, the panorama's features on the ground, or None.
    shares: {stride: (B, G, h, w)}, what each group of channels adds to a map (several headings and heights weighed by their
    probability at each place), or None where there is one group.
    """

    map_for: Callable
    finest: torch.Tensor | None = None
    maps: dict | None = None
    heading_scores: torch.Tensor | None = None
    headings: torch.Tensor | None = None
    height_scores: torch.Tensor | None = None
    heights: torch.Tensor | None = None
    templates: dict | None = None
    shares: dict | None = None


def resize(x, size):
    """A (B, C, h, w) map resized bilinearly (pixel centres at + 0.5) to `size` (height, width); itself where it has that size."""
    return x if x.shape[-2:] == tuple(size) else F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)
