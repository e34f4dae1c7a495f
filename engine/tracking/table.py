"""Tables of frames: a CSV file with a line for each image of a drive, and what sensors said with it.

    file        the image, relative to the table
    drive       its drive, where a table holds several
    time        seconds
    latitude, longitude, accuracy                GPS: degrees, and metres, the root mean square of its error
    forward, left, turn                          odometry since the line before: metres, degrees clockwise
    heading     a compass: true bearing of the image's centre, degrees
    hfov, pitch, roll                            of a photograph's camera, degrees
    true_latitude, true_longitude, true_heading  the truth, for evaluations

Only `file` is needed, and any cell may be empty.
"""

import argparse
import math
from pathlib import Path
from typing import NamedTuple

from common.errors import UserError
from common.settings import BEARING, LATITUDE, LONGITUDE, POSITIVE, Number, read_place
from common.view import ANGLE, HFOV
from dataset.decoding import check_file
from dataset.tables import read_csv

TABLE = "drives.csv"  # of a city, in its folder
SENSORS = {  # kinds of sensors and their columns
    "odometry": ("forward", "left", "turn"),
    "gps": ("latitude", "longitude", "accuracy"),
    "compass": ("heading",),
    "time": ("time",),
}
LENS = ("hfov", "pitch", "roll")
TRUTH = ("true_latitude", "true_longitude", "true_heading")
_FINITE = Number()
_CHECKS = {"time": _FINITE, **dict.fromkeys(("forward", "left"), Number(least=-10_000, most=10_000))}
_CHECKS |= {"turn": BEARING, "heading": BEARING, "true_heading": BEARING, "accuracy": POSITIVE}
_CHECKS |= {"latitude": LATITUDE, "longitude": LONGITUDE, "hfov": HFOV, "pitch": ANGLE, "roll": ANGLE}
_CHECKS |= {"true_latitude": LATITUDE, "true_longitude": LONGITUDE}


class Frame(NamedTuple):
    """A frame of a table."""

    file: Path
    name: str  # of the file as the table has it
    numbers: dict  # {column: number} of the cells that are not empty

    def known(self, *names):
        """The numbers of some columns, None where a cell is empty."""
        return tuple(self.numbers.get(name) for name in names)


def read_frames(path, use=tuple(SENSORS)):
    """{drive: its `Frame`s} of a table, in its order, with the columns of some kinds of `SENSORS`.

    Raises UserError, in one line with the table's line, for what cannot be: an image that is missing, a
    number that is not finite or out of range, latitude and longitude swapped, times that run backwards,
    odometry in a drive's first line.
    """
    path, drives = Path(path), {}
    left_out = [name for kind, names in SENSORS.items() if kind not in use for name in names]
    for number, row in enumerate(_rows(path), 2):
        if not any(row.values()):
            continue
        where = f"{path}, line {number}"
        name = row.get("file", "")
        if not name:
            raise UserError(f"{where}: no file; each line names its image")
        numbers = {}
        for column, check in _CHECKS.items():
            text = row.get(column, "")
            if text:
                numbers[column] = _number(where, column, text, check, row)
        for prefix in ("", "true_"):
            if (f"{prefix}latitude" in numbers) != (f"{prefix}longitude" in numbers):
                raise UserError(f"{where}: {prefix}latitude and {prefix}longitude belong together")
        file = check_file(path.parent / name, f"{where} names it, relative to the table")
        frames = drives.setdefault(row.get("drive", ""), [])
        odometry = [column for column in SENSORS["odometry"] if column in numbers]
        if odometry and not frames and any(numbers[column] for column in odometry):
            says = f"{odometry[0]} {numbers[odometry[0]]:g} in the first frame of a drive"
            raise UserError(f"{where}: {says}; odometry leads from the line before, so there is none here")
        if frames and "time" in numbers and numbers["time"] < frames[-1].numbers.get("time", -math.inf):
            before = frames[-1].numbers["time"]
            raise UserError(f"{where}: time {numbers['time']:g} after {before:g}; frames come in their order")
        kept = {column: value for column, value in numbers.items() if column not in left_out}
        frames.append(Frame(file, name, kept))
    if not drives:
        raise UserError(f"{path}: no frames")
    return drives


def _rows(path):
    """{column: text} of each line of a CSV file, also of empty ones."""
    table = read_csv(path, "--frames takes a CSV file with a line for each image", short=False)
    known = {"file", "drive", *_CHECKS}
    if "file" not in table.columns:
        says = f"its first line has {', '.join(table.columns)}; expected columns, `file` among them"
        raise UserError(f"{path}: {says}, with commas between")
    if unknown := sorted(set(table.columns) - known):
        raise UserError(f"{path}: unknown column {unknown[0]}; known are {', '.join(sorted(known))}")
    return table.to_dict("records")


def _number(where, column, text, check, row):
    try:
        if column.endswith("latitude"):
            return read_place(text, row.get(column.replace("latitude", "longitude"), ""))[0]
        return check(text)
    except argparse.ArgumentTypeError as fault:
        raise UserError(f"{where}: {column} {fault}") from None
