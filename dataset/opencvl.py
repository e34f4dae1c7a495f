"""OpenCVL -> a `VigorIndex`: photographs of Mapillary and of ZOD (Zenseact's Open Dataset), each in an image from above.

    <root>/mapillary/cities/<country>/<city>/.../labels.json        one record a photograph, with the paths of both images
    <root>/mapillary/in_the_wild_test/<country>/labels.json
    <root>/zod/<frames, drives or sequences>/<country>/labels.json
    <root>/train.jsonl val.jsonl test_cross_area.jsonl ...          or in splits/: which records are of which part
    <root>/sources.json                                             what the records do not tell; the user's own

Images from above are north up. The part of each that is used is as wide as VIGOR's images, cut at whole pixels; the position is
told in it, so that nothing is rounded.
"""

import json
import math
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common import geometry
from common.camera import Pinhole, pinhole
from common.errors import UserError
from common.geometry import SATELLITE_PX
from common.parallel import in_threads
from dataset.exif import read_header
from dataset.index import KINDS, VigorIndex, part_of
from dataset.lists import read_lines

SOURCES = ("mapillary", "zod")
POSES = ("", "_mapilraw", "_mapilopensfm", "_mast3rpnp")  # endings of dx, dy and heading; the first that is there counts
GROUND, AERIAL = ("ground_image", "mapil_image"), ("aerial_image",)
LISTS = {
    ("samearea", "train"): "train",
    ("samearea", "val"): "train",  # parted by a hash, so that what is tested is nothing that was chosen by
    ("samearea", "test"): "val",
    ("crossarea", "train"): "train",
    ("crossarea", "val"): "val",
    ("crossarea", "test"): "test_cross_area",
}
MORE_LISTS = {"snow": "test_snow", "in_the_wild": "test_in_the_wild"}  # what --test_cities may name in place of cities
EXTENT_M = geometry.THESIS_METRES_PER_PIXEL * geometry.REFERENCE_PX  # side of a part: what VIGOR's images are taken to have
SHIFT_M, MOST = 20.0, 0.45  # how far the camera may lie from a part's middle, in rows and in columns: metres, share of its side
FACTS = "sources.json"
_LISTS_OF_RECORDS = ("labels", "images", "samples", "data")
_READERS = 8


class _Photograph(NamedTuple):
    """A record, read. Pixels are those of the image from above."""

    ground: str  # paths relative to the root
    aerial: str
    size: tuple  # (height, width)
    position: tuple  # (row, col)
    metres_per_pixel: float
    camera: Pinhole
    city: str


def lies_in(root):
    """Whether a folder holds this data set."""
    return any(Path(root, name).is_dir() for name in SOURCES)


def load_index(root, area, split, cities=None):
    """The `VigorIndex` of one split.

    'samearea': 'train' and 'val' part train.jsonl, 'test' is val.jsonl, which is of the same places. 'crossarea': train.jsonl,
    val.jsonl and test_cross_area.jsonl. cities: those to read, None: all; for 'test' one of `MORE_LISTS` instead.

    Raises UserError, naming the file and what to write there. A photograph that was not taken inside its image from above is left
    out, and counted.
    """
    root = Path(root)
    lists = {path: _read_list(path) for name in sorted({*LISTS.values(), *MORE_LISTS.values()}) for path in _places(root, name)}
    labels = {label for entries in lists.values() for label, _ in entries}
    there = tuple(sorted({_city_of(label) for label in labels}))  # of all lists, so that a number means the same in each
    name = LISTS[area, split]
    if split == "test" and cities and len(cities) == 1 and cities[0] in MORE_LISTS:
        name, cities = MORE_LISTS[cities[0]], None
    if not (found := _places(root, name)):
        raise UserError(f"{root}: no {name}.jsonl, nor in splits; OpenCVL's devkit makes it: scripts/create_splits.py")
    path = found[0]
    entries = [(label, number, _city_of(label)) for label, number in lists[path]]
    if cities:
        if absent := [city for city in cities if city not in there]:
            part = "test" if split == "test" else "train"
            way_out = f"it has {', '.join(there)}" + (f"; for test also {', '.join(MORE_LISTS)}" if part == "test" else "")
            raise UserError(f"--{part}_cities {absent[0]}: {root} has no such city; {way_out}")
        entries = [entry for entry in entries if entry[2] in cities]
    read = _Reader(root, {label for label, _, _ in entries})
    photographs = list(in_threads(lambda entry: read(*entry), entries, _READERS, "reading labels"))
    inside = [one for one in photographs if all(0 <= at < side for at, side in zip(one.position, one.size, strict=True))]
    if len(inside) < len(photographs):
        print(
            f"{path}: {len(photographs) - len(inside)} photographs left out, which were not taken inside their images from above"
        )
    if not inside:
        raise UserError(f"{path}: names no photograph of these cities")
    index = _table(root, there, inside)
    return part_of(index, area, split, path) if area == "samearea" else index


def _table(root, cities, photographs):
    """The `VigorIndex` of some `_Photograph`s; each has four satellite images, parts of one file."""
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
        by_path=True,
    )


def draw_parts(size, position, metres_per_pixel, name):
    """(4, 3) parts (row, col, side) of an image from above, whole pixels that lie in it and hold a position; drawn from a name.

    size: (height, width) · position: (row, col). A part is `EXTENT_M` wide or, of a smaller image, as wide as that can be.
    """
    side = min(max(1, round(EXTENT_M / metres_per_pixel)), *size)
    reach = min(SHIFT_M / metres_per_pixel, MOST * side)
    shift = np.random.default_rng(zlib.crc32(name.encode())).uniform(-reach, reach, (len(KINDS), 2))
    corner = np.clip(np.rint(np.array(position) + shift - side / 2), 0, np.array(size) - side)
    return np.insert(corner, 2, side, axis=1).astype(int)


def _places(root, name):
    """Where a part's list lies, of the places that it may lie in."""
    return [path for path in (root / f"{name}.jsonl", root / "splits" / f"{name}.jsonl") if path.is_file()]


def _read_list(path):
    """[(path of the labels relative to the root, number in them)] of a part's list."""
    entries = []
    for number, line in enumerate(read_lines(path), 1):
        if line:
            try:
                entry = json.loads(line)
                entries.append((Path(entry["label_file"]).as_posix(), int(entry["label_index"])))
            except (ValueError, KeyError, TypeError):
                raise UserError(
                    f"{path}, line {number}: no label_file and label_index; scripts/create_splits.py writes it"
                ) from None
    return entries


def _city_of(label):
    """The city that labels are of, by their path; the country where they tell no city."""
    parts = Path(label).parts
    depth = 3 if parts[:2] == ("mapillary", "cities") else 2
    return parts[min(depth, max(0, len(parts) - 2))]


class _Reader:
    """Reads records of some label files, relative to the root, each file once."""

    def __init__(self, root, labels):
        self.root = root
        self.records = {label: _read_records(root / label) for label in labels}
        self.facts = _read_facts(root / FACTS)

    def __call__(self, label, number, city):
        """The `_Photograph` of a record."""
        where, records = f"{self.root / label}, record {number}", self.records[label]
        if not 0 <= number < len(records) or not isinstance(records[number], dict):
            raise UserError(f"{where}: no such record among {len(records)}; make the lists anew with scripts/create_splits.py")
        record, source = records[number], Path(label).parts[0]
        dx, dy, heading = _pose(record, where)
        ground, aerial = (self._find(record, names, label, where) for names in (GROUND, AERIAL))
        width, height = read_header(self.root / aerial).upright
        hfov, metres = (self._fact(record, name, source, where) for name in ("hfov", "metres_per_pixel"))
        try:
            camera = pinhole(*read_header(self.root / ground).upright, hfov=hfov, heading=heading)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        return _Photograph(ground, aerial, (height, width), (height / 2 - dy, width / 2 + dx), metres, camera, city)

    def _find(self, record, names, label, where):
        """The path of an image, relative to the root."""
        given = next((record[name] for name in names if isinstance(record.get(name), str)), None)
        if given is None:
            raise UserError(f"{where}: names no {names[0]}")
        beside = Path(label).parent
        folders = (Path("zod"), Path(), beside) if label.startswith("zod/") else (beside,)
        for folder in folders:
            if (self.root / folder / given).is_file():
                return (folder / given).as_posix()
        raise UserError(f"{self.root / folders[0] / given}: no such file; {where} names it as its {names[0]}")

    def _fact(self, record, name, source, where):
        """A number above 0 that a record tells, or the user of its source."""
        value = record.get(name, self.facts.get(source, {}).get(name))
        if value is None:
            example = f'{{"{source}": {{"hfov": <degrees>, "metres_per_pixel": <of its images from above>}}}}'
            raise UserError(f"{where}: tells no {name}, nor does {self.root / FACTS}; write there {example}")
        if not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise UserError(f"{where}: {name} {value!r}, by it or by {FACTS}: expected a number above 0")
        return float(value)


def _pose(record, where):
    """(dx, dy, heading) of the first of `POSES` that a record has."""
    for ending in POSES:
        pose = [record.get(f"{name}{ending}") for name in ("dx", "dy", "heading")]
        if all(isinstance(value, (int, float)) and math.isfinite(value) for value in pose):
            return tuple(map(float, pose))
    raise UserError(f"{where}: has no dx, dy and heading, also none of {', '.join(ending[1:] for ending in POSES[1:])}")


def _read_records(path):
    """The records of a labels.json, a list."""
    labels = _read_json(path, "lay OpenCVL's labels there, see docs/SETS.md")
    if isinstance(labels, dict):
        labels = next((labels[name] for name in _LISTS_OF_RECORDS if isinstance(labels.get(name), list)), None)
    if not isinstance(labels, list):
        raise UserError(f"{path}: holds no list of records, nor one under {', '.join(_LISTS_OF_RECORDS)}")
    return labels


def _read_facts(path):
    """{source: {name: number}} of the user's own file, {} where there is none."""
    facts = _read_json(path, "") if path.is_file() else {}
    if not isinstance(facts, dict) or not all(isinstance(about, dict) for about in facts.values()):
        raise UserError(f'{path}: expected {{"zod": {{"hfov": 120, "metres_per_pixel": 0.15}}, ...}}')
    return facts


def _read_json(path, way_out):
    try:
        return json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; {way_out}") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); download or write it again") from None
