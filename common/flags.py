"""What the command lines of scripts share: strict types, settings that become flags, groups, and one way to end.

A flag's type says what it takes, and a setting's check is the same object: `allows` looks at a value, calling it reads a text.
"""

import argparse
import math
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields

from common.errors import UserError


@dataclass(frozen=True)
class Check:
    """What a flag or a setting takes: `says` it in words, `allows` looks at a value, and `read` makes one of a text.

    An object of it is a type for argparse; what it refuses is one line.
    """

    says: str
    allows: Callable
    read: Callable = str
    names: tuple = ()  # where it is one of some words

    def __call__(self, text):
        try:
            value = self.read(text)
        except (ValueError, TypeError, KeyError):
            value = None
        if not self.allows(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {self.says}")
        return value


def Number(kind=float, *, least=None, most=None, above=None, below=None, multiple_of=None):
    """A finite number of a kind, int or float, within bounds, of which `least` and `most` belong to it."""

    def allows(value):
        if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else int) or not math.isfinite(value):
            return False
        inside = (least is None or value >= least) and (most is None or value <= most)
        between = (above is None or value > above) and (below is None or value < below)
        return inside and between and not (multiple_of and value % multiple_of)

    says = f"a multiple of {multiple_of}" if multiple_of else "a whole number" if kind is int else "a number"
    for bound, words in ((least, "from"), (above, "above"), (most, "up to"), (below, "below")):
        says += "" if bound is None else f" {words} {bound:g}"
    return Check(says, allows, kind)


def Choice(names):
    """One of some words."""
    return Check(f"one of {', '.join(names)}", lambda value: value in names, names=tuple(names))


POSITIVE = Number(above=0)
NOT_NEGATIVE = Number(least=0)
COUNT = Number(int, least=1)
COUNT_OR_NONE = Number(int, least=0)
SHARE = Number(least=0, most=1)
PIXELS = Number(int, least=32, multiple_of=32)  # of a side: what five halvings need
BEARING = Number(least=-360, most=360)  # degrees
FIELD_OF_VIEW = Number(above=0, most=360)  # degrees
HEADING_NOISE = Number(least=0, most=180)  # degrees to each side; 180 is any heading
LATITUDE, LONGITUDE = Number(least=-85, most=85), Number(least=-180, most=180)  # degrees; Web Mercator ends at 85
_WORDS = {"True": True, "true": True, "False": False, "false": False}
BOOLEAN = Check("True or False", lambda value: isinstance(value, bool), _WORDS.__getitem__)
TEXT = Check("a text", lambda value: isinstance(value, str))
DATASET_ROOT = "VIGOR's folder; without it VIGOR_ROOT, else mini-VIGOR in data/mini_vigor, drawn on first use"
CORES = min(os.cpu_count() or 1, 8)  # as many loader processes as serve best where nobody says so
NUM_WORKERS = "loader processes; 0 loads in the main one"
DEVICE = "auto (a GPU where there is one), cpu, cuda or cuda:N"


def read_place(latitude, longitude):
    """(latitude, longitude) in degrees from two words or numbers. Raises ArgumentTypeError, which names a swap as such."""
    try:
        return LATITUDE(latitude), LONGITUDE(longitude)
    except argparse.ArgumentTypeError as fault:
        try:
            hint = f"latitude comes first: {LATITUDE(longitude):g} {LONGITUDE(latitude):g}?"
        except argparse.ArgumentTypeError:
            hint = "a place is a latitude and a longitude, in degrees"
        raise argparse.ArgumentTypeError(f"{fault}; {hint}") from None


def read_form(**fields):
    """What somebody has written into the fields of a form, {name: value}, None where one is empty.

    fields: by name, what reads it, a `Check` or `read_place`, from as many words as it takes, and the text. Raises UserError.
    """
    return {name: _read_field(name.replace("_", " "), *field) for name, field in fields.items()}


def _read_field(name, check, text):
    words = text.replace(",", " ").split() if text else []
    try:
        return check(*words) if words else None
    except argparse.ArgumentTypeError as fault:
        raise UserError(f"{name} {fault}") from None
    except TypeError:
        expected = "a latitude and a longitude, in degrees" if check is read_place else "one number"
        raise UserError(f"{name} {text!r}: expected {expected}") from None


class Place(argparse.Action):
    """A flag's two words LAT LON as (latitude, longitude) in degrees."""

    def __call__(self, parser, namespace, words, option_string=None):
        try:
            setattr(namespace, self.dest, read_place(*words))
        except argparse.ArgumentTypeError as fault:
            raise argparse.ArgumentError(self, str(fault)) from None


def setting(default, check, help, *, group, metavar=None, short=None, count=None, free=False):
    """A field of `Settings`.

    check: what it takes, a `Check`; None is fine where it is the default.
    group: the heading of its flag.
    short: the flag's one-letter name.
    count: how many values it takes, which are a tuple then; '+' for one or more.
    free: whether it may differ in a resumed run.
    """
    return field(
        default=default, metadata=dict(check=check, help=help, group=group, metavar=metavar, short=short, count=count, free=free)
    )


class Settings:
    """A frozen dataclass of `setting` fields: each defined once, with default, check and help. UserError for an ill value."""

    def __post_init__(self):
        for part in fields(self):
            value, check, count = getattr(self, part.name), part.metadata["check"], part.metadata["count"]
            if count and isinstance(value, (list, tuple)):
                value = tuple(value)
                object.__setattr__(self, part.name, value)
            if value is None and part.default is None:
                continue
            right = isinstance(value, tuple) and (len(value) == count or (count == "+" and bool(value)))
            each = value if right else (None,) if count else (value,)
            if not all(check.allows(one) for one in each):
                many = "one or more" if count == "+" else count
                expected = f"{many} values, each {check.says}" if count else check.says
                raise UserError(f"{part.name} {list(value) if isinstance(value, tuple) else value!r}: expected {expected}")

    @classmethod
    def names(cls):
        """The names of all its settings."""
        return [part.name for part in fields(cls)]

    @classmethod
    def pick(cls, *values):
        """Settings from dicts, of which later ones win; what these name beside its own settings is left out."""
        own = set(cls.names())
        return cls(**{name: value for given in values for name, value in given.items() if name in own})

    def plain(self):
        """The settings as a dict of numbers, words and lists, for YAML, JSON and checkpoints."""
        values = {name: getattr(self, name) for name in self.names()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def add_settings(parser, *kinds, descriptions=None):
    """A flag for every setting of some `Settings` classes. What is not on the command line is not in the namespace either.

    descriptions: {group: what to say below its heading}. Groups come in the order of the settings.
    """
    groups = {}
    for part in (part for kind in kinds for part in fields(kind)):
        about = part.metadata
        name, check = about["group"], about["check"]
        if name not in groups:
            groups[name] = parser.add_argument_group(name, (descriptions or {}).get(name))
        names = [*([about["short"]] if about["short"] else []), f"--{part.name}"]
        default = " ".join(map(str, part.default)) if isinstance(part.default, tuple) else part.default
        shown = "" if default is None or default is False else f" (default: {default})"
        how = {"type": check, "metavar": about["metavar"], "nargs": about["count"]}
        if part.default is False:
            how = {"action": "store_true"}
        if check.names:
            how = {"choices": check.names}
        groups[name].add_argument(*names, default=argparse.SUPPRESS, help=about["help"] + shown, **how)


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults, except where there is nothing to show, and keeps the examples' lines."""

    def _get_help_string(self, action):
        if any(action.default is nothing for nothing in (None, False, argparse.SUPPRESS)):
            return action.help
        return super()._get_help_string(action)


def make_parser(page):
    """A parser from a script's own docstring: a description, its example commands, and what else there is to say."""
    description, examples, *closing = page.strip().split("\n\n")
    module = getattr(sys.modules["__main__"].__spec__, "name", "").removesuffix(".__main__")
    return argparse.ArgumentParser(
        prog=f"python -m {module}" if module and f"python -m {module}" in page else None,
        description="\n\n".join([description, *closing]),
        epilog=f"examples:\n{examples}",
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )


def add_dataset_root(group):
    """Where the data is, the same in every script."""
    group.add_argument("--dataset_root", metavar="DIR", help=DATASET_ROOT)


def add_batches(group, batch_size):
    """How many pairs at a time, and by how many loader processes."""
    text = "pairs in one forward pass, of each process"
    group.add_argument("-b", "--batch_size", type=COUNT, default=batch_size, metavar="N", help=text)
    group.add_argument("--num_workers", type=COUNT_OR_NONE, default=CORES, metavar="N", help=NUM_WORKERS)


def add_workers(group):
    """How many images a command works on at a time."""
    group.add_argument("--workers", type=COUNT, default=os.cpu_count() or 1, metavar="N", help="images at a time")


def add_device(group):
    """What to compute on."""
    group.add_argument("--device", default="auto", help=DEVICE)


def run_script(main, parser, words=None):
    """Parse and run; a UserError, a lack of memory or Ctrl-C becomes one line on stderr and exit status 2, or 130.

    words: of the command line; by default the process's own.
    """
    args = parser.parse_args(words)
    try:
        return main(args)
    except KeyboardInterrupt:
        print(f"{parser.prog}: stopped", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        line = fault(error)
        if line is None:
            raise
        print(f"{parser.prog}: error: {line}", file=sys.stderr)
        raise SystemExit(2) from None


def fault(error):
    """The line of an exception that whoever runs this can do something about; None for a mistake of ours."""
    return str(error) if isinstance(error, UserError) else memory_fault(error)


def fault_on_page(error):
    """The same as a sentence of Markdown for a page: files by their names alone, flags as the fields that they are there."""
    if (line := fault(error)) is None:
        return None
    line = re.sub(r"(?:/[^/\s:;]+)+/([^/\s:;]+)", r"\1", line)
    line = re.sub(r"--(\w+)", lambda flag: f"*{flag[1].replace('_', ' ')}*", line)
    return f"⚠ {line[:1].upper()}{line[1:]}"


def memory_fault(error):
    """One line with the way out where an exception says that memory ran out, else None. PyTorch has three ways to say so."""
    text = str(error)
    first = text.splitlines()[0] if text else ""
    if type(error).__name__ == "OutOfMemoryError":
        return f"{first.split(' GPU ')[0]} A smaller --batch_size needs less; training's --accumulate makes up for it"
    if "DefaultCPUAllocator" in text:
        asked = text.partition("DefaultCPUAllocator: ")[2].partition(" Error code")[0]
        return f"{asked} A smaller --batch_size or --satellite_size needs less"
    if "DataLoader worker" in text and "shared memory" in text:
        return (
            "a loader's process ran out of shared memory (/dev/shm). Fewer --num_workers or a smaller --batch_size need less; "
            "Docker grants more with --shm-size 8g or --ipc host"
        )
    return None
