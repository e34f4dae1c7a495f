"""The light network: the geometry of ground-plane matching and little else, 0.13 M parameters.

    panorama, satellite -> two branches of EfficientNet-Lite0 down to stride 8, no shared weights
    features of strides 4 and 2, deepened by coarser ones -> ground-plane templates, correlated with the satellite's: one map for
    each group of channels
    maps, satellite features and mask at stride 2 -> three convolutions -> logits, added to what the maps say

Convolutions only, no positions: one set of weights serves images of any size, at the ground resolution of its training.
"""

import torch.nn.functional as F
from torch import nn

from efficientnet_pytorch.lite import COARSEST, LITE_CHANNELS
from model.decoder import join
from model.matcher import Matcher, MatchResult
from model.matching.contract import resize
from model.matching.ground_plane import GroundPlaneMatching

STRIDES = (4, 2)  # of what is matched
FINE_RADIUS_M = 12.0  # of stride 2's templates: they tell where exactly, and cells further off are seen in less than a pixel
GROUPS = 4  # of channels; how they agree tells the head more than their sum
SKY = 0.25  # of the panorama is cut off: templates lie below the horizon, and features there see 47 degrees up at 128 px
HEAD_CHANNELS, SATELLITE_CHANNELS = 16, 15  # with shares and mask 24, a multiple of 8, which convolutions are fastest with


class LightMatcher(Matcher):
    """The light network. `model.build.build_model` makes it; `settings` holds its `ModelSettings`.

    The backbones give features of strides 2, 4 and 8.
    """

    any_size = True

    def __init__(self, settings, panorama_backbone, satellite_backbone):
        super().__init__(settings, panorama_backbone, satellite_backbone)
        if settings.camera == "panorama":
            self.sky = int(settings.panorama_size[0] * SKY) // COARSEST * COARSEST
        self.matching = LightMatching(settings)
        self.tilt = self.make_tilt_head(LITE_CHANNELS)
        self.head = LightHead(len(STRIDES) * GROUPS, settings.use_mask)

    def forward(
        self,
        panorama,
        satellite,
        mask=None,
        *,
        metres_per_pixel=None,
        camera=None,
        city=None,
        return_attention=False,
        pairs=None,
    ):
        """Match a batch of panoramas with their satellite images.

        panorama: (B, 3, H, W) as settings' panorama_size and FoV have it, or photographs.
        satellite: (B, 3, h, w) of any size; both are normalised by ImageNet's mean and standard deviation.
        mask: (B, 1, h, w) in [0, 1], needed where use_mask, else unused.
        metres_per_pixel: (B,), of the satellite tensor.
        camera: (B, 12), of photographs, as `common.camera` tells; None of panoramas.
        city: (B,), which tells MixStyle whose style is whose.
        return_attention: changes nothing, this network has none.
        pairs: (P, 2), which panorama is matched with which satellite image, as of `CrossViewMatcher`.

        Returns a `MatchResult`, logits (B, h, w) or (P, h, w). Raises ValueError where a size is another or something is missing.
        """
        self.check(panorama, satellite, mask, camera, pairs)
        h, w = satellite.shape[-2:]
        spare = (0, -w % COARSEST, 0, -h % COARSEST)  # to the right and below, for sizes that strides do not divide
        mask = mask if self.settings.use_mask else None
        if any(spare):
            satellite, mask = (None if x is None else F.pad(x, spare, mode="replicate") for x in (satellite, mask))
        panorama_features, satellite_features, mask, metres_per_pixel, camera = self.matched_features(
            panorama, satellite, mask, metres_per_pixel, camera, city, pairs
        )
        matched = self.matching(panorama_features, satellite_features, metres_per_pixel, self.sky, camera)
        logits = self.head(matched.shares, satellite_features, mask)
        for matching_map in matched.maps.values():
            logits = logits + resize(matching_map, logits.shape[-2:])
        logits = logits[:, 0, :h, :w]
        return MatchResult.of(matched, logits, None, camera)


class LightMatching(GroundPlaneMatching):
    """Ground-plane matching at strides 4 and 2, whose features are deepened by those of the next coarser stride."""

    def __init__(self, settings):
        many = settings.matching_channels
        fine = {"radii": {2: FINE_RADIUS_M}, "channels": {2: many // 2}}
        super().__init__(LITE_CHANNELS, {}, settings, strides=STRIDES, groups=GROUPS, shift=-1, **fine)
        for view in ("panorama", "satellite"):
            setattr(self, f"context_{view}", nn.Conv2d(LITE_CHANNELS[COARSEST], many, 1))
            setattr(self, f"deepen_{view}", nn.ModuleDict({str(s): nn.Conv2d(many, self.channels[s], 1) for s in STRIDES}))

    def adapt(self, view, features):
        """What is compared, {stride: (B, channels, h, w)} of unit length, of a view's features: 'panorama' or 'satellite'."""
        context, deepen, adapt = (getattr(self, f"{name}_{view}") for name in ("context", "deepen", "adapt"))
        x, found = context(features[COARSEST]), {}
        for stride in STRIDES:
            finer = adapt[str(stride)](features[stride])
            x = finer + resize(deepen[str(stride)](x), finer.shape[-2:])
            found[stride] = F.normalize(x, dim=1)
        return found


class LightHead(nn.Module):
    """Refines the maps at stride 2 beside what the satellite image shows there. It starts at zero."""

    def __init__(self, n_maps, use_mask):
        super().__init__()
        self.adapt_finest = nn.Conv2d(LITE_CHANNELS[2], SATELLITE_CHANNELS, 1)
        self.adapt_finer = nn.Conv2d(LITE_CHANNELS[4], SATELLITE_CHANNELS, 1, bias=False)
        self.convolutions = nn.Sequential(
            nn.Conv2d(n_maps + SATELLITE_CHANNELS + int(use_mask), HEAD_CHANNELS, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(HEAD_CHANNELS, HEAD_CHANNELS, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(HEAD_CHANNELS, 4, 3, padding=1),
            nn.PixelShuffle(2),
        )
        nn.init.zeros_(self.convolutions[-2].weight)
        nn.init.zeros_(self.convolutions[-2].bias)

    def forward(self, shares, satellite_features, mask):
        """Logits (B, 1, h, w).

        shares: {stride: (B, G, ., .)} · satellite_features: {2, 4: (B, C, ., .)} · mask: (B, 1, h, w), or None for a head without
        one.
        """
        finest = self.adapt_finest(satellite_features[2])
        size = finest.shape[-2:]
        seen = F.relu(finest + resize(self.adapt_finer(satellite_features[4]), size))
        parts = [*(resize(share, size) for share in shares.values()), seen]
        if mask is not None:
            parts.append(F.avg_pool2d(mask, 2))
        return self.convolutions(join(parts))
