"""The features of a city's satellite images, computed once per network and kept on the disk, for searches.

An index is a zarr array (C + 2, rows, cols) of float16, in a folder or at any address of fsspec. The channels
of a cell are its features, its brightness (for pictures) and its depth: the distance in cells from the edge
of the image that the features come from, 0 where no image covers the cell, negative where no camera can stand
(`streets`). Where images overlap, a cell has the features of the image in which it lies deepest.

The array is larger than the whole map, and cell (0, 0) of the grid lies at its centre, so images can be added
on every side. A part of the index is a chunk, with a checksum, of the images that touch it, and a record of
what it was made of (`engine.search.store`). Nothing else is written but the array's attributes, which follow
from the images; so processes and machines build parts of one index without a lock, and whatever is missing,
cut off or of something else is built by the next command.
"""

import json
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import PurePosixPath

import numpy as np
import torch
import torch.nn.functional as F
import zarr
from tqdm import tqdm
from zarr.codecs import Crc32cCodec, ZstdCodec

from common.errors import UserError
from common.files import resumable
from common.geometry import SATELLITE_PX
from efficientnet_pytorch.utils import normalise
from engine import distributed
from engine.search.grid import CellGrid, make_grid
from engine.search.store import CENTRE, FILE, Store

VERSION = 4
CHUNK = 128  # cells on a side; measured: blocks of 256 cells with a rim are read faster than with 64 or 256
_EXTRA = 2  # channels besides the features
_BATCH = 16  # images per forward pass
_NO_NUMBER = np.uint16(0x7C00)  # the exponent of infinities and NaN in float16
_CHECKSUM = "checksum"  # of the attributes
_ANEW = "search_VIGOR.py --rebuild makes the index anew"
_UNREADABLE = (OSError, ValueError, TypeError, KeyError, RuntimeError)  # what zarr raises for damaged files


@dataclass(eq=False)
class CityIndex:
    """The features of a city on the disk; `open_index` makes it."""

    store: Store
    grid: CellGrid
    array: zarr.Array
    bounds: tuple  # of all images in cells: first row, first col, end row, end col
    parts: list  # (row, col) of each, in chunks
    fingerprint: str  # 8 digits that change with network and images
    build: Callable  # builds some parts, a list of (row, col) in chunks

    def read(self, row, col, height, width):
        """Features (C, h, w) float32 of cells, and (h, w) bool: where a camera can stand. UserError."""
        values = self.read_all(row, col, height, width)
        return torch.from_numpy(values[:-_EXTRA]).float(), torch.from_numpy(values[-1] > 0)

    def brightness(self, row, col, height, width):
        """Brightness uint8 and coverage bool of a rectangle of cells, (height, width) each."""
        brightness, depth = self.read_all(row, col, height, width)[-_EXTRA:]
        return np.rint(brightness).astype(np.uint8), depth != 0

    def read_all(self, row, col, height, width):
        """All channels of a rectangle of cells, (C + 2, height, width) float16.

        Chunks that cannot be read are named on stderr and built anew. Raises UserError where that fails.
        """
        window = _window(row, col, height, width)
        try:
            return _finite(self.array[window])
        except _UNREADABLE as error:
            rows = range(row // CHUNK, -(-(row + height) // CHUNK))
            cols = range(col // CHUNK, -(-(col + width) // CHUNK))
            damaged = [chunk for chunk in product(rows, cols) if self._is_damaged(*chunk)]
            for chunk in damaged:
                says = f"cannot be read ({error}); it is built anew"
                tqdm.write(f"{self.store}/{self.store.chunk(*chunk)}: {says}", file=sys.stderr)
            self.build(damaged)
        try:
            return _finite(self.array[window])
        except _UNREADABLE as error:
            raise UserError(f"{self.store}: cannot be read ({error}); {_ANEW}") from None

    def _is_damaged(self, row, col):
        try:
            return _finite(self.array[_window(row * CHUNK, col * CHUNK, CHUNK, CHUNK)]) is None
        except _UNREADABLE:
            return True


def open_index(address, model, weights, city, tiles, device, rebuild=False, streets=False):
    """The `CityIndex` of a city by a network: the one at an address, whose missing parts are built.

    The processes of torchrun call this together and share the parts.

    address: a folder, or an address of fsspec.
    model, tiles: a network with templates, in evaluation mode on its device, and the city's `Tiles`.
    weights: the hash of the network's file; rebuild: make the index anew.
    streets: cameras stand where the masks have streets, so that only these cells are searched.

    Raises UserError if the folder holds an index of something else or cannot be written.
    """
    if not len(tiles.names):
        raise UserError(f"{city}: its list names no satellite image, so there is nothing to search in")
    store, made = Store(address), _made(model, weights, city, streets)
    with distributed.first():
        if distributed.rank() == 0 and (rebuild or FILE not in store.listing()):
            _create(store, made, tiles)
    array, grid = _find(store, made)
    layout = _Layout(grid, tiles, made)
    build = Builder(store, array, layout, model, device, streets).build
    if missing := distributed.broadcast(_missing(store, layout) if distributed.rank() == 0 else None):
        mine = np.array_split(np.array(missing), distributed.world_size())[distributed.rank()]
        build([tuple(part) for part in mine.tolist()], f"indexing {city}")
        distributed.gather(None)  # until all parts are there
    parts = sorted(layout.fingerprints)
    return CityIndex(store, grid, array, layout.bounds, parts, layout.fingerprint, build)


def index_address(root, model, weights, city, tiles, streets=False):
    """The address below `root` of a city's index: one that shares parts with these images, else a new one.

    It is named after the city and the images' fingerprint, so that cities of one name in two data sets have
    an index each, and an index to which images are added goes on. Arguments: as of `open_index`.
    """
    root = str(root).rstrip("/")
    named = f"{root}/{city}{'_streets' if streets else ''}_{tiles.fingerprint}"
    if FILE in Store(named).listing():
        return named
    made, files = _made(model, weights, city, streets), Store(root)
    beside = PurePosixPath(named).name.rpartition("_")[0]
    with suppress(FileNotFoundError):
        for path in sorted(files.files.ls(files.path, detail=False)):
            name = PurePosixPath(path).name
            if name.rpartition("_")[0] == beside:
                with suppress(UserError):
                    _, grid = _find(store := Store(f"{root}/{name}"), made)
                    wanted = _Layout(grid, tiles, made).fingerprints
                    _, records = store.parts()
                    if any(wanted.get(part) in dict(known) for part, known in records.items()):
                        return store.address
    return named


def _made(model, weights, city, streets):
    """What an index is made with, as its attributes have it."""
    stride = model.matching.search_stride
    made = {"version": VERSION, "city": city, "weights": weights, "stride": stride, "streets": streets}
    return made | {
        "satellite_size": model.settings.satellite_size,
        "channels": model.matching.channels[stride],
    }


def _sealed(about):
    """The attributes of an index with their checksum: what stands there decides where all places lie."""
    about = {name: value for name, value in about.items() if name != _CHECKSUM}
    return about | {_CHECKSUM: zlib.crc32(json.dumps(about, sort_keys=True).encode())}


def _shape(channels):
    """Of the array: parameters of zarr."""
    channels, side = channels + _EXTRA, 2 * CENTRE * CHUNK
    array = {"shape": (channels, side, side), "chunks": (channels, CHUNK, CHUNK), "dtype": "float16"}
    return array | {"fill_value": 0}


def _create(store, made, tiles):
    """Write an index without parts. Those of an older index are removed."""
    grid = make_grid(made["stride"], made["satellite_size"], tiles.centres_px, tiles.gps[:, 0].mean())
    array = _shape(made["channels"]) | {"compressors": [ZstdCodec(level=1), Crc32cCodec()]}
    array |= {"chunk_key_encoding": {"name": "default", "separator": "."}}
    about = made | {"origin": list(grid.origin), "latitude": float(grid.latitude)}
    with resumable(store):
        store.files.makedirs(store.path, exist_ok=True)
        store.remove([FILE, *(name for name in store.listing() if name.startswith(("c.0.", "part.")))])
        zarr.create_array(store.zarr, **array, attributes=_sealed(about))


def _find(store, made):
    """(array, `CellGrid`) of an index. Raises UserError if it was not made of `made`."""
    path = f"{store}/{FILE}"
    try:
        array = zarr.open_array(store.zarr, mode="r+", zarr_format=3)
    except _UNREADABLE as error:
        raise UserError(f"{path}: cannot be read ({error}); {_ANEW}") from None
    manifest = array.attrs.asdict()
    for name, value in made.items():
        if manifest.get(name) != value:
            differs = f"made with {name} {manifest.get(name)}, not {value}"
            raise UserError(f"{path}: {differs}; {_ANEW}, --index_root chooses another place")
    stored = {name: getattr(array, name) for name in _shape(0)} | {"dtype": str(array.dtype)}
    if manifest != _sealed(manifest) or stored != _shape(made["channels"]):
        raise UserError(f"{path}: damaged, its checksum differs; {_ANEW}")
    grid = CellGrid(made["stride"], made["satellite_size"], tuple(manifest["origin"]), manifest["latitude"])
    return array, grid


class _Layout:
    """Where a city's images lie on the grid, and in which parts of the index."""

    def __init__(self, grid, tiles, made):
        self.grid, self.tiles = grid, tiles
        pixels = np.rint(grid.to_cells(tiles.centres_px - SATELLITE_PX / 2) * grid.stride).astype(int)
        self.cuts = -pixels % grid.stride  # pixels to cut off in the north and west
        self.firsts = (pixels + self.cuts) // grid.stride  # the first cell (row, col)
        self.side = grid.satellite_size // grid.stride
        self.bounds = (*self.firsts.min(0).tolist(), *(self.firsts.max(0) + self.side).tolist())
        self.images = {}  # {(row, col) of a part: numbers of its images}
        ends = (self.firsts + self.side - 1) // CHUNK
        for i, (first, end) in enumerate(zip((self.firsts // CHUNK).tolist(), ends.tolist(), strict=True)):
            for row in range(first[0], end[0] + 1):
                for col in range(first[1], end[1] + 1):
                    self.images.setdefault((row, col), []).append(i)
        self.fingerprints = {part: self._fingerprint(part, made) for part in self.images}

    @property
    def fingerprint(self):
        """8 digits that change with any part's."""
        return f"{zlib.crc32(repr(sorted(self.fingerprints.items())).encode()):08x}"

    def _fingerprint(self, part, made):
        """8 digits that change with what a part is made of."""
        tiles, places = self.tiles, np.hstack([self.firsts, self.cuts])
        images = sorted((tiles.names[i], tiles.sizes[i], *places[i].tolist()) for i in self.images[part])
        return f"{zlib.crc32(repr((sorted(made.items()), images)).encode()):08x}"


def _missing(store, layout):
    """The parts, in order, that are not there as they should be; what does not belong there is removed."""
    chunks, records = store.parts()
    wanted = layout.fingerprints
    good = {part for part, known in records.items() if [(wanted.get(part), chunks.get(part, 0))] == known}
    for part in sorted({*records} & {*wanted} - good):
        says = "missing, or of other images or another network"
        tqdm.write(f"{store}/{store.chunk(*part)}: {says}; it is built anew", file=sys.stderr)
    with resumable(store):
        for part in {*chunks, *records} - {*wanted}:
            store.remove([*store.records(part), store.chunk(*part)])
        store.remove(store.leftovers())
    return sorted({*wanted} - good)


class Builder:
    """Builds parts of an index."""

    def __init__(self, store, array, layout, model, device, streets):
        self.store, self.array, self.layout, self.model = store, array, layout, model
        self.device, self.streets = device, streets

    def build(self, parts, description="indexing"):
        """Build parts, (row, col) each, under a progress bar, so that memory does not grow with the city."""
        layout, kept = self.layout, {}
        last = {i: part for part in parts for i in layout.images[part]}  # the last part of each image
        quiet = None if distributed.rank() == 0 and len(parts) > 1 else True
        with tqdm(total=len(last), desc=description, unit="image", disable=quiet) as bar:
            for part in parts:
                numbers = layout.images[part]
                new = [i for i in numbers if i not in kept]
                for k in range(0, len(new), _BATCH):
                    kept |= self._encode(new[k : k + _BATCH])
                    bar.update(len(new[k : k + _BATCH]))
                self._write(part, [(i, kept[i]) for i in numbers if kept[i] is not None])
                for i in numbers:
                    if last[i] == part:
                        del kept[i]

    def _write(self, part, images):
        cells = np.zeros((self.array.shape[0], CHUNK, CHUNK), np.float16)
        corner = np.array(part) * CHUNK
        for i, values in images:
            first = self.layout.firsts[i] - corner
            start, end = np.maximum(first, 0), np.minimum(first + self.layout.side, CHUNK)
            target = cells[:, start[0] : end[0], start[1] : end[1]]
            source = values[:, start[0] - first[0] :, start[1] - first[1] :]
            source = source[:, : target.shape[1], : target.shape[2]]
            deeper = abs(source[-1]) > abs(target[-1])
            target[:, deeper] = source[:, deeper]
        with resumable(self.store):
            self.store.remove(self.store.records(part))
            self.array[_window(*corner.tolist(), CHUNK, CHUNK)] = cells
            self.store.record(part, self.layout.fingerprints[part])

    def _encode(self, numbers):
        """{number: channels (C + 2, h, w) float16 of an image's cells}, None for images that are left out."""
        tiles, grid, cuts = self.layout.tiles, self.layout.grid, self.layout.cuts
        found = dict.fromkeys(numbers)
        pictures = {i: picture for i in numbers if (picture := tiles.load(i)) is not None}
        if not pictures:
            return found

        def moved(image, i):
            down, right = cuts[i]
            spare = ((0, down), (0, right), *[(0, 0)] * (image.ndim - 2))
            return np.pad(image[down:, right:], spare, mode="edge")

        batch = np.stack([moved(picture, i) for i, picture in pictures.items()])
        batch = torch.from_numpy(batch).permute(0, 3, 1, 2).to(self.device)
        with torch.inference_mode():
            features = self.model.encode_satellite(normalise(batch), grid.stride)
            brightness = F.avg_pool2d(batch.float().mean(1, keepdim=True), grid.stride)
            values = torch.cat([features, brightness], 1).half().cpu().numpy()
        if not np.isfinite(values).all():
            says = "the network gives features that are not finite in float16"
            raise UserError(f"{says}; its training went wrong")
        side = values.shape[-1]
        for i, of_image in zip(pictures, values, strict=True):
            # (2, side), rows and columns of the cells' centres in the image before the cut.
            centres = np.arange(side) + 0.5 + cuts[i][:, None] / grid.stride
            rows, cols = np.minimum(centres, side - centres)
            depth = np.minimum(rows[:, None], cols)
            # Negative for cells whose centre lies in the padding; a centre on the very edge is covered.
            depth = np.where(depth >= 0, np.maximum(depth, 0.01), 0).astype(np.float16)
            if self.streets and (mask := tiles.mask(i)) is not None:
                depth[~_on_street(moved(mask, i), grid.stride)] *= -1
            found[i] = np.concatenate([of_image, depth[None]])
        return found


def _on_street(mask, stride):
    """(h, w) bool: cells of a mask (S, S) that have street in them or beside them."""
    street = torch.from_numpy(mask)[None].float()
    return (F.max_pool2d(F.max_pool2d(street, stride), 3, 1, 1)[0] > 127).numpy()


def _finite(values):
    if ((values.view(np.uint16) & _NO_NUMBER) == _NO_NUMBER).any():
        raise ValueError("numbers that are not finite")
    return values


def _window(row, col, height, width):
    """A rectangle of cells as an index of the array."""
    top, left = row + CENTRE * CHUNK, col + CENTRE * CHUNK
    return slice(None), slice(top, top + height), slice(left, left + width)
