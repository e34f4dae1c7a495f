"""OpenCVL -> a `VigorIndex`: photographs of Mapillary and ZOD (Zenseact Open Dataset) with aerial images.

    <root>/mapillary/cities/<country>/<city>/.../labels.json        a record per photograph: both paths, pose
    <root>/mapillary/in_the_wild_test/<country>/labels.json
    <root>/zod/<frames, drives or sequences>/<country>/labels.json
    <root>/train.jsonl val.jsonl test_cross_area.jsonl ...          or in splits/: the records of each split
    <root>/sources.json                                             facts that records lack, by the user

Aerial images are north up and span 100 m, at another resolution in each country. The index holds crops of
them, as wide as VIGOR's images and at whole pixels.
"""

import json
import math
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common import geometry
from common.camera import Pinhole, pinhole
from common.errors import UserError
from common.geometry import SATELLITE_PX
from common.parallel import in_threads
from dataset.exif import read_header
from dataset.index import KINDS, VigorIndex, draw_shifts, part_of
from dataset.layout import BY_PATH
from dataset.lists import read_lines

SOURCES = ("mapillary", "zod")
# Endings of dx, dy, heading; the first complete one counts. The paper measures by the corrected pose, which
# follows the raw one of GNSS in the order of the devkit.
POSES = ("_mast3rpnp", "", "_mapilraw", "_mapilopensfm")
GROUND, AERIAL = ("ground_image", "mapil_image"), ("aerial_image",)
FOLDERS = {"zod": ("zod", "", None), "mapillary": (None, "mapillary", "")}  # of images; None: of the labels
AERIAL_M = 100.0  # from an aerial image's west edge to its east edge
LISTS = {
    ("samearea", "train"): "train",
    ("samearea", "val"): "train",  # a hash divides the list, because "val" is the test
    ("samearea", "test"): "val",
    ("crossarea", "train"): "train",
    ("crossarea", "val"): "val",
    ("crossarea", "test"): "test_cross_area",
}
# For --test_cities instead of cities.
MORE_LISTS = {"snow": "test_snow", "in_the_wild": "test_in_the_wild"}
EXTENT_M = geometry.THESIS_METRES_PER_PIXEL * geometry.REFERENCE_PX  # side of a crop
SHIFT_M, MOST = 20.0, 0.45  # from a crop's centre to the camera at most, along each side: metres, share of it
FACTS = "sources.json"
_LISTS_OF_RECORDS = ("labels", "images", "samples", "data")
_READERS = 8


class _Photograph(NamedTuple):
    """A record. Pixels are those of the aerial image, paths are relative to the root."""

    ground: str
    aerial: str
    size: tuple  # (height, width)
    position: tuple  # (row, col)
    metres_per_pixel: float
    camera: Pinhole
    city: str
    pose: str  # one of `POSES`


def lies_in(root):
    """Whether a folder holds this data set."""
    return any(Path(root, name).is_dir() for name in SOURCES)


def load_index(root, area, split, cities=None):
    """The `VigorIndex` of one split. Photographs taken outside their aerial images are left out and counted.

    'samearea': 'train' and 'val' divide train.jsonl; 'test' is val.jsonl, which covers the same places.
    'crossarea': train.jsonl, val.jsonl and test_cross_area.jsonl. cities: None for all; 'test' takes one of
    `MORE_LISTS` too. Raises UserError, which names the file and the way out.
    """
    root, name = Path(root), LISTS[area, split]
    names = sorted({*LISTS.values(), *MORE_LISTS.values()})
    lists = {path: _read_list(path) for each in names for path in _places(root, each)}
    # The cities of all lists, so that a number means the same city in each.
    known = tuple(sorted({_city_of(label) for entries in lists.values() for label, _ in entries}))
    if split == "test" and cities and len(cities) == 1 and cities[0] in MORE_LISTS:
        name, cities = MORE_LISTS[cities[0]], None
    if not (found := _places(root, name)):
        way_out = "OpenCVL's scripts/create_splits.py makes it"
        raise UserError(f"{root}: no {name}.jsonl, nor in splits; {way_out}")
    path = found[0]
    entries = [(label, number, _city_of(label)) for label, number in lists[path]]
    if absent := [city for city in cities or () if city not in known]:
        flag = f"--{'test' if split == 'test' else 'train'}_cities {absent[0]}"
        more = f"; for test also {', '.join(MORE_LISTS)}" if split == "test" else ""
        raise UserError(f"{flag}: {root} has no such city; it has {', '.join(known)}{more}")
    if cities:
        entries = [entry for entry in entries if entry[2] in cities]
    read = _Reader(root, {label for label, _, _ in entries})
    photographs = list(in_threads(lambda entry: read(*entry), entries, _READERS, "reading labels"))
    used = Counter(photo.pose for photo in photographs)
    if used.keys() - {""}:
        count = ", ".join(f"dx{ending} of {used[ending]}" for ending in POSES if used[ending])
        print(f"{path}: poses of {len(photographs)} photographs: {count}")
    inside = [photo for photo in photographs if not np.floor_divide(photo.position, photo.size).any()]
    if outside := len(photographs) - len(inside):
        print(f"{path}: {outside} photographs left out, which were not taken inside their aerial images")
    if not inside:
        raise UserError(f"{path}: names no photograph of these cities")
    index = _table(root, known, inside)
    return part_of(index, area, split, path) if area == "samearea" else index


def _table(root, cities, photographs):
    """The `VigorIndex` of `_Photograph`s, each with four satellite images, crops of one file."""
    count = len(photographs) * len(KINDS)
    parts = np.array([draw_parts(*one[2:5], one.ground) for one in photographs])  # (N, 4, 3)
    position = np.array([one.position for one in photographs])
    city = np.array([cities.index(one.city) for one in photographs], np.int16)
    scale = np.array([one.metres_per_pixel for one in photographs])[:, None]
    return VigorIndex(
        root=root,
        cities=cities,
        city=city,
        panorama=np.array([one.ground.encode() for one in photographs]),
        satellite=np.arange(count, dtype=np.int32).reshape(-1, len(KINDS)),
        position=((position[:, None] - parts[..., :2]) * (SATELLITE_PX / parts[..., 2:])).astype(np.float32),
        satellite_name=np.repeat(np.array([one.aerial.encode() for one in photographs]), len(KINDS)),
        satellite_city=np.repeat(city, len(KINDS)),
        satellite_gps=np.full((count, 2), np.nan),
        cameras=Pinhole.stack([one.camera for one in photographs]),
        crop=parts.reshape(-1, 3).astype(np.int32),
        resolution=(scale * parts[..., 2] / SATELLITE_PX).ravel(),
        folders=BY_PATH,
    )


def draw_parts(size, position, metres_per_pixel, name):
    """(4, 3) whole-pixel crops (row, col, side) of an aerial image around a position, drawn from a name.

    size: (height, width) · position: (row, col). A crop is `EXTENT_M` wide, or less in a smaller image.
    """
    side = min(max(1, round(EXTENT_M / metres_per_pixel)), *size)
    reach = min(SHIFT_M / metres_per_pixel, MOST * side)
    shift = draw_shifts(name, reach)
    corner = np.clip(np.rint(np.array(position) + shift - side / 2), 0, np.array(size) - side)
    return np.insert(corner, 2, side, axis=1).astype(int)


def _places(root, name):
    """The existing paths of a split's list."""
    return [path for path in (root / f"{name}.jsonl", root / f"splits/{name}.jsonl") if path.is_file()]


def _read_list(path):
    """[(path of the labels relative to the root, number in them), ...] of a split's list."""
    entries, wanted = [], "label_file and label_index; scripts/create_splits.py writes it"
    for number, line in enumerate(read_lines(path), 1):
        try:
            if line:
                entry = json.loads(line)
                entries.append((Path(entry["label_file"]).as_posix(), int(entry["label_index"])))
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}, line {number}: no {wanted}") from None
    return entries


def _city_of(label):
    """The city of labels, from their path; the country where the path has no city."""
    parts = Path(label).parts
    depth = 3 if parts[:2] == ("mapillary", "cities") else 2
    return parts[min(depth, max(0, len(parts) - 2))]


class _Reader:
    """Reads records of label files, given relative to the root. It reads each file once."""

    def __init__(self, root, labels):
        self.root = root
        self.records = {label: _read_records(root / label) for label in labels}
        self.facts = _read_facts(root / FACTS)

    def __call__(self, label, number, city):
        """The `_Photograph` of a record."""
        where, records = f"{self.root / label}, record {number}", self.records[label]
        if not 0 <= number < len(records) or not isinstance(records[number], dict):
            way_out = "make the lists anew with scripts/create_splits.py"
            raise UserError(f"{where}: no such record among {len(records)}; {way_out}")
        record, source = records[number], Path(label).parts[0]
        dx, dy, heading, ending = _pose(record, where)
        ground, aerial = (self._find(record, names, label, where) for names in (GROUND, AERIAL))
        width, height = read_header(self.root / aerial).size
        hfov = self._fact(record, "hfov", source, where)
        metres = self._fact(record, "metres_per_pixel", source, where, AERIAL_M / width)
        try:
            camera = pinhole(*read_header(self.root / ground).size, hfov=hfov, heading=heading)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        position = (height / 2 - dy, width / 2 + dx)
        return _Photograph(ground, aerial, (height, width), position, metres, camera, city, ending)

    def _find(self, record, names, label, where):
        """The path of an image, relative to the root."""
        given = next((record[name] for name in names if isinstance(record.get(name), str)), None)
        if given is None:
            raise UserError(f"{where}: names no {names[0]}")
        folders = FOLDERS.get(Path(label).parts[0], (None,))
        folders = [Path(label).parent if folder is None else Path(folder) for folder in folders]
        for folder in folders:
            if (self.root / folder / given).is_file():
                return (folder / given).as_posix()
        raise UserError(f"{self.root / folders[0] / given}: no such file; {where} names it as its {names[0]}")

    def _fact(self, record, name, source, where, default=None):
        """A positive number from a record or, where it has none, from the user's file, else the default."""
        value = record.get(name, self.facts.get(source, {}).get(name, default))
        if value is None:
            example = f'{{"{source}": {{"{name}": <degrees>}}}}'
            raise UserError(f"{where}: has no {name}, nor has {self.root / FACTS}; write there {example}")
        if not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise UserError(f"{where}: {name} {value!r}, by it or by {FACTS}: expected a number above 0")
        return float(value)


def _pose(record, where):
    """(dx, dy, heading, ending) of the first of `POSES` that a record has."""
    for ending in POSES:
        pose = [record.get(f"{name}{ending}") for name in ("dx", "dy", "heading")]
        if all(isinstance(value, (int, float)) and math.isfinite(value) for value in pose):
            return *map(float, pose), ending
    others = ", ".join(ending[1:] for ending in POSES if ending)
    raise UserError(f"{where}: has no dx, dy and heading, also none of {others}")


def _read_records(path):
    """The records of a labels.json, a list."""
    labels = _read_json(path, "lay OpenCVL's labels there, see docs/SETS.md")
    if isinstance(labels, dict):
        labels = next((labels[key] for key in _LISTS_OF_RECORDS if isinstance(labels.get(key), list)), None)
    if not isinstance(labels, list):
        raise UserError(f"{path}: holds no list of records, nor one under {', '.join(_LISTS_OF_RECORDS)}")
    return labels


def _read_facts(path):
    """{source: {name: number}} from the user's file, {} without one."""
    facts = _read_json(path, "") if path.is_file() else {}
    if not isinstance(facts, dict) or not all(isinstance(about, dict) for about in facts.values()):
        raise UserError(f'{path}: expected {{"zod": {{"hfov": 120}}, ...}}')
    return facts


def _read_json(path, way_out):
    try:
        return json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; {way_out}") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); download or write it again") from None
