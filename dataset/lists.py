"""VIGOR's lists as text: which lie in a folder, what their lines and names say, and how they are written."""

import math
import re
from pathlib import Path

import numpy as np

from common import geometry
from common.errors import UserError
from common.files import write_bytes

VIGOR_CITIES = ("NewYork", "Seattle", "SanFrancisco", "Chicago")  # in the published order
SATELLITE_LIST = "satellite_list.txt"
LISTS = ("same_area_balanced_train", "same_area_balanced_test", "pano_label_balanced")  # the last one: all panoramas
LABEL_FOLDERS = {"corrected": ("splits__corrected", "__corrected"), "original": ("splits", "")}  # and the lists' suffix
LONGEST_NAME = 255  # bytes; what file systems allow, and what keeps one bad line from widening the whole table

_DEGREES = r"(-?\d+(?:\.\d+)?(?:e-?\d+)?)"
NAMES = {
    "panorama": ("<id>,<latitude>,<longitude>,.jpg", rf"[^,]*,{_DEGREES},{_DEGREES}(,.*)?"),
    "satellite": ("satellite_<latitude>_<longitude>.png", rf"[^_]*_{_DEGREES}_{_DEGREES}(\.png)?"),
}


def image_paths(city, panoramas, satellites, use_mask=True):
    """The paths, relative to the root, of a city's panoramas, of its satellite images and of their masks, by their names."""
    paths = {f"{city}/panorama/{name}" for name in panoramas} | {f"{city}/satellite/{name}" for name in satellites}
    return paths | {f"{city}/point_prompt_mask/{mask_name(name)}" for name in satellites if use_mask}


def mask_name(satellite):
    """The file name of a satellite image's semantic mask, by its own."""
    return f"{satellite.removesuffix('.png')}_mask.tif"


def label_folders(root):
    """{kind of labels: (folder, suffix of its lists)} of what lies under a root. UserError where there is none."""
    if not root.is_dir():
        raise UserError(
            f"{root}: no such folder; pass VIGOR's with --dataset_root or VIGOR_ROOT, "
            "or draw a synthetic one: python -m dataset.mini_vigor --root data/mini_vigor"
        )
    found = {kind: (root / name, suffix) for kind, (name, suffix) in LABEL_FOLDERS.items() if (root / name).is_dir()}
    if not found:
        raise UserError(f"{root / LABEL_FOLDERS['corrected'][0]}: no such folder; is this VIGOR's top folder?")
    return found


def root_cities(root):
    """The cities of a root, as `label_cities` gives them. Raises UserError."""
    return label_cities(*next(iter(label_folders(Path(root)).values())))


def label_cities(folder, suffix):
    """The cities of a folder of lists: VIGOR's in the published order, then others by name. UserError where there are none.

    Whatever holds one list is a city, so that one whose other lists are missing is told of, not left out.
    """
    files = SATELLITE_LIST, *(f"{name}{suffix}.txt" for name in LISTS)
    found = {path.parent.name for file in files for path in folder.glob(f"*/{file}")}
    if not found:
        raise UserError(f"{folder}: no lists of any city; they belong there, see docs/DATA.md")
    return (*(city for city in VIGOR_CITIES if city in found), *sorted(found - set(VIGOR_CITIES)))


def read_lines(path):
    """The lines of a list, stripped, blank ones included so that they count. UserError for a file that is no UTF-8 text."""
    try:
        return [line.strip() for line in path.read_text("utf-8-sig").split("\n")]
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a UTF-8 text (byte {error.start}); download or unpack the list again") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; VIGOR's lists belong there, see docs/DATA.md") from None


def satellite_list(folder):
    """The satellite images of a city, from its folder of lists."""
    path = folder / SATELLITE_LIST
    names = [line for line in read_lines(path) if line]
    if names and len(longest := max(names, key=len)) > LONGEST_NAME:
        raise UserError(f"{path}: {longest[:40]}... is {len(longest)} characters long, no file name is")
    return names


def parse_label(line, row_of):
    """(panorama's name, rows of its four satellite images, their eight offsets) of a label line.

    row_of: satellite name -> row. Raises ValueError, which says what is wrong with the line.
    """
    words = line.split()
    if len(words) != 13:
        raise ValueError(f"{len(words)} words where 13 belong: panorama, then four times satellite, row and column offset")
    try:
        rows = [row_of[word] for word in words[1::3]]
    except KeyError as error:
        raise ValueError(f"satellite {error} is not in satellite_list.txt beside it") from None
    offsets = [float(words[k]) for k in (2, 3, 5, 6, 8, 9, 11, 12)]
    if not math.isfinite(sum(offsets)):
        raise ValueError("an offset is not a finite number")
    if len(words[0]) > LONGEST_NAME:
        raise ValueError(f"{words[0][:40]}... is {len(words[0])} characters long, no file name is")
    return words[0], rows, offsets


def read_labels(path, row_of):
    """The panoramas' names, and all rows and offsets one after the other, as `parse_label` gives them, of a label list."""
    names, rows, offsets = [], [], []
    for number, line in enumerate(read_lines(path), 1):
        if line:
            try:
                name, four, eight = parse_label(line, row_of)
            except ValueError as error:
                raise UserError(f"{path}, line {number}: {error}") from None
            names.append(name)
            rows += four
            offsets += eight
    return names, rows, offsets


def listed_images(root, use_mask=True):
    """Paths, sorted and relative to the root, of all images that its lists name: panoramas, satellite images and masks."""
    paths = set()
    for folder, suffix in label_folders(root).values():
        for city in label_cities(folder, suffix):
            files = (folder / city / f"{name}{suffix}.txt" for name in LISTS)
            panoramas = [line.split()[0] for file in files if file.exists() for line in read_lines(file) if line]
            paths |= image_paths(city, panoramas, satellite_list(folder / city), use_mask)
    if not paths:
        raise UserError(f"{root}: its lists name no image; is this VIGOR's top folder?")
    return sorted(paths)


def offset_positions(offsets):
    """(N, 4, 2) positions at 640 px that the eight offsets of labels, (N, 8), mean."""
    return np.stack(geometry.offsets_to_position(offsets[:, ::2], offsets[:, 1::2]), -1)


def positions_by_name(panorama_gps, satellite_gps):
    """(N, 4, 2) positions at 640 px of panoramas at (N, 2) in satellite images at (N, 4, 2) degrees."""
    latitude, longitude = panorama_gps.T[:, :, None]
    position = geometry.gps_to_position(latitude, longitude, satellite_gps[..., 0], satellite_gps[..., 1])
    return np.stack(position, -1)


def coordinates(names, kind):
    """(N, 2) latitudes and longitudes from the names of a kind in NAMES. UserError names the first that has none."""
    form, pattern = NAMES[kind]
    matches = map(re.compile(pattern).fullmatch, names)
    gps = np.array([match.groups()[:2] if match else (np.nan, np.nan) for match in matches], np.float64).reshape(-1, 2)
    right = (abs(gps) <= (90, 180)).all(1)
    if not right.all():
        raise UserError(f"name {names[int(right.argmin())]!r} is not of the form {form}")
    return gps


def satellite_at(centre):
    """(name, (latitude, longitude) as in it) of the satellite image with a centre (row, col) on the map."""
    gps = tuple(f"{degrees:.12f}" for degrees in geometry.latitude_longitude(*centre))
    return f"satellite_{gps[0]}_{gps[1]}.png", gps


def label_line(panorama, gps, satellites):
    """A line of a label list.

    panorama: its file's name · gps: its (latitude, longitude), as text or numbers · satellites: its four images as (name,
    (latitude, longitude)), the positive first.
    """
    words = [panorama]
    for name, centre in satellites:
        position = geometry.gps_to_position(*(float(degrees) for degrees in (*gps, *centre)))
        words += [name, *(f"{offset:.4f}" for offset in geometry.position_to_offsets(*position))]
    return " ".join(words)


def write_lists(folder, satellites, lines, train, test):
    """The list of a city's satellite images and its three label lists, all, training and test.

    lines: of all panoramas · train, test: numbers of those in the same-area lists.
    """
    for name, content in (
        ("satellite_list.txt", sorted(satellites)),
        ("same_area_balanced_train__corrected.txt", [lines[i] for i in sorted(train)]),
        ("same_area_balanced_test__corrected.txt", [lines[i] for i in sorted(test)]),
        ("pano_label_balanced__corrected.txt", lines),
    ):
        write_bytes(folder / name, "".join(f"{line}\n" for line in content).encode())
