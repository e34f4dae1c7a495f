"""How the ground view becomes a matching map over the satellite image: how well does it fit each place?"""

import torch
import torch.nn.functional as F
from torch import nn


class PublishedMatching(nn.Module):
    """The thesis's comparison: ground features, stretched over the stage, against its activation, pixel by pixel.

    ground_channels, stage_channels: {stage key: channels} of the panorama's features and of the decoder's activations.
    """

    def __init__(self, ground_channels, stage_channels):
        super().__init__()
        self.adapt = nn.ModuleDict({str(key): nn.Conv2d(ground_channels[key], stage_channels[key], 1) for key in stage_channels})

    def forward(self, panorama_features, key, activation):
        """The cosine similarity, over channels, of stage `key`'s (B, C, h, w) activation and the adapted ground feature.

        panorama_features: {key: (B, Cg, hg, wg)}. Returns the stage's matching map, (B, 1, h, w), in [-1, 1].
        """
        ground = resize(self.adapt[str(key)](panorama_features[key]), activation.shape[-2:])
        product = (activation * ground).sum(dim=1, keepdim=True)
        return product / (_norm(activation) * _norm(ground))


def _norm(x):
    return torch.linalg.vector_norm(x, dim=1, keepdim=True) + 1e-12


def resize(x, size):
    """A (B, C, h, w) map resized bilinearly (pixel centres at + 0.5) to `size` (height, width); itself where it has that size."""
    return x if x.shape[-2:] == tuple(size) else F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)
