"""The conditions under which a network sees pairs: sizes, field of view, priors, kind of camera, forms."""

from dataclasses import dataclass
from functools import partial

import torch

from common.camera import WHOLE_DEG, WIDEST_DEG, Panorama, Pinhole
from common.errors import UserError
from common.geometry import view_columns, wrap_degrees
from common.settings import CAMERA_HEIGHT, PIXELS, Check, Choice, Number, Settings, Several, setting, whole
from common.words import in_words

USUAL, ANY = "usual", "any"  # priors of cameras' heights
KINDS = (Panorama.kind, Pinhole.kind)
FORMS = 8  # of a pair under test-time augmentation: mirrored or not, times four quarter turns
STEP_PX = 8  # sides of query images are multiples of it
PANORAMA_FOV = Number(above=0, most=360, unit="DEG")
HFOV = Number(above=0, most=WIDEST_DEG, unit="DEG")
HEADING_NOISE = Number(least=0, most=180, unit="DEG")
ANGLE = Number(least=-45, most=45, unit="DEG")
TILT = Number(least=0, most=45, unit="DEG")  # to each side
ELEVATION = Number(above=0, most=90)  # degrees above or below the horizon
VERTICAL = Several(ELEVATION, 2)
IMAGE_PX = Number(least=-100_000, most=100_000)  # a focal length or a place in an image
INTRINSICS = Several(IMAGE_PX, 4)
BEND = Number(least=-100, most=100)  # a number of a lens's distortion
DISTORTION = Several(BEND, 1, 2, 3, 4, 5)
_view = partial(setting, group="view")


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


ASPECT = Check("width:height, such as 4:3, from 1:4 to 4:1", _is_aspect, unit="W:H")
_FORMS = Number(int, least=1, most=FORMS)
TTA = Check(f"1 or {FORMS}", lambda value: _FORMS.allows(value) and value in (1, FORMS), whole, unit="N")


@dataclass(frozen=True)
class View(Settings):
    """The conditions of a training or an evaluation. Checkpoints carry those of their training; an evaluation
    may change them.

    Raises UserError, in one line, for impossible values and combinations.
    """

    satellite_size: int = _view(512, PIXELS, "side of satellite image and heat map")
    panorama_size: tuple = _view(
        (320, 640), PIXELS, "pixels of a whole panorama", metavar=("H", "W"), count=2
    )
    FoV: float = _view(360.0, PANORAMA_FOV, "degrees of the panorama to keep about its centre", short="-f")
    vertical: tuple = _view(
        WHOLE_DEG,
        ELEVATION,
        "degrees that panoramas show above and below the horizon",
        metavar=("TOP", "BOTTOM"),
        count=2,
    )
    ori_noise: float = _view(
        0.0, HEADING_NOISE, "the heading is known within +- this many degrees; 180: any heading"
    )
    camera: str = _view(
        "panorama",
        Choice(KINDS),
        "photo: photographs, cut out of panoramas if these are given; needs --network light or ground_plane",
    )
    hfov: tuple = _view(
        (60.0, 100.0), HFOV, "horizontal field of view of photographs, from and to, or one", count="+"
    )
    pitch: float = _view(5.0, ANGLE, "photographs look up or down by up to this many degrees")
    roll: float = _view(2.0, ANGLE, "photographs are rotated by up to this many degrees")
    tilt_noise: float = _view(0.0, TILT, "photographs' pitch and roll are known within +- this many degrees")
    aspect: str = _view("4:3", ASPECT, "width to height of photographs")
    photo_width: int = _view(320, PIXELS, "width of photographs in pixels; --aspect gives their height")
    camera_height: float = _view(
        None, CAMERA_HEIGHT, "metres of all cameras above the street, if known", metavar="M"
    )
    height_prior: str = _view(
        USUAL,
        Choice((USUAL, ANY)),
        "prior of unknown camera heights; usual: 98 in 100 cameras stand as high as a street-view car's; "
        "any: all heights of training are equally likely",
    )
    tta: int = _view(
        1, TTA, "8: average over the pair mirrored and in quarter turns, at eight times the cost"
    )

    def __post_init__(self):
        super().__post_init__()
        if len(self.hfov) == 1:
            object.__setattr__(self, "hfov", self.hfov * 2)
        if len(self.hfov) != 2 or self.hfov[0] > self.hfov[1]:
            raise UserError(f"--hfov {in_words(self.hfov)}: expected one angle, or two, the smaller first")
        if self.photographs and self.vertical != WHOLE_DEG:
            says = "describes cropped panoramas, but photographs are cut out of whole ones"
            raise UserError(f"--vertical {in_words(self.vertical)} {says}")
        for name in ("pitch", "roll"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name} {getattr(self, name):g}: expected degrees to each side, 0 or more")
        if self.photographs and self.FoV != 360:
            raise UserError(f"--FoV {self.FoV:g} cuts panoramas; a photograph's field of view is --hfov")
        if self.tta > 1 and self.FoV < 360:
            raise UserError(f"--tta {self.tta} turns whole panoramas, but --FoV is {self.FoV:g}; use --tta 1")

    @property
    def usual_height(self):
        """Whether cameras of unknown height are expected to stand at the usual one."""
        return self.height_prior == USUAL

    @property
    def photographs(self):
        """Whether the query images are photographs."""
        return self.camera == Pinhole.kind

    @property
    def panorama_px(self):
        """(height, width) in pixels of a panorama as it is read, before the field of view is cut."""
        height, width = self.panorama_size
        share = sum(self.vertical) / sum(WHOLE_DEG)
        return max(STEP_PX, round(height * share / STEP_PX) * STEP_PX), width

    @property
    def photo_px(self):
        """(height, width) in pixels of photographs."""
        height = self.photo_width / read_aspect(self.aspect)
        return max(32, round(height / 32) * 32), self.photo_width

    @property
    def query_px(self):
        """(height, width) in pixels of the images that the network sees."""
        if self.photographs:
            return self.photo_px
        height, width = self.panorama_px
        start, stop = view_columns(self.FoV, width)
        return height, stop - start

    CAMERA_DRAWS = 7  # random numbers that `draw_cameras` takes for a camera

    def draw_cameras(self, shares):
        """(true, prior): `Pinhole` batches of photographs, drawn from (B, 7) random numbers in [0, 1).

        They look in any direction; heading, pitch and roll of the prior differ from the true ones by up to
        `ori_noise` and `tilt_noise`.
        """
        hfov, heading, pitch, roll, *noise = shares.float().unbind(1)
        least, most = self.hfov
        focal = 1 / (2 * torch.tan(torch.deg2rad(least + (most - least) * hfov) / 2))
        even = [2 * share - 1 for share in (heading, pitch, roll, *noise)]
        reaches = 180.0, self.pitch, self.roll, self.ori_noise, self.tilt_noise, self.tilt_noise
        heading, pitch, roll, *noise = (reach * share for reach, share in zip(reaches, even, strict=True))
        half, zero = torch.full_like(focal, 0.5), torch.zeros_like(focal)
        lens = {"fx": focal, "fy": focal * read_aspect(self.aspect), "cx": half, "cy": half}
        lens |= dict.fromkeys(Pinhole.DISTORTION, zero)
        true = Pinhole.of(heading=heading, pitch=pitch + noise[1], roll=roll + noise[2], **lens)
        prior = Pinhole.of(heading=wrap_degrees(heading - noise[0]), pitch=pitch, roll=roll, **lens)
        return true, prior

    @property
    def conditions(self):
        """{name: value} of all conditions but sizes and those of the other kind of camera."""
        of_kind = ("hfov", "pitch", "roll", "tilt_noise", "aspect", "photo_width")
        names = of_kind if self.photographs else ("FoV", "vertical")
        plain = self.plain()
        names = "camera", "ori_noise", *names, "camera_height", "height_prior", "tta"
        return {name: plain[name] for name in names}
