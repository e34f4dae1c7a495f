"""Comparison of finished evaluations of the same pairs: one table, one figure."""

from pathlib import Path

import numpy as np
import pandas as pd

from common.errors import UserError
from common.view import View
from common.words import in_words
from dataset.protocol import Protocol
from engine.evaluation.report import recall_head, recall_row
from engine.evaluation.results import as_csv, read_results, tag, write_files
from engine.figures import curves
from engine.inference.metrics import RECALL_DISTANCES_M, bootstrap, recall
from engine.run import made_folder

# What results stand on besides what was asked; commands and roots always differ.
_STAND_ON = "data_fingerprint", "checkpoint_sha256", "git_revision", "torch_version", "device"
RESULTS = "results"  # the folder beside a checkpoint


def results_folder(path):
    """The folder of a run's results: the folder itself, or results/ in it or beside a checkpoint."""
    path = Path(path)
    if path.is_dir() and any(path.glob("summary_*.json")):
        return path
    return made_folder(path) / RESULTS


def compare(paths, area=None, split="test"):
    """Evaluations of the same pairs, matched by names: (table, {run: errors in metres}, notes, context).

    The table's differences are to the first, with 95 % intervals of a paired bootstrap. Raises UserError.
    """
    folders = [results_folder(path) for path in paths]
    results = [read_results(folder, area, split) for folder in folders]
    names, contexts = _names(folders), [context for *_, context in results]
    errors = [table.set_index(["panorama", "satellite"])["error_m"] for table, *_ in results]
    for name, column in zip(names, errors, strict=True):
        if column.index.duplicated().any():
            raise UserError(f"{name}: pair {column.index[column.index.duplicated()][0]} is there twice")
    joined = pd.concat(errors, axis=1, join="inner", keys=names)
    if joined.empty:
        way_out = "were they made on the same area and split?"
        raise UserError(f"{', '.join(names)}: these evaluations have no pair in common; {way_out}")
    notes = [f"{len(joined)} pairs in common, of {', '.join(str(len(column)) for column in errors)}"]
    for name in (*Protocol.names(), *View.names(), *_STAND_ON):
        values = [context.get(name) for context in contexts]
        if any(value != values[0] for value in values):
            digits = 12 if name == "checkpoint_sha256" else None
            notes.append(f"not the same {name}: {', '.join(in_words(value)[:digits] for value in values)}")
    return _table(joined), {name: joined[name].to_numpy() for name in names}, notes, contexts[0]


def _table(joined):
    values = joined.to_numpy().T
    intervals = bootstrap(values)
    mean, median = values.mean(1), np.median(values, 1)
    table = pd.DataFrame({"run": joined.columns, "pairs": len(joined), "mean_m": mean, "median_m": median})
    for d in RECALL_DISTANCES_M:
        table[f"within_{d}m"] = [recall(column, d) for column in values]
    for of, value in (("mean", mean), ("median", median)):
        table[f"{of}_difference_m"] = value - value[0]
        ends = intervals[f"{of}_difference"].T
        table[f"{of}_difference_low_m"], table[f"{of}_difference_high_m"] = ends
    return table


def _names(folders):
    """The shortest distinct ends of the folders' paths; a folder given twice gets a number."""
    paths = [(folder.parent if folder.name == RESULTS else folder).resolve() for folder in folders]
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(set(paths)):
        depth += 1
    names = ["/".join(path.parts[-depth:]) for path in paths]
    return [name if names.count(name) == 1 else f"{name} ({i + 1})" for i, name in enumerate(names)]


def report(table, notes):
    """The table as text."""
    lines = [*notes, "", "difference to the first, with 95 % intervals of a paired bootstrap:"]
    width = max(len(name) for name in table["run"])
    head = f"{'':{width}}{'mean m':>9}{'median m':>10}{recall_head(RECALL_DISTANCES_M)}"
    lines.append(f"{head}   {'mean difference, m':26}{'median difference, m'}")
    for i, row in enumerate(table.to_dict("records")):
        shares = recall_row(row[f"within_{d}m"] for d in RECALL_DISTANCES_M)
        line = f"{row['run']:{width}}{row['mean_m']:>9.2f}{row['median_m']:>10.2f}{shares}"
        differences = f"   {_difference(row, 'mean'):26}{_difference(row, 'median')}" if i else ""
        lines.append(line + differences)
    return "\n".join(lines) + "\n"


def _difference(row, of):
    difference, low, high = (row[f"{of}_difference{end}_m"] for end in ("", "_low", "_high"))
    return f"{difference:+.2f} ({low:+.2f} to {high:+.2f})"


def write_comparison(folder, table, errors, notes, context):
    """comparison_<tag>.csv, .txt and .png into an existing folder; returns the text."""
    text, name = report(table, notes), f"comparison_{tag(context)}"
    asked = [note for note in notes if not any(f" {name}: " in note for name in _STAND_ON)]
    figure = curves.ced_figure(errors, f"{context['area']} {context['split']}, {'; '.join(asked)}")
    write_files(folder, {f"{name}.csv": as_csv(table), f"{name}.txt": text, f"{name}.png": figure})
    return text
