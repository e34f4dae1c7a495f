"""KITTI's own layout, drawn small: where its photographs stand, what is cut out of the images from above, what is told."""

import math
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from children import SMALL, call, refusal, run_folder
from PIL import Image

from common.camera import CameraRange
from common.errors import UserError
from common.geometry import mercator_px, wrap_degrees
from dataset.kitti import METRES_PER_PIXEL
from dataset.vigor import open_split
from engine.visualization.samples import Samples

DAY, DRIVE = "2011_09_26", "2011_09_26/2011_09_26_drive_0002_sync"
YAWS = (0.0, math.pi / 2, -2.5, 0.7)  # radians, from east, counter-clockwise
SHIFTS = ((0.5, 0.25, 0.3), (-1.0, 1.0, -1.0), (0.1, -0.73, 0.0), (0.0, 0.0, 1.0))
LATITUDE, LONGITUDE = 49.011, 8.423
PHOTO, SIZE = (124, 37), (32, 96)  # (width, height) of files, (height, width) of what a network sees
CAMERAS = CameraRange((60, 90), 0, 0, 0, 0, SIZE, 3)
SEEN = {"satellite_size": 640, "panorama_size": (64, 128), "use_mask": False, "cameras": CAMERAS}


def stands_at(yaw):
    """(col, row) of the camera in an image from above: by the vectors of the vehicle, in metres east and north."""
    ahead, left = (math.cos(yaw), math.sin(yaw)), (-math.sin(yaw), math.cos(yaw))
    east, north = (1.08 * a - 0.26 * b for a, b in zip(ahead, left, strict=True))
    return 640 + east / METRES_PER_PIXEL, 640 - north / METRES_PER_PIXEL


def mark(image, col, row):
    """Lay one pixel's light on a place between pixels, so that its centre of mass is there."""
    left, top = math.floor(col - 0.5), math.floor(row - 0.5)
    right, down = col - 0.5 - left, row - 0.5 - top
    image[top, left], image[top, left + 1] = 255 * (1 - down) * (1 - right), 255 * (1 - down) * right
    image[top + 1, left], image[top + 1, left + 1] = 255 * down * (1 - right), 255 * down * right


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Four photographs that test and the same four, of another drive, that train. Read only."""
    root = tmp_path_factory.mktemp("kitti")
    (root / "raw_data" / DAY).mkdir(parents=True)
    rest = "0 0 0 0 1 0"
    (root / "raw_data" / DAY / "calib_cam_to_cam.txt").write_text(
        f"calib_time: 09-Jan-2012\nP_rect_00: 1 0 1 0 0 1 1 {rest}\nP_rect_02: 72.0 0 60.5 4.5 0 70.0 17.5 {rest[2:]} 0\n"
    )
    for drive in (DRIVE, DRIVE.replace("0002", "0009")):
        for number, yaw in enumerate(YAWS):
            name = f"{number:010d}"
            for folder in (f"raw_data/{drive}/image_02/data", f"raw_data/{drive}/oxts/data", f"satmap/{drive}"):
                (root / folder).mkdir(parents=True, exist_ok=True)
            photo = np.zeros((PHOTO[1], PHOTO[0], 3), np.uint8)
            photo[:, : PHOTO[0] // 2, 0] = 255
            Image.fromarray(photo).save(root / f"raw_data/{drive}/image_02/data/{name}.png")
            words = f"{LATITUDE} {LONGITUDE} 112.8 0.02 0.01 {yaw} " + "0 " * 24
            (root / f"raw_data/{drive}/oxts/data/{name}.txt").write_text(words)
            above = np.zeros((1280, 1280), np.float64)
            mark(above, *stands_at(yaw))
            Image.fromarray(np.rint(above).astype(np.uint8)).convert("RGB").save(root / f"satmap/{drive}/{name}.png")
    tests = [f"{DRIVE}/{n:010d}.png {x} {y} {theta}\n" for n, (x, y, theta) in enumerate(SHIFTS)]
    (root / "dataLoader").mkdir()
    for file, lines in (("test1", tests), ("test2", tests[:2])):
        (root / "dataLoader" / f"{file}_files.txt").write_text("".join(lines))
    drive = DRIVE.replace("0002", "0009")
    (root / "train_files.txt").write_text("".join(f"{drive}/{n:010d}.png\n" for n in range(4)))
    return root


def centre_of_mass(image):
    """(row, col) of the light in (3, S, S)."""
    light = image[0].double().numpy()
    rows, cols = np.mgrid[: light.shape[0], : light.shape[1]] + 0.5
    return (light * rows).sum() / light.sum(), (light * cols).sum() / light.sum()


def test_the_camera_is_where_the_mark_is(root):
    dataset = open_split(root, "samearea", "test", **SEEN)
    for i in range(len(YAWS)):
        for kind in range(4):
            sample = dataset.pair(i, kind)
            assert centre_of_mass(sample["satellite"]) == pytest.approx(sample["position"].tolist(), abs=0.03)


@pytest.mark.parametrize("i", range(len(YAWS)))
def test_the_part_is_the_benchmark_s(root, i):
    """Its centre lies shift_x behind the camera and shift_y to its right, up to half a pixel of the file."""
    sample = open_split(root, "samearea", "test", **SEEN)[i]
    (x, y, _), yaw = SHIFTS[i], YAWS[i]
    ahead, left = np.array([math.cos(yaw), math.sin(yaw)]), np.array([-math.sin(yaw), math.cos(yaw)])
    east, north = -20 * x * ahead - 20 * y * left  # of the centre, seen from the camera
    metres = float(sample["metres_per_pixel"])
    assert metres == pytest.approx(METRES_PER_PIXEL / 2, rel=1e-6) and metres == pytest.approx(0.0979, abs=1e-4)
    row, col = sample["position"].tolist()
    assert (col - 320) * metres == pytest.approx(-east, abs=metres + 1e-6)
    assert (row - 320) * metres == pytest.approx(north, abs=metres + 1e-6)


def test_headings_are_clockwise_from_north_and_told_as_the_list_says(root):
    for noise in (10.0, 0.0, 5.0):
        dataset = open_split(root, "samearea", "test", ori_noise=noise, **SEEN)
        for i, yaw in enumerate(YAWS):
            heading, told = float(dataset[i]["heading"]), float(dataset[i]["camera"][0])
            assert heading == pytest.approx(wrap_degrees(90 - math.degrees(yaw)), abs=1e-4)
            wrong = wrap_degrees(told - heading)
            assert abs(wrong) <= noise + 1e-4
            if noise == 10:
                assert wrong == pytest.approx(10 * SHIFTS[i][2], abs=1e-4)


def test_the_camera_s_numbers_are_shares_of_the_photograph(root):
    sample = open_split(root, "samearea", "test", **SEEN)[0]
    width, height = PHOTO
    expected = [
        0,
        0,
        72 / width,
        70 / height,
        61 / width,
        18 / height,
        0,
        0,
        0,
        0,
        0,
    ]  # the file's first pixel has its middle at 0
    np.testing.assert_allclose(sample["camera"][1:], expected, rtol=1e-6)
    assert sample["panorama"].shape == (3, *SIZE)
    assert sample["panorama"][0, :, :46].min() > 200 and sample["panorama"][0, :, 50:].max() < 60


def test_satellite_images_lie_on_the_map_where_the_unit_was(root):
    """A position, brought to the map, is the camera's, which stands 1.11 m from the GPS unit."""
    dataset = open_split(root, "samearea", "test", **SEEN)
    for i, yaw in enumerate(YAWS):
        place = dataset[i]["corner"].numpy() + dataset[i]["position"].numpy()
        unit = np.array(mercator_px(LATITUDE, LONGITUDE))
        col, row = stands_at(yaw)
        np.testing.assert_allclose(place - unit, [2 * (row - 640), 2 * (col - 640)], atol=1e-3)


def test_splits(root):
    def names(area, split):
        return set(open_split(root, area, split, **SEEN).index.panorama.tolist())

    assert len(names("samearea", "test")) == 4 and len(names("crossarea", "test")) == 2
    train, val = (names("samearea", split) for split in ("train", "val"))
    assert len(train | val) == 4 and not train & val and (train, val) == (names("crossarea", "train"), names("crossarea", "val"))
    assert all(b"drive_0009" in name for name in train | val)


def test_training_squares_hold_the_camera_and_stay(root):
    index = open_split(root, "samearea", "train", training=True, **SEEN).index
    again = open_split(root, "samearea", "train", training=True, **SEEN).index
    np.testing.assert_array_equal(index.position, again.position)
    metres = np.linalg.norm(index.position - 320, axis=-1) * METRES_PER_PIXEL / 2
    assert index.inside.all() and metres.max() < 20 * math.sqrt(2) + 0.2 and len(np.unique(metres)) == metres.size
    assert index.told is None


@pytest.mark.parametrize(
    ("broken", "line"),
    [
        ("train_files.txt", r"no train_files\.txt, nor in dataLoader; lay HighlyAccurate's lists there"),
        (
            f"raw_data/{DAY}/calib_cam_to_cam.txt",
            r"calib_cam_to_cam\.txt: no such file; unpack KITTI's calibration of 2011_09_26",
        ),
        (f"raw_data/{DRIVE.replace('0002', '0009')}/oxts", r"oxts/data/.*\.txt: No such file or directory; KITTI's raw drives"),
        (f"satmap/{DRIVE.replace('0002', '0009')}", r"satmap/.*0000000000\.png: no such file"),
    ],
)
def test_what_is_missing_is_named(root, tmp_path, broken, line):
    shutil.copytree(root, tmp_path / "part")
    path = tmp_path / "part" / broken
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match=line) as error:
        open_split(tmp_path / "part", "samearea", "train", **SEEN)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("line", [f"{DRIVE}/0000000000.png", f"{DRIVE}/0000000000.png 0.1 1.5 0", "0000000000.png 0 0 0"])
def test_a_test_line_is_checked(root, tmp_path, line):
    shutil.copytree(root, tmp_path / "part")
    (tmp_path / "part/dataLoader/test1_files.txt").write_text(f"{line}\n")
    with pytest.raises(UserError, match=r"test1_files\.txt, line 1: .* belongs"):
        open_split(tmp_path / "part", "samearea", "test", **SEEN)


def test_an_image_from_above_of_another_zoom_is_refused(root, tmp_path):
    shutil.copytree(root, tmp_path / "part")
    Image.new("RGB", (640, 640)).save(tmp_path / f"part/satmap/{DRIVE}/0000000000.png")
    with pytest.raises(UserError, match="expected 1280 x 1280 px, zoom 18 at scale 2"):
        open_split(tmp_path / "part", "samearea", "test", **SEEN)


def test_what_it_has_not_is_refused_in_one_line(root, tmp_path, capsys):
    refused = {
        "has no masks; train with --use_mask False": {"use_mask": True},
        "caches are of folders in VIGOR's layout": {"cache_root": tmp_path},
        "--labels gps: .* holds KITTI, which has one kind of labels": {"labels": "gps"},
        "--test_cities Berlin: .* whose only city is Karlsruhe": {"cities": ["Berlin"]},
        "holds photographs, and this network is for panoramas": {"cameras": None},
    }
    for line, options in refused.items():
        with pytest.raises(UserError, match=line):
            open_split(root, "samearea", "test", **{**SEEN, **options})
    for command in ("dataset.cache", "dataset.check"):
        line = refusal(command, f"--dataset_root {root}" + f" --cache_root {tmp_path}/c" * (command[-1] == "e"), capsys)
        assert f"holds KITTI, and {command} is for VIGOR's layout" in line


def test_training_evaluation_and_pictures_take_the_folder(root, tmp_path, capsys):
    words = f"{SMALL} --network light --camera photo --photo_width 64 --camera_height 1.65 --use_mask False --ori_noise 10"
    words += f" --epochs 1 --max_steps 1 --area crossarea --val_on test --dataset_root {root} --runs_root {tmp_path / 'runs'}"
    call("train_VIGOR", words)
    run = run_folder(tmp_path / "runs")
    call("eval_VIGOR", f"--model_path {run} --dataset_root {root} --num_workers 0")
    table = pd.read_csv(run / "results/per_image_results_crossarea.csv")
    assert len(table) == 2 and table["metres_per_pixel"].tolist() == pytest.approx([METRES_PER_PIXEL * 320 / 512] * 2)
    assert table["latitude"].tolist() == pytest.approx([LATITUDE] * 2, abs=1e-3)
    call("visualize_loc", f"--model_path {run} --dataset_root {root} --idx 0 --output_dir {tmp_path} --dpi 20")
    call("visualize_semi_positive", f"--model_path {run} --dataset_root {root} --idx 1 --output_dir {tmp_path} --dpi 20")
    assert len(list(tmp_path.glob("*.png"))) == 2
    refused = refusal("search_VIGOR", f"--model_path {run} --dataset_root {root} --city Karlsruhe --idx 0", capsys)
    assert "has no grid of satellite images to search" in refused


def test_pictures_show_the_whole_photograph_and_the_part_of_the_file(root):
    dataset = open_split(root, "samearea", "test", **SEEN)
    samples = Samples(None, None, None, dataset, "samearea_test", [1])
    street, satellite = samples.views(1, dataset[1])
    assert street.shape == (PHOTO[1], PHOTO[0], 3) and satellite.shape == (320, 320, 3)
    row, col = centre_of_mass(torch.from_numpy(satellite).permute(2, 0, 1))
    assert (2 * row, 2 * col) == pytest.approx(dataset[1]["position"].tolist(), abs=0.03)
    other = samples.views(1, dataset[1], kind=2)[1]
    assert (other != satellite).any()
