"""A table of errors -> what an evaluation leaves behind: CSV, summary, text, figures. No network, no dataset, no PyTorch."""

import hashlib
import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from engine import figures
from engine.metrics import (
    MASS_DISTANCES_M,
    RECALL_DISTANCES_M,
    RECALL_HEADINGS_DEG,
    REGION_LEVELS,
    bootstrap,
    cumulative_errors,
    describe,
    expected_calibration_error,
    recall,
    region_coverage,
)
from engine.run import RunError

GUESSES = {"centre_guess_m": "the centre", "street_guess_m": "a random street pixel of the mask"}  # what needs no network
DPI = 150  # of the figures
UNITS = {"error_px": "px at 512", "error_m": "m", "error_thesis_m": "m, thesis rule"}


def summarise(table):
    """Every statistic as a nested dict: over all pairs, for each city and, where there are several, for each kind of pair."""
    parts = {"all": table, **dict(list(table.groupby("city", sort=False)))}
    if table["kind"].nunique() > 1:
        parts |= dict(list(table.groupby("kind", sort=True)))
    return {name: _summarise_part(part) for name, part in parts.items()}


def _summarise_part(part):
    summary = {"pairs": len(part)}
    intervals = bootstrap(part[list(UNITS)].to_numpy().T)
    for i, name in enumerate(UNITS):
        summary[name] = describe(part[name])
        summary[name] |= {f"{of}_95": [float(end) for end in intervals[of][i]] for of in ("mean", "median")}
    summary["recall"] = {f"{d}_m": recall(part["error_m"], d) for d in RECALL_DISTANCES_M}
    for name in ("along_m", "across_m"):
        summary[f"abs_{name}"] = describe(part[name].abs())
    if "heading_error_deg" in part:
        errors = part["heading_error_deg"].abs()
        shares = {f"within_{d}_deg": recall(errors, d) for d in RECALL_HEADINGS_DEG}
        summary["abs_heading_error_deg"] = describe(errors) | shares
    summary["guesses"] = {name: describe(part[column]) for column, name in GUESSES.items() if column in part}
    regions = [name for name in part if name.startswith("region_")]
    summary["calibration"] = {
        name.removeprefix("region_"): {
            "expected_calibration_error": expected_calibration_error(part[name]),
            "coverage": {f"{p:.1f}": float(c) for p, c in zip(REGION_LEVELS, region_coverage(part[name]), strict=True)},
        }
        for name in regions
    }
    summary["mean_mass_within"] = {f"{d}_m": float(part[f"mass_within_{d}m"].mean()) for d in MASS_DISTANCES_M}
    summary["mean_density_at_truth_per_m2"] = float(part["density_at_truth_per_m2"].mean())
    return summary


def describe_conditions(context):
    """What was measured, in one line; every figure and text carries it."""
    noise = context.get("orientation_file") or f"within ±{context['ori_noise_deg']:g}°"
    pairs = f"{context['pairs']} of {context['pairs_in_list']} pairs" if context["limit"] else f"{context['pairs']} pairs"
    kinds = "positives" if context["pos_only"] else "positives and semi-positives"
    labels = "" if context["labels"] == "corrected" else f", labels {context['labels']}"
    return f"{context['area']} {context['split']}, {pairs} ({kinds}), headings {noise}, FoV {context['FoV_deg']:g}°{labels}"


def describe_calibration(summary, context):
    """One line for each temperature of the heat map: where it comes from and how well it is calibrated."""
    meaning = {
        "calibrated": context["calibration"],
        "training": "as trained",
        "published": "as the published code shows its map",
    }
    return [
        f"heat map at temperature {context['temperatures'][name]:.4g} ({meaning[name]}): "
        f"expected calibration error {100 * part['expected_calibration_error']:.1f} %"
        for name, part in summary["all"]["calibration"].items()
    ]


def compact_report(summary, context):
    """The main numbers as a table that fits a terminal."""
    head = "".join(f"{f'<= {d} m':>8}" for d in RECALL_DISTANCES_M)
    lines = [
        describe_conditions(context),
        "",
        f"{'':16}{'pairs':>7}{'mean m':>9}{'median m':>10}{'mean px':>9}{'median px':>11}{'thesis m':>10}{head}",
    ]
    for name, part in summary.items():
        shares = "".join(f"{100 * part['recall'][f'{d}_m']:>6.1f} %" for d in RECALL_DISTANCES_M)
        lines.append(
            f"{name:16}{part['pairs']:>7}{part['error_m']['mean']:>9.2f}{part['error_m']['median']:>10.2f}"
            f"{part['error_px']['mean']:>9.2f}{part['error_px']['median']:>11.2f}{part['error_thesis_m']['mean']:>10.2f}{shares}"
        )
    whole = summary["all"]
    (low, high), (low_median, high_median) = whole["error_m"]["mean_95"], whole["error_m"]["median_95"]
    lines += [
        "",
        f"95 % intervals: mean {low:.2f} to {high:.2f} m, median {low_median:.2f} to {high_median:.2f} m",
        f"mean along the heading {whole['abs_along_m']['mean']:.2f} m, across it {whole['abs_across_m']['mean']:.2f} m",
    ]
    if "abs_heading_error_deg" in whole:
        lines.append(_heading_line(whole["abs_heading_error_deg"]))
    guesses = [f"{name}: mean {n['mean']:.2f} m, median {n['median']:.2f} m" for name, n in whole["guesses"].items()]
    lines.append("guessing " + "; ".join(guesses))
    return "\n".join(lines + describe_calibration(summary, context)) + "\n"


def _heading_line(heading):
    shares = ", ".join(f"{100 * heading[f'within_{d}_deg']:.1f} % within {d}°" for d in RECALL_HEADINGS_DEG)
    return f"heading error: mean {heading['mean']:.2f}°, median {heading['median']:.2f}°, {shares}"


def full_report(summary, context):
    """Everything as text, for people."""
    settings = {name: value for name, value in context.items() if not isinstance(value, dict)}
    lines = [describe_conditions(context), *describe_calibration(summary, context), ""]
    lines += [f"{name}: {value}" for name, value in settings.items()]
    for name, part in summary.items():
        lines += ["", f"{name}: {part['pairs']} pairs"]
        rows = {unit: part[column] for column, unit in UNITS.items()}
        rows |= {"m along the heading": part["abs_along_m"], "m across the heading": part["abs_across_m"]}
        if "abs_heading_error_deg" in part:
            rows["° of heading"] = part["abs_heading_error_deg"]
        for unit, n in rows.items():
            lines.append(
                f"  mean {n['mean']:8.3f}  median {n['median']:8.3f}  std {n['std']:8.3f}"
                f"  quartiles {n['q25']:.3f} {n['q75']:.3f}  min {n['min']:.3f}  max {n['max']:.3f}  {unit}"
            )
        for column in ("error_px", "error_m"):
            (low, high), (low_median, high_median) = part[column]["mean_95"], part[column]["median_95"]
            intervals = f"mean {low:.3f} to {high:.3f}, median {low_median:.3f} to {high_median:.3f}"
            lines.append(f"  95 % bootstrap intervals: {intervals} {UNITS[column]}")
        lines.append("  " + "  ".join(f"within {d} m {100 * part['recall'][f'{d}_m']:.1f} %" for d in RECALL_DISTANCES_M))
        if "abs_heading_error_deg" in part:
            lines.append("  " + _heading_line(part["abs_heading_error_deg"]))
        masses = "  ".join(f"{d} m {100 * part['mean_mass_within'][f'{d}_m']:.1f} %" for d in MASS_DISTANCES_M)
        lines.append(f"  mean probability within {masses} of the prediction")
    return "\n".join(lines) + "\n"


def tag(area, split):
    """What the names of an evaluation's files end with: the area, and the split where it is not the test list."""
    return area if split == "test" else f"{area}_{split}"


def write_results(folder, table, context, gallery):
    """All files of an evaluation, summary_<tag>.json last; those of an earlier one are replaced. Returns the summary.

    gallery: arrays as `engine.gallery.collect` gives them. Every number is computed from the CSV as it was written.
    Raises RunError where the folder cannot be written or a prediction is no number.
    """
    if not (finite := np.isfinite(table[["row_px", "col_px"]]).all(axis=1)).all():
        raise RunError(f"pair {table['index'][~finite].iloc[0]}: the prediction is not a finite number; the training went wrong")
    name = tag(context["area"], context["split"])
    with new_files(folder, last=f"summary_{name}.json") as new:
        csv = new / f"per_image_results_{name}.csv"
        table.to_csv(csv, index=False, float_format="%.10g")
        np.savez_compressed(new / f"gallery_{name}.npz", **gallery)
        context = {**context, "csv_sha256": _hash(csv)}
        table = pd.read_csv(csv)
        summary = summarise(table)
        (new / f"localization_errors_{name}.txt").write_text(full_report(summary, context))
        (new / f"summary_{name}.json").write_text(json.dumps({"context": context, "summary": summary}, indent=2) + "\n")
        _draw(new, name, table, summary, context, gallery)
    return summary


def redraw(folder, area, split):
    """The figures again, from the stored predictions: returns the summary and its context. RunError where there are none."""
    table, summary, context = read_results(folder, area, split)
    name = tag(context["area"], context["split"])
    gallery = folder / f"gallery_{name}.npz"
    try:
        with np.load(gallery, allow_pickle=False) as arrays:
            gallery = dict(arrays)
    except (OSError, ValueError) as error:
        raise RunError(f"{gallery}: cannot be read ({error}); evaluate again without --redraw") from None
    with new_files(folder) as new:
        _draw(new, name, table, summary, context, gallery)
    return summary, context


def read_results(folder, area=None, split="test"):
    """(table, summary, context) of a finished evaluation; area None takes the one that is there. Raises RunError."""
    folder = Path(folder)
    found = sorted(folder.glob(f"summary_{tag(area or '*', split)}.json"))
    found = [path for path in found if split != "test" or not path.stem.endswith(("_val", "_train"))]
    if len(found) != 1:
        there = ", ".join(path.name for path in found) or f"no summary_{tag(area or '*', split)}.json"
        remedy = "choose one with --area" if found else "evaluate first: python eval_VIGOR.py --model_path <checkpoint>"
        raise RunError(f"{folder}: {there}; {remedy}")
    try:
        record = json.loads(found[0].read_text())
        summary, context = record["summary"], record["context"]
        csv = folder / f"per_image_results_{tag(context['area'], context['split'])}.csv"
        if _hash(csv) != context["csv_sha256"]:
            raise RunError(f"{csv} is not the file that {found[0].name} was computed from; evaluate again")
        return pd.read_csv(csv), summary, context
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{found[0]}: no finished evaluation ({type(error).__name__}: {error}); evaluate again") from None


def _draw(folder, name, table, summary, context, gallery):
    by_city = {"all": table["error_m"]} | {city: part["error_m"] for city, part in table.groupby("city", sort=False)}
    thresholds = np.arange(int(figures.CED_LIMIT_M) * 20 + 1) / 20
    ced = {"error_m": thresholds} | {city: cumulative_errors(errors, thresholds) for city, errors in by_city.items()}
    pd.DataFrame(ced).to_csv(folder / f"CED_{name}.csv", index=False, float_format="%.6f")
    title = describe_conditions(context)
    coverage = {
        line.removeprefix("heat map at "): list(part["coverage"].values())
        for line, part in zip(describe_calibration(summary, context), summary["all"]["calibration"].values(), strict=True)
    }
    drawn = {
        f"CED_{name}.png": figures.ced_figure(by_city, title),
        f"Error_Histogram_px_{name}.png": figures.histogram_figure(table["error_px"], "px at 512", title),
        f"Error_Histogram_m_{name}.png": figures.histogram_figure(table["error_m"], "m", title),
        f"calibration_{name}.png": figures.calibration_figure(REGION_LEVELS, coverage, title),
        f"gallery_{name}.png": figures.gallery_figure(table.set_index("index"), gallery, title),
    }
    for file, figure in drawn.items():
        figure.savefig(folder / file, dpi=DPI)


@contextmanager
def new_files(folder, last=None):
    """A new folder inside `folder`, whose files move up at the end, `last` after the others; a stop before leaves none."""
    try:
        with tempfile.TemporaryDirectory(prefix=".unfinished_", dir=folder) as new:
            yield Path(new)
            if last:
                (folder / last).unlink(missing_ok=True)
            for path in sorted(Path(new).iterdir(), key=lambda path: path.name == last):
                os.replace(path, folder / path.name)
    except OSError as error:
        raise RunError(f"{folder}: cannot be written ({error.strerror or error}); --output_dir chooses another place") from None


def keep_other_evaluations(folder, conditions):
    """Raises RunError where files would be replaced that measured something else; those of a --limit may be."""
    path = folder / f"summary_{tag(conditions['area'], conditions['split'])}.json"
    try:
        earlier = json.loads(path.read_text())["context"]
        whole, same = not earlier["limit"], all(earlier[name] == value for name, value in conditions.items())
    except (OSError, ValueError, KeyError):
        return  # no finished evaluation
    if whole and not same:
        raise RunError(f"{path} is of {describe_conditions(earlier)}, and is kept; --output_dir chooses another place")


def prepare_folder(folder):
    """Make a results folder and see that it can be written, before hours are spent. Raises RunError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be made ({error.strerror}); --output_dir chooses another place") from None
    with new_files(folder):
        pass


def _hash(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
