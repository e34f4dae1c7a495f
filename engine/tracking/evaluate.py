"""Tracks measured on drives whose truth is known: errors by number of frames, found and lost, calibration."""

import shutil
import time
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from tqdm import tqdm

from common import geometry
from common.errors import UserError
from common.geometry import wrap_degrees
from common.settings import BOOLEAN, COUNT, COUNT_OR_NONE, RADIUS, SEED, Settings, setting
from common.view import HEADING_NOISE
from engine.evaluation import results
from engine.evaluation.report import recall_head, recall_row
from engine.figures import curves
from engine.figures.tracks import recall_figure
from engine.inference.metrics import REGION_LEVELS, recall
from engine.tracking.table import TRUTH

DISTANCES_M = (1, 2, 3, 5, 10)
COUNTS = (1, 2, 5, 10, 20, 40)  # numbers of frames after which tracks are compared
LATE = 10  # shares over whole drives are of frames from this one on, the first being 0
FOUND_M, WRONG_M = 3.0, 10.0
ESTIMATES = {"filter": "filter_", "smoother": "", "single frame": "single_"}  # and their columns' prefixes
_trial = partial(setting, group="evaluation (--evaluate)")


@dataclass(frozen=True)
class Trial(Settings):
    """What drives are given in an evaluation."""

    start_radius: float = _trial(200.0, RADIUS, "a drive begins in a circle so wide", metavar="M")
    whole_city: bool = _trial(False, BOOLEAN, "a drive may begin anywhere in the city")
    compass_error: float = _trial(
        None, HEADING_NOISE, "draw headings anew, wrong by up to so much", metavar="DEG"
    )
    replace: tuple = _trial(
        None,
        COUNT_OR_NONE,
        "images of another drive in place of COUNT frames",
        count=2,
        metavar=("FIRST", "COUNT"),
    )
    single: bool = _trial(False, BOOLEAN, "locate each frame by itself as well")
    drives: int = _trial(None, COUNT, "only the first N drives of each city", metavar="N")
    draw: int = _trial(0, SEED, "seed of where drives are said to begin", metavar="N")

    @property
    def name(self):
        """In the names of files."""
        parts = ["city" if self.whole_city else f"{self.start_radius:g}m"]
        return "_".join([*parts, *(["replaced"] if self.replace else [])])


def truth_of(frames):
    """(places (T, 2) on the map, headings (T,)) of frames with truth; None where one has none."""
    numbers = np.array([frame.known(*TRUTH) for frame in frames], float)
    if np.isnan(numbers[:, :2]).any():
        return None
    return np.stack(geometry.mercator_px(*numbers[:, :2].T), 1), numbers[:, 2]


def evaluate_tracks(drives, trackers, trial, output, context):
    """Follow all drives, write results, and give the text for the terminal.

    drives: {city: {drive: its `Frame`s with truth}}; trackers: {city: its `DriveTracker`}.
    trial: a `Trial`; output: the folder; context: what is recorded beside the summary.
    """
    results.prepare_folder(output)
    rows, chosen = [], []
    for city, of_city in drives.items():
        names = list(of_city)[: trial.drives]
        chosen += [(city, number, name) for number, name in enumerate(names)]
    for city, number, name in tqdm(chosen, desc="drives", unit="drive", disable=None):
        frames, others = drives[city][name], [f for n, f in drives[city].items() if n != name]
        if truth_of(frames) is None:
            raise UserError(f"{frames[0].name}: no true_latitude and true_longitude to measure with")
        changed = _changed(frames, others, trial, number)
        rows += _follow(trackers[city], changed, trial, number, output / "beliefs", city, name)
    shutil.rmtree(output / "beliefs", ignore_errors=True)
    table = pd.DataFrame(rows)
    summary = summarise(table)
    context = context | {"trial": trial.plain(), "drives": len(chosen), "frames": len(table)}
    text, tag = report(summary, context), "_".join([trial.name, *context["use"]])
    late, columns = table[table["frame"] >= LATE], _estimates(table)
    errors = {name: table[f"{prefix}error_m"] for name, prefix in columns.items()}
    coverage = {name: _coverage(late, prefix) for name, prefix in columns.items()}
    shares = {name: _by_frame(table, f"{prefix}error_m") for name, prefix in columns.items()}
    title = f"tracks of {len(chosen)} drives, {tag.replace('_', ', ')}"
    files = {
        f"track_results_{tag}.csv": results.as_csv(table, "%.8g"),
        f"track_recall_{tag}.txt": text,
        f"track_summary_{tag}.json": results.as_json(context, summary),
        f"track_CED_{tag}.png": curves.ced_figure(errors, title),
        f"track_frames_{tag}.png": recall_figure(shares, title),
        f"track_calibration_{tag}.png": curves.calibration_figure(REGION_LEVELS, coverage, title),
    }
    results.write_files(output, files, last=f"track_summary_{tag}.json")
    return text


def _estimates(table):
    """Those of `ESTIMATES` that a table has."""
    return {name: prefix for name, prefix in ESTIMATES.items() if f"{prefix}error_m" in table}


def _changed(frames, others, trial, number):
    """Frames with headings drawn anew and with images of another drive, as a `Trial` wants them."""
    frames = list(frames)
    if trial.replace:
        first, count = trial.replace
        if not others:
            raise UserError("--replace: needs another drive of the same city, whose images it takes")
        other = others[number % len(others)]
        for i in range(first, min(first + count, len(frames))):
            frames[i] = frames[i]._replace(file=other[(3 * i) % len(other)].file)
    if trial.compass_error is not None:
        for i, frame in enumerate(frames):
            off = np.random.default_rng([trial.draw, number, i, 1]).uniform(-1, 1) * trial.compass_error
            heading = wrap_degrees(frame.numbers["true_heading"] + off)
            frames[i] = frame._replace(numbers=frame.numbers | {"heading": heading})
    return frames


def _begin(map_px, metres, trial, key):
    """(latitude, longitude, radius) of a circle around a place, which lies evenly in it; None: anywhere."""
    if trial.whole_city:
        return None
    rng = np.random.default_rng([trial.draw, *key])
    angle, away = rng.uniform(0, 2 * np.pi), trial.start_radius * np.sqrt(rng.uniform())
    centre = map_px + away / metres * np.array([np.sin(angle), np.cos(angle)])
    return (*(float(degrees) for degrees in geometry.latitude_longitude(*centre)), trial.start_radius)


def _follow(tracker, frames, trial, number, folder, city, drive):
    """Rows of errors of one drive's frames."""
    truth, headings = truth_of(frames)
    metres = float(geometry.metres_per_pixel(frames[0].numbers["true_latitude"]))
    start = time.perf_counter()
    track = tracker.follow(frames, folder, _begin(truth[0], metres, trial, (number,)))
    seconds = (time.perf_counter() - start) / len(frames)
    poses = {"": [one.smoothed for one in track.tracked], "filter_": [one.filtered for one in track.tracked]}
    if trial.single:
        poses["single_"] = []
        for i, frame in enumerate(tqdm(frames, desc="single frames", leave=False, disable=None)):
            near = _begin(truth[i], metres, trial, (number, i))
            alone = tracker.follow([_alone(frame)], folder / "single", near)
            poses["single_"].append(alone.tracked[0].filtered)
    away = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(truth, axis=0).T))]) * metres
    true = track.likelihood.to_place(truth)
    for i in range(len(frames)):
        row = {"city": city, "drive": drive, "frame": i, "driven_m": away[i]}
        for prefix, of_track in poses.items():
            row |= _errors(prefix, of_track[i], true[i], headings[i])
        yield row | {"doubt": track.tracked[i].doubt, "doubted": track.tracked[i].doubted, "seconds": seconds}


def _alone(frame):
    """A frame without its motion, and without GPS, which would be better than many an image."""
    names = {"forward", "left", "turn", "latitude", "longitude", "accuracy"}
    return frame._replace(numbers={name: x for name, x in frame.numbers.items() if name not in names})


def _errors(prefix, pose, true, heading):
    south, east = np.subtract(pose.place, true)
    off = np.array([south, east])
    errors = {"error_m": np.hypot(south, east), "error_north_m": -south, "error_east_m": east}
    errors |= {"heading_error_deg": float(wrap_degrees(pose.heading - heading))}
    errors |= {"probability_5m": pose.near, "mahalanobis2": float(off @ np.linalg.solve(pose.matrix, off))}
    return {f"{prefix}{name}": float(value) for name, value in errors.items()}


def _coverage(table, prefix, levels=REGION_LEVELS):
    """The shares of truths inside the ellipses of some levels."""
    bounds = -2 * np.log(1 - np.asarray(levels))  # quantiles of a plane's normal distribution
    return np.mean(table[f"{prefix}mahalanobis2"].to_numpy()[:, None] <= bounds, axis=0)


def _by_frame(table, column):
    """(numbers of frames, shares of drives within 1 m then)."""
    shares = table.groupby("frame")[column].apply(lambda errors: recall(errors, 1))
    return shares.index.to_numpy() + 1, shares.to_numpy()


def _part(table, prefix):
    errors, turned = table[f"{prefix}error_m"], table[f"{prefix}heading_error_deg"].abs()
    sure = (table[f"{prefix}probability_5m"] > 0.5) & (errors > WRONG_M)
    within = _coverage(table, prefix, (0.68, 0.95)).tolist()
    return {
        "frames": len(table),
        "recall": {f"{distance}_m": recall(errors, distance) for distance in DISTANCES_M},
        "median_error_m": float(errors.median()),
        "median_heading_error_deg": float(turned.median()),
        "in_68_percent_ellipse": within[0],
        "in_95_percent_ellipse": within[1],
        "wrong_but_sure": int(sure.sum()),
    }


def summarise(table):
    """{estimate: {'frames 11 and later', 'after N frames': numbers}, 'found': ...}, shares 0 to 1."""
    summary = {}
    counts = [count for count in COUNTS if count <= table["frame"].max() + 1]
    for name, prefix in _estimates(table).items():
        parts = {f"frames {LATE + 1} and later": _part(table[table["frame"] >= LATE], prefix)}
        parts |= {f"after {n}": _part(table[table["frame"] == n - 1], prefix) for n in counts}
        parts["all frames"] = _part(table, prefix)
        summary[name] = parts
    found = []
    lost = 0
    for _, drive in table.groupby(["city", "drive"], sort=False):
        right = (drive["filter_error_m"] <= FOUND_M).to_numpy()
        driven = drive["driven_m"].to_numpy()
        wrong = np.flatnonzero(~right)
        first = 0 if not len(wrong) else wrong[-1] + 1
        found.append(driven[first] if first < len(driven) else np.inf)
        far = (drive["filter_error_m"] > WRONG_M).to_numpy()
        known = np.maximum.accumulate(right)
        lost += int((far[1:] & ~far[:-1] & known[1:]).sum())
    found = np.array(found)
    summary["found"] = {
        "share_within_60_m": float((found <= 60).mean()),
        "median_m": float(np.median(found)),
        "never": int(np.isinf(found).sum()),
        "lost_again": lost,
    }
    summary["doubted"] = float(table["doubted"].mean())
    summary["seconds_a_frame"] = float(table["seconds"].mean())
    return summary


def report(summary, context):
    """The main numbers as a text."""
    start = (
        "anywhere in the city"
        if context["trial"]["whole_city"]
        else (f"within {context['trial']['start_radius']:g} m")
    )
    uses = ", ".join(context["use"]) or "images alone"
    lines = [f"{context['drives']} drives, {context['frames']} frames; begin known {start}; {uses}", ""]
    head = f"{'':34}{'median m':>9}{recall_head(DISTANCES_M, 8)}{'heading':>9}{'68 %':>7}{'95 %':>7}"
    lines.append(head)
    for name in ESTIMATES:
        for what, part in summary.get(name, {}).items():
            shares = recall_row(part["recall"].values(), 8)
            ellipses = (
                f"{100 * part['in_68_percent_ellipse']:>7.1f}{100 * part['in_95_percent_ellipse']:>7.1f}"
            )
            turned = f"{part['median_heading_error_deg']:>8.2f}°"
            lines.append(f"{name + ', ' + what:34}{part['median_error_m']:>9.2f}{shares}{turned}{ellipses}")
    found = summary["found"]
    says = f"found for good (filter, {FOUND_M:g} m): after {found['median_m']:.0f} m at the median, "
    says += f"{100 * found['share_within_60_m']:.1f} % of drives after at most 60 m, {found['never']} never, "
    lines += ["", says + f"{found['lost_again']} times lost again"]
    sure = ", ".join(
        f"{name} {summary[name]['all frames']['wrong_but_sure']}" for name in ESTIMATES if name in summary
    )
    lines.append(f"frames with more than 50 % within 5 m and more than {WRONG_M:g} m off: {sure}")
    lines.append(
        f"doubted images: {100 * summary['doubted']:.1f} %; {summary['seconds_a_frame']:.2f} s a frame"
    )
    lines.append("68 % and 95 %: truths inside these ellipses")
    return "\n".join(lines) + "\n"
