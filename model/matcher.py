"""CrossViewMatcher, the thesis's network: where inside a satellite image was a street panorama taken?

Two backbones without shared weights -> transformer fusion -> decoder -> one logit per satellite pixel.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from common.geometry import view_columns
from efficientnet_pytorch.channels import FEATURE_CHANNELS
from model import tilt
from model.decoder import STAGES, Decoder
from model.fusion import LayerAttention, TransformerFusionBlock
from model.matching import WAYS
from model.matching.contract import resize
from model.matching.ground_plane import feature_shift
from model.mixstyle import MixStyle


class MatchResult(NamedTuple):
    """What the network says about a batch.

    logits: (B, S, S), one per satellite pixel; the heat map is their softmax over all pixels of a sample, divided by the
    temperature of the settings · attention: a `LayerAttention` per fusion layer where it was asked for, else None ·
    heading_scores, headings, height_scores, heights, maps, templates: as of `model.matching.contract.Matched` · camera: (B, 12),
    of photographs, with pitch and roll as estimated where the network does, else as told; None of panoramas.
    """

    logits: torch.Tensor
    attention: list[LayerAttention] | None
    heading_scores: torch.Tensor | None
    headings: torch.Tensor | None
    height_scores: torch.Tensor | None
    heights: torch.Tensor | None
    maps: dict | None
    templates: dict | None
    camera: torch.Tensor | None = None

    @classmethod
    def of(cls, matched, logits, attention, camera):
        """What was `Matched`, and what became of it."""
        names = "heading_scores", "headings", "height_scores", "heights", "maps", "templates"
        return cls(logits, attention, *(getattr(matched, name) for name in names), camera)


class Matcher(nn.Module):
    """What every network has: its settings, two branches, MixStyle between samples, and a check of what it is given.

    panorama_backbone, satellite_backbone: modules that give features {stride: (B, C, h, w)} of an image and take a function that
    mixes styles, as `EfficientNet` does.
    """

    any_size = False  # whether satellite images may have other sizes than that of training
    tta = 1  # forms of a pair that evaluation averages over, see `engine.evaluation.tta`
    sky = 0  # pixels at the panorama's top that its branch does not see

    def __init__(self, settings, panorama_backbone, satellite_backbone):
        super().__init__()
        self.settings = settings
        self.satellite_size = (settings.satellite_size,) * 2
        start, stop = view_columns(settings.FoV, settings.panorama_size[1])
        self.view_size = (settings.panorama_size[0], stop - start)  # of the panorama, cut to its field of view
        if settings.camera == "photo":
            self.view_size = settings.cameras.size
        self.panorama_backbone, self.satellite_backbone = panorama_backbone, satellite_backbone
        self.tilt = None  # the `TiltHead` of a network that estimates how photographs were tilted
        style = MixStyle(settings.mixstyle_p, settings.mixstyle_alpha, settings.mixstyle_mix)
        self.mix_style = style if settings.use_mixstyle else None

    def features(self, panorama, satellite, city):
        """Features {stride: (B, C, h, w)} of both views, the panorama's without its sky; city: as of `forward`."""
        if city is not None and len(satellite) > len(panorama):
            cities = city, city.repeat_interleave(len(satellite) // len(panorama))
        else:
            cities = city, city
        mix_styles = [partial(self.mix_style, city=city) if self.mix_style else None for city in cities]
        panorama_features = self.panorama_backbone(panorama[:, :, self.sky :], mix_styles[0])
        return panorama_features, self.satellite_backbone(satellite, mix_styles[1])

    def matched_features(self, panorama, satellite, mask, metres_per_pixel, camera, city, pairs):
        """What `pick_pairs` gives of a batch, tilts of its cameras as estimated; all as of a network's forward."""
        panorama_features, satellite_features = self.features(panorama, satellite, city)
        camera = self.camera_of(panorama_features, camera)
        return pick_pairs(panorama_features, satellite_features, mask, metres_per_pixel, camera, pairs)

    def make_tilt_head(self, channels):
        """A `TiltHead` where settings want one, else None; channels: of the panorama's features, by their stride."""
        if not self.settings.estimate_tilt:
            return None
        return tilt.TiltHead(channels[tilt.STRIDE], self.matching.shift * feature_shift(tilt.STRIDE))

    def camera_of(self, panorama_features, camera):
        """The cameras (B, 12) of photographs as told, or with pitch and roll as their features say; None of panoramas."""
        return camera if self.tilt is None else self.tilt(panorama_features[tilt.STRIDE], camera)

    def describe_panorama(self, panorama, metres_per_pixel, stride, camera=None):
        """Templates (B, C, K, n, n) of one stride, for each height and heading; `correlate` with what `describe_satellite` gives
        makes them log-likelihoods of these and of places.

        panorama: (B, 3, H, W), normalised, or photographs with their cameras (B, 12) · metres_per_pixel: (B,), of the satellite
        images.
        """
        features = self.panorama_backbone(panorama[:, :, self.sky :], None)
        adapted, camera = self.matching.adapt("panorama", features)[stride], self.camera_of(features, camera)
        return self.matching.template(stride, adapted, metres_per_pixel, self.sky, camera)

    def describe_satellite(self, satellite, stride):
        """Features (B, C, h, w) of one stride, of unit length, that `describe_panorama`'s templates are compared with."""
        return self.matching.adapt("satellite", self.satellite_backbone(satellite, None))[stride]

    def check(self, panorama, satellite, mask, camera=None, pairs=None):
        """Raises ValueError where an input is missing or has another shape than the settings say."""
        settings, B = self.settings, panorama.shape[0]
        of = {"panorama": B} | dict.fromkeys(("satellite", "mask"), B if pairs is None else len(satellite))
        if settings.use_mask and mask is None:
            raise ValueError("mask: none given, but this network was built with use_mask True")
        if (camera is not None) != (settings.camera == "photo"):
            given = "none given" if camera is None else "given"
            raise ValueError(f"camera: {given}, but this network was built with camera {settings.camera}")
        size = tuple(satellite.shape[-2:]) if self.any_size else self.satellite_size
        side = "the satellite image's" if self.any_size else f"32 x {settings.vert_anchors} anchors"
        view, seen = f"panorama_size {list(settings.panorama_size)} within FoV {settings.FoV:g}", self.view_size
        if camera is not None:
            view = "photographs, of any size that 32 divides"
            seen = tuple(max(32, side // 32 * 32) for side in panorama.shape[-2:])
        for name, tensor, channels, expected, reason in (
            ("panorama", panorama, 3, seen, view),
            ("satellite", satellite, 3, size, side),
            ("mask", mask if settings.use_mask else None, 1, size, side),
        ):
            if tensor is not None and tuple(tensor.shape) != (of[name], channels, *expected):
                raise ValueError(f"{name}: shape {tuple(tensor.shape)}, expected {(of[name], channels, *expected)} ({reason})")


def pick_pairs(panorama_features, satellite_features, mask, metres_per_pixel, camera, pairs):
    """Both views' features {stride: (B, C, h, w)}, masks, resolutions and cameras of what is matched: as given, or of `pairs`."""
    if pairs is None:
        return panorama_features, satellite_features, mask, metres_per_pixel, camera
    panorama, satellite = pairs.unbind(1)
    panorama_features = {stride: x[panorama] for stride, x in panorama_features.items()}
    satellite_features = {stride: x[satellite] for stride, x in satellite_features.items()}
    mask, metres_per_pixel = (None if x is None else x[satellite] for x in (mask, metres_per_pixel))
    return panorama_features, satellite_features, mask, metres_per_pixel, None if camera is None else camera[panorama]


class CrossViewMatcher(Matcher):
    """The network of the thesis, with either way of matching: networks 'published' and 'ground_plane'.

    `model.build.build_model` makes it; `settings` holds its `ModelSettings`.
    The backbones give features of strides 2, 4, 8, 16 and 32.
    """

    def __init__(self, settings, panorama_backbone, satellite_backbone):
        super().__init__(settings, panorama_backbone, satellite_backbone)
        self.adapt_panorama = nn.Conv2d(FEATURE_CHANNELS[32], settings.d_model, 1)
        self.adapt_satellite = nn.Conv2d(FEATURE_CHANNELS[32], settings.d_model, 1)
        anchors = settings.vert_anchors, settings.horz_anchors
        self.fusion = TransformerFusionBlock(settings.d_model, anchors, settings.n_layer, settings.num_heads, settings.block_exp)
        self.matching = WAYS[settings.network](FEATURE_CHANNELS, {stage.stride: stage.up_channels for stage in STAGES}, settings)
        self.tilt = self.make_tilt_head(FEATURE_CHANNELS)
        self.decoder = Decoder(settings.d_model, settings.dropout_rate, settings.use_mask)
        if self.matching.has_templates:  # at first the finest matching map alone does
            nn.init.zeros_(self.decoder.head[-1].weight)
            nn.init.zeros_(self.decoder.head[-1].bias)

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
        satellite: (B, 3, S, S); both are normalised by ImageNet's mean and standard deviation.
        mask: (B, 1, S, S) in [0, 1], needed where use_mask, else unused.
        metres_per_pixel: (B,), of the satellite tensor; ground-plane matching needs it.
        camera: (B, 12), of photographs, as `common.camera` tells; None of panoramas.
        city: (B,), which tells MixStyle whose style is whose.
        pairs: (P, 2), which panorama is matched with which satellite image, where not each with its own; the batch may then hold
        more satellite images, as many for each panorama and next to each other.

        Returns a `MatchResult`, of B or P; S = 32 x anchors. Raises ValueError where a size is another or something is missing.
        """
        self.check(panorama, satellite, mask, camera, pairs)
        mask = mask if self.settings.use_mask else None
        panorama_features, satellite_features, mask, metres_per_pixel, camera = self.matched_features(
            panorama, satellite, mask, metres_per_pixel, camera, city, pairs
        )
        fused, attention = self.fusion(
            self.adapt_panorama(panorama_features[32]), self.adapt_satellite(satellite_features[32]), return_attention
        )
        matched = self.matching(panorama_features, satellite_features, metres_per_pixel, camera=camera)
        logits = self.decoder(fused, satellite_features, mask, matched.map_for)
        if matched.finest is not None:  # the decoder refines what the finest map already says
            logits = logits + resize(matched.finest, logits.shape[-2:]).squeeze(1)
        return MatchResult.of(matched, logits, attention, camera)
