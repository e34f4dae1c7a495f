"""Every setting that a network's weights need to be rebuilt: its default, its check and its flag's help."""

from dataclasses import dataclass
from functools import partial

from common.errors import UserError
from common.settings import BOOLEAN, COUNT, POSITIVE, SHARE, Choice, Number, Settings, setting
from model import backbones
from model.decoder import UPSAMPLING
from model.mixstyle import MIX_MODES

NETWORKS = {"published": "efficientnet_b0", "ground_plane": "efficientnet_b0", "light": "efficientnet_lite0"}
_network, _matching, _optimisation = (
    partial(setting, group=name) for name in ("network", "matching", "optimisation")
)


@dataclass(frozen=True)
class NetworkSettings(Settings):
    """The settings of a network.

    Raises UserError, in one line, for values that cannot be or do not fit together.
    """

    network: str = _network(
        "published",
        Choice(tuple(NETWORKS)),
        "published: the thesis's, which fits its checkpoints; ground_plane: the same, but it matches on the ground; "
        "light: matching on the ground alone, 0.13 M weights",
    )
    backbone: str = _network(
        None,
        Choice(backbones.NAMES),
        "of both branches (default: efficientnet_lite0 for light, else efficientnet_b0)",
    )
    d_model: int = _network(320, Number(int, least=8), "channels of the fusion block's tokens", metavar="N")
    n_layer: int = _network(2, COUNT, "cross-attention layers", metavar="N")
    num_heads: int = _network(8, COUNT, "attention heads; must divide d_model", metavar="N")
    block_exp: int = _network(4, COUNT, "expansion of the fusion block's MLPs", metavar="N")
    vert_anchors: int = _network(16, COUNT, "rows of tokens: satellite size / 32", metavar="N", hidden=True)
    horz_anchors: int = _network(
        16, COUNT, "columns of tokens: satellite size / 32", metavar="N", hidden=True
    )
    dropout_rate: float = _network(0.3, Number(least=0, below=1), "dropout in the decoder", metavar="P")
    use_mask: bool = _network(True, BOOLEAN, "give the network the semantic mask", metavar="BOOL")
    circular_padding: bool = _network(
        True, BOOLEAN, "pad whole panoramas around their seam; False: with zeros", metavar="BOOL"
    )
    use_mixstyle: bool = _network(True, BOOLEAN, "MixStyle at strides 8 and 16", metavar="BOOL")
    mixstyle_p: float = _network(0.3, SHARE, "probability of mixing", metavar="P")
    mixstyle_alpha: float = _network(
        0.1, POSITIVE, "A of Beta(A, A), from which weights are drawn", metavar="A"
    )
    mixstyle_mix: str = _network(
        "random", Choice(MIX_MODES), "samples to mix: any, or those of two cities, half a batch of each"
    )
    estimate_tilt: bool = _network(
        None,
        BOOLEAN,
        "estimate the true pitch and roll of photographs (default: where --tilt_noise is not 0)",
        metavar="BOOL",
    )
    camera_height: float = _matching(2.5, POSITIVE, "metres above the street", metavar="M")
    height_factor: float = _matching(
        1.0,
        Number(least=1, most=4),
        "cameras may stand so many times higher or lower; 1: the height is known",
        metavar="F",
    )
    matching_radius: float = _matching(20.0, POSITIVE, "metres of ground around the camera", metavar="M")
    matching_channels: int = _matching(32, COUNT, "channels that are correlated", metavar="N")
    heading_bins: int = _matching(
        36, Number(int, least=4), "headings on the full circle where --ori_noise is not 0", metavar="N"
    )
    temperature: float = _optimisation(
        0.1, POSITIVE, "divides logits, in the loss and in the heat map", metavar="T"
    )

    def __post_init__(self):
        super().__post_init__()
        if self.backbone is None:
            object.__setattr__(self, "backbone", NETWORKS[self.network])
        if self.estimate_tilt is None:
            object.__setattr__(self, "estimate_tilt", False)
        if self.vert_anchors != self.horz_anchors:
            raise UserError(
                f"vert_anchors {self.vert_anchors}: expected horz_anchors, which is {self.horz_anchors}"
            )
        if self.network == "light" and self.matching_channels % 8:
            raise UserError(
                f"matching_channels {self.matching_channels}: the light network needs a multiple of 8"
            )
        if self.network == "published" and self.estimate_tilt:
            raise UserError(
                "estimate_tilt True: the published network does not use cameras; choose another --network"
            )
        if self.d_model % self.num_heads:
            raise UserError(
                f"d_model {self.d_model}: expected a multiple of num_heads, which is {self.num_heads}"
            )

    @property
    def satellite_size(self):
        """Side in pixels of the satellite images of training."""
        return UPSAMPLING * self.vert_anchors


def network_settings(view, *values):
    """The settings of a network for a `View` of training, from dicts of which later ones win.

    What follows from the view, the anchors and whether tilts are estimated, is filled in where no dict names
    it. Raises UserError where settings and view do not fit together.
    """
    given = NetworkSettings.given(*values)
    anchors = view.satellite_size // UPSAMPLING
    for name in ("vert_anchors", "horz_anchors"):
        if given.setdefault(name, anchors) != anchors:
            raise UserError(
                f"--satellite_size {view.satellite_size}: expected 32 x {name}, which is {given[name]}"
            )
    if given.get("estimate_tilt") is None:
        given["estimate_tilt"] = view.photographs and view.tilt_noise > 0
    elif given["estimate_tilt"] and not view.photographs:
        raise UserError("--estimate_tilt True: panoramas have no tilt; photographs do, with --camera photo")
    network = NetworkSettings(**given)
    if view.photographs and network.network == "published":
        raise UserError(
            "--camera photo: the published network uses no camera; choose --network light or ground_plane"
        )
    return network
