"""The features of a city's satellite images, computed once per network and kept on the disk, for searches.

An index is a zarr array (rows, cols, C + 2) of float16, in a folder or at any address of fsspec. The channels
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
from functools import lru_cache
from pathlib import PurePosixPath

import google_crc32c
import numpy as np
import torch
import zarr
from numcodecs import blosc
from tqdm import tqdm
from zarr.codecs import BloscCodec, Crc32cCodec

from common.errors import UserError
from common.files import resumable
from engine import distributed
from engine.search.grid import CellGrid, make_grid
from engine.search.parts import CHUNK, Builder, PartLayout
from engine.search.store import CENTRE, FILE, Store

VERSION = 5
_KEPT = 300  # chunks in memory, of all indexes; about 1 MB each
# Read in a tenth of zstd's time, a tenth larger.
_PACKED = {"cname": "lz4", "clevel": 1, "shuffle": "noshuffle", "typesize": 2}
_NAMED = 5  # parts that a message names
_EXTRA = 2  # channels besides the features
_NO_SIGN, _NO_NUMBER = np.uint16(0x7FFF), 0x7C00  # infinities and NaN of float16 are no less, without a sign
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
    parts: dict  # (row, col) of each, in chunks: what it was made of, 8 digits
    fingerprint: str  # 8 digits that change with network and images
    build: Callable  # builds some parts, a list of (row, col) in chunks

    def read(self, row, col, height, width):
        """Features (C, h, w) float32 of cells, and (h, w) bool: where a camera can stand. UserError."""
        values = self.read_all(row, col, height, width)
        features = torch.from_numpy(values[..., :-_EXTRA]).permute(2, 0, 1).contiguous()
        return features.float(), torch.from_numpy(values[..., -1] > 0)

    def brightness(self, row, col, height, width):
        """Brightness uint8 and coverage bool of a rectangle of cells, (height, width) each."""
        brightness, depth = np.moveaxis(self.read_all(row, col, height, width)[..., -_EXTRA:], -1, 0)
        return np.rint(brightness).astype(np.uint8), depth != 0

    def windows(self, corners, side):
        """`read` of N squares of cells: (N, side, side, C) float32, (N, side, side) bool. UserError.

        corners: (N, 2), their first cells (row, col).
        """
        values = np.empty((len(corners), side, side, self.array.shape[-1]), np.float16)
        for window, (row, col) in zip(values, corners.tolist(), strict=True):
            self._fill(window, row, col)
        return torch.from_numpy(values[..., :-_EXTRA]).float(), torch.from_numpy(values[..., -1] > 0)

    def read_all(self, row, col, height, width):
        """All channels of a rectangle of cells, (height, width, C + 2) float16.

        Chunks that cannot be read are named on stderr and built anew. Raises UserError where that fails.
        """
        values = np.empty((height, width, self.array.shape[-1]), np.float16)
        self._fill(values, row, col)
        return values

    def _fill(self, values, row, col):
        height, width = values.shape[:2]
        for i in range(row // CHUNK, -(-(row + height) // CHUNK)):
            for j in range(col // CHUNK, -(-(col + width) // CHUNK)):
                top, left = i * CHUNK - row, j * CHUNK - col  # of the chunk in the rectangle
                target = values[max(0, top) : top + CHUNK, max(0, left) : left + CHUNK]
                part = slice(max(0, -top), height - top), slice(max(0, -left), width - left)
                target[:] = _chunk(self, i, j)[part] if (i, j) in self.parts else 0

    def load(self, row, col):
        """A chunk, (CHUNK, CHUNK, C + 2) float16, as zarr would read it, ten times as fast. ValueError."""
        try:
            data = self.store.read(self.store.chunk(row, col))
        except FileNotFoundError:  # no cell is covered
            return np.zeros((CHUNK, CHUNK, self.array.shape[-1]), np.float16)
        content, checksum = data[:-4], data[-4:]
        if google_crc32c.value(content) != int.from_bytes(checksum, "little"):
            raise ValueError("its checksum differs")
        values = np.frombuffer(blosc.decompress(content), np.float16).reshape(CHUNK, CHUNK, -1)
        if (values.view(np.uint16) & _NO_SIGN).max() >= _NO_NUMBER:
            raise ValueError("numbers that are not finite")
        return values


@lru_cache(_KEPT)
def _chunk(index, row, col):
    """A chunk of an index; one that cannot be read is built anew. Raises UserError where that fails."""
    path = f"{index.store}/{index.store.chunk(row, col)}"
    try:
        return index.load(row, col)
    except _UNREADABLE as error:
        tqdm.write(f"{path}: cannot be read ({error}); it is built anew", file=sys.stderr)
    index.build([(row, col)])
    try:
        return index.load(row, col)
    except _UNREADABLE as error:
        raise UserError(f"{path}: cannot be read ({error}); {_ANEW}") from None


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
    layout = PartLayout(grid, tiles, made)
    build = Builder(store, array, layout, model, device, streets).build
    if missing := distributed.broadcast(_missing(store, layout) if distributed.rank() == 0 else None):
        mine = np.array_split(np.array(missing), distributed.world_size())[distributed.rank()]
        build([tuple(part) for part in mine.tolist()], f"indexing {city}")
        distributed.gather(None)  # until all parts are there
    parts = dict(sorted(layout.fingerprints.items()))
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
                    wanted = PartLayout(grid, tiles, made).fingerprints
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
    array = {"shape": (side, side, channels), "chunks": (CHUNK, CHUNK, channels), "dtype": "float16"}
    return array | {"fill_value": 0}


def _create(store, made, tiles):
    """Write an index without parts. Those of an older index are removed."""
    grid = make_grid(made["stride"], made["satellite_size"], tiles.centres_px, tiles.gps[:, 0].mean())
    array = _shape(made["channels"]) | {"compressors": [BloscCodec(**_PACKED), Crc32cCodec()]}
    array |= {"chunk_key_encoding": {"name": "default", "separator": "."}}
    about = made | {"origin": list(grid.origin), "latitude": float(grid.latitude)}
    with resumable(store):
        store.files.makedirs(store.path, exist_ok=True)
        store.remove([FILE, *(name for name in store.listing() if name.startswith(("c.", "part.")))])
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


def _missing(store, layout):
    """The parts, in order, that are not there as they should be; what does not belong there is removed."""
    chunks, records = store.parts()
    wanted = layout.fingerprints
    good = {part for part, known in records.items() if (wanted.get(part), chunks.get(part, 0)) in known}
    again = sorted({*records} & {*wanted} - good)
    for part in again[:_NAMED]:
        says = "missing, or of other images or another network"
        tqdm.write(f"{store}/{store.chunk(*part)}: {says}; it is built anew", file=sys.stderr)
    if len(again) > _NAMED:
        tqdm.write(f"{store}: so are {len(again) - _NAMED} more parts", file=sys.stderr)
    old = [store.record(part, *known) for part in {*records} - good for known in records[part]]
    with resumable(store):
        store.remove([*old, *(store.chunk(*part) for part in {*chunks} - {*wanted}), *store.leftovers()])
    return sorted({*wanted} - good)
