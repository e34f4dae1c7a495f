"""The table of a city's panoramas or photographs -> where each was taken, and what its file says of itself."""

import argparse
import hashlib
import re
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from common.errors import UserError
from common.parallel import in_threads
from common.settings import BEARING, POSITIVE, read_place
from dataset.build.photograph import COLUMNS, camera_of, suffix_of
from dataset.exif import read_header
from dataset.images import panorama_size_fault
from dataset.lists import LONGEST_NAME

NEEDED, OPTIONAL = ("file", "latitude", "longitude", "heading"), ("camera_height", "sequence", "split")
_DIGITS = 8  # of degrees in a name: a millimetre


class Crop(NamedTuple):
    """Where an image lies in the whole sphere that it is a part of (Google's GPano); pixels."""

    width: int  # of the whole panorama
    height: int
    left: int
    top: int


class Panorama(NamedTuple):
    """A line of the table, with what its file adds; a photograph's has a camera."""

    file: Path
    name: str  # VIGOR's: <id>,<latitude>,<longitude>,.jpg
    latitude: float
    longitude: float
    heading_deg: float  # true bearing of the centre column, of a photograph's optical axis
    listed: str  # what the table calls the file
    stamp: tuple  # bytes of the file, and when it was last changed, seconds
    crop: Crop | None  # None: the image is the whole sphere, or a photograph
    camera: tuple | None  # of a photograph: 12 numbers, `common.camera.NAMES`
    camera_height_m: float | None
    sequence: str | None
    split: str | None


def read_table(path, workers=1, photographs=False):
    """The `Panorama`s of a table, in its order.

    A CSV file with the columns file (relative to it), latitude, longitude and heading, in degrees, and where known camera_height
    (metres), sequence and split (train or test). Where a line leaves place or heading empty, the file's EXIF (GPS, direction) and
    XMP (GPano) are asked. Raises UserError for whatever is missing, unreadable, no panorama or there twice.

    photographs: of these, the columns of `dataset.build.photograph.COLUMNS` as well, hfov or fx where EXIF tells no focal length.
    """
    path, what = Path(path), "photograph" if photographs else "panorama"
    try:
        as_written = {"dtype": str, "keep_default_na": False, "skip_blank_lines": False, "index_col": False}
        table = pd.read_csv(path, skipinitialspace=True, encoding="utf-8-sig", **as_written)
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}; --{'photos' if photographs else 'panoramas'} takes a CSV file of {', '.join(NEEDED)}"
        ) from None
    except (ValueError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a table in CSV, UTF-8 ({str(error).strip().splitlines()[0]})") from None
    table.columns = [str(name).strip().lower() for name in table.columns]
    if twice := table.columns[table.columns.duplicated()].tolist():
        raise UserError(f"{path}: two columns are called {twice[0]!r}; remove one")
    if absent := [name for name in NEEDED if name not in table.columns]:
        raise UserError(
            f"{path}: no column {absent[0]!r} among {', '.join(table.columns)}; it needs {', '.join(NEEDED)}, and takes "
            f"{', '.join((*OPTIONAL, *(COLUMNS if photographs else ())))}, with commas between"
        )
    table = table.reindex(columns=[*NEEDED, *OPTIONAL, *COLUMNS]).map(lambda cell: "" if pd.isna(cell) else str(cell).strip())
    lines = [(number, line) for number, line in enumerate(table.itertuples(index=False), 2) if any(line)]
    if not lines:
        raise UserError(f"{path}: names no {what}")
    panoramas = list(in_threads(lambda line: _read_line(path, *line, photographs), lines, workers, "reading headers"))
    _refuse_twice(path, [number for number, _ in lines], panoramas, what)
    return panoramas


def _read_line(path, number, line, photographs):
    where = f"{path}, line {number}"
    if not line.file:
        raise UserError(f"{where}: names no file")
    file = path.parent / line.file
    header, stamp = _look(file, where)
    latitude, longitude = line.latitude, line.longitude
    if not latitude and not longitude:
        latitude, longitude = header.place or ("", "")
        if latitude == "":
            raise UserError(f"{file}: no GPS: neither {where} nor the file's EXIF tells its latitude and longitude")
    heading = line.heading or header.gpano.get("PoseHeadingDegrees") or header.direction
    if heading is None:
        asked = "GPSImgDirection" if photographs else "GPano:PoseHeadingDegrees, GPSImgDirection"
        looks = "it looks" if photographs else "its centre column looks"
        raise UserError(f"{file}: no heading: neither {where} nor the file ({asked}) tells where {looks}")
    try:
        place, bearing = read_place(latitude, longitude), BEARING(heading)
        camera_height = POSITIVE(line.camera_height) if line.camera_height else None
    except argparse.ArgumentTypeError as fault:
        raise UserError(f"{where}: {fault}") from None
    if line.split not in ("", "train", "test"):
        raise UserError(f"{where}: split {line.split!r} is neither train nor test")
    stem = re.sub(r"[^\w-]+", "-", str(Path(line.file).with_suffix(""))).strip("-") or "panorama"
    suffix = suffix_of(header) if photographs else ".jpg"
    name = f"{stem},{place[0]:.{_DIGITS}f},{place[1]:.{_DIGITS}f},{suffix}"
    if len(name.encode()) > LONGEST_NAME:
        raise UserError(f"{where}: {line.file[:40]}... is too long for a file's name")
    crop = None if photographs else _crop(header.gpano, header.size, file)
    camera = camera_of(line, header, bearing, file, where) if photographs else None
    more = camera_height, line.sequence or None, line.split or None
    return Panorama(file, name, *place, bearing, line.file, stamp, crop, camera, *more)


def _look(file, where):
    """(the `Header` of an image, (bytes, seconds of its last change))."""
    try:
        header, about = read_header(file), file.stat()
    except FileNotFoundError:
        raise UserError(f"{file}: no such file; {where} names it, relative to the table") from None
    return header, (about.st_size, int(about.st_mtime))


def _crop(gpano, size, file):
    """The `Crop` of an image that is a part of a sphere, None for a whole one. Raises UserError for what is neither."""
    names = ("FullPanoWidthPixels", "FullPanoHeightPixels", "CroppedAreaLeftPixels", "CroppedAreaTopPixels")
    try:
        crop = Crop(*(int(float(gpano[name])) for name in names))
    except (KeyError, ValueError):
        crop = Crop(*size, 0, 0)
    kind = gpano.get("ProjectionType", "equirectangular")
    fault = panorama_size_fault(crop.width, crop.height)
    if fault and not gpano:
        fault += "; a table of photographs is given as --photos"
    if kind != "equirectangular":
        fault = f"its GPano:ProjectionType is {kind}; only equirectangular panoramas can be laid on the ground"
    elif crop.left < 0 or crop.top < 0 or crop.left + size[0] > crop.width or crop.top + size[1] > crop.height:
        place, whole = f"{crop.left}, {crop.top}", f"{crop.width} x {crop.height} px"
        fault = f"its GPano places {size[0]} x {size[1]} px at {place} of a panorama of {whole}"
    if fault:
        raise UserError(f"{file}: {fault}")
    return None if crop == Crop(*size, 0, 0) else crop


def _refuse_twice(path, numbers, panoramas, what):
    """Raises UserError where two lines name one file, files of the same content, or files that would get the same name."""
    files, names, sizes = {}, {}, {}
    for number, panorama in zip(numbers, panoramas, strict=True):
        file = panorama.file.resolve()
        if file in files:
            raise UserError(f"{path}, lines {files[file]} and {number}: the same {what} twice, {panorama.file}; remove one")
        stem = panorama.name.partition(",")[0]
        if stem in names:
            raise UserError(f"{path}, lines {names[stem]} and {number}: both would be called {stem}; rename one file")
        files[file], names[stem] = number, number
        sizes.setdefault(panorama.stamp[0], []).append((number, panorama.file))
    for alike in (group for group in sizes.values() if len(group) > 1):
        seen = {}
        for number, file in alike:
            digest = hashlib.file_digest(file.open("rb"), "sha256").digest()
            if digest in seen:
                raise UserError(f"{path}, lines {seen[digest]} and {number}: the same {what} twice, {file}; remove one")
            seen[digest] = number
