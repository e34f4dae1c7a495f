"""The light network: ground-plane matching and a small head, 0.13 M parameters in size s.

    query, satellite -> two branches of the backbone down to stride 8, 16 or 32, no shared weights
    features of strides 4 and 2, enriched by coarser ones -> ground-plane templates, correlated with the
    satellite image's: one map for each group of channels
    maps, satellite features and mask at stride 2 -> three convolutions -> logits, added to the maps
    headings: each is tried with both strides together, so that they must agree

It has only convolutions and no position embeddings, so the same weights serve images of any size at the
ground resolution of training.
"""

import torch.nn.functional as F
from torch import nn

from model.interface import join, resize
from model.matcher import Matcher
from model.matching.ground_plane import GroundPlaneMatching
from model.settings import SIZES

STRIDES = (4, 2)  # of what is matched
FINE_RADIUS_M = 12.0  # of stride 2's templates; cells further away are seen in less than a pixel
GROUPS = 4  # of channels; their scores are more informative for the head than their sum
CROP_ELEVATION = 45.0  # degrees; features at the horizon, the templates' upper end, see 47 up at 128 px
SATELLITE_CHANNELS = 15  # 24 with group scores and mask: convolutions prefer multiples of 8


class LightMatcher(Matcher):
    """The light network."""

    any_size = True
    crop_elevation = CROP_ELEVATION

    def __init__(self, settings):
        size = SIZES[settings.size]
        super().__init__(
            settings, size.context
        )  # weights without a gradient stop training in several processes
        channels = self.panorama_backbone.channels
        self.matching = LightMatching(channels, settings, self.panorama_backbone.shift)
        self.tilt = self.make_tilt_head()
        self.head = LightHead(channels, len(STRIDES) * GROUPS, settings.use_mask, size.head)

    def forward(self, inputs, pairs=None):
        """A `Prediction` for `Inputs`, with logits as large as the satellite images.

        Raises ValueError for a size that does not fit and for a missing input.
        """
        self.check(inputs, pairs)
        h, w = inputs.satellite.shape[-2:]
        mask = None if inputs.mask is None else self._padded(inputs.mask)
        inputs = inputs._replace(satellite=self._padded(inputs.satellite), mask=mask)
        query, satellite, camera, top, inputs = self.features(inputs, pairs)
        hypotheses = self.hypotheses_of(inputs)
        size = tuple(inputs.query.shape[-2:])
        found = self.matching(query, satellite, inputs.metres_per_pixel, camera, hypotheses, size, top)
        logits = self.head(found.group_scores, satellite, inputs.mask)
        for matching_map in (*found.maps.values(), found.logits):
            logits = logits + resize(matching_map, logits.shape[-2:])
        return found._replace(logits=logits[:, 0, :h, :w])

    def query_features(self, query, camera, city=None):
        """As of `Matcher`, of query images padded below and, unless they wrap around, on the right."""
        return super().query_features(self._padded(query, camera.wraps), camera, city)

    def _padded(self, image, wraps=False):
        """Images (B, C, H, W) padded on the right and below to sides that the strides divide."""
        (h, w), coarsest = image.shape[-2:], max(self.panorama_backbone.strides)
        spare = (0, 0 if wraps else -w % coarsest, 0, -h % coarsest)
        return F.pad(image, spare, mode="replicate") if any(spare) else image


class LightMatching(GroundPlaneMatching):
    """Ground-plane matching at strides 4 and 2, with features enriched by the next coarser stride's."""

    def __init__(self, feature_channels, settings, shift):
        wide = settings.matching_channels
        fine = {"radii": {2: FINE_RADIUS_M}, "channels": {2: wide // 2}}
        super().__init__(feature_channels, settings, shift, strides=STRIDES, groups=GROUPS, **fine)
        self.context, *between = sorted(set(feature_channels) - set(STRIDES), reverse=True)
        for view in ("panorama", "satellite"):
            setattr(self, f"context_{view}", nn.Conv2d(feature_channels[self.context], wide, 1))
            lateral = {str(s): nn.Conv2d(feature_channels[s], wide, 1) for s in between}
            setattr(self, f"lateral_{view}", nn.ModuleDict(lateral))
            deepen = {str(s): nn.Conv2d(wide, self.channels.get(s, wide), 1) for s in (*between, *STRIDES)}
            setattr(self, f"deepen_{view}", nn.ModuleDict(deepen))

    def adapt(self, view, features):
        """What is compared, {stride: (B, channels, h, w)} of unit length; view: 'panorama' or 'satellite'."""
        context, deepen, adapt = (getattr(self, f"{name}_{view}") for name in ("context", "deepen", "adapt"))
        layers = {**getattr(self, f"lateral_{view}"), **adapt}  # from the coarsest stride to the finest
        x, found = context(features[self.context]), {}
        for stride, layer in layers.items():
            finer = layer(features[int(stride)])
            x = finer + resize(deepen[stride](x), finer.shape[-2:])
            if stride in adapt:
                found[int(stride)] = F.normalize(x, dim=1)
        return found


class LightHead(nn.Module):
    """Refines the maps at stride 2 with the satellite features. Its output starts at zero."""

    def __init__(self, feature_channels, n_maps, use_mask, wide):
        super().__init__()
        self.adapt_finest = nn.Conv2d(feature_channels[2], SATELLITE_CHANNELS, 1)
        self.adapt_finer = nn.Conv2d(feature_channels[4], SATELLITE_CHANNELS, 1, bias=False)
        layers = []
        for channels in (n_maps + SATELLITE_CHANNELS + int(use_mask), wide):
            layers += [nn.Conv2d(channels, wide, 3, padding=1), nn.ReLU(inplace=True)]
        layers += [nn.Conv2d(wide, 4, 3, padding=1), nn.PixelShuffle(2)]
        self.convolutions = nn.Sequential(*layers)
        nn.init.zeros_(self.convolutions[-2].weight)
        nn.init.zeros_(self.convolutions[-2].bias)

    def forward(self, group_scores, satellite_features, mask):
        """Logits (P, 1, h, w) from group scores and features by stride, and the (P, 1, h, w) mask or None."""
        finest = self.adapt_finest(satellite_features[2])
        size = finest.shape[-2:]
        seen = F.relu(finest + resize(self.adapt_finer(satellite_features[4]), size))
        parts = [*(resize(scores, size) for scores in group_scores.values()), seen]
        if mask is not None:
            parts.append(F.avg_pool2d(mask, 2))
        return self.convolutions(join(parts))
