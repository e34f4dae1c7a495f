"""All settings on which a network's weights depend, with their defaults, checks and help texts."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from common.errors import UserError
from common.settings import BOOLEAN, CAMERA_HEIGHT, COUNT, POSITIVE, SHARE, Choice, Number, Settings, setting
from model import backbones
from model.decoder import UPSAMPLING
from model.mixstyle import MIX_MODES

NETWORKS = {"published": "efficientnet_b0", "ground_plane": "efficientnet_b0", "light": "efficientnet_lite0"}
WIDTH = Number(int, least=8, most=4096, unit="N")
DROPOUT = Number(least=0, below=1, unit="P")
LAYERS = Number(int, least=1, most=64, unit="N")
FACTOR = Number(least=1, most=4, unit="F")
CHANNELS = Number(int, least=1, most=4096, unit="N")
HEADINGS = Number(int, least=4, most=720, unit="N")


class Size(NamedTuple):
    """What grows with the size of the light network."""

    context: int  # coarsest stride of the features, which enrich finer ones; images are padded to it
    channels: int  # that are correlated at stride 4; half of them at stride 2
    head: int  # channels of the head


SIZES = {"s": Size(8, 32, 16), "m": Size(16, 64, 32), "l": Size(32, 96, 48)}
_network, _matching = (partial(setting, group=name) for name in ("network", "matching"))
_anchors = partial(_network, 16, COUNT, hidden=True)


@dataclass(frozen=True)
class NetworkSettings(Settings):
    """The settings of a network.

    Raises UserError, in one line, for impossible values and combinations.
    """

    network: str = _network(
        "published",
        Choice(tuple(NETWORKS)),
        "published: the thesis's, for published checkpoints; ground_plane: the same with matching on the "
        "ground; light: matching on the ground and a small head, see --size",
    )
    backbone: str = _network(
        None,
        backbones.NAME,
        f"backbone of both branches: {', '.join(backbones.NAMES)}, or timm:<name>, a feature model of timm "
        "(default: efficientnet_lite0 for light, else efficientnet_b0)",
    )
    size: str = _network(
        "s", Choice(tuple(SIZES)), "of the light network: s, 0.13 M weights; m, 1.5 M; l, 6.1 M"
    )
    d_model: int = _network(320, WIDTH, "channels of the fusion block's tokens")
    n_layer: int = _network(2, LAYERS, "cross-attention layers")
    num_heads: int = _network(8, COUNT, "attention heads; must divide d_model")
    block_exp: int = _network(4, LAYERS, "expansion of the fusion block's MLPs")
    vert_anchors: int = _anchors("rows of tokens: satellite size / 32")
    horz_anchors: int = _anchors("columns of tokens: satellite size / 32")
    dropout_rate: float = _network(0.3, DROPOUT, "dropout in the decoder")
    use_mask: bool = _network(True, BOOLEAN, "give the network the semantic mask")
    circular_padding: bool = _network(True, BOOLEAN, "pad whole panoramas circularly; False: with zeros")
    use_mixstyle: bool = _network(True, BOOLEAN, "MixStyle at strides 8 and 16")
    mixstyle_p: float = _network(0.3, SHARE, "probability of mixing")
    mixstyle_alpha: float = _network(0.1, POSITIVE, "A of Beta(A, A), the weights' distribution", metavar="A")
    mixstyle_mix: str = _network(
        "random", Choice(MIX_MODES), "samples to mix: any, or those of two cities, half a batch of each"
    )
    estimate_tilt: bool = _network(
        None, BOOLEAN, "estimate photographs' true pitch and roll (default: where --tilt_noise is not 0)"
    )
    camera_height: float = _matching(2.5, CAMERA_HEIGHT, "metres above the street", metavar="M")
    height_factor: float = _matching(1.0, FACTOR, "camera heights are known to this factor; 1: exactly")
    matching_radius: float = _matching(
        20.0, Number(above=0, most=200), "metres of ground around the camera", metavar="M"
    )
    matching_channels: int = _matching(
        None, CHANNELS, "number of correlated channels (default: 32; of light, that of its --size)"
    )
    planes: tuple = _matching(
        (),
        Number(above=0, most=30),
        "further heights above the ground, in metres, at which templates take features, such as 1 3 6",
        metavar="M",
        count="+",
    )
    cell_confidence: bool = _matching(
        False, BOOLEAN, "weight the query's cells by a learned confidence, not only by their distance"
    )
    heading_bins: int = _matching(36, HEADINGS, "headings on the full circle where --ori_noise is not 0")
    temperature: float = setting(
        0.1, POSITIVE, "divides logits, in the loss and in the heat map", group="optimisation", metavar="T"
    )

    def __post_init__(self):
        super().__post_init__()
        if self.backbone is None:
            object.__setattr__(self, "backbone", NETWORKS[self.network])
        if self.matching_channels is None:
            object.__setattr__(self, "matching_channels", SIZES[self.size].channels)
        if self.size != "s" and self.network != "light":
            raise UserError(f"size {self.size}: the {self.network} network has one size; leave it out")
        if self.estimate_tilt is None:
            object.__setattr__(self, "estimate_tilt", False)
        if self.vert_anchors != self.horz_anchors:
            raise UserError(f"vert_anchors {self.vert_anchors}: expected horz_anchors, {self.horz_anchors}")
        if self.network == "light" and (channels := self.matching_channels) % 8:
            raise UserError(f"matching_channels {channels}: the light network needs a multiple of 8")
        if self.network == "published" and self.estimate_tilt:
            raise UserError(
                "estimate_tilt True: the published network uses no camera; choose another --network"
            )
        if self.d_model % self.num_heads:
            expected = f"a multiple of num_heads, which is {self.num_heads}"
            raise UserError(f"d_model {self.d_model}: expected {expected}")

    @property
    def satellite_size(self):
        """Side in pixels of the satellite images of training."""
        return UPSAMPLING * self.vert_anchors


def network_settings(view, *values):
    """The settings of a network for a `View` of training, from dicts; later ones win.

    Anchors, and whether tilts are estimated, follow from the view unless a dict names them. Raises UserError
    for settings that do not fit the view.
    """
    given = NetworkSettings.given(*values)
    anchors = view.satellite_size // UPSAMPLING
    for name in ("vert_anchors", "horz_anchors"):
        if given.setdefault(name, anchors) != anchors:
            expected = f"32 x {name}, which is {given[name]}"
            raise UserError(f"--satellite_size {view.satellite_size}: expected {expected}")
    if given.get("estimate_tilt") is None:
        given["estimate_tilt"] = view.photographs and view.tilt_noise > 0
    elif given["estimate_tilt"] and not view.photographs:
        raise UserError("--estimate_tilt True: panoramas have no tilt; photographs do, with --camera photo")
    network = NetworkSettings(**given)
    if view.photographs and network.network == "published":
        says = "the published network uses no camera; choose --network light or ground_plane"
        raise UserError(f"--camera photo: {says}")
    return network
