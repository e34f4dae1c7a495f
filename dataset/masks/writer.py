"""Writes the masks of a VIGOR folder, and a report for each city."""

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
from dataset.masks.osm import StreetMap, check_extract, read_map

METHODS, PROMPTS = ("streets", "sam"), ("osm", "panoramas")
FOLDER = "point_prompt_mask"
MANIFEST, WHAT = "masks.json", "masks of python -m dataset.masks"
SUSPICIOUS = 0.8  # share of training panoramas on foreground below which the extract is probably wrong
_SIZE = (geometry.SATELLITE_PX, geometry.SATELLITE_PX)
_DEFLATE = 8  # OpenCV's code for TIFF compression
_DRAWING = 1  # raise it with every change to what is drawn, so that two versions never mix in one folder


class MaskReport(NamedTuple):
    """Numbers of a city's masks."""

    city: str
    images: int
    written: int  # by this run
    foreground: float  # share of all pixels
    empty: int  # images without foreground
    panoramas: int  # of the same-area training lists
    standing: int  # those on foreground

    def lines(self):
        """The report for the terminal."""
        yield (
            f"{self.city}: {self.images} masks, {self.written} of them written now, {self.foreground:.1%} "
            f"foreground, {self.empty} without any"
        )
        if self.panoramas:
            share = self.standing / self.panoramas
            doubt = "; check the place and year of the extract, and the lists" if share < SUSPICIOUS else ""
            standing = f"{share:.1%} of {self.panoramas} training panoramas stand on foreground"
            yield f"{self.city}: {standing}{doubt}"


class _City(NamedTuple):
    """A city's satellite images, and the positions of its training panoramas in them."""

    name: str
    images: list  # file names
    corners: np.ndarray  # (n, 2) (row, col) on the map
    cameras: dict  # {row of an image: (k, 2) (row, col) in it}


class Prompted(NamedTuple):
    """How a segmentation network with point prompts makes masks."""

    segment: Callable  # (640, 640, 3) image and (n, 2) (row, col) prompts -> mask, such as `Segmenter.mask`
    model: str  # its name, for the manifest
    prompts: str = "osm"  # points along centre lines, or 'panoramas' of the same-area training lists
    spacing_m: float = 8.0  # between points along a line


def write_masks(
    root, *, osm=(), cities=None, folder=FOLDER, also=("area_highway",), prompted=None, workers=1
):
    """Write `<City>/<folder>/*_mask.tif` for all satellite images in the lists of a root, or finish them.

    osm: extracts.
    cities: names, or None for all of the root.
    also: what counts besides carriageways, of `dataset.masks.osm.KINDS`.
    prompted: a `Prompted`, or None to draw the streets of the map.

    Returns (list of `MaskReport`, {note about the extracts: count}). Raises UserError.
    """
    root = Path(root)
    listed = lists.root_cities(root)
    if absent := [name for name in cities or () if name not in listed]:
        raise UserError(f"--cities {absent[0]}: {root} has lists of {', '.join(listed)}")
    chosen = [_read_city(root, name) for name in cities or listed]
    needs_map = prompted is None or prompted.prompts == "osm"
    if needs_map and not osm:
        raise UserError("--osm is missing: masks need OpenStreetMap extracts")
    if not re.fullmatch(r"[\w-]+", folder):
        raise UserError(f"--folder {folder}: expected letters, digits, - and _, the name of a folder")
    manifest = make_manifest(osm, also, prompted)
    for city in chosen:
        check_masks(root / city.name / folder, manifest)
    streets = read_map(osm, np.concatenate([city.corners for city in chosen]), also) if needs_map else None
    make, notes = partial(_draw, streets), streets.notes if streets else {}
    if prompted:
        make, workers = partial(_segment, root, streets, prompted), 1
    manifest |= {"notes": notes}
    return [_write_city(city, root / city.name / folder, make, manifest, workers) for city in chosen], notes


def check_masks(place, manifest):
    """Raises UserError where a folder holds masks of another kind than the manifest, or of other extracts."""
    try:
        settings = {name: value for name, value in manifest.items() if name != "osm"}
        held = read_own_manifest(place / MANIFEST, WHAT, settings)
    except UserError as error:
        raise UserError(f"{error}, for example with --folder of dataset.masks") from None
    before, now = set(held.get("osm", {}).values()), set(manifest["osm"].values())
    if not (before <= now or now <= before):  # extracts of other cities may come and go
        fault = f"holds masks of other extracts (earlier versions of {', '.join(held['osm'])})"
        raise UserError(f"{place}: {fault}; remove it or use another --folder")


def make_manifest(osm, also, prompted=None):
    """The settings of masks for their manifest, with the arguments of `write_masks`."""
    extracts = {str(path): file_hash(check_extract(path)) for path in osm}
    manifest = {"masks": _DRAWING, "also": sorted(also), "osm": extracts}
    if prompted:
        manifest |= {"sam_model": prompted.model, "prompts": prompted.prompts}
        manifest["spacing_m"] = prompted.spacing_m
    return manifest


def _read_city(root, name):
    labels, (folder, _) = next(iter(lists.label_folders(root).items()))
    cameras, images = {}, lists.satellite_list(folder / name)
    row_of = {image: row for row, image in enumerate(images)}
    for split in ("train", "val"):
        try:
            table = load_index(root, "samearea", split, labels, cities=(name,))
        except UserError:  # a folder for cross-area tests does not need this list
            continue
        positives = table.satellite_name[table.satellite[:, 0]].tolist()
        for positive, position in zip(positives, table.position[:, 0], strict=True):
            cameras.setdefault(row_of[positive.decode()], []).append(position)
    corners = geometry.image_corner(lists.coordinates(images, "satellite"))
    return _City(name, images, corners, {row: np.array(positions) for row, positions in cameras.items()})


def _write_city(city, place, make, manifest, workers):
    """Write the missing masks of a city, and its manifest; returns the `MaskReport`."""
    paths = [place / lists.mask_name(image) for image in city.images]

    def write(row):
        try:
            mask, is_new = read_mask(paths[row], _SIZE), False
        except UserError:  # not written yet, or emptied by a power cut
            mask, is_new = make(city, row), True
            write_bytes(paths[row], encode(mask, ".tif", cv2.IMWRITE_TIFF_COMPRESSION, _DEFLATE))
        cameras = np.floor(city.cameras.get(row, np.zeros((0, 2)))).astype(int)
        cameras = cameras[((cameras >= 0) & (cameras < geometry.SATELLITE_PX)).all(1)]
        return is_new, (mask > 0).mean(), len(cameras), int((mask[tuple(cameras.T)] > 0).sum())

    with locked(place, "is writing masks into"), resumable(place):
        write_manifest(place / MANIFEST, manifest, complete=False)
        rows = list(in_threads(write, range(len(paths)), workers, f"masks of {city.name}"))
        remove_leftovers(place)
        is_new, foreground, cameras, standing = np.array(rows).reshape(-1, 4).T
        counts = int((foreground == 0).sum()), int(cameras.sum()), int(standing.sum())
        report = MaskReport(city.name, len(paths), int(is_new.sum()), float(foreground.mean()), *counts)
        write_manifest(place / MANIFEST, manifest | {"report": report._asdict()}, complete=True)
    return report


def _draw(streets: StreetMap, city, row):
    corner = city.corners[row]
    return draw_mask(*streets.around(corner), corner)


def _segment(root, streets, prompted, city, row):
    image, corner = city.images[row], city.corners[row]
    if prompted.prompts == "osm":
        latitude, _ = geometry.latitude_longitude(*corner)
        points = streets.points(corner, prompted.spacing_m / geometry.metres_per_pixel(latitude))
    else:
        points = city.cameras.get(row, np.zeros((0, 2)))
    return prompted.segment(read_satellite(root / city.name / "satellite" / image, _SIZE), points)
