"""Error metrics, worked out by hand."""

import math

import numpy as np
import pytest

from engine.inference import metrics
from engine.inference.metrics import cumulative_errors, describe, recall, reliability_gap


def test_errors_and_statistics():
    errors = metrics.distances([0, 3, 1], [0, 4, 1], [0, 0, 1], [0, 0, 3])
    np.testing.assert_array_equal(errors, [0, 5, 2])
    expected = {"mean": 4, "median": 3, "std": math.sqrt(10), "q25": 2, "q75": 4, "min": 1, "max": 10}
    assert describe([1, 2, 3, 4, 10]) == pytest.approx(expected)
    tied = describe([2, 9, 2, 1, 2, 2])  # in order: 1 2 2 2 2 9; the quartiles lie at places 1.25 and 3.75
    assert (tied["q25"], tied["median"], tied["q75"], tied["mean"]) == (2, 2, 2, 3)
    assert recall([1.0, 1.0, 2.0, 3.0], 1.0) == 0.5  # an error of exactly the distance counts
    assert recall([1.0, 1.0, 2.0, 3.0], 0.999) == 0
    np.testing.assert_array_equal(cumulative_errors([1, 1, 2, 3], [0, 1, 1.5, 3]), [0, 0.5, 0.5, 1])
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
    found = metrics.longitudinal_lateral(10 - 3, 20 + 4, 10, 20, heading)
    np.testing.assert_allclose(found, (along, across), atol=1e-12)


def test_headings_wrap_around():
    predicted, true = [10, 350, -179, 90, 0.0], [350, 10, 179, 90, 180]
    np.testing.assert_allclose(metrics.heading_errors(predicted, true), [20, -20, 2, 0, -180])


def test_bootstrap_intervals():
    rng = np.random.default_rng(1)
    errors = rng.normal(10, 2, 400)
    columns = np.stack([errors, errors + 1, np.full(400, 7.0)])
    intervals = metrics.bootstrap(columns, seed=3)
    low, high = intervals["mean"][0]
    assert low == pytest.approx(errors.mean() - 1.96 * 2 / 20, abs=0.03)  # the normal theory's
    assert high == pytest.approx(errors.mean() + 1.96 * 2 / 20, abs=0.03)
    np.testing.assert_allclose(intervals["mean_difference"][1], [1, 1])  # paired
    np.testing.assert_allclose(intervals["median_difference"][1], [1, 1])
    np.testing.assert_array_equal(intervals["median"][2], [7, 7])
    again, other = metrics.bootstrap(columns, seed=3), metrics.bootstrap(columns, seed=4)
    assert all(np.array_equal(intervals[name], again[name]) for name in intervals)
    assert not np.array_equal(intervals["mean"], other["mean"])


def test_coverage_and_calibration_error():
    assert metrics.region_coverage([0.05, 0.15, 0.95, 0.3], [0.1, 0.3, 0.9]).tolist() == [0.25, 0.75, 0.75]
    # A region of 0 covers all where 0.1, ..., 0.9 are asked for.
    for regions, error in ((np.linspace(0.001, 0.999, 1000), 0), ([0.0], 0.5), ([1.0], 0.5)):
        assert metrics.expected_calibration_error(regions) == pytest.approx(error, abs=1e-3)


def test_the_reliability_gap_compares_claims_with_hits():
    """Four answers in two of five bins."""
    claimed, right = [0.9, 0.7, 1.0, 1.0], [True, False, True, False]
    # bin from 0.8: claims 0.9, 1, 1, right 1, 1, 0; bin from 0.6: claim 0.7, right 0
    assert reliability_gap(claimed, right) == pytest.approx(((2.9 - 2) + 0.7) / 4)
    assert reliability_gap([0.5, 0.5], [True, False]) == 0
    assert reliability_gap([0.0, 1.0], [True, False]) == 1
