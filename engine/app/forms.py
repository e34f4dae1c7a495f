"""What users write into the page's fields, and how the page words errors."""

import argparse
import re

from common import flags
from common.errors import UserError
from common.settings import BEARING, COUNT_OR_NONE, NOT_NEGATIVE, POSITIVE, read_place
from common.view import ANGLE, ELEVATION, HFOV


def read_lens(*words):
    """A photograph's field of view, pitch and roll, or the first of them, as a dict of degrees."""
    if len(words) > 3:
        raise TypeError
    checks = {"hfov": HFOV, "pitch": ANGLE, "roll": ANGLE}
    return {name: check(word) for (name, check), word in zip(checks.items(), words, strict=False)}


def read_vertical(top, bottom):
    """Degrees that a cropped panorama shows above and below the horizon, from two words."""
    return ELEVATION(top), ELEVATION(bottom)


_READERS = {  # of fields, by name; each takes one word, or those that `_EXPECTED` says
    "metres_per_pixel": POSITIVE,
    "heading": BEARING,
    "centre": read_place,
    "near": read_place,
    "lens": read_lens,
    "vertical": read_vertical,
    "test_panorama": COUNT_OR_NONE,
    "errors_from": NOT_NEGATIVE,
    "errors_up_to": NOT_NEGATIVE,
}
_EXPECTED = {
    read_place: "a latitude and a longitude, in degrees",
    read_lens: "a field of view, a pitch and a roll, in degrees",
    read_vertical: "degrees above and below the horizon",
}


def read_form(**texts):
    """The values of fields by their texts, {name: value}, None for an empty one. Raises UserError."""
    return {name: _read_field(name.replace("_", " "), _READERS[name], text) for name, text in texts.items()}


def _read_field(name, read, text):
    words = text.replace(",", " ").split() if text else []
    try:
        return read(*words) if words else None
    except argparse.ArgumentTypeError as fault:
        raise UserError(f"{name} {fault}") from None
    except TypeError:
        raise UserError(f"{name} {text!r}: expected {_EXPECTED.get(read, 'one number')}") from None


def fault_on_page(error):
    """An error's line as Markdown, files without folders, flags as fields; None for a mistake of ours."""
    if (line := flags.fault(error)) is None:
        return None
    line = re.sub(r"(?:/[^/\s:;]+)+/([^/\s:;]+)", r"\1", line)
    line = re.sub(r"--(\w+)", lambda flag: f"*{flag[1].replace('_', ' ')}*", line)
    return f"⚠ {line[:1].upper()}{line[1:]}"
