"""KITTI -> a `VigorIndex`: raw drives, a satellite image per photograph, HighlyAccurate's split.

    <root>/raw_data/<date>/calib_cam_to_cam.txt
    <root>/raw_data/<date>/<drive>/image_02/data/<frame>.png       photographs of the left colour camera
    <root>/raw_data/<date>/<drive>/oxts/data/<frame>.txt           position and orientation of the GPS unit
    <root>/satmap/<date>/<drive>/<frame>.png                       north up, centred at the GPS unit
    <root>/train_files.txt test1_files.txt test2_files.txt         or in dataLoader/

The benchmark locates a photograph in a square whose centre lies up to 20 m from the camera along and across
the heading. This reader crops that square north up, at whole pixels; the position accounts for the rounding.
"""

import math
from pathlib import Path

import numpy as np
import torch

from common import geometry
from common.camera import Pinhole, pinhole
from common.errors import UserError
from common.geometry import SATELLITE_PX
from common.parallel import in_threads
from dataset.decoding import shown_size
from dataset.index import KINDS, VigorIndex, draw_shifts, listed_part, part_of
from dataset.layout import BY_PATH
from dataset.lists import read_lines

CITY = "Karlsruhe"
TRAIN_LIST = "train_files.txt"
LISTS = {("samearea", "test"): "test1_files.txt", ("crossarea", "test"): "test2_files.txt"}  # else TRAIN_LIST
MAP_PX, CROP_PX = 1280, 320  # sides of the files, zoom 18 at scale 2, and of a crop as wide as VIGOR's images
METRES_PER_PIXEL = 156543.03392 * math.cos(math.radians(49.015)) / 2**18 / 2  # the benchmark's, everywhere
CAMERA_AHEAD_M, CAMERA_RIGHT_M = 1.08, 0.26  # of the GPS unit
SHIFT_M, PRIOR_WITHIN_DEG = 20.0, 10.0  # units of the lists' numbers, which lie within [-1, 1]
_READERS = 8


def lies_in(root):
    """Whether a folder holds this data set."""
    return Path(root, "raw_data").is_dir()


def load_index(root, area, split, cities=None):
    """The `VigorIndex` of one split: 'train' and 'val' divide the training list, 'test' is test1 or test2.

    cities: `CITY` or None. Each photograph has four satellite images, crops of one file. Test lists give the
    centre of the first; the photograph's name decides all others, as in the benchmark. Raises UserError.
    """
    root, part = Path(root), listed_part(split)
    if cities and set(cities) != {CITY}:
        raise UserError(f"--{part}_cities {' '.join(cities)}: {root} holds KITTI, whose only city is {CITY}")
    path = _find_list(root, LISTS.get((area, split), TRAIN_LIST))
    frames, given = _read_list(path, split == "test")
    first = root / "satmap" / frames[0]
    if shown_size(first) != (MAP_PX, MAP_PX):
        raise UserError(f"{first}: expected {MAP_PX} x {MAP_PX} px, zoom 18 at scale 2, see docs/SETS.md")
    days = {frame[:10]: frame for frame in reversed(frames)}
    cameras = {date: _camera(root, date, frame) for date, frame in days.items()}
    poses = in_threads(lambda frame: _pose(root, frame), frames, _READERS, "reading poses")
    poses = np.array(list(poses), np.float64)
    heading = geometry.wrap_degrees(90 - np.degrees(poses[:, 2]))  # yaw is counter-clockwise from east
    shifts, prior = np.array([draw_shifts(frame) for frame in frames]), {}
    if given is not None:
        shifts[:, 0] = given[:, :2]
        prior["prior_heading"] = geometry.wrap_degrees(heading + given[:, 2] * PRIOR_WITHIN_DEG)
        prior["prior_within"] = PRIOR_WITHIN_DEG
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
        **prior,
        crop=np.insert(corner.reshape(-1, 2), 2, CROP_PX, axis=1).astype(np.int32),
        resolution=np.full(count, METRES_PER_PIXEL / to_map),
        folders=BY_PATH,
    )
    return part_of(index, area, split, path)


def place(heading, shifts):
    """Positions of cameras, (N, 2), and whole-numbered corners of crops, (N, 4, 2): (row, col) in the file.

    heading: (N,) degrees.
    shifts: (N, 4, 2), how far a crop's centre lies behind the camera and to its right, in units of `SHIFT_M`.
    """
    middle = np.full(len(heading), MAP_PX / 2)
    camera = geometry.move(middle, middle, heading, CAMERA_AHEAD_M / METRES_PER_PIXEL)
    camera = geometry.move(*camera, heading + 90, CAMERA_RIGHT_M / METRES_PER_PIXEL)
    back, right = np.moveaxis(shifts * (SHIFT_M / METRES_PER_PIXEL), -1, 0)
    centre = geometry.move(*(at[:, None] for at in camera), heading[:, None], -back)
    centre = np.stack(geometry.move(*centre, heading[:, None] + 90, right), -1)
    return np.stack(camera, -1), np.rint(centre - CROP_PX / 2)


def _photograph(frame):
    """The path of a photograph from its list entry `<date>/<drive>/<frame>.png`."""
    folder, _, name = frame.rpartition("/")
    return f"raw_data/{folder}/image_02/data/{name}"


def _find_list(root, name):
    for path in (root / name, root / "dataLoader" / name):
        if path.is_file():
            return path
    raise UserError(
        f"{root}: no {name}, nor in dataLoader; put HighlyAccurate's lists there, see docs/SETS.md"
    )


def _read_list(path, tests):
    """(entries of a list, (N, 3) numbers of a test list or None). Raises UserError for a malformed line."""
    form = "<date>/<drive>/<frame>.png" + (" and three numbers within -1 and 1" if tests else "")
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
        words = path.read_text("utf-8").split()
        latitude, longitude, yaw = float(words[0]), float(words[1]), float(words[5])
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; KITTI's raw drives have it, see docs/SETS.md") from None
    except (ValueError, IndexError):
        expected = "latitude, longitude, altitude, roll, pitch, yaw"
        raise UserError(f"{path}: not {expected}; unpack it again") from None
    if not (abs(latitude) <= 85 and abs(longitude) <= 180 and math.isfinite(yaw)):
        pose = f"latitude {latitude:g}, longitude {longitude:g}, yaw {yaw:g}"
        raise UserError(f"{path}: {pose} is no pose; unpack it again")
    return latitude, longitude, yaw


def _camera(root, date, frame):
    """A day's camera with heading 0; all its photographs have the size of `frame`."""
    path = root / "raw_data" / date / "calib_cam_to_cam.txt"
    lines = read_lines(path, f"unpack KITTI's calibration of {date} there, see docs/SETS.md")
    numbers = next((line[11:] for line in lines if line.startswith("P_rect_02:")), "")
    try:
        fx, _, cx, _, _, fy, cy, *_ = map(float, numbers.split())
    except ValueError:
        line = "line P_rect_02 of twelve numbers"
        raise UserError(f"{path}: has no {line}; unpack KITTI's calibration of {date} again") from None
    half = 0.5  # the file counts from the middle of the first pixel
    return pinhole(*shown_size(root / _photograph(frame)), fx=fx, fy=fy, cx=cx + half, cy=cy + half)
