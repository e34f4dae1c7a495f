"""EfficientNet-Lite0 down to stride 8: EfficientNet-B0 without squeeze-and-excitation, and with ReLU6.

TensorFlow pads its convolutions with half a stride more on the right and below. Even padding saves a copy of
each map; features then lie (stride - 1) / 2 pixels further left and up than their index says.
"""

import torch.nn.functional as F
from torch import nn

from efficientnet_pytorch.channels import STEM_CHANNELS
from efficientnet_pytorch.utils import batch_norm, initialise, wrap_columns
from efficientnet_pytorch.weights import LITE0

BLOCKS = (  # expansion, kernel, stride, channels in, channels out
    (1, 3, 1, 32, 16),
    (6, 3, 2, 16, 24),
    (6, 3, 1, 24, 24),
    (6, 5, 2, 24, 40),
    (6, 5, 1, 40, 40),
)
LITE_CHANNELS = {2: STEM_CHANNELS, 4: 24, 8: 40}  # of the features, by their stride
LAST_BLOCKS = {3: 4, 5: 8}  # number of a block whose output is a feature -> its stride
COARSEST = max(LITE_CHANNELS)  # sides of images are multiples of it
_MOST = 6.0  # of ReLU6


class EfficientNetLite0(nn.Module):
    """The stem and the first five blocks."""

    public_weights = LITE0

    def __init__(self):
        super().__init__()
        self.stem = ConvNorm(3, STEM_CHANNELS, 3, 2)
        self.blocks = nn.ModuleList(_Block(*shape) for shape in BLOCKS)

    def forward(self, image, mix_style=None):
        """Features {2, 4, 8: (B, C, h, w)}, C of `LITE_CHANNELS`, of normalised images (B, 3, H, W).

        H and W are multiples of 8. `mix_style` is a function applied to the feature of stride 8, or None.
        """
        x = self.stem(image)
        features = {2: x}
        for number, block in enumerate(self.blocks, start=1):
            x = block(x)
            if stride := LAST_BLOCKS.get(number):
                features[stride] = x
        if mix_style is not None:
            features[COARSEST] = mix_style(x)
        return features


class _Block(nn.Module):
    """An inverted bottleneck; the input is added where the shape is kept."""

    def __init__(self, expansion, kernel_size, stride, in_channels, out_channels):
        super().__init__()
        inner = in_channels * expansion
        layers = [ConvNorm(in_channels, inner)] if expansion > 1 else []
        layers += [ConvNorm(inner, inner, kernel_size, stride, groups=inner)]
        self.block = nn.Sequential(*layers, ConvNorm(inner, out_channels, activate=False))
        self.adds = stride == 1 and in_channels == out_channels

    def forward(self, x):
        return self.block(x) + x if self.adds else self.block(x)


class ConvNorm(nn.Sequential):
    """A convolution, batch norm, folded into its weights in evaluation, and, with `activate`, ReLU6.

    With `circular` set, the width wraps around as a whole panorama's does; else it is padded with zeros.
    """

    def __init__(self, in_channels, out_channels, kernel_size=1, stride=1, groups=1, activate=True):
        shape = in_channels, out_channels, kernel_size, stride, kernel_size // 2
        conv = nn.Conv2d(*shape, groups=groups, bias=False)
        super().__init__(conv, batch_norm(out_channels))
        self.activate, self.circular = activate, False
        initialise(conv)

    def forward(self, x):
        conv, norm = self
        rows, cols = conv.padding
        if self.circular and cols:
            x, cols = wrap_columns(x, cols, cols), 0
        weight, bias = conv.weight, None
        if not self.training:
            gain = norm.weight * (norm.running_var + norm.eps).rsqrt()
            weight, bias = weight * gain[:, None, None, None], norm.bias - norm.running_mean * gain
        x = F.conv2d(x, weight, bias, conv.stride, (rows, cols), groups=conv.groups)
        if self.training:
            x = norm(x)
        return F.hardtanh(x, 0.0, _MOST, inplace=True) if self.activate else x
