"""What users write into the page's fields, and how the page words errors."""

import argparse
import re

from common import flags
from common.errors import UserError
from common.settings import read_place
from common.view import ANGLE, ELEVATION, HFOV


def read_form(**fields):
    """The values of a form's fields, {name: value}, None for an empty one.

    fields: (what reads it, its text) by name. A reader is a `Check` or takes as many words as it needs.

    Raises UserError.
    """
    return {name: _read_field(name.replace("_", " "), *field) for name, field in fields.items()}


def read_lens(*words):
    """What a field says of a photograph's camera, as a dict: its field of view, pitch and roll, or the first of them."""
    if len(words) > 3:
        raise TypeError
    checks = {"hfov": HFOV, "pitch": ANGLE, "roll": ANGLE}
    return {name: check(word) for (name, check), word in zip(checks.items(), words, strict=False)}


def read_vertical(top, bottom):
    """Degrees that a cropped panorama shows above and below the horizon, from two words."""
    return ELEVATION(top), ELEVATION(bottom)


_EXPECTED = {
    read_place: "a latitude and a longitude, in degrees",
    read_lens: "a field of view, a pitch and a roll, in degrees",
    read_vertical: "degrees above and below the horizon",
}


def _read_field(name, read, text):
    words = text.replace(",", " ").split() if text else []
    try:
        return read(*words) if words else None
    except argparse.ArgumentTypeError as fault:
        raise UserError(f"{name} {fault}") from None
    except TypeError:
        raise UserError(f"{name} {text!r}: expected {_EXPECTED.get(read, 'one number')}") from None


def fault_on_page(error):
    """An error's line as Markdown, None for a mistake of ours: files by their names alone, flags as field names."""
    if (line := flags.fault(error)) is None:
        return None
    line = re.sub(r"(?:/[^/\s:;]+)+/([^/\s:;]+)", r"\1", line)
    line = re.sub(r"--(\w+)", lambda flag: f"*{flag[1].replace('_', ' ')}*", line)
    return f"⚠ {line[:1].upper()}{line[1:]}"
