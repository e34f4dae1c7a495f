"""The Localizer: what the evaluation says of a pair, for any two images, from Python."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from children import SMALL_VIEW, make_network, save_network
from PIL import Image

from common import geometry
from common.errors import UserError
from common.geometry import gps_to_position, wrap_degrees
from dataset.index import load_index
from dataset.loader import evaluation_loader
from dataset.protocol import Protocol, Source, open_data
from engine import localizer
from engine.evaluation.table import make_table
from engine.inference.notes import height_note
from engine.inference.temperatures import FILE, conditions_key, store_fit
from engine.localizer import Localizer
from engine.visualization.localization import own_views
from model.checkpoint import load_model

PAIR = 3  # of the test list
PHOTO = replace(SMALL_VIEW, camera="photo", photo_width=128, ori_noise=180.0)
NOISE = np.random.default_rng(1).integers(0, 255, (300, 400, 3), dtype=np.uint8)  # a photograph


def make(folder, view=SMALL_VIEW, **settings):
    """The folder of a network of random weights."""
    small = {"network": "light", "use_mask": False, "heading_bins": 8, "matching_radius": 16.0}
    return save_network(folder, make_network(view, **small | settings), view)


@pytest.fixture(scope="module")
def light(tmp_path_factory):
    """The light network, which takes images of any extent."""
    return Localizer(make(tmp_path_factory.mktemp("run")), device="cpu")


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """The ground-plane network with masks, for any heading, on 180 degrees of panoramas; it is calibrated."""
    view = replace(SMALL_VIEW, FoV=180.0, ori_noise=180.0)
    folder = make(tmp_path_factory.mktemp("run"), view, network="ground_plane", use_mask=True)
    checkpoint = load_model(folder)
    key = conditions_key(checkpoint, Protocol.pick(checkpoint.data), view)
    store_fit([folder / FILE], key, {"temperature": 4.0, "pairs": 9, "whole": True}, checkpoint)
    return Localizer(folder, device="cpu")


@pytest.fixture(scope="module")
def two(pair):
    """The two images of a pair without its mask."""
    return {name: pair[0][name] for name in ("panorama", "satellite")}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A Localizer for photographs of any heading."""
    return Localizer(make(tmp_path_factory.mktemp("run"), PHOTO), device="cpu")


def files_of(root, number):
    """Paths of the images and the mask of a pair of the test list, and the satellite image's centre."""
    index = load_index(root, "samearea", "test")
    satellite = index.satellite[number, 0]
    images = {"panorama": index.panorama_image(number), "satellite": index.satellite_image(satellite)}
    images["mask"] = index.mask_image(satellite)
    centre = tuple(index.satellite_gps[satellite].tolist())
    return {name: root / image.path for name, image in images.items()}, centre


@pytest.fixture(scope="module")
def pair(vigor_root):
    return files_of(vigor_root, PAIR)


def place(found):
    return found.row, found.col


@pytest.fixture(scope="module")
def unscaled_root(vigor_root, tmp_path_factory):
    """A copy whose panoramas have the network's own size and lose nothing when they are rolled and saved."""
    root = tmp_path_factory.mktemp("unscaled") / "vigor"
    shutil.copytree(vigor_root, root)
    for path in root.glob("*/panorama/*.jpg"):
        Image.open(path).resize(SMALL_VIEW.panorama_size[::-1], Image.Resampling.BOX).save(path, "PNG")
    return root


@pytest.mark.parametrize(("number", "side_m"), [(PAIR, 72.4), (8, 64.4), (13, 75.6), (21, 71.2)])
def test_a_place_is_that_of_the_evaluation(wide, unscaled_root, number, side_m):
    """The evaluation saw the panorama rolled to a heading; row and column are pixels of the file."""
    files, centre = files_of(unscaled_root, number)
    predictor = wide.answerer().predictor
    dataset = open_data(Source(dataset_root=str(unscaled_root)), Protocol(), predictor.view, use_mask=True)
    row = make_table(dataset, predictor.table(evaluation_loader(dataset, 8, 0))).iloc[number]
    turned = np.asarray(Image.open(files["panorama"]))
    turned = np.roll(turned, -round(row["true_heading_deg"] / 360 * turned.shape[1]), 1)
    found = wide.locate(turned, files["satellite"], mask=files["mask"], centre=centre)
    assert place(found) == pytest.approx((row["row_px"] * 1.25, row["col_px"] * 1.25), abs=0.5)
    gps = found.latitude, found.longitude
    assert gps == pytest.approx((row["latitude"], row["longitude"]), abs=2e-6)
    assert gps_to_position(*gps, *centre) == pytest.approx(place(found), abs=0.01)
    assert abs(wrap_degrees(found.heading - row["heading_deg"])) < 1
    assert found.turned == 0 and found.heat_map == "heat map, calibrated (temperature 4)"
    assumed, doubt = found.notes
    assert "no metres_per_pixel" in assumed and f" {side_m} m, as VIGOR's do at that latitude" in assumed
    shares = found.probability, *(share for _, share in found.other_places)
    assert 0 <= found.probability <= 1
    assert [int(n) for n in re.findall(r"(\d+) %", doubt)] == [round(100 * share) for share in shares]


def test_the_probability_near_a_place(light, two):
    found = light.locate(**two, metres_per_pixel=0.11, heading=0.0)
    assert found.probability_near(*place(found)) == pytest.approx(found.probability)
    assert found.probability_near(*place(found), 2.0) < found.probability
    assert found.probability_near(320, 320, 100.0) == pytest.approx(1)
    heat, scale = found.estimate.probability, 640 / 64
    rows, cols = (np.indices(heat.shape) + 0.5) * scale
    for row, col in ((30, 600), (600, 30)):
        distance = np.hypot(rows - row, cols - col) * 0.11
        share = found.probability_near(row, col, 2.0)
        assert heat[distance < 1.2].sum() < share < heat[distance < 2.8].sum()


def test_a_ridge_is_told_in_the_image_s_metres(wide, pair, monkeypatch):
    """A map that is spread 24 px along and 3 px across a line that runs 30 degrees, of 0.5 m a pixel."""
    files, _ = pair
    monkeypatch.setattr(localizer, "spread", lambda probability: (24.0, 3.0, 30.0))
    found = wide.locate(files["panorama"], files["satellite"], mask=files["mask"], metres_per_pixel=0.1)
    scale = found.estimate.metres_per_pixel
    assert (found.along_m, found.across_m, found.along_deg) == pytest.approx((24 * scale, 3 * scale, 30))
    (told,) = [note for note in found.notes if "30°" in note]
    assert f"±{3 * scale:.1f} m" in told and f"±{24 * scale:.1f} m" in told


def test_paths_and_arrays_any_size_and_many_at_once(wide, pair):
    files, centre = pair
    half = np.asarray(Image.open(files["satellite"]).resize((320, 320), Image.Resampling.BOX))
    known = {"metres_per_pixel": 0.2, "mask": files["mask"]}
    one = wide.locate(str(files["panorama"]), half, **known)
    pairs = [{"panorama": files["panorama"], "satellite": half, **known}, {**files, "centre": centre}]
    many = wide.locate_many(pairs * 3, batch_size=4)
    assert len(many) == 6 and one.latitude is None and many[1].latitude is not None
    for found in many[::2]:
        assert (*place(found), found.heading) == pytest.approx((*place(one), one.heading), abs=1e-2)
    whole = wide.locate(**files, metres_per_pixel=0.1)
    assert place(whole) == pytest.approx((2 * one.row, 2 * one.col), abs=1.0)


@pytest.mark.parametrize(
    ("network", "noise", "close"),  # the light network upsamples with an edge at the seam
    [("published", 0.0, 0.0), ("light", 0.0, 0.05), ("ground_plane", 20.0, 1e-4)],
)
def test_the_heading_is_that_of_the_panorama_as_it_was_given(network, noise, close, tmp_path, vigor_root):
    """A panorama that looks east is answered as one that looks north: by its camera, or rolled."""
    backbone = {"backbone": "efficientnet_b0"} if network == "published" else {}
    view = replace(SMALL_VIEW, ori_noise=noise)
    localizer = Localizer(make(tmp_path, view, network=network, **backbone), device="cpu")
    files, _ = files_of(vigor_root, 8)
    north = np.asarray(Image.open(files["panorama"]))
    east = np.roll(north, -north.shape[1] // 4, 1)  # its centre looks east
    known = {"satellite": files["satellite"], "metres_per_pixel": 0.113}
    asked = (north, 0.0), (east, 90.0), (east, 0.0)
    first, second, other = (localizer.locate(image, heading=angle, **known) for image, angle in asked)
    heat = [found.estimate.probability for found in (first, second, other)]
    assert abs(heat[0] - heat[1]).max() <= close * abs(heat[0] - heat[2]).max()
    assert place(first) == pytest.approx(place(second), abs=0.05 if network == "light" else 1e-3)
    assert wrap_degrees(second.heading - first.heading) == pytest.approx(90, abs=1e-3)
    assert 0 < abs(first.heading) < 45 if noise else first.heading == 0  # headings 45 degrees apart are tried
    rolled = network == "published"
    assert ("panorama rolled by 90°, so that its centre looks north" in second.notes) == rolled
    assert (first.turned, second.turned) == pytest.approx((0, -90 if rolled else 0), abs=1e-3)
    panorama, satellite = own_views(second, east, files["satellite"])
    np.testing.assert_array_equal(panorama, north if rolled else east)  # as it was seen
    assert satellite.shape == (640, 640, 3)


def test_cropped_panoramas(light, two):
    """751 x 375 px are whole within one per cent; 1232 x 224 px need --vertical."""
    known = {"satellite": two["satellite"], "metres_per_pixel": 0.11, "heading": 0.0}
    whole = Image.open(two["panorama"])
    almost = light.locate(np.asarray(whole.resize((751, 375))), **known)
    assert place(almost) == pytest.approx(place(light.locate(whole.filename, **known)), abs=10)
    top, bottom = ((90 + angle) / 180 * whole.height for angle in (-38.6, 26.9))
    cropped = np.asarray(whole.resize((1232, 224), box=(0, top, whole.width, bottom)))

    for columns, span, width in ((slice(None), 360, 128), (slice(308, 924), 180.1, 64)):
        found = light.locate(cropped[:, columns], **known, vertical=(38.6, 26.9))
        assert found.estimate.camera.extent == pytest.approx((span, 38.6, 26.9), abs=0.1)
        assert found.sample["query"].shape == (3, 24, width)


SCALE = {"metres_per_pixel": 0.1}

CROPPED, LARGE = np.zeros((224, 1232, 3), np.uint8), np.zeros((640, 700, 3), np.uint8)
REFUSED = [
    ("wide", {}, "give metres_per_pixel"),
    ("wide", {"centre": (-122.3, 47.57)}, "centre -122.3.*47.57 -122.3?"),
    ("wide", SCALE | {"panorama": np.zeros((64, 128, 3))}, r"float64 \(64, 128, 3\)"),
    ("wide", SCALE | {"panorama": np.zeros((64, 64, 3), np.uint8)}, "64 x 64 px"),
    ("wide", SCALE | {"satellite": np.zeros((64, 32, 3), np.uint8)}, "32 x 64 px"),
    ("wide", SCALE | {"satellite": "nowhere.png"}, "nowhere.png: no such file"),
    ("wide", SCALE | {"satellite": None}, "no satellite image"),
    ("wide", SCALE | {"panorama": None, "photo": NOISE}, "leave checkpoint out"),
    ("wide", SCALE | {"hfov": 60.0}, "^hfov"),
    ("light", {"satellite": LARGE, "metres_per_pixel": 5.0}, "3500 m long"),
    ("light", {"satellite": LARGE, "centre": (41.8, -87.6)}, r"700 x 640 px.*metres_per_pixel"),
    ("light", SCALE | {"panorama": CROPPED}, r"1232 x 224 px.*; vertical"),
    ("light", SCALE | {"panorama": CROPPED, "vertical": (60.0, 60.0)}, "vertical"),
    ("light", SCALE | {"panorama": CROPPED, "vertical": (38.6, 0.0)}, "vertical"),
    ("light", SCALE | {"panorama": CROPPED, "vertical": (38.6,)}, "vertical"),
    ("photographs", SCALE, "a panorama.*--camera photo"),
    ("photographs", SCALE | {"panorama": None, "photo": NOISE}, "give hfov"),
    ("photographs", SCALE | {"panorama": None}, "a panorama or a photograph"),
    ("photographs", SCALE | {"panorama": None, "photo": "nowhere.jpg"}, "nowhere.jpg: no such file"),
    ("photographs", SCALE | {"panorama": None, "photo": NOISE, "vertical": (40.0, 30.0)}, "^vertical"),
    ("narrow", SCALE | {"panorama": None, "photo": NOISE, "hfov": 60.0}, r"20 degrees; give heading"),
]


@pytest.fixture(scope="module")
def narrow(photographs):
    """A Localizer for photographs whose headings are known within 20 degrees."""
    return Localizer(photographs.checkpoint, device="cpu", ori_noise=20.0)


@pytest.mark.parametrize(("localizer", "known", "says"), REFUSED)
def test_what_cannot_be_located(request, two, localizer, known, says):
    with pytest.raises(UserError, match=says):
        request.getfixturevalue(localizer).locate_many([two | known])


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
def test_images_of_any_extent_are_seen_as_in_training(light, pair, size, metres_per_pixel, seen):
    files, centre = pair
    image = np.asarray(Image.open(files["satellite"]).resize(size[::-1]))
    known = {"metres_per_pixel": metres_per_pixel, "centre": centre, "heading": 0.0}
    found = light.locate(files["panorama"], image, **known)
    assert found.sample["satellite"].shape[1:] == found.estimate.probability.shape == seen
    assert not [note for note in found.notes if not note.startswith("not sure")]
    resolution = float(found.sample["metres_per_pixel"])
    assert resolution == pytest.approx(size[0] * metres_per_pixel / seen[0], rel=0.01)
    assert 63.5 / 64 <= resolution <= 76.5 / 64
    row, col = found.estimate.position
    assert place(found) == pytest.approx((row * size[0] / seen[0], col * size[1] / seen[1]))
    # In metres from the image's centre, on the globe: rows and columns are not mixed up.
    there = np.subtract(gps_to_position(found.latitude, found.longitude, *centre), 320)
    expected = [(value - side / 2) * metres_per_pixel for value, side in zip(place(found), size, strict=True)]
    assert (there * geometry.metres_per_pixel(centre[0])).tolist() == pytest.approx(expected, abs=0.6)


def test_images_of_several_extents_at_once(light, two):
    whole = np.asarray(Image.open(two["satellite"]))
    pairs = [two | {"satellite": whole[:side], "metres_per_pixel": 0.11} for side in (640, 640, 500, 640)]
    many = light.locate_many(pairs)
    assert [found.estimate.probability.shape for found in many] == [(64, 64), (64, 64), (55, 70), (64, 64)]
    alone = light.locate(**pairs[2])
    assert place(many[2]) == pytest.approx(place(alone), abs=1e-2)
    assert 0 <= alone.row <= 500 and place(many[3]) == pytest.approx(place(many[0]), abs=1e-2)


def test_an_unknown_height_is_found_and_a_known_one_is_used(tmp_path, two):
    make(tmp_path, height_factor=1.6)
    known = two | {"metres_per_pixel": 0.11, "heading": 0.0}
    found = Localizer(tmp_path, device="cpu").locate(**known)
    assert 2.5 / 1.6 <= found.camera_height <= 2.5 * 1.6
    record = found.record()
    assert record["camera_height"] == found.camera_height
    assert record["along_m"] >= record["across_m"] > 0 and 0 <= record["along_deg"] < 180
    assert any(f"{found.camera_height:.1f} m above" in note for note in found.notes)
    other = tmp_path / "one height"
    other.mkdir()
    make(other)  # the same weights, for 2.5 m

    def heat_map(height, folder=tmp_path):
        found = Localizer(folder, device="cpu", camera_height=height).locate(**known)
        assert found.camera_height is None and not any("m above" in note for note in found.notes)
        return found.estimate.probability

    assert np.array_equal(heat_map(1.6), heat_map(1.6, other))
    assert abs(heat_map(1.6) - heat_map(3.5)).max() > 1e-6
    assert np.array_equal(heat_map(2.5), heat_map(None, other))
    make(tmp_path, network="published")
    with pytest.raises(UserError, match=r"^camera_height"):
        Localizer(tmp_path, device="cpu", camera_height=1.6)


def test_photographs_of_several_shapes_at_once(photographs, pair):
    known = {"satellite": pair[0]["satellite"], "centre": pair[1]}
    upright = np.ascontiguousarray(NOISE.swapaxes(0, 1))
    pairs = [{"photo": NOISE, "hfov": 80.0}, {"photo": upright, "hfov": 60.0, "pitch": -5.0, "heading": 30.0}]
    many = photographs.locate_many([pair | known for pair in pairs * 2])
    for found, given in zip(many, pairs * 2, strict=True):
        one = photographs.locate(**given, **known)
        assert (*place(found), found.heading) == pytest.approx((*place(one), one.heading), abs=1e-2)
    camera = many[1].estimate.camera
    assert [float(x) for x in (camera.hfov, camera.pitch, camera.heading)] == pytest.approx([60, -5, 30])
    assert [any("no pitch" in note for note in found.notes) for found in many[:2]] == [True, False]
    np.testing.assert_array_equal(own_views(many[1], upright, known["satellite"])[0], upright)


def test_what_a_photograph_s_answer_depends_on(photographs, pair):
    known = {"photo": NOISE, "satellite": pair[0]["satellite"], "centre": pair[1]}
    asked = ({"hfov": 80.0, "heading": 0.0}, {"hfov": 100.0, "heading": 0.0}, {"hfov": 80.0, "heading": 45.0})
    first, wider, turned = (photographs.locate(**known, **given) for given in asked)
    assert np.abs(wider.estimate.probability - first.estimate.probability).max() > 1e-7
    # Eight headings are tried, 45 degrees apart: with a prior among these the same are compared.
    np.testing.assert_allclose(turned.estimate.probability, first.estimate.probability, rtol=1e-3, atol=1e-8)
    assert abs(wrap_degrees(turned.heading - first.heading)) < 1e-2


def test_an_estimated_tilt_is_the_answer_s(tmp_path, pair):
    view = replace(PHOTO, tilt_noise=5.0, ori_noise=0.0)
    network = make_network(view, network="light", use_mask=False)
    network.tilt.differences.bias.data[:] = network.tilt.differences.bias.new_tensor((-0.6, 0.2))
    known = {"photo": NOISE, "satellite": pair[0]["satellite"], "centre": pair[1], "heading": 10.0}
    localizer = Localizer(save_network(tmp_path, network, view), device="cpu")
    found = localizer.locate(**known, hfov=80.0, pitch=2.0)
    camera, prior = found.estimate.camera, found.sample["camera"]
    assert (float(camera.pitch), float(camera.roll)) == pytest.approx((-4, 2))
    assert any("4.0° down" in note and "2.0° clockwise" in note for note in found.notes)
    assert (float(prior.pitch), float(prior.roll)) == (2, 0)


def test_networks_are_loaded_when_a_pair_needs_them(two):
    localizer, known = Localizer(device="cpu"), {"satellite": two["satellite"], "centre": (41.8, -87.6)}
    assert localizer.locate(two["panorama"], **known, heading=0.0).estimate.camera.kind == "panorama"
    assert localizer.locate(photo=NOISE, **known, hfov=70.0).estimate.camera.kind == "photo"


def test_a_height_at_an_end_of_the_network_s_range_hints_at_a_wrong_scale():
    lines = {metres: height_note(metres, 2.5, 1.65) for metres in (1.6, 1.7, 2.5, 3.7, 3.8)}
    assert [metres for metres, line in lines.items() if "--metres_per_pixel" in line] == [1.6, 3.8]
    assert "too small" in lines[1.6] and "too large" in lines[3.8]
