"""CVUSA -> a `VigorIndex`: panoramas cropped above and below, a satellite image centred at each camera.

    <root>/streetview/panos/<number>.jpg                1232 x 224 px, north in the centre column
    <root>/bingmap/19/<number>.jpg                      750 x 750 px of Web Mercator at zoom 19, north up
    <root>/splits/train-19zl.csv val-19zl.csv           or in the root: satellite image, panorama, annotation
    <root>/split_locations/all.csv                      optional: degrees of satellite image 1, 2, ...

The camera is in the middle of each file, so the index holds crops in which it is not. They are as wide as
VIGOR's images: 320 px at zoom 19.
"""

import csv
from pathlib import Path

import numpy as np
import torch

from common import geometry
from common.camera import Panorama
from common.errors import UserError
from common.geometry import SATELLITE_PX
from dataset.decoding import shown_size
from dataset.index import KINDS, VigorIndex, draw_shifts, listed_part, part_of
from dataset.layout import BY_PATH
from dataset.lists import read_lines

CITY = "USA"
LISTS = {"train": "train-19zl.csv", "test": "val-19zl.csv"}
LOCATIONS = "split_locations/all.csv"
# Degrees above and below the horizon, which is 132 px below the upper edge of 1232 x 224 px.
VERTICAL = (38.57, 26.88)
VIEW = {"vertical": VERTICAL}
MAP_PX, CROP_PX = 750, 320  # sides of the files and of a crop
SHIFT_PX = 88  # from a crop's centre to the camera at most, along each side: 20 m at `LATITUDE`
LATITUDE = 40.0  # without the list of locations: metres per pixel are right to 11 % from 31 to 47 degrees


def lies_in(root):
    """Whether a folder holds this data set."""
    return Path(root, "bingmap").is_dir() and Path(root, "streetview").is_dir()


def load_index(root, area, split, cities=None):
    """The `VigorIndex` of one split: 'train' and 'val' divide train-19zl.csv, 'test' is val-19zl.csv.

    area: 'samearea'. cities: `CITY` or None. Each panorama has four satellite images, crops of one file; its
    name decides which. Without the list of locations they are on no map. Raises UserError.
    """
    root, part = Path(root), listed_part(split)
    if area != "samearea":
        raise UserError(f"--area {area}: {root} holds CVUSA, which has one area; leave it out")
    if cities and set(cities) != {CITY}:
        raise UserError(f"--{part}_cities {' '.join(cities)}: {root} holds CVUSA, whose only city is {CITY}")
    path = _find_list(root, LISTS[part])
    satellites, panoramas = _read_list(path)
    if shown_size(root / satellites[0]) != (MAP_PX, MAP_PX):
        raise UserError(f"{root / satellites[0]}: expected {MAP_PX} x {MAP_PX} px, zoom 19, see docs/SETS.md")
    corner = np.array([draw_corners(name) for name in panoramas])  # (N, 4, 2)
    count, to_map = corner[..., 0].size, SATELLITE_PX / CROP_PX
    gps, resolution = np.full((count, 2), np.nan), None
    if (root / LOCATIONS).is_file():
        middle = _read_locations(root / LOCATIONS, satellites)
        centres = np.stack(geometry.mercator_px(*middle.T), -1)[:, None]
        centres = centres + (corner + CROP_PX / 2 - MAP_PX / 2) * to_map
        gps = np.stack(geometry.latitude_longitude(*np.moveaxis(centres, -1, 0)), -1).reshape(-1, 2)
    else:
        resolution = np.full(count, geometry.metres_per_pixel(LATITUDE))
    index = VigorIndex(
        root=root,
        cities=(CITY,),
        city=np.zeros(len(panoramas), np.int16),
        panorama=np.array([name.encode() for name in panoramas]),
        satellite=np.arange(count, dtype=np.int32).reshape(-1, len(KINDS)),
        position=((MAP_PX / 2 - corner) * to_map).astype(np.float32),
        satellite_name=np.repeat(np.array([name.encode() for name in satellites]), len(KINDS)),
        satellite_city=np.zeros(count, np.int16),
        satellite_gps=gps,
        cameras=Panorama(torch.zeros(len(panoramas), 1), 360.0, *VERTICAL),
        crop=np.insert(corner.reshape(-1, 2), 2, CROP_PX, axis=1).astype(np.int32),
        resolution=resolution,
        folders=BY_PATH,
    )
    return part_of(index, area, split, path)


def draw_corners(name):
    """(4, 2) whole-numbered corners (row, col) of the crops of a panorama, drawn from its name."""
    return np.rint((MAP_PX - CROP_PX) / 2 + draw_shifts(name, SHIFT_PX))


def _find_list(root, name):
    for path in (root / "splits" / name, root / name):
        if path.is_file():
            return path
    raise UserError(f"{root}: no {name}, nor in splits; unpack CVUSA's splits there, see docs/SETS.md")


def _read_list(path):
    """(names of satellite images, names of panoramas), relative to the root. Raises UserError."""
    names = []
    for number, line in enumerate(read_lines(path), 1):
        if line:
            satellite, panorama, *_ = *line.split(","), ""
            if not (satellite.startswith("bingmap/") and panorama.startswith("streetview/")):
                form = "bingmap/19/<number>.jpg,streetview/panos/<number>.jpg"
                raise UserError(f"{path}, line {number}: {line[:80]!r} where {form} belongs")
            names.append((satellite, panorama))
    if not names:
        raise UserError(f"{path}: names no panorama")
    return list(zip(*names, strict=True))


def _read_locations(path, satellites):
    """(N, 2) latitudes and longitudes of satellite images, whose numbers count the lines from 1."""
    lines = list(csv.reader(read_lines(path)))
    places = np.empty((len(satellites), 2))
    for row, name in enumerate(satellites):
        number = Path(name).stem
        try:
            place = [float(word) for word in lines[int(number) - 1][:2]] if int(number) > 0 else []
        except (ValueError, IndexError):
            place = []
        if len(place) != 2 or not (abs(place[0]) <= 85 and abs(place[1]) <= 180):
            says = f"has no latitude and longitude of {name} in line {number.lstrip('0')}"
            raise UserError(f"{path}: {says}; without this file the places are not known")
        places[row] = place
    return places
