"""The repository's networks: small, loadable by name, accurate on worlds that no training has seen."""

import json

import numpy as np
import pytest
import torch
from children import PROJECT, call

from common.camera import cut_photographs, pinhole
from common.geometry import wrap_degrees
from common.view import FORMS
from dataset.images import read_whole
from dataset.index import load_index
from dataset.mini_vigor import writer
from dataset.protocol import Source
from engine.app.evaluated import Evaluations
from engine.localizer import Localizer
from model.checkpoint import PRETRAINED, load_model


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Pairs of unseen varied worlds, and where their panoramas were taken: pixels of the satellite file."""
    small = {"panoramas": 4, "panorama_width": 256, "progress": False, "workers": 1}
    root = writer.make(tmp_path_factory.mktemp("unseen"), styles="varied", seed=77, **small)
    index, pairs = load_index(root, "samearea", "test"), []
    for row in range(len(index)):
        tile = index.satellite[row, 0]
        files = {"panorama": index.panorama_image(row), "satellite": index.satellite_image(tile)}
        pair = {name: root / image.path for name, image in files.items()}
        pairs.append((pair | {"centre": tuple(index.satellite_gps[tile].tolist())}, index.position[row, 0]))
    return pairs


@pytest.fixture(scope="module")
def localizer():
    """The networks, each loaded once."""
    return Localizer(device="cpu")


def errors_m(results, pairs):
    offsets = [
        (result.row - row, result.col - col) for result, (_, (row, col)) in zip(results, pairs, strict=True)
    ]
    return np.hypot(*np.transpose(offsets)) * 0.11


@pytest.mark.parametrize(
    ("word", "noise"), [("pretrained", 0.0), ("pretrained_any_heading", 180.0), ("pretrained_photo", 180.0)]
)
def test_they_are_small_and_say_nothing_of_the_machine_they_come_from(word, noise):
    file = PRETRAINED[word]
    assert file.is_relative_to(PROJECT / "runs/pretrained") and file.stat().st_size < 1e6
    checkpoint = load_model(word)
    assert (checkpoint.settings.network, checkpoint.view.ori_noise) == ("light", noise)
    assert not checkpoint.settings.use_mask
    saved = torch.load(file, weights_only=True)
    assert "/" not in json.dumps(saved["args"])
    fits = json.loads((file.parent / "calibration.json").read_text())["fits"]
    assert {fit["tta"] for fit in fits if fit["sha256"] == checkpoint.sha256} == {1, FORMS}


@pytest.mark.slow
def test_what_is_made_with_them_lies_apart(vigor_root, tmp_path, monkeypatch, capsys):
    """The repository's folder is only read: results, fits and indexes go to the user's runs."""
    monkeypatch.chdir(tmp_path)
    shipped = PRETRAINED["pretrained"].parent
    before = {path: path.stat().st_mtime_ns for path in shipped.rglob("*")}
    data = f"--dataset_root {vigor_root} --device cpu"
    evaluation = f"--model_path pretrained {data} --limit 2 --num_workers 0"
    call("eval_VIGOR", evaluation)
    made = tmp_path / "runs/VIGOR/pretrained/light"
    fits = [json.loads((folder / "calibration.json").read_text())["fits"] for folder in (shipped, made)]
    assert fits[1][:-1] == fits[0] and fits[1][-1]["pairs"] == 2, "the shipped ones and the new one"
    assert list((made / "results").glob("summary_*.json"))
    call("search_VIGOR", f"--model_path pretrained {data} --city Seattle --evaluate --limit 1 --calibrate 1")
    assert (made / "search/index/light").is_dir() and (made / "search/calibration.json").is_file()
    call("visualize_loc", f"--model_path pretrained {data} --worst 1 --dpi 20")
    assert len(list((made / "visualizations_loc").glob("*.png"))) == 1
    (name,) = (evaluations := Evaluations(tmp_path / "runs", None, Source(str(vigor_root)), "cpu")).folders
    assert len(evaluations.open(name).table) == 2
    assert {path: path.stat().st_mtime_ns for path in shipped.rglob("*")} == before


@pytest.mark.slow
def test_they_find_streets_that_no_training_has_seen(localizer, pairs):
    answerer = localizer.answerer()
    assert answerer.predictor.view.tta == FORMS and "calibrated" in answerer.heat_map.name
    errors = errors_m(localizer.locate_many([pair | {"heading": 0.0} for pair, _ in pairs]), pairs)
    assert np.median(errors) < 1.5 and np.mean(errors < 5) > 0.7


@pytest.mark.slow
def test_without_a_heading_another_one_estimates_it(localizer, pairs):
    for photo, known, noise in ((False, True, 0), (False, False, 180), (True, True, 20), (True, False, 180)):
        assert localizer.answerer(photo, known).predictor.view.ori_noise == noise
    results = localizer.locate_many([pair for pair, _ in pairs[:5]])
    assert len(results) == 5 and all(result.estimate.heading is not None for result in results)
    assert np.median([abs(wrap_degrees(result.heading)) for result in results]) < 10  # north is in the centre


@pytest.mark.slow
def test_photographs_are_found_by_a_third(localizer, pairs):
    """Cut out of the same panoramas, with a compass's heading."""
    results = []
    for number, (pair, _) in enumerate(pairs):
        camera = pinhole(400, 300, hfov=85.0, heading=90.0 * number, pitch=-4.0)[None]
        panorama = torch.from_numpy(read_whole(pair["panorama"], 2048)).permute(2, 0, 1)[None]
        photo = cut_photographs(panorama, camera, (300, 400))[0].permute(1, 2, 0).round().byte().numpy()
        known = {"hfov": 85.0, "pitch": -4.0, "heading": wrap_degrees(90.0 * number + 8)}
        known |= {"satellite": pair["satellite"], "centre": pair["centre"]}
        results.append(localizer.locate(photo=photo, **known))
    assert np.median(errors_m(results, pairs)) < 8  # a guess of the centre is 13 m off
