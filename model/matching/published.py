"""The thesis's matching: the panorama's features, stretched over a stage, against its activation, pixel by pixel."""

from functools import partial

import torch
from torch import nn

from model.matching.contract import Matched, resize


class PublishedMatching(nn.Module):
    """Cosine similarity of every stage's activation and the panorama's feature of the same stride.

    feature_channels, stage_channels: {stride: channels} of the panorama's features and of the decoder's activations.
    """

    has_templates = False

    def __init__(self, feature_channels, stage_channels, settings):
        super().__init__()
        self.adapt = nn.ModuleDict(
            {str(stride): nn.Conv2d(feature_channels[stride], channels, 1) for stride, channels in stage_channels.items()}
        )

    def forward(self, panorama_features, satellite_features, metres_per_pixel, camera=None):
        """`Matched` of {stride: (B, C, h, w)} features; maps are made for an activation, within [-1, 1]. Neither resolution nor
        camera is used."""
        return Matched(partial(self._compare, panorama_features))

    def _compare(self, panorama_features, stride, activation):
        feature = resize(self.adapt[str(stride)](panorama_features[stride]), activation.shape[-2:])
        product = (activation * feature).sum(dim=1, keepdim=True)
        return product / (_norm(activation) * _norm(feature))


def _norm(x):
    return torch.linalg.vector_norm(x, dim=1, keepdim=True) + 1e-12
