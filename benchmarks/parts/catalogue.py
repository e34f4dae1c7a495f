"""The full set-up of each network, and its parts: what each of them changes, as flags of train_VIGOR.py."""

from typing import NamedTuple

from engine.training.flags import LIGHT_RECIPE

TASK = "another task"  # the group whose parts change what is asked, not how it is learnt


class Part(NamedTuple):
    """A change to the full set-up. changes: flags of train_VIGOR.py, without dashes, and what each becomes."""

    name: str
    group: str
    says: str
    changes: dict


FULL = Part("full", "", "the full set-up", {})
PARTS = (
    FULL,
    Part("no_mixstyle", "MixStyle", "without", {"use_mixstyle": False}),
    Part("crossdomain", "MixStyle", "of two cities (crossdomain)", {"mixstyle_mix": "crossdomain"}),
    Part("no_mask", "inputs", "without mask", {"use_mask": False}),
    Part("no_circular_padding", "inputs", "without circular padding", {"circular_padding": False}),
    Part("semi_positives", "inputs", "half semi-positives", {"pos_only": False}),
    Part("augment_none", "augmentation", "none", {"augment": "none"}),
    Part("augment_photometric", "augmentation", "photometric", {"augment": "photometric"}),
    Part("augment_full", "augmentation", "full", {"augment": "full"}),
    Part("augment_strong", "augmentation", "strong", {"augment": "strong"}),
    Part("no_imagenet", "training", "without ImageNet's start", {"backbone_weights": "none"}),
    Part("imagenet", "training", "ImageNet's start", {"backbone_weights": "imagenet"}),
    Part("no_ema", "training", "without moving average", {"ema": 0}),
    Part("loss_cross_entropy", "loss", "cross entropy", {"loss": "cross_entropy"}),
    Part("loss_focal", "loss", "focal", {"loss": "focal"}),
    Part("fov_180", TASK, "FoV 180°", {"FoV": 180}),
    Part("fov_90", TASK, "FoV 90°", {"FoV": 90}),
    Part("heading_20", TASK, "heading within ±20°", {"ori_noise": 20}),
    Part("heading_180", TASK, "any heading", {"ori_noise": 180}),
)
NAMED = {part.name: part for part in PARTS}

_COMMON = {
    "use_mixstyle": True,
    "mixstyle_mix": "random",
    "use_mask": True,
    "circular_padding": True,
    "pos_only": True,
    "loss": "infonce",
    "FoV": 360,
    "ori_noise": 0,
}
_LARGE = {  # docs/RESULTS.md; their ImageNet weights would have to be downloaded
    "learning_rate": 1e-3,
    "warmup": "50steps",
    "ema": 0.99,
    "augment": "photometric",
    "backbone_weights": "none",
}
RECIPES = {
    "light": LIGHT_RECIPE | {"augment": "full", "backbone_weights": "imagenet"},
    "ground_plane": _LARGE,
    "published": _LARGE,
}
OF_LARGE = ("full", "no_mixstyle", "no_mask")  # parts of the two large networks where none are named


def full_set_up(network):
    """Every flag that a part of a network may change, and its recipe's, as the full set-up has them: {name: value}."""
    return {"network": network} | _COMMON | RECIPES[network]


def parts_of(network, names=None):
    """The parts of a network in the table's order; what the full set-up of that network has anyway is no part of it.

    names: those to choose; None: all of light, `OF_LARGE` of the others.
    """
    names = names or (list(NAMED) if network == "light" else OF_LARGE)
    full = full_set_up(network)
    own = [part for part in PARTS if part is FULL or any(full[name] != value for name, value in part.changes.items())]
    return [part for part in own if part.name in names]


def flags_of(part, network):
    """{name: value} of the flags that train a network with one part changed."""
    return full_set_up(network) | part.changes
