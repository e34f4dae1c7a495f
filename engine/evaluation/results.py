"""Files of evaluations and searches: write atomically, read, draw again. No network is needed."""

import hashlib
import io
import json
import os
import tempfile
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from common.errors import UserError
from common.files import Unwritable, file_hash, read_json, try_writing, writing
from engine import distributed, run
from engine.evaluation.gallery import choose_cases
from engine.evaluation.report import UNITS, describe_calibration, describe_conditions, full_report
from engine.evaluation.summary import summarise
from engine.figures import curves
from engine.inference.metrics import REGION_LEVELS, cumulative_errors

DPI = 150  # of the figures
_CHECKSUM = "checksum"  # of a summary
ROOM = 2**20  # bytes that a folder of results needs at least
_TRIES = 20  # of processes that create and remove the same folder at once
_ELSEWHERE = "make room, or choose another place with --output_dir"


def tag(context):
    """The ending of results' names: the area, and the split if it is not test."""
    area, split = context["area"], context["split"]
    return area if split == "test" else f"{area}_{split}"


def make_context(checkpoint, conditions, table, dataset, device, **more):
    """The record beside a summary, for JSON; conditions are settings of `Protocol` and `View`."""
    return {
        **run.provenance(checkpoint, dataset.index),
        **conditions,
        "pairs": int(table["index"].nunique()),
        "device": str(device),
        "processes": distributed.world_size(),
        **more,
    }


def write_results(folder, table, context, gallery):
    """Write all files of an evaluation, the summary last, over those of an earlier one; returns the summary.

    All numbers come from the CSV as written. Raises UserError, also if a prediction is not finite.
    """
    if not (finite := np.isfinite(table[["row_px", "col_px"]]).all(axis=1)).all():
        pair = table["index"][~finite].iloc[0]
        raise UserError(f"pair {pair}: the prediction is not a finite number; the training went wrong")
    name, csv = tag(context), as_csv(table)
    context = {**context, "csv_sha256": hashlib.sha256(csv.encode()).hexdigest()}
    table = pd.read_csv(io.StringIO(csv))
    summary = summarise(table)
    arrays = io.BytesIO()
    np.savez_compressed(arrays, **gallery)
    files = {
        f"per_image_results_{name}.csv": csv,
        f"gallery_{name}.npz": arrays.getvalue(),
        f"localization_errors_{name}.txt": full_report(summary, context),
        f"summary_{name}.json": as_json(context, summary),
    }
    write_files(folder, files | _figures(table, summary, context, gallery), last=f"summary_{name}.json")
    return summary


def redraw(folder, area, split):
    """Draw the figures again from the stored predictions: (summary, context). Raises UserError."""
    table, summary, context = read_results(folder, area, split)
    path = folder / f"gallery_{tag(context)}.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            gallery = dict(arrays)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); evaluate again without --redraw") from None
    write_files(folder, _figures(table, summary, context, gallery))
    return summary, context


def read_results(folder, area=None, split="test"):
    """(table, summary, context) of a finished evaluation; area None takes the only one. Raises UserError."""
    folder = Path(folder)
    pattern = f"summary_{tag({'area': area or '*', 'split': split})}.json"
    paths = sorted(folder.glob(pattern))
    paths = [path for path in paths if split != "test" or not path.stem.endswith(("_val", "_train"))]
    if len(paths) != 1:
        there = ", ".join(path.name for path in paths) or f"no {pattern}"
        evaluate = "evaluate first: python eval_VIGOR.py --model_path <checkpoint>"
        raise UserError(f"{folder}: {there}; {'choose one with --area' if paths else evaluate}")
    try:
        record = read_json(paths[0])
        summary, context = record["summary"], record["context"]
        if record.get(_CHECKSUM) not in (None, _checksum(context, summary)):  # none in older files
            raise ValueError("it was changed")
        csv = folder / f"per_image_results_{tag(context)}.csv"
        if file_hash(csv) != context["csv_sha256"]:
            raise UserError(f"{csv} is not the file that {paths[0].name} was computed from; evaluate again")
        return pd.read_csv(csv), summary, context
    except (OSError, ValueError, KeyError, TypeError) as error:
        fault = f"{type(error).__name__}: {error}"
        raise UserError(f"{paths[0]}: no finished evaluation ({fault}); evaluate again") from None


def _figures(table, summary, context, gallery):
    """{file name: content} of the figures of an evaluation and of the CSV of the first."""
    by_city = {"all": table["error_m"], **dict(list(table.groupby("city", sort=False)["error_m"]))}
    thresholds = np.arange(int(curves.CED_LIMIT_M) * 20 + 1) / 20
    ced = {city: cumulative_errors(errors, thresholds) for city, errors in by_city.items()}
    name, title = tag(context), describe_conditions(context)
    calibrations = summary["all"]["calibration"].values()
    lines = (line.removeprefix("heat map at ") for line in describe_calibration(summary, context))
    coverage = {line: list(part["coverage"].values()) for line, part in zip(lines, calibrations, strict=True)}
    errors_px = curves.histogram_figure(table["error_px"], UNITS["error_px"], title)
    table = table.set_index("index")
    cases = [table.iloc[rows] for rows in choose_cases(table["error_m"])]
    cases = dict(zip(curves.CASES, cases, strict=True))
    return {
        f"CED_{name}.csv": as_csv(pd.DataFrame({"error_m": thresholds} | ced), "%.6f"),
        f"CED_{name}.png": curves.ced_figure(by_city, title),
        f"Error_Histogram_px_{name}.png": errors_px,
        f"Error_Histogram_m_{name}.png": curves.histogram_figure(table["error_m"], "m", title),
        f"calibration_{name}.png": curves.calibration_figure(REGION_LEVELS, coverage, title),
        f"gallery_{name}.png": curves.gallery_figure(cases, gallery, title),
    }


def as_csv(table, numbers="%.10g"):
    """A table as the text of a CSV file."""
    return table.to_csv(index=False, float_format=numbers)


def as_json(context, summary):
    """The text of a summary's file."""
    record = {_CHECKSUM: _checksum(context, summary), "context": context, "summary": summary}
    return json.dumps(record, indent=2) + "\n"


def _checksum(context, summary):
    """A checksum of all that a summary says."""
    as_read = json.loads(json.dumps([context, summary]))  # with texts as keys
    return zlib.crc32(json.dumps(as_read, sort_keys=True).encode())


def write_files(folder, files, last=None):
    """Write {name: text, bytes or `Figure`} into a folder, `last` at the end, or none. Raises UserError."""
    with _new_files(folder, last) as new:
        for name, content in files.items():
            if isinstance(content, Figure):
                content.savefig(new / name, dpi=DPI)
            else:
                (new / name).write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def _new_files(folder, last=None):
    """A new folder inside `folder`, whose files move up at the end; an error leaves no files."""
    with writing(folder, _ELSEWHERE):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".unfinished_", dir=folder) as new:
            yield Path(new)
            if last:
                (folder / last).unlink(missing_ok=True)
            for path in sorted(Path(new).iterdir(), key=lambda path: path.name == last):
                os.replace(path, folder / path.name)


def keep_other_evaluations(folder, conditions):
    """Raises UserError if a finished evaluation under other conditions would be replaced."""
    path = folder / f"summary_{tag(conditions)}.json"
    try:
        earlier = read_json(path)["context"]
        differs = any(earlier.get(name) != value for name, value in conditions.items())
        measured = describe_conditions(earlier) if differs and not earlier["limit"] else None
    except (FileNotFoundError, NotADirectoryError):
        return  # no finished evaluation
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        says = f"is no summary of an evaluation ({error}), and is kept"
        raise UserError(f"{path} {says}; remove it, or choose another place with --output_dir") from None
    if measured:
        raise UserError(f"{path} is of {measured}, and is kept; --output_dir chooses another place")


def prepare_folder(folder):
    """Raise UserError before hours of work if a folder of results or pictures cannot be written.

    A missing folder is created with its first file, so that a command refused later leaves none.
    """
    with writing(folder, _ELSEWHERE):
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        try:
            for left in reversed(range(_TRIES)):
                try:
                    folder.mkdir(parents=True, exist_ok=True)
                    try_writing(folder / ".room", ROOM)
                    break
                except (FileNotFoundError, Unwritable):
                    if folder.is_dir() or not left:  # else another process has just removed it, as below
                        raise
        finally:
            for path in missing:
                with suppress(OSError):  # another process has written there
                    path.rmdir()
