"""KITTI with satellite images -> a `VigorIndex`: raw drives, an image from above for each photograph, HighlyAccurate's split.

    <root>/raw_data/<date>/calib_cam_to_cam.txt
    <root>/raw_data/<date>/<drive>/image_02/data/<frame>.png       the left colour camera's photographs
    <root>/raw_data/<date>/<drive>/oxts/data/<frame>.txt           where the GPS unit was, and which way it looked
    <root>/satmap/<date>/<drive>/<frame>.png                       north up, the GPS unit in the middle
    <root>/train_files.txt test1_files.txt test2_files.txt         or in dataLoader/

The benchmark looks for a photograph in a square whose centre lies up to 20 m ahead of or behind, and to the left or right of, the
camera. Here that square is cut north up out of the image from above, at whole pixels; by what rounding moves it, the position is
told elsewhere in it.
"""

import math
import zlib
from pathlib import Path

import numpy as np
import torch

from common import geometry
from common.camera import Pinhole, pinhole
from common.errors import UserError
from common.geometry import SATELLITE_PX
from common.parallel import in_threads
from dataset.images import stored_size
from dataset.index import KINDS, VigorIndex, part_of
from dataset.lists import read_lines

CITY = "Karlsruhe"
LISTS = {("samearea", "test"): "test1_files.txt", ("crossarea", "test"): "test2_files.txt"}  # all else parts the training list
TRAIN_LIST = "train_files.txt"
MAP_PX, CROP_PX = 1280, 320  # sides of the images from above, zoom 18 with two pixels to one, and of a part as wide as VIGOR's
METRES_PER_PIXEL = 156543.03392 * math.cos(math.radians(49.015)) / 2**18 / 2  # of those, everywhere: the benchmark's own figure
CAMERA_AHEAD_M, CAMERA_RIGHT_M = 1.08, 0.26  # of the GPS unit
SHIFT_M, PRIOR_WITHIN_DEG = 20.0, 10.0  # what the lists' numbers within [-1, 1] are shares of
_READERS = 8


def lies_in(root):
    """Whether a folder holds this data set."""
    return Path(root, "raw_data").is_dir()


def load_index(root, area, split, cities=None):
    """The `VigorIndex` of one split: 'train' and 'val' part the training list, 'test' is test1 or, of 'crossarea', test2.

    cities: `CITY` alone. Each photograph has four satellite images, parts of one file around centres of which the first is the
    test list's own; all others are drawn from the photograph's name as the benchmark draws. Raises UserError, naming the file.
    """
    root, part = Path(root), "test" if split == "test" else "train"
    if cities and set(cities) != {CITY}:
        raise UserError(f"--{part}_cities {' '.join(cities)}: {root} holds KITTI, whose only city is {CITY}")
    path = _find_list(root, LISTS.get((area, split), TRAIN_LIST))
    frames, given = _read_list(path, split == "test")
    if stored_size(root / "satmap" / frames[0]) != (MAP_PX, MAP_PX):
        raise UserError(f"{root / 'satmap' / frames[0]}: expected {MAP_PX} x {MAP_PX} px, zoom 18 at scale 2, see docs/SETS.md")
    cameras = {date: _camera(root, date, frame) for date, frame in {frame[:10]: frame for frame in reversed(frames)}.items()}
    poses = np.array(list(in_threads(lambda frame: _pose(root, frame), frames, _READERS, "reading poses")), np.float64)
    heading = geometry.wrap_degrees(90 - np.degrees(poses[:, 2]))  # yaw is counter-clockwise from east
    shifts = np.array([_draw_shifts(frame) for frame in frames])
    if given is not None:
        shifts[:, 0] = given[:, :2]
    camera, corner = place(heading, shifts)
    middle = np.stack(geometry.mercator_px(*poses[:, :2].T), -1)[:, None]
    to_map = SATELLITE_PX / CROP_PX
    centres = middle + (corner + CROP_PX / 2 - MAP_PX / 2) * to_map
    cameras = Pinhole.stack([cameras[frame[:10]] for frame in frames])
    count = len(frames) * len(KINDS)
    index = VigorIndex(
        root=root,
        cities=(CITY,),
        city=np.zeros(len(frames), np.int16),
        panorama=np.array([_photograph(frame).encode() for frame in frames]),
        satellite=np.arange(count, dtype=np.int32).reshape(-1, len(KINDS)),
        position=((camera[:, None] - corner) * to_map).astype(np.float32),
        satellite_name=np.repeat(np.array([f"satmap/{frame}".encode() for frame in frames]), len(KINDS)),
        satellite_city=np.zeros(count, np.int16),
        satellite_gps=np.stack(geometry.latitude_longitude(*np.moveaxis(centres, -1, 0)), -1).reshape(-1, 2),
        cameras=cameras.replace(heading=torch.from_numpy(heading).float()),
        prior_heading=None if given is None else geometry.wrap_degrees(heading + given[:, 2] * PRIOR_WITHIN_DEG),
        prior_within=None if given is None else PRIOR_WITHIN_DEG,
        crop=np.insert(corner.reshape(-1, 2), 2, CROP_PX, axis=1).astype(np.int32),
        resolution=np.full(count, METRES_PER_PIXEL / to_map),
        by_path=True,
    )
    return part_of(index, area, split, path)


def place(heading, shifts):
    """Where cameras are, (N, 2), and corners of the parts of images from above, (N, 4, 2) whole numbers: (row, col) of the file.

    heading: (N,) degrees · shifts: (N, 4, 2), shares of `SHIFT_M`: of a part's centre behind the camera, to its right.
    """
    middle = np.full(len(heading), MAP_PX / 2)
    camera = geometry.move(middle, middle, heading, CAMERA_AHEAD_M / METRES_PER_PIXEL)
    camera = geometry.move(*camera, heading + 90, CAMERA_RIGHT_M / METRES_PER_PIXEL)
    back, right = np.moveaxis(shifts * (SHIFT_M / METRES_PER_PIXEL), -1, 0)
    centre = geometry.move(*(at[:, None] for at in camera), heading[:, None], -back)
    centre = np.stack(geometry.move(*centre, heading[:, None] + 90, right), -1)
    return np.stack(camera, -1), np.rint(centre - CROP_PX / 2)


def _draw_shifts(frame):
    """(4, 2) shifts of a photograph, drawn from its name."""
    return np.random.default_rng(zlib.crc32(frame.encode())).uniform(-1, 1, (len(KINDS), 2))


def _photograph(frame):
    """The path of a photograph, by its entry `<date>/<drive>/<frame>.png` in a list."""
    folder, _, name = frame.rpartition("/")
    return f"raw_data/{folder}/image_02/data/{name}"


def _find_list(root, name):
    found = [path for path in (root / name, root / "dataLoader" / name) if path.is_file()]
    if not found:
        raise UserError(f"{root}: no {name}, nor in dataLoader; lay HighlyAccurate's lists there, see docs/SETS.md")
    return found[0]


def _read_list(path, tests):
    """(entries of a list, (N, 3) numbers that a test list adds, else None). Raises UserError for a line that is not like that."""
    frames, numbers = [], []
    for number, line in enumerate(read_lines(path), 1):
        if not line:
            continue
        frame, *more = line.split()
        try:
            added = [float(word) for word in more[:3]]
        except ValueError:
            added = []
        if frame.count("/") != 2 or (tests and (len(added) != 3 or not max(map(abs, added)) <= 1)):
            form = "<date>/<drive>/<frame>.png" + (" and three numbers within -1 and 1" if tests else "")
            raise UserError(f"{path}, line {number}: {line[:80]!r} where {form} belongs")
        frames.append(frame)
        numbers.append(added)
    if not frames:
        raise UserError(f"{path}: names no photograph")
    return frames, np.array(numbers) if tests else None


def _pose(root, frame):
    """(latitude, longitude, yaw in radians) of the GPS unit."""
    folder, _, name = frame.rpartition("/")
    path = root / "raw_data" / folder / "oxts/data" / Path(name).with_suffix(".txt")
    try:
        words = path.read_text().split()
        pose = float(words[0]), float(words[1]), float(words[5])
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; KITTI's raw drives have it, see docs/SETS.md") from None
    except (ValueError, IndexError):
        raise UserError(f"{path}: not latitude, longitude, altitude, roll, pitch and yaw; unpack it again") from None
    if not (abs(pose[0]) <= 85 and abs(pose[1]) <= 180 and math.isfinite(pose[2])):
        raise UserError(f"{path}: latitude {pose[0]:g}, longitude {pose[1]:g}, yaw {pose[2]:g} is no place; unpack it again")
    return pose


def _camera(root, date, frame):
    """The camera of a day, north ahead; its photographs have the size of one of them."""
    path = root / "raw_data" / date / "calib_cam_to_cam.txt"
    if not path.is_file():
        raise UserError(f"{path}: no such file; unpack KITTI's calibration of {date} there, see docs/SETS.md")
    for line in read_lines(path):
        name, _, numbers = line.partition(":")
        if name == "P_rect_02":
            try:
                fx, _, cx, _, _, fy, cy, *_ = map(float, numbers.split())
            except ValueError:
                break
            half = 0.5  # the file counts from the middle of the first pixel
            return pinhole(*stored_size(root / _photograph(frame)), fx=fx, fy=fy, cx=cx + half, cy=cy + half)
    raise UserError(f"{path}: has no line P_rect_02 of twelve numbers; unpack KITTI's calibration of {date} again")
