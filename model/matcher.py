"""CrossViewMatcher: where inside a satellite image was a street panorama taken?

Two EfficientNet branches without shared weights -> transformer fusion -> decoder -> one logit per satellite pixel.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from dataset.geometry import view_columns
from efficientnet_pytorch import FEATURE_CHANNELS, EfficientNet
from model.decoder import STAGES, UPSAMPLING, Decoder
from model.fusion import LayerAttention, TransformerFusionBlock
from model.ground_plane import FINEST, GroundPlaneMatching, GroundPlaneResult
from model.matching import PublishedMatching, resize
from model.mixstyle import MIX_MODES, MixStyle

DEFAULT_SETTINGS = {
    "d_model": 320,
    "n_layer": 2,
    "vert_anchors": 16,  # the anchors follow satellite_size where they are not given
    "horz_anchors": 16,
    "num_heads": 8,
    "block_exp": 4,
    "dropout_rate": 0.3,  # of the decoder
    "use_mask": True,
    "use_mixstyle": True,
    "mixstyle_p": 0.3,
    "mixstyle_alpha": 0.1,
    "mixstyle_mix": "random",
    "FoV": 360,  # degrees
    "panorama_size": [320, 640],  # height, width of the full panorama; FoV crops its width
    "satellite_size": 512,
    "temperature": 0.1,  # of the loss and the heat map
    "matching": "published",
    # of ground-plane matching:
    "camera_height": 2.5,  # metres above the street
    "matching_radius": 20.0,  # metres around the camera
    "matching_channels": 32,
    "ori_noise": 0.0,  # degrees to each side within which the heading lies
    "heading_bins": 36,  # heading hypotheses on the full circle
}
CHOICES = {"matching": ("published", "ground_plane"), "mixstyle_mix": MIX_MODES}


class MatchResult(NamedTuple):
    """What the network says about a batch.

    logits: (B, S, S), one per satellite pixel; the heat map is their softmax over all pixels of a sample.
    attention: a `LayerAttention` per fusion layer where it was asked for, else None.
    ground_plane: with ground-plane matching its `GroundPlaneResult` (maps, templates, headings), else None.
    """

    logits: torch.Tensor
    attention: list[LayerAttention] | None = None
    ground_plane: GroundPlaneResult | None = None


class CrossViewMatcher(nn.Module):
    """The network of the thesis. Build it with `build_model`; `settings` holds every one of its settings."""

    def __init__(self, settings):
        super().__init__()
        self.settings = settings = complete_settings(settings)
        self.satellite_size = (settings["satellite_size"],) * 2
        start, stop = view_columns(settings["FoV"], settings["panorama_size"][1])
        self.panorama_size = (settings["panorama_size"][0], stop - start)
        self.use_mask = settings["use_mask"]
        d_model = settings["d_model"]
        self.panorama_backbone = EfficientNet(circular=settings["FoV"] == 360)
        self.satellite_backbone = EfficientNet(circular=False)
        style = MixStyle(settings["mixstyle_p"], settings["mixstyle_alpha"], settings["mixstyle_mix"])
        self.mix_style = style if settings["use_mixstyle"] else None
        self.adapt_panorama = nn.Conv2d(FEATURE_CHANNELS[16], d_model, 1)
        self.adapt_satellite = nn.Conv2d(FEATURE_CHANNELS[16], d_model, 1)
        anchors = settings["vert_anchors"], settings["horz_anchors"]
        self.fusion = TransformerFusionBlock(d_model, anchors, settings["n_layer"], settings["num_heads"], settings["block_exp"])
        if settings["matching"] == "ground_plane":
            self.matching = GroundPlaneMatching(FEATURE_CHANNELS, settings)
        else:
            self.matching = PublishedMatching(FEATURE_CHANNELS, {stage.key: stage.up_channels for stage in STAGES})
        self.decoder = Decoder(d_model, settings["dropout_rate"], self.use_mask)
        if settings["matching"] == "ground_plane":  # at first the finest matching map alone speaks
            nn.init.zeros_(self.decoder.head[-1].weight)
            nn.init.zeros_(self.decoder.head[-1].bias)

    def forward(self, panorama, satellite, mask=None, *, metres_per_pixel=None, return_attention=False):
        """Match a batch of panoramas with their satellite images.

        panorama: (B, 3, H, W) as settings' panorama_size and FoV have it; satellite: (B, 3, S, S), both normalised by ImageNet's
        mean and standard deviation. mask: (B, 1, S, S) in [0, 1], needed where use_mask, else unused.
        metres_per_pixel: (B,), of the satellite tensor; needed for ground-plane matching, published matching has no use for it.
        Returns a `MatchResult`; S = 32 x anchors. Raises ValueError where a size is another.
        """
        self._check(panorama, satellite, mask, metres_per_pixel)
        panorama_features = self.panorama_backbone(panorama, self.mix_style)
        satellite_features = self.satellite_backbone(satellite, self.mix_style)
        fused, attention = self.fusion(
            self.adapt_panorama(panorama_features[16]), self.adapt_satellite(satellite_features[16]), return_attention
        )
        ground = None
        if self.settings["matching"] == "ground_plane":
            ground = self.matching(panorama_features, satellite_features, metres_per_pixel)
            match = ground.map_for
        else:
            match = partial(self.matching, panorama_features)
        logits = self.decoder(fused, satellite_features, mask if self.use_mask else None, match)
        if ground is not None:  # the decoder refines what the finest map already says
            logits = logits + resize(ground.maps[FINEST], logits.shape[-2:]).squeeze(1)
        return MatchResult(logits, attention, ground)

    def _check(self, panorama, satellite, mask, metres_per_pixel):
        if self.settings["matching"] == "ground_plane" and metres_per_pixel is None:
            raise ValueError("metres_per_pixel: none given, but ground-plane matching lays its templates out in metres")
        if self.use_mask and mask is None:
            raise ValueError("mask: none given, but this network was built with use_mask True")
        anchors = f"32 x {self.settings['vert_anchors']} anchors"
        view = f"panorama_size {self.settings['panorama_size']} within FoV {self.settings['FoV']}"
        B = len(panorama)
        for name, tensor, channels, size, reason in (
            ("panorama", panorama, 3, self.panorama_size, view),
            ("satellite", satellite, 3, self.satellite_size, anchors),
            ("mask", mask if self.use_mask else None, 1, self.satellite_size, anchors),
        ):
            if tensor is not None and tuple(tensor.shape) != (B, channels, *size):
                raise ValueError(f"{name}: shape {tuple(tensor.shape)}, expected {(B, channels, *size)} ({reason})")


def complete_settings(settings=None):
    """`settings` with defaults for what is missing; anchors follow satellite_size / 32 where they are not given.

    Raises ValueError for an unknown name or a value that cannot be, in one line that says which.
    """
    given = dict(settings or {})
    if unknown := sorted(set(given) - set(DEFAULT_SETTINGS)):
        raise ValueError(f"unknown model settings: {', '.join(unknown)}; known are {', '.join(DEFAULT_SETTINGS)}")
    complete = {**DEFAULT_SETTINGS, **given}
    for name, default in DEFAULT_SETTINGS.items():
        _check_value(name, complete[name], default)
    complete["panorama_size"] = list(complete["panorama_size"])
    for name in ("vert_anchors", "horz_anchors"):
        if name not in given:
            complete[name] = complete["satellite_size"] // UPSAMPLING
        if complete[name] * UPSAMPLING != complete["satellite_size"]:
            raise ValueError(f"satellite_size {complete['satellite_size']}: expected 32 x {name}, which is {complete[name]}")
    if complete["d_model"] % complete["num_heads"]:
        raise ValueError(f"d_model {complete['d_model']}: expected a multiple of num_heads, which is {complete['num_heads']}")
    return complete


def _check_value(name, value, default):
    """Raise ValueError unless `value` can stand where `default` does."""
    if name in CHOICES:
        good, expected = value in CHOICES[name], f"one of {', '.join(CHOICES[name])}"
    elif isinstance(default, bool):
        good, expected = isinstance(value, bool), "True or False"
    elif name == "panorama_size":
        good = isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(side, int) for side in value)
        good = good and value[0] >= 32 and value[1] >= 128
        expected = "height and width, whole numbers of at least 32 and 128"
    elif name == "FoV":
        good, expected = isinstance(value, (int, float)) and 0 < value <= 360, "degrees above 0 and up to 360"
    elif isinstance(default, int):
        good, expected = type(value) is int and value > 0, "a whole number above 0"
    else:
        good, expected = type(value) in (int, float) and value >= 0, "a number, 0 or more"
    if not good:
        raise ValueError(f"{name} {value!r}: expected {expected}")


def build_model(settings=None):
    """A `CrossViewMatcher` with random weights. settings: a plain dict; `DEFAULT_SETTINGS` stand for what it leaves out.

    Its memory is channels-last, which convolutions are fastest with on CPU and GPU alike; inputs may have any memory format.
    """
    return CrossViewMatcher(settings).to(memory_format=torch.channels_last)
