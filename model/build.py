"""A network from its settings."""

import torch

from efficientnet_pytorch.lite import EfficientNetLite0
from model.light import LightMatcher
from model.matcher import CrossViewMatcher
from model.settings import ModelSettings


def build_model(settings=None):
    """The network that settings name, with random weights. settings: a `ModelSettings`; by default the published ones.

    Its memory is channels-last, which convolutions are fastest with on CPU and GPU alike; inputs may have any memory format.
    """
    settings = settings or ModelSettings()
    if settings.network == "light":
        network, backbone = LightMatcher, EfficientNetLite0
    else:  # torchvision, whose import takes a third of a script's start, has the blocks of this backbone alone
        from efficientnet_pytorch.model import EfficientNet

        network, backbone = CrossViewMatcher, EfficientNet
    whole = settings.FoV == 360 and settings.camera == "panorama"
    model = network(settings, backbone(circular=whole and settings.circular_padding), backbone(circular=False))
    return model.to(memory_format=torch.channels_last)
