"""Metrics, calibration and the choice of cases, worked out by hand."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from engine.evaluation.metrics import (
    bootstrap,
    cumulative_errors,
    describe,
    distances,
    expected_calibration_error,
    heading_errors,
    longitudinal_lateral,
    recall,
    region_coverage,
)
from engine.evaluation.prediction import mass_within, truth_pixel, truth_region

from common.errors import UserError
from engine.evaluation import calibration, gallery
from engine.evaluation.gallery import CASES, choose_cases


def test_errors_and_statistics():
    errors = distances([0, 3, 1], [0, 4, 1], [0, 0, 1], [0, 0, 3])
    np.testing.assert_array_equal(errors, [0, 5, 2])
    assert describe([1, 2, 3, 4, 10]) == {
        "mean": 4.0,
        "median": 3.0,
        "std": pytest.approx(math.sqrt(10.0)),
        "q25": 2.0,
        "q75": 4.0,
        "min": 1.0,
        "max": 10.0,
    }
    np.testing.assert_array_equal(cumulative_errors([1, 1, 2, 3], [0, 1, 1.5, 3]), [0, 0.5, 0.5, 1])


def test_ties():
    tied = describe([2, 9, 2, 1, 2, 2])  # in order: 1 2 2 2 2 9; the quartiles lie at places 1.25 and 3.75
    assert (tied["q25"], tied["median"], tied["q75"], tied["mean"]) == (2, 2, 2, 3)
    assert recall([1.0, 1.0, 2.0, 3.0], 1.0) == 0.5  # an error of exactly the distance counts
    assert recall([1.0, 1.0, 2.0, 3.0], 0.999) == 0
    np.testing.assert_array_equal(cumulative_errors([2, 2, 2], [1.999, 2]), [0, 1])


@pytest.mark.parametrize(
    ("heading", "along", "across"),
    [
        (0, 3, 4),  # looking north, east is to the right
        (90, 4, -3),  # looking east, north is to the left
        (225, -7 / math.sqrt(2), -1 / math.sqrt(2)),  # looking south-west, north-west is to the right
        (-135, -7 / math.sqrt(2), -1 / math.sqrt(2)),
    ],
)
def test_a_prediction_3_north_and_4_east_of_the_truth(heading, along, across):
    np.testing.assert_allclose(longitudinal_lateral(10 - 3, 20 + 4, 10, 20, heading), (along, across), atol=1e-12)


def test_headings_wrap_around():
    predicted, true = [10, 350, -179, 90, 0.0], [350, 10, 179, 90, 180]
    np.testing.assert_allclose(heading_errors(predicted, true), [20, -20, 2, 0, -180])


def test_bootstrap_intervals():
    rng = np.random.default_rng(1)
    errors = rng.normal(10, 2, 400)
    columns = np.stack([errors, errors + 1, np.full(400, 7.0)])
    intervals = bootstrap(columns, seed=3)
    low, high = intervals["mean"][0]
    assert low == pytest.approx(errors.mean() - 1.96 * 2 / 20, abs=0.03)  # the normal theory's
    assert high == pytest.approx(errors.mean() + 1.96 * 2 / 20, abs=0.03)
    np.testing.assert_allclose(intervals["mean_difference"][1], [1, 1])  # paired: the spread of the errors does not show
    np.testing.assert_allclose(intervals["median_difference"][1], [1, 1])
    np.testing.assert_array_equal(intervals["median"][2], [7, 7])
    again, other = bootstrap(columns, seed=3), bootstrap(columns, seed=4)
    assert all(np.array_equal(intervals[name], again[name]) for name in intervals)
    assert not np.array_equal(intervals["mean"], other["mean"])


def test_regions_that_hold_the_truth():
    """2 x 2 maps: the truth's own pixel, and equal ones, count half."""
    maps = torch.tensor([[[0.4, 0.3], [0.2, 0.1]], [[0.25, 0.25], [0.25, 0.25]], [[0.4, 0.3], [0.2, 0.1]]])
    truth = torch.tensor([[1.5, 0.2], [0.0, 0.0], [0.9, 0.9]])
    pixel = truth_pixel(2, truth)
    assert pixel.tolist() == [2, 0, 0]
    np.testing.assert_allclose(truth_region(maps, pixel), [0.4 + 0.3 + 0.1, 0.5, 0.2], atol=1e-6)
    assert truth_pixel(2, torch.tensor([[2.0, -0.1]])).item() == 2  # on the far edge and beyond the near one


def test_coverage_and_calibration_error():
    assert region_coverage([0.05, 0.15, 0.95, 0.3], [0.1, 0.3, 0.9]).tolist() == [0.25, 0.75, 0.75]
    assert expected_calibration_error(np.linspace(0.001, 0.999, 1000)) == pytest.approx(0, abs=1e-3)
    assert expected_calibration_error([0.0]) == pytest.approx(0.5)  # covers all where 0.1, ..., 0.9 are asked for
    assert expected_calibration_error([1.0]) == pytest.approx(0.5)


def test_probability_within_a_circle():
    flat = torch.full((2, 64, 64), 1 / 64**2)
    mass = mass_within(flat, torch.tensor([[32.3, 31.8], [0.0, 64.0]]), torch.tensor([8.0, 8.0])).numpy()
    np.testing.assert_allclose(mass * 64**2, [math.pi * 64, math.pi * 16], rtol=0.005)


def temperature_of(logits, truth, trained=0.1):
    steps = trained * calibration.STEPS
    nll = calibration.nll_columns(steps)(logits, {"position": truth}, None)["nll"].numpy()
    return calibration.describe_fit(steps, nll, trained)


def test_the_temperature_that_calibrates():
    """16 pixels, one of them 2 above the rest, and the truth there in three of four samples.

    The likelihood is highest where that pixel's probability is 3/4: e^(2/T) / (e^(2/T) + 15) = 3/4, T = 2 / ln 45.
    """
    logits = torch.zeros(4, 4, 4)
    logits[:, 1, 2] = 2
    truth = torch.tensor([[1.5, 2.5], [1.1, 2.9], [1.5, 2.5], [3.5, 0.5]])
    fit = temperature_of(logits, truth)
    assert fit["temperature"] == pytest.approx(2 / math.log(45), rel=0.005) and fit["within_range"]
    assert fit["nll"] == pytest.approx(-0.75 * math.log(3 / 4) - 0.25 * math.log(1 / 60), rel=1e-3)
    assert fit["nll_at_training_temperature"] == pytest.approx(0.25 * 20, rel=1e-4)  # almost all on the peak, one truth 20 below
    assert temperature_of(logits * 10, truth, trained=1.0)["temperature"] == pytest.approx(20 / math.log(45), rel=0.005)


def test_a_map_that_says_nothing_is_said_to():
    flat = temperature_of(torch.zeros(3, 4, 4), torch.full((3, 2), 1.5))
    assert not flat["within_range"] and "where its range ends" in calibration.say(flat)
    with pytest.raises(UserError, match="not finite"):
        temperature_of(torch.full((1, 4, 4), torch.nan), torch.ones(1, 2))


def test_fits_belong_to_a_checkpoint_and_its_conditions(tmp_path):
    def loaded(sha256, name="best.pt"):
        return SimpleNamespace(folder=tmp_path, file=tmp_path / name, sha256=sha256)

    def find(sha256, key, pairs=0):
        return (calibration.find_fit(loaded(sha256), key, pairs) or {}).get("temperature")

    known, any_heading = {"ori_noise_deg": 0.0}, {"ori_noise_deg": 180.0}
    assert find("a", known) is None
    calibration.store_fit(loaded("a"), known, {"temperature": 1.0, "pairs": 10})
    calibration.store_fit(loaded("a"), any_heading, {"temperature": 2.0, "pairs": 20})
    assert (find("a", known), find("a", any_heading), find("b", known)) == (1, 2, None)
    assert find("a", known, pairs=11) is None  # made on fewer than are wanted
    calibration.store_fit(loaded("a"), known, {"temperature": 3.0, "pairs": 11})
    assert find("a", known, pairs=11) == 3
    calibration.store_fit(loaded("c", "latest.pt"), known, {"temperature": 4.0, "pairs": 5})
    calibration.store_fit(loaded("b"), known, {"temperature": 5.0, "pairs": 5})  # training went on
    kept = json.loads((tmp_path / "calibration.json").read_text())["fits"]
    assert [(fit["checkpoint"], fit["sha256"]) for fit in kept] == [("latest.pt", "c"), ("best.pt", "b")]
    (tmp_path / "calibration.json").write_text("{")
    assert find("b", known) is None


def test_cases_to_show(monkeypatch):
    monkeypatch.setattr(gallery, "CASES", CASES)  # which is smaller for the figures of tests
    worst, median = choose_cases(np.arange(100.0)[::-1])
    assert worst.tolist() == list(range(16))
    assert median.tolist() == list(range(57, 41, -1))  # errors 42 to 57, about the median 49.5
    worst, median = choose_cases([3.0, 1.0, 2.0])
    assert worst.tolist() == [0, 2, 1] and median.tolist() == [1, 2, 0]
