"""Checkpoints: reading ours and the published ones, and one table between their names and ours.

Ours      {'format': 'cvm-vigor', 'settings': model settings, 'model': state dict, ...}
Published {'model_state_dict': state dict, 'args': flags or {}, ...}, with `args.yaml` beside it in the run folder
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
import yaml

from efficientnet_pytorch import FEATURE_CHANNELS
from efficientnet_pytorch.utils import HEAD_SHAPES, UNREADABLE, backbone_modules, find_faults
from model.decoder import STAGES, UPSAMPLING
from model.matcher import DEFAULT_SETTINGS, build_model

FORMAT = "cvm-vigor"
RUN_SETTINGS = {"area": "samearea", "labels": "corrected", "pos_only": True}  # of the data; what holds where a run does not say
_HEAD = {f"{branch}.{name}": shape for branch in ("grd_efficientnet", "sat_efficientnet") for name, shape in HEAD_SHAPES.items()}
_FUSION = {
    "ground_tokens.position": "pos_emb_mod1",
    "ground_tokens.average_weight": "weights_mod1_pool.w1",
    "ground_tokens.maximum_weight": "weights_mod1_pool.w2",
    "satellite_tokens.position": "pos_emb_mod2",
    "satellite_tokens.average_weight": "weights_mod2_pool.w1",
    "satellite_tokens.maximum_weight": "weights_mod2_pool.w2",
    "fuse.0": "final_fusion_conv.0",
    "fuse.1": "final_fusion_conv.1",
    "ground_skip": "coeff_skip_mod1.bias",
    "satellite_skip": "coeff_skip_mod2.bias",
}
_LAYER = {
    "ground_norm": "crossatt.LN1",
    "satellite_norm": "crossatt.LN2",
    "ground_to_satellite.query": "crossatt.que_proj_mod1",
    "ground_to_satellite.key": "crossatt.key_proj_mod2",
    "ground_to_satellite.value": "crossatt.val_proj_mod2",
    "ground_to_satellite.out": "crossatt.out_proj_mod1",
    "satellite_to_ground.query": "crossatt.que_proj_mod2",
    "satellite_to_ground.key": "crossatt.key_proj_mod1",
    "satellite_to_ground.value": "crossatt.val_proj_mod1",
    "satellite_to_ground.out": "crossatt.out_proj_mod2",
    "mlp_norm": "ln_before_mlp",
    "ground_mlp.0": "mlp_mod1.0",
    "ground_mlp.2": "mlp_mod1.2",
    "satellite_mlp.0": "mlp_mod2.0",
    "satellite_mlp.2": "mlp_mod2.2",
    "ground_attention_residual": "coeff_mod1_att_res.bias",
    "ground_mlp_residual": "coeff_mod1_mlp_res.bias",
    "satellite_attention_residual": "coeff_mod2_att_res.bias",
    "satellite_mlp_residual": "coeff_mod2_mlp_res.bias",
}
# Published files may carry their best distance as a NumPy number and their flags as a Namespace: data, not code.
_SCALAR = np.float64(0).__reduce__()[0]
_HARMLESS = [argparse.Namespace, np.dtype, np.dtypes.Float32DType, np.dtypes.Float64DType]
_HARMLESS += [(_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]  # NumPy 1's and 2's name for it


class CheckpointError(Exception):
    """A checkpoint that cannot be read, or holds something else; the message names the file and what to do."""


def published_names(names):
    """The published name of each of our state dict's `names`: {ours: published}.

    THESIS: mod1 is the ground stream, mod2 the satellite stream. A module's entry names the module, a parameter's itself.
    """
    modules = {}
    for ours, theirs in (("panorama_backbone", "grd_efficientnet"), ("satellite_backbone", "sat_efficientnet")):
        modules |= {f"{ours}.{a}": f"{theirs}.{b}" for a, b in backbone_modules().items()}
    modules |= {"adapt_panorama": "grd_adapt_conv", "adapt_satellite": "sat_adapt_conv"}
    modules |= {f"fusion.{a}": f"transformer_fusion_block.{b}" for a, b in _FUSION.items()}
    for i in range(_count_layers(names, "fusion.layers.")):
        modules |= {
            f"fusion.layers.{i}.{a}": f"transformer_fusion_block.crosstransformer_blocks.{i}.{b}" for a, b in _LAYER.items()
        }
    for number, (key, *_) in zip((6, 5, 4, 3, 2), STAGES, strict=True):
        stage = f"decoder.stages.{key}"
        modules |= {f"{stage}.up": f"deconv{number}", f"{stage}.conv.0": f"conv{number}.0", f"{stage}.conv.3": f"conv{number}.3"}
        modules[f"{stage}.adapt_satellite"] = f"adapt_skip_sat_{key}"
        modules[f"matching.adapt.{key}"] = f"adapt_grd_feat_for_cos_sim_{key}"
    modules |= {"decoder.stages.16.up.0": "deconv6.0", "decoder.stages.16.up.3": "deconv6.3"}
    modules |= {"decoder.head.0": "deconv1", "decoder.head.1": "conv1.0", "decoder.head.3": "conv1.2"}

    def translate(name):
        if name in modules:
            return modules[name]
        module, _, leaf = name.rpartition(".")
        return f"{modules[module]}.{leaf}"

    return {name: translate(name) for name in names}


def from_published(state, model):
    """A published state dict under our names, complete and checked against `model`'s shapes.

    The unused ImageNet head is dropped. Raises ValueError that lists what is missing, unexpected or misshapen.
    """
    own = model.state_dict()
    theirs = published_names(own)
    if fault := find_faults(state, {theirs[name]: value.shape for name, value in own.items()}, _HEAD):
        raise ValueError(fault)
    return {name: state.get(theirs[name], value) for name, value in own.items()}


def to_published(state):
    """Our state dict under the published names. The ImageNet head, which our network has not, is filled with zeros."""
    names = published_names(state)
    published = {names[name]: value for name, value in state.items()}
    for name, shape in _HEAD.items():
        published[name] = torch.zeros(shape, dtype=torch.int64 if name.endswith("num_batches_tracked") else torch.float32)
    return published


def load_model(path, device="cpu", **overrides):
    """The network of a checkpoint, ours or published, in evaluation mode, and its settings.

    path: the file, or a run folder with `best.pt`. Nothing in it is executed, and every entry has to fit.
    overrides: settings to build the network with instead of its own, where not None; `FoV` fits any weights.
    Returns (CrossViewMatcher on `device`, settings dict): the network's settings, what its run says of the data it learned from
    (`RUN_SETTINGS` where it says nothing) and `published`, whether the checkpoint is one. Raises `CheckpointError`.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "best.pt"
    checkpoint = read_checkpoint(path)
    ours = checkpoint.get("format") == FORMAT
    overrides = {name: value for name, value in overrides.items() if value is not None}
    try:
        state = _without_prefix(checkpoint["model" if ours else "model_state_dict"])
        flags = checkpoint.get("args", {}) if ours else _published_flags(checkpoint, path)
        settings = checkpoint["settings"] if ours else published_settings(state, flags)
        run = {name: _plain(flags.get(name, default), default, name) for name, default in RUN_SETTINGS.items()}
        model = build_model(settings | overrides)
        state = _complete(state, model) if ours else from_published(state, model)
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} does not fit this network: {error}") from error
    model.load_state_dict(state)
    return model.to(device).eval(), {**run, **model.settings, "published": not ours}


def read_checkpoint(path):
    """The dict of a checkpoint, on the CPU; code inside it is never run. Raises `CheckpointError` where it is something else."""
    if not Path(path).is_file():
        raise CheckpointError(f"{path}: no such checkpoint; give a .pt file, or a run folder that holds best.pt")
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise CheckpointError(f"{path}: no readable checkpoint (cut off, not from torch.save, or with code inside)") from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f"{path} holds a {type(checkpoint).__name__}: neither a checkpoint of this project nor a published one"
        )
    published = checkpoint.get("model_state_dict")
    if checkpoint.get("format") == FORMAT:
        good = isinstance(checkpoint.get("model"), dict) and isinstance(checkpoint.get("settings"), dict)
    else:
        good = isinstance(published, dict) and any("grd_efficientnet." in str(name) for name in published)
    if not good:
        found = ", ".join(map(str, list(checkpoint)[:5])) or "nothing"
        raise CheckpointError(f"{path} holds a dict with {found}: neither a checkpoint of this project nor a published one")
    return checkpoint


def _without_prefix(state):
    return {name.removeprefix("module."): value for name, value in state.items()}  # nn.DataParallel's


def _complete(state, model):
    own = model.state_dict()
    if fault := find_faults(state, {name: value.shape for name, value in own.items()}):
        raise ValueError(fault)
    return {**own, **state}


def published_settings(state, flags):
    """Model settings of a published state dict and its flags. What the shapes of the weights tell wins over the flags."""
    settings = {name: _plain(flags[name], default, name) for name, default in DEFAULT_SETTINGS.items() if name in flags}
    try:
        d_model = state["grd_adapt_conv.weight"].shape[0]
        tokens = state["transformer_fusion_block.pos_emb_mod1"].shape[1]
        hidden = state["transformer_fusion_block.crosstransformer_blocks.0.mlp_mod1.0.weight"].shape[0]
        joined = state["conv6.0.weight"].shape[1]
    except KeyError as error:
        raise ValueError(f"missing: {error.args[0]}") from error
    anchors = math.isqrt(tokens)
    if anchors**2 != tokens:
        raise ValueError(f"pos_emb_mod1 has {tokens} anchors: expected a square number, as satellite images are square")
    return settings | {
        "d_model": d_model,
        "n_layer": _count_layers(state, "transformer_fusion_block.crosstransformer_blocks."),
        "vert_anchors": anchors,
        "horz_anchors": anchors,
        "satellite_size": UPSAMPLING * anchors,
        "block_exp": hidden // d_model,
        "use_mask": joined == STAGES[0].up_channels + 1 + FEATURE_CHANNELS[16] + 1,
        "matching": "published",
        "ori_noise": 0.0,  # whatever a published run trained with, it was measured with north in the centre
    }


def _published_flags(checkpoint, path):
    """The flags of a published run: the checkpoint's own, else those of args.yaml beside it, else none."""
    flags = checkpoint.get("args") or {}
    beside = path.parent / "args.yaml"
    if not flags and beside.is_file():
        try:
            flags = yaml.safe_load(beside.read_text()) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{beside} is no readable YAML") from error
    return flags if isinstance(flags, dict) else vars(flags)


def _plain(value, default, name):
    """A flag in the type of its default: published files hold booleans as 'True' and 'False'."""
    if isinstance(default, bool):
        if str(value) not in ("True", "False"):
            raise ValueError(f"flag {name} {value!r}: expected True or False")
        return str(value) == "True"
    return list(value) if isinstance(default, list) else type(default)(value)


def _count_layers(names, prefix):
    return len({name[len(prefix) :].split(".")[0] for name in names if name.startswith(prefix)})
