"""Errors common to all pairs of a district: a shift, a rotation, a scale. Functions on tables.

Labels are metres from the centre of a satellite image, by the metres per pixel that its data set states.
If the image covers another extent, a network finds all panoramas nearer to its centre, or further from it,
than the labels say, by one factor. Estimated camera heights are off by the same factor, but they alone are
too uncertain to give a scale.
"""

import numpy as np
import pandas as pd

from common.geometry import wrap_degrees

FITTED = ("east_m", "north_m", "heading_deg", "scale", "camera_height_m")
LEAST = 8  # pairs of a district
SCALES = np.exp(np.linspace(np.log(0.5), np.log(2), 57))
NEAR_M, NEAR_DEG = 2.0, 5.0  # standard deviations of predictions that are right; others hardly count
SURE_SCALE = 1.1  # labels whose interval of the scale is wider, up or down, do not tell it
REACH_M = 10.0  # from the camera to what a network sees well
_RESAMPLES, _ROUNDS = 100, 8


def fit_district(table):
    """A robust fit to a table: (values of `FITTED`, 95 % intervals (2, 5)); the scale as its logarithm.

    table: `label_east_m` and `label_north_m`, from the images' centres to the labels; `east_m` and `north_m`,
    from the labels to the predictions; `heading_error_deg` and `camera_height_m` where a network gives them.

    Shift, in stated metres, and rotation lead from the labels to the truth; the scale is the true metres per
    pixel over the stated. Unknown values are NaN, as is the scale if labels lie too near to the centre.
    """
    label = table[["label_east_m", "label_north_m"]].to_numpy(np.float64)
    found = label + table[["east_m", "north_m"]].to_numpy(np.float64)
    columns = [table.get(name) for name in ("heading_error_deg", "camera_height_m")]
    turns, heights = (np.full(len(table), np.nan) if x is None else x.to_numpy(np.float64) for x in columns)
    start = _scan(label, found), _scan_turns(turns)
    rng = np.random.default_rng(0)
    rows = [np.arange(len(table)), *rng.integers(len(table), size=(_RESAMPLES, len(table)))]
    fits = np.array([_refine(label[i], found[i], turns[i], heights[i], *start) for i in rows])
    ends = np.percentile(fits[1:], (2.5, 97.5), axis=0)
    if np.ptp(ends[:, 3]) > 2 * np.log(SURE_SCALE):  # labels near the centre
        fits[:, 3] = ends[:, 3] = np.nan
    return fits[0], ends


def _scan(label, found):
    """(factor, shift (2,)) of the best of `SCALES`: most predictions are near factor * label + shift."""
    apart = found - SCALES[:, None, None] * label
    shift = np.median(apart, axis=1)
    near = np.exp(-np.square(apart - shift[:, None]).sum(2) / (2 * (2 * NEAR_M) ** 2)).mean(1)
    best = int(near.argmax())
    return SCALES[best], shift[best]


def _scan_turns(turns):
    """The most common rotation, degrees."""
    candidates = np.arange(-180.0, 180.0, NEAR_DEG)
    apart = wrap_degrees(turns - candidates[:, None])
    return candidates[int(np.exp(-np.square(apart / NEAR_DEG) / 2).sum(1).argmax())]


def _refine(label, found, turns, heights, start, turn):
    """The values of `FITTED` by robust least squares (Welsch's weights), from a start."""
    (factor, shift), spread = start, 2 * NEAR_M
    for _ in range(_ROUNDS):
        apart = np.square(found - factor * label - shift).sum(1)
        weight = np.exp(-apart / (2 * spread**2)) + 1e-9
        middle, there = (np.average(x, axis=0, weights=weight) for x in (label, found))
        # A square metre on both sides: where all labels lie in one place, the scale is as stated.
        square = 1 + (weight[:, None] * np.square(label - middle)).sum()
        factor = (1 + (weight[:, None] * (label - middle) * (found - there)).sum()) / square
        factor = float(np.clip(factor, SCALES[0], SCALES[-1]))
        shift, spread = there - factor * middle, NEAR_M
        apart = wrap_degrees(turns - turn)
        turn += np.average(apart, weights=np.exp(-np.square(apart / NEAR_DEG) / 2) + 1e-9)
    return np.array([*shift, turn, -np.log(factor), np.median(heights)])


def moved_m(ends):
    """Least displacement, in metres, of a point `REACH_M` away by a district's errors: by the ends of their
    intervals that are nearest to no error."""
    low, high = ends[:, :4]
    least = np.where((low <= 0) & (high >= 0), 0, np.minimum(abs(low), abs(high)))
    east, north, turn, scale = np.nan_to_num(least)
    return float(np.sqrt(east**2 + north**2 + (REACH_M * np.radians(turn)) ** 2 + (REACH_M * scale) ** 2))


def district_table(fits, counts):
    """The table of districts, most suspect first, from {name: (values, ends) of `fit_district`}.

    counts: {name: number of pairs}. `least_moved_m`, by which it is sorted, is `moved_m`.
    """
    rows = []
    for name, (values, ends) in fits.items():
        row = {"district": name, "pairs": counts[name], "least_moved_m": moved_m(ends)}
        for k, column in enumerate(FITTED):
            three = values[k], *ends[:, k]
            if column == "scale":
                three = np.exp(three)
            row |= dict(zip((column, f"{column}_low", f"{column}_high"), map(float, three), strict=True))
        rows.append(row)
    columns = ["district", "pairs", "least_moved_m"]
    table = pd.DataFrame(rows, columns=None if rows else columns)
    return table.sort_values("least_moved_m", ascending=False, kind="stable", ignore_index=True)


def describe_districts(table, most=12):
    """The first rows of a `district_table` as a table that fits a terminal."""
    head = f"{'district':18}{'pairs':>6}{'east m (95 %)':>24}{'north m (95 %)':>24}{'heading deg':>20}"
    lines = [f"{head}{'scale (95 %)':>21}{'height m':>9}"]
    for row in table.head(most).to_dict("records"):
        cells = [_cell(row, "east_m", ".1f", 24), _cell(row, "north_m", ".1f", 24)]
        cells += [_cell(row, "heading_deg", ".1f", 20), _cell(row, "scale", ".2f", 21)]
        height = row["camera_height_m"]
        cells.append(f"{'-' if np.isnan(height) else format(height, '.1f'):>9}")
        lines.append(f"{row['district']:18.18}{row['pairs']:>6}{''.join(cells)}")
    if len(table) > most:
        lines.append(f"and {len(table) - most} more")
    return "\n".join(lines)


def _cell(row, name, digits, width):
    value, low, high = (row[column] for column in (name, f"{name}_low", f"{name}_high"))
    if np.isnan(value):
        return f"{'-':>{width}}"
    return f"{f'{value:{digits}} ({low:{digits}} to {high:{digits}})':>{width}}"
