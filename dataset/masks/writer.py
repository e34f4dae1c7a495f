"""Writes the masks of a data set, and a report for each city of VIGOR's layout."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import cv2
import numpy as np

from common import geometry
from common.errors import UserError
from common.files import file_hash, locked, remove_leftovers, resumable, write_bytes
from common.parallel import in_threads
from dataset import lists
from dataset.decoding import encode
from dataset.images import OriginalImages, read_mask
from dataset.layout import VIGOR, ImageFile
from dataset.manifest import read_own_manifest, write_manifest
from dataset.masks.draw import draw_mask
from dataset.masks.osm import ALSO, StreetMap, check_extract, read_map
from dataset.sets import other_set, read_all

METHODS, PROMPTS = ("streets", "sam"), ("osm", "panoramas")
FOLDER = PurePosixPath(VIGOR.mask).name
MANIFEST, WHAT = "masks.json", "masks of python -m dataset.masks"
SUSPICIOUS = 0.8  # share of training panoramas on foreground below which the extract is probably wrong
_SIZE = (geometry.SATELLITE_PX, geometry.SATELLITE_PX)
_DEFLATE = 8  # OpenCV's code for TIFF compression
_DRAWING = 1  # raise it with every change to what is drawn, so that two versions never mix in one folder


class MaskReport(NamedTuple):
    """Numbers of the masks of a city, or of a data set with its own layout."""

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


class _Image(NamedTuple):
    """A satellite image that gets a mask."""

    file: ImageFile
    mask: Path
    corner: np.ndarray  # (row, col) on the map
    cameras: list  # (row, col) of training panoramas in it


class Prompted(NamedTuple):
    """How a segmentation network with point prompts makes masks."""

    segment: Callable  # (640, 640, 3) image and (n, 2) (row, col) prompts -> mask, such as `Segmenter.mask`
    model: str  # its name, for the manifest
    prompts: str = "osm"  # points along centre lines, or 'panoramas' of the same-area training lists
    spacing_m: float = 8.0  # between points along a line


def write_masks(
    root, *, osm=(), cities=None, folder=None, also=ALSO, prompted=None, workers=1, manifest=None
):
    """Write masks for all satellite images in the lists of a root, or finish them.

    osm: extracts.
    cities: names, or None for all of the root.
    folder: the masks' folder, if not the one that training reads.
    also: the kinds of `dataset.masks.osm.KINDS` that count besides carriageways.
    prompted: a `Prompted`, or None to draw the streets of the map.
    manifest: of `make_manifest`, if it was made before; making it reads whole extracts.

    Returns (list of `MaskReport`, {note about the extracts: count}). Raises UserError.
    """
    root, found = Path(root), other_set(root)
    if found is None:
        listed = lists.root_cities(root)
        if absent := [name for name in cities or () if name not in listed]:
            raise UserError(f"--cities {absent[0]}: {root} has lists of {', '.join(listed)}")
        read = {name: read_all(root, (name,)) for name in cities or listed}
    else:
        read = {found[0]: read_all(root, cities)}
    notes, from_lists = {}, prompted is not None and prompted.prompts == "panoramas"
    for (area, split, _), error in chain.from_iterable(errors.items() for _, errors in read.values()):
        of_prompts = (area, split) == ("samearea", "train")
        if of_prompts and from_lists:
            raise error
        if of_prompts or found:  # VIGOR's layout need not have the other parts
            notes[f"lists that cannot be read: {error}"] = 1
    needs_map = not from_lists
    if needs_map and not osm:
        raise UserError("--osm is missing: masks need OpenStreetMap extracts")
    if folder and not re.fullmatch(r"[\w-]+", folder):
        raise UserError(f"--folder {folder}: expected letters, digits, - and _, the name of a folder")
    manifest, places, images = manifest or make_manifest(osm, also, prompted), {}, {}
    for name, (of_name, _) in read.items():
        places[name], images[name] = _read_images(root, name, of_name, folder, needs_map)
        check_masks(places[name], manifest)
    corners = [image.corner for of_name in images.values() for image in of_name]
    streets = read_map(osm, corners, also) if needs_map else None
    make, notes = partial(_draw, streets), notes | (streets.notes if streets else {})
    if prompted:
        reader = OriginalImages(root, geometry.SATELLITE_PX, None)
        make, workers = partial(_segment, reader, streets, prompted), 1
    write = partial(_write_folder, make=make, manifest=manifest | {"notes": notes}, workers=workers)
    return [write(name, places[name], images[name]) for name in read], notes


def check_masks(place, manifest):
    """Raises UserError if a folder holds masks of another kind than the manifest, or of other extracts."""
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


def _read_images(root, name, tables, folder, needs_map):
    """(folder of masks, [`_Image`]) of a city or data set. tables: as `read_all` returns them."""
    images = {}
    for (area, split, _), index in tables.items():
        if needs_map:
            index.check_map("masks from OpenStreetMap")
        if folder:
            mask = PurePosixPath(index.folders.mask).with_name(folder)
            index = replace(index, folders=index.folders._replace(mask=str(mask)))
        place = root / index.folders.mask.format(city=name)
        rows = range(len(index.satellite_name))
        files = [index.satellite_image(row) for row in rows]
        for row, corner in zip(rows, index.corner(np.array(rows)), strict=True):
            images.setdefault(files[row], _Image(files[row], root / index.mask_image(row).path, corner, []))
        if area == "samearea" and split != "test":
            for row, position in zip(index.satellite[:, 0], index.position[:, 0], strict=True):
                images[files[row]].cameras.append(position)
    return place, list(images.values())


def _write_folder(name, place, images, make, manifest, workers):
    """Write the missing masks of a folder, and its manifest; returns the `MaskReport`."""

    def write(image):
        try:
            mask, is_new = read_mask(image.mask, _SIZE), False
        except UserError:  # not written yet, or emptied by a power cut
            mask, is_new = make(image), True
            image.mask.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(image.mask, encode(mask, ".tif", cv2.IMWRITE_TIFF_COMPRESSION, _DEFLATE))
        cameras = np.floor(_points(image)).astype(int)
        cameras = cameras[((cameras >= 0) & (cameras < geometry.SATELLITE_PX)).all(1)]
        return is_new, (mask > 0).mean(), len(cameras), int((mask[tuple(cameras.T)] > 0).sum())

    with locked(place, "is writing masks into"), resumable(place):
        write_manifest(place / MANIFEST, manifest, complete=False)
        rows = list(in_threads(write, images, workers, f"masks of {name}"))
        remove_leftovers(place)
        is_new, foreground, cameras, standing = np.array(rows).reshape(-1, 4).T
        counts = int((foreground == 0).sum()), int(cameras.sum()), int(standing.sum())
        report = MaskReport(name, len(images), int(is_new.sum()), float(foreground.mean()), *counts)
        write_manifest(place / MANIFEST, manifest | {"report": report._asdict()}, complete=True)
    return report


def _points(image):
    """(k, 2) (row, col) of the training panoramas in an `_Image`."""
    return np.array(image.cameras).reshape(-1, 2)


def _draw(streets: StreetMap, image):
    return draw_mask(*streets.around(image.corner), image.corner)


def _segment(reader, streets, prompted, image):
    points = _points(image)
    if prompted.prompts == "osm":
        latitude, _ = geometry.latitude_longitude(*image.corner)
        points = streets.points(image.corner, prompted.spacing_m / geometry.metres_per_pixel(latitude))
    return prompted.segment(reader.read(image.file), points)
