"""Cities whose street images are photographs: their samples, cameras, and the commands that read them."""

import shutil
from dataclasses import replace
from pathlib import PurePath

import numpy as np
import pandas as pd
import pytest
import torch
from children import SMALL, SMALL_VIEW, call, refusal, run_folder
from PIL import Image

from common.camera import pinhole
from common.errors import UserError
from common.geometry import wrap_degrees
from dataset.cameras import FILE, read_cameras, write_cameras
from dataset.check import check_folder
from dataset.index import load_index
from dataset.vigor import VigorDataset

CITIES = "Leiden", "Delft"
SIZE = 32, 64  # of what a network sees: wider than the photographs, whose pixels so are not square
VIEW = replace(SMALL_VIEW, camera="photo", hfov=(60.0, 90.0), photo_width=64, aspect="2:1")


def camera_of(number):
    """An unlike camera for each photograph."""
    pose = {"heading": wrap_degrees(15.0 + 25 * number), "pitch": number / 10, "roll": 1.0}
    return pinhole(48, 36, hfov=60 + number, **pose, cx=20, distortion=(0.01 * number,))


def make_photographs(root, cities):
    """Photographs, 48 x 36 px, instead of a root's panoramas: left half red, upper right quarter green."""
    for city in cities:
        names = sorted(path.name for path in (root / city / "panorama").iterdir())
        pixels = np.zeros((36, 48, 3), np.uint8)
        pixels[:, :24, 0], pixels[:18, 24:, 1] = 255, 255
        for name in names:
            Image.fromarray(pixels).save(root / city / "panorama" / name, quality=95)
        write_cameras(root / city, {name: camera_of(number) for number, name in enumerate(names)})


@pytest.fixture(scope="module")
def root(own_root, tmp_path_factory):
    """Two cities of photographs. Read only."""
    root = shutil.copytree(own_root, tmp_path_factory.mktemp("photographs") / "own")
    make_photographs(root, CITIES)
    return root


def opened(root, split="test", training=False, seed=0, cache_root=None, **view):
    options = {"training": training, "seed": seed, "cache_root": cache_root}
    return VigorDataset(load_index(root, split=split), view=replace(VIEW, **view), use_mask=True, **options)


def prior_minus_true(sample):
    """Of a sample's heading, pitch and roll, degrees."""
    camera, (pitch, roll) = sample["camera"], sample["tilt"].tolist()
    heading = float(wrap_degrees(camera.heading - sample["heading"]))
    return heading, float(camera.pitch) - pitch, float(camera.roll) - roll


def test_a_city_s_cameras_come_with_its_photographs(root):
    index = load_index(root, split="test")
    for city in CITIES:
        for number, camera in enumerate(dict(sorted(read_cameras(root / city / FILE).items())).values()):
            np.testing.assert_array_equal(camera, camera_of(number).values)
    for row in (0, 7):
        path = PurePath(index.panorama_image(row).path)
        camera = read_cameras(root / path.parts[0] / FILE)[path.name]
        np.testing.assert_array_equal(index.cameras[row].values, camera)
    for rows in (np.array([3, 1]), np.arange(len(index)) % 2 == 1):
        assert index.select(rows).cameras.values.equal(index.cameras.values[rows])
    assert index.photographs and len(index.cameras) == len(index)
    for decode in (False, True):
        assert check_folder(root, decode=decode)[0] == []


def test_a_photograph_is_seen_whole_at_the_network_s_size(root):
    for training in (False, True):
        sample = opened(root, training=training)[0]
        assert sample["query"].shape == (3, *SIZE) and sample["query"].dtype == torch.uint8
        red, green, _ = sample["query"].float()
        assert red[:, :30].min() > 200 and red[:, 34:].max() < 60
        assert green[:14, 34:].min() > 200 and green[18:].max() < 60 and green[:, :30].max() < 60


@pytest.mark.parametrize(("noise", "which"), [("ori_noise", 0), ("tilt_noise", 1), ("tilt_noise", 2)])
def test_the_prior_is_wrong_by_its_noise(root, noise, which):
    index, exact = load_index(root, split="test"), opened(root)
    for row, sample in enumerate(exact):
        taken = index.cameras[row]
        assert sample["heading"] == taken.heading and sample["tilt"].tolist() == [taken.pitch, taken.roll]
        assert sample["camera"].values.equal(taken.values)
    noisy = opened(root, **{noise: 8.0})
    wrong = [prior_minus_true(sample)[which] for sample in noisy]
    assert 4 < max(map(abs, wrong)) <= 8.001 and min(wrong) < 0 < max(wrong)
    assert prior_minus_true(noisy[0])[which] == wrong[0]


def test_evaluation_has_one_prior_and_training_another_each_epoch(root):
    def prior(key, **options):
        return opened(root, ori_noise=180.0, **options)[key]["camera"].heading

    assert prior(3) == prior(3) != prior(3, seed=1)
    assert prior((0, 3), training=True) == prior((0, 3), training=True) != prior((1, 3), training=True)
    assert opened(root, ori_noise=180.0).pair(3, kind=1)["camera"].heading == prior(3)


def test_a_prior_heading_of_the_set_is_taken_under_its_own_noise(root):
    index = load_index(root, split="test")
    index = replace(index, prior_heading=wrap_degrees(index.cameras.heading.numpy() + 7.5), prior_within=10.0)

    def differences(noise, **options):
        dataset = VigorDataset(index, view=replace(VIEW, ori_noise=noise), use_mask=True, **options)
        return [prior_minus_true(dataset[i])[0] for i in range(3)]

    assert differences(10.0) == pytest.approx([7.5] * 3, abs=1e-4)
    assert differences(0.0) == [0.0] * 3
    assert len(set(differences(5.0))) == len(set(differences(10.0, training=True))) == 3


def test_cities_of_both_kinds_are_not_read_as_one(root, tmp_path):
    with pytest.raises(UserError, match=r"holds photographs.*--camera photo"):
        opened(root, camera="panorama")
    shutil.copytree(root, tmp_path / "both")
    (tmp_path / "both/Leiden" / FILE).unlink()
    with pytest.raises(UserError, match=r"Delft has photographs and Leiden panoramas.*--train_cities"):
        load_index(tmp_path / "both")
    assert load_index(tmp_path / "both", cities=["Leiden"]).cameras.kind == "panorama"
    assert load_index(tmp_path / "both", cities=["Delft"]).cameras.kind == "photo"


def test_a_camera_that_is_missing_or_broken_is_named(root, tmp_path):
    shutil.copytree(root, tmp_path / "broken")
    path = tmp_path / "broken/Delft" / FILE
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], *lines[4:]]))
    with pytest.raises(UserError, match=r"Delft/cameras\.csv: has no line for Delf.*\.jpg"):
        load_index(tmp_path / "broken", "crossarea", "test", cities=["Delft"])
    findings, _ = check_folder(tmp_path / "broken")
    assert [finding.path for finding in findings] == ["Delft/cameras.csv"]
    path.write_text("\n".join([*lines[:2], lines[2] + "x"]))
    with pytest.raises(UserError, match=r"cameras\.csv, line 3: not a name and 12 numbers of a camera"):
        load_index(tmp_path / "broken")


def test_a_cache_holds_photographs_at_their_size(root, tmp_path, capsys):
    words = f"--dataset_root {root} --cache_root {tmp_path / 'cache'} --satellite_size 64"
    call("dataset.cache", f"{words} --panorama_size {SIZE[0]} {SIZE[1]}")
    one, other = (opened(root, cache_root=where) for where in (None, tmp_path / "cache"))
    assert (one[2]["query"].float() - other[2]["query"].float()).abs().mean() < 6
    assert one[2]["camera"].values.equal(other[2]["camera"].values)
    with pytest.raises(UserError, match="--panorama_size 64 64"):
        opened(root, cache_root=tmp_path / "cache", aspect="1:1")
    shutil.copytree(root, tmp_path / "both")
    (tmp_path / "both/Leiden" / FILE).unlink()
    words = f"--dataset_root {tmp_path / 'both'} --cache_root {tmp_path / 'other'}"
    assert "photographs and of panoramas" in refusal("dataset.cache", words, capsys)


@pytest.mark.slow
def test_a_city_of_photographs_is_learned_and_searched(root, tmp_path, capsys):
    photographs = "--camera photo --photo_width 64 --aspect 2:1 --ori_noise 20"
    line = f"{SMALL} --dataset_root {root} --epochs 1 --max_steps 1"
    call("train_VIGOR", f"{line} --network light {photographs} --runs_root {tmp_path / 'runs'}")
    first = run_folder(tmp_path / "runs")
    # The tilts of the first run were known; the second one's are not, so it estimates them.
    call("train_VIGOR", f"{line} --init {first} --tilt_noise 3 --runs_root {tmp_path / 'further'}")
    run = run_folder(tmp_path / "further")
    line = f"--model_path {run} --dataset_root {root} --calibrate 0 --output_dir {tmp_path / 'results'}"
    call("eval_VIGOR", line)
    assert "median tilt error" in capsys.readouterr().out
    table = pd.read_csv(next((tmp_path / "results").glob("per_image_results*.csv")))
    errors = table.filter(regex="prior_(pitch|roll)_error_deg").abs().max()
    assert len(errors) == 2 and errors.between(0.5, 3).all()
    search = f"--model_path {run} --dataset_root {root} --city Delft --idx 0 --output_dir {tmp_path} --dpi 20"
    call("search_VIGOR", search)
    heading = float(opened(root).index.cameras.heading[0])
    assert f"{heading:.1f}°" in capsys.readouterr().out and len(list(tmp_path.glob("*.png"))) == 1
