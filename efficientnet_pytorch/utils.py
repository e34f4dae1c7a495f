"""Parts of backbones: TensorFlow's "same" convolution, norms, initial weights; normalisation of images."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from efficientnet_pytorch.channels import STYLE_STRIDES

MEAN = torch.tensor((0.485, 0.456, 0.406))  # of ImageNet, as the backbones' weights expect
STD = torch.tensor((0.229, 0.224, 0.225))

batch_norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)


def same_padding(size, kernel_size, stride):
    """(before, after) padding of one axis for ceil(size / stride) outputs; an odd one comes after."""
    total = max((-(-size // stride) - 1) * stride + kernel_size - size, 0)
    return total // 2, total - total // 2


def wrap_columns(x, left, right):
    """(..., W) -> (..., left + W + right), `left` <= `right`: each side continues with the other's columns.

    Splitting, without empty parts, keeps channels-last memory in the backward pass; slices would not.
    """
    middle = x.shape[-1] - left - right
    if left == 0:
        start, rest = x.split([right, middle], dim=-1)
        return torch.cat([start, rest, start], dim=-1)
    start, rest, end = x.split([right, middle, left], dim=-1)
    return torch.cat([end, start, rest, end, start], dim=-1)


class SameConv2d(nn.Conv2d):
    """A square convolution with TensorFlow's "SAME" padding, computed from the size of each input.

    With `circular` set, the width wraps around, as the columns of a whole panorama do; the height is always
    padded with zeros. Input (B, C, H, W), output (B, out_channels, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, groups=1, bias=False):
        super().__init__(in_channels, out_channels, kernel_size, stride, groups=groups, bias=bias)
        self.circular = False

    def forward(self, x):
        H, W = x.shape[-2:]
        kernel_size, stride = self.kernel_size[0], self.stride[0]
        top, bottom = same_padding(H, kernel_size, stride)
        left, right = same_padding(W, kernel_size, stride)
        if self.circular and left + right > 0:
            x = wrap_columns(x, left, right)
            left = right = 0
        if top != bottom or left != right:  # the convolution itself pads only symmetrically
            x = F.pad(x, (left, right, top, bottom))
            top = left = 0
        return F.conv2d(x, self.weight, self.bias, self.stride, (top, left), groups=self.groups)


def run_blocks(blocks, x, ends, mix_style=None):
    """Features {stride: (B, C, h, w)} of an image's `x` (B, C, H, W), taken after the last block of a stride.

    ends: {number of such a block, counted from 1: its stride}. `mix_style` is a function applied to the
    features of strides 8 and 16, or None.
    """
    features = {}
    for number, block in enumerate(blocks, start=1):
        x = block(x)
        stride = ends.get(number)
        if mix_style is not None and stride in STYLE_STRIDES:
            x = mix_style(x)
        if stride:
            features[stride] = x
    return features


def normalise(image):
    """Images (B, 3, H, W), uint8 or floats up to 255, normalised as ImageNet's, channels-last float."""
    scale = (1 / (255 * STD)).to(image.device)[:, None, None]
    shift = (-MEAN / STD).to(image.device)[:, None, None]
    return torch.addcmul(shift, image.float(), scale).contiguous(memory_format=torch.channels_last)


def initialise(module):
    """EfficientNet's initial weights: normal, variance 2 / fan out, of a depthwise channel its kernel's."""
    if isinstance(module, nn.Conv2d):
        fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
