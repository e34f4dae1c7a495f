"""A few narrow layers with the strides of EfficientNet, for tests.

It learns nothing worth keeping, quickly.
"""

from torch import nn

from efficientnet_pytorch.lite import ConvNorm
from model.backbones.interface import THESIS_DECODER, BackboneInterface

WIDTHS = {2: 16, 4: 24, 8: 40, 16: 48, 32: 64}


class Backbone(BackboneInterface):
    """One convolution for each stride."""

    channels = WIDTHS
    shift = -1
    blocks_until = {stride: number for number, stride in enumerate(WIDTHS, 1)}
    decoder_channels = {stride: (up // 8, out // 8) for stride, (up, out) in THESIS_DECODER.items()}

    def __init__(self):
        super().__init__()
        inner = [3, *WIDTHS.values()]
        self.blocks = nn.ModuleList(
            ConvNorm(before, after, 3, 2) for before, after in zip(inner, WIDTHS.values(), strict=False)
        )

    def forward(self, image, mix_style=None):
        """Features {2, 4, 8, 16, 32: (B, C, h, w)} of normalised images (B, 3, H, W), sizes rounded up."""
        x, features = image, {}
        for stride, block in zip(self.channels, self.blocks, strict=True):
            x = block(x)
            if mix_style is not None and stride in (8, 16):
                x = mix_style(x)
            features[stride] = x
        return features

    def load_public_weights(self, source):
        """There are none: the weights stay random."""
