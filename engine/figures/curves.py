"""Tables of errors -> figures. Nothing is loaded and nothing is predicted here.

Colours are Okabe and Ito's, which colour-blind readers tell apart; lines differ in their dashes as well.
"""

from textwrap import fill

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from common.geometry import REFERENCE_PX
from engine.figures.pictures import PREDICTION, TRUTH, dim, draw_heat_map

CED_LIMIT_M = 25.0
CASES = ("worst", "about the median")  # kinds of cases of a gallery
_COLOURS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_DASHES = ("-", (0, (6, 1.5)), (0, (3, 1, 1, 1)), (0, (1, 1)))
_GALLERY_COLUMNS = 8


def _line(i):
    return {"color": _COLOURS[i % 7], "linestyle": _DASHES[i % 4], "linewidth": 1.5 if i else 2.2}


def _in_words(errors):
    return f"mean {np.mean(errors):.2f} m, median {np.median(errors):.2f} m"


def ced_figure(errors_by_name, title, in_words=_in_words):
    """Cumulative distributions of {name: errors in metres}, 0 to 25 m. in_words(errors): for the legend."""
    figure, axes = _figure(5.5, 3.9, title)
    for i, (name, errors) in enumerate(errors_by_name.items()):
        axes.ecdf(errors, label=fill(f"{name}: {in_words(errors)}", 75), **_line(i))
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    axes.set(xlabel="localization error (m)", ylabel="pairs with at most this error (%)")
    axes.set(xlim=(0, CED_LIMIT_M), ylim=(0, 1))
    axes.grid(alpha=0.3)
    _legend_below(figure, axes)
    return figure


def histogram_figure(errors, unit, title):
    """Histogram of errors with mean and median; the last bin holds everything beyond the 99th percentile."""
    figure, axes = _figure(5.5, 3.4, title)
    limit = max(float(np.percentile(errors, 99)), 1e-6)
    bars = {"bins": 40, "range": (0, limit), "color": "#56b4e9", "edgecolor": "white", "linewidth": 0.3}
    axes.hist(np.minimum(errors, limit), **bars)
    for name, value, style in (("mean", np.mean(errors), "-"), ("median", np.median(errors), "--")):
        axes.axvline(value, color="black", linestyle=style, label=f"{name} {value:.2f} {unit}")
    axes.set(xlabel=f"localization error ({unit}); last bin: this and more", ylabel="pairs")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _legend_below(figure, axes)
    return figure


def calibration_figure(levels, coverage_by_name, title):
    """How often the truth lies in the smallest region that holds a share of the probability.

    The shares are `levels`; coverage_by_name is {name: coverage at each level}.
    """
    figure, axes = _figure(5.5, 4.6, title)
    axes.plot([0, 100], [0, 100], color="0.6", linewidth=1, label="perfectly calibrated")
    for i, (name, coverage) in enumerate(coverage_by_name.items()):
        marked = {"marker": "os^D"[i % 4], "markersize": 4, "label": fill(name, 75)}
        axes.plot(100 * np.asarray(levels), 100 * np.asarray(coverage), **marked, **_line(i))
    axes.set(xlabel="probability that the region holds (%)", ylabel="truths inside the region (%)")
    axes.set(xlim=(0, 100), ylim=(0, 100), aspect="equal")
    axes.grid(alpha=0.3)
    _legend_below(figure, axes)
    return figure


def gallery_figure(cases, gallery, title):
    """Cases as small pictures, {kind: rows of an evaluation's table by `index`}.

    The gallery holds images and heat maps, as `engine.evaluation.gallery.collect` gives them.
    """
    rows = [-(-len(table) // _GALLERY_COLUMNS) for table in cases.values()]
    figure = Figure(figsize=(1.75 * _GALLERY_COLUMNS, 0.9 + 2.85 * sum(rows)), layout="constrained")
    figure.suptitle(f"{title}\nheat map, truth (ring) and prediction (cross); north up", fontsize=11)
    parts = np.atleast_1d(figure.subfigures(len(cases), 1, height_ratios=rows))
    for part, count, (kind, table) in zip(parts, rows, cases.items(), strict=True):
        part.suptitle(kind, fontsize=11, fontweight="bold")
        grid = part.subplots(2 * count, _GALLERY_COLUMNS, squeeze=False, height_ratios=(1, 2) * count)
        for axes in grid.flat:
            axes.set_axis_off()
        for k, (index, case) in enumerate(table.iterrows()):
            row, col = divmod(k, _GALLERY_COLUMNS)
            _draw_case(grid[2 * row, col], grid[2 * row + 1, col], index, case, gallery)
    return figure


def _draw_case(above, below, index, case, gallery):
    i = int(np.flatnonzero(gallery["index"] == index)[0])
    above.imshow(gallery["query"][i])
    above.set_title(f"{index}: {case['error_m']:.2f} m\n{case['city']}", fontsize=8)
    below.imshow(dim(gallery["satellite"][i]), extent=(0, REFERENCE_PX, REFERENCE_PX, 0))
    draw_heat_map(below, gallery["probability"][i])
    small = {"markersize": 8, "markeredgewidth": 1.6}
    below.plot(case["true_col_px"], case["true_row_px"], **TRUTH | small)
    below.plot(case["col_px"], case["row_px"], **PREDICTION | small | {"markersize": 9})
    below.set(xlim=(0, REFERENCE_PX), ylim=(REFERENCE_PX, 0))


def _figure(width, height, title):
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.set_title(fill(title, 80))
    return figure, axes


def _legend_below(figure, axes):
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", fontsize=8, frameon=False)
