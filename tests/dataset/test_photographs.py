"""Cities whose street images are photographs: their samples, their cameras, and the commands that read them."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from children import SMALL, call, refusal, run_folder
from PIL import Image

from common.camera import CameraRange, Pinhole, pinhole
from common.errors import UserError
from common.geometry import wrap_degrees
from dataset.cameras import FILE, read_cameras, write_cameras
from dataset.check import check_folder
from dataset.index import load_index
from dataset.vigor import VigorDataset
from model.settings import ModelSettings

CITIES = "Leiden", "Delft"
SIZE = 32, 64  # of what a network sees: wider than the photographs, whose pixels so are not square
CAMERAS = CameraRange((60, 90), 5, 2, 0, 0, SIZE, 2)
SIZES = {"satellite_size": 64, "panorama_size": (64, 128), "use_mask": True, "cameras": CAMERAS}


def camera_of(number):
    """An unlike camera for each photograph."""
    heading = wrap_degrees(15.0 + 25 * number)
    return pinhole(48, 36, hfov=60 + number, heading=heading, pitch=number / 10, roll=1, cx=20, distortion=(0.01 * number,))


def make_photographs(root, cities):
    """Photographs of 48 x 36 px in place of a root's panoramas: left half red, the upper right quarter green."""
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


def opened(root, split="test", **options):
    return VigorDataset(load_index(root, split=split), **{**SIZES, **options})


def test_a_city_s_cameras_come_with_its_photographs(root):
    index = load_index(root, split="test")
    cameras = {city: read_cameras(root / city / FILE) for city in CITIES}
    for row in (0, 7):
        path = index.panorama_path(row)
        np.testing.assert_array_equal(index.cameras[row], cameras[path.parts[0]][path.name])
    chosen = index.select(np.array([3, 1]))
    np.testing.assert_array_equal(chosen.cameras, index.cameras[[3, 1]])
    assert load_index(root, split="train").cameras.shape == (len(load_index(root, split="train")), 12)


def test_numbers_survive_the_file(tmp_path):
    written = {"a,1,2,.jpg": camera_of(3), "b,1,2,.png": camera_of(40)}
    write_cameras(tmp_path, written)
    for name, camera in read_cameras(tmp_path / FILE).items():
        np.testing.assert_array_equal(camera, written[name].numpy())


def test_a_photograph_is_seen_whole_at_the_network_s_size(root):
    for training in (False, True):
        sample = opened(root, training=training)[0]
        assert sample["panorama"].shape == (3, *SIZE) and sample["panorama"].dtype == torch.uint8
        red, green, _ = sample["panorama"].float()
        assert red[:, :30].min() > 200 and red[:, 34:].max() < 60
        assert green[:14, 34:].min() > 200 and green[18:].max() < 60 and green[:, :30].max() < 60


def test_a_photograph_s_orientation_is_obeyed(root, tmp_path):
    shutil.copytree(root, tmp_path / "turned")
    index = load_index(tmp_path / "turned", split="test")
    path = tmp_path / "turned" / index.panorama_path(0)
    exif = Image.Exif()
    exif[0x0112] = 6  # what the camera held upright stored lying on its left side
    Image.open(path).rotate(90, expand=True).save(path, quality=95, exif=exif)
    one, other = (opened(where)[0]["panorama"].float() for where in (root, tmp_path / "turned"))
    assert (one - other).abs().mean() < 6


def test_the_true_heading_is_told_wrong_by_the_noise(root):
    told, index = [], load_index(root, split="test")
    for noise in (0.0, 20.0):
        dataset = opened(root, ori_noise=noise)
        for row, sample in enumerate(dataset):
            assert float(sample["heading"]) == pytest.approx(index.cameras[row, 0])
            np.testing.assert_array_equal(sample["camera"][1:], index.cameras[row, 1:])
            told.append(float(wrap_degrees(sample["camera"][0] - sample["heading"])))
    assert told[:12] == [0.0] * 12
    assert 8 < max(map(abs, told[12:])) <= 20 and min(told) < 0 < max(told)


def test_pitch_and_roll_are_told_wrong_by_their_noise(root):
    index, wrong = load_index(root, split="test"), []
    for noise in (0.0, 4.0):
        dataset = opened(root, cameras=CAMERAS._replace(tilt_noise=noise))
        for row, sample in enumerate(dataset):
            np.testing.assert_array_equal(sample["tilt"], index.cameras[row, 1:3])
            wrong.append((sample["camera"][1:3] - sample["tilt"]).tolist())
    assert wrong[:12] == [[0, 0]] * 12
    for name, of in zip(("pitch", "roll"), zip(*wrong[12:], strict=True), strict=True):
        assert 2 < max(map(abs, of)) <= 4 and min(of) < 0 < max(of), name
    again = opened(root, cameras=CAMERAS._replace(tilt_noise=4.0))
    assert (again[0]["camera"][1:3] - again[0]["tilt"]).tolist() == wrong[12]


def test_evaluation_asks_the_same_and_training_another_question_each_epoch(root):
    once, again = (opened(root, ori_noise=180.0)[3]["camera"] for _ in range(2))
    assert torch.equal(once, again) and not torch.equal(once, opened(root, ori_noise=180.0, seed=1)[3]["camera"])
    training = opened(root, ori_noise=180.0, training=True)
    first, second, same = (training[epoch, 3]["camera"] for epoch in (0, 1, 0))
    assert torch.equal(first, same) and not torch.equal(first, second)
    dataset = opened(root, ori_noise=180.0)
    assert torch.equal(dataset.pair(3, kind=1)["camera"], once)  # of one photograph whatever it is looked for in


def test_a_heading_that_the_set_tells_is_taken_under_its_own_noise(root):
    index = load_index(root, split="test")
    index = replace(index, told=wrap_degrees(index.cameras[:, 0] + 7.5), told_within=10.0)

    def differences(**options):
        samples = VigorDataset(index, **SIZES, **options)
        return [float(wrap_degrees(samples[i]["camera"][0] - samples[i]["heading"])) for i in range(3)]

    assert differences(ori_noise=10.0) == pytest.approx([7.5] * 3, abs=1e-4)
    assert differences(ori_noise=0.0) == [0.0] * 3
    assert len(set(differences(ori_noise=5.0))) == len(set(differences(ori_noise=10.0, training=True))) == 3


def test_networks_for_panoramas_and_views_of_panoramas_are_refused(root):
    with pytest.raises(UserError, match=r"holds photographs, and this network is for panoramas; train one with .*--camera photo"):
        opened(root, cameras=None)
    with pytest.raises(UserError, match="--FoV 90 cuts panoramas; a photograph's field of view is --hfov"):
        opened(root, FoV=90.0)
    with pytest.raises(UserError, match="--FoV 90 cuts panoramas"):
        ModelSettings(network="light", camera="photo", FoV=90)


def test_cities_of_both_kinds_are_not_read_as_one(root, tmp_path):
    shutil.copytree(root, tmp_path / "both")
    (tmp_path / "both/Leiden" / FILE).unlink()
    with pytest.raises(
        UserError, match=r"Delft has photographs and Leiden panoramas; name cities of one kind with --train_cities"
    ):
        load_index(tmp_path / "both")
    assert load_index(tmp_path / "both", cities=["Leiden"]).cameras is None
    assert load_index(tmp_path / "both", cities=["Delft"]).cameras is not None


def test_a_camera_that_is_missing_or_broken_is_named(root, tmp_path):
    shutil.copytree(root, tmp_path / "broken")
    path = tmp_path / "broken/Delft" / FILE
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], *lines[4:]]))
    with pytest.raises(UserError, match=r"Delft/cameras\.csv: has no line for Delf.*\.jpg; python -m dataset\.city"):
        load_index(tmp_path / "broken", "crossarea", "test", cities=["Delft"])
    findings, _ = check_folder(tmp_path / "broken")
    assert [(finding.path, finding.kind) for finding in findings] == [
        ("Delft/cameras.csv", "photograph's camera that cannot be read")
    ]
    path.write_text("\n".join([*lines[:2], lines[2] + "x"]))
    with pytest.raises(UserError, match=r"cameras\.csv, line 3: not a name and 12 numbers of a camera"):
        load_index(tmp_path / "broken")


def test_check_accepts_photographs(root, tmp_path):
    for decode in (False, True):
        assert check_folder(root, decode=decode)[0] == []
    call("dataset.check", f"--dataset_root {root} --output {tmp_path / 'findings.csv'}")


def test_a_cache_holds_photographs_at_their_size(root, tmp_path, capsys):
    words = f"--dataset_root {root} --cache_root {tmp_path / 'cache'} --satellite_size 64"
    call("dataset.cache", f"{words} --panorama_size {SIZE[0]} {SIZE[1]}")
    one, other = (opened(root, cache_root=where) for where in (None, tmp_path / "cache"))
    assert (one[2]["panorama"].float() - other[2]["panorama"].float()).abs().mean() < 6
    assert torch.equal(one[2]["camera"], other[2]["camera"])
    with pytest.raises(UserError, match=r"make one of the size at hand with .*--panorama_size 48 64"):
        opened(root, cache_root=tmp_path / "cache", cameras=CAMERAS._replace(size=(48, 64)))
    shutil.copytree(root, tmp_path / "both")
    (tmp_path / "both/Leiden" / FILE).unlink()
    line = refusal("dataset.cache", f"--dataset_root {tmp_path / 'both'} --cache_root {tmp_path / 'other'}", capsys)
    assert "has cities of photographs and of panoramas, but a cache holds one kind" in line


def test_a_city_of_photographs_is_learned_and_searched(root, tmp_path, capsys):
    words = f"{SMALL} --network light --camera photo --photo_width 64 --aspect 2:1 --ori_noise 20 --epochs 1 --max_steps 1"
    call("train_VIGOR", f"{words} --dataset_root {root} --runs_root {tmp_path / 'runs'}")
    first = run_folder(tmp_path / "runs")
    # Tilts were told; where they are not any more, a network goes on that estimates them.
    words = f"{SMALL} --init {first} --tilt_noise 3 --epochs 1 --max_steps 1"
    call("train_VIGOR", f"{words} --dataset_root {root} --runs_root {tmp_path / 'further'}")
    run = run_folder(tmp_path / "further")
    call("eval_VIGOR", f"--model_path {run} --dataset_root {root} --calibrate 0 --output_dir {tmp_path / 'results'}")
    report = capsys.readouterr().out
    assert "\nmedian tilt error: pitch " in report
    wide = sorted(float(Pinhole(torch.from_numpy(camera[None])).hfov) for camera in opened(root).index.cameras)
    assert f"photographs {wide[0]:.3g} to {wide[-1]:.3g}° wide" in report
    table = pd.read_csv(next((tmp_path / "results").glob("per_image_results*.csv")))
    assert table[["told_pitch_error_deg", "told_roll_error_deg"]].abs().max().between(0.5, 3).all()
    call("search_VIGOR", f"--model_path {run} --dataset_root {root} --city Delft --idx 0 --output_dir {tmp_path} --dpi 20")
    number = opened(root).index.cameras[0, 0]
    assert f"true heading {number:.1f}°" in capsys.readouterr().out and len(list(tmp_path.glob("*.png"))) == 1
