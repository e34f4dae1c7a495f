"""The Localizer: what the evaluation says of a pair, for any two images, from Python."""

import re
import textwrap
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from children import PROJECT
from PIL import Image

from common import geometry
from common.errors import UserError
from common.geometry import gps_to_position, wrap_degrees
from dataset.index import load_index
from engine.localizer import Localizer
from engine.visualization.localization import own_views
from model.build import build_model
from model.checkpoint import load_model, save_checkpoint
from model.settings import ModelSettings

OLD = PROJECT / "tests/data/old_run"  # any heading, 180 degrees of view, with masks


@pytest.fixture(scope="module")
def localizer():
    return Localizer(OLD, device="cpu")


@pytest.fixture(scope="module")
def pair(vigor_root):
    """Pair 3 of the test list: paths of its images and mask, its centre, and its row of the evaluation."""
    index = load_index(vigor_root, "samearea", "test")
    satellite = index.satellite[3, 0]
    files = {
        "panorama": vigor_root / index.panorama_path(3),
        "satellite": vigor_root / index.satellite_path(satellite),
        "mask": vigor_root / index.mask_path(satellite),
    }
    row = pd.read_csv(OLD / "results/per_image_results_samearea.csv").iloc[3]
    return files, tuple(index.satellite_gps[satellite].tolist()), row


def test_a_place_is_that_of_the_evaluation(localizer, pair):
    """The evaluation saw the panorama rolled to a heading; row and column are pixels of the file, 640 on a side."""
    files, centre, row = pair
    turned = np.asarray(Image.open(files["panorama"]))
    turned = np.roll(turned, -round(row["true_heading_deg"] / 360 * turned.shape[1]), 1)
    found = localizer.locate(turned, files["satellite"], mask=files["mask"], centre=centre, heading=row["true_heading_deg"])
    assert (found.row, found.col) == pytest.approx((row["row_px"] * 1.25, row["col_px"] * 1.25), abs=0.5)
    assert (found.latitude, found.longitude) == pytest.approx((row["latitude"], row["longitude"]), abs=2e-6)
    assert gps_to_position(found.latitude, found.longitude, *centre) == pytest.approx((found.row, found.col), abs=0.01)
    assert abs(wrap_degrees(found.heading - row["heading_deg"])) < 1
    assert found.turned == 0
    assert 0 <= found.probability <= 1 and found.heat_map == "heat map, calibrated (temperature 4.16)"
    assumed, doubt = found.notes
    assert assumed == "no --metres_per_pixel: the satellite image is taken to span 72.4 m, as VIGOR's do at that latitude"
    shares = [round(100 * share) for share in (found.probability, *(share for _, share in found.other_places))]
    assert [int(n) for n in re.findall(r"(\d+) %", doubt)] == shares and doubt.startswith("not sure: ")


def test_paths_and_arrays_any_size_and_many_at_once(localizer, pair):
    files, centre, _ = pair
    half = np.asarray(Image.open(files["satellite"]).resize((320, 320), Image.Resampling.BOX))
    known = {"metres_per_pixel": 0.2, "mask": files["mask"]}
    one = localizer.locate(str(files["panorama"]), half, **known)
    pairs = [{"panorama": files["panorama"], "satellite": half, **known}, {**files, "centre": centre}]
    many = localizer.locate_many(pairs * 3, batch_size=4)
    assert len(many) == 6 and one.latitude is None and many[1].latitude is not None
    for found in many[::2]:
        assert (found.row, found.col, found.heading) == pytest.approx((one.row, one.col, one.heading), abs=1e-2)
    whole = localizer.locate(files["panorama"], files["satellite"], metres_per_pixel=0.1, mask=files["mask"])
    assert (whole.row, whole.col) == pytest.approx((2 * one.row, 2 * one.col), abs=1.0)


def test_the_heading_is_that_of_the_panorama_as_it_was_given(localizer, pair, tmp_path):
    """A network for headings within 20 degrees sees a panorama that looks elsewhere rolled to north."""
    saved = torch.load(OLD / "best.pt", weights_only=True)
    saved["settings"] |= {"ori_noise": 20.0}
    torch.save(saved, tmp_path / "best.pt")
    narrow = Localizer(tmp_path / "best.pt", device="cpu")
    files, _, _ = pair
    north = np.asarray(Image.open(files["panorama"]))
    east = np.roll(north, -north.shape[1] // 4, 1)  # its centre looks east
    known = {"metres_per_pixel": 0.113, "mask": files["mask"]}
    first = narrow.locate(north, files["satellite"], heading=0.0, **known)
    second = narrow.locate(east, files["satellite"], heading=90.0, **known)
    assert (second.row, second.col) == pytest.approx((first.row, first.col))
    assert wrap_degrees(second.heading - first.heading) == pytest.approx(90, abs=1e-3)
    assert "panorama rolled by 90°, so that its centre looks north" in second.notes
    assert (first.turned, second.turned) == pytest.approx((0, -90), abs=1e-3)
    panorama, satellite = own_views(second, east, files["satellite"])
    np.testing.assert_array_equal(panorama, north[:, 64:192])  # pictures show what the network saw, at the size of the files
    assert satellite.shape == (640, 640, 3)


@pytest.mark.parametrize(
    ("known", "says"),
    [
        ({}, "needs its resolution; give --metres_per_pixel"),
        ({"metres_per_pixel": 0.0}, "metres_per_pixel 0.0 is not a number above 0"),
        ({"metres_per_pixel": 0.1, "heading": float("nan")}, "heading nan is not a number from -360 up to 360"),
        ({"centre": (-122.3, 47.57)}, "centre -122.3 is not a number from -85 up to 85; latitude comes first: 47.57 -122.3?"),
        ({"metres_per_pixel": 0.1, "panorama": np.zeros((64, 128, 3))}, r"given as float64 \(64, 128, 3\): expected uint8"),
        (
            {"metres_per_pixel": 0.1, "panorama": np.zeros((64, 64, 3), np.uint8)},
            "the image given: 64 x 64 px, but a whole panorama",
        ),
        ({"metres_per_pixel": 0.1, "satellite": np.zeros((64, 32, 3), np.uint8)}, "the image given: 32 x 64 px, but a satellite"),
        ({"metres_per_pixel": 0.1, "satellite": "nowhere.png"}, "nowhere.png: no such file"),
    ],
)
def test_what_cannot_be_located(localizer, pair, known, says):
    files, _, _ = pair
    with pytest.raises(UserError, match=says):
        localizer.locate_many([{"panorama": files["panorama"], "satellite": files["satellite"], **known}])


def test_the_lines_of_the_readme(pair, tmp_path, monkeypatch):
    """The block below 'From Python', in a folder that holds what it names."""
    section = (PROJECT / "README.md").read_text("utf-8").partition("## From Python")[2].partition("\n## ")[0]
    (block,) = re.findall(r"(?:^    .*\n)+", section, flags=re.M)
    files, _, _ = pair
    (tmp_path / "street.jpg").symlink_to(files["panorama"])
    (tmp_path / "above.png").symlink_to(files["satellite"])
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 26  # millimetres, as a phone tells them
    Image.new("RGB", (400, 300)).save(tmp_path / "phone.jpg", exif=exif)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(textwrap.dedent(block).replace("runs/VIGOR/<run>", str(OLD)), names)
    assert 0 <= names["found"].row < 640 and abs(names["found"].latitude - 41.85) < 1e-3
    assert float(names["other"].estimate.camera.hfov) == pytest.approx(67.3, abs=0.1)


@pytest.fixture(scope="module")
def light(tmp_path_factory):
    """The light network, which takes images of any extent; it was never trained."""
    torch.manual_seed(0)
    settings = ModelSettings(network="light", satellite_size=64, panorama_size=(64, 128), matching_radius=16.0, use_mask=False)
    model = build_model(settings)
    torch.nn.init.normal_(model.head.convolutions[-2].weight, std=0.1)
    folder = tmp_path_factory.mktemp("light")
    save_checkpoint(folder / "best.pt", {"settings": settings.plain(), "model": model.state_dict()})
    return Localizer(folder, device="cpu")


@pytest.mark.parametrize(
    ("size", "metres_per_pixel", "seen"),
    [
        ((640, 640), 0.11, (64, 64)),  # VIGOR's extent: as in training
        ((640, 640), 0.22, (119, 119)),  # twice that, at the coarsest resolution of training, 76 m on 64 px
        ((320, 320), 0.1, (32, 32)),  # half of it, at the finest, 64 m on 64 px
        ((300, 500), 0.4, (101, 168)),
        ((1000, 400), 0.18, (160, 64)),
    ],
)
def test_an_image_of_any_extent_is_seen_at_the_resolution_of_training(light, pair, size, metres_per_pixel, seen):
    files, centre, _ = pair
    image = np.asarray(Image.open(files["satellite"]).resize(size[::-1]))
    found = light.locate(files["panorama"], image, metres_per_pixel=metres_per_pixel, centre=centre, heading=0.0)
    assert found.sample["satellite"].shape[1:] == found.estimate.probability.shape == seen
    assert not [note for note in found.notes if not note.startswith("not sure")]
    resolution = float(found.sample["metres_per_pixel"])
    assert resolution == pytest.approx(size[0] * metres_per_pixel / seen[0], rel=0.01)
    assert 63.5 / 64 <= resolution <= 76.5 / 64
    row, col = found.estimate.position
    assert (found.row, found.col) == pytest.approx((row * size[0] / seen[0], col * size[1] / seen[1]))
    # In metres from the image's centre, on the globe: rows and columns of an image that is not square are not mixed up.
    place = gps_to_position(found.latitude, found.longitude, *centre)
    there = (np.subtract(place, 320) * geometry.metres_per_pixel(centre[0])).tolist()
    expected = [(value - side / 2) * metres_per_pixel for value, side in zip((found.row, found.col), size, strict=True)]
    assert there == pytest.approx(expected, abs=0.6)


def test_an_unknown_height_is_told_and_a_known_one_is_heard(tmp_path, pair):
    files, _, _ = pair
    torch.manual_seed(0)
    settings = ModelSettings(
        network="light", satellite_size=64, panorama_size=(64, 128), matching_radius=16.0, use_mask=False, height_factor=1.6
    )
    save_checkpoint(tmp_path / "best.pt", {"settings": settings.plain(), "model": build_model(settings).state_dict()})
    known = {"panorama": files["panorama"], "satellite": files["satellite"], "metres_per_pixel": 0.11, "heading": 0.0}
    found = Localizer(tmp_path, device="cpu").locate(**known)
    assert 2.5 / 1.6 <= found.camera_height <= 2.5 * 1.6
    assert f"by both images, the camera stood {found.camera_height:.1f} m above the street" in found.notes
    assert found.record()["camera_height"] == found.camera_height

    def heat_map(height, folder=tmp_path):
        found = Localizer(folder, device="cpu", camera_height=height).locate(**known)
        assert found.camera_height is None and not any("the camera stood" in note for note in found.notes)
        return found.estimate.probability

    other = tmp_path / "one height"
    other.mkdir()
    weights = load_model(tmp_path).model.state_dict()
    save_checkpoint(other / "best.pt", {"settings": replace(settings, height_factor=1.0).plain(), "model": weights})
    assert np.array_equal(heat_map(1.6), heat_map(1.6, other))  # knows 2.5 m, and is told another
    assert abs(heat_map(1.6) - heat_map(3.5)).max() > 1e-6
    assert np.array_equal(heat_map(2.5), heat_map(None, other))


def test_a_network_that_lays_nothing_on_the_ground_hears_of_no_height(tmp_path):
    settings = ModelSettings(satellite_size=64, panorama_size=(64, 128), d_model=8, num_heads=1, n_layer=1)
    save_checkpoint(tmp_path / "best.pt", {"settings": settings.plain(), "model": build_model(settings).state_dict()})
    with pytest.raises(UserError, match=r"--camera_height: .*best.pt lays nothing out on the ground; networks light"):
        Localizer(tmp_path, device="cpu", camera_height=1.6)


def test_images_of_several_extents_at_once(light, pair):
    files, _, _ = pair
    whole = np.asarray(Image.open(files["satellite"]))
    pairs = [
        {"panorama": files["panorama"], "satellite": whole[:side], "metres_per_pixel": 0.11} for side in (640, 640, 500, 640)
    ]
    many = light.locate_many(pairs)
    assert [found.estimate.probability.shape for found in many] == [(64, 64), (64, 64), (55, 70), (64, 64)]
    alone = light.locate(**pairs[2])
    assert (many[2].row, many[2].col) == pytest.approx((alone.row, alone.col), abs=1e-2)
    assert 0 <= alone.row <= 500 and (many[3].row, many[3].col) == pytest.approx((many[0].row, many[0].col), abs=1e-2)


def test_an_image_that_is_too_large_or_of_no_known_shape(light, pair):
    files, centre, _ = pair
    large = np.zeros((640, 700, 3), np.uint8)
    with pytest.raises(UserError, match="the image given: 3500 m long, but this network takes 2432 m at once; cut it"):
        light.locate(files["panorama"], large, metres_per_pixel=5.0)
    with pytest.raises(UserError, match="700 x 640 px, but a satellite image is square; give --metres_per_pixel, or cut it"):
        light.locate(files["panorama"], large, centre=centre)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A Localizer for photographs of any heading, with random weights."""
    folder = tmp_path_factory.mktemp("photo")
    torch.manual_seed(0)
    small = {"satellite_size": 64, "panorama_size": (64, 128), "photo_width": 128, "use_mask": False, "heading_bins": 8}
    model = build_model(ModelSettings(network="light", camera="photo", ori_noise=180.0, **small))
    save_checkpoint(folder / "best.pt", {"settings": model.settings.plain(), "model": model.state_dict()})
    return Localizer(folder, device="cpu")


def test_photographs_of_several_shapes_at_once(photographs, pair):
    files, centre, _ = pair
    generator = np.random.default_rng(0)
    wide, upright = (generator.integers(0, 255, shape, dtype=np.uint8) for shape in ((300, 400, 3), (400, 300, 3)))
    known = {"satellite": files["satellite"], "centre": centre}
    pairs = [{"photo": wide, "hfov": 80.0}, {"photo": upright, "hfov": 60.0, "pitch": -5.0, "heading": 30.0}]
    many = photographs.locate_many([pair | known for pair in pairs * 2])
    for found, given in zip(many, pairs * 2, strict=True):
        one = photographs.locate(**given, **known)
        assert (found.row, found.col, found.heading) == pytest.approx((one.row, one.col, one.heading), abs=1e-2)
    camera = many[1].estimate.camera
    assert float(camera.hfov) == pytest.approx(60) and float(camera.pitch) == -5 and float(camera.heading) == 30
    assert any("no --pitch" in note for note in many[0].notes) and not any("no --pitch" in note for note in many[1].notes)
    picture, above = own_views(many[1], upright, files["satellite"])
    np.testing.assert_array_equal(picture, upright)
    assert above.shape == (640, 640, 3)


def test_what_a_photograph_s_answer_hangs_on(photographs, pair):
    """Heading and camera reach the network: another of either gives another heat map, a turn of both the same."""
    files, centre, _ = pair
    photo = np.random.default_rng(1).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    known = {"photo": photo, "satellite": files["satellite"], "centre": centre}
    first = photographs.locate(**known, hfov=80.0, heading=0.0)
    wider, turned = photographs.locate(**known, hfov=100.0, heading=0.0), photographs.locate(**known, hfov=80.0, heading=45.0)
    assert np.abs(wider.estimate.probability - first.estimate.probability).max() > 1e-7
    # Eight headings are looked for, 45 degrees apart: told another of these, the same are compared.
    np.testing.assert_allclose(turned.estimate.probability, first.estimate.probability, rtol=1e-3, atol=1e-8)
    assert abs(wrap_degrees(turned.heading - first.heading)) < 1e-2


def test_an_estimated_tilt_is_told_and_drawn(tmp_path, pair):
    """The camera of the answer, whose horizon pictures show, and a note, are of the estimate."""
    settings = ModelSettings(
        network="light",
        camera="photo",
        tilt_noise=5.0,
        satellite_size=64,
        panorama_size=(64, 128),
        photo_width=128,
        use_mask=False,
    )
    model = build_model(settings)
    model.tilt.differences.bias.data = torch.tensor((-0.6, 0.2))
    save_checkpoint(tmp_path / "best.pt", {"settings": settings.plain(), "model": model.state_dict()})
    photo = np.random.default_rng(1).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    known = {"photo": photo, "satellite": pair[0]["satellite"], "centre": pair[1], "hfov": 80.0, "heading": 10.0}
    found = Localizer(tmp_path, device="cpu").locate(**known, pitch=2.0)
    assert (float(found.estimate.camera.pitch), float(found.estimate.camera.roll)) == pytest.approx((-4, 2))
    assert "by the photograph, the camera looks 4.0° down and is turned 2.0° clockwise" in found.notes
    assert found.sample["camera"][1:3].tolist() == [2, 0]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"panorama": np.zeros((64, 128, 3), np.uint8)}, "a panorama, but this network was trained for photographs"),
        ({"photo": np.zeros((64, 96, 3), np.uint8)}, "tells no focal length"),
        ({}, "give either a panorama or a photograph"),
        ({"photo": "nowhere.jpg"}, "nowhere.jpg: no such file"),
    ],
)
def test_what_a_network_for_photographs_refuses(photographs, pair, given, says):
    with pytest.raises(UserError, match=says):
        photographs.locate(**given, satellite=pair[0]["satellite"], centre=pair[1])


def test_what_a_network_for_panoramas_refuses(localizer, pair):
    files, centre, _ = pair
    known = {"satellite": files["satellite"], "centre": centre}
    with pytest.raises(UserError, match="a photograph, but this network was trained for panoramas; leave --model_path out"):
        localizer.locate(photo=files["panorama"], **known)
    with pytest.raises(UserError, match="--hfov is of photographs"):
        localizer.locate(files["panorama"], hfov=60.0, **known)


def test_photographs_need_a_heading_where_the_network_was_told_one(photographs, pair):
    narrow = Localizer(photographs.loaded.file, device="cpu", told_within=20.0)
    assert narrow.loaded.model.matching.headings.abs().max() <= 45
    with pytest.raises(UserError, match="trained for headings within 20 degrees; give --heading"):
        narrow.locate(photo=np.zeros((96, 128, 3), np.uint8), hfov=70.0, satellite=pair[0]["satellite"], centre=pair[1])
