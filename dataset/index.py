"""VIGOR's lists -> one table of NumPy arrays, which loader workers share: it has no object per sample."""

import hashlib
import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter
from pathlib import Path

import numpy as np
import torch

from common import geometry
from common.camera import Camera
from common.errors import UserError
from common.files import file_size
from dataset.cameras import cameras_of
from dataset.layout import VIGOR, Folders
from dataset.lists import (
    LABEL_FOLDERS,
    SATELLITE_LIST,
    VIGOR_CITIES,
    check_apart,
    coordinates,
    label_cities,
    label_folders,
    offset_positions,
    outside_in_words,
    positions_by_name,
    read_label_table,
    read_labels,
    satellite_list,
)

VIGOR_RULE = {  # the published one, of what trains and what tests
    ("samearea", "train"): VIGOR_CITIES,
    ("samearea", "test"): VIGOR_CITIES,
    ("crossarea", "train"): ("NewYork", "Seattle"),
    ("crossarea", "test"): ("SanFrancisco", "Chicago"),
}
AREAS = ("samearea", "crossarea")
SPLITS = ("train", "val", "test")
LABELS = ("corrected", "gps", "original")
KINDS = ("positive", "semi-positive 1", "semi-positive 2", "semi-positive 3")
SAME_SCALE = 0.02  # by which satellite images on the map may be wider or narrower than VIGOR's
_SAMPLED = 32  # pairs whose files a fingerprint looks at
_APART_PX = 1e6  # between the frames of files whose place on the map is not known
VALIDATION_SHARE = 5  # one in five panoramas of the training lists is held out for validation


@dataclass(frozen=True)
class VigorIndex:
    """One split as a table of N street images and M satellite images; names are bytes, cities numbers into
    `cities`.

    Street images are called panoramas here, as in VIGOR; `cameras` says whether they are photographs.
    """

    root: Path
    cities: tuple  # names of all cities of the folder, so that a number means the same in all splits
    city: np.ndarray  # (N,)
    panorama: np.ndarray  # (N,) names in their folder
    satellite: np.ndarray  # (N, 4) rows of the satellite table, the positive first
    position: np.ndarray  # (N, 4, 2) (row, col) in these satellite images at 640 px; may lie outside
    satellite_name: np.ndarray  # (M,) names in their folder
    satellite_city: np.ndarray  # (M,)
    satellite_gps: np.ndarray  # (M, 2) degrees; NaN where they are not known
    cameras: Camera  # (N,) true cameras, with their labelled headings
    prior_heading: np.ndarray = None  # (N,) degrees, of a set that gives headings, within +- `prior_within`
    prior_within: float = None
    accuracy: np.ndarray = None  # (N,) metres of the labels, as in `write_label_table`, NaN where not known
    crop: np.ndarray = None  # (M, 3) as in `ImageFile`; None: all of each file
    resolution: np.ndarray = None  # (M,) metres per pixel at 640 px; None: as Web Mercator has at zoom 20
    folders: Folders = VIGOR

    def __len__(self):
        return len(self.panorama)

    def select(self, rows):
        """The same table with only these rows (an index array or a boolean mask); satellites stay."""
        names = ("city", "panorama", "satellite", "position", "cameras", "prior_heading", "accuracy")
        columns = {name: getattr(self, name) for name in names}
        return replace(self, **{name: x[rows] for name, x in columns.items() if x is not None})

    @property
    def photographs(self):
        """Whether the query images are photographs."""
        return self.cameras.kind == "photo"

    @property
    def listed(self):
        """{name: number} of the cities that its panoramas are of."""
        return {self.cities[number]: number for number in np.unique(self.city).tolist()}

    @property
    def inside(self):
        """(N, 4) booleans: does the satellite image contain the panorama?"""
        return geometry.inside(self.position)

    def metres_per_pixel(self, satellites, size_px=geometry.SATELLITE_PX):
        """Ground resolution of some satellite images, by their rows, at `size_px` pixels on a side."""
        if self.resolution is None:
            return geometry.metres_per_pixel(self.satellite_gps[satellites, 0], size_px)
        return self.resolution[satellites] * (geometry.SATELLITE_PX / size_px)

    def corner(self, satellites):
        """(..., 2) (row, col) of the north-west corners of some satellite images, each taken as 640 px wide.

        They lie on the map or, for images without latitude and longitude, in a separate frame for each file,
        far from all others.
        """
        corner = geometry.image_corner(self.satellite_gps[satellites])
        if self.crop is None or not np.isnan(corner).any():
            return corner
        row, col, side = np.moveaxis(self.crop[satellites], -1, 0) * 1.0
        scale = geometry.SATELLITE_PX / side
        return np.stack((row * scale, col * scale + self._file[satellites] * _APART_PX), -1)

    @cached_property
    def _file(self):
        """(M,) numbers of the satellite images' files."""
        return np.unique(self.satellite_name, return_inverse=True)[1]

    @cached_property
    def fingerprint(self):
        """12 digits that change with the images' names, the labels, and the sizes of a few dozen files."""
        used = self.satellite_name[self.satellite]
        digest = hashlib.sha256(self.cameras.values.numpy().tobytes())
        for column in (self.panorama, used, self.position, self.crop, self.resolution):
            digest.update(b"" if column is None else np.ascontiguousarray(column).tobytes())
        for row in np.linspace(0, len(self) - 1, min(len(self), _SAMPLED)).astype(int):
            for image in (self.panorama_image(row), self.satellite_image(self.satellite[row, 0])):
                digest.update(b"%d " % file_size(self.root / image.path))
        return digest.hexdigest()[:12]

    def check_map(self, what):
        """Raises UserError unless all satellite images lie on the map and are as wide as VIGOR's.

        what: needs that, such as 'a search'.
        """
        says = None
        if np.isnan(self.satellite_gps).any():
            says = "latitude and longitude of its satellite images are not known"
        elif self.resolution is not None:
            scale = self.resolution / geometry.metres_per_pixel(self.satellite_gps[:, 0])
            if (abs(scale - 1) > SAME_SCALE).any():
                says = f"its images are {scale.min():.2f} to {scale.max():.2f} times as wide as VIGOR's"
        if says:
            raise UserError(f"{self.root}: cannot be used for {what}: {says}")

    def panorama_image(self, row):
        """The `ImageFile` of a street image."""
        city, name = self.cities[self.city[row]], self.panorama[row].decode()
        return self.folders.image(self.cameras.kind, city, name)

    def satellite_image(self, satellite, kind="satellite"):
        """The `ImageFile` of a row of the satellite table; kind 'mask': that of its mask."""
        city, name = self.cities[self.satellite_city[satellite]], self.satellite_name[satellite].decode()
        crop = None if self.crop is None else tuple(self.crop[satellite].tolist())
        return self.folders.image(kind, city, name, crop)

    def mask_image(self, satellite):
        """The `ImageFile` of a satellite image's semantic mask."""
        return self.satellite_image(satellite, "mask")

    def images(self, use_mask=True):
        """The `ImageFile`s, sorted by name, of all images of its panoramas' pairs."""
        used = np.unique(self.satellite).tolist()
        images = {*map(self.panorama_image, range(len(self))), *map(self.satellite_image, used)}
        return sorted(images.union(map(self.mask_image, used if use_mask else ())), key=attrgetter("name"))


def load_index(root, area="samearea", split="train", labels="corrected", cities=None):
    """Read the lists of one split: 'train' and 'val' divide the training list by a hash of the panorama's
    name, 'test' is the whole test list.

    labels: 'corrected' or 'original' offset lists, or 'gps': positions computed from the file names by Web
    Mercator.
    cities: names, in any order; None: all of the folder for 'samearea', VIGOR's rule for 'crossarea'. Raises
    UserError, naming the file and the remedy, for a missing root or list, a line that does not parse, a
    positive outside its image, and a test list that repeats the training list.
    """
    check_names(area=area, split=split, labels=labels)
    root = Path(root)
    folder, suffix = _folder_of(root, labels)
    part, there = listed_part(split), label_cities(folder, suffix)
    file = "pano_label_balanced" if area == "crossarea" else f"same_area_balanced_{part}"
    city, names, rows, offsets, satellite_city, satellite_names = ([] for _ in range(6))
    gps, satellite_gps, stated = [], [], []
    chosen = _choose_cities(folder, there, area, part, cities)
    for town in chosen:
        number, listed = there.index(town), satellite_list(folder / town)
        row_of = {name: row for row, name in enumerate(listed, len(satellite_names))}
        path = folder / town / f"{file}{suffix}.txt"
        labelled = read_labels(path, row_of)
        if area == "samearea":
            check_apart(folder / town, suffix, part, labelled[0])
        satellite_gps.append(coordinates(listed, "satellite", folder / town / SATELLITE_LIST))
        if labels == "gps":
            gps.append(coordinates(labelled[0], "panorama", path))
        else:
            table = read_label_table(folder / town)
            stated += [table.get(name, (0.0, np.nan)) for name in labelled[0]]
        for column, of_town in zip((names, rows, offsets), labelled, strict=True):
            column += of_town
        city += [number] * len(labelled[0])
        satellite_city += [number] * len(listed)
        satellite_names += listed
    if not names:
        fault = f"the lists for {area} {split} name no panorama"
        raise UserError(f"{folder}: {fault}; is this a whole VIGOR folder?")
    satellite = np.array(rows, np.int32).reshape(-1, 4)
    satellite_gps = np.concatenate(satellite_gps)
    if labels == "gps":
        position = positions_by_name(np.concatenate(gps), satellite_gps[satellite])
    else:
        position = offset_positions(np.array(offsets, np.float32).reshape(-1, 8))
    cameras = cameras_of(root, chosen, [(there[i], name) for i, name in zip(city, names, strict=True)])
    headings, accuracy = np.array(stated, np.float32).reshape(-1, 2).T
    if len(headings) and cameras.kind == "panorama":
        cameras = cameras.like(torch.from_numpy(headings.copy())[:, None])
    index = VigorIndex(
        root=root,
        cities=there,
        city=np.array(city, np.int16),
        panorama=np.array([name.encode() for name in names]),
        satellite=satellite,
        position=position.astype(np.float32),
        satellite_name=np.array([name.encode() for name in satellite_names]),
        satellite_city=np.array(satellite_city, np.int16),
        satellite_gps=satellite_gps,
        cameras=cameras,
        accuracy=None if np.isnan(accuracy).all() else accuracy,
    )
    _check_inside(index, folder, f"{file}{suffix}.txt")
    return part_of(index, area, split, folder)


def _folder_of(root, labels):
    """(folder, suffix) of the lists that hold a kind of labels. Raises UserError where there are none."""
    folders = label_folders(root)
    if labels != "gps" and labels not in folders:
        there = next(iter(folders))
        way_out = f"--labels {there} would read {LABEL_FOLDERS[there][0]}"
        raise UserError(f"{root / LABEL_FOLDERS[labels][0]}: no such folder; {way_out}")
    return folders.get(labels, next(iter(folders.values())))


def _check_inside(index, folder, file):
    """Raises UserError for a positive that lies outside its image. file: the list's name in each city."""
    if not (positive := index.inside[:, 0]).all():
        row = int(positive.argmin())
        name, path = index.panorama[row].decode(), folder / index.cities[index.city[row]] / file
        says = f"the label of {name} lies outside its image, {outside_in_words(index.position[row, 0])}"
        raise UserError(f"{path}: {says}; python -m dataset.check lists all such labels")


def check_names(**given):
    """Raises UserError for an area, a split or a kind of labels that does not exist."""
    for name, value in given.items():
        allowed = {"area": AREAS, "split": SPLITS, "labels": LABELS}[name]
        if value not in allowed:
            raise UserError(f"{name} {value!r} is not one of {', '.join(allowed)}")


def part_of(index, area, split, folder):
    """The rows of a `VigorIndex` in a split: a part by a hash of the name for 'train' and 'val', else all.

    folder: of its lists, for the UserError about an empty split.
    """
    if split == "test":
        return index
    held_out = np.array([zlib.crc32(name) % VALIDATION_SHARE == 0 for name in index.panorama.tolist()])
    chosen = held_out if split == "val" else ~held_out
    if not chosen.any():
        share = f"one in {VALIDATION_SHARE} is for validation, by a hash of its name"
        fault = f"none of {len(index)} panoramas for {area} training is left to {split} ({share})"
        raise UserError(f"{folder}: {fault}; longer lists have some")
    return index.select(chosen)


def draw_shifts(name, reach=1.0):
    """(4, 2) numbers within +- reach for a panorama's four satellite images, drawn from its name."""
    return np.random.default_rng(zlib.crc32(name.encode())).uniform(-reach, reach, (len(KINDS), 2))


def listed_part(split):
    """'train' or 'test': the lists of a split; validation reads the training lists."""
    return "test" if split == "test" else "train"


def _choose_cities(folder, there, area, part, named):
    """Which of a folder's cities `there` a part of an area is read from, in the folder's order."""
    if named:
        if absent := [city for city in named if city not in there]:
            has = f"{folder} has lists of {', '.join(there)}"
            raise UserError(f"--{part}_cities {absent[0]}: {has}; choose of these with --{part}_cities")
        return [city for city in there if city in named]
    if area == "samearea":
        return there
    if not set(VIGOR_CITIES) <= set(there):
        way_out = "say which cities train and which test with --train_cities and --test_cities"
        has = f"has lists of {', '.join(there)}, but crossarea is defined for VIGOR's four"
        raise UserError(f"{folder}: {has}; {way_out}")
    return VIGOR_RULE[area, part]


def cities_unlike_vigor(index, area, split):
    """The names of an index's cities if they differ from those of VIGOR's rule, else none."""
    listed = list(index.listed)
    return [] if listed == list(VIGOR_RULE[area, listed_part(split)]) else listed
