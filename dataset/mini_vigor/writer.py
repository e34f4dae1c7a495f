"""Writes mini-VIGOR: districts drawn by several processes, in exactly VIGOR's layout."""

import base64
import json
import multiprocessing
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from common import geometry
from common.errors import UserError
from common.files import locked, remove_leftovers, write_bytes
from dataset.mini_vigor import render
from dataset.mini_vigor.city import MARGIN_PX, STYLES, TILE_STEP_PX, generator
from dataset.mini_vigor.plan import build

CITIES = tuple(STYLES)
SETTINGS = "mini_vigor.json"
DRAWING = 2  # raise it with every change to the pictures, so that two kinds never mix in one folder

_DISTRICT = 150  # panoramas in one world, at most: it bounds the memory of a worker
_CLEAR_M = 2.0  # free street around a camera
_CAR_M = 5.0  # to the middle of the nearest car


def make(root, panoramas=300, panorama_width=512, seed=0, workers=2, cities=CITIES, progress=True):
    """Draw mini-VIGOR into the folder `root`, complete one that was cut off, or leave a finished one as it is.

    panoramas: per city, 2 or more; half of them train, half test · panorama_width: columns of a panorama, a multiple of 4 from
    64 to 4096; it is half as high · workers: processes; each needs about 0.5 GB.

    Returns the folder as a Path. Raises UserError for a setting out of range or one that differs from the folder's own, for a
    folder that holds something else, and while another process draws there.
    """
    root = Path(root)
    settings = {"drawing": DRAWING, "panoramas": panoramas, "panorama_width": panorama_width, "seed": seed}
    settings["cities"] = list(cities)
    _check_settings(settings, workers)
    if not _is_complete(root, settings):
        with locked(root, "is drawing mini-VIGOR into"):
            if not _is_complete(root, settings):  # nor has another process finished it meanwhile
                _draw(root, settings, workers, progress)
    elif progress:
        print(f"{root} already holds this mini-VIGOR: {panoramas} panoramas in each of {len(cities)} cities.")
    return root


def _draw(root, settings, workers, progress):
    """Draw all that is not there yet, the settings first and called complete at the end."""
    cities, panoramas, seed = settings["cities"], settings["panoramas"], settings["seed"]
    remove_leftovers(root)
    _write(root / SETTINGS, _to_json(settings, complete=False))
    width = settings["panorama_width"]
    tasks = [(root, city, district, count, width, seed) for city in cities for district, count in _districts(panoramas)]
    with tqdm(total=panoramas * len(cities), desc=f"drawing {root}", unit="panorama", disable=None if progress else True) as bar:
        lines = _run(tasks, workers, bar)
    for city in cities:
        _write_lists(root / "splits__corrected" / city, city, seed, [line for key, line in lines if key == city])
    _write(root / SETTINGS, _to_json(settings, complete=True))


def _check_settings(settings, workers):
    """Refuse what cannot be drawn, with the values that can."""
    width, cities = settings["panorama_width"], settings["cities"]
    known = 0 < len(cities) == len(set(cities) & set(CITIES))
    for name, value, fine, allowed in (
        ("panoramas", settings["panoramas"], settings["panoramas"] >= 2, "2 or more"),
        ("panorama_width", width, 64 <= width <= 4096 and width % 4 == 0, "a multiple of 4 from 64 to 4096"),
        ("seed", settings["seed"], settings["seed"] >= 0, "0 or more"),
        ("workers", workers, workers >= 1, "1 or more"),
        ("cities", " ".join(cities), known, f"one or more of {', '.join(CITIES)}, each once"),
    ):
        if not fine:
            raise UserError(f"{name} {value}: allowed is {allowed}")


def _is_complete(root, settings):
    """Whether the folder holds the finished set; False if it is to be drawn or completed."""
    way_out = "choose another --root, or delete that folder first"
    if root.exists() and not root.is_dir():
        raise UserError(f"{root} is a file, not a folder: {way_out}")
    if not (root / SETTINGS).is_file():
        # a first start that was cut off leaves at most hidden files: its lock, and the beginning of its settings
        if root.is_dir() and any(not entry.name.startswith(".") for entry in root.iterdir()):
            raise UserError(f"{root} holds something that is not a mini-VIGOR (no {SETTINGS} in it): {way_out}")
        return False
    try:
        found = json.loads((root / SETTINGS).read_text())
        there = {name: found[name] for name in settings}
        complete = bool(found["complete"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{root / SETTINGS} cannot be read as mini-VIGOR's settings ({error!r}): {way_out}") from error
    for name, value in settings.items():
        if there[name] != value:
            raise UserError(f"{root} holds a mini-VIGOR with {name} {there[name]}, not {value}: {way_out}")
    return complete


def _to_json(settings, complete):
    return json.dumps({**settings, "complete": complete}, indent=2).encode() + b"\n"


def _districts(panoramas):
    """(number, panoramas) of each district of a city."""
    count = -(-panoramas // _DISTRICT)
    return [(i, panoramas // count + (i < panoramas % count)) for i in range(count)]


_drawn = None  # a worker's view of the panoramas drawn by all


def _start_worker(drawn):
    global _drawn
    _drawn = drawn
    cv2.setNumThreads(1)


def _count():
    with _drawn.get_lock():
        _drawn.value += 1


def _draw_in_worker(task):
    return _draw_district(*task, _count)


def _run(tasks, workers, bar):
    """Draw all districts; returns (city, label line) pairs in the order of the tasks."""
    if workers == 1:
        return [(task[1], line) for task in tasks for line in _draw_district(*task, bar.update)]
    context = multiprocessing.get_context("spawn")
    drawn = context.Value("q", 0)
    with ProcessPoolExecutor(min(workers, len(tasks)), context, _start_worker, (drawn,)) as pool:
        futures = [pool.submit(_draw_in_worker, task) for task in tasks]
        pending = True
        while pending:
            done, pending = wait(futures, timeout=0.2, return_when=FIRST_EXCEPTION)
            if drawn.value > bar.n:
                bar.update(drawn.value - bar.n)
            if any(future.exception() for future in done):
                pool.shutdown(cancel_futures=True)
                break
    # the first failure, not the cancellations that it caused
    for future in futures:
        if not future.cancelled():
            future.result()
    return [(task[1], line) for task, future in zip(tasks, futures, strict=True) for line in future.result()]


def _draw_district(root, name, district, count, width, seed, tick):
    """Draw the images that are not there yet of one district; returns its label lines. `tick()` is called per panorama."""
    rows = max(2, round(count**0.5))
    cells = rows, max(3, -(-count // rows))
    city = build(name, seed, cells, district)
    view = None
    folder = root / name
    lines = []
    for index, (cell, gps) in enumerate(_camera_places(city, cells, count, generator(seed, name, "places", district))):
        rng = generator(seed, name, "panorama", district, index)
        identifier = base64.urlsafe_b64encode(rng.bytes(16)).decode().rstrip("=")
        panorama = f"{identifier},{gps[0]},{gps[1]},.jpg"
        words = [panorama]
        row, col = _raster_px(city, gps)
        for tile in tiles_around(cell, row, col, city.style.outside, rng):
            centre = tile_centre(tile)
            satellite, tile_gps = _satellite_name(city, centre)
            words += [satellite, *_offsets(gps, tile_gps)]
            if (folder / "satellite" / satellite).exists() and (folder / "point_prompt_mask" / _mask_name(satellite)).exists():
                continue
            view = render.aerial(city) if view is None else view
            grain = generator(seed, name, "satellite", district, tile[0] + 1, tile[1] + 1)
            _draw_tile(folder, satellite, city, view, centre, grain)
        if not (folder / "panorama" / panorama).exists():
            image = render.panorama(city, row, col, width, rng)
            _write_image(folder / "panorama" / panorama, image, [cv2.IMWRITE_JPEG_QUALITY, 92])
        lines.append(" ".join(words))
        tick()
    return lines


def _camera_places(city, cells, count, rng):
    """Yield (cell, (latitude, longitude) as written in the name) of `count` cameras: on free street, spread over the cells."""
    all_cells = np.stack(np.indices(cells), -1).reshape(-1, 2)
    found = 0
    for _ in range(200):
        for cell in rng.permutation(all_cells):
            for place in rng.uniform(0, TILE_STEP_PX, (12, 2)) + cell * TILE_STEP_PX + MARGIN_PX:
                gps = tuple(f"{degrees:.6f}" for degrees in geometry.latitude_longitude(*(place + city.origin)))
                exact = _raster_px(city, gps)
                if tuple(((exact - MARGIN_PX) // TILE_STEP_PX).astype(int)) == tuple(cell) and _is_free(city, exact):
                    yield tuple(cell.tolist()), gps
                    found += 1
                    break
            if found == count:
                return
    raise RuntimeError(f"found room for {found} of {count} panoramas in a district: try another --seed")


def _is_free(city, place):
    """Whether a camera can stand there: street all around, nothing overhead, no car of its own time close by."""
    clear = int(_CLEAR_M / city.metres_per_pixel)
    around = tuple(slice(int(n) - clear, int(n) + clear + 1) for n in place)
    if not city.drivable[around].all() or city.height[around].any() or city.canopy[around].any():
        return False
    cars = city.cars["panorama"][0][:, 0].mean(1)
    return len(cars) == 0 or np.hypot(*(cars - place).T).min() > _CAR_M / city.metres_per_pixel


def _raster_px(city, gps):
    """(row, col) in the city's rasters of a written (latitude, longitude)."""
    return np.subtract(geometry.mercator_px(*map(float, gps)), city.origin)


def tile_centre(tile):
    """(row, col) in the rasters of the middle of a tile: the middle of its cell, a whole number."""
    return tuple(MARGIN_PX + n * TILE_STEP_PX + TILE_STEP_PX // 2 for n in tile)


def tiles_around(cell, row, col, outside, rng):
    """The positive and three semi-positives of a camera, as (row, col) of their cells.

    The semi-positives complete the 2 x 2 block around the camera. A share `outside` of them is taken on the other side, one
    step further from the camera, where it lies just outside their image.
    """
    centre = tile_centre(cell)
    down, right = (1 if row >= centre[0] else -1), (1 if col >= centre[1] else -1)
    tiles = [cell]
    for step, further in (((0, right), (0, -right)), ((down, 0), (-down, 0)), ((down, right), (-down, right))):
        move = further if rng.random() < outside else step
        tiles.append((cell[0] + move[0], cell[1] + move[1]))
    return tiles


def _satellite_name(city, centre):
    """The file name of the tile with that centre, and its (latitude, longitude) as written there."""
    gps = tuple(f"{degrees:.10f}" for degrees in geometry.latitude_longitude(*np.add(city.origin, centre)))
    return f"satellite_{gps[0]}_{gps[1]}.png", gps


def _mask_name(satellite):
    return satellite.removesuffix(".png") + "_mask.tif"


def _offsets(gps, tile_gps):
    """A label's row and column offset, the inverse of `geometry.offsets_to_position`, as written."""
    row, col = geometry.gps_to_position(*(float(degrees) for degrees in (*gps, *tile_gps)))
    middle = geometry.SATELLITE_PX / 2
    return f"{row - middle:.4f}", f"{middle - col:.4f}"


def _draw_tile(folder, name, city, view, centre, rng):
    half = geometry.SATELLITE_PX // 2
    _write_image(folder / "satellite" / name, render.satellite(view, *centre, rng), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    rows, cols = (slice(n - half, n + half) for n in centre)
    _write_image(folder / "point_prompt_mask" / _mask_name(name), city.drivable[rows, cols], [cv2.IMWRITE_TIFF_COMPRESSION, 8])


def _write_lists(folder, city, seed, lines):
    """The three label lists and the list of satellite images of a city."""
    satellites = sorted({word for line in lines for word in line.split() if word.startswith("satellite_")})
    training = set(generator(seed, city, "split").permutation(len(lines))[: len(lines) // 2].tolist())
    for name, content in (
        ("satellite_list.txt", satellites),
        ("same_area_balanced_train__corrected.txt", [line for i, line in enumerate(lines) if i in training]),
        ("same_area_balanced_test__corrected.txt", [line for i, line in enumerate(lines) if i not in training]),
        ("pano_label_balanced__corrected.txt", lines),
    ):
        _write(folder / name, "".join(f"{line}\n" for line in content).encode())


def _write_image(path, image, options):
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(path.suffix, image, options)
    if not done:
        raise OSError(f"{path}: OpenCV cannot write {path.suffix} files")
    _write(path, data.tobytes())


def _write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, data)
