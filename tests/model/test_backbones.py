"""Every backbone of the registry: what it offers, and padding that wraps around a panorama's seam."""

import pytest
import torch

from common.camera import Panorama
from common.view import View
from model.backbones import NAMES, make_backbone
from model.build import build_model
from model.interface import Inputs
from model.settings import network_settings

VIEW = View(satellite_size=64, panorama_size=(64, 128))


@pytest.mark.parametrize("name", NAMES)
def test_features_have_the_channels_and_strides_that_a_backbone_names(name):
    backbone = make_backbone(name).eval()
    with torch.inference_mode():
        features = backbone(torch.randn(2, 3, 64, 128))
    assert tuple(features) == backbone.strides
    for stride, feature in features.items():
        assert feature.shape == (2, backbone.channels[stride], 64 // stride, 128 // stride)


@pytest.mark.parametrize("name", NAMES)
def test_a_rolled_panorama_has_rolled_features_where_padding_is_circular(name):
    backbone, image = make_backbone(name).eval(), torch.randn(1, 3, 64, 128)
    for circular in (True, False):
        backbone.circular = circular
        with torch.inference_mode():
            features, rolled = backbone(image), backbone(image.roll(64, -1))
        for stride, feature in features.items():
            back = rolled[stride].roll(-64 // stride, -1)
            assert torch.allclose(back, feature, atol=1e-5) == circular


@pytest.mark.parametrize("name", NAMES)
def test_every_network_that_its_strides_allow_runs_and_learns_on_it(name):
    networks = ["light"] + ["published", "ground_plane"] * (32 in make_backbone(name).channels)
    for network in networks:
        settings = {"network": network, "backbone": name, "d_model": 16, "num_heads": 2, "use_mask": False}
        built = build_model(network_settings(VIEW, settings))
        inputs = Inputs(
            torch.randn(2, 3, 64, 128),
            Panorama(torch.zeros(2, 1)),
            torch.randn(2, 3, 64, 64),
            torch.full((2,), 1.1),
        )
        built(inputs).logits.logsumexp((1, 2)).sum().backward()
        assert all(weight.grad is not None for weight in built.parameters() if weight.requires_grad)
