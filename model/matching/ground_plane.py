"""Ground-plane matching: the panorama's features laid out on the ground and correlated with the satellite image's.

A cell of the template that lies d metres from the camera at bearing b is seen at that bearing, at a depression of
atan(camera height / d); the camera tells where in its image that is. Templates are north up and metric, so that a place fits
where template and satellite agree. The camera is a panorama's or a photograph's; cells that it does not see take no part.
"""

import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn

from common import geometry
from common.camera import Equirectangular, Pinhole
from common.geometry import SATELLITE_PX, view_columns, wrap_degrees
from model.deterministic import sample
from model.matching.contract import Matched, resize
from model.matching.correlation import correlate

STRIDES = (32, 16, 8, 4)  # of the features that are matched; the decoder's stage of stride 2 reuses stride 4's map
FINEST = STRIDES[-1]
SEARCH_CELL_M = 2.2  # what a side of the cells should be near that whole cities are searched by
SMALLEST_METRES_PER_PIXEL = 0.1  # at 640 px: latitude 48; further north or south the template's rim is cut off
HEIGHT_STEP = 1.3  # at most, from one height tried to the next: half of it moves the ground at 10 m by 1.3 m
_USUAL_LATITUDE = 41.0  # where cells of a stride are compared with it
_RADIAL_KNOTS = 16
_PACE = 10.0  # Adam moves each number by about the learning rate; these few must move further than a weight among thousands


def feature_shift(stride):
    """Cells by which features of a stride lie further right and down than their index says, as SAME padding puts them."""
    return (stride - 1) / (2 * stride)


def heading_hypotheses(ori_noise, heading_bins):
    """Headings in degrees, 360 / heading_bins apart, that cover +- ori_noise; just 0 where the heading is known."""
    if ori_noise == 0:
        return torch.zeros(1)
    step = 360 / heading_bins
    reach = math.ceil(ori_noise / step)
    if 2 * reach + 1 >= heading_bins:
        return (torch.arange(heading_bins) - heading_bins // 2) * step
    return torch.arange(-reach, reach + 1) * step


def height_hypotheses(camera_height, height_factor):
    """Camera heights in metres, evenly apart in their logarithm, from camera_height / height_factor to camera_height *
    height_factor; just camera_height where the factor is 1.
    """
    many = math.ceil(math.log(height_factor) / math.log(HEIGHT_STEP))
    return torch.tensor([camera_height * height_factor ** (i / max(many, 1)) for i in range(-many, many + 1)])


def template_cells(metres_per_cell, reach, camera_height, shift=0.0):
    """Where the cells of north-up templates with the camera in their middle lie and are seen.

    metres_per_cell: (B,) · reach: cells from the middle to each side, n = 2 reach + 1 · shift: cells by which each cell lies
    further south and east. Returns distance (m), bearing and depression (degrees), each (B, n, n).
    """
    steps = torch.arange(-reach, reach + 1, device=metres_per_cell.device) + shift
    metres = steps * metres_per_cell[:, None]  # (B, n)
    south, east = metres[:, :, None], metres[:, None, :]
    distance = (south.square() + east.square()).sqrt()  # ONNX has no hypot
    bearing = torch.rad2deg(torch.atan2(east, -south))
    return distance, bearing, seen_below(distance, torch.full_like(distance, camera_height))


def seen_below(distance, camera_height):
    """Depressions in degrees at which cameras, that many metres above the street, see the ground at distances in metres."""
    return torch.rad2deg(torch.atan2(camera_height, distance))


def _log_mean(scores, axis):
    """The log-likelihood, over one axis of hypotheses that are alike likely; the axis is kept."""
    if scores.shape[axis] == 1:
        return scores
    return torch.logsumexp(scores, axis, keepdim=True) - math.log(scores.shape[axis])


def sample_view(feature, x, y, *, wraps=False, shift=0.0, top=0.0):
    """Features of an image where places in it are: (B, C, K, n, n).

    feature: (B, C, h, w), shows the whole image, `top` rows excepted that were cut off above it.
    x, y: (B, K, n, n), shares of the image's width and height, as a camera of `common.camera` gives them.
    wraps: whether the image is a whole panorama, whose columns wrap around the seam.
    shift: pixels of the feature map by which its features lie further right and down than their index says.
    """
    B, C, h, w = feature.shape
    K, n = x.shape[1], x.shape[-1]
    col = x * w - shift
    row = y * (h + top) - top - shift
    if wraps:
        feature = F.pad(feature, (1, 1, 0, 0), mode="circular")
        col, w = col + 1, w + 2
    grid = torch.stack((2 * col / w - 1, 2 * row / h - 1), -1).view(B, K * n, n, 2)
    return sample(feature, grid.to(feature.dtype)).view(B, C, K, n, n)


def _parameters(strides, start):
    """A parameter for each stride, in the order in which the optimizers of older runs count them."""
    ordered = [stride for stride in (32, 4, 8, 16, 2) if stride in strides]
    return nn.ParameterDict(OrderedDict((str(stride), nn.Parameter(start.clone())) for stride in ordered))


class GroundPlaneMatching(nn.Module):
    """Matching maps from ground-plane templates. It needs no activations: `stage_channels` go unused.

    feature_channels: {stride: channels} of both views' features.
    settings: the network's `ModelSettings`.
    strides: of the features that are matched, the finest among them `FINEST`.
    groups: of channels, whose shares of a map are given too; must divide matching_channels.
    radii: {stride: metres} of ground around the camera, for those strides that have less than the settings' matching_radius.
    channels: {stride: channels} that are correlated, for those strides that have others than the settings' matching_channels.
    shift: which way features lie from where their index says, in units of `feature_shift`: 1 as SAME padding puts them, -1 as
    convolutions do that pad evenly.
    """

    has_templates = True

    def __init__(
        self, feature_channels, stage_channels, settings, *, strides=STRIDES, groups=1, shift=1, radii=None, channels=None
    ):
        super().__init__()
        self.strides, self.groups, self.shift = strides, groups, shift
        self.radii = {stride: min(settings.matching_radius, (radii or {}).get(stride, math.inf)) for stride in strides}
        self.camera_height = settings.camera_height
        self.satellite_size = settings.satellite_size
        start, stop = view_columns(settings.FoV, settings.panorama_size[1])
        self.panorama = Equirectangular(360 * (stop - start) / settings.panorama_size[1])
        self.temperature = settings.temperature
        self.channels = {stride: (channels or {}).get(stride, settings.matching_channels) for stride in strides}
        self.adapt_panorama = nn.ModuleDict({str(s): nn.Conv2d(feature_channels[s], self.channels[s], 1) for s in strides})
        self.adapt_satellite = nn.ModuleDict({str(s): nn.Conv2d(feature_channels[s], self.channels[s], 1) for s in strides})
        self.radial_weight = _parameters(strides, torch.zeros(_RADIAL_KNOTS))
        self.log_scale = _parameters(strides, torch.tensor(math.log(30.0) / _PACE))
        headings = heading_hypotheses(settings.ori_noise, settings.heading_bins)
        self.register_buffer("headings", headings, persistent=False)
        heights = height_hypotheses(settings.camera_height, settings.height_factor)
        self.register_buffer("heights", heights, persistent=False)

    @property
    def search_stride(self):
        """The stride that whole cities are searched by: its cells are nearest to `SEARCH_CELL_M`."""
        pixel = geometry.metres_per_pixel(_USUAL_LATITUDE, self.satellite_size)
        return min(self.strides, key=lambda stride: abs(math.log(stride * pixel / SEARCH_CELL_M)))

    @property
    def template_headings(self):
        """Degrees, (K,): of each template its heading; there is one for each height and heading, heights outermost."""
        return self.headings.repeat(len(self.heights))

    @property
    def shown(self):
        """Which template stands for all in pictures: of the first heading, a camera as high as the settings say."""
        return len(self.heights) // 2 * len(self.headings)

    def forward(self, panorama_features, satellite_features, metres_per_pixel, top=0, camera=None):
        """`Matched` of {stride: (B, C, h, w)} features.

        metres_per_pixel: (B,), of the satellite image · top: pixels that were cut off the panorama above what its features show ·
        camera: (B, 12), of photographs; headings are then relative to theirs.
        Raises ValueError without a resolution.
        """
        if metres_per_pixel is None:
            raise ValueError("metres_per_pixel: none given, but ground-plane matching lays its templates out in metres")
        panorama, satellite = self.adapt("panorama", panorama_features), self.adapt("satellite", satellite_features)
        maps, templates, scores, shares = {}, {}, {}, {}
        for stride in self.strides:
            template, weight = self._template(stride, panorama[stride], metres_per_pixel, top, camera)
            each = self._scores(stride, satellite[stride], template * weight)  # (B, G, K, h, w)
            scores[stride], templates[stride] = each.sum(1), template[:, :, self.shown]
            maps[stride] = self.temperature * _log_mean(scores[stride], 1)
            if self.groups > 1:
                shares[stride] = self.temperature * (each * scores[stride].softmax(1)[:, None]).sum(2)
        of_finest = scores[FINEST].unflatten(1, (len(self.heights), -1))  # (B, heights, headings, h, w)
        heading_scores = _log_mean(of_finest, 1)[:, 0] if len(self.headings) > 1 else None
        height_scores = _log_mean(of_finest, 2)[:, :, 0] if len(self.heights) > 1 else None
        return Matched(
            lambda stride, x: resize(maps[max(stride, FINEST)], x.shape[-2:]),
            finest=maps[FINEST],
            maps=maps,
            heading_scores=heading_scores,
            headings=self.headings,
            height_scores=height_scores,
            heights=self.heights,
            templates=templates,
            shares=shares or None,
        )

    def adapt(self, view, features):
        """What is compared, {stride: (B, channels, h, w)} of unit length, of a view's features: 'panorama' or 'satellite'."""
        adapt = self.adapt_panorama if view == "panorama" else self.adapt_satellite
        return {stride: F.normalize(adapt[str(stride)](features[stride]), dim=1) for stride in self.strides}

    def cells(self, stride, metres_per_pixel):
        """Where a template's cells lie and are seen, as `template_cells` says, and their shift from whole cells of the stride.

        metres_per_pixel: (B,), of the satellite image. Returns ((distance, bearing, depression), shift).
        """
        smallest = SMALLEST_METRES_PER_PIXEL * SATELLITE_PX / self.satellite_size * stride
        shift = self.shift * feature_shift(stride)
        reach = math.ceil(self.radii[stride] / smallest)
        return template_cells(metres_per_pixel * stride, reach, self.camera_height, shift), shift

    def template(self, stride, panorama, metres_per_pixel, top=0, camera=None):
        """Templates (B, C, K, n, n) of all heights and headings; correlated with the satellite's adapted features they score.

        panorama: (B, C, h, w), adapted features of a stride · metres_per_pixel, top, camera: as of `forward`.
        """
        template, weight = self._template(stride, panorama, metres_per_pixel, top, camera)
        return template * (weight * self._scale(stride))

    def _template(self, stride, panorama, metres_per_pixel, top, camera):
        """Templates of all heights and headings, (B, C, K, n, n), and their cells' weights, (B, 1, K, n, n), which sum to 1."""
        (distance, bearing, _), shift = self.cells(stride, metres_per_pixel)
        heading, camera = (0.0, self.panorama) if camera is None else (camera[:, 0, None, None, None], Pinhole(camera))
        bearing = wrap_degrees(bearing[:, None] - heading - self.headings[:, None, None])  # (B, headings, n, n)
        depression = seen_below(distance[:, None], self.heights[:, None, None])  # (B, heights, n, n)
        seen_at = camera.project(bearing[:, None], depression[:, :, None])
        x, y, seen = (part.flatten(1, 2) for part in seen_at)  # (B, K, n, n)
        template = sample_view(panorama, x, y, wraps=camera.wraps, shift=shift, top=top / stride)
        weight = self._radial(stride, distance) * (distance <= self.radii[stride])
        weight = weight[:, None] * seen  # (B, K, n, n)
        return template, (weight / weight.sum((-2, -1), keepdim=True).clamp_min(1e-6))[:, None]

    def _scores(self, stride, satellite, template):
        """What each group of channels adds to the score of each template at each place: (B, G, K, h, w)."""
        satellite, template = (x.unflatten(1, (self.groups, -1)).flatten(0, 1) for x in (satellite, template))
        scores = correlate(satellite, template).unflatten(0, (-1, self.groups))
        return scores * self._scale(stride)

    def _scale(self, stride):
        return (_PACE * self.log_scale[str(stride)]).exp()

    def _radial(self, stride, distance):
        """The learned weight of cells by their distance, linear between knots."""
        knots = (_PACE * self.radial_weight[str(stride)]).sigmoid()
        place = (distance / self.radii[stride] * (_RADIAL_KNOTS - 1)).clamp_max(_RADIAL_KNOTS - 1 - 1e-4)
        low = place.floor().long()
        return torch.lerp(knots[low], knots[low + 1], place - low)
