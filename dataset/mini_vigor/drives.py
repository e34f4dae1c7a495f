"""Drives through mini-VIGOR's cities: a camera follows streets, turns at crossings and takes panoramas.

    <city>/drives.csv               a line for each frame of all drives
    <city>/drives/<drive>/<frame>.jpg

A panorama's centre column looks along the route. A line has the readings of sensors, with their errors, and
the truth. Errors depend on (seed, drive, frame); route, camera and day on (seed, drive).
"""

import csv
import io
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from common import geometry
from common.errors import UserError
from common.files import locked, resumable, write_bytes
from common.geometry import wrap_degrees
from common.settings import COUNT_OR_NONE, POSITIVE, Number, Settings, setting
from dataset.decoding import encode, is_whole
from dataset.layout import STEP_PX
from dataset.manifest import read_own_manifest, write_manifest
from dataset.mini_vigor import looks, render
from dataset.mini_vigor.city import MARGIN_PX, generator
from dataset.mini_vigor.writer import DRAWING, districts_of, lay_out

TABLE, FOLDER, MANIFEST = "drives.csv", "drives", "drives.json"
TRUTH = ("true_latitude", "true_longitude", "true_heading")
SENSORS = ("latitude", "longitude", "accuracy", "forward", "left", "turn", "heading")
COLUMNS = ("drive", "file", "time", *SENSORS, *TRUTH)
SPEED_M_S = 8.0
ODOMETRY = (0.02, 1.0)  # noise: share of the way, degrees of a turn; standard deviations of a frame
GPS_M, OUTLIER_M, OUTLIERS = 5.0, 50.0, 1 / 20  # standard deviation, that of outliers, their share
COMPASS_DEG = 3.0  # a compass is evenly wrong by up to so much
_TRIES = 400  # of a route
_CORNER_M = 8.0  # from a crossing to where its curve begins
_CLEAR_M = 4.0  # cars whose centre is nearer to the route have left


@dataclass(frozen=True)
class Drives(Settings):
    """The drives of each city."""

    drives: int = setting(0, COUNT_OR_NONE, "per city; 0: none", group="drives", metavar="N")
    frames: int = setting(40, Number(int, least=2, most=10_000), "of a drive", group="drives", metavar="N")
    spacing: float = setting(4.0, POSITIVE, "metres between frames", group="drives", metavar="M")


def make_drives(root, drawing, drives, *, cities, workers=2, progress=True):
    """Draw the drives of a finished mini-VIGOR, or complete them.

    root, cities, drawing: the folder, its cities and its `Drawing`; drives: a `Drives`.

    Raises UserError for a folder with other drives, or if no street is long enough.
    """
    root = Path(root)
    settings = {"drawing": {"version": DRAWING} | drawing.plain(), **drives.plain(), "cities": list(cities)}
    path = root / MANIFEST
    if path.exists() and read_own_manifest(path, "drives", settings).get("complete"):
        return
    with locked(root, "is drawing drives into"), resumable(root):
        write_manifest(path, settings, complete=False)
        jobs = []
        for city in cities:
            districts = districts_of(root, city, drawing)
            # Drives of a district follow one another, since it takes seconds to lay one out.
            of_district = (range(first, drives.drives, len(districts)) for first in range(len(districts)))
            jobs += [(districts, number, drives) for number in chain.from_iterable(of_district)]
        with tqdm(total=len(jobs), desc="driving", unit="drive", disable=not progress or None) as bar:
            lines = {city: [] for city in cities}
            for (districts, *_), rows in zip(jobs, _run(jobs, workers), strict=True):
                lines[districts[0].city] += rows
                bar.update()
        for city, rows in lines.items():
            write_bytes(root / city / TABLE, _as_csv(sorted(rows, key=lambda row: row[:2])))
        write_manifest(path, settings, complete=True)


def _run(jobs, workers):
    if workers == 1:
        yield from map(_drive_in, jobs)
        return
    with ProcessPoolExecutor(min(workers, len(jobs)), multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_drive_in, jobs)


def _as_csv(rows):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    return text.getvalue().encode()


def _drive_in(job):
    """Draw a drive through the first district, starting at its own number, that has a route for it."""
    districts, number, drives = job
    for step in range(len(districts)):
        district = districts[(number + step) % len(districts)]
        world, cells = _world(district)
        key = partial(generator, district.drawing.seed, district.city, "drive", number)
        if (way := route(world, cells, key(), drives)) is not None:
            return list(_drive(district, world, way, number, drives))
    needed = (drives.frames - 1) * drives.spacing
    says = f"no way of {needed:g} m through the streets of {districts[0].city}; fewer --frames, a smaller"
    raise UserError(f"--drives: {says} --spacing or more --panoramas give one")


@lru_cache(maxsize=1)
def _world(district):
    """(a district's world, the numbers of its cells of satellite images)."""
    rows = max(2, round(district.panoramas**0.5))
    return lay_out(district)[0], (rows, max(3, -(-district.panoramas // rows)))


def _drive(district, world, way, number, drives):
    """Draw one drive's panoramas; yields its lines. way: as `route` gives it."""
    drawing = district.drawing
    key = partial(generator, drawing.seed, district.city, "drive", number)
    (places, headings), width = way, drawing.panorama_width
    varied = district.style != "default"
    # A heading is a whole number of columns, so that the panorama need not be resampled.
    shifts = geometry.heading_to_shift(headings, width)
    headings = wrap_degrees(shifts * 360 / width)
    world = replace(world, cars=world.cars | {"panorama": _cars_aside(world, places)})
    camera, look = None, None
    if varied:
        rng = key("camera")
        camera, look = district.draw_camera(rng), looks.draw_panorama_look(rng)
    folder = district.root / district.city / FOLDER / f"{number:03d}"
    folder.mkdir(parents=True, exist_ok=True)
    for frame, (place, shift) in enumerate(zip(places, shifts, strict=True)):
        path = folder / f"{frame:05d}.jpg"
        if not is_whole(path):
            taken = (_swayed(camera, key("sway", frame)), look) if varied else ()
            image = render.panorama(world, *place, width, key("day"), *taken)  # sun and clouds stay
            image = np.roll(image, -shift, 1)
            write_bytes(path, encode(image, path.suffix, cv2.IMWRITE_JPEG_QUALITY, 92))
    names = [f"{FOLDER}/{number:03d}/{frame:05d}.jpg" for frame in range(len(places))]
    map_px = places + world.origin
    gps = np.stack(geometry.latitude_longitude(*map_px.T), 1)
    sensed = sense(map_px, headings, world.metres_per_pixel, key)
    times = np.arange(len(places)) * drives.spacing / SPEED_M_S
    for frame, name in enumerate(names):
        truth = [f"{gps[frame, 0]:.8f}", f"{gps[frame, 1]:.8f}", f"{headings[frame]:.4f}"]
        yield [f"{number:03d}", name, f"{times[frame]:.3f}", *sensed[frame], *truth]


def _swayed(camera, rng):
    """The camera with a small change of tilt, as of a moving car."""
    lean = abs(camera.tilt_deg + rng.normal(0, 0.4)) % 3.0
    return replace(camera, tilt_deg=float(lean), towards_deg=camera.towards_deg + rng.normal(0, 10))


def sense(map_px, headings, metres_per_pixel, key):
    """Sensor readings of a drive: for each frame, a list of texts in the order of `SENSORS`.

    map_px: (T, 2) on the map; headings: (T,) degrees. key(part, frame) gives a frame's generator.

    Odometry is the motion since the previous frame: forward and left in that frame's axes, and the clockwise
    turn of the camera. The first frame has none.
    """
    lines = []
    for frame, (place, heading) in enumerate(zip(map_px, headings, strict=True)):
        rng = key("sensors", frame)
        spread = OUTLIER_M if rng.random() < OUTLIERS else GPS_M
        seen = place + rng.normal(0, spread / np.sqrt(2), 2) / metres_per_pixel
        latitude, longitude = geometry.latitude_longitude(*seen)
        odometry = ["", "", ""]
        if frame:
            south, east = (place - map_px[frame - 1]) * metres_per_pixel
            before = np.radians(headings[frame - 1])
            forward = -south * np.cos(before) + east * np.sin(before)
            left = -south * np.sin(before) - east * np.cos(before)
            noise = rng.normal(0, ODOMETRY[0] * np.hypot(south, east), 2)
            turn = wrap_degrees(heading - headings[frame - 1]) + rng.normal(0, ODOMETRY[1])
            odometry = [f"{forward + noise[0]:.4f}", f"{left + noise[1]:.4f}", f"{turn:.4f}"]
        compass = wrap_degrees(heading + rng.uniform(-COMPASS_DEG, COMPASS_DEG))
        gps = [f"{latitude:.8f}", f"{longitude:.8f}", f"{GPS_M:g}"]
        lines.append([*gps, *odometry, f"{compass:.4f}"])
    return lines


def route(world, cells, rng, drives):
    """(places (T, 2) in the rasters, headings (T,) in degrees) of a drive through a district.

    It keeps to the right, within the cells with satellite images and away from buildings. The first of many
    random routes that stays on carriageways throughout is taken, else the one that does so longest; None if
    no route is long enough.
    """
    edges = _streets(world)
    needed, best = (drives.frames - 1) * drives.spacing, (-1.0, None)
    low, high = np.full(2, MARGIN_PX), MARGIN_PX + np.array(cells) * STEP_PX
    for _ in range(_TRIES):
        path = _path(edges, rng, needed + 60) if edges else None
        if path is None:
            continue
        places, headings = _along(path, drives, rng)
        px = places / world.metres_per_pixel
        if len(px) < drives.frames or not ((px >= low) & (px < high)).all():
            continue
        at = tuple(px.astype(int).T)
        if world.height[at].any():
            continue
        share = float((world.drivable[at] > 0).mean())
        if share > best[0]:
            best = share, (px, headings)
        if share == 1:
            break
    return best[1]


def _streets(world):
    """{node: [(other node, centre line (n, 2) in metres (south, east) to it, its width), ...]}."""
    edges = {}
    for points, tags in world.mapped:
        if not {"highway", "width"} <= tags.keys():  # footways and slip lanes have no width
            continue
        ends = [tuple(np.round(points[i], 3)) for i in (0, -1)]
        line, width = world.to_px(points) * world.metres_per_pixel, float(tags["width"])
        edges.setdefault(ends[0], []).append((ends[1], line, width))
        edges.setdefault(ends[1], []).append((ends[0], line[::-1], width))
    return edges


def _path(edges, rng, length):
    """A line (n, 2) in metres of at least a length, along the right lanes of streets; None at a dead end."""
    node = list(edges)[rng.integers(len(edges))]
    before, parts, done = None, [], 0.0
    while done < length:
        ways = [way for way in edges.get(node, ()) if way[0] != before]
        if not ways:
            return None
        before, (node, line, width) = node, ways[rng.integers(len(ways))]
        lane = _lane(line, np.clip(width / 4, 1.0, 3.0))
        if len(lane) < 2:
            return None
        parts.append(lane)
        done += np.hypot(*np.diff(lane, axis=0).T).sum()
    joined = [parts[0]]
    for following in parts[1:]:
        joined += [_curve(joined[-1], following), following]
    return np.concatenate(joined)


def _lane(line, offset):
    """A centre line moved to the right, without its ends at the crossings."""
    along = np.gradient(line, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    moved = line + offset * np.stack([along[:, 1], -along[:, 0]], 1)
    way = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(moved, axis=0).T))])
    inside = np.arange(_CORNER_M, way[-1] - _CORNER_M, 1.0)
    return np.stack([np.interp(inside, way, moved[:, axis]) for axis in (0, 1)], 1)


def _curve(before, after):
    """A cubic Bezier curve (n, 2) from the end of a lane to the beginning of the next."""
    start, stop = before[-1], after[0]
    reach = 0.4 * np.linalg.norm(stop - start)
    out, into = before[-1] - before[-2], after[1] - after[0]
    one, two = start + reach * out / np.linalg.norm(out), stop - reach * into / np.linalg.norm(into)
    t = np.linspace(0, 1, 24)[1:-1, None]
    return (1 - t) ** 3 * start + 3 * t * (1 - t) ** 2 * one + 3 * t**2 * (1 - t) * two + t**3 * stop


def _along(path, drives, rng):
    """(places (T, 2), headings (T,)) at equal distances along a line, from a random point near its start."""
    way = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])
    steps = np.arange(drives.frames) * drives.spacing
    at = rng.uniform(1, max(40, way[-1] - steps[-1] - 1)) + steps
    at = at[at < way[-1] - 1]
    here, ahead, behind = (
        np.stack([np.interp(at + step, way, path[:, axis]) for axis in (0, 1)], 1) for step in (0, 1, -1)
    )
    south, east = (ahead - behind).T
    return here, np.degrees(np.arctan2(east, -south))


def _cars_aside(world, places):
    """The cars of the panorama's time without those on the route."""
    outlines, colours = world.cars["panorama"]
    if not len(outlines):
        return outlines, colours
    centres = outlines[:, 0].mean(1)
    nearest = np.min(np.linalg.norm(centres[:, None] - _denser(places), axis=2), axis=1)
    keep = nearest > _CLEAR_M / world.metres_per_pixel
    return outlines[keep], colours[keep]


def _denser(places):
    middle = (places[1:] + places[:-1]) / 2
    return np.concatenate([places, middle])
