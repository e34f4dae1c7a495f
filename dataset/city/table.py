"""The table of a city's panoramas or photographs, completed by the tags of their files."""

import argparse
import re
from collections import Counter
from functools import partial
from pathlib import Path
from typing import NamedTuple

from common.camera import Pinhole
from common.errors import UserError
from common.files import file_hash
from common.parallel import in_threads
from common.settings import BEARING, CAMERA_HEIGHT, POSITIVE, read_place
from dataset.city.street_images import CAMERA_COLUMNS, camera_of
from dataset.decoding import check_file
from dataset.exif import read_header
from dataset.images import panorama_size_fault
from dataset.lists import LONGEST_NAME
from dataset.tables import read_csv

JPEG = ("JPEG", "MPO")  # formats of phones; the first image of an MPO is the photograph
NEEDED = ("file", "latitude", "longitude", "heading")
OPTIONAL = ("accuracy", "camera_height", "sequence", "split")


class Crop(NamedTuple):
    """The part of the whole sphere that an image shows (Google's GPano), in pixels."""

    width: int  # of the whole panorama
    height: int
    left: int
    top: int


class PanoramaRow(NamedTuple):
    """A line of the table, completed by its file. Photographs are panoramas with a camera."""

    file: Path
    name: str  # VIGOR's: <id>,<latitude>,<longitude>,.jpg
    latitude: float
    longitude: float
    heading_deg: float  # true bearing of the centre column, or of a photograph's optical axis
    listed: str  # the file as the table names it
    stamp: tuple  # bytes of the file, and the time of its last change in seconds
    crop: Crop | None  # None: a whole panorama, or a photograph
    camera: Pinhole | None  # of a photograph
    accuracy_m: float | None  # of the place: a radius that holds about two thirds of the true ones
    camera_height_m: float | None
    sequence: str | None
    split: str | None


def read_table(path, workers=1, photographs=False):
    """The `PanoramaRow`s of a table, in its order.

    The table is a CSV file with the columns NEEDED and, optionally, OPTIONAL; `file` is relative to the
    table. A line without place or heading takes them from the file's EXIF (GPS, direction) and XMP (GPano).
    Photographs may have the columns CAMERA_COLUMNS too. Raises UserError for missing, unreadable, unsuitable
    and duplicate entries.
    """
    path, kind = Path(path), "photograph" if photographs else "panorama"
    flag = "--photos" if photographs else "--panoramas"
    table = read_csv(path, f"{flag} takes a CSV file of {', '.join(NEEDED)}")
    if absent := [name for name in NEEDED if name not in table.columns]:
        optional = ", ".join((*OPTIONAL, *(CAMERA_COLUMNS if photographs else ())))
        raise UserError(
            f"{path}: no column {absent[0]!r} among {', '.join(table.columns)}; it needs {', '.join(NEEDED)} "
            f"and may have {optional}, with commas between"
        )
    columns = [*NEEDED, *OPTIONAL, *CAMERA_COLUMNS]
    table = table.reindex(columns=columns, fill_value="")
    lines = [(number, line) for number, line in enumerate(table.itertuples(index=False), 2) if any(line)]
    if not lines:
        raise UserError(f"{path}: names no {kind}")
    read = partial(_read_line, path, photographs)
    panoramas = list(in_threads(read, lines, workers, "reading headers"))
    _refuse_duplicates(path, [number for number, _ in lines], panoramas, kind)
    return panoramas


def _read_line(path, photographs, numbered_line):
    number, line = numbered_line
    where = f"{path}, line {number}"
    if not line.file:
        raise UserError(f"{where}: names no file")
    file = path.parent / line.file
    check_file(file, f"{where} names it, relative to the table")
    header, status = read_header(file), file.stat()
    given = (line.latitude, line.longitude) if line.latitude or line.longitude else header.place
    if given is None:
        raise UserError(f"{file}: no GPS: neither {where} nor the file's EXIF has its place")
    heading = line.heading or header.gpano.get("PoseHeadingDegrees") or header.direction
    if heading is None:
        tags = "GPSImgDirection" if photographs else "GPano:PoseHeadingDegrees, GPSImgDirection"
        raise UserError(f"{file}: no heading: neither {where} nor the file ({tags}) has it")
    try:
        latitude, longitude = read_place(*given)
        heading = BEARING(heading)
        accuracy = POSITIVE(line.accuracy) if line.accuracy else None
        camera_height = CAMERA_HEIGHT(line.camera_height) if line.camera_height else None
    except argparse.ArgumentTypeError as fault:
        raise UserError(f"{where}: {fault}") from None
    if line.split not in ("", "train", "test"):
        raise UserError(f"{where}: split {line.split!r} is neither train nor test")
    stem = re.sub(r"[^\w-]+", "-", str(Path(line.file).with_suffix(""))).strip("-") or "panorama"
    is_copied = header.format in JPEG and header.stands_upright  # other photographs become PNGs
    suffix = ".png" if photographs and not is_copied else ".jpg"
    name = f"{stem},{latitude:.8f},{longitude:.8f},{suffix}"  # to a millimetre
    if len(name.encode()) > LONGEST_NAME:
        raise UserError(f"{where}: {line.file[:40]}... is too long for a file's name")
    stamp = status.st_size, int(status.st_mtime)
    crop = None if photographs else _crop(header.gpano, header.size, file)
    camera = camera_of(line, header, heading, file, where) if photographs else None
    place, numbers = (latitude, longitude, heading), (accuracy, camera_height)
    groups = line.sequence or None, line.split or None
    return PanoramaRow(file, name, *place, line.file, stamp, crop, camera, *numbers, *groups)


def _crop(gpano, size, file):
    """The `Crop` of an image of a part of a sphere, None for a whole one. Raises UserError for others."""
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
        fault = f"its GPano:ProjectionType is {kind}, expected equirectangular"
    elif not (0 <= crop.left <= crop.width - size[0] and 0 <= crop.top <= crop.height - size[1]):
        part = f"{size[0]} x {size[1]} px at {crop.left}, {crop.top}"
        fault = f"its GPano places {part} of a panorama of {crop.width} x {crop.height} px"
    if fault:
        raise UserError(f"{file}: {fault}")
    return None if crop == Crop(*size, 0, 0) else crop


def _refuse_duplicates(path, numbers, panoramas, kind):
    """Raises UserError for two files of the same content, and for two that would get the same name."""
    often = Counter(panorama.stamp[0] for panorama in panoramas)
    contents, stems = {}, {}
    for number, panorama in zip(numbers, panoramas, strict=True):
        is_unique = often[panorama.stamp[0]] == 1  # by its size
        first = contents.setdefault(number if is_unique else file_hash(panorama.file), number)
        if first != number:
            fault = f"the same {kind} twice, {panorama.file}"
            raise UserError(f"{path}, lines {first} and {number}: {fault}; remove one")
        stem = panorama.name.partition(",")[0]
        first = stems.setdefault(stem, number)
        if first != number:
            raise UserError(f"{path}, lines {first} and {number}: both get the name {stem}; rename one file")
