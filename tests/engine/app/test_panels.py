"""Panels that take clicks, and what users write into fields."""

import numpy as np
import pytest
import torch

from common.camera import Panorama, pinhole
from common.errors import UserError
from engine.app import panels
from engine.app.forms import fault_on_page, read_form
from engine.inference.predictor import Estimate


def estimate(camera):
    place = np.zeros((40, 80)), (10.0, 20.0), None, None
    return Estimate(*place, 75.0, None, None, None, camera)


@pytest.mark.parametrize(
    ("camera", "click", "bearing"),
    [
        (Panorama(torch.zeros(1, 1)), (500, 3), 75),
        (Panorama(torch.zeros(1, 1), span=90.0), (1000, 3), 120),
        (Panorama(torch.zeros(1, 1), top=38.6, bottom=26.9), (750, 3), 165),
        (pinhole(400, 300, hfov=90)[None], (500, 10), 75),
        (pinhole(400, 300, hfov=90)[None], (1000, 375), 120),  # the panel is 1000 x 750 pixels
    ],
)
def test_a_street_panel_s_pixels_are_bearings(camera, click, bearing):
    assert panels.bearing_in_street(click, estimate(camera)) == pytest.approx(bearing, abs=1e-3)


def test_a_satellite_panel_s_pixels_are_bearings():
    one = estimate(Panorama(torch.zeros(1, 1)))
    assert panels.bearing_in_satellite((250, 0), one) == pytest.approx(0)
    assert panels.bearing_in_satellite((1000, 125), one) == pytest.approx(90)


def test_fields():
    given = read_form(lens="90, -5", vertical="38.6 26.9", near="")
    assert given == {"lens": {"hfov": 90, "pitch": -5}, "vertical": (38.6, 26.9), "near": None}


@pytest.mark.parametrize(
    ("field", "text"),
    [("heading", "much"), ("heading", "1 2"), ("near", "47.6"), ("near", "-122.3 47.6"), ("vertical", "38.6")]
    + [("vertical", "38.6 100"), ("radius", "1e9"), ("opacity", "nan"), ("test_panorama", "1e30")],
)
def test_fields_that_cannot_be_read(field, text):
    with pytest.raises(UserError, match=f"(?i){field.replace('_', ' ')}.*{text.split()[-1]}"):
        read_form(**{field: text})


def test_faults_name_no_folders_and_no_flags():
    words = fault_on_page(UserError("/data/tile.png: give --metres_per_pixel"))
    assert "Tile.png" in words and "*Metres per pixel*" in words and "/" not in words and "--" not in words
    without = fault_on_page(UserError("a.png: a photograph; leave --model_path out, or give --hfov"))
    assert without == "⚠ A.png: a photograph"  # the page has no field for a network
    assert fault_on_page(ValueError("ours")) is None


def test_the_camera_s_field_takes_three_numbers():
    for text in ("200", "60 1 2 3", "60 90"):
        with pytest.raises(UserError, match=f"photograph's camera.*{text.split()[-1]}"):
            read_form(lens=text)
