"""What users write into the page's fields, and how the page words errors."""

import argparse
import re

from common import flags
from common.errors import UserError
from common.settings import BEARING, COUNT_OR_NONE, NOT_NEGATIVE, POSITIVE, read_place
from common.view import ANGLE, ELEVATION, HFOV


def read_lens(hfov, pitch=None, roll=None):
    """A photograph's field of view, pitch and roll, or the first of them, as a dict of degrees."""
    words = ("hfov", HFOV, hfov), ("pitch", ANGLE, pitch), ("roll", ANGLE, roll)
    return {name: check(word) for name, check, word in words if word is not None}


def read_vertical(top, bottom):
    """Degrees that a cropped panorama shows above and below the horizon, from two words."""
    return ELEVATION(top), ELEVATION(bottom)


_PLACE = read_place, "a latitude and a longitude, in degrees"
_READERS = {  # of fields: what reads their words, and what it expects
    "metres_per_pixel": (POSITIVE, "one number"),
    "heading": (BEARING, "one number"),
    "centre": _PLACE,
    "near": _PLACE,
    "lens": (read_lens, "a field of view, a pitch and a roll, in degrees"),
    "vertical": (read_vertical, "degrees above and below the horizon"),
    "test_panorama": (COUNT_OR_NONE, "one number"),
    "errors_from": (NOT_NEGATIVE, "one number"),
    "errors_up_to": (NOT_NEGATIVE, "one number"),
}


def read_form(**texts):
    """The values of fields by their texts, {name: value}, None for an empty one. Raises UserError."""
    return {name: _read_field(name.replace("_", " "), text, *_READERS[name]) for name, text in texts.items()}


def _read_field(name, text, read, expected):
    words = text.replace(",", " ").split() if text else []
    try:
        return read(*words) if words else None
    except argparse.ArgumentTypeError as fault:
        raise UserError(f"{name} {fault}") from None
    except TypeError:
        raise UserError(f"{name} {text!r}: expected {expected}") from None


def fault_on_page(error):
    """An error's line as Markdown, files without folders, flags as fields; None for a mistake of ours."""
    if (line := flags.fault(error)) is None:
        return None
    line = re.sub(r"(?:/[^/\s:;]+)+/([^/\s:;]+)", r"\1", line)
    line = re.sub(r"--(\w+)", lambda flag: f"*{flag[1].replace('_', ' ')}*", line)
    return f"⚠ {line[:1].upper()}{line[1:]}"
