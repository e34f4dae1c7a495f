"""Writes the masks of a VIGOR folder: city by city, image by image, whole or not at all, and what there is to say of them."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from common import geometry
from common.errors import UserError
from common.files import file_hash, locked, remove_leftovers, resumable, write_bytes
from common.parallel import in_threads
from dataset import lists
from dataset.images import encode, read_mask, read_satellite
from dataset.index import load_index
from dataset.manifest import read_own_manifest, write_manifest
from dataset.masks.draw import draw_mask
from dataset.masks.osm import StreetMap, read_map

METHODS, PROMPTS = ("streets", "sam"), ("osm", "panoramas")
FOLDER = "point_prompt_mask"
MANIFEST, WHAT = "masks.json", "masks of python -m dataset.masks"
SUSPICIOUS = 0.8  # share of training panoramas on foreground below which an extract does not fit
_DEFLATE = 8  # of TIFF, as OpenCV counts
_DRAWING = 1  # raise it with every change to what is drawn, so that two kinds never mix in one folder


class CityReport(NamedTuple):
    """What there is to say of a city's masks."""

    city: str
    images: int
    written: int  # by this run
    foreground: float  # share of all pixels
    empty: int  # images without any
    panoramas: int  # of the same-area training lists
    standing: int  # those on foreground

    def lines(self):
        """For the terminal."""
        yield (
            f"{self.city}: {self.images} masks, {self.written} of them written now, {self.foreground:.1%} foreground, "
            f"{self.empty} without any"
        )
        if self.panoramas:
            share = self.standing / self.panoramas
            doubt = "; is the extract of this place and year, are the lists whole?" if share < SUSPICIOUS else ""
            yield f"{self.city}: {share:.1%} of {self.panoramas} training panoramas stand on foreground{doubt}"


class _City(NamedTuple):
    """A city's satellite images, and which training panoramas stand where in them."""

    name: str
    images: list  # their names
    corners: np.ndarray  # (n, 2) (row, col) on the map
    cameras: dict  # {row of an image: (k, 2) (row, col) in it}


class Prompted(NamedTuple):
    """Masks by a segmentation network and points, and not as streets are mapped."""

    segment: Callable  # of an image (640, 640, 3) and its prompts, (n, 2) (row, col): the mask, as `Segmenter.mask` does
    model: str  # its name, for the manifest
    prompts: str = "osm"  # points along centre lines; 'panoramas': where those of the same-area training lists stand
    spacing_m: float = 8.0  # between points along a line


def write_masks(root, *, osm=(), cities=None, folder=FOLDER, also=("area_highway",), prompted=None, workers=1):
    """Write `<City>/<folder>/*_mask.tif` for every satellite image in the lists of a root, or finish them.

    osm: extracts · cities: names, None: all of the root · also: what counts beside carriageways, of `dataset.masks.osm.KINDS` ·
    prompted: None draws the streets themselves.

    Returns (list of `CityReport`, {note on the extracts: how often}). Raises UserError.
    """
    root = Path(root)
    there = lists.root_cities(root)
    if absent := [name for name in cities or () if name not in there]:
        raise UserError(f"--cities {absent[0]}: {root} has lists of {', '.join(there)}")
    chosen = [_city(root, name) for name in cities or there]
    needs_map = prompted is None or prompted.prompts == "osm"
    if needs_map and not osm:
        raise UserError("--osm is missing: OpenStreetMap extracts tell where streets are")
    manifest = _manifest(osm, also, prompted)
    for city in chosen:
        _check_folder(root / city.name, folder, manifest)
    streets = read_map(osm, np.concatenate([city.corners for city in chosen]), also) if needs_map else None
    reports, task, notes = [], partial(_drawn, streets), {} if streets is None else streets.notes
    if prompted:
        task, workers = partial(_segmented, root, streets, prompted), 1
    for city in chosen:
        place = root / city.name / folder
        with locked(place, "is writing masks into"):
            reports.append(_write_city(city, place, task, manifest | {"notes": notes}, workers))
    return reports, notes


def check_masks(root, city, osm, also):
    """Raises UserError where a city's folder holds masks of another kind than streets drawn so, or from elsewhere."""
    _check_folder(Path(root, city), FOLDER, _manifest(osm, also, None))


def _check_folder(city, folder, manifest):
    """The same for masks as a manifest says."""
    if not re.fullmatch(r"[\w-]+", folder):
        raise UserError(f"--folder {folder}: letters, digits, - and _ alone, since it names a folder in the city's")
    place = city / folder
    try:
        held = read_own_manifest(place / MANIFEST, WHAT, {name: manifest[name] for name in manifest if name != "osm"})
    except UserError as error:
        raise UserError(f"{error}, --folder of dataset.masks for one") from None
    before, now = set(held.get("osm", {}).values()), set(manifest["osm"].values())
    if not (before <= now or now <= before):  # other cities' extracts do not matter
        made = ", ".join(held["osm"])
        raise UserError(f"{place}: holds masks of other extracts, {made} as it was then; remove the folder, or name another")


def _manifest(osm, also, prompted):
    manifest = {"masks": _DRAWING, "also": sorted(also), "osm": {str(path): _hash(path) for path in osm}}
    if prompted:
        manifest |= {"sam_model": prompted.model, "prompts": prompted.prompts, "spacing_m": prompted.spacing_m}
    return manifest


def _hash(path):
    try:
        return file_hash(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; --osm takes OpenStreetMap extracts, .osm.pbf or .osm") from None


def _city(root, name):
    labels, (folder, _) = next(iter(lists.label_folders(root).items()))
    cameras, images = {}, lists.satellite_list(folder / name)
    row_of = {image: row for row, image in enumerate(images)}
    for split in ("train", "val"):
        try:
            table = load_index(root, "samearea", split, labels, cities=(name,))
        except UserError:  # a folder for cross-area tests alone need not have this list
            continue
        positives = table.satellite_name[table.satellite[:, 0]].tolist()
        for positive, position in zip(positives, table.position[:, 0], strict=True):
            cameras.setdefault(row_of[positive.decode()], []).append(position)
    corners = geometry.image_corner(lists.coordinates(images, "satellite"))
    return _City(name, images, corners, {row: np.array(positions) for row, positions in cameras.items()})


def _write_city(city, place, task, manifest, workers):
    """Write what is missing of a city's masks, and its manifest; returns the `CityReport`."""
    paths = [place / lists.mask_name(image) for image in city.images]

    def write(row):
        try:
            mask, new = read_mask(paths[row], (geometry.SATELLITE_PX,) * 2), False
        except UserError:  # not there yet, or a file that a machine without power left empty
            mask, new = task(city, row), True
            write_bytes(paths[row], encode(mask, ".tif", cv2.IMWRITE_TIFF_COMPRESSION, _DEFLATE))
        spots = np.floor(city.cameras.get(row, np.zeros((0, 2)))).astype(int)
        spots = spots[((spots >= 0) & (spots < geometry.SATELLITE_PX)).all(1)]
        return new, (mask > 0).mean(), len(spots), int((mask[tuple(spots.T)] > 0).sum())

    with resumable(place):
        write_manifest(place / MANIFEST, manifest, complete=False)
        done = list(in_threads(write, range(len(paths)), workers, f"masks of {city.name}"))
        remove_leftovers(place)
        new, shares, cameras, standing = np.array(done).reshape(-1, 4).T
        report = CityReport(city.name, len(paths), int(new.sum()), float(shares.mean()), int((shares == 0).sum()),
                            int(cameras.sum()), int(standing.sum()))  # fmt: skip
        write_manifest(place / MANIFEST, manifest | {"report": report._asdict()}, complete=True)
    return report


def _drawn(streets: StreetMap, city, row):
    corner = city.corners[row]
    return draw_mask(*streets.around(corner), corner)


def _segmented(root, streets, prompted, city, row):
    image, corner = city.images[row], city.corners[row]
    if prompted.prompts == "osm":
        latitude, _ = geometry.latitude_longitude(*corner)
        points = streets.points(corner, prompted.spacing_m / geometry.metres_per_pixel(latitude))
    else:
        points = city.cameras.get(row, np.zeros((0, 2)))
    return prompted.segment(read_satellite(root / city.name / "satellite" / image, (geometry.SATELLITE_PX,) * 2), points)
