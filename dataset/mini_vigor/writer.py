"""Writes mini-VIGOR: several processes draw its districts, in exactly VIGOR's layout."""

import base64
import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from common import geometry
from common.errors import UserError
from common.files import locked, remove_leftovers, resumable, write_bytes
from common.settings import SEED, Choice, Number, Settings, setting
from dataset.decoding import encode, is_whole
from dataset.layout import STEP_PX, VIGOR
from dataset.lists import label_line, lists_of, satellite_at, write_lists, written_gps
from dataset.manifest import read_own_manifest, write_manifest
from dataset.mini_vigor import looks, render
from dataset.mini_vigor.city import MARGIN_PX, STYLES, generator
from dataset.mini_vigor.extract import features, write_extract
from dataset.mini_vigor.plan import build

CITIES = tuple(STYLES)
MANIFEST, WHAT = "mini_vigor.json", "a mini-VIGOR"
DRAWING = 2  # raise it with every change to the pictures, so that one folder never mixes two versions
# Most of one world, which bounds the memory of a worker.
WORLD_PANORAMAS = {"default": 150, "varied": 40, "rural": 40, "downtown": 40, "hard": 40}
HARD = ("downtown", "varied", "rural", "varied")  # what the districts of --styles hard are, in turn
HARD_HEIGHTS = 1.5, 4.2  # metres of their cameras, if no others are given
_ATTEMPTS = 5  # number of worlds that `lay_out` tries for a district
_CAR_M = 5.0  # least distance from a camera to the centre of a car
_WIDTH, _HEIGHT = Number(int, least=64, most=4096, multiple_of=4), Number(least=0.5, most=10)
_STYLES_HELP = (
    "default: a look for each city; varied: one for each 40 panoramas, and a camera for each image; rural, "
    "downtown: likewise, fields and towers; hard: all three in turn, tilted cameras, 1.5 to 4.2 m high, and "
    "cropped panoramas; of several names the districts of a city take one after another"
)
_HEIGHTS_HELP = "heights of varied worlds' cameras, in metres (default: 1.6 to 3, most near 2.5)"
_HALF_PX = geometry.SATELLITE_PX // 2
_drawn = partial(setting, group="what is drawn")


@dataclass(frozen=True)
class Drawing(Settings):
    """Settings of the drawing, as in the folder's manifest. Raises UserError for a wrong value."""

    panoramas: int = _drawn(
        300, Number(int, least=2, most=100_000), "per city, and about as many tiles", metavar="N"
    )
    panorama_width: int = _drawn(512, _WIDTH, "a multiple of 4 from 64 to 4096", metavar="PX")
    seed: int = _drawn(0, SEED, "another seed draws other cities; 0 or more", metavar="N")
    styles: tuple = _drawn(("default",), Choice(tuple(WORLD_PANORAMAS)), _STYLES_HELP, count="+")
    camera_heights: tuple = _drawn(None, _HEIGHT, _HEIGHTS_HELP, metavar=("LOW", "HIGH"), count=2)

    def __post_init__(self):
        if isinstance(self.styles, str):
            object.__setattr__(self, "styles", (self.styles,))
        super().__post_init__()
        if self.camera_heights is None:
            return
        flag = "--camera_heights {:g} {:g}".format(*self.camera_heights)
        if "default" in self.styles:
            raise UserError(f"{flag}: all cameras of --styles default stand 2.5 m high; add --styles varied")
        if self.camera_heights[0] > self.camera_heights[1]:
            raise UserError(f"{flag}: expected the lower one first")


class District(NamedTuple):
    """A part of a city that is drawn as one world, by one process."""

    root: Path
    city: str
    number: int
    panoramas: int
    drawing: Drawing

    @property
    def named(self):
        """The name of its style among the drawing's, which the districts of a city take in turn."""
        return self.drawing.styles[self.number % len(self.drawing.styles)]

    @property
    def style(self):
        """The style of its streets."""
        return HARD[self.number % len(HARD)] if self.named == "hard" else self.named

    def draw_camera(self, rng):
        """A `looks.DrawnCamera` for one of its panoramas."""
        hard, heights = self.named == "hard", self.drawing.camera_heights
        return looks.draw_camera(rng, heights or (HARD_HEIGHTS if hard else None), hard)

    def generator(self, part, *key):
        """The random generator of a named part of the district."""
        return generator(self.drawing.seed, self.city, part, self.number, *key)


def make(root, *, cities=CITIES, workers=2, progress=True, **drawing):
    """Draw mini-VIGOR into the folder `root`, complete an unfinished one, or leave a finished one unchanged.

    `drawing` holds settings of `Drawing`. Half of a city's panoramas are for training, half for testing. Each
    of the worker processes needs about 0.5 GB. Returns the folder as a Path. Raises UserError for a setting
    that is out of range or differs from the folder's own, for a folder with other content, and while another
    process draws there.
    """
    root, drawing = Path(root), Drawing(**drawing)
    if not 0 < len(cities) == len(set(cities) & set(CITIES)):
        raise UserError(f"cities {' '.join(cities)}: expected one or more of {', '.join(CITIES)}, each once")
    styles = drawing.styles[0] if len(drawing.styles) == 1 else list(drawing.styles)
    styles = None if styles == "default" else styles  # older folders do not name the default
    manifest = {"drawing": DRAWING, **drawing.plain(), "cities": list(cities), "styles": styles}
    written = {name: value for name, value in manifest.items() if value is not None}

    def complete():
        extracts = all(extract_path(root, city).exists() for city in cities)  # older folders lack them
        return read_own_manifest(root / MANIFEST, WHAT, manifest).get("complete") and extracts

    if complete():
        if progress:
            print(f"{root} already holds this mini-VIGOR: {drawing.panoramas} panoramas per city")
        return root
    with locked(root, "is drawing mini-VIGOR into"), resumable(root):
        if not complete():  # another process may have finished it meanwhile
            remove_leftovers(root)
            write_manifest(root / MANIFEST, written, complete=False)
            _draw(root, cities, drawing, workers, progress)
            write_manifest(root / MANIFEST, written, complete=True)
    return root


def extract_path(root, city):
    """Path of a city's OpenStreetMap extract."""
    return root / "osm" / f"{city}.osm.pbf"


def _draw(root, cities, drawing, workers, progress):
    """Draw all missing images, then write lists and extracts."""
    for city in cities:
        images = (root / folder.format(city=city) for folder in VIGOR)
        for folder in (*images, lists_of(root, city), extract_path(root, city).parent):
            folder.mkdir(parents=True, exist_ok=True)
    districts = [district for city in cities for district in districts_of(root, city, drawing)]
    total = drawing.panoramas * len(cities)
    with tqdm(total=total, desc=f"drawing {root}", unit="panorama", disable=not progress or None) as bar:
        drawn = _run(districts, workers, bar)
    for city in cities:
        parts = [part for district, part in zip(districts, drawn, strict=True) if district.city == city]
        lines, mapped = (list(chain.from_iterable(lists)) for lists in zip(*parts, strict=True))
        order = generator(drawing.seed, city, "split").permutation(len(lines)).tolist()
        half = len(lines) // 2
        satellites = {word for line in lines for word in line.split() if word.startswith("satellite_")}
        write_lists(lists_of(root, city), satellites, lines, order[:half], order[half:])
        write_extract(extract_path(root, city), mapped)


def districts_of(root, city, drawing):
    """The districts of a city, each with about the same number of panoramas."""
    total, most = drawing.panoramas, min(WORLD_PANORAMAS[name] for name in drawing.styles)
    shares = np.array_split(range(total), -(-total // most))
    return [District(root, city, number, len(share), drawing) for number, share in enumerate(shares)]


def lay_out(district):
    """(world, `camera_places`) of a district: its first world with room for all panoramas."""
    count, drawing, most = district.panoramas, district.drawing, 0
    rows = max(2, round(count**0.5))
    cells = rows, max(3, -(-count // rows))
    for attempt in range(_ATTEMPTS):
        city = build(district.city, drawing.seed, cells, district.number, district.style, attempt)
        places = camera_places(city, cells, count, district.generator("places"))
        if len(places) == count:
            return city, places
        most = max(most, len(places))
    room = f"no world of {_ATTEMPTS} has room for {count} panoramas, at most {most}"
    raise UserError(f"{district.city}: {room}; try another --seed")


_tick = None  # a drawing process calls it for each panorama


def _count_with(tick):
    global _tick
    _tick = tick


def _run(districts, workers, bar):
    """Draw all districts; returns the results of `_draw_district`."""
    if workers == 1:
        _count_with(bar.update)
        return list(map(_draw_district, districts))
    context = multiprocessing.get_context("spawn")
    ticks = context.SimpleQueue()
    follow = threading.Thread(target=lambda: list(map(bar.update, iter(ticks.get, None))), daemon=True)
    follow.start()
    tick = partial(ticks.put, 1)
    with ProcessPoolExecutor(min(workers, len(districts)), context, _count_with, (tick,)) as pool:
        drawn = list(pool.map(_draw_district, districts))  # a failure cancels the districts that wait
    ticks.put(None)
    follow.join()
    return drawn


def _draw_district(district):
    """Draw a district's missing images, with a `_tick` per panorama; returns label lines and map features."""
    drawing = district.drawing
    varied = district.style != "default"
    city, places = lay_out(district)
    aerial = cache(partial(render.aerial, city))

    def satellite(tile):
        rng = district.generator("satellite", tile[0] + 1, tile[1] + 1)
        look = looks.draw_satellite_look(rng) if varied else None
        return render.satellite(aerial(), *tile_centre(tile), rng, look)

    def mask(tile):
        return city.drivable[tuple(slice(at - _HALF_PX, at + _HALF_PX) for at in tile_centre(tile))]

    def path(kind, name):
        return district.root / VIGOR.image(kind, district.city, name).path

    def draw(path, options, render, *key):
        if not is_whole(path):
            write_bytes(path, encode(render(*key), path.suffix, *options))

    lines = []
    for index, (cell, gps) in enumerate(places):
        rng = district.generator("panorama", index)
        identifier = base64.urlsafe_b64encode(rng.bytes(16)).decode().rstrip("=")
        name, satellites = f"{identifier},{gps[0]},{gps[1]},.jpg", []
        row, col = raster_px(city, gps)
        for tile in tiles_around(cell, row, col, city.style.outside, rng):
            satellites.append(satellite_at(np.add(city.origin, tile_centre(tile)), 10))
            named = satellites[-1][0]
            draw(path("satellite", named), (cv2.IMWRITE_PNG_COMPRESSION, 1), satellite, tile)
            draw(path("mask", named), (cv2.IMWRITE_TIFF_COMPRESSION, 8), mask, tile)
        taken = ()
        if varied:
            taken = district.draw_camera(rng), looks.draw_panorama_look(rng)
        panorama = partial(render.panorama, city, row, col, drawing.panorama_width, rng, *taken)
        draw(path("panorama", name), (cv2.IMWRITE_JPEG_QUALITY, 92), panorama)
        lines.append(label_line(name, gps, satellites))
        _tick()
    return lines, features(city)


def camera_places(city, cells, count, rng):
    """[(cell, (latitude, longitude) as in names), ...] of up to `count` cameras, spread over the cells."""
    every_cell, places = np.stack(np.indices(cells), -1).reshape(-1, 2), []
    for _ in range(200):
        for cell in rng.permutation(every_cell):
            for place in rng.uniform(0, STEP_PX, (12, 2)) + cell * STEP_PX + MARGIN_PX:
                gps = written_gps(np.add(city.origin, place), 6)
                exact = raster_px(city, gps)
                if ((exact - MARGIN_PX) // STEP_PX == cell).all() and _is_free(city, exact):
                    places.append((tuple(cell.tolist()), gps))
                    break
            if len(places) == count:
                return places
    return places


def _is_free(city, place):
    """Whether a camera can stand there: street around it, nothing overhead, no car of its time nearby."""
    clear = int(city.style.clear / city.metres_per_pixel)
    around = tuple(slice(int(at) - clear, int(at) + clear + 1) for at in place)
    hidden = city.canopy[around].any() and not city.style.under_trees
    if hidden or city.height[around].any() or not city.drivable[around].all():
        return False
    cars = city.cars["panorama"][0][:, 0].mean(1)
    return not (np.hypot(*(cars - place).T) <= _CAR_M / city.metres_per_pixel).any()


def raster_px(city, gps):
    """(row, col) in the city's rasters of a (latitude, longitude) from a file name."""
    return np.subtract(geometry.mercator_px(*map(float, gps)), city.origin)


def tile_centre(tile):
    """(row, col) in the rasters of a tile's centre, which is its cell's: whole numbers."""
    return tuple(MARGIN_PX + at * STEP_PX + STEP_PX // 2 for at in tile)


def tiles_around(cell, row, col, outside, rng):
    """The positive and three semi-positives of a camera, as (row, col) of their cells.

    The semi-positives complete the 2 x 2 block around the camera. A share `outside` of them is one step away
    on the other side, so that the camera is just outside their image.
    """
    centre = tile_centre(cell)
    down, right = (1 if row >= centre[0] else -1), (1 if col >= centre[1] else -1)
    near, far = ((0, right), (down, 0), (down, right)), ((0, -right), (-down, 0), (-down, right))
    moves = [other if rng.random() < outside else move for move, other in zip(near, far, strict=True)]
    return [cell, *((cell[0] + rows, cell[1] + cols) for rows, cols in moves)]
