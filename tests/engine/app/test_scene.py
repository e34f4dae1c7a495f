"""Scenes for the page's map, examples that are packed, and what users write into fields."""

import numpy as np
import pytest
import torch
from PIL import Image

from common.camera import Panorama, pinhole
from common.errors import UserError
from common.geometry import gps_to_position, mercator_px, metres_per_pixel, web_mercator_m
from dataset.georeference import read_georeference
from engine.app import scene
from engine.app.examples import CHOSEN, load_examples, street_image
from engine.app.forms import fault_on_page, read_form
from engine.app.located import LocatedFiles
from engine.inference.predictor import Estimate
from engine.localizer import Localizer


@pytest.mark.parametrize("camera", [Panorama(torch.zeros(1, 1)), pinhole(400, 300, hfov=90, pitch=-30)[None]])
def test_the_ground_lies_where_the_street_image_shows_it(camera):
    """A red mark on the ground, seen 5 m away at a bearing, lies there on the map."""
    height, width = (400, 800) if camera.kind == "panorama" else (300, 400)
    street = np.zeros((height, width, 3), np.uint8)
    depression = torch.tensor([[float(np.degrees(np.arctan2(2.5, 5.0)))]])
    x, y, seen = camera.project(torch.tensor([[20.0]]), depression)
    assert seen.all()
    row, col = int(y * height), int(x * width)
    street[row - 1 : row + 2, col - 1 : col + 2, 0] = 255
    ground = scene.ground_image(street, camera, heading=40.0)  # so the mark is at 60 degrees
    place = np.argwhere(ground[..., 0] > 100).mean(0) + 0.5
    south, east = (place / len(ground) * 2 - 1) * 16.0
    assert south == pytest.approx(-5 * np.cos(np.radians(60)), abs=0.15)
    assert east == pytest.approx(5 * np.sin(np.radians(60)), abs=0.15)
    assert ground[..., 3].max() == 255 and ground[0, 0, 3] == 0


def test_a_scene_counts_in_pixels_of_the_image_as_given():
    probability = np.zeros((64, 128), np.float32)
    probability[20, 100] = 1
    camera = Panorama(torch.zeros(1, 1))
    one = Estimate(probability, (20.5, 100.5), (10.0, 30.0), 0.5, None, None, None, None, camera)
    views = np.zeros((32, 64, 3), np.uint8), np.zeros((128, 256, 3), np.uint8)
    made = scene.pair_scene(views, one, camera, 0.0, size=(640, 1280))
    assert made["place"] == [1005, 205] and made["map"]["metres"] == pytest.approx(0.05)
    (truth,) = made["layers"][-1]["marks"]
    assert (truth["x"], truth["y"]) == (300, 100)


def test_a_geotiff_says_where_it_lies(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    row, col = mercator_px(41.85, -87.65)
    x, y = web_mercator_m(row - 80, col - 100)
    pixel = web_mercator_m(row, col + 1)[0] - web_mercator_m(row, col)[0]

    def write(shear):
        transform = rasterio.Affine(pixel, shear, x, shear, -pixel, y)
        how = {"driver": "GTiff", "width": 200, "height": 160, "count": 3, "dtype": "uint8"}
        with rasterio.open(tmp_path / "a.tif", "w", crs="EPSG:3857", transform=transform, **how) as file:
            file.write(np.zeros((3, 160, 200), np.uint8))
        return read_georeference(tmp_path / "a.tif")

    place = write(0)
    assert place.centre == pytest.approx((41.85, -87.65), abs=1e-8)
    assert place.metres_per_pixel == pytest.approx(float(metres_per_pixel(41.85)), rel=1e-5)
    with pytest.raises(UserError, match="turned by -45"):
        write(pixel)
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.tif")
    assert read_georeference(tmp_path / "plain.tif") is None


def test_a_street_image_of_an_example_is_cut_or_turned():
    columns = np.broadcast_to((np.arange(360) // 2).astype(np.uint8)[:, None], (180, 360, 3)).copy()
    assert street_image(columns, {"turned": 130})[90, 180, 0] == 155  # 130 degrees
    assert street_image(columns, {"vertical": (30, 20)}).shape == (50, 360, 3)


@pytest.mark.slow
def test_the_examples_show_what_their_captions_say():
    localizer, examples = Localizer(device="cpu"), load_examples()
    assert [one["name"] for one in examples] == [one[0] for one in CHOSEN]
    assert sum(one[name].stat().st_size for one in examples for name in ("street", "satellite")) < 1e6
    for one in examples:
        known = {name: one.get(name) for name in ("centre", "heading", "vertical")}
        metres = float(metres_per_pixel(one["centre"][0]))
        lens = {"hfov": one["hfov"]} if "hfov" in one else None
        files = one["street"], one["satellite"]
        found = LocatedFiles.by(localizer, *files, lens=lens, metres_per_pixel=metres, **known)
        truth = gps_to_position(*one["truth"], *one["centre"])
        away = np.subtract((found.located.row, found.located.col), truth)
        assert np.hypot(*away) * metres < 2
        says = "Somewhere along here" if one["name"] == "rural" else "Here, within"
        assert found.sentence().startswith(says)
        assert abs((found.located.heading - one["facing"] + 180) % 360 - 180) < 5


def test_fields():
    given = read_form(lens="90, -5", vertical="38.6 26.9", near="")
    assert given == {"lens": {"hfov": 90, "pitch": -5}, "vertical": (38.6, 26.9), "near": None}


@pytest.mark.parametrize(
    ("field", "text"),
    [("heading", "much"), ("heading", "1 2"), ("near", "47.6"), ("near", "-122.3 47.6"), ("vertical", "38.6")]
    + [("vertical", "38.6 100"), ("radius", "1e9"), ("zoom", "nan"), ("test_panorama", "1e30")],
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
