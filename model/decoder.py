"""The coarse-to-fine decoder: from the fused map to logits, matching the two views again at every scale."""

from functools import partial

from torch import nn

from model.interface import join, resize

HEAD_CHANNELS = 16
UPSAMPLING = 32  # heat map pixels per anchor, along each axis


class Decoder(nn.Module):
    """A matching stage for each of the backbone's strides, and a head. All but the first double the size."""

    def __init__(self, d_model, backbone, dropout_rate, use_mask):
        super().__init__()
        self.stages = nn.ModuleDict()
        channels = d_model
        for number, (stride, (up, out)) in enumerate(backbone.decoder_channels.items()):
            shape = channels, up, out, backbone.channels[stride]
            self.stages[str(stride)] = _MatchingStage(*shape, number == 0, dropout_rate, use_mask)
            channels = out
        self.head = nn.Sequential(
            nn.ConvTranspose2d(channels, HEAD_CHANNELS, 2, stride=2),
            nn.Conv2d(HEAD_CHANNELS, HEAD_CHANNELS, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(HEAD_CHANNELS, 1, 3, padding=1),
        )

    def forward(self, fused, satellite_features, mask, match):
        """Logits (P, 32 h, 32 w) from the fused (P, d_model, h, w) map.

        satellite_features are {stride: (P, C, h, w)}, mask is (P, 1, S, S), or None for a decoder without
        one, and match is a function of a stage's stride and activation that gives its matching map (P, 1, h,
        w).
        """
        x = fused
        for name, stage in self.stages.items():
            x = stage(x, satellite_features[int(name)], mask, partial(match, int(name)))
        return self.head(x).squeeze(1)


class _MatchingStage(nn.Module):
    """Upsample, match against the query image, join satellite feature and mask, convolve."""

    def __init__(self, channels, up, out, satellite, first, dropout_rate, use_mask):
        super().__init__()
        if first:
            self.up = double_conv(channels, up, dropout_rate)
        else:
            self.up = nn.ConvTranspose2d(channels, up, 2, stride=2)
        self.adapt_satellite = nn.Conv2d(satellite, satellite, 1)
        self.conv = double_conv(up + 1 + satellite + int(use_mask), out, dropout_rate)

    def forward(self, x, satellite_feature, mask, match):
        x = self.up(x)
        size = x.shape[-2:]
        parts = [x, match(x), resize(self.adapt_satellite(satellite_feature), size)]
        if mask is not None:
            parts.append(resize(mask, size))
        return self.conv(join(parts))


def double_conv(in_channels, out_channels, dropout_rate):
    """Two 3 x 3 convolutions, each with ReLU and dropout; the size stays."""
    layers = []
    for channels in (in_channels, out_channels):
        layers += [nn.Conv2d(channels, out_channels, 3, padding=1), nn.ReLU(inplace=True)]
        layers += [nn.Dropout(dropout_rate)]
    return nn.Sequential(*layers)
