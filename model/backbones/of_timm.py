"""Any of timm's models with features, as `timm:<name>`: convolutional pyramids and plain vision transformers.

Missing strides from 2 to 32 are added: finer ones by convolutions of the image, to which the next coarser
feature is added, coarser ones by pooling. The image is shrunk for transformers with patches of 14 pixels, so
that a patch covers 16 of the original pixels.
"""

import math
from functools import lru_cache
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from torch import nn

from common.errors import UserError
from efficientnet_pytorch.channels import STYLE_STRIDES
from efficientnet_pytorch.utils import MEAN, STD, SameConv2d, same_padding, wrap_columns
from efficientnet_pytorch.weights import UNREADABLE
from model.backbones import TIMM
from model.backbones.interface import BackboneInterface

STRIDES = (2, 4, 8, 16, 32)
DETAIL_CHANNELS = {2: 32, 4: 48, 8: 64}  # of features made from the image
_PROBE = (64, 128)  # pixels of the image by which a model's strides and padding are found


def _create(name, **options):
    """A feature model of timm. Raises UserError for an unknown model and for one without features."""
    try:
        try:
            return timm.create_model(name, features_only=True, dynamic_img_size=True, **options)
        except TypeError:  # models that take images of any size without being asked
            return timm.create_model(name, features_only=True, **options)
    except (*UNREADABLE, NotImplementedError) as error:
        says = " ".join(str(error).split())[:200]
        raise UserError(f"--backbone {TIMM}{name}: timm cannot make it ({says})") from None


@lru_cache
def _levels(name):
    """The (reduction, index) of each feature that a model offers."""
    about = _create(name).feature_info
    return tuple(zip(about.reduction(), about.out_indices, strict=True))


def _indices(name, coarsest):
    """({stride: index of a model's last feature of it}, its patch size) of the features down to a stride.

    Where all are coarser, it is the finest.
    """
    found = {2 ** round(math.log2(reduction)): index for reduction, index in _levels(name)}
    kept = {stride: index for stride, index in found.items() if stride <= coarsest}
    return kept or dict([min(found.items())]), _levels(name)[0][0]


class TimmBackbone(BackboneInterface):
    """A model of timm by its name, with random weights."""

    def __init__(self, name, coarsest):
        super().__init__()
        self.name = name
        self.keep_until(coarsest)

    @property
    def pretrained(self):
        """The part that `load_public_weights` fills."""
        return self.trunk

    def keep_until(self, coarsest):
        """Build the model down to a stride, and the layers of added strides."""
        indices, patch = _indices(self.name, coarsest)
        self.trunk = _create(self.name, out_indices=tuple(indices.values()))
        self.scale = patch / 2 ** round(math.log2(patch))  # of the image for the model
        widths, self.shift = self._probe(list(indices))
        self.of_trunk = tuple(widths)
        detail, lateral, made = {}, {}, 3
        for stride in (s for s in STRIDES if s < min(widths)):
            detail[str(stride)] = _Halving(made, DETAIL_CHANNELS[stride], self.shift)
            made = DETAIL_CHANNELS[stride]
        widths = {int(stride): DETAIL_CHANNELS[int(stride)] for stride in detail} | widths
        for stride in map(int, detail):
            lateral[str(stride)] = nn.Conv2d(widths[2 * stride], widths[stride], 1)
        self.detail, self.lateral = nn.ModuleDict(detail), nn.ModuleDict(lateral)
        pooled = [s for s in STRIDES if max(widths) < s <= coarsest]
        width = widths[max(widths)]
        self.pooled = nn.ModuleDict(
            {str(s): nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(width, width, 1)) for s in pooled}
        )
        widths |= dict.fromkeys(pooled, width)
        self.channels = {stride: widths[stride] for stride in sorted(widths) if stride <= coarsest}
        self.last_layer = nn.Identity()
        config = self.trunk.pretrained_cfg
        mean, std = (torch.tensor(config[name]) for name in ("mean", "std"))
        self.register_buffer("gain", (STD / std).view(3, 1, 1), persistent=False)
        self.register_buffer("lift", ((MEAN - mean) / std).view(3, 1, 1), persistent=False)
        for module in self.modules():
            _may_wrap(module)

    def _probe(self, strides):
        """({stride: channels}, shift) of the model's features, by an image.

        Parameters without influence on a feature are frozen, as training in several processes requires.
        """
        seen, hooks = [], []
        for module in self.trunk.modules():
            if isinstance(module, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)):
                keep = lambda layer, inputs: seen.append((layer, inputs[0].shape))  # noqa: E731
                hooks.append(module.register_forward_pre_hook(keep))
        size = [round(side * self.scale) for side in _PROBE]
        try:
            features = self.trunk.eval()(torch.zeros(1, 3, *size))
        except (RuntimeError, AssertionError) as error:
            says = " ".join(str(error).split())[:200]
            raise UserError(
                f"--backbone {TIMM}{self.name}: does not take images of {size[0]} x {size[1]} px ({says})"
            ) from None
        for hook in hooks:
            hook.remove()
        sum(x.sum() for x in features).backward()
        for name, block in getattr(self.trunk, "blocks", nn.Module()).named_children():
            if all(parameter.grad is None for parameter in block.parameters()):
                self.trunk.blocks[int(name)] = nn.Identity()  # it only leads to features that are not taken
        for parameter in self.trunk.parameters():
            parameter.requires_grad_(parameter.grad is not None)
            parameter.grad = None
        self.trunk.train()
        shapes = {s: x.shape[1:] for s, x in zip(strides, features, strict=True)}
        expected = {s: (_PROBE[0] // s, _PROBE[1] // s) for s in strides}
        if any(tuple(shape[1:]) != expected[s] for s, shape in shapes.items()):
            raise UserError(f"--backbone {TIMM}{self.name}: its features are no maps of strides {strides}")
        return {s: shape[0] for s, shape in shapes.items()}, _shift(seen, size[1])

    def forward(self, image, mix_style=None):
        """As in `BackboneInterface`. MixStyle changes features after the model has used them."""
        h, w = image.shape[-2:]
        coarsest = max(self.of_trunk)
        padded = F.pad(image, (0, -w % coarsest, 0, -h % coarsest), mode="replicate")
        x = padded * self.gain + self.lift
        if self.scale != 1:
            size = [round(side * self.scale) for side in x.shape[-2:]]
            x = F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
        features = dict(zip(self.of_trunk, self.trunk(x), strict=True))
        x, details = padded, {}
        for stride, halve in self.detail.items():
            x = details[int(stride)] = halve(x)
        for stride, detail in reversed(details.items()):
            coarser = self.lateral[str(stride)](features[2 * stride])
            features[stride] = detail + self._doubled(coarser, detail.shape[-2:])
        for stride, pool in self.pooled.items():
            features[int(stride)] = pool(features[int(stride) // 2])
        found = {s: features[s][..., : -(-h // s), : -(-w // s)] for s in self.channels}
        if mix_style is not None:
            found |= {s: mix_style(x) for s, x in found.items() if s in STYLE_STRIDES}
        found[max(found)] = self.last_layer(found[max(found)])
        return found

    def _doubled(self, x, size):
        """Features (B, C, h, w) at twice the resolution, cut to (height, width)."""
        if not self.circular:
            return F.interpolate(x, size, mode="bilinear", align_corners=False)
        x = F.interpolate(wrap_columns(x, 1, 1), scale_factor=2, mode="bilinear", align_corners=False)
        return x[..., : size[0], 2:-2]

    def load_public_weights(self, source):
        """Fill the model with timm's own weights ('imagenet': its cache, else the hub) or those of a file."""
        if source == "none":
            return
        overlay = {} if source == "imagenet" else {"pretrained_cfg_overlay": {"file": str(source)}}
        if overlay and not Path(source).is_file():
            raise UserError(f"--backbone_weights {source}: no such file; give one, or imagenet or none")
        indices, _ = _indices(self.name, max(self.channels))
        loaded = _create(self.name, pretrained=True, out_indices=tuple(indices.values()), **overlay)
        self.trunk.load_state_dict(loaded.state_dict())


class _Halving(nn.Sequential):
    """Two convolutions; the first halves the image, and its features lie as those of a shift do."""

    def __init__(self, channels, width, shift):
        shape = channels, width, 3 if shift else 2, 2
        first = SameConv2d(*shape) if shift > 0 else nn.Conv2d(*shape, padding=-shift, bias=False)
        second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        super().__init__(first, nn.BatchNorm2d(width), nn.ReLU(), second, nn.BatchNorm2d(width), nn.ReLU())


def _shift(seen, width):
    """The shift of features, from the layers that shrink an image of a width.

    seen: (layer, shape of its input). A layer of size k, stride s and p columns of padding on its left moves
    features by (k - s) / 2 - p of its input's columns.
    """
    moved, stride = {}, 1
    for layer, shape in seen:
        k, s = _both(layer.kernel_size)[1], _both(layer.stride)[1]
        if s > 1:
            cell = width / shape[-1]  # pixels of a column before it
            moved.setdefault(cell, []).append(cell * ((k - s) / 2 - _padding(layer, shape)[1][0]))
            stride = max(stride, cell * s)
    pixels = sum(sum(several) / len(several) for several in moved.values())
    return max(-1, min(1, round(pixels / ((stride - 1) / 2)))) if stride > 1 else 0


class _Wrapping:
    """Mixed into a convolution or a pooling, whose padding wraps around the columns if `circular` is set."""

    circular = False

    def forward(self, x):
        if not self.circular:
            return super().forward(x)
        rows, cols = _padding(self, x.shape)
        if any(cols):
            x = wrap_columns(x, *cols)
        if isinstance(self, nn.MaxPool2d):
            return F.max_pool2d(F.pad(x, (0, 0, *rows), value=-torch.inf), self.kernel_size, self.stride)
        x = F.pad(x, (0, 0, *rows))
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def _padding(layer, shape):
    """((above, below), (left, right)) of the padding of a convolution or a pooling for an input's shape."""
    kernel, stride, padding = map(_both, (layer.kernel_size, layer.stride, layer.padding))
    if "Same" in type(layer).__name__:
        return [same_padding(*axis) for axis in zip(shape[-2:], kernel, stride, strict=True)]
    return [(pad, pad) for pad in padding]


def _both(value):
    """(of rows, of columns) of a layer's number or pair of numbers."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


def _may_wrap(module):
    """Let a layer's padding wrap around, if it is of a kind whose padding is known."""
    kind = type(module)
    if kind in (nn.Conv2d, nn.MaxPool2d) or kind.__name__ == "Conv2dSame":
        module.__class__ = type(f"Wrapping{kind.__name__}", (_Wrapping, kind), {})
