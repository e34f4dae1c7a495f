"""CVUSA's layout, drawn small: crops that hold the camera, cropped panoramas, places where they are known."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from children import SMALL, call, centre_of_mass, draw_a_pair, open_pairs, refusal, run_folder
from PIL import Image

from common.errors import UserError
from common.geometry import mercator_px, metres_per_pixel
from common.view import View
from dataset.cvusa import VERTICAL
from dataset.sets import view_of_set

TRAIN, TEST = (1, 2, 3, 4, 6, 7, 8, 9), (5, 10, 11)  # numbers of images
PLACES = {number: (38.0 + number / 1000, -90.0 - number / 1000) for number in (*TRAIN, *TEST)}
VIEW = View(satellite_size=640, panorama_size=(320, 640), vertical=VERTICAL)


def opened(root, split="test", *, area="samearea", **options):
    return open_pairs(root, area, split, view=VIEW, **options)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Marks in the middle of satellite images, and at the horizon in the centre of panoramas. Read only."""
    root = tmp_path_factory.mktemp("cvusa")
    for folder in ("bingmap/19", "streetview/panos", "splits", "split_locations"):
        (root / folder).mkdir(parents=True)
    above, street = np.zeros((750, 750, 3), np.uint8), np.zeros((224, 1232, 3), np.uint8)
    above[374:376, 374:376] = 255
    street[128:136, 612:620] = 255
    for number in (*TRAIN, *TEST):
        Image.fromarray(above).save(root / f"bingmap/19/{number:07}.jpg", quality=100, subsampling=0)
        Image.fromarray(street).save(root / f"streetview/panos/{number:07}.jpg", quality=100, subsampling=0)
    for name, numbers in (("train", TRAIN), ("val", TEST)):
        lines = [
            f"bingmap/19/{n:07}.jpg,streetview/panos/{n:07}.jpg,streetview/annotations/{n:07}.png\n"
            for n in numbers
        ]
        (root / f"splits/{name}-19zl.csv").write_text("".join(lines))
    lines = [f"{a},{b},{a + 1},{b + 1},90.5\n" for _, (a, b) in sorted(PLACES.items())]
    (root / "split_locations/all.csv").write_text("".join(lines))
    return root


def place_of(light):
    """(row, col) of the light in (H, W)."""
    return centre_of_mass(light.double().numpy() * (light.numpy() > 60))  # without the noise of JPEGs


def test_the_camera_is_where_the_mark_is_and_off_the_centre(root):
    dataset = opened(root)
    assert len(dataset) == len(TEST) and dataset.index.inside.all()
    for row in range(len(TEST)):
        for kind in range(4):
            sample = dataset.pair(row, kind)
            np.testing.assert_allclose(place_of(sample["satellite"][0]), sample["position"], atol=0.05)
    off = (opened(root, "train").index.position - 320) * metres_per_pixel(40.0)
    assert abs(off).max() <= 20.2 and np.abs(off).mean() > 6  # drawn within 20 m: 10 m on average
    assert len(np.unique(off)) > 40


def test_crops_stay_the_same(root):
    first, again = (opened(root, "train", training=True).index for _ in range(2))
    np.testing.assert_array_equal(first.crop, again.crop)


def test_panoramas_look_north_and_show_the_horizon_where_the_camera_says(root):
    sample = opened(root)[0]
    height, width = sample["query"].shape[1:]
    assert (height, width) == (VIEW.panorama_px[0], 640) and VIEW.panorama_px[0] == 120
    x, y, seen = (float(at) for at in sample["camera"].project(torch.tensor(0.0), torch.tensor(0.0)))
    row, col = place_of(sample["query"][0])
    assert seen and (col, row) == pytest.approx((x * width, y * height), abs=0.1)
    assert float(sample["heading"]) == float(sample["camera"].heading) == 0


def test_places_and_resolution_come_from_the_list_of_locations(root):
    """The image's number is that of its line; the place of the file's middle comes first."""
    index = opened(root).index
    index.check_map("a search")
    for row, number in enumerate(TEST):
        latitude, longitude = PLACES[number]
        place = index.corner(index.satellite[row]) + index.position[row]
        np.testing.assert_allclose(place, [mercator_px(latitude, longitude)] * 4, atol=0.01)
        metres = index.metres_per_pixel(index.satellite[row], 320)  # at the file's own pixels
        np.testing.assert_allclose(metres, 156543.03392 * np.cos(np.radians(latitude)) / 2**19, rtol=1e-4)


def test_without_the_list_the_latitude_is_40_degrees_and_images_are_on_no_map(copy, tmp_path):
    shutil.rmtree(copy / "split_locations")
    dataset = opened(copy)
    assert float(dataset[0]["metres_per_pixel"]) == pytest.approx(0.1144, abs=1e-4)
    with pytest.raises(UserError, match=r"a search: latitude and longitude .* not known"):
        dataset.index.check_map("a search")


def test_splits(root):
    def names(split):
        return {int(name[-11:-4]) for name in opened(root, split).index.panorama.tolist()}

    assert names("test") == set(TEST)
    assert names("train") | names("val") == set(TRAIN) and not names("train") & names("val")


def test_lists_may_lie_in_the_root(copy):
    for name in ("train-19zl.csv", "val-19zl.csv"):
        (copy / "splits" / name).rename(copy / name)
    assert len(opened(copy)) == len(TEST)
    (copy / "val-19zl.csv").unlink()
    with pytest.raises(UserError, match=r"no val-19zl\.csv"):
        opened(copy)


@pytest.mark.parametrize(
    "line", ["bingmap/19/0000001.jpg", "streetview/panos/1.jpg,bingmap/19/1.jpg", "a,b,c"]
)
def test_a_line_of_a_list_is_checked(copy, line):
    (copy / "splits/val-19zl.csv").write_text(f"\n{line}\n")
    with pytest.raises(UserError, match=rf"val-19zl\.csv, line 2: '{line}'"):
        opened(copy)


@pytest.mark.parametrize(
    "lines", ["38.0,-90.0\n" * 4, "38.0\n" * 11, "38.0,west\n" * 11, "138.0,-90.0\n" * 11]
)
def test_a_place_that_is_not_there_is_named(copy, lines):
    (copy / "split_locations/all.csv").write_text(lines)
    with pytest.raises(UserError, match=r"all\.csv: .*0000005\.jpg in line 5"):
        opened(copy)


def test_a_satellite_image_of_another_size_is_refused(copy):
    Image.new("RGB", (640, 640)).save(copy / "bingmap/19/0000005.jpg")
    with pytest.raises(UserError, match=r"0000005\.jpg: expected 750 x 750 px"):
        opened(copy)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"area": "crossarea"}, "--area crossarea"),
        ({"labels": "gps"}, "--labels gps: "),
        ({"cities": ["Boston"]}, "--test_cities Boston: .* USA"),
        ({"use_mask": True}, "--use_mask False"),
        ({"camera": "photo", "vertical": VERTICAL}, "--vertical 38.57 26.88 .*photographs"),
    ],
)
def test_options_that_do_not_apply_are_refused(root, options, line):
    with pytest.raises(UserError, match=line):
        opened(root, **options)


def test_the_check_is_for_vigor_s_layout(root, capsys):
    line = refusal("dataset.check", f"--dataset_root {root}", capsys)
    assert "CVUSA" in line and "dataset.check" in line


def test_the_view_is_that_of_the_files(root, vigor_root, monkeypatch):
    monkeypatch.delenv("VIGOR_ROOT", raising=False)
    assert view_of_set(str(root)) == {"vertical": VERTICAL}
    assert view_of_set(str(vigor_root)) == view_of_set() == {}
    monkeypatch.setenv("VIGOR_ROOT", str(root))
    assert view_of_set() == {"vertical": VERTICAL}


def test_the_cache_gives_the_same_samples(root, tmp_path, capsys):
    sizes = {"satellite_size": 320, "panorama_size": (352, 704)}  # the cache keeps 128 x 704 px
    words = f"--dataset_root {root} --cache_root {tmp_path} --satellite_size 320 --panorama_size 128 704"
    call("dataset.cache", f"{words} --use_mask False --lossless True")
    assert "complete, 55 images" in capsys.readouterr().out  # of 11 panoramas
    cached, read = (opened(root, cache_root=of, **sizes) for of in (tmp_path, None))
    for row in range(len(TEST)):
        for kind in range(4):
            copy, own = cached.pair(row, kind), read.pair(row, kind)
            assert copy["camera"].extent == own["camera"].extent == (360, *VERTICAL)
            for name in ("position", "corner", "metres_per_pixel", "query", "satellite"):
                assert torch.equal(copy[name], own[name])


@pytest.mark.slow
def test_training_evaluation_and_pictures_take_the_folder(root, tmp_path, capsys):
    words = f"{SMALL} --network light --use_mask False --epochs 1 --max_steps 1 --val_on test"
    call("train_VIGOR", f"{words} --dataset_root {root} --runs_root {tmp_path / 'runs'}")
    run = run_folder(tmp_path / "runs")
    assert "38.57" in (run / "args.yaml").read_text()
    for model in (run, "pretrained"):
        output = tmp_path / f"results_{getattr(model, 'name', model)}"
        words = f"--model_path {model} --dataset_root {root} --num_workers 0 --calibrate 0"
        call("eval_VIGOR", f"{words} --output_dir {output}")
        assert "38.57° above and 26.88° below" in capsys.readouterr().out
        table = pd.read_csv(output / "per_image_results_samearea.csv")
        assert table["latitude"].tolist() == pytest.approx([PLACES[n][0] for n in TEST], abs=1e-3)
    draw_a_pair(f"--model_path {run} --dataset_root {root} --idx 1", tmp_path)
