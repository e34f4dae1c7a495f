"""Cameras: which way a pixel looks, and where a direction is seen.

A direction is a bearing (degrees clockwise) and a depression (degrees below the horizon); a place in an image is (x, y), shares
of its width and height from its upper left corner, so that no camera hangs on the size that an image is brought to.

Panoramas are equirectangular. A photograph is a pinhole camera's, with OpenCV's five numbers of lens distortion, or none. One
photograph's camera is a row of numbers, `NAMES`, and a batch of them a tensor (B, 12), which travels as a batch's `camera`:

    heading, pitch, roll    degrees: bearing of the optical axis; how far it looks up; how far the camera is turned clockwise, as
                            whoever stands behind it sees it, so that the horizon falls to the left of the image
    fx, cx · fy, cy         focal length and principal point, in widths · in heights of the image
    k1, k2, p1, p2, k3      distortion, as OpenCV names and orders it
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F

from common.errors import UserError
from common.geometry import wrap_degrees

NAMES = ("heading", "pitch", "roll", "fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2", "k3")
WIDEST_DEG = 150.0  # of a pinhole camera's view; beyond that lenses are no pinholes
FULL_FRAME_MM = (36.0, 24.0)  # of the film that focal lengths are told for
_STEEPEST = 6.0  # tangent of the angle from the axis up to which a lens's distortion is looked at: 80 degrees
_UNDISTORT_STEPS = 30


class Equirectangular(NamedTuple):
    """The camera of a panorama that is `span` degrees wide about its centre, which looks along bearing 0, and whole in height."""

    span: float = 360.0

    @property
    def hfov(self):
        """Degrees between the image's left and right edge."""
        return self.span

    @property
    def wraps(self):
        """Whether the image's left and right edge show neighbours."""
        return self.span == 360

    def project(self, bearing, depression):
        """Where directions are seen: (x, y, whether they are), each of their common shape. Bearings lie within [-180, 180)."""
        x, y = torch.broadcast_tensors(bearing / self.span + 0.5, depression / 180 + 0.5)
        return x, y, (bearing.abs() <= self.span / 2).expand_as(x)

    def to(self, device):
        """The same on a device: it holds no tensor."""
        return self


def pinhole(width, height, *, hfov=None, fx=None, fy=None, cx=None, cy=None, heading=0.0, pitch=0.0, roll=0.0, distortion=()):
    """The (12,) numbers of a camera whose image has a width and a height in pixels.

    hfov: degrees from the image's left edge to its right; or fx, fy, cx, cy in pixels, of which fy follows fx and the principal
    point is the image's middle where they are not given · distortion: up to OpenCV's five numbers. Raises UserError.
    """
    if (hfov is None) == (fx is None):
        raise UserError("a camera: give either its horizontal field of view or its focal length")
    if hfov is not None:
        if not 0 < hfov <= WIDEST_DEG:
            raise UserError(f"hfov {hfov:g}: a photograph is more than 0 and up to {WIDEST_DEG:g} degrees wide")
        fx = width / (2 * math.tan(math.radians(hfov) / 2))
    if fx <= 0 or (fy is not None and fy <= 0):
        raise UserError(f"focal length {fx if fx <= 0 else fy:g} px: expected more than 0")
    if len(distortion) > 5:
        raise UserError(f"distortion: {len(distortion)} numbers; expected up to five, k1 k2 p1 p2 k3")
    x, y = width / 2 if cx is None else cx, height / 2 if cy is None else cy
    lens = fx / width, (fx if fy is None else fy) / height, x / width, y / height
    bent = [*distortion, *[0.0] * (5 - len(distortion))]
    return torch.tensor([wrap_degrees(heading), pitch, roll, *lens, *bent], dtype=torch.float32)


def hfov_of_35mm(focal_mm, width, height):
    """The horizontal field of view in degrees of an image whose camera tells its focal length for 35 mm film.

    Phones tell it by the diagonal; an upright photograph is the same film turned.
    """
    side = math.hypot(*FULL_FRAME_MM) * width / math.hypot(width, height)
    return math.degrees(2 * math.atan(side / (2 * focal_mm)))


class Pinhole:
    """The cameras of a batch of photographs. numbers: (B, 12), `NAMES`."""

    wraps = False

    def __init__(self, numbers):
        self.numbers = numbers

    def __getattr__(self, name):
        if name not in NAMES:
            raise AttributeError(name)
        return self.numbers[:, NAMES.index(name)]

    def to(self, device):
        """The same on a device."""
        return Pinhole(self.numbers.to(device))

    @property
    def hfov(self):
        """Degrees between the image's left and right edge, (B,); distortion left out."""
        left, right = torch.atan(self.cx / self.fx), torch.atan((1 - self.cx) / self.fx)
        return torch.rad2deg(left + right)

    def project(self, bearing, depression):
        """Where directions (B, ...) are seen: (x, y, whether they are).

        bearing is relative to the camera's heading. A direction beside the image, or behind the camera, is not seen; nor is one
        further out than the lens's distortion, which folds back there, speaks for.
        """
        bearing, depression = (torch.deg2rad(x) for x in torch.broadcast_tensors(bearing, depression))
        ahead = depression.cos() * bearing.cos()
        right, down = depression.cos() * bearing.sin(), depression.sin()
        pitch, roll = (torch.deg2rad(self._like(name, bearing)) for name in ("pitch", "roll"))
        depth, down = ahead * pitch.cos() - down * pitch.sin(), ahead * pitch.sin() + down * pitch.cos()
        right, down = right * roll.cos() + down * roll.sin(), down * roll.cos() - right * roll.sin()
        front = depth > 1e-6
        depth = depth.clamp_min(1e-6)
        u, v = right / depth, down / depth
        seen = front & (u.square() + v.square() < self._reach().square().view(-1, *[1] * (u.dim() - 1)))  # ONNX has no hypot
        u, v = self._distort(u, v)
        x, y = (self._like(f"f{c}", u) * at + self._like(f"c{c}", u) for c, at in (("x", u), ("y", v)))
        return x, y, seen & (x >= 0) & (x <= 1) & (y >= 0) & (y <= 1)

    def rays(self, x, y, undistort_steps=None):
        """The directions in which places (B, ...) of the image look: (bearing relative to the heading, depression), degrees.

        undistort_steps: how often an estimate of where a lens without distortion would show them is mended; None: until nothing
        is left to mend.
        """
        u, v = (at - self._like(f"c{c}", at) for c, at in (("x", x), ("y", y)))
        u, v = u / self._like("fx", u), v / self._like("fy", v)
        bent = u, v
        if undistort_steps is None:
            undistort_steps = _UNDISTORT_STEPS if self.numbers[:, 7:].any() else 0
        for _ in range(undistort_steps):  # as OpenCV undistorts
            du, dv = (a - b for a, b in zip(self._distort(u, v), (u, v), strict=True))
            u, v = (a - b for a, b in zip(bent, (du, dv), strict=True))
        pitch, roll = (torch.deg2rad(self._like(name, u)) for name in ("pitch", "roll"))
        right, down = u * roll.cos() - v * roll.sin(), v * roll.cos() + u * roll.sin()
        ahead, down = pitch.cos() + down * pitch.sin(), down * pitch.cos() - pitch.sin()
        bearing, depression = torch.atan2(right, ahead), torch.atan2(down, torch.hypot(right, ahead))
        return torch.rad2deg(bearing), torch.rad2deg(depression)

    def _like(self, name, x):
        return getattr(self, name).view(-1, *[1] * (x.dim() - 1))

    def _distort(self, u, v):
        k1, k2, p1, p2, k3 = (self._like(name, u) for name in NAMES[7:])
        square = u.square() + v.square()
        radial = 1 + square * (k1 + square * (k2 + square * k3))
        bent_u = u * radial + 2 * p1 * u * v + p2 * (square + 2 * u.square())
        return bent_u, v * radial + p1 * (square + 2 * v.square()) + 2 * p2 * u * v

    def _reach(self):
        """(B,) tangents of the angles from the axis below which a ray further out is seen further out."""
        r = torch.linspace(0, _STEEPEST, 601, device=self.numbers.device)
        k1, k2, k3 = (getattr(self, name)[:, None] for name in ("k1", "k2", "k3"))
        grows = 1 + r.square() * (3 * k1 + r.square() * (5 * k2 + r.square() * 7 * k3)) > 0
        return torch.where(grows, torch.inf, r).amin(1)


class CameraRange(NamedTuple):
    """Which photographs are cut out of panoramas, and how far what is told of their cameras may be wrong.

    hfov: (least, most) degrees of view · pitch, roll: degrees to each side that are told · tilt_noise, ori_noise: degrees to each
    side by which the true pitch and roll, and the true heading, may differ from those told · size: (h, w) in pixels · aspect:
    width over height, which pixels that are not quite square make up for.
    """

    hfov: tuple
    pitch: float
    roll: float
    tilt_noise: float
    ori_noise: float
    size: tuple
    aspect: float

    DRAWS = 7  # numbers that a camera is drawn by

    def draw(self, shares):
        """Cameras by (B, 7) numbers within [0, 1): (as they are, as they are told), (B, 12) each. They look anywhere."""
        view, heading, pitch, roll, *noise = shares.float().unbind(1)
        least, most = self.hfov
        focal = 1 / (2 * torch.tan(torch.deg2rad(least + (most - least) * view) / 2))
        even = [2 * share - 1 for share in (heading, pitch, roll, *noise)]
        reaches = 180.0, self.pitch, self.roll, self.ori_noise, self.tilt_noise, self.tilt_noise
        heading, pitch, roll, *noise = (reach * share for reach, share in zip(reaches, even, strict=True))
        half, nothing = torch.full_like(focal, 0.5), torch.zeros(5, len(focal))
        lens = [focal, focal * self.aspect, half, half, *nothing]
        told = [wrap_degrees(heading - noise[0]), pitch, roll]
        return torch.stack([heading, pitch + noise[1], roll + noise[2], *lens], 1), torch.stack([*told, *lens], 1)


def turned(numbers, degrees):
    """The cameras (B, 12) in a world turned clockwise by some degrees, a number or (B,)."""
    return torch.cat((wrap_degrees(numbers[:, :1] + torch.as_tensor(degrees).to(numbers).view(-1, 1)), numbers[:, 1:]), 1)


def tilted(numbers, degrees):
    """The cameras (B, 12) with pitch and roll greater by degrees (B, 2)."""
    pitch = NAMES.index("pitch")
    return torch.cat((numbers[:, :pitch], numbers[:, pitch : pitch + 2] + degrees, numbers[:, pitch + 2 :]), 1)


def mirrored(numbers):
    """The cameras (B, 12) in a world mirrored east to west, whose images are mirrored left to right."""
    sign = torch.ones(len(NAMES))
    sign[[NAMES.index(name) for name in ("heading", "roll", "cx", "p2")]] = -1
    changed = numbers * sign.to(numbers)
    cx = NAMES.index("cx")
    return torch.cat((wrap_degrees(changed[:, :1]), changed[:, 1:cx], 1 + changed[:, cx : cx + 1], changed[:, cx + 1 :]), 1)


def cut_photographs(panorama, numbers, size, undistort_steps=None):
    """Photographs (B, 3, h, w), float, that cameras would have taken where panoramas (B, 3, H, W) were: gnomonic projection.

    numbers: (B, 12), the cameras; their headings are relative to the panoramas' centres · size: (h, w) · undistort_steps: as of
    `Pinhole.rays`. Each pixel is the mean of four rays.
    """
    B, _, H, W = panorama.shape
    height, width = (2 * side for side in size)
    y = (torch.arange(height, device=panorama.device) + 0.5) / height
    x = (torch.arange(width, device=panorama.device) + 0.5) / width
    y, x = (at.expand(B, height, width) for at in torch.meshgrid(y, x, indexing="ij"))
    camera = Pinhole(numbers)
    bearing, depression = camera.rays(x, y, undistort_steps)
    bearing = wrap_degrees(bearing + camera.heading[:, None, None])
    # One column more on each side, so that the seam is between neighbours.
    col, row = (bearing / 360 + 0.5) * W + 1, (depression / 180 + 0.5) * H
    around = F.pad(panorama.float(), (1, 1, 0, 0), mode="circular")
    grid = torch.stack((2 * col / (W + 2) - 1, 2 * row / H - 1), -1)
    finer = F.grid_sample(around, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return F.avg_pool2d(finer, 2)
