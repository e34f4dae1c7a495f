"""Builds a network from its settings."""

import torch

from model.cross_view import CrossViewMatcher
from model.light import LightMatcher
from model.settings import NetworkSettings


def build_model(settings=None):
    """The network of some `NetworkSettings`, by default the published one; random weights, channels-last."""
    settings = settings or NetworkSettings()
    network = LightMatcher if settings.network == "light" else CrossViewMatcher
    return network(settings).to(memory_format=torch.channels_last)
