"""Cities whose query images are photographs: `<City>/cameras.csv`, one camera for each photograph."""

import csv
import io
from pathlib import Path

import numpy as np
import torch

from common.camera import Panorama, Pinhole
from common.errors import UserError
from common.files import write_bytes

FILE = "cameras.csv"
NAMES = Pinhole.NAMES
_AGAIN = "python -m dataset.city writes it again"


def holds_photographs(root, city):
    """Whether a city's street images are photographs."""
    return Path(root, city, FILE).is_file()


def write_cameras(folder, cameras):
    """Write the cameras of a city's photographs, {file name: `Pinhole`, unbatched}, into its folder."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["name", *NAMES])
    rows = ((name, camera.values.tolist()) for name, camera in cameras.items())
    table.writerows([name, *(f"{number:.9g}" for number in numbers)] for name, numbers in rows)
    write_bytes(Path(folder, FILE), text.getvalue().encode())


def read_cameras(path):
    """{file name: (12,) float32} from the file of `write_cameras`.

    Raises UserError, which names the line, for anything else.
    """
    try:
        lines = list(csv.reader(Path(path).read_text("utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: cannot be read ({getattr(error, 'strerror', 'not UTF-8')}); {_AGAIN}"
        ) from None
    if not lines or lines[0] != ["name", *NAMES]:
        raise UserError(f"{path}: its first line is not name,{','.join(NAMES)}; {_AGAIN}")
    cameras = {}
    for number, line in enumerate(lines[1:], 2):
        try:
            name, *numbers = line
            camera = np.array(numbers, np.float32)
        except ValueError:
            camera = np.empty(0)
        whole = camera.shape == (len(NAMES),) and np.isfinite(camera).all()
        if not whole or min(camera[NAMES.index("fx")], camera[NAMES.index("fy")]) <= 0:
            raise UserError(
                f"{path}, line {number}: not a name and {len(NAMES)} numbers of a camera; {_AGAIN}"
            )
        cameras[name] = camera
    return cameras


def cameras_of(root, cities, images):
    """The cameras of the query images of some cities, (city, file name) each: a `Panorama` or a `Pinhole`
    batch.

    Panoramas have north in their centre. Raises UserError for cities of both kinds, and for a photograph
    without a camera.
    """
    there = [city for city in cities if holds_photographs(root, city)]
    if not there:
        return Panorama(torch.zeros(len(images), 1))
    if panoramas := [city for city in cities if city not in there]:
        way_out = "name cities of one kind with --train_cities and --test_cities"
        raise UserError(f"{root}: {there[0]} has photographs and {panoramas[0]} panoramas; {way_out}")
    cameras = {city: read_cameras(Path(root, city, FILE)) for city in there}
    for city, name in images:
        if name not in cameras[city]:
            raise UserError(f"{Path(root, city, FILE)}: has no line for {name}; {_AGAIN}")
    numbers = np.array([cameras[city][name] for city, name in images], np.float32)
    return Pinhole(torch.from_numpy(numbers.reshape(-1, len(NAMES))))
