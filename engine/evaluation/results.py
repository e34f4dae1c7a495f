"""A finished evaluation on the disk: writing it whole, reading it, drawing it again. No network and no dataset."""

import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from common.errors import UserError
from common.files import file_hash
from engine.evaluation import curves
from engine.evaluation.metrics import REGION_LEVELS, cumulative_errors
from engine.evaluation.report import UNITS, describe_calibration, describe_conditions, full_report, summarise

DPI = 150  # of the figures
BEFORE = {"tta": 1, "train_cities": None, "test_cities": None, "cities_in_list": None}  # what a summary means that does not say


def tag(area, split):
    """What the names of an evaluation's files end with: the area, and the split where it is not the test list."""
    return area if split == "test" else f"{area}_{split}"


def write_results(folder, table, context, gallery):
    """All files of an evaluation, summary_<tag>.json last; those of an earlier one are replaced. Returns the summary.

    gallery: arrays as `engine.evaluation.gallery.collect` gives them. Every number is computed from the CSV as it was written.
    Raises UserError where the folder cannot be written or a prediction is no number.
    """
    if not (finite := np.isfinite(table[["row_px", "col_px"]]).all(axis=1)).all():
        raise UserError(f"pair {table['index'][~finite].iloc[0]}: the prediction is not a finite number; the training went wrong")
    name = tag(context["area"], context["split"])
    with new_files(folder, last=f"summary_{name}.json") as new:
        csv = new / f"per_image_results_{name}.csv"
        table.to_csv(csv, index=False, float_format="%.10g")
        np.savez_compressed(new / f"gallery_{name}.npz", **gallery)
        context = {**context, "csv_sha256": file_hash(csv)}
        table = pd.read_csv(csv)
        summary = summarise(table)
        (new / f"localization_errors_{name}.txt").write_text(full_report(summary, context))
        (new / f"summary_{name}.json").write_text(json.dumps({"context": context, "summary": summary}, indent=2) + "\n")
        _draw(new, name, table, summary, context, gallery)
    return summary


def redraw(folder, area, split):
    """The figures again, from the stored predictions: returns the summary and its context. UserError where there are none."""
    table, summary, context = read_results(folder, area, split)
    name = tag(context["area"], context["split"])
    gallery = folder / f"gallery_{name}.npz"
    try:
        with np.load(gallery, allow_pickle=False) as arrays:
            gallery = dict(arrays)
    except (OSError, ValueError) as error:
        raise UserError(f"{gallery}: cannot be read ({error}); evaluate again without --redraw") from None
    with new_files(folder) as new:
        _draw(new, name, table, summary, context, gallery)
    return summary, context


def read_results(folder, area=None, split="test"):
    """(table, summary, context) of a finished evaluation; area None takes the one that is there. Raises UserError."""
    folder = Path(folder)
    found = sorted(folder.glob(f"summary_{tag(area or '*', split)}.json"))
    found = [path for path in found if split != "test" or not path.stem.endswith(("_val", "_train"))]
    if len(found) != 1:
        there = ", ".join(path.name for path in found) or f"no summary_{tag(area or '*', split)}.json"
        remedy = "choose one with --area" if found else "evaluate first: python eval_VIGOR.py --model_path <checkpoint>"
        raise UserError(f"{folder}: {there}; {remedy}")
    try:
        record = json.loads(found[0].read_text())
        summary, context = record["summary"], BEFORE | record["context"]
        csv = folder / f"per_image_results_{tag(context['area'], context['split'])}.csv"
        if file_hash(csv) != context["csv_sha256"]:
            raise UserError(f"{csv} is not the file that {found[0].name} was computed from; evaluate again")
        return _upgrade(pd.read_csv(csv), summary), summary, context
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{found[0]}: no finished evaluation ({type(error).__name__}: {error}); evaluate again") from None


def _upgrade(table, summary):
    """A table, and in place its summary, of an evaluation that called longitudinal and lateral errors along and across."""
    names = {"along_m": "longitudinal_m", "across_m": "lateral_m"}
    for part in summary.values():
        for old, new in names.items():
            if f"abs_{old}" in part:
                part[f"abs_{new}"] = part.pop(f"abs_{old}")
    return table.rename(columns=names)


def _draw(folder, name, table, summary, context, gallery):
    by_city = {"all": table["error_m"]} | {city: part["error_m"] for city, part in table.groupby("city", sort=False)}
    thresholds = np.arange(int(curves.CED_LIMIT_M) * 20 + 1) / 20
    ced = {"error_m": thresholds} | {city: cumulative_errors(errors, thresholds) for city, errors in by_city.items()}
    pd.DataFrame(ced).to_csv(folder / f"CED_{name}.csv", index=False, float_format="%.6f")
    title = describe_conditions(context)
    coverage = {
        line.removeprefix("heat map at "): list(part["coverage"].values())
        for line, part in zip(describe_calibration(summary, context), summary["all"]["calibration"].values(), strict=True)
    }
    drawn = {
        f"CED_{name}.png": curves.ced_figure(by_city, title),
        f"Error_Histogram_px_{name}.png": curves.histogram_figure(table["error_px"], UNITS["error_px"], title),
        f"Error_Histogram_m_{name}.png": curves.histogram_figure(table["error_m"], "m", title),
        f"calibration_{name}.png": curves.calibration_figure(REGION_LEVELS, coverage, title),
        f"gallery_{name}.png": curves.gallery_figure(table.set_index("index"), gallery, title),
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
        raise UserError(f"{folder}: cannot be written ({error.strerror or error}); --output_dir chooses another place") from None


def keep_other_evaluations(folder, conditions):
    """Raises UserError where files would be replaced that measured something else; those of a --limit may be."""
    path = folder / f"summary_{tag(conditions['area'], conditions['split'])}.json"
    try:
        earlier = BEFORE | json.loads(path.read_text())["context"]
        whole, same = not earlier["limit"], all(earlier[name] == value for name, value in (BEFORE | conditions).items())
    except (OSError, ValueError, KeyError):
        return  # no finished evaluation
    if whole and not same:
        raise UserError(f"{path} is of {describe_conditions(earlier)}, and is kept; --output_dir chooses another place")


def prepare_folder(folder):
    """Make a results folder and see that it can be written, before hours are spent. Raises UserError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror}); --output_dir chooses another place") from None
    with new_files(folder):
        pass
