"""Writes mini-VIGOR: districts drawn by several processes, in exactly VIGOR's layout."""

import base64
import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from common import geometry
from common.errors import UserError
from common.files import locked, remove_leftovers, write_bytes
from common.settings import COUNT_OR_NONE, Choice, Number, Settings, setting
from dataset.images import encode
from dataset.lists import label_line, write_lists
from dataset.manifest import read_own_manifest, write_manifest
from dataset.mini_vigor import looks, render
from dataset.mini_vigor.city import MARGIN_PX, STYLES, TILE_STEP_PX, generator
from dataset.mini_vigor.extract import features, write_extract
from dataset.mini_vigor.plan import build

CITIES = tuple(STYLES)
MANIFEST, WHAT = "mini_vigor.json", "a mini-VIGOR"
DRAWING = 2  # raise it with every change to the pictures, so that two kinds never mix in one folder

WIDTH = Number(int, least=64, most=4096, multiple_of=4)
_DISTRICT = {"default": 150, "varied": 40}  # panoramas in one world, at most: it bounds the memory of a worker
_ATTEMPTS = 5  # worlds of a district that are tried, until one has room for its panoramas
_CLEAR_M = 2.0  # free street around a camera
_CAR_M = 5.0  # to the middle of the nearest car
_drawn = partial(setting, group="what is drawn")


@dataclass(frozen=True)
class Drawing(Settings):
    """What is drawn for each city, as the folder's manifest says. Raises UserError for values that cannot be."""

    panoramas: int = _drawn(300, Number(int, least=2), "in each city, about as many satellite images; 2 or more", metavar="N")
    panorama_width: int = _drawn(512, WIDTH, "a multiple of 4 from 64 to 4096", metavar="PX")
    seed: int = _drawn(0, COUNT_OR_NONE, "another seed, other cities; 0 or more", metavar="N")
    styles: str = _drawn(
        "default",
        Choice(tuple(_DISTRICT)),
        "default: each city has a look of its own; varied: each 40 panoramas have, and each image a camera, for training that "
        "shall hold elsewhere",
    )
    camera_heights: tuple = _drawn(
        None,
        Number(least=0.5, most=10),
        "of varied worlds: metres between which panoramas' cameras stand (default: 1.6 to 3, most near 2.5)",
        metavar=("LOW", "HIGH"),
        count=2,
    )

    def __post_init__(self):
        super().__post_init__()
        if self.camera_heights is None:
            return
        said = "--camera_heights " + " ".join(f"{one:g}" for one in self.camera_heights)
        if self.styles != "varied":
            raise UserError(f"{said}: cameras of --styles default all stand 2.5 m high; add --styles varied")
        if self.camera_heights[0] > self.camera_heights[1]:
            raise UserError(f"{said}: expected the lower one first")


class District(NamedTuple):
    """A part of a city that is drawn as one world: the task of a process."""

    root: Path
    city: str
    number: int
    panoramas: int
    drawing: Drawing


def make(root, *, cities=CITIES, workers=2, progress=True, **drawing):
    """Draw mini-VIGOR into the folder `root`, complete one that was cut off, or leave a finished one as it is.

    workers: processes; each needs about 0.5 GB · drawing: settings of `Drawing`. Half of a city's panoramas train, half test;
    they are half as high as wide.

    Returns the folder as a Path. Raises UserError for a setting out of range or one that differs from the folder's own, for a
    folder that holds something else, and while another process draws there.
    """
    root, drawing = Path(root), Drawing(**drawing)
    if not 0 < len(cities) == len(set(cities) & set(CITIES)):
        raise UserError(f"cities {' '.join(cities)}: expected one or more of {', '.join(CITIES)}, each once")
    manifest = {"drawing": DRAWING, **drawing.plain(), "cities": list(cities)}
    if drawing.styles == "default":
        manifest["styles"] = None
    said = {name: value for name, value in manifest.items() if value is not None}  # as folders say from before there was more

    def complete():
        extracts = all(extract_path(root, city).exists() for city in cities)  # which older folders lack
        return read_own_manifest(root / MANIFEST, WHAT, manifest).get("complete") and extracts

    if complete():
        if progress:
            print(f"{root} already holds this mini-VIGOR: {drawing.panoramas} panoramas in each of {len(cities)} cities.")
        return root
    with locked(root, "is drawing mini-VIGOR into"):
        if not complete():  # nor has another process finished it meanwhile
            remove_leftovers(root)
            write_manifest(root / MANIFEST, said, complete=False)
            _draw(root, cities, drawing, workers, progress)
            write_manifest(root / MANIFEST, said, complete=True)
    return root


def extract_path(root, city):
    """Where the OpenStreetMap extract of a city lies."""
    return root / "osm" / f"{city}.osm.pbf"


def _draw(root, cities, drawing, workers, progress):
    """Draw all that is not there yet."""
    (root / "osm").mkdir(exist_ok=True)
    for city in cities:
        for folder in (f"{city}/panorama", f"{city}/satellite", f"{city}/point_prompt_mask", f"splits__corrected/{city}"):
            (root / folder).mkdir(parents=True, exist_ok=True)
    districts = [district for city in cities for district in districts_of(root, city, drawing)]
    with tqdm(
        total=drawing.panoramas * len(cities), desc=f"drawing {root}", unit="panorama", disable=None if progress else True
    ) as bar:
        drawn = _run(districts, workers, bar)
    for city in cities:
        own = [part for district, part in zip(districts, drawn, strict=True) if district.city == city]
        lines, mapped = ([one for part in parts for one in part] for parts in zip(*own, strict=True))
        training = set(generator(drawing.seed, city, "split").permutation(len(lines))[: len(lines) // 2].tolist())
        satellites = {word for line in lines for word in line.split() if word.startswith("satellite_")}
        write_lists(root / "splits__corrected" / city, satellites, lines, training, set(range(len(lines))) - training)
        write_extract(extract_path(root, city), mapped)


def districts_of(root, city, drawing):
    """The districts of a city, each of about the same number of panoramas."""
    total = drawing.panoramas
    shares = np.array_split(range(total), -(-total // _DISTRICT[drawing.styles]))
    return [District(root, city, number, len(share), drawing) for number, share in enumerate(shares)]


def lay_out(district):
    """(a district's world, a `City`; where its panoramas stand, as of `camera_places`): the first one that has room for all."""
    rows = max(2, round(district.panoramas**0.5))
    cells = rows, max(3, -(-district.panoramas // rows))
    name, number, drawing, most = district.city, district.number, district.drawing, 0
    for attempt in range(_ATTEMPTS):
        city = build(name, drawing.seed, cells, number, drawing.styles, attempt)
        places = camera_places(city, cells, district.panoramas, generator(drawing.seed, name, "places", number))
        if len(places) == district.panoramas:
            return city, places
        most = max(most, len(places))
    raise UserError(
        f"{name}: no world of {_ATTEMPTS} has room for {district.panoramas} panoramas, at most {most}; try another --seed"
    )


_tick = None  # what a process that draws calls for each panorama


def _count_with(tick):
    global _tick
    _tick = tick


def _run(districts, workers, bar):
    """Draw all districts; returns of each what `_draw_district` does."""
    if workers == 1:
        _count_with(bar.update)
        return list(map(_draw_district, districts))
    context = multiprocessing.get_context("spawn")
    ticks = context.SimpleQueue()
    follow = threading.Thread(target=lambda: [bar.update(tick) for tick in iter(ticks.get, None)], daemon=True)
    follow.start()
    with ProcessPoolExecutor(min(workers, len(districts)), context, _count_with, (partial(ticks.put, 1),)) as pool:
        drawn = list(pool.map(_draw_district, districts))  # a failure cancels what has not begun
    ticks.put(None)
    follow.join()
    return drawn


def _draw_district(district):
    """Draw the images that are not there yet; returns the label lines and what a map shows. Each panorama is a `_tick()`."""
    folder, varied = district.root / district.city, district.drawing.styles == "varied"
    city, places = lay_out(district)
    aerial = cache(partial(render.aerial, city))

    def draws(kind, *key):
        return generator(district.drawing.seed, district.city, kind, district.number, *key)

    def satellite(tile):
        rng = draws("satellite", tile[0] + 1, tile[1] + 1)
        return render.satellite(aerial(), *tile_centre(tile), rng, looks.draw_satellite_look(rng) if varied else None)

    def mask(tile):
        rows, cols = (slice(n - geometry.SATELLITE_PX // 2, n + geometry.SATELLITE_PX // 2) for n in tile_centre(tile))
        return city.drivable[rows, cols]

    def draw(path, options, render, *key):
        if not path.exists():
            write_bytes(path, encode(render(*key), path.suffix, *options))

    lines = []
    for index, (cell, gps) in enumerate(places):
        rng = draws("panorama", index)
        identifier = base64.urlsafe_b64encode(rng.bytes(16)).decode().rstrip("=")
        name, satellites = f"{identifier},{gps[0]},{gps[1]},.jpg", []
        row, col = raster_px(city, gps)
        for tile in tiles_around(cell, row, col, city.style.outside, rng):
            tile_gps = _written(city, tile_centre(tile), 10)
            stem = f"satellite_{tile_gps[0]}_{tile_gps[1]}"
            satellites.append((f"{stem}.png", tile_gps))
            draw(folder / "satellite" / f"{stem}.png", (cv2.IMWRITE_PNG_COMPRESSION, 1), satellite, tile)
            draw(folder / "point_prompt_mask" / f"{stem}_mask.tif", (cv2.IMWRITE_TIFF_COMPRESSION, 8), mask, tile)
        taken = (looks.draw_camera(rng, district.drawing.camera_heights), looks.draw_panorama_look(rng)) if varied else ()
        panorama = partial(render.panorama, city, row, col, district.drawing.panorama_width, rng, *taken)
        draw(folder / "panorama" / name, (cv2.IMWRITE_JPEG_QUALITY, 92), panorama)
        lines.append(label_line(name, gps, satellites))
        _tick()
    return lines, list(features(city))


def camera_places(city, cells, count, rng):
    """[(cell, (latitude, longitude) as in names), ...] of up to `count` cameras: on free street, spread over the cells."""
    all_cells, found = np.stack(np.indices(cells), -1).reshape(-1, 2), []
    for _ in range(200):
        for cell in rng.permutation(all_cells):
            for place in rng.uniform(0, TILE_STEP_PX, (12, 2)) + cell * TILE_STEP_PX + MARGIN_PX:
                gps = _written(city, place, 6)
                exact = raster_px(city, gps)
                if tuple(((exact - MARGIN_PX) // TILE_STEP_PX).astype(int)) == tuple(cell) and _is_free(city, exact):
                    found.append((tuple(cell.tolist()), gps))
                    break
            if len(found) == count:
                return found
    return found


def _is_free(city, place):
    """Whether a camera can stand there: street all around, nothing overhead, no car of its own time close by."""
    clear = int(_CLEAR_M / city.metres_per_pixel)
    around = tuple(slice(int(n) - clear, int(n) + clear + 1) for n in place)
    if not city.drivable[around].all() or city.height[around].any() or (city.canopy[around].any() and not city.style.under_trees):
        return False
    cars = city.cars["panorama"][0][:, 0].mean(1)
    return len(cars) == 0 or np.hypot(*(cars - place).T).min() > _CAR_M / city.metres_per_pixel


def _written(city, place, digits):
    """(latitude, longitude) of a place in the city's rasters as names have them, with so many digits."""
    return tuple(f"{degrees:.{digits}f}" for degrees in geometry.latitude_longitude(*np.add(city.origin, place)))


def raster_px(city, gps):
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
