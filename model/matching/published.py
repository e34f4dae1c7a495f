"""The thesis's matching: a panorama's features, stretched over a decoder's stage, pixel by pixel."""

import torch
from torch import nn

from model.interface import resize


class PublishedMatching(nn.Module):
    """Cosine similarity of every stage's activation and the query's feature of the same stride.

    channels, stage_channels: {stride: channels} of the query's features and of the decoder's activations.
    """

    has_templates = False

    def __init__(self, channels, stage_channels):
        super().__init__()
        adapt = {str(stride): nn.Conv2d(channels[stride], out, 1) for stride, out in stage_channels.items()}
        self.adapt = nn.ModuleDict(adapt)

    def forward(self, query_features, stride, activation):
        """The matching map (B, 1, h, w), within [-1, 1], of a stage's activation (B, C, h, w)."""
        feature = resize(self.adapt[str(stride)](query_features[stride]), activation.shape[-2:])
        product = (activation * feature).sum(dim=1, keepdim=True)
        return product / (_norm(activation) * _norm(feature))


def _norm(x):
    return torch.linalg.vector_norm(x, dim=1, keepdim=True) + 1e-12
