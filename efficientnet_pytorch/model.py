"""EfficientNet-B0 without its head, on torchvision's blocks: features of strides 2 to 32.

Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019. It follows
the TensorFlow original where torchvision does not: "SAME" padding, batch norm with eps 1e-3 and momentum
0.01.
"""

from dataclasses import replace

from torch import nn
from torchvision.models.efficientnet import MBConv, MBConvConfig
from torchvision.ops.misc import Conv2dNormActivation

from efficientnet_pytorch.channels import LAST_BLOCKS, STEM_CHANNELS
from efficientnet_pytorch.utils import SameConv2d, batch_norm, initialise, run_blocks
from efficientnet_pytorch.weights import B0

STAGES = (  # expansion, kernel, stride, channels in, channels out, blocks
    MBConvConfig(1, 3, 1, 32, 16, 1),
    MBConvConfig(6, 3, 2, 16, 24, 2),
    MBConvConfig(6, 5, 2, 24, 40, 2),
    MBConvConfig(6, 3, 2, 40, 80, 3),
    MBConvConfig(6, 5, 1, 80, 112, 3),
    MBConvConfig(6, 5, 2, 112, 192, 4),
    MBConvConfig(6, 3, 1, 192, 320, 1),
)
STOCHASTIC_DEPTH = 0.2  # of the last block, were there one more; it grows linearly from 0


class EfficientNet(nn.Module):
    """EfficientNet-B0's stem and 16 blocks."""

    public_weights = B0

    def __init__(self):
        super().__init__()
        layers = {"norm_layer": batch_norm, "activation_layer": nn.SiLU}
        self.stem = Conv2dNormActivation(3, STEM_CHANNELS, kernel_size=3, stride=2, **layers)
        n_blocks = sum(stage.num_layers for stage in STAGES)
        self.blocks = nn.ModuleList()
        for stage in STAGES:
            further = replace(stage, stride=1, input_channels=stage.out_channels)
            for config in (stage, *[further] * (stage.num_layers - 1)):
                self.blocks.append(MBConv(config, STOCHASTIC_DEPTH * len(self.blocks) / n_blocks, batch_norm))
        _adapt(self)
        self.apply(initialise)

    def forward(self, image, mix_style=None):
        """Features {2, 4, 8, 16, 32: (B, C, H / stride, W / stride)} of normalised images (B, 3, H, W).

        C is of `FEATURE_CHANNELS`, sizes are rounded up. `mix_style` is a function applied to the features of
        strides 8 and 16, or None.
        """
        x = self.stem(image)
        return {2: x} | run_blocks(self.blocks, x, LAST_BLOCKS, mix_style)


def _adapt(module):
    """Exchange every spatial convolution inside `module` for a `SameConv2d` of the same shape."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d) and child.kernel_size != (1, 1):
            shape = child.in_channels, child.out_channels, child.kernel_size[0], child.stride[0], child.groups
            setattr(module, name, SameConv2d(*shape, bias=child.bias is not None))
        elif isinstance(child, nn.SiLU):
            child.inplace = False  # in place, its input would be copied for the backward pass
        else:
            _adapt(child)
