"""Error metrics: pure functions on NumPy arrays. Rows grow southwards; headings are clockwise from north."""

import numpy as np
from scipy.special import ndtri, stdtrit  # scipy.stats takes 1.5 s longer to import

from common.geometry import wrap_degrees

RECALL_DISTANCES_M = (1, 3, 5, 10)
RECALL_HEADINGS_DEG = (1, 5, 10)
TILTS = ("pitch", "roll")  # of photographs, where a network estimates them
MASS_DISTANCES_M = (1, 3, 5)  # around the prediction, whose probability is summed
REGION_LEVELS = np.arange(1, 10) / 10  # shares of the probability whose regions should hold the truth


def distances(row, col, true_row, true_col):
    """Euclidean distance of each prediction from the truth, in the unit of its arguments."""
    return np.hypot(np.subtract(row, true_row), np.subtract(col, true_col))


def longitudinal_lateral(row, col, true_row, true_col, heading_deg):
    """The error vector, prediction minus truth: (along the camera's true heading, to its right), signed."""
    north, east = np.subtract(true_row, row), np.subtract(col, true_col)
    sine, cosine = np.sin(np.radians(heading_deg)), np.cos(np.radians(heading_deg))
    return north * cosine + east * sine, east * cosine - north * sine


def heading_errors(heading_deg, true_heading_deg):
    """Prediction minus truth the short way round, signed: degrees within [-180, 180), positive clockwise."""
    return wrap_degrees(np.subtract(heading_deg, true_heading_deg))


def describe(errors):
    """Mean, median, standard deviation (of the population), quartiles, minimum and maximum, as floats."""
    errors = np.asarray(errors, np.float64)
    low, median, high = np.percentile(errors, (25, 50, 75))
    numbers = {"mean": errors.mean(), "median": median, "std": errors.std(), "q25": low, "q75": high}
    numbers |= {"min": errors.min(), "max": errors.max()}
    return {name: float(value) for name, value in numbers.items()}


def recall(errors, distance):
    """Share of errors that are at most `distance`, 0 to 1."""
    return float(np.mean(np.asarray(errors) <= distance))


def cumulative_errors(errors, thresholds):
    """The cumulative error distribution: for each threshold the share of errors that are at most as large."""
    ordered = np.sort(np.asarray(errors))
    return np.searchsorted(ordered, thresholds, side="right") / len(ordered)


def bootstrap(columns, seed=0, resamples=1000):
    """95 % percentile intervals of mean and median of columns (C, N), resampled together (paired).

    Returns {'mean', 'median', 'mean_difference', 'median_difference': (C, 2)}; differences are to the first.
    """
    columns = np.asarray(columns, np.float64)
    rng = np.random.default_rng(seed)
    means, medians = np.empty((2, resamples, len(columns)))
    for i in range(resamples):
        drawn = columns[:, rng.integers(columns.shape[1], size=columns.shape[1])]
        means[i], medians[i] = drawn.mean(1), np.median(drawn, 1)
    statistics = {"mean": means, "median": medians}
    statistics |= {f"{name}_difference": values - values[:, :1] for name, values in statistics.items()}
    return {name: np.percentile(values, (2.5, 97.5), axis=0).T for name, values in statistics.items()}


def bootstrap_over_runs(differences, seed=0, resamples=2000):
    """The 95 % percentile interval, (low, high), of a mean, resampling S runs and N pairs with replacement.

    differences: (S, N); the same pairs are drawn for every run. Resampling a few runs underestimates their
    spread: with three, 95 % intervals would contain the truth in 74 % of cases. So each draw's distance from
    the mean is stretched by Student's t over the normal quantile, and by sqrt(S / (S - 1)).
    """
    differences = np.asarray(differences, np.float64)
    S, N = differences.shape
    rng = np.random.default_rng(seed)
    runs = rng.multinomial(N, np.full(N, 1 / N), resamples) @ differences.T / N  # (resamples, S): means
    means = runs.mean(1)
    if S > 1:
        drawn = np.take_along_axis(runs, rng.integers(S, size=(resamples, S)), 1).mean(1)
        stretch = stdtrit(S - 1, 0.975) / ndtri(0.975) * np.sqrt(S / (S - 1))
        means = means + stretch * (drawn - means)
    return tuple(np.percentile(means, (2.5, 97.5)).tolist())


def region_coverage(regions, levels=REGION_LEVELS):
    """The share of truths within the region of each level of the probability, by `truth_region`."""
    return np.mean(np.asarray(regions)[:, None] <= np.asarray(levels), axis=0)


def expected_calibration_error(regions, levels=REGION_LEVELS):
    """Mean distance between the coverage and the levels, 0 (calibrated) to 1."""
    return float(np.abs(region_coverage(regions, levels) - levels).mean())


def reliability_gap(claimed, right, bins=5):
    """The difference between claimed probabilities and the share of right answers, 0 (calibrated) to 1.

    claimed: (N,) probabilities; right: (N,) booleans. The absolute difference of both means, averaged over
    equally wide bins of the probability, weighted by their counts.
    """
    claimed, right = np.asarray(claimed, np.float64), np.asarray(right, np.float64)
    bin_of = np.minimum((claimed * bins).astype(int), bins - 1)
    within = [bin_of == b for b in range(bins)]
    return float(sum(abs(claimed[b].sum() - right[b].sum()) for b in within) / len(claimed))
