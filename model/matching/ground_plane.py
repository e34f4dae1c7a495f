"""Ground-plane matching: the query's features, projected onto the ground and correlated with the satellite's.

A template's cell d metres from the camera at bearing b is seen at that bearing and at a depression of
atan(camera height / d), which the camera projects into its image. Templates are north up and in metres; they
fit best at the camera's place. Cells that the camera does not see have no weight.
"""

import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn

from common import geometry
from common.geometry import SATELLITE_PX, wrap_degrees
from model.deterministic import sample
from model.interface import Prediction, resize
from model.matching.correlation import correlate
from model.matching.hypotheses import (
    Hypotheses,
    agreement_of,
    heading_hypotheses,
    height_hypotheses,
    log_mean,
)

STRIDES = (32, 16, 8, 4)  # of matched features; the decoder's stage of stride 2 reuses stride 4's map
FINEST = STRIDES[-1]
SEARCH_CELL_M = 2.2  # whole cities are searched at the stride whose cells are nearest to this size
SMALLEST_METRES_PER_PIXEL = 0.1  # at 640 px: latitude 48; nearer to the poles the template's rim is cut off
_USUAL_LATITUDE = 41.0  # at which cell sizes of the strides are compared
_RADIAL_KNOTS = 16
_PACE = 10.0  # Adam changes every number by about the learning rate; these few need larger steps


def feature_shift(stride):
    """Cells by which SAME padding shifts features of a stride to the right and down."""
    return (stride - 1) / (2 * stride)


def template_cells(metres_per_cell, reach, shift=0.0):
    """Distances (m) and bearings (degrees), (B, n, n), of cells of north-up templates around the camera.

    metres_per_cell is (B,); `reach` counts the cells from the middle to each side, n = 2 reach + 1; each cell
    lies `shift` cells further south and east.
    """
    steps = torch.arange(-reach, reach + 1, device=metres_per_cell.device) + shift
    metres = steps * metres_per_cell[:, None]  # (B, n)
    north, east = (
        0.0 - metres[:, :, None],
        metres[:, None, :],
    )  # not -0: ONNX takes its atan2 for the opposite
    distance = (north.square() + east.square()).sqrt()  # ONNX has no hypot
    return distance, torch.rad2deg(torch.atan2(east, north))


def seen_below(distance, camera_height):
    """Depressions in degrees at which cameras at heights in metres see the ground at distances in metres."""
    return torch.rad2deg(torch.atan2(camera_height, distance))


def sample_view(feature, x, y, size, *, wraps=False, shift=0.0, top=0.0):
    """Features (B, C, K, n, n) of an image at places in it.

    feature: (B, C, h, w), of the image without its upper `top` rows, in pixels of the feature map.
    x, y: (B, K, n, n), shares of the image's width and height, as a camera gives them.
    size: (height, width) of the whole image in pixels of the feature map, perhaps fractions.
    wraps: whether the image's columns wrap around the seam.
    shift: pixels of the feature map by which features are shifted to the right and down.
    """
    B, C, h, w = feature.shape
    K, n = x.shape[1], x.shape[-1]
    col = x * size[1] - shift
    row = y * size[0] - top - shift
    if wraps:
        feature = F.pad(feature, (1, 1, 0, 0), mode="circular")
        col, w = col + 1, w + 2
    grid = torch.stack((2 * col / w - 1, 2 * row / h - 1), -1).view(B, K * n, n, 2)
    return sample(feature, grid.to(feature.dtype)).view(B, C, K, n, n)


def _parameters(strides, start):
    """A parameter for each stride."""
    ordered = [stride for stride in (32, 4, 8, 16, 2) if stride in strides]
    return nn.ParameterDict(OrderedDict((str(stride), nn.Parameter(start.clone())) for stride in ordered))


class GroundPlaneMatching(nn.Module):
    """Matching maps from ground-plane templates.

    feature_channels: {stride: channels} of both views' features.
    settings: the network's `NetworkSettings`.
    shift: of the features, as in a backbone.
    strides: of the matched features, `FINEST` among them.
    groups: of channels, whose scores are returned too; must divide the channels.
    radii: {stride: metres} of ground around the camera, if less than the settings' matching_radius.
    channels: {stride: correlated channels}, if not the settings' matching_channels.
    """

    has_templates = True

    def __init__(
        self, feature_channels, settings, shift, *, strides=STRIDES, groups=1, radii=None, channels=None
    ):
        super().__init__()
        self.strides, self.groups, self.shift, self.settings = strides, groups, shift, settings
        radii, channels = radii or {}, channels or {}
        self.radii = {s: min(settings.matching_radius, radii.get(s, math.inf)) for s in strides}
        self.channels = {s: channels.get(s, settings.matching_channels) for s in strides}
        for view in ("panorama", "satellite"):
            adapt = {str(s): nn.Conv2d(feature_channels[s], self.channels[s], 1) for s in strides}
            setattr(self, f"adapt_{view}", nn.ModuleDict(adapt))
        # Objects above the ground also identify a place. Both parts start without an effect.
        self.raised = self._zero_maps(lambda s: self.channels[s] * len(settings.planes))
        self.confidence = self._zero_maps(lambda s: int(settings.cell_confidence))
        self.radial_weight = _parameters(strides, torch.zeros(_RADIAL_KNOTS))
        self.log_scale = _parameters(strides, torch.tensor(math.log(30.0) / _PACE))

    def _zero_maps(self, outputs):
        """For each stride a linear map, zero at first, to `outputs` of the stride; none where that is 0."""
        maps = {str(s): nn.Conv2d(self.channels[s], outputs(s), 1) for s in self.strides if outputs(s)}
        for layer in maps.values():
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        return nn.ModuleDict(maps)

    @property
    def search_stride(self):
        """The stride at which whole cities are searched: its cells are nearest to `SEARCH_CELL_M`."""
        pixel = geometry.metres_per_pixel(_USUAL_LATITUDE, self.settings.satellite_size)
        return min(self.strides, key=lambda stride: abs(math.log(stride * pixel / SEARCH_CELL_M)))

    def hypotheses(self, heading_noise=0.0, camera_height=None, usual_height=False):
        """The `Hypotheses` for a heading within +- heading_noise degrees of the prior and a height in metres.

        usual_height: as in `height_hypotheses`.
        """
        settings, device = self.settings, self.log_scale[str(FINEST)].device
        headings = heading_hypotheses(heading_noise, settings.heading_bins)
        heights, prior = height_hypotheses(settings, camera_height, usual_height)
        return Hypotheses(headings.to(device), heights.to(device), prior.to(device))

    def forward(self, query_features, satellite_features, metres_per_pixel, camera, hypotheses, size, top=0):
        """A `Prediction` of {stride: (P, C, h, w)} features.

        Its maps are of each stride alone. Its logits (P, 1, h, w), on the grid of the finest stride, are to
        be added to the sum of the maps: above 0 where the strides fit with the same heading, below 0 where
        they fit with different ones. Scores of headings are of all strides, those of heights of the finest.

        metres_per_pixel: (P,), of the satellite images.
        camera: the P query images' cameras.
        size: (height, width) in pixels of the whole query images; the features lack their `top` rows.

        Raises ValueError without a resolution.
        """
        if metres_per_pixel is None:
            raise ValueError("metres_per_pixel: none given, but templates are laid out in metres")
        query, satellite = self.adapt("panorama", query_features), self.adapt("satellite", satellite_features)
        headings, heights, _ = hypotheses
        # The maps of all strides are added up to one log-likelihood, which has the prior once.
        prior = hypotheses.template_prior[None, :, None, None] / len(self.strides)
        of_groups, scores, templates, temperature = {}, {}, {}, self.settings.temperature
        for stride in self.strides:
            place = metres_per_pixel, camera, hypotheses, size, top
            template, weight = self._template(stride, query[stride], *place)
            of_groups[stride] = self._scores(stride, satellite[stride], template * weight)  # (P, G, HK, h, w)
            scores[stride] = (of_groups[stride].sum(1) + prior).unflatten(1, (len(heights), -1))
            templates[stride] = template[:, :, hypotheses.shown]
        # Each stride has heights of its own, since it sees ground at other distances, but one heading.
        of_headings = {stride: log_mean(x, 1)[:, 0] for stride, x in scores.items()}  # (P, K, h, w)
        joint, agreement = agreement_of(of_headings)
        group_scores = {}
        for stride, x in of_groups.items() if self.groups > 1 else ():
            others = resize(joint, x.shape[-2:]) - of_headings[stride]
            likely = (scores[stride] + others[:, None]).flatten(1, 2).softmax(1)
            group_scores[stride] = temperature * (x * likely[:, None]).sum(2)
        heights_alone = log_mean(scores[FINEST], 2)[:, :, 0]
        return Prediction(
            logits=temperature * agreement,
            heading_scores=resize(joint, heights_alone.shape[-2:]) if len(headings) > 1 else None,
            headings=headings,
            height_scores=heights_alone if len(heights) > 1 else None,
            heights=heights,
            camera=camera,
            maps={stride: temperature * log_mean(x, 1) for stride, x in of_headings.items()},
            templates=templates,
            group_scores=group_scores or None,
        )

    def adapt(self, view, features):
        """What is compared, {stride: (B, channels, h, w)} of unit length; view: 'panorama' or 'satellite'."""
        adapt = getattr(self, f"adapt_{view}")
        return {stride: F.normalize(adapt[str(stride)](features[stride]), dim=1) for stride in self.strides}

    def cells(self, stride, metres_per_pixel):
        """The places of a template's cells: (distance (m), bearing (degrees), shift from whole cells).

        metres_per_pixel: (B,), of the satellite images. Distance and bearing are (B, n, n).
        """
        smallest = SMALLEST_METRES_PER_PIXEL * SATELLITE_PX / self.settings.satellite_size * stride
        shift = self.shift * feature_shift(stride)
        reach = math.ceil(self.radii[stride] / smallest)
        return *template_cells(metres_per_pixel * stride, reach, shift), shift

    def template(self, stride, query, metres_per_pixel, camera, hypotheses, size, top=0):
        """Templates (B, C, HK, n, n) that score all hypotheses when correlated with the satellite's features.

        query: (B, C, h, w), adapted features of a stride. The rest is as in `forward`.
        """
        template, weight = self._template(stride, query, metres_per_pixel, camera, hypotheses, size, top)
        return template * (weight * self._scale(stride))

    def _template(self, stride, query, metres_per_pixel, camera, hypotheses, size, top):
        """Templates (B, C, HK, n, n) and their cells' weights (B, 1, HK, n, n), which sum to 1."""
        distance, bearing, shift = self.cells(stride, metres_per_pixel)
        heading = camera.heading[:, None, None, None]
        # (B, K, n, n)
        bearing = wrap_degrees(bearing[:, None] - heading - hypotheses.headings[:, None, None])

        def features(image, above=0.0):  # of points so many metres above the cells: (B, C, HK, n, n), seen
            height = hypotheses.heights[:, None, None] - above
            depression = seen_below(distance[:, None], height)  # (B, H, n, n)
            seen_at = camera.project(bearing[:, None], depression[:, :, None])
            x, y, seen = (part.flatten(1, 2) for part in seen_at)  # (B, HK, n, n)
            whole = size[0] / stride, size[1] / stride
            return sample_view(image, x, y, whole, wraps=camera.wraps, shift=shift, top=top / stride), seen

        weight = self._radial(stride, distance) * (distance <= self.radii[stride])
        trusted = str(stride) in self.confidence
        image = torch.cat((query, self.confidence[str(stride)](query).sigmoid()), 1) if trusted else query
        template, seen = features(image)
        weight = weight[:, None] * seen  # (B, HK, n, n)
        if trusted:
            template, weight = template[:, :-1], weight * template[:, -1]
        planes = self.settings.planes
        raised = self.raised[str(stride)](query).chunk(len(planes), 1) if planes else ()
        for image, above in zip(raised, planes, strict=True):
            part, seen = features(image, above)
            template = template + part * seen[:, None]
        return template, (weight / weight.sum((-2, -1), keepdim=True).clamp_min(1e-6))[:, None]

    def _scores(self, stride, satellite, template):
        """The score of each group of channels, for each template and place: (B, G, HK, h, w)."""
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
