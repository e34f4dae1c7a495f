"""Temperatures of heat maps: fits worked out by hand, and the file that keeps them."""

import json
import math
from types import SimpleNamespace

import pytest
import torch

from common.errors import UserError
from engine.inference import temperatures
from model.interface import Prediction


def fit_of(logits, truth, trained=0.1):
    steps = trained * temperatures.STEPS
    found = Prediction(logits=logits)
    nll = temperatures.nll_columns(steps)(found, {"position": truth}, None)["nll"].numpy()
    return temperatures.make_fit(steps, nll, trained)


def test_the_temperature_that_calibrates():
    """16 pixels, one of them 2 above the rest, and the truth there in three of four samples."""
    logits = torch.zeros(4, 4, 4)
    logits[:, 1, 2] = 2
    truth = torch.tensor([[1.5, 2.5], [1.1, 2.9], [1.5, 2.5], [3.5, 0.5]])
    # The likelihood is highest where that pixel's probability is 3/4 = e^(2/T) / (e^(2/T) + 15).
    fit = fit_of(logits, truth)
    assert fit["temperature"] == pytest.approx(2 / math.log(45), rel=0.005) and fit["within_range"]
    assert fit["nll"] == pytest.approx(-0.75 * math.log(3 / 4) - 0.25 * math.log(1 / 60), rel=1e-3)
    # As trained, almost all lies on the peak, and one truth is 20 below.
    assert fit["nll_at_training_temperature"] == pytest.approx(0.25 * 20, rel=1e-4)
    larger = fit_of(logits * 10, truth, trained=1.0)
    assert larger["temperature"] == pytest.approx(20 / math.log(45), rel=0.005)


def test_maps_without_information_and_without_numbers():
    flat = fit_of(torch.zeros(3, 4, 4), torch.full((3, 2), 1.5))
    assert not flat["within_range"] and "where its range ends" in temperatures.fit_in_words(flat)
    with pytest.raises(UserError, match="not finite"):
        fit_of(torch.full((1, 4, 4), torch.nan), torch.ones(1, 2))


def test_fits_belong_to_a_checkpoint_and_a_view(tmp_path):
    path = tmp_path / "calibration.json"

    def store(sha256, key, temperature, pairs, name="best.pt"):
        fit = {"temperature": temperature, "pairs": pairs}
        checkpoint = SimpleNamespace(file=tmp_path / name, sha256=sha256)
        temperatures.store_fit([path], {"sha256": sha256} | key, fit, checkpoint)

    def find(sha256, key, pairs=0):
        return (temperatures.find_fit([path], {"sha256": sha256} | key, pairs) or {}).get("temperature")

    known, any_heading = {"ori_noise": 0.0}, {"ori_noise": 180.0}
    assert find("a", known) is None
    store("a", known, 1.0, pairs=10)
    store("a", any_heading, 2.0, pairs=20)
    assert (find("a", known), find("a", any_heading), find("b", known)) == (1, 2, None)
    assert find("a", known, pairs=11) is None  # made on fewer than are needed
    store("a", known, 3.0, pairs=11)
    assert find("a", known, pairs=11) == 3
    store("c", known, 4.0, pairs=5, name="latest.pt")
    store("b", known, 5.0, pairs=5)  # training went on
    kept = json.loads(path.read_text())["fits"]
    assert [(fit["checkpoint"], fit["sha256"]) for fit in kept] == [("latest.pt", "c"), ("best.pt", "b")]


FIT = {"sha256": "a", "temperature": 1.0, "pairs": 5}
EDITED = {
    "zero": FIT | {"temperature": 0},
    "nan": FIT | {"temperature": math.nan},
    "text": FIT | {"temperature": "hot"},
    "pairs": FIT | {"pairs": "many"},
    "no hash": {"temperature": 1.0, "pairs": 5},
    "search": {"sha256": "a", "of": "search", "pairs": 5, "cells": -1, "places": 1.0},
    "reliability": {"sha256": "a", "of": "reliability", "pairs": 5, "training_temperature": 0.1},
    "no fit": 3,
}


@pytest.mark.parametrize("name", [*EDITED, "cut"])
def test_files_that_were_edited_by_hand_are_refused_or_right(tmp_path, name):
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps({"fits": [FIT, EDITED.get(name)]})[: 20 if name == "cut" else None])
    with pytest.raises(UserError, match=f"^{path}: ") as caught:
        temperatures.read_fits([tmp_path / "nowhere.json", path])
    assert name == "cut" or "2" in str(caught.value) or "reliability" in str(caught.value)
    assert "\n" not in str(caught.value)
