"""The networks that come with the repository: small, loadable by their words, and right on worlds that no training has seen."""

import json
import re

import numpy as np
import pytest
import torch
from children import PROJECT
from engine.training.flags import TrainingSettings
from test_scripts import script

from common.camera import pinhole
from common.geometry import wrap_degrees
from dataset.images import read_whole
from dataset.index import load_index
from dataset.mini_vigor import writer
from dataset.vigor import photograph_of
from engine.localizer import Localizer
from model.checkpoint import PRETRAINED, load_model


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Pairs of unseen varied worlds, and where their panoramas were taken: pixels of the satellite file."""
    root = writer.make(
        tmp_path_factory.mktemp("unseen"), styles="varied", seed=77, panoramas=4, panorama_width=256, progress=False, workers=1
    )
    index, pairs = load_index(root, "samearea", "test"), []
    for row in range(len(index.panorama)):
        tile = index.satellite[row, 0]
        pair = {"panorama": root / index.panorama_path(row), "satellite": root / index.satellite_path(tile)}
        pairs.append((pair | {"centre": tuple(index.satellite_gps[tile].tolist())}, index.position[row, 0]))
    return pairs


@pytest.mark.parametrize(("word", "noise"), [("pretrained", 0.0), ("pretrained_any_heading", 180.0), ("pretrained_photo", 180.0)])
def test_they_are_small_and_tell_nothing_of_the_machine_they_come_from(word, noise):
    file = PRETRAINED[word]
    assert file.is_relative_to(PROJECT / "runs/pretrained") and file.stat().st_size < 1e6
    loaded = load_model(word)
    assert loaded.settings.network == "light" and loaded.settings.ori_noise == noise and not loaded.settings.use_mask
    saved = torch.load(file, weights_only=True)
    assert "/" not in json.dumps(saved["args"])
    fits = json.loads((file.parent / "calibration.json").read_text())["fits"]
    assert {fit.get("tta", 1) for fit in fits if fit["sha256"] == loaded.sha256} == {1, 8}


def test_they_find_streets_that_no_training_has_seen(pairs):
    localizer = Localizer(device="cpu")
    assert localizer.loaded.model.tta == 8 and localizer.heat_map.name.startswith("heat map, calibrated")
    found = localizer.locate_many([pair | {"heading": 0.0} for pair, _ in pairs])
    errors = [np.hypot(one.row - row, one.col - col) * 0.11 for one, (_, (row, col)) in zip(found, pairs, strict=True)]
    assert np.median(errors) < 1.5 and np.mean(np.less(errors, 5)) > 0.7


def test_photographs_are_found_by_a_third(pairs):
    """Cut out of the same panoramas, with a compass's heading."""
    localizer, errors = Localizer(device="cpu"), []
    for number, (pair, (row, col)) in enumerate(pairs):
        panorama = read_whole(pair["panorama"], 2048)
        camera = pinhole(400, 300, hfov=85.0, heading=90.0 * number, pitch=-4.0)
        known = {"hfov": 85.0, "pitch": -4.0, "heading": wrap_degrees(90.0 * number + 8)}
        photo = photograph_of(panorama, camera, (300, 400))
        found = localizer.locate(photo=photo, satellite=pair["satellite"], centre=pair["centre"], **known)
        errors.append(np.hypot(found.row - row, found.col - col) * 0.11)
    assert localizer.for_pair({"photo": photo, "heading": 0.0}).loaded.settings.ori_noise == 20
    assert localizer.for_pair({"photo": photo}).loaded.settings.ori_noise == 180
    assert np.median(errors) < 8  # a guess of the centre is 13 m off


def test_without_a_heading_the_other_one_looks(pairs):
    localizer = Localizer(device="cpu")
    assert localizer.for_pair({}).loaded.settings.ori_noise == 180 and localizer.for_pair({"heading": 10.0}) is localizer
    found = localizer.locate_many([pair for pair, _ in pairs[:5]])
    assert len(found) == 5 and all(one.estimate.heading is not None for one in found)
    turns = [abs(wrap_degrees(one.heading)) for one in found]
    assert np.median(turns) < 10  # north is in the drawn panoramas' centre


def test_a_picture_needs_no_checkpoint(pairs, tmp_path):
    pair, _ = pairs[0]
    latitude, longitude = pair["centre"]
    line = f"visualize_loc.py --satellite {pair['satellite']} --satellite_center {latitude} {longitude} --output_dir {tmp_path}"
    text = script(f"{line} --panorama {pair['panorama']} --heading 0")
    assert "prediction (latitude, longitude)" in text and "heat map, calibrated" in text and "heading:" not in text
    assert re.search(r"probability that the camera stood there: [\d.]+ % within 5 m\n", text)
    assert len(list(tmp_path.glob("own_*.png"))) == 1


def test_training_starts_from_them():
    initial = load_model("pretrained")
    settings = TrainingSettings.start({"ori_noise": 180.0}, initial, "pretrained")
    assert settings.model.network == "light" and settings.model.ori_noise == 180 and settings.init == "pretrained"
    assert settings.model.satellite_size == initial.settings.satellite_size
