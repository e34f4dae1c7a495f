"""KITTI's layout, drawn small: positions of photographs, crops of satellite images, heading priors."""

import math
import shutil
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from children import SMALL, call, centre_of_mass, draw_a_pair, light_at, open_pairs, refusal, run_folder
from PIL import Image

from common.errors import UserError
from common.geometry import mercator_px, wrap_degrees
from common.view import View
from dataset.kitti import METRES_PER_PIXEL
from engine.visualization.samples import Samples

DAY, DRIVE = "2011_09_26", "2011_09_26/2011_09_26_drive_0002_sync"
OTHER_DRIVE = DRIVE.replace("0002", "0009")
YAWS = (0.0, math.pi / 2, -2.5, 0.7)  # radians, from east, counter-clockwise
SHIFTS = ((0.5, 0.25, 0.3), (-1.0, 1.0, -1.0), (0.1, -0.73, 0.0), (0.0, 0.0, 1.0))
LATITUDE, LONGITUDE = 49.011, 8.423
PHOTO, SIZE = (124, 37), (32, 96)  # (width, height) of files, (height, width) of what a network sees
VIEW = View(satellite_size=640, camera="photo", photo_width=SIZE[1], aspect="3:1")


opened = partial(open_pairs, view=VIEW)


def stands_at(yaw):
    """(col, row) of the camera in a satellite image, from the vehicle's axes in metres east and north."""
    ahead, left = (math.cos(yaw), math.sin(yaw)), (-math.sin(yaw), math.cos(yaw))
    east, north = (1.08 * a - 0.26 * b for a, b in zip(ahead, left, strict=True))
    return 640 + east / METRES_PER_PIXEL, 640 - north / METRES_PER_PIXEL


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Four test photographs, and the same four in another drive for training. Read only."""
    root = tmp_path_factory.mktemp("kitti")
    (root / "raw_data" / DAY).mkdir(parents=True)
    calibration = "calib_time: 09-Jan-2012\nP_rect_00: 1 0 1 0 0 1 1 0 0 0 1 0\n"
    calibration += "P_rect_02: 72.0 0 60.5 4.5 0 70.0 17.5 0 0 0 1 0\n"
    (root / "raw_data" / DAY / "calib_cam_to_cam.txt").write_text(calibration)
    for drive in (DRIVE, OTHER_DRIVE):
        for number, yaw in enumerate(YAWS):
            name = f"{number:010d}"
            photos, poses = (root / f"raw_data/{drive}/{folder}/data" for folder in ("image_02", "oxts"))
            for folder in (photos, poses, root / "satmap" / drive):
                folder.mkdir(parents=True, exist_ok=True)
            photo = np.zeros((PHOTO[1], PHOTO[0], 3), np.uint8)
            photo[:, : PHOTO[0] // 2, 0] = 255
            Image.fromarray(photo).save(photos / f"{name}.png")
            pose = f"{LATITUDE} {LONGITUDE} 112.8 0.02 0.01 {yaw} " + "0 " * 24
            (poses / f"{name}.txt").write_text(pose)
            col, row = stands_at(yaw)
            light_at(row, col, (1280, 1280)).save(root / f"satmap/{drive}/{name}.png")
    tests = [f"{DRIVE}/{n:010d}.png {x} {y} {theta}\n" for n, (x, y, theta) in enumerate(SHIFTS)]
    (root / "dataLoader").mkdir()
    for file, lines in (("test1", tests), ("test2", tests[:2])):
        (root / "dataLoader" / f"{file}_files.txt").write_text("".join(lines))
    (root / "train_files.txt").write_text("".join(f"{OTHER_DRIVE}/{n:010d}.png\n" for n in range(4)))
    return root


def test_the_camera_is_where_the_mark_is(root):
    dataset = opened(root, "samearea", "test")
    for i in range(len(YAWS)):
        for kind in range(4):
            sample = dataset.pair(i, kind)
            seen = centre_of_mass(sample["satellite"][0].double().numpy())
            np.testing.assert_allclose(seen, sample["position"], atol=0.03)


@pytest.mark.parametrize("i", range(len(YAWS)))
def test_the_crop_is_the_benchmark_s(root, i):
    """Its centre lies shift_x behind the camera and shift_y to its right, up to half a pixel of the file."""
    sample = opened(root, "samearea", "test")[i]
    (x, y, _), yaw = SHIFTS[i], YAWS[i]
    ahead, left = np.array([math.cos(yaw), math.sin(yaw)]), np.array([-math.sin(yaw), math.cos(yaw)])
    east, north = -20 * x * ahead - 20 * y * left  # of the centre, seen from the camera
    metres = float(sample["metres_per_pixel"])
    assert metres == pytest.approx(METRES_PER_PIXEL / 2, rel=1e-6)
    assert metres == pytest.approx(0.0979, abs=1e-4)
    np.testing.assert_allclose((sample["position"] - 320) * metres, (north, -east), atol=metres + 1e-6)


@pytest.mark.parametrize("noise", [10.0, 0.0, 5.0])
def test_headings_are_clockwise_from_north_and_priors_those_of_the_list(root, noise):
    dataset = opened(root, "samearea", "test", ori_noise=noise)
    for sample, yaw, (*_, share) in zip(dataset, YAWS, SHIFTS, strict=False):
        heading = float(sample["heading"])
        assert heading == pytest.approx(wrap_degrees(90 - math.degrees(yaw)), abs=1e-4)
        error = wrap_degrees(float(sample["camera"].heading) - heading)
        assert abs(error) <= noise + 1e-4
        if noise == 10:
            assert error == pytest.approx(10 * share, abs=1e-4)


def test_the_camera_s_numbers_are_shares_of_the_photograph(root):
    sample, (width, height) = opened(root, "samearea", "test")[0], PHOTO
    lens = [72 / width, 70 / height, 61 / width, 18 / height]  # the middle of the file's first pixel is at 0
    np.testing.assert_allclose(sample["camera"].values[1:], [0, 0, *lens, 0, 0, 0, 0, 0], rtol=1e-6)
    assert sample["query"].shape == (3, *SIZE)
    assert sample["query"][0, :, :46].min() > 200 and sample["query"][0, :, 50:].max() < 60


def test_satellite_images_lie_on_the_map_where_the_unit_was(root):
    """A position on the map is that of the camera, 1.11 m from the GPS unit."""
    dataset = opened(root, "samearea", "test")
    unit = np.array(mercator_px(LATITUDE, LONGITUDE))
    for i, yaw in enumerate(YAWS):
        place = dataset[i]["corner"].numpy() + dataset[i]["position"].numpy()
        col, row = stands_at(yaw)
        np.testing.assert_allclose(place - unit, [2 * (row - 640), 2 * (col - 640)], atol=1e-3)


def test_splits(root):
    def names(area, split):
        return set(opened(root, area, split).index.panorama.tolist())

    assert len(names("samearea", "test")) == 4 and len(names("crossarea", "test")) == 2
    train, val = (names("samearea", split) for split in ("train", "val"))
    assert len(train | val) == 4 and not train & val
    assert (train, val) == (names("crossarea", "train"), names("crossarea", "val"))
    assert all(b"drive_0009" in name for name in train | val)


def test_training_squares_hold_the_camera_and_stay(root):
    index = opened(root, "samearea", "train", training=True).index
    again = opened(root, "samearea", "train", training=True).index
    np.testing.assert_array_equal(index.position, again.position)
    metres = np.linalg.norm(index.position - 320, axis=-1) * METRES_PER_PIXEL / 2
    assert index.inside.all() and index.prior_heading is None
    assert metres.max() < 20 * math.sqrt(2) + 0.2 and len(np.unique(metres)) == metres.size


BROKEN = ["train_files.txt", f"raw_data/{DAY}/calib_cam_to_cam.txt", f"raw_data/{OTHER_DRIVE}/oxts"]


@pytest.mark.parametrize("broken", [*BROKEN, f"satmap/{OTHER_DRIVE}"])
def test_what_is_missing_is_named(copy, broken):
    path = copy / broken
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match=broken) as error:
        opened(copy, "samearea", "train")
    assert "\n" not in str(error.value)


ENTRY = f"{DRIVE}/0000000000.png"


@pytest.mark.parametrize("line", [ENTRY, f"{ENTRY} 0.1 1.5 0", "0000000000.png 0 0 0"])
def test_a_test_line_is_checked(copy, line):
    (copy / "dataLoader/test1_files.txt").write_text(f"{line}\n")
    with pytest.raises(UserError, match=rf"test1_files\.txt, line 1: '{line}'"):
        opened(copy, "samearea", "test")


def test_a_satellite_image_of_another_zoom_is_refused(copy):
    Image.new("RGB", (640, 640)).save(copy / f"satmap/{ENTRY}")
    with pytest.raises(UserError, match=f"{ENTRY}: expected 1280 x 1280 px"):
        opened(copy, "samearea", "test")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"use_mask": True}, "--use_mask False"),
        ({"cache_root": "cache"}, "no cache; make it with python -m dataset.cache"),
        ({"labels": "gps"}, "--labels gps: "),
        ({"cities": ["Berlin"]}, "--test_cities Berlin: .* Karlsruhe"),
        ({"camera": "panorama"}, "photographs"),
    ],
)
def test_options_that_do_not_apply_are_refused(root, options, line):
    with pytest.raises(UserError, match=line):
        opened(root, "samearea", "test", **options)


def test_the_check_is_for_vigor_s_layout(root, capsys):
    line = refusal("dataset.check", f"--dataset_root {root}", capsys)
    assert "KITTI" in line and "dataset.check" in line


def test_the_cache_gives_the_same_samples(root, tmp_path, capsys):
    """Of all areas and splits; each crop is a file of its own."""
    sizes = {"satellite_size": 320, "photo_width": 128, "aspect": "4:1"}  # crops keep their pixels
    words = f"--dataset_root {root} --cache_root {tmp_path} --satellite_size 320 --panorama_size 32 128"
    call("dataset.cache", f"{words} --use_mask False --lossless True")
    assert "complete, 40 images" in capsys.readouterr().out  # of 8 photographs
    for area, split in (("samearea", "train"), ("samearea", "test"), ("crossarea", "test")):
        cached, read = (opened(root, area, split, cache_root=of, **sizes) for of in (tmp_path, None))
        for row in range(len(read.index)):
            for kind in range(4):
                copy, own = cached.pair(row, kind), read.pair(row, kind)
                for name in ("position", "heading", "corner", "metres_per_pixel", "query", "satellite"):
                    assert torch.equal(copy[name], own[name])
                assert torch.equal(copy["camera"].values, own["camera"].values)


@pytest.mark.slow
def test_training_evaluation_and_pictures_take_the_folder(root, tmp_path):
    words = f"{SMALL} --network light --camera photo --photo_width 64 --camera_height 1.65 --use_mask False"
    words += f" --ori_noise 10 --epochs 1 --max_steps 1 --area crossarea --val_on test --dataset_root {root}"
    call("train_VIGOR", f"{words} --runs_root {tmp_path / 'runs'}")
    run = run_folder(tmp_path / "runs")
    call("eval_VIGOR", f"--model_path {run} --dataset_root {root} --num_workers 0")
    table = pd.read_csv(run / "results/per_image_results_crossarea.csv")
    assert table["metres_per_pixel"].tolist() == pytest.approx([METRES_PER_PIXEL * 320 / 512] * 2)
    assert table["latitude"].tolist() == pytest.approx([LATITUDE] * 2, abs=1e-3)
    draw_a_pair(f"--model_path {run} --dataset_root {root} --idx 1", tmp_path)


def test_pictures_show_the_whole_photograph_and_the_part_of_the_file(root):
    dataset = opened(root, "samearea", "test")
    samples = Samples(None, SimpleNamespace(view=dataset.view), None, dataset, "samearea_test", [1], None)
    street, satellite = samples.views(1, dataset[1])
    assert street.shape == (PHOTO[1], PHOTO[0], 3) and satellite.shape == (320, 320, 3)
    np.testing.assert_allclose(2 * centre_of_mass(satellite[..., 0]), dataset[1]["position"], atol=0.03)
    assert (samples.views(1, dataset[1], kind=2)[1] != satellite).any()
