"""Every setting of a network: its default, what it may be, and what its flag says. Checkpoints hold them as a plain dict."""

from dataclasses import dataclass
from functools import partial

from common import flags
from common.camera import WIDEST_DEG, CameraRange
from common.errors import UserError
from model.decoder import UPSAMPLING
from model.mixstyle import MIX_MODES

NETWORKS = ("published", "ground_plane", "light")
CAMERAS = ("panorama", "photo")
HFOV = flags.Number(above=0, most=WIDEST_DEG)
ANGLE = flags.Number(least=-45, most=45)  # degrees
TILT = flags.Number(least=0, most=45)  # degrees to each side


def read_aspect(text):
    """Width over height of a text such as 4:3. Raises ValueError."""
    width, height = map(float, text.split(":"))
    if not 0.25 <= width / height <= 4:
        raise ValueError(text)
    return width / height


def _is_aspect(value):
    try:
        return bool(read_aspect(value))
    except (ValueError, AttributeError, ZeroDivisionError):
        return False


ASPECT = flags.Check("width:height, such as 4:3, from 1:4 to 4:1", _is_aspect)
_data, _network, _matching, _optimisation = (
    partial(flags.setting, group=name) for name in ("data", "network", "matching", "optimisation")
)


@dataclass(frozen=True)
class ModelSettings(flags.Settings):
    """The settings of a network. Raises UserError, in one line, for values that cannot be or do not fit together."""

    FoV: float = _data(360.0, flags.FIELD_OF_VIEW, "degrees of the panorama that are kept", metavar="DEG", short="-f")
    ori_noise: float = _data(0.0, flags.HEADING_NOISE, "headings within +- degrees; 180: any", metavar="DEG")
    satellite_size: int = _data(512, flags.PIXELS, "side of satellite image and heat map", metavar="PX")
    panorama_size: tuple = _data((320, 640), flags.PIXELS, "pixels of the whole panorama", metavar=("H", "W"), count=2)
    camera: str = _data(
        "panorama",
        flags.Choice(CAMERAS),
        "photo: photographs, which are cut out of panoramas where the data has these; needs a network that matches on the ground",
    )
    hfov: tuple = _data(
        (60.0, 100.0), HFOV, "horizontal field of view of photographs, from and to, or one", metavar="DEG", count="+"
    )
    pitch: float = _data(5.0, TILT, "how far photographs look up or down, as they are told", metavar="DEG")
    roll: float = _data(2.0, TILT, "how far photographs are turned, as they are told", metavar="DEG")
    tilt_noise: float = _data(0.0, TILT, "by how much the told pitch and roll may be wrong", metavar="DEG")
    estimate_tilt: bool = _network(
        None, flags.BOOLEAN, "estimate photographs' true pitch and roll (default: where --tilt_noise is not 0)", metavar="BOOL"
    )
    aspect: str = _data("4:3", ASPECT, "of photographs", metavar="W:H")
    photo_width: int = _data(320, flags.PIXELS, "pixels of photographs; their height follows", metavar="PX")
    network: str = _network(
        "published",
        flags.Choice(NETWORKS),
        "published: the thesis's, which fits its checkpoints; ground_plane: the same with matching on the ground; light: nothing "
        "but matching on the ground, in 0.13 M weights",
    )
    d_model: int = _network(320, flags.Number(int, least=8), "channels of the fusion block's tokens", metavar="N")
    n_layer: int = _network(2, flags.COUNT, "cross-attention layers", metavar="N")
    num_heads: int = _network(8, flags.COUNT, "attention heads; must divide d_model", metavar="N")
    block_exp: int = _network(4, flags.COUNT, "expansion of the fusion block's MLPs", metavar="N")
    vert_anchors: int = _network(None, flags.COUNT, "rows of tokens (default: satellite size / 32)", metavar="N")
    horz_anchors: int = _network(None, flags.COUNT, "columns of tokens (default: satellite size / 32)", metavar="N")
    dropout_rate: float = _network(0.3, flags.Number(least=0, below=1), "dropout in the decoder", metavar="P")
    use_mask: bool = _network(True, flags.BOOLEAN, "give the decoder the semantic mask", metavar="BOOL")
    circular_padding: bool = _network(
        True,
        flags.BOOLEAN,
        "pad a whole panorama around its seam; False: with zeros, as other images",
        metavar="BOOL",
    )
    use_mixstyle: bool = _network(True, flags.BOOLEAN, "MixStyle after blocks 4 and 9", metavar="BOOL")
    mixstyle_p: float = _network(0.3, flags.SHARE, "probability of mixing", metavar="P")
    mixstyle_alpha: float = _network(0.1, flags.POSITIVE, "of Beta(A, A), which draws the mixture", metavar="A")
    mixstyle_mix: str = _network(
        "random", flags.Choice(MIX_MODES), "which samples mix: any, or those of two cities, half a batch of each"
    )
    camera_height: float = _matching(2.5, flags.POSITIVE, "metres above the street", metavar="M")
    height_factor: float = _matching(
        1.0, flags.Number(least=1, most=4), "cameras may stand so many times higher or lower; 1: the height is known", metavar="F"
    )
    matching_radius: float = _matching(20.0, flags.POSITIVE, "metres of ground around the camera", metavar="M")
    matching_channels: int = _matching(32, flags.COUNT, "channels that are correlated", metavar="N")
    heading_bins: int = _matching(
        36, flags.Number(int, least=4), "headings tried on the full circle where --ori_noise is not 0", metavar="N"
    )
    temperature: float = _optimisation(
        0.1, flags.POSITIVE, "what logits are divided by, in the loss and in the heat map", metavar="T"
    )

    def __post_init__(self):
        super().__post_init__()
        for name in ("vert_anchors", "horz_anchors"):
            anchors = getattr(self, name)
            if anchors is None:
                object.__setattr__(self, name, self.satellite_size // UPSAMPLING)
            elif anchors * UPSAMPLING != self.satellite_size:
                raise UserError(f"satellite_size {self.satellite_size}: expected 32 x {name}, which is {anchors}")
        if self.network == "light" and self.matching_channels % 8:
            raise UserError(f"matching_channels {self.matching_channels}: the light network needs a multiple of 8")
        if len(self.hfov) == 1:
            object.__setattr__(self, "hfov", self.hfov * 2)
        if len(self.hfov) != 2 or self.hfov[0] > self.hfov[1]:
            raise UserError(f"hfov {' '.join(f'{one:g}' for one in self.hfov)}: expected one angle, or two, the smaller first")
        if self.camera == "photo":
            if self.network == "published":
                way_out = "choose --network light or ground_plane"
                raise UserError(f"--camera photo: the published network knows no camera; {way_out}")
            if self.FoV != 360:
                raise UserError(f"--FoV {self.FoV:g} cuts panoramas; a photograph's field of view is --hfov")
        if self.estimate_tilt is None:
            object.__setattr__(self, "estimate_tilt", self.camera == "photo" and self.tilt_noise > 0)
        elif self.estimate_tilt and self.camera != "photo":
            raise UserError("estimate_tilt True: panoramas have none; photographs do, with --camera photo")
        if self.d_model % self.num_heads:
            raise UserError(f"d_model {self.d_model}: expected a multiple of num_heads, which is {self.num_heads}")

    @classmethod
    def read(cls, values):
        """The settings that a checkpoint holds. Raises UserError, also for a name that is none of ours."""
        if unknown := sorted(set(values) - set(cls.names())):
            raise UserError(f"unknown model settings: {', '.join(unknown)}; known are {', '.join(cls.names())}")
        return cls(**values)

    @property
    def images(self):
        """How `dataset.vigor` has to hand images over, as its keyword arguments."""
        seen = {name: getattr(self, name) for name in ("satellite_size", "panorama_size", "use_mask", "FoV")}
        return seen | {"cameras": self.cameras}

    @property
    def cameras(self):
        """The `CameraRange` of photographs; None of panoramas."""
        if self.camera == "panorama":
            return None
        aspect = read_aspect(self.aspect)
        height = max(UPSAMPLING, round(self.photo_width / aspect / UPSAMPLING) * UPSAMPLING)
        size = height, self.photo_width
        return CameraRange(self.hfov, self.pitch, self.roll, self.tilt_noise, self.ori_noise, size, aspect)
