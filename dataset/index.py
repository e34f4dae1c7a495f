"""VIGOR's lists -> one table of NumPy arrays, with no Python object per sample, so that loader workers share it as it is."""

import math
import os
import zlib
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from common import geometry
from common.errors import UserError

CITIES = ("NewYork", "Seattle", "SanFrancisco", "Chicago")
AREA_CITIES = {
    ("samearea", "train"): CITIES,
    ("samearea", "test"): CITIES,
    ("crossarea", "train"): ("NewYork", "Seattle"),
    ("crossarea", "test"): ("SanFrancisco", "Chicago"),
}
AREAS = ("samearea", "crossarea")
SPLITS = ("train", "val", "test")
LABELS = ("corrected", "gps", "original")
KINDS = ("positive", "semi-positive 1", "semi-positive 2", "semi-positive 3")
LISTS = ("same_area_balanced_train", "same_area_balanced_test", "pano_label_balanced")  # the last one: all panoramas
LABEL_FOLDERS = {"corrected": ("splits__corrected", "__corrected"), "original": ("splits", "")}  # and the lists' suffix
VALIDATION_SHARE = 5  # one in five panoramas of the training lists is held out for validation
LONGEST_NAME = 255  # bytes; what file systems allow, and what keeps one bad line from widening the whole table

MINI_VIGOR = Path(__file__).resolve().parent.parent / "data" / "mini_vigor"


def find_root(dataset_root=None):
    """The folder to read: the one given, else VIGOR_ROOT's, else mini-VIGOR, drawn if it is not there yet."""
    if dataset_root or os.environ.get("VIGOR_ROOT"):
        return Path(dataset_root or os.environ["VIGOR_ROOT"])
    from dataset.mini_vigor.writer import make  # drawing costs time that only this case needs

    print(f"no --dataset_root and no VIGOR_ROOT: using the synthetic mini-VIGOR in {MINI_VIGOR}")
    make(MINI_VIGOR)
    return MINI_VIGOR


def panorama_path(city, name):
    """Path of a panorama, relative to the root."""
    return f"{city}/panorama/{name}"


def satellite_path(city, name):
    """Path of a satellite image, relative to the root."""
    return f"{city}/satellite/{name}"


def mask_path(city, name):
    """Path of the semantic mask of the satellite image `name`, relative to the root."""
    return f"{city}/point_prompt_mask/{name.removesuffix('.png')}_mask.tif"


@dataclass(frozen=True)
class VigorIndex:
    """One split as a table of N panoramas and M satellite images.

    city (N,) and satellite_city (M,): index into CITIES · panorama (N,), satellite_name (M,): file names, as bytes ·
    satellite (N, 4): rows of the satellite table, the positive first · position (N, 4, 2): (row, col) of the panorama in each
    of its satellite images at 640 px, which may lie outside · satellite_gps (M, 2): degrees.
    """

    root: Path
    area: str
    split: str
    city: np.ndarray
    panorama: np.ndarray
    satellite: np.ndarray
    position: np.ndarray
    satellite_name: np.ndarray
    satellite_city: np.ndarray
    satellite_gps: np.ndarray

    def __len__(self):
        return len(self.panorama)

    def select(self, rows):
        """The same table with only these rows (an index array or a boolean mask); satellites stay."""
        per_panorama = ("city", "panorama", "satellite", "position")
        return replace(self, **{f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name in per_panorama})

    @property
    def inside(self):
        """(N, 4) booleans: does the satellite image contain the panorama?"""
        return ((self.position >= 0) & (self.position < geometry.SATELLITE_PX)).all(-1)

    def panorama_path(self, row):
        """Path of a panorama, relative to the root."""
        return Path(panorama_path(CITIES[self.city[row]], self.panorama[row].decode()))

    def satellite_path(self, satellite):
        """Path of a satellite image, relative to the root."""
        return Path(satellite_path(CITIES[self.satellite_city[satellite]], self.satellite_name[satellite].decode()))

    def mask_path(self, satellite):
        """Path of a satellite image's semantic mask, relative to the root."""
        return Path(mask_path(CITIES[self.satellite_city[satellite]], self.satellite_name[satellite].decode()))


def load_index(root, area="samearea", split="train", labels="corrected"):
    """Read the lists of one split: 'train' and 'val' part the training list by a hash of the panorama's name, 'test' is whole.

    labels: 'corrected' or 'original' offset lists, or 'gps': positions computed from the file names by Web Mercator.
    Raises UserError, naming the file and the remedy, for a missing root or list and for a line that does not parse.
    """
    for name, value, allowed in (("area", area, AREAS), ("split", split, SPLITS), ("labels", labels, LABELS)):
        if value not in allowed:
            raise UserError(f"{name} {value!r} is not one of {', '.join(allowed)}")
    root = Path(root)
    folder, suffix = _label_folder(root, labels)
    part = "test" if split == "test" else "train"
    file = f"pano_label_balanced{suffix}.txt" if area == "crossarea" else f"same_area_balanced_{part}{suffix}.txt"
    names, city, satellites, offsets, satellite_names, satellite_city = [], [], [], [], [], []
    for town in AREA_CITIES[area, part]:
        first, listed = len(satellite_names), satellite_list(folder / town)
        labelled = _read_labels(folder / town / file, {name: first + i for i, name in enumerate(listed)})
        names += labelled[0]
        satellites.append(labelled[1])
        offsets.append(labelled[2])
        city.append(np.full(len(labelled[0]), CITIES.index(town), np.uint8))
        satellite_names += listed
        satellite_city.append(np.full(len(listed), CITIES.index(town), np.uint8))
    if not names:
        raise UserError(f"{folder}: the lists for {area} {split} name no panorama; is this a whole VIGOR folder?")
    satellite, offset, satellite_gps = np.concatenate(satellites), np.concatenate(offsets), satellite_coordinates(satellite_names)
    if labels == "gps":
        position = positions_by_name(panorama_coordinates(names), satellite_gps[satellite])
    else:
        position = np.stack(geometry.offsets_to_position(offset[..., 0], offset[..., 1]), -1)
    index = VigorIndex(
        root=root,
        area=area,
        split=split,
        city=np.concatenate(city),
        panorama=np.array([name.encode() for name in names]),
        satellite=satellite,
        position=position.astype(np.float32),
        satellite_name=np.array([name.encode() for name in satellite_names]),
        satellite_city=np.concatenate(satellite_city),
        satellite_gps=satellite_gps,
    )
    if split == "test":
        return index
    held_out = np.array([zlib.crc32(name) % VALIDATION_SHARE == 0 for name in index.panorama.tolist()])
    return index.select(held_out if split == "val" else ~held_out)


def label_folders(root):
    """(folder, suffix of its lists) of each kind of labels that lies under a root. UserError where there is none."""
    found = [(root / folder, suffix) for folder, suffix in LABEL_FOLDERS.values() if (root / folder).is_dir()]
    return found or [_label_folder(root, "gps")]


def _label_folder(root, labels):
    """(folder, suffix of the lists) for a kind of labels."""
    if not root.is_dir():
        raise UserError(
            f"{root}: no such folder; pass VIGOR's with --dataset_root or VIGOR_ROOT, "
            "or draw a synthetic one: python -m dataset.mini_vigor --root data/mini_vigor"
        )
    wanted = list(LABEL_FOLDERS) if labels == "gps" else [labels]
    for kind in wanted:
        folder, suffix = LABEL_FOLDERS[kind]
        if (root / folder).is_dir():
            return root / folder, suffix
    there = [kind for kind, (folder, _) in LABEL_FOLDERS.items() if (root / folder).is_dir()]
    way_out = f"--labels {there[0]} would read {LABEL_FOLDERS[there[0]][0]}" if there else "is this VIGOR's top folder?"
    raise UserError(f"{root / LABEL_FOLDERS[wanted[0]][0]}: no such folder; {way_out}")


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
    path = folder / "satellite_list.txt"
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


def _read_labels(path, row_of):
    """Panorama names, (n, 4) rows of the satellite table and (n, 4, 2) offsets of a label list."""
    names, rows, offsets = [], [], []
    for number, line in enumerate(read_lines(path), 1):
        if not line:
            continue
        try:
            name, four, eight = parse_label(line, row_of)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}") from None
        names.append(name)
        rows += four
        offsets += eight
    return names, np.array(rows, np.int32).reshape(-1, 4), np.array(offsets, np.float32).reshape(-1, 4, 2)


def listed_images(root, use_mask=True):
    """Paths, sorted and relative to the root, of all images that its lists name: panoramas, satellite images and masks."""
    paths = set()
    for folder, suffix in label_folders(root):
        for city in CITIES:
            if not (folder / city).is_dir():
                continue
            for name in satellite_list(folder / city):
                paths |= {satellite_path(city, name)} | ({mask_path(city, name)} if use_mask else set())
            for file in (folder / city / f"{name}{suffix}.txt" for name in LISTS):
                if file.exists():
                    paths |= {panorama_path(city, line.split()[0]) for line in read_lines(file) if line}
    if not paths:
        raise UserError(f"{root}: its lists name no image; is this VIGOR's top folder?")
    return sorted(paths)


def positions_by_name(panorama_gps, satellite_gps):
    """(N, 4, 2) positions at 640 px of panoramas at (N, 2) in satellite images at (N, 4, 2) degrees."""
    latitude, longitude = panorama_gps.T[:, :, None]
    position = geometry.gps_to_position(latitude, longitude, satellite_gps[..., 0], satellite_gps[..., 1])
    return np.stack(position, -1)


def satellite_coordinates(names):
    """(M, 2) latitudes and longitudes from names like satellite_41.85_-87.68.png. UserError names the first that has none."""
    return _coordinates(names, lambda name: name.removesuffix(".png").split("_")[1:], "satellite_<latitude>_<longitude>.png")


def panorama_coordinates(names):
    """(N, 2) latitudes and longitudes from names like <id>,41.85,-87.68,.jpg. UserError names the first that has none."""
    return _coordinates(names, lambda name: name.split(",")[1:3], "<id>,<latitude>,<longitude>,.jpg")


def _coordinates(names, split, form):
    pairs = [split(name) for name in names]
    try:
        gps = np.array(pairs, np.float64).reshape(len(names), 2)
        right = (abs(gps) <= (90, 180)).all(1)
    except ValueError:
        right = np.array([_is_coordinates(pair) for pair in pairs])
    if not right.all():
        raise UserError(f"name {names[int(right.argmin())]!r} is not of the form {form}")
    return gps


def _is_coordinates(words):
    try:
        latitude, longitude = (float(word) for word in words)
    except ValueError:
        return False
    return abs(latitude) <= 90 and abs(longitude) <= 180
