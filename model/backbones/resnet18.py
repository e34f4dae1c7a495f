"""ResNet-18 on torchvision's layers: strides 2 to 32, 11 M weights in a branch.

He et al., Deep Residual Learning for Image Recognition, CVPR 2016.
"""

from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import ResNet18_Weights, resnet18

from common.errors import UserError
from efficientnet_pytorch.utils import wrap_columns
from efficientnet_pytorch.weights import UNREADABLE, find_faults
from model.backbones.interface import BackboneInterface

URL = ResNet18_Weights.IMAGENET1K_V1.url


class ResNet18Pyramid(BackboneInterface):
    """The stem without pooling's stride in its first feature, then the four stages."""

    channels: ClassVar = {2: 64, 4: 64, 8: 128, 16: 256, 32: 512}
    blocks_until: ClassVar = {2: 1, 4: 2, 8: 3, 16: 4, 32: 5}
    shift = -1

    def __init__(self):
        super().__init__()
        whole = resnet18()
        stem = nn.Sequential(whole.conv1, whole.bn1, nn.ReLU())
        first = nn.Sequential(whole.maxpool, whole.layer1)
        self.blocks = nn.ModuleList([stem, first, whole.layer2, whole.layer3, whole.layer4])
        for module in self.modules():
            if type(module) in _AROUND:
                module.__class__, module.circular = _AROUND[type(module)], False

    def load_public_weights(self, source):
        """Fill the backbone with torchvision's ImageNet weights, as `BackboneInterface` says."""
        if source == "none":
            return
        try:
            if source == "imagenet":
                weights = torch.hub.load_state_dict_from_url(URL, map_location="cpu", check_hash=True)
            else:
                weights = torch.load(Path(source), map_location="cpu", weights_only=True)
        except UNREADABLE as error:
            says = f"cannot be read ({error}); give a copy of {URL}, or none"
            raise UserError(f"--backbone_weights {source}: {says}") from None
        names = {"0.0": "conv1", "0.1": "bn1", "1.1": "layer1", "2": "layer2", "3": "layer3", "4": "layer4"}
        own, found = self.state_dict(), {}
        for name in own:
            place = max((old for old in names if name.startswith(f"blocks.{old}.")), key=len)
            theirs = name.replace(f"blocks.{place}", names[place], 1)
            if theirs in weights:
                found[name] = weights[theirs]
        if fault := find_faults(found, {name: value.shape for name, value in own.items()}):
            raise UserError(f"--backbone_weights {source} is not {URL}: {fault}")
        self.load_state_dict(own | found)


class _Conv2d(nn.Conv2d):
    """A convolution whose padding wraps around the image's left and right edges where `circular` is set."""

    def forward(self, x):
        rows, cols = self.padding
        if self.circular and cols:
            x, cols = wrap_columns(x, cols, cols), 0
        return F.conv2d(x, self.weight, self.bias, self.stride, (rows, cols))


class _MaxPool2d(nn.MaxPool2d):
    """The same for a maximum over windows."""

    def forward(self, x):
        rows = cols = self.padding
        if self.circular:
            x, cols = wrap_columns(x, cols, cols), 0
        return F.max_pool2d(x, self.kernel_size, self.stride, (rows, cols))


_AROUND = {nn.Conv2d: _Conv2d, nn.MaxPool2d: _MaxPool2d}
BACKBONE = ResNet18Pyramid
