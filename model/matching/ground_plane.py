"""Ground-plane matching: the panorama's features laid out on the ground and correlated with the satellite image's.

A cell of the template that lies d metres from the camera at bearing b is seen in the panorama's column b, at a depression of
atan(camera height / d). Templates are north up and metric, so that a place fits where template and satellite agree.
"""

import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn

from common.geometry import SATELLITE_PX, view_columns, wrap_degrees
from model.deterministic import sample
from model.matching.contract import Matched, resize

STRIDES = (32, 16, 8, 4)  # of the features that are matched; the decoder's stage of stride 2 reuses stride 4's map
FINEST = STRIDES[-1]
SMALLEST_METRES_PER_PIXEL = 0.1  # at 640 px: latitude 48; further north or south the template's rim is cut off
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


def template_cells(metres_per_cell, reach, camera_height, shift=0.0):
    """Where the cells of north-up templates with the camera in their middle lie and are seen.

    metres_per_cell: (B,) · reach: cells from the middle to each side, n = 2 reach + 1 · shift: cells by which each cell lies
    further south and east. Returns distance (m), bearing and depression (degrees), each (B, n, n).
    """
    steps = torch.arange(-reach, reach + 1, device=metres_per_cell.device) + shift
    metres = steps * metres_per_cell[:, None]  # (B, n)
    south, east = metres[:, :, None], metres[:, None, :]
    distance = torch.hypot(south, east.expand(-1, len(steps), -1))
    bearing = torch.rad2deg(torch.atan2(east, -south))
    depression = torch.rad2deg(torch.atan2(torch.full_like(distance, camera_height), distance))
    return distance, bearing, depression


def sample_panorama(feature, bearing, depression, span, shift=0.0):
    """Features of a panorama where bearings are seen: (B, C, K, n, n).

    feature: (B, C, h, w), spans `span` degrees about its centre and the whole height from zenith to nadir.
    bearing: (B, K, n, n), degrees relative to the panorama's centre, within [-180, 180).
    depression: (B, n, n), degrees.
    shift: pixels of the feature map by which its features lie further right and down than their index says.

    At 360 degrees columns wrap around the seam.
    """
    B, C, h, w = feature.shape
    K, n = bearing.shape[1], bearing.shape[-1]
    col = (bearing / span + 0.5) * w - shift
    row = ((depression / 180 + 0.5) * h - shift)[:, None].expand_as(col)
    if span == 360:
        feature = F.pad(feature, (1, 1, 0, 0), mode="circular")
        col, w = col + 1, w + 2
    grid = torch.stack((2 * col / w - 1, 2 * row / h - 1), -1).view(B, K * n, n, 2)
    return sample(feature, grid.to(feature.dtype)).view(B, C, K, n, n)


def correlate(satellite, template):
    """Cross-correlation summed over channels: (B, K, H, W), the template's middle on each pixel, zeros beyond the image.

    satellite: (B, C, H, W) · template: (B, C, K, n, n), n odd.
    """
    B, C, H, W = satellite.shape
    K, n = template.shape[2], template.shape[-1]
    if n * n * K > 10_000 or (K == 1 and n > 7):
        size = _fast_length(H + n - 1), _fast_length(W + n - 1)
        spectrum = torch.einsum(
            "bcyx,bckyx->bkyx", torch.fft.rfft2(satellite.float(), s=size), torch.fft.rfft2(template.float(), s=size).conj()
        )
        # The middle of the template, not its corner, belongs on the pixel.
        return torch.fft.irfft2(spectrum, s=size).roll((n // 2, n // 2), (-2, -1))[..., :H, :W]
    kernel = template.transpose(1, 2).reshape(B * K, C, n, n)
    return F.conv2d(satellite.reshape(1, B * C, H, W), kernel, padding=n // 2, groups=B).view(B, K, H, W)


def _fast_length(length):
    """The next length that has no prime factor above 5."""
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 1


def _parameters(start):
    """A parameter for each stride, in the order in which the optimizers of older runs count them."""
    return nn.ParameterDict(OrderedDict((str(stride), nn.Parameter(start.clone())) for stride in (32, 4, 8, 16)))


class GroundPlaneMatching(nn.Module):
    """Matching maps at strides 4 to 32 from ground-plane templates. It needs no activations: `stage_channels` go unused."""

    has_templates = True

    def __init__(self, feature_channels, stage_channels, settings):
        super().__init__()
        self.radius, self.camera_height = settings.matching_radius, settings.camera_height
        self.satellite_size = settings.satellite_size
        start, stop = view_columns(settings.FoV, settings.panorama_size[1])
        self.span = 360 * (stop - start) / settings.panorama_size[1]  # degrees that the panorama's view is wide
        self.temperature = settings.temperature
        channels = settings.matching_channels
        self.adapt_panorama = nn.ModuleDict({str(s): nn.Conv2d(feature_channels[s], channels, 1) for s in STRIDES})
        self.adapt_satellite = nn.ModuleDict({str(s): nn.Conv2d(feature_channels[s], channels, 1) for s in STRIDES})
        self.radial_weight = _parameters(torch.zeros(_RADIAL_KNOTS))
        self.log_scale = _parameters(torch.tensor(math.log(30.0) / _PACE))
        headings = heading_hypotheses(settings.ori_noise, settings.heading_bins)
        self.register_buffer("headings", headings, persistent=False)
        self.shift = True

    def forward(self, panorama_features, satellite_features, metres_per_pixel):
        """`Matched` of {stride: (B, C, h, w)} features; metres_per_pixel: (B,), of the satellite image.

        Raises ValueError without it.
        """
        if metres_per_pixel is None:
            raise ValueError("metres_per_pixel: none given, but ground-plane matching lays its templates out in metres")
        maps, templates, scores = {}, {}, {}
        for stride in STRIDES:
            views = panorama_features[stride], satellite_features[stride]
            scores[stride], templates[stride] = self._match(stride, *views, metres_per_pixel)
            maps[stride] = self.temperature * (torch.logsumexp(scores[stride], 1, keepdim=True) - math.log(len(self.headings)))
        heading_scores = scores[FINEST] if len(self.headings) > 1 else None
        known = maps[FINEST], maps, heading_scores, self.headings, templates
        return Matched(lambda stride, x: resize(maps[max(stride, FINEST)], x.shape[-2:]), *known)

    def cells(self, stride, metres_per_pixel):
        """Where a template's cells lie and are seen, as `template_cells` says, and their shift from whole cells of the stride.

        metres_per_pixel: (B,), of the satellite image. Returns ((distance, bearing, depression), shift).
        """
        smallest = SMALLEST_METRES_PER_PIXEL * SATELLITE_PX / self.satellite_size * stride
        shift = feature_shift(stride) if self.shift else 0.0
        reach = math.ceil(self.radius / smallest)
        return template_cells(metres_per_pixel * stride, reach, self.camera_height, shift), shift

    def _match(self, stride, panorama, satellite, metres_per_pixel):
        name = str(stride)
        panorama = F.normalize(self.adapt_panorama[name](panorama), dim=1)
        satellite = F.normalize(self.adapt_satellite[name](satellite), dim=1)
        (distance, bearing, depression), shift = self.cells(stride, metres_per_pixel)
        bearing = wrap_degrees(bearing[:, None] - self.headings[:, None, None])  # (B, K, n, n)
        template = sample_panorama(panorama, bearing, depression, self.span, shift)
        weight = self._radial(name, distance) * (distance <= self.radius)
        weight = weight[:, None] * (bearing.abs() <= self.span / 2)  # (B, K, n, n)
        total = weight.sum((-2, -1), keepdim=True).clamp_min(1e-6)
        score = correlate(satellite, template * (weight / total)[:, None])
        return score * (_PACE * self.log_scale[name]).exp(), template[:, :, 0]

    def _radial(self, name, distance):
        """The learned weight of cells by their distance, linear between knots."""
        knots = (_PACE * self.radial_weight[name]).sigmoid()
        place = (distance / self.radius * (_RADIAL_KNOTS - 1)).clamp(0, _RADIAL_KNOTS - 1 - 1e-4)
        low = place.floor().long()
        return torch.lerp(knots[low], knots[low + 1], place - low)
