"""Ground-plane matching: the panorama's features laid out on the ground and correlated with the satellite image's.

A cell of the template that lies d metres from the camera at bearing b is seen in the panorama's column b, at a depression of
atan(camera height / d). Templates are north up and metric, so that a place fits where template and satellite agree.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from dataset.geometry import SATELLITE_PX, view_columns, wrap_degrees
from model.deterministic import sample
from model.matching import resize

STRIDES = {16: 32, 9: 16, 4: 8, 2: 4}  # of the backbones' features, by key; stride 2 reuses stride 4's map
FINEST = 2
SMALLEST_METRES_PER_PIXEL = 0.1  # at 640 px: latitude 48; further north or south the template's rim is cut off
_RADIAL_KNOTS = 16
_PACE = 10.0  # Adam moves each number by about the learning rate; these few must move further than a weight among thousands


class GroundPlaneResult(NamedTuple):
    """What matching on the ground gives.

    maps: {feature key: (B, 1, h, w)} how well the camera fits each place, in units of the network's logits ·
    heading_scores: (B, K, h, w) log-likelihoods at stride 4 for each heading hypothesis, None where the heading is known ·
    headings: (K,) degrees · templates: {feature key: (B, C, n, n)} of the first hypothesis, before weighing.
    """

    maps: dict
    heading_scores: torch.Tensor | None
    headings: torch.Tensor
    templates: dict

    def map_for(self, key, activation):
        """The map of a decoder stage at its activation's size; stage 0, at stride 2, reuses the finest."""
        return resize(self.maps[key or FINEST], activation.shape[-2:])


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

    feature: (B, C, h, w), spans `span` degrees about its centre and the whole height from zenith to nadir · bearing: (B, K, n, n)
    relative to the panorama's centre, within [-180, 180) · depression: (B, n, n), both in degrees · shift: pixels of the feature
    map by which its features lie further right and down than their index says. At 360 degrees columns wrap around the seam.
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


class GroundPlaneMatching(nn.Module):
    """Matching maps at strides 4 to 32 from ground-plane templates."""

    def __init__(self, feature_channels, settings):
        super().__init__()
        self.radius, self.camera_height = settings["matching_radius"], settings["camera_height"]
        self.satellite_size = settings["satellite_size"]
        start, stop = view_columns(settings["FoV"], settings["panorama_size"][1])
        self.span = 360 * (stop - start) / settings["panorama_size"][1]  # degrees that the panorama's view is wide
        self.temperature = settings["temperature"]
        channels = settings["matching_channels"]
        keys = [str(key) for key in STRIDES]
        self.adapt_panorama = nn.ModuleDict({key: nn.Conv2d(feature_channels[int(key)], channels, 1) for key in keys})
        self.adapt_satellite = nn.ModuleDict({key: nn.Conv2d(feature_channels[int(key)], channels, 1) for key in keys})
        self.radial_weight = nn.ParameterDict({key: nn.Parameter(torch.zeros(_RADIAL_KNOTS)) for key in keys})
        self.log_scale = nn.ParameterDict({key: nn.Parameter(torch.tensor(math.log(30.0) / _PACE)) for key in keys})
        headings = heading_hypotheses(settings["ori_noise"], settings["heading_bins"])
        self.register_buffer("headings", headings, persistent=False)
        self.shift = True

    def forward(self, panorama_features, satellite_features, metres_per_pixel):
        """Match {key: (B, C, ., .)} features of both views; metres_per_pixel: (B,), of the satellite image."""
        maps, templates, scores = {}, {}, {}
        for key, stride in STRIDES.items():
            scores[key], templates[key] = self._match(
                key, stride, panorama_features[key], satellite_features[key], metres_per_pixel
            )
            maps[key] = self.temperature * (torch.logsumexp(scores[key], 1, keepdim=True) - math.log(len(self.headings)))
        return GroundPlaneResult(maps, scores[FINEST] if len(self.headings) > 1 else None, self.headings, templates)

    def _match(self, key, stride, panorama, satellite, metres_per_pixel):
        panorama = F.normalize(self.adapt_panorama[str(key)](panorama), dim=1)
        satellite = F.normalize(self.adapt_satellite[str(key)](satellite), dim=1)
        smallest = SMALLEST_METRES_PER_PIXEL * SATELLITE_PX / self.satellite_size * stride
        reach = math.ceil(self.radius / smallest)
        shift = feature_shift(stride) if self.shift else 0.0
        distance, bearing, depression = template_cells(metres_per_pixel * stride, reach, self.camera_height, shift)
        bearing = wrap_degrees(bearing[:, None] - self.headings[:, None, None])  # (B, K, n, n)
        template = sample_panorama(panorama, bearing, depression, self.span, shift)
        weight = self._radial(key, distance) * (distance <= self.radius)
        weight = weight[:, None] * (bearing.abs() <= self.span / 2)  # (B, K, n, n)
        total = weight.sum((-2, -1), keepdim=True).clamp_min(1e-6)
        score = correlate(satellite, template * (weight / total)[:, None])
        return score * (_PACE * self.log_scale[str(key)]).exp(), template[:, :, 0]

    def _radial(self, key, distance):
        """The learned weight of cells by their distance, linear between knots."""
        knots = (_PACE * self.radial_weight[str(key)]).sigmoid()
        place = (distance / self.radius * (_RADIAL_KNOTS - 1)).clamp(0, _RADIAL_KNOTS - 1 - 1e-4)
        low = place.floor().long()
        return torch.lerp(knots[low], knots[low + 1], place - low)
