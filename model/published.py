"""Translation of the published checkpoints' names and flags to ours.

There, mod1 is the panorama's stream and mod2 the satellite's; features are named by their block's number.
"""

import math
from dataclasses import fields

from common.view import View
from efficientnet_pytorch.channels import FEATURE_CHANNELS, LAST_BLOCKS
from efficientnet_pytorch.weights import HEAD_SHAPES, backbone_modules, find_faults
from model.backbones.interface import THESIS_DECODER
from model.decoder import UPSAMPLING
from model.settings import NetworkSettings

BLOCKS = {0: 2, **LAST_BLOCKS}  # published number of a feature -> its stride
BRANCHES = {"panorama_backbone": "grd_efficientnet", "satellite_backbone": "sat_efficientnet"}
HEAD = {f"{branch}.{name}": shape for branch in BRANCHES.values() for name, shape in HEAD_SHAPES.items()}
_FUSION = {"fuse.0": "final_fusion_conv.0", "fuse.1": "final_fusion_conv.1"}
_LAYER = {"mlp_norm": "ln_before_mlp"}
for _stream, _mod, _other in (("panorama", 1, 2), ("satellite", 2, 1)):
    _FUSION |= {
        f"{_stream}_tokens.position": f"pos_emb_mod{_mod}",
        f"{_stream}_tokens.average_weight": f"weights_mod{_mod}_pool.w1",
        f"{_stream}_tokens.maximum_weight": f"weights_mod{_mod}_pool.w2",
        f"{_stream}_skip": f"coeff_skip_mod{_mod}.bias",
    }
    _attention = "panorama_to_satellite" if _mod == 1 else "satellite_to_panorama"
    _LAYER |= {
        f"{_stream}_norm": f"crossatt.LN{_mod}",
        f"{_attention}.query": f"crossatt.que_proj_mod{_mod}",
        f"{_attention}.key": f"crossatt.key_proj_mod{_other}",
        f"{_attention}.value": f"crossatt.val_proj_mod{_other}",
        f"{_attention}.out": f"crossatt.out_proj_mod{_mod}",
        f"{_stream}_mlp.0": f"mlp_mod{_mod}.0",
        f"{_stream}_mlp.2": f"mlp_mod{_mod}.2",
        f"{_stream}_attention_residual": f"coeff_mod{_mod}_att_res.bias",
        f"{_stream}_mlp_residual": f"coeff_mod{_mod}_mlp_res.bias",
    }


def published_names(names):
    """{our name: the published one} of our state dict's `names`."""
    modules = {}  # and parameters outside of any
    for ours, theirs in BRANCHES.items():
        modules |= {f"{ours}.{a}": f"{theirs}.{b}" for a, b in backbone_modules().items()}
    modules |= {"adapt_panorama": "grd_adapt_conv", "adapt_satellite": "sat_adapt_conv"}
    modules |= {f"fusion.{a}": f"transformer_fusion_block.{b}" for a, b in _FUSION.items()}
    for i in range(_count_layers(names, "fusion.layers.")):
        theirs = f"transformer_fusion_block.crosstransformer_blocks.{i}"
        modules |= {f"fusion.layers.{i}.{a}": f"{theirs}.{b}" for a, b in _LAYER.items()}
    blocks = {stride: block for block, stride in BLOCKS.items()}
    for number, stride in zip((6, 5, 4, 3, 2), THESIS_DECODER, strict=True):
        stage, block = f"decoder.stages.{stride}", blocks[stride]
        modules[f"{stage}.up"] = f"deconv{number}"
        modules |= {f"{stage}.conv.{layer}": f"conv{number}.{layer}" for layer in (0, 3)}
        modules[f"{stage}.adapt_satellite"] = f"adapt_skip_sat_{block}"
        modules[f"matching.adapt.{stride}"] = f"adapt_grd_feat_for_cos_sim_{block}"
    modules |= {"decoder.stages.32.up.0": "deconv6.0", "decoder.stages.32.up.3": "deconv6.3"}
    modules |= {"decoder.head.0": "deconv1", "decoder.head.1": "conv1.0", "decoder.head.3": "conv1.2"}

    def translate(name):
        if name in modules:
            return modules[name]
        module, _, leaf = name.rpartition(".")
        return f"{modules[module]}.{leaf}"

    return {name: translate(name) for name in names}


def from_published(state, model):
    """A published state dict under our names, without ImageNet's head, checked against `model`'s shapes.

    Raises ValueError that lists what is missing, unexpected or misshapen.
    """
    own = model.state_dict()
    theirs = published_names(own)
    if fault := find_faults(state, {theirs[name]: value.shape for name, value in own.items()}, HEAD):
        raise ValueError(fault)
    return {name: state.get(theirs[name], value) for name, value in own.items()}


def published_settings(state, flags):
    """(network settings, view) of published weights and flags; the weights' shapes win. Raises ValueError."""
    try:
        d_model = state["grd_adapt_conv.weight"].shape[0]
        tokens = state["transformer_fusion_block.pos_emb_mod1"].shape[1]
        hidden = state["transformer_fusion_block.crosstransformer_blocks.0.mlp_mod1.0.weight"].shape[0]
        joined = state["conv6.0.weight"].shape[1]
    except KeyError as error:
        raise ValueError(f"missing: {error.args[0]}") from error
    anchors = math.isqrt(tokens)
    if anchors**2 != tokens:
        raise ValueError(f"pos_emb_mod1 has {tokens} anchors: expected a square number")
    settings = _flags_of(NetworkSettings, flags) | {
        "d_model": d_model,
        "n_layer": _count_layers(state, "transformer_fusion_block.crosstransformer_blocks."),
        "vert_anchors": anchors,
        "horz_anchors": anchors,
        "block_exp": hidden // d_model,
        "use_mask": joined == THESIS_DECODER[32][0] + 1 + FEATURE_CHANNELS[32] + 1,
        "network": "published",
    }
    # Published runs were evaluated with north in the centre, regardless of their training headings.
    view = _flags_of(View, flags) | {"satellite_size": UPSAMPLING * anchors, "ori_noise": 0.0}
    return settings, view


def _flags_of(kind, flags):
    """The flags of a published run that are settings of a kind, in the types of their defaults."""
    known = [part for part in fields(kind) if part.name in flags and part.default is not None]
    return {part.name: read_flag(flags[part.name], part.default, part.name) for part in known}


def read_flag(value, default, name):
    """A flag in the type of its default; if that is None, a tuple of names or None. Raises ValueError.

    Published files hold booleans as 'True' and 'False'.
    """
    if default is None:
        return tuple(value) if value else None
    if isinstance(default, bool):
        if str(value) not in ("True", "False"):
            raise ValueError(f"flag {name} {value!r}: expected True or False")
        return str(value) == "True"
    return type(default)(value)


def _count_layers(names, prefix):
    return len({name[len(prefix) :].split(".")[0] for name in names if name.startswith(prefix)})
