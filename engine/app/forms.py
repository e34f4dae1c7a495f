"""Reads the page's fields, and writes errors in the page's words."""

import re
from argparse import ArgumentTypeError
from functools import partial

from common import flags
from common.settings import (
    BEARING,
    COUNT_OR_NONE,
    NOT_NEGATIVE,
    POSITIVE,
    RADIUS,
    RESOLUTION,
    Number,
    checked,
    read_centre,
    shown,
)
from common.view import ANGLE, HFOV, VERTICAL
from common.words import renamed

# The fields in which the page has what messages name by its flag.
FIELDS = {
    "panorama": "Street image",
    "photo": "Street image",
    "satellite": "Satellite image",
    "heading": "Heading",
    "metres_per_pixel": "Metres per pixel",
    "satellite_center": "Satellite center",
    "hfov": "A photograph's camera",
    "pitch": "A photograph's camera",
    "roll": "A photograph's camera",
    "vertical": "Vertical",
    "near": "Near",
    "radius": "Radius",
    "idx": "Test panorama",
    "city": "City",
}
_NAMES = {flag: f"*{field}*" for flag, field in FIELDS.items()}


def _one(check, words):
    return check(*words) if len(words) == 1 else check(" ".join(words))


def _lens(words):
    """A photograph's field of view, or its field of view, pitch and roll, as a dict of degrees."""
    if len(words) > 3:
        raise ArgumentTypeError(f"{shown(words)} is not a field of view, a pitch and a roll, in degrees")
    checks = {"hfov": HFOV, "pitch": ANGLE, "roll": ANGLE}
    return {name: check(word) for (name, check), word in zip(checks.items(), words, strict=False)}


_READERS = {  # of fields: what reads their words
    "heading": partial(_one, BEARING),
    "metres_per_pixel": partial(_one, RESOLUTION),
    "centre": read_centre,
    "near": read_centre,
    "radius": partial(_one, RADIUS),
    "lens": _lens,
    "vertical": VERTICAL,
    "test_panorama": partial(_one, COUNT_OR_NONE),
    "errors_from": partial(_one, NOT_NEGATIVE),
    "errors_up_to": partial(_one, NOT_NEGATIVE),
    "zoom": partial(_one, Number(least=1, most=24)),
    "measured_distance": partial(_one, POSITIVE),
}
_CALLED = {"centre": "satellite center", "lens": "a photograph's camera"}


def read_form(**texts):
    """{name: value} of fields from their texts or numbers; None for an empty one. Raises UserError."""
    return {name: _read_field(name, given) for name, given in texts.items()}


def _read_field(name, given):
    words = str("" if given is None else given).replace(",", " ").split()
    called = _CALLED.get(name, name.replace("_", " "))
    return checked(f"*{called[:1].upper()}{called[1:]}*", _READERS[name], words or None)


def fault_on_page(error):
    """An error as Markdown, with file names only and fields for flags; None for a programming error."""
    line = flags.fault(error)
    return None if line is None else warning(line)


def warning(line):
    """A message as a sentence on the page."""
    line = on_page(line)
    return f"⚠ {line[:1].upper()}{line[1:]}"


def on_page(line):
    """A message in the page's words: file names without folders, fields instead of flags.

    Clauses about flags for which the page has no field are left out.
    """
    line = re.sub(r"(?:/[^/\s:;]+)+/([^/\s:;]+)", r"\1", line)
    clauses = renamed(line, _NAMES).split("; ")
    kept = [clause for clause in clauses if not re.search(r"--\w", clause)]
    return "; ".join(kept) or re.sub(r"--(\w+)", lambda flag: flag[1].replace("_", " "), clauses[0])
