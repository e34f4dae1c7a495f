"""Photographs of a table -> their cameras, by what the table and the file tell, and copies that need no EXIF."""

import math

from common.camera import pinhole
from common.errors import UserError
from common.files import write_bytes
from dataset.images import encode, panorama_size_fault, read_photograph
from dataset.photograph import told_hfov

DISTORTION = ("k1", "k2", "p1", "p2", "k3")
COLUMNS = ("hfov", "pitch", "roll", "fx", "fy", "cx", "cy", *DISTORTION)
_JPEG = ("JPEG", "MPO")  # what phones write; of several in one file the first is the photograph


def camera_of(line, header, heading_deg, file, where):
    """The 12 numbers of a photograph's camera, a tuple.

    line: of the table, with `COLUMNS` as text · header: of its file · where: the table's line, for errors. Raises UserError for
    panoramas, numbers that are none, and where nothing tells a field of view.
    """
    if header.gpano:
        raise UserError(f"{file}: says that it is a panorama (GPano), not a photograph; give its table as --panoramas")
    numbers = {name: _number(name, getattr(line, name), where) for name in COLUMNS if getattr(line, name)}
    width, height = header.upright
    if not {"hfov", "fx"} & numbers.keys():
        if panorama_size_fault(width, height) is None:
            way_out = "give its table as --panoramas or, if it is a photograph, its hfov there"
            raise UserError(f"{file}: {width} x {height} px, as whole panoramas are; {way_out}")
        numbers["hfov"] = told_hfov(header, width, height)
        if numbers["hfov"] is None:
            told = "tells no focal length (EXIF)" if header.focal_35mm is None else "was cut since its EXIF was written"
            raise UserError(f"{file}: {told}; give its hfov in degrees, or fx in pixels, in {where}")
    bent = [numbers.pop(name, 0.0) for name in DISTORTION]
    try:
        return tuple(pinhole(width, height, heading=heading_deg, distortion=bent, **numbers).tolist())
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def suffix_of(header):
    """The ending of a copy's name: .jpg of JPEGs that stand upright, which stay as they are, else .png."""
    return ".jpg" if header.format in _JPEG and header.stands_upright else ".png"


def write_photograph(photograph, path):
    """Write a copy of a photograph of the table, upright, whole or not at all: the same pixels. Raises UserError, and OSError
    where it cannot be written."""
    if path.suffix == ".jpg":
        write_bytes(path, photograph.file.read_bytes())
    else:
        write_bytes(path, encode(read_photograph(photograph.file), ".png"))


def _number(name, text, where):
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{where}: {name} {text!r} is not a number")
    return value
