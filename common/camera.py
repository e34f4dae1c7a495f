"""Cameras: which way a pixel looks, and where a direction is seen.

A direction is a bearing (degrees clockwise) and a depression (degrees below the horizon). A place in an image
is (x, y), shares of its width and height from the upper left corner, so that it does not depend on the
image's size. A `Camera` is a batch of cameras of one kind, `Panorama` or `Pinhole`; it moves between devices,
collates and is indexed like a tensor. Its `heading` (B,) is the bearing of the image's centre in degrees as
far as it is known; bearings handed to `project` and given by `rays` are relative to it.
"""

import math

import torch
import torch.nn.functional as F

from common.errors import UserError
from common.geometry import wrap_degrees

WIDEST_DEG = 150.0  # of a pinhole camera's view; wider lenses are no pinholes
FULL_FRAME_MM = (36.0, 24.0)  # of the film to which equivalent focal lengths refer
WHOLE_DEG = (90.0, 90.0)  # what a whole panorama shows above and below the horizon
_STEEPEST = 6.0  # tangent of the largest angle from the axis at which lens distortion is examined: 80 degrees
_UNDISTORT_STEPS = 30
_ROUNDING_DEG = 1e-3


class Camera:
    """A batch of cameras. Subclasses say how directions and places in the image belong together."""

    kind = ""  # as flags and reports name it
    wraps = False  # whether the image's left and right edges are neighbours

    @staticmethod
    def stack(cameras):
        """One batch of single cameras of one kind. Raises ValueError for cameras that do not fit together."""
        first = cameras[0]
        if any(type(one) is not type(first) or one.extent != first.extent for one in cameras):
            raise ValueError("a batch of cameras: expected cameras of one kind and extent")
        return first.like(torch.stack([one.values for one in cameras]))

    def __init__(self, values):
        self.values = values  # (..., numbers of a camera)

    def __len__(self):
        return len(self.values)

    def __getitem__(self, key):
        return self.like(self.values[key])

    def to(self, device, non_blocking=False):
        """The same cameras on a device."""
        return self.like(self.values.to(device, non_blocking=non_blocking))

    def pin_memory(self):
        """The same cameras in pinned memory; data loaders call it."""
        return self.like(self.values.pin_memory())

    def like(self, values):
        """Cameras of the same kind and extent with other numbers."""
        return type(self)(values, *self.extent)

    @property
    def extent(self):
        """What all cameras of a batch have in common, as a tuple."""
        return ()

    def turned(self, degrees):
        """The cameras in a world that is turned clockwise by degrees, a number or (B,)."""
        return self.replace(heading=wrap_degrees(self.heading + torch.as_tensor(degrees).to(self.heading)))

    def _like(self, name, x):
        """A number of each camera, shaped to broadcast against (B, ...)."""
        return getattr(self, name).view(-1, *[1] * (x.dim() - 1))


class Panorama(Camera):
    """Cameras of equirectangular panoramas, whose values (B, 1) are their headings.

    An image shows `span` degrees from its left edge to its right one, and `top` and `bottom` degrees above
    and below the horizon.
    """

    kind = "panorama"

    def __init__(self, values, span=360.0, top=WHOLE_DEG[0], bottom=WHOLE_DEG[1]):
        super().__init__(values)
        self.span, self.top, self.bottom = span, top, bottom

    @property
    def heading(self):
        """Bearings of the centre columns, degrees, (B,)."""
        return self.values[..., 0]

    @property
    def extent(self):
        """(span, top, bottom)."""
        return self.span, self.top, self.bottom

    @property
    def wraps(self):
        """Whether the image's left and right edges are neighbours."""
        return self.span == 360

    @property
    def hfov(self):
        """Degrees from edge to edge, (B,)."""
        return torch.full_like(self.heading, self.span)

    @property
    def vfov(self):
        """Degrees from the upper edge to the lower one, (B,)."""
        return torch.full_like(self.heading, self.top + self.bottom)

    def replace(self, heading):
        """The same cameras with other headings (B,)."""
        return self.like(heading[..., None])

    def project(self, bearing, depression):
        """Where directions are seen: (x, y, whether they are seen), each of their common shape."""
        height = self.top + self.bottom
        x, y = torch.broadcast_tensors(bearing / self.span + 0.5, depression / height + self.top / height)
        within = (depression <= self.bottom + _ROUNDING_DEG) & (depression >= -self.top - _ROUNDING_DEG)
        return x, y, ((bearing.abs() <= self.span / 2) & within).expand_as(x)

    def rays(self, x, y, undistort_steps=None):
        """The directions (bearing, depression) in degrees in which places of the image look."""
        return (x - 0.5) * self.span, y * (self.top + self.bottom) - self.top

    def mirrored(self):
        """The cameras in a world that is mirrored east to west, whose images are mirrored left to right."""
        return self.replace(wrap_degrees(-self.heading))

    def rows_above(self, elevation, height):
        """How many of an image's `height` rows lie above an elevation in degrees, a fraction."""
        return height * max(0.0, (self.top - elevation) / (self.top + self.bottom))


def panorama(heading=0.0, **extent):
    """The camera of one panorama, unbatched. extent: span, top and bottom as in `Panorama`."""
    return Panorama(torch.tensor([float(heading)]), **extent)


class Pinhole(Camera):
    """Cameras of photographs, with OpenCV's five numbers of lens distortion.

    values (B, 12), in the order of `NAMES`:
    heading, pitch, roll: degrees. Bearing of the optical axis; how far the camera looks up; how far it is
    turned clockwise, seen from behind it, so that the horizon falls to the left of the image.
    fx, fy, cx, cy: focal lengths and principal point, in widths and heights of the image.
    k1, k2, p1, p2, k3: distortion, as OpenCV names and orders it.
    """

    kind = "photo"
    DISTORTION = ("k1", "k2", "p1", "p2", "k3")
    NAMES = ("heading", "pitch", "roll", "fx", "fy", "cx", "cy", *DISTORTION)

    @classmethod
    def of(cls, **numbers):
        """Cameras from all their numbers, tensors of one shape."""
        return cls(torch.stack([numbers[name] for name in cls.NAMES], -1))

    def __getattr__(self, name):
        if name not in Pinhole.NAMES:
            raise AttributeError(name)
        return self.values[..., Pinhole.NAMES.index(name)]

    def replace(self, **numbers):
        """The same cameras with some other numbers, by name."""
        return self.of(**{name: getattr(self, name) for name in self.NAMES} | numbers)

    @property
    def hfov(self):
        """Degrees from the image's left edge to its right edge, (B,), without distortion."""
        return _opening(self.cx, self.fx)

    @property
    def vfov(self):
        """Degrees from the image's upper edge to its lower edge, (B,), without distortion."""
        return _opening(self.cy, self.fy)

    def project(self, bearing, depression):
        """Where directions (B, ...) are seen: (x, y, whether they are seen).

        A direction beside the image or behind the camera is not seen, nor is one beyond the angle at which
        the distortion model folds back.
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
        reach = self._reach().view(-1, *[1] * (u.dim() - 1))
        seen = front & (u.square() + v.square() < reach.square())  # ONNX has no hypot
        u, v = self._distort(u, v)
        x = self._like("fx", u) * u + self._like("cx", u)
        y = self._like("fy", v) * v + self._like("cy", v)
        return x, y, seen & (x >= 0) & (x <= 1) & (y >= 0) & (y <= 1)

    def rays(self, x, y, undistort_steps=None):
        """The directions (bearing, depression) in degrees in which places (B, ...) of the image look.

        undistort_steps: iterations that invert the distortion; None: as many as the lenses need.
        """
        u = (x - self._like("cx", x)) / self._like("fx", x)
        v = (y - self._like("cy", y)) / self._like("fy", y)
        start_u, start_v = u, v
        if undistort_steps is None:
            bent = torch.stack([getattr(self, name) for name in self.DISTORTION])
            undistort_steps = _UNDISTORT_STEPS if bent.any() else 0  # makes a GPU wait
        for _ in range(undistort_steps):  # as OpenCV undistorts
            bent_u, bent_v = self._distort(u, v)
            u, v = start_u - (bent_u - u), start_v - (bent_v - v)
        pitch, roll = (torch.deg2rad(self._like(name, u)) for name in ("pitch", "roll"))
        right, down = u * roll.cos() - v * roll.sin(), v * roll.cos() + u * roll.sin()
        ahead, down = pitch.cos() + down * pitch.sin(), down * pitch.cos() - pitch.sin()
        level = (right.square() + ahead.square()).sqrt()  # ONNX has no hypot
        bearing, depression = torch.atan2(right, ahead), torch.atan2(down, level)
        return torch.rad2deg(bearing), torch.rad2deg(depression)

    def mirrored(self):
        """The cameras in a world that is mirrored east to west, whose images are mirrored left to right."""
        return self.replace(heading=wrap_degrees(-self.heading), roll=-self.roll, cx=1 - self.cx, p2=-self.p2)

    def _distort(self, u, v):
        k1, k2, p1, p2, k3 = (self._like(name, u) for name in self.DISTORTION)
        square = u.square() + v.square()
        radial = 1 + square * (k1 + square * (k2 + square * k3))
        bent_u = u * radial + 2 * p1 * u * v + p2 * (square + 2 * u.square())
        return bent_u, v * radial + p1 * (square + 2 * v.square()) + 2 * p2 * u * v

    def _reach(self):
        """(B,) tangents of the angles from the axis within which a ray further out is seen further out."""
        r = torch.linspace(0, _STEEPEST, 601, device=self.values.device)
        k1, k2, k3 = (getattr(self, name)[:, None] for name in ("k1", "k2", "k3"))
        grows = 1 + r.square() * (3 * k1 + r.square() * (5 * k2 + r.square() * 7 * k3)) > 0
        return torch.where(grows, torch.inf, r).amin(1)


def pinhole(
    width, height, *, hfov=None, fx=None, fy=None, cx=None, cy=None, heading=0, pitch=0, roll=0, distortion=()
):
    """The camera of one photograph, unbatched, whose image has a width and a height in pixels.

    hfov: degrees from the image's left edge to its right one; or fx, fy, cx and cy in pixels. Without fy,
    pixels are square; without cx and cy, the principal point is the image's middle.
    distortion: up to OpenCV's five numbers. Raises UserError.
    """
    if (hfov is None) == (fx is None):
        raise UserError("a camera: give either its horizontal field of view or its focal length")
    if hfov is not None:
        if not 0 < hfov <= WIDEST_DEG:
            raise UserError(f"hfov {hfov:g}: a photograph is above 0 and up to {WIDEST_DEG:g} degrees wide")
        fx = width / (2 * math.tan(math.radians(hfov) / 2))
    if fx <= 0 or (fy is not None and fy <= 0):
        raise UserError(f"focal length {fx if fx <= 0 else fy:g} px: expected more than 0")
    if len(distortion) > 5:
        raise UserError(f"distortion: {len(distortion)} numbers; expected up to five, k1 k2 p1 p2 k3")
    x, y = width / 2 if cx is None else cx, height / 2 if cy is None else cy
    lens = [fx / width, (fx if fy is None else fy) / height, x / width, y / height]
    bent = [*distortion, *[0.0] * (5 - len(distortion))]
    camera = Pinhole(torch.tensor([wrap_degrees(heading), pitch, roll, *lens, *bent], dtype=torch.float32))
    if not camera.values.isfinite().all():
        numbers = dict(zip(camera.NAMES, camera.values.tolist(), strict=True))
        name = next(name for name, number in numbers.items() if not math.isfinite(number))
        raise UserError(f"a camera: {name} {numbers[name]:g}: expected a number")
    if not 0 < float(camera.hfov) <= WIDEST_DEG + _ROUNDING_DEG:
        says = f"a photograph is above 0 and up to {WIDEST_DEG:g} degrees wide"
        raise UserError(f"focal length {fx:g} px: it would be {float(camera.hfov):.4g} degrees wide; {says}")
    return camera


def _opening(middle, focal):
    """Degrees between the edges of an image along an axis."""
    return torch.rad2deg(torch.atan(middle / focal) + torch.atan((1 - middle) / focal))


def hfov_of_35mm(focal_mm, width, height):
    """The horizontal field of view in degrees of an image with a 35 mm equivalent focal length.

    Phones define the equivalent by the image's diagonal; for an upright photograph the film is turned.
    """
    side = math.hypot(*FULL_FRAME_MM) * width / math.hypot(width, height)
    return math.degrees(2 * math.atan(side / (2 * focal_mm)))


def cut_photographs(image, camera, size, undistort_steps=None):
    """Photographs (B, 3, h, w), float, cut out of whole panoramas (B, 3, H, W) by gnomonic projection.

    camera: a `Pinhole` batch whose headings are relative to the panoramas' centres.
    size: (h, w). Each pixel is the mean of four rays.
    undistort_steps: as in `Pinhole.rays`.
    """
    B, _, H, W = image.shape
    height, width = (2 * side for side in size)
    y = (torch.arange(height, device=image.device) + 0.5) / height
    x = (torch.arange(width, device=image.device) + 0.5) / width
    y, x = (at.expand(B, height, width) for at in torch.meshgrid(y, x, indexing="ij"))
    bearing, depression = camera.rays(x, y, undistort_steps)
    bearing = wrap_degrees(bearing + camera.heading[:, None, None])
    # One more column on each side, so that the seam lies between neighbours.
    col, row = (bearing / 360 + 0.5) * W + 1, (depression / 180 + 0.5) * H
    around = F.pad(image.float(), (1, 1, 0, 0), mode="circular")
    grid = torch.stack((2 * col / (W + 2) - 1, 2 * row / H - 1), -1)
    finer = F.grid_sample(around, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return F.avg_pool2d(finer, 2)
