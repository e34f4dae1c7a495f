"""EfficientNet-Lite0 to Lite2: EfficientNets without squeeze-and-excitation, and with ReLU6.

TensorFlow pads its convolutions with half a stride more on the right and below. Even padding saves a copy of
each map; features then lie (stride - 1) / 2 pixels further left and up than their index says.
"""

import math

import torch.nn.functional as F
from torch import nn

from efficientnet_pytorch.channels import COARSEST, STEM_CHANNELS
from efficientnet_pytorch.utils import batch_norm, initialise, run_blocks, wrap_columns
from efficientnet_pytorch.weights import lite

_STAGES = (  # expansion, kernel, stride, channels, blocks
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
_SCALES = ((1.0, 1.0), (1.0, 1.1), (1.1, 1.2))  # of the versions: factors of channels and of blocks
_MOST = 6.0  # of ReLU6


class EfficientNetLite(nn.Module):
    """The stem and the blocks of a version from 0 to 2, down to a stride.

    channels: {stride: C} of the features.
    blocks_until: {stride: how many of `blocks` lead to its features}.
    """

    def __init__(self, version, coarsest=COARSEST):
        super().__init__()
        self.public_weights = lite(version)
        self.stem = ConvNorm(3, STEM_CHANNELS, 3, 2)
        self.blocks, self.channels, self.blocks_until = nn.ModuleList(), {2: STEM_CHANNELS}, {}
        wide, deep = _SCALES[version]
        before, total = STEM_CHANNELS, 2
        for number, (expansion, kernel, stride, channels, count) in enumerate(_STAGES):
            total *= stride
            if total > coarsest:
                break
            channels = int(channels * wide + 4) // 8 * 8
            if 0 < number < len(_STAGES) - 1:
                count = math.ceil(count * deep)
            for step in (stride, *[1] * (count - 1)):
                self.blocks.append(_Block(expansion, kernel, step, before, channels))
                before = channels
            if total > 2:  # a later stage of the same stride takes its place
                self.channels[total], self.blocks_until[total] = channels, len(self.blocks)

    def forward(self, image, mix_style=None):
        """Features {stride: (B, C, h, w)}, C of `channels`, of normalised images (B, 3, H, W).

        H and W are multiples of the coarsest stride. `mix_style` is a function applied to the features of
        strides 8 and 16, or None.
        """
        x = self.stem(image)
        ends = {count: stride for stride, count in self.blocks_until.items()}
        return {2: x} | run_blocks(self.blocks, x, ends, mix_style)


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
