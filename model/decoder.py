"""The coarse-to-fine decoder: from the fused map to a heat map, matching the two views again at every scale."""

from typing import NamedTuple

import torch
from torch import nn

from efficientnet_pytorch.channels import FEATURE_CHANNELS
from model.matching.contract import resize


class Stage(NamedTuple):
    """One step of the decoder, named by the stride of the backbone feature that it uses."""

    stride: int
    up_channels: int  # out of `up`
    out_channels: int  # out of `conv`


STAGES = (Stage(32, 512, 640), Stage(16, 320, 320), Stage(8, 160, 160), Stage(4, 80, 80), Stage(2, 40, 40))
HEAD_CHANNELS = 16
UPSAMPLING = 32  # heat map pixels per anchor, along each axis


class Decoder(nn.Module):
    """Five matching stages and a head. The first stage keeps the size of its input, every other one and the head double it."""

    def __init__(self, d_model, dropout_rate, use_mask):
        super().__init__()
        self.stages = nn.ModuleDict()
        channels = d_model
        for stage in STAGES:
            self.stages[str(stage.stride)] = _MatchingStage(stage, channels, dropout_rate, use_mask)
            channels = stage.out_channels
        self.head = nn.Sequential(
            nn.ConvTranspose2d(channels, HEAD_CHANNELS, 2, stride=2),
            nn.Conv2d(HEAD_CHANNELS, HEAD_CHANNELS, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(HEAD_CHANNELS, 1, 3, padding=1),
        )

    def forward(self, fused, satellite_features, mask, match):
        """Logits (B, 32 h, 32 w) from the fused (B, d_model, h, w) map.

        satellite_features: {stride: (B, C, h, w)} · mask: (B, 1, S, S), or None for a decoder without one · match: what
        `Matched.map_for` is, a function that gives a stage's matching map by its stride and activation.
        """
        x = fused
        for stride, stage in self.stages.items():
            x = stage(x, satellite_features[int(stride)], mask, match)
        return self.head(x).squeeze(1)


class _MatchingStage(nn.Module):
    """Upsample, match against the panorama, join satellite feature and mask, convolve."""

    def __init__(self, stage, in_channels, dropout_rate, use_mask):
        super().__init__()
        self.stride, up_channels, out_channels = stage
        first = stage == STAGES[0]
        self.up = (
            double_conv(in_channels, up_channels, dropout_rate)
            if first
            else nn.ConvTranspose2d(in_channels, up_channels, 2, stride=2)
        )
        self.adapt_satellite = nn.Conv2d(FEATURE_CHANNELS[self.stride], FEATURE_CHANNELS[self.stride], 1)
        joined_channels = up_channels + 1 + FEATURE_CHANNELS[self.stride] + int(use_mask)
        self.conv = double_conv(joined_channels, out_channels, dropout_rate)

    def forward(self, x, satellite_feature, mask, match):
        x = self.up(x)
        size = x.shape[-2:]
        parts = [x, match(self.stride, x), resize(self.adapt_satellite(satellite_feature), size)]
        if mask is not None:
            parts.append(resize(mask, size))
        return self.conv(join(parts))


def join(maps):
    """(B, C, h, w) maps joined along their channels, in the first one's type.

    Joined as (B, h, w, C), they stay in channels-last memory; maps of a single channel would talk torch.cat out of it.
    """
    return torch.cat([x.permute(0, 2, 3, 1).to(maps[0].dtype) for x in maps], dim=-1).permute(0, 3, 1, 2)


def double_conv(in_channels, out_channels, dropout_rate):
    """Twice a 3 x 3 convolution, ReLU and dropout, at one size."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout_rate),
        nn.Conv2d(out_channels, out_channels, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout_rate),
    )
