"""Settings: frozen dataclasses whose fields carry a check, a help text and the name of their flag's group.

The type of a flag and the check of its setting are the same `Check`. `common.flags.add_settings` makes flags
from settings.
"""

import argparse
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields

from common.errors import UserError


@dataclass(frozen=True)
class Check:
    """The values that a flag or a setting accepts. As an argparse type, it reports a wrong value in one line.

    `says` describes them in words, `allows(value)` tests one, `read(text)` makes one from a text. `names`
    lists the words of a choice. The help shows a value as `unit`, unless its setting has a metavar.
    """

    says: str
    allows: Callable
    read: Callable = str
    names: tuple = ()
    unit: str | None = None

    def __call__(self, given):
        """The value of a text or of a program's argument. Raises ArgumentTypeError, in one line."""
        try:
            value = given if isinstance(given, bool) else self.read(given)
        except (ValueError, TypeError, KeyError, OverflowError, RuntimeError):  # the last from torch
            value = None
        if not self.allows(value):
            raise argparse.ArgumentTypeError(f"{shown(given)} is not {self.says}")
        return value


def checked(name, read, given):
    """The value given as `name`, read by a check or another reader; None stays None. Raises UserError."""
    try:
        return None if given is None else read(given)
    except argparse.ArgumentTypeError as fault:
        raise UserError(f"{name} {fault}") from None


def shown(given):
    """A given value, shortened to one line for a message."""
    if isinstance(given, (list, tuple)):
        text = " ".join(map(str, given)) or repr(given)
    else:
        text = repr(given) if isinstance(given, (str, bytes)) else " ".join(str(given).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def whole(given):
    """A whole number from a text or a number. Raises ValueError for a fraction."""
    number = int(given)
    if not isinstance(given, str) and number != given:
        raise ValueError(given)
    return number


def Number(kind=float, *, least=None, most=None, above=None, below=None, multiple_of=None, unit=None):
    """A finite number of a kind, int or float, within bounds; `least` and `most` themselves are allowed."""

    def allows(value):
        right = isinstance(value, (int, float) if kind is float else int) and not isinstance(value, bool)
        if not right or not math.isfinite(value):
            return False
        inside = (least is None or value >= least) and (most is None or value <= most)
        between = (above is None or value > above) and (below is None or value < below)
        return inside and between and not (multiple_of and value % multiple_of)

    says = f"a multiple of {multiple_of}" if multiple_of else "a whole number" if kind is int else "a number"
    for bound, words in ((least, "from"), (above, "above"), (most, "up to"), (below, "below")):
        says += "" if bound is None else f" {words} {bound:.12g}"
    return Check(says, allows, whole if kind is int else kind, unit=unit)


def Several(check, *counts):
    """A tuple of values that `check` accepts, as many as one of `counts`, from any sequence but a text."""
    says = f"{' or '.join(map(str, counts))} values, each {check.says}"

    def read(given):
        if isinstance(given, (str, bytes)) or len(values := tuple(given)) not in counts:
            raise ValueError(given)
        return tuple(map(check, values))

    return Check(says, lambda value: isinstance(value, tuple), read)


def Choice(names):
    """One of some words."""
    return Check(f"one of {', '.join(names)}", lambda value: value in names, names=tuple(names))


MOST = 1_000_000  # of a number that needs no closer bound
POSITIVE = Number(above=0, most=MOST)
NOT_NEGATIVE = Number(least=0, most=MOST)
COUNT = Number(int, least=1, most=MOST, unit="N")
COUNT_OR_NONE = Number(int, least=0, most=MOST, unit="N")
SEED = Number(int, least=0, most=2**32 - 1, unit="N")
WORKERS = Number(int, least=0, most=256, unit="N")  # processes beside the main one
THREADS = Number(int, least=1, most=256, unit="N")
SHARE = Number(least=0, most=1, unit="P")
PIXELS = Number(int, least=32, most=8192, multiple_of=32, unit="PX")  # of a side; five halvings need it
BEARING = Number(least=-360, most=360)  # degrees
RESOLUTION = Number(least=0.001, most=100)  # metres per pixel of an image from above
RADIUS = Number(above=0, most=20_000)  # metres around a place in a city
CAMERA_HEIGHT = Number(above=0, most=100)  # metres
LATITUDE = Number(least=-85, most=85)  # Web Mercator ends at 85 degrees
LONGITUDE = Number(least=-180, most=180)
_WORDS = {"True": True, "true": True, "False": False, "false": False}
BOOLEAN = Check("True or False", lambda value: isinstance(value, bool), _WORDS.__getitem__, unit="BOOL")
TEXT = Check(
    "a text that is not empty",
    lambda value: isinstance(value, str) and bool(value.strip()),
    read=lambda given: given,
)
CORES = min(os.cpu_count() or 1, 8)  # default number of loader processes
DATASET_ROOT = "VIGOR's folder (default: VIGOR_ROOT, else mini-VIGOR in data/mini_vigor, drawn on first use)"
NUM_WORKERS = "loader processes; 0 loads in the main process"
DEVICE = "auto (a GPU where there is one), cpu, cuda or cuda:N"


def read_place(latitude, longitude):
    """(latitude, longitude) in degrees from words or numbers. Raises ArgumentTypeError that names a swap."""
    try:
        return LATITUDE(latitude), LONGITUDE(longitude)
    except argparse.ArgumentTypeError as fault:
        try:
            hint = f"latitude comes first: {LATITUDE(longitude):g} {LONGITUDE(latitude):g}?"
        except argparse.ArgumentTypeError:
            hint = "a place is a latitude and a longitude, in degrees"
        raise argparse.ArgumentTypeError(f"{fault}; {hint}") from None


def read_centre(given):
    """`read_place` for a sequence (latitude, longitude)."""
    try:
        latitude, longitude = given if not isinstance(given, (str, bytes)) else ()
    except (TypeError, ValueError):
        says = "not a latitude and a longitude, in degrees"
        raise argparse.ArgumentTypeError(f"{shown(given)} is {says}") from None
    return read_place(latitude, longitude)


def setting(default, check, help, *, group, metavar=None, short=None, count=None, free=False, hidden=False):
    """A field of `Settings`.

    check: a `Check` of its values; None and () are also allowed if they are the default.
    group: the heading of its flag.
    metavar: how the help shows a value, by default the check's unit.
    short: the flag's one-letter name.
    count: number of values it takes, which become a tuple; '+' for one or more.
    free: whether it may differ in a resumed run.
    hidden: whether the help leaves its flag out.
    """
    about = dict(check=check, help=help, group=group, metavar=metavar, short=short, count=count, free=free)
    return field(default=default, metadata=about | {"hidden": hidden})


def names_cities(name):
    """Whether a setting or flag is a list of cities. A city that is named twice counts once."""
    return name.endswith(("city", "cities"))


class Settings:
    """Base of frozen dataclasses of `setting` fields. Raises UserError for a value that its check refuses."""

    def __post_init__(self):
        for part in fields(self):
            value, check, count = getattr(self, part.name), part.metadata["check"], part.metadata["count"]
            if count and isinstance(value, (list, tuple)):
                value = tuple(value)
                if names_cities(part.name):
                    value = tuple(dict.fromkeys(value))
                object.__setattr__(self, part.name, value)
            if value in (None, ()) and value == part.default:
                continue
            right = isinstance(value, tuple) and (len(value) == count or (count == "+" and bool(value)))
            values = value if right else (None,) if count else (value,)
            if not all(check.allows(single) for single in values):
                many = "one or more" if count == "+" else count
                expected = f"{many} values, each {check.says}" if count else check.says
                shown = list(value) if isinstance(value, tuple) else value
                raise UserError(f"{part.name} {shown!r}: expected {expected}")

    @classmethod
    def names(cls):
        """The names of all its settings."""
        return [part.name for part in fields(cls)]

    @classmethod
    def pick(cls, *values):
        """Settings from dicts; later ones win, and names that are not its own are ignored."""
        return cls(**cls.given(*values))

    @classmethod
    def read_given(cls, values):
        """The entries of a dict that are not None, read by their settings' checks. Raises UserError."""
        checks = {part.name: part.metadata["check"] for part in fields(cls)}
        read = {name: checked(f"--{name}", checks[name], value) for name, value in values.items()}
        return {name: value for name, value in read.items() if value is not None}

    @classmethod
    def given(cls, *values):
        """The entries of dicts that are its own settings, as one dict; later ones win."""
        return {name: value for given in values for name, value in given.items() if name in cls.names()}

    @classmethod
    def read(cls, values, what):
        """Settings from the dict of `plain`. what: their kind, for the UserError about unknown names."""
        if unknown := sorted(set(values) - set(cls.names())):
            known = ", ".join(cls.names())
            raise UserError(f"unknown {what} settings: {', '.join(unknown)}; known are {known}")
        return cls(**values)

    def plain(self):
        """The settings as a dict of numbers, words and lists, for YAML, JSON and checkpoints."""
        values = {name: getattr(self, name) for name in self.names()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
