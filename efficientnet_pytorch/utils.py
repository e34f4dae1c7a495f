"""TensorFlow's "same" convolution, flat or circular, and the public ImageNet weights of the backbone."""

import pickle
import struct
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from common.errors import UserError

IMAGENET_URL = "https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0/efficientnet-b0-355c32eb.pth"
UNREADABLE = (  # what torch.load raises on files that are something else
    *(pickle.UnpicklingError, struct.error, OSError, RuntimeError, EOFError, ValueError),
    *(LookupError, AttributeError, TypeError, AssertionError),
)
HEAD_SHAPES = {  # ImageNet's classification head: in the public and in the published files, unused here
    "_conv_head.weight": (1280, 320, 1, 1),
    "_bn1.weight": (1280,),
    "_bn1.bias": (1280,),
    "_bn1.running_mean": (1280,),
    "_bn1.running_var": (1280,),
    "_bn1.num_batches_tracked": (),
    "_fc.weight": (1000, 1280),
    "_fc.bias": (1000,),
}


def same_padding(size, kernel_size, stride):
    """(before, after) padding of one axis, so that the output has ceil(size / stride) entries; the odd one comes after."""
    total = max((-(-size // stride) - 1) * stride + kernel_size - size, 0)
    return total // 2, total - total // 2


def wrap_columns(x, left, right):
    """(..., W) -> (..., left + W + right), `left` <= `right`: each side continues with the columns of the other.

    Splitting, and no empty parts, keep channels-last memory through the backward pass, which slices would not.
    """
    middle = x.shape[-1] - left - right
    if left == 0:
        start, rest = x.split([right, middle], dim=-1)
        return torch.cat([start, rest, start], dim=-1)
    start, rest, end = x.split([right, middle, left], dim=-1)
    return torch.cat([end, start, rest, end, start], dim=-1)


class SameConv2d(nn.Conv2d):
    """A square convolution with TensorFlow's "SAME" padding, computed from the size of each input.

    With `circular`, the width wraps around, as the columns of a full panorama do; the height is always padded with zeros.
    Input (B, C, H, W), output (B, out_channels, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, groups=1, bias=False, circular=False):
        super().__init__(in_channels, out_channels, kernel_size, stride, groups=groups, bias=bias)
        self.circular = circular

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

    def extra_repr(self):
        return f"{super().extra_repr()}, padding=same{', circular' if self.circular else ''}"


def backbone_modules(n_blocks=16):
    """Names of the backbone's modules that hold weights: ours -> EfficientNet-PyTorch's."""
    names = {"stem.0": "_conv_stem", "stem.1": "_bn0"}
    for i in range(n_blocks):
        first = 0 if i == 0 else 1  # only the first block has no expansion
        if first:
            names |= {f"blocks.{i}.block.0.0": f"_blocks.{i}._expand_conv", f"blocks.{i}.block.0.1": f"_blocks.{i}._bn0"}
        names |= {
            f"blocks.{i}.block.{first}.0": f"_blocks.{i}._depthwise_conv",
            f"blocks.{i}.block.{first}.1": f"_blocks.{i}._bn1",
            f"blocks.{i}.block.{first + 1}.fc1": f"_blocks.{i}._se_reduce",
            f"blocks.{i}.block.{first + 1}.fc2": f"_blocks.{i}._se_expand",
            f"blocks.{i}.block.{first + 2}.0": f"_blocks.{i}._project_conv",
            f"blocks.{i}.block.{first + 2}.1": f"_blocks.{i}._bn2",
        }
    return names


def find_faults(found, expected, optional=None):
    """What keeps `found` (name -> tensor) from filling `expected` (name -> shape): one line, or '' where all is well.

    Entries of `optional` (name -> shape) may be absent. So may counters of batches, which files older than PyTorch 0.4.1 lack.
    """
    known = {**(optional or {}), **expected}
    faults = {
        "missing": [name for name in expected if name not in found and not name.endswith("num_batches_tracked")],
        "unexpected": [name for name in found if name not in known],
        "misshapen": [
            f"{name} {tuple(value.shape)} instead of {tuple(known[name])}"
            for name, value in found.items()
            if name in known and tuple(value.shape) != tuple(known[name])
        ],
    }
    listed = {kind: ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") for kind, names in faults.items()}
    return "; ".join(f"{len(faults[kind])} {kind}: {names}" for kind, names in listed.items() if names)


def load_backbone_weights(model, source):
    """Fill an `EfficientNet` with the public ImageNet weights, every entry accounted for.

    `source` is 'imagenet' (torch.hub's cache, or a download whose hash is checked), 'none' (leave the weights as they are) or
    the path of such a file. Raises UserError. Source of the weights: EfficientNet-PyTorch, release 1.0.
    """
    if source == "none":
        return
    found = _download() if source == "imagenet" else _read(Path(source))
    modules = backbone_modules(len(model.blocks))
    own, names = model.state_dict(), {}
    for name in own:
        module, _, leaf = name.rpartition(".")
        names[name] = f"{modules[module]}.{leaf}"
    try:
        fault = find_faults(found, {names[name]: value.shape for name, value in own.items()}, HEAD_SHAPES)
    except (AttributeError, TypeError):
        fault = "no state dict"
    if fault:
        where = IMAGENET_URL if source == "imagenet" else f"--backbone_weights {source}"
        raise UserError(f"{where} is not EfficientNet-PyTorch's efficientnet-b0-355c32eb.pth: {fault}")
    model.load_state_dict({name: found.get(names[name], value) for name, value in own.items()})


def _download():
    try:
        return torch.hub.load_state_dict_from_url(IMAGENET_URL, map_location="cpu", check_hash=True, weights_only=True)
    except UNREADABLE as error:
        raise UserError(
            f"no ImageNet weights: {IMAGENET_URL} could not be downloaded ({error}). Give a copy of that file with "
            "--backbone_weights FILE, or start without them with --backbone_weights none"
        ) from error


def _read(path):
    remedy = f"give a copy of {IMAGENET_URL}, or --backbone_weights none"
    if not path.is_file():
        raise UserError(f"--backbone_weights {path}: no such file; {remedy}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise UserError(f"--backbone_weights {path}: not a weight file of PyTorch, or cut off; {remedy}") from error
