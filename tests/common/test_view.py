"""What a network is asked: sizes of query images, conditions of a measurement, cameras that are drawn."""

import pytest
import torch

from common.errors import UserError
from common.geometry import wrap_degrees
from common.view import View

SMALL = {"panorama_size": (64, 128)}
PHOTO = {"camera": "photo", "hfov": (60.0, 100.0)}


@pytest.mark.parametrize(
    ("asked", "read_px", "seen_px"),
    [
        ({}, (320, 640), (320, 640)),
        (SMALL, (64, 128), (64, 128)),
        (SMALL | {"FoV": 90.0}, (64, 128), (64, 32)),
        (SMALL | {"FoV": 200.0}, (64, 128), (64, 72)),
        (SMALL | {"vertical": (38.6, 26.9)}, (24, 128), (24, 128)),  # 64 * 65.5 / 180 = 23.3, in steps of 8
        (SMALL | {"vertical": (45.0, 45.0), "FoV": 180.0}, (32, 128), (32, 64)),
        (PHOTO, (320, 640), (256, 320)),  # 320 / (4 / 3) = 240, in steps of 32
        (PHOTO | {"photo_width": 64, "aspect": "2:1"}, (320, 640), (32, 64)),
        (PHOTO | {"photo_width": 96, "aspect": "3:4"}, (320, 640), (128, 96)),
    ],
)
def test_sizes_of_query_images(asked, read_px, seen_px):
    view = View(**asked)
    assert (view.panorama_px, view.query_px) == (read_px, seen_px)
    assert View.read(view.plain(), "view") == view


def test_conditions_are_what_applies_without_sizes():
    panoramas, photographs = View(ori_noise=20.0, tta=8).conditions, View(**PHOTO, tilt_noise=3.0).conditions
    common = {"camera", "ori_noise", "camera_height", "height_prior", "tta"}
    assert panoramas.keys() == common | {"FoV", "vertical"}
    assert photographs.keys() == common | {"hfov", "pitch", "roll", "tilt_noise", "aspect", "photo_width"}
    assert (panoramas["ori_noise"], panoramas["tta"], photographs["hfov"]) == (20, 8, [60, 100])
    assert View(satellite_size=64, **SMALL).conditions == View().conditions


@pytest.mark.parametrize(
    ("ill", "flag"),
    [
        ({"hfov": (100.0, 60.0)}, "--hfov 100 60"),
        ({"pitch": -1.0}, "--pitch -1"),
        ({"camera": "photo", "FoV": 90.0}, "--FoV 90 cuts panoramas"),
        ({"tta": 8, "FoV": 180.0}, "--tta 8.*--FoV is 180"),
        ({"tta": 3}, "tta 3: expected 1 or 8"),
        ({"FoV": 0}, "FoV 0"),
        ({"vertical": (0.0, 90.0)}, r"vertical \[0.0, 90.0\]"),
        ({"panorama_size": (320,)}, r"panorama_size \[320\]: expected 2 values"),
        ({"satellite_size": 100}, "satellite_size 100"),
        ({"aspect": "9:1"}, "aspect '9:1'"),
    ],
)
def test_views_that_cannot_be_are_refused(ill, flag):
    with pytest.raises(UserError, match=flag):
        View(**ill)
    assert View(hfov=(70.0,)).hfov == (70.0, 70.0)


def test_cameras_are_drawn_within_their_range():
    view = View(**PHOTO, pitch=5.0, roll=2.0, tilt_noise=3.0, ori_noise=10.0)
    shares = torch.rand(500, View.CAMERA_DRAWS, generator=torch.Generator().manual_seed(0))
    taken, prior = view.draw_cameras(shares)
    assert 60 <= taken.hfov.min() < 62 and 98 < taken.hfov.max() <= 100.001
    assert prior.pitch.abs().max() <= 5 and prior.roll.abs().max() <= 2
    for name, reach in (("heading", 10), ("pitch", 3), ("roll", 3)):
        apart = wrap_degrees(getattr(taken, name) - getattr(prior, name)).abs()
        assert 0.9 * reach < apart.max() <= reach + 1e-3
    assert taken.heading.min() < -170 and taken.heading.max() > 170
    torch.testing.assert_close(taken.fx * 4, taken.fy * 3)  # of pixels that are square
    torch.testing.assert_close(taken.values[:, 3:], prior.values[:, 3:])
