"""What a command asks of a network: its own view and pairs, changed by flags that apply."""

from dataclasses import replace

import pytest
from children import SMALL_VIEW, make_network, save_network

from common.errors import UserError
from engine.inference.asked import asked_protocol, asked_view
from model.checkpoint import load_model

PANORAMAS = replace(SMALL_VIEW, ori_noise=20.0)
VIEWS = {"published": PANORAMAS, "light": replace(PANORAMAS, camera="photo")}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """{network: its checkpoint}: a published one for panoramas, a light one for photographs."""
    made = {}
    for name, view in VIEWS.items():
        folder = save_network(tmp_path_factory.mktemp(name), make_network(view, network=name), view)
        made[name] = load_model(folder)
    return made


def test_settings_that_are_not_given_are_those_of_training(checkpoints):
    panoramas, photographs = checkpoints["published"], checkpoints["light"]
    assert asked_view(panoramas, {"batch_size": 8}) == panoramas.view
    assert asked_view(panoramas, {"FoV": 90.0, "ori_noise": 0.0}) == replace(SMALL_VIEW, FoV=90.0)
    asked = asked_view(photographs, {"hfov": (70.0,), "camera": "photo", "camera_height": 1.6})
    assert asked == replace(photographs.view, hfov=(70.0, 70.0), camera_height=1.6)
    protocol = asked_protocol(panoramas, {"split": "val", "batch_size": 8})
    assert (protocol.area, protocol.split, protocol.pos_only) == ("samearea", "val", True)


@pytest.mark.parametrize(
    ("network", "given", "shown"),
    [
        ("published", {"hfov": (60.0, 90.0)}, "--hfov 60 90"),
        ("published", {"tilt_noise": 0.0}, "--tilt_noise 0"),
        ("published", {"camera": "photo"}, "--camera photo"),
        ("published", {"satellite_size": 128}, "--satellite_size 128"),
        ("published", {"camera_height": 2.0}, "--camera_height"),
        ("light", {"FoV": 360.0}, "--FoV 360"),
        ("light", {"vertical": (40.0, 30.0)}, "--vertical 40 30"),
        ("light", {"camera": "panorama"}, "--camera panorama"),
    ],
)
def test_a_flag_that_does_not_apply_is_refused(checkpoints, network, given, shown):
    with pytest.raises(UserError) as refused:
        asked_view(checkpoints[network], given)
    assert str(refused.value).startswith(f"{shown}: {checkpoints[network].file}")
