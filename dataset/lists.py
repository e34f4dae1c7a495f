"""VIGOR's lists as text: the lists of a folder, what their lines and names contain, and writing them."""

import argparse
import csv
import io
import math
import re
from operator import attrgetter
from pathlib import Path

import numpy as np

from common import geometry
from common.errors import UserError
from common.files import write_bytes
from common.geometry import SATELLITE_PX
from common.settings import BEARING, POSITIVE
from dataset.cameras import holds_photographs
from dataset.layout import VIGOR

VIGOR_CITIES = ("NewYork", "Seattle", "SanFrancisco", "Chicago")  # in the published order
SATELLITE_LIST = "satellite_list.txt"
LISTS = ("same_area_balanced_train", "same_area_balanced_test", "pano_label_balanced")  # last: of all
LABEL_FOLDERS = {"corrected": ("splits__corrected", "__corrected"), "original": ("splits", "")}
LABEL_TABLE = "labels.csv"  # beside the lists of a city: what is known of its labels
LONGEST_NAME = 255  # bytes, the limit of file systems; a longer line would widen the whole table of names

_LABEL_COLUMNS = ["name", "heading", "accuracy"]
_DEGREES = r"(-?\d+(?:\.\d+)?(?:e-?\d+)?)"
NAMES = {
    "panorama": ("<id>,<latitude>,<longitude>,.jpg", rf"[^,]*,{_DEGREES},{_DEGREES}(,.*)?"),
    "satellite": ("satellite_<latitude>_<longitude>.png", rf"[^_]*_{_DEGREES}_{_DEGREES}(\.png)?"),
}


def city_images(root, city, streets, satellites, use_mask=True):
    """The `ImageFile`s, a set, of a city's street images, satellite images and masks with these names."""
    street = "photo" if holds_photographs(root, city) else "panorama"
    names = {street: streets, "satellite": satellites, "mask": satellites if use_mask else ()}
    return {VIGOR.image(kind, city, name) for kind, listed in names.items() for name in listed}


def label_folders(root):
    """{kind of labels: (folder, suffix of its lists)} under a root. Raises UserError where there is none."""
    if not root.is_dir():
        raise UserError(
            f"{root}: no such folder; pass VIGOR's with --dataset_root or VIGOR_ROOT, "
            "or draw a synthetic one: python -m dataset.mini_vigor --root data/mini_vigor"
        )
    folders = {kind: (root / name, suffix) for kind, (name, suffix) in LABEL_FOLDERS.items()}
    existing = {kind: folder for kind, folder in folders.items() if folder[0].is_dir()}
    if not existing:
        raise UserError(f"{folders['corrected'][0]}: no such folder; is this VIGOR's top folder?")
    return existing


def root_cities(root):
    """The cities of a root, in the order of `label_cities`. Raises UserError."""
    return label_cities(*next(iter(label_folders(Path(root)).values())))


def label_cities(folder, suffix):
    """The cities of a folder of lists: VIGOR's in the published order, then others by name.

    A city with any of the lists counts, so that missing lists are reported. Raises UserError without cities.
    """
    files = SATELLITE_LIST, *(f"{name}{suffix}.txt" for name in LISTS)
    cities = {path.parent.name for file in files for path in folder.glob(f"*/{file}")}
    if not cities:
        raise UserError(f"{folder}: no lists of any city; they belong there, see docs/DATA.md")
    return (*(city for city in VIGOR_CITIES if city in cities), *sorted(cities - set(VIGOR_CITIES)))


def read_lines(path, way_out="VIGOR's lists belong there, see docs/DATA.md"):
    """All lines of a text file, blank ones too, stripped. Raises UserError.

    way_out: the end of the message if the file cannot be opened.
    """
    try:
        return [line.strip() for line in path.read_text("utf-8-sig").split("\n")]
    except UnicodeDecodeError as error:
        fault = f"not a UTF-8 text (byte {error.start})"
        raise UserError(f"{path}: {fault}; download or unpack the list again") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; {way_out}") from None


def satellite_list(folder):
    """The satellite images of a city, from its folder of lists."""
    path = folder / SATELLITE_LIST
    names = [line for line in read_lines(path) if line]
    try:
        _check_length(max(names, key=lambda name: len(name.encode()), default=""))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    return names


def _check_length(name):
    if (length := len(name.encode())) > LONGEST_NAME:
        raise ValueError(f"{name[:40]}... is {length} bytes long, no file name is")


def parse_label(line, row_of):
    """(panorama's name, rows of its four satellite images, their eight offsets) of a label line.

    row_of: satellite name -> row. Raises ValueError with a description of the fault.
    """
    words = line.split()
    if len(words) != 13:
        expected = "a panorama, and four times a satellite image, row and column offset"
        raise ValueError(f"{len(words)} words where 13 belong: {expected}")
    try:
        rows = [row_of[word] for word in words[1::3]]
    except KeyError as error:
        raise ValueError(f"satellite {error} is not in satellite_list.txt beside it") from None
    offsets = [float(words[k]) for k in (2, 3, 5, 6, 8, 9, 11, 12)]
    if not math.isfinite(sum(offsets)):
        raise ValueError("an offset is not a finite number")
    _check_length(words[0])
    return words[0], rows, offsets


def read_labels(path, row_of):
    """The panoramas' names, all rows, and all offsets of a label list, in the order of `parse_label`."""
    names, rows, offsets = [], [], []
    for number, line in enumerate(read_lines(path), 1):
        if line:
            try:
                name, line_rows, line_offsets = parse_label(line, row_of)
            except ValueError as error:
                raise UserError(f"{path}, line {number}: {error}") from None
            names.append(name)
            rows += line_rows
            offsets += line_offsets
    return names, rows, offsets


def check_apart(folder, suffix, part, names):
    """Raises UserError if a city's same-area training list contains all panoramas of its test list.

    folder: of the city's lists; names: the panoramas of the list of `part`, 'train' or 'test'. The other
    part's list may be missing.
    """
    other = folder / f"same_area_balanced_{'train' if part == 'test' else 'test'}{suffix}.txt"
    if not other.exists():
        return
    named, others = set(names), {line.split()[0] for line in read_lines(other) if line}
    train, test = (others, named) if part == "test" else (named, others)
    if test and test <= train:
        says = f"all {len(test)} panoramas of the test list are in the training list too"
        raise UserError(f"{folder}: {says}; python -m dataset.check names them")


def write_label_table(folder, rows):
    """Write the headings and accuracies of a city's labels beside its lists.

    rows: (panorama's name, heading, accuracy): the labelled bearing of the stored image's centre in degrees,
    0 for north-centred panoramas; the radius in metres that contains about two thirds of the true positions
    around their labels, or None.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_LABEL_COLUMNS)
    table.writerows(
        (name, f"{heading:.2f}", accuracy and f"{accuracy:.2f}") for name, heading, accuracy in rows
    )
    write_bytes(folder / LABEL_TABLE, text.getvalue().encode())


def read_label_table(folder):
    """{panorama's name: (heading, accuracy)} from the file of `write_label_table`; {} without that file.

    Unknown accuracies are NaN. Raises UserError, which names the line, for anything else.
    """
    path, table = folder / LABEL_TABLE, {}
    if not path.exists():
        return table
    lines = list(csv.reader(read_lines(path)))
    if lines[:1] != [_LABEL_COLUMNS]:
        raise UserError(f"{path}: its first line is not {','.join(_LABEL_COLUMNS)}; write the city again")
    for number, line in enumerate(lines[1:], 2):
        try:
            if line:
                name, heading, accuracy = line
                table[name] = BEARING(heading), POSITIVE(accuracy) if accuracy else math.nan
        except (ValueError, argparse.ArgumentTypeError) as fault:
            raise UserError(f"{path}, line {number}: {fault}; expected a name, degrees, metres") from None
    return table


def listed_images(root, use_mask=True):
    """The `ImageFile`s, sorted by name, of all images in the lists of a root. Raises UserError for none."""
    images = set()
    for folder, suffix in label_folders(root).values():
        for city in label_cities(folder, suffix):
            files = [folder / city / f"{name}{suffix}.txt" for name in LISTS]
            lines = [line for file in files if file.exists() for line in read_lines(file) if line]
            panoramas = [line.split()[0] for line in lines]
            images |= city_images(root, city, panoramas, satellite_list(folder / city), use_mask)
    if not images:
        raise UserError(f"{root}: its lists name no image; is this VIGOR's top folder?")
    return sorted(images, key=attrgetter("name"))


def offset_positions(offsets):
    """(N, 4, 2) positions at 640 px for the eight offsets of labels, (N, 8)."""
    return np.stack(geometry.offsets_to_position(offsets[:, ::2], offsets[:, 1::2]), -1)


def outside_in_words(position):
    """A position (row, col) at 640 px that lies outside its satellite image."""
    row, col = position
    return f"row {row:.1f}, column {col:.1f} of {SATELLITE_PX} px"


def positions_by_name(panorama_gps, satellite_gps):
    """(N, 4, 2) positions at 640 px of panoramas at (N, 2) in satellite images at (N, 4, 2) degrees."""
    latitude, longitude = panorama_gps.T[:, :, None]
    position = geometry.gps_to_position(latitude, longitude, satellite_gps[..., 0], satellite_gps[..., 1])
    return np.stack(position, -1)


def coordinates(names, kind, path=None):
    """(N, 2) latitudes and longitudes in names of a kind in NAMES, of a list at a path.

    Raises UserError, which names the first name without coordinates.
    """
    form, pattern = NAMES[kind]
    matches = map(re.compile(pattern).fullmatch, names)
    degrees = [match.groups()[:2] if match else (np.nan, np.nan) for match in matches]
    gps = np.array(degrees, np.float64).reshape(-1, 2)
    is_valid = (abs(gps) <= (90, 180)).all(1)
    if not is_valid.all():
        where = "" if path is None else f"{path}: "
        raise UserError(f"{where}name {names[int(is_valid.argmin())]!r} is not of the form {form}")
    return gps


def written_gps(place, digits):
    """(latitude, longitude) of a place (row, col) on the map, rounded to `digits`, as in file names."""
    return tuple(f"{degrees:.{digits}f}" for degrees in geometry.latitude_longitude(*place))


def satellite_at(centre, digits=12):
    """(name, (latitude, longitude) as in it) of the satellite image with a centre (row, col) on the map."""
    gps = written_gps(centre, digits)
    return f"satellite_{gps[0]}_{gps[1]}.png", gps


def label_line(panorama, gps, satellites):
    """A line of a label list.

    panorama: its file name.
    gps: its (latitude, longitude), as text or numbers.
    satellites: its four images as (name, (latitude, longitude)), the positive first.
    """
    words = [panorama]
    for name, centre in satellites:
        position = geometry.gps_to_position(*(float(degrees) for degrees in (*gps, *centre)))
        words += [name, *(f"{offset:.4f}" for offset in geometry.position_to_offsets(*position))]
    return " ".join(words)


def lists_of(root, city, labels="corrected"):
    """The folder of a city's lists of a kind of labels."""
    return Path(root) / LABEL_FOLDERS[labels][0] / city


def write_lists(folder, satellites, lines, train, test, labels="corrected"):
    """Write the list of a city's satellite images, and its label lists of training, test and all panoramas.

    lines: of all panoramas · train, test: numbers of the lines in the same-area lists · labels: their kind.
    """
    suffix = LABEL_FOLDERS[labels][1]
    parts = [lines[i] for i in sorted(train)], [lines[i] for i in sorted(test)], lines
    files = SATELLITE_LIST, *(f"{name}{suffix}.txt" for name in LISTS)
    for file, content in zip(files, (sorted(satellites), *parts), strict=True):
        write_bytes(folder / file, "".join(f"{line}\n" for line in content).encode())
