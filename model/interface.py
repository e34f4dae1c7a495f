"""Inputs and outputs of every network: `network(inputs: Inputs, pairs=None) -> Prediction`.

Each of B query images is matched with its own satellite image or, with `pairs` (P, 2) of (query, satellite
image), with some of S satellite images. Without pairs, P is B.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from common.camera import Camera


class Inputs(NamedTuple):
    """The inputs of a network, on its device.

    query: (B, 3, H, W), panoramas or photographs, normalised by ImageNet's mean and standard deviation.
    camera: the query images' cameras, B of them; their headings are the prior.
    satellite: (S, 3, h, w), the reference images, north up, normalised likewise.
    metres_per_pixel: (S,), of the satellite images; networks that match on the ground need it.
    mask: (S, 1, h, w) within [0, 1], for networks with use_mask.
    city: (B,), the domains between which MixStyle mixes.
    heading_noise: largest error of the prior headings, degrees to each side; 0: they are known.
    camera_height: metres of the cameras above the street if known; None: as the network was trained.
    usual_height: where the height is not known, the settings' camera_height is far likelier than others.
    return_attention: give the attention of each fusion layer, for networks that have one.
    """

    query: torch.Tensor
    camera: Camera
    satellite: torch.Tensor
    metres_per_pixel: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    city: torch.Tensor | None = None
    heading_noise: float = 0.0
    camera_height: float | None = None
    usual_height: bool = False
    return_attention: bool = False


class Prediction(NamedTuple):
    """The outputs of a network.

    logits: (P, h, w), one per satellite pixel. The heat map is their softmax over all pixels of a pair,
    divided by the settings' temperature.
    heading_scores: (P, K, ., .), log-likelihoods of the `headings` (K,) in degrees relative to the prior on a
    coarser grid of places; None where the heading is known.
    height_scores: (P, K, ., .), the same for camera `heights` (K,) in metres; None where that is known.
    disagreement: (P,), the Jensen-Shannon divergence in nats between the heat maps of the forms that were
    averaged; None for one form.
    camera: the cameras of the P pairs, with the estimated pitch and roll if the network estimates them.

    For pictures and between parts of a network; None if a network has none:
    maps: {stride: (P, 1, ., .)}, matching maps.
    templates: {stride: (P, C, n, n)}, the query's features on the ground.
    group_scores: {stride: (P, G, ., .)}, what each group of channels adds to a map.
    attention: a `LayerAttention` for each layer of the fusion block.
    """

    logits: torch.Tensor | None
    heading_scores: torch.Tensor | None = None
    headings: torch.Tensor | None = None
    height_scores: torch.Tensor | None = None
    heights: torch.Tensor | None = None
    disagreement: torch.Tensor | None = None
    camera: Camera | None = None
    maps: dict | None = None
    templates: dict | None = None
    group_scores: dict | None = None
    attention: list | None = None


def resize(x, size):
    """A (B, C, h, w) map resized bilinearly (pixel centres at + 0.5) to `size` (height, width)."""
    size = tuple(size)
    return x if x.shape[-2:] == size else F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def join(maps):
    """(B, C, h, w) maps joined along their channels, in the first one's type.

    As (B, h, w, C) they stay channels-last; with single-channel inputs torch.cat would not keep that.
    """
    return torch.cat([x.permute(0, 2, 3, 1).to(maps[0].dtype) for x in maps], dim=-1).permute(0, 3, 1, 2)
