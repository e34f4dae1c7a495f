"""The features of a city's satellite images, computed once per network and kept on the disk, for searches.

The folder is a zarr array (C + 2, rows, cols) of float16. The channels of a cell are its features, its
brightness (for pictures) and its depth: the distance in cells from the edge of the image that the features
come from, 0 where no image covers the cell. Where images overlap, a cell has the features of the image in
which it lies deepest.

The array is larger than the whole map, and cell (0, 0) of the grid lies at its centre, so images can be added
on every side. Only chunks that images touch are stored, each with a checksum. The array's attributes say
which weights and grid the index belongs to, and which images it holds, with a checksum of their own.
"""

import glob
import json
import zlib
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import zarr
from tqdm import tqdm
from zarr.codecs import Crc32cCodec, ZstdCodec

from common.errors import UserError
from common.files import locked, resumable
from common.geometry import SATELLITE_PX
from efficientnet_pytorch.utils import normalise
from engine.search.grid import CellGrid, make_grid

VERSION = 3
FILE = "zarr.json"
OLD_FILE = "index.json"  # of version 1
CHUNK = 128  # cells on a side; measured: blocks of 256 cells with a rim are read faster than with 64 or 256
BLOCK = 256  # cells on a side, whose images are added at a time
_CENTRE = 2**21  # row and column, in chunks, of the grid's cell (0, 0) in the array
_EXTRA = 2  # channels besides the features
_BATCH = 16  # images per forward pass
_NO_NUMBER = np.uint16(0x7C00)  # the exponent of infinities and NaN in float16
_CHECKSUM = "checksum"  # of the attributes
_ANEW = "search_VIGOR.py --rebuild makes the index anew"
_UNREADABLE = (OSError, ValueError, TypeError, KeyError, RuntimeError)  # what zarr raises for damaged files


@dataclass(eq=False)
class CityIndex:
    """The features of a city on the disk; `open_index` makes it."""

    folder: Path  # of the array
    grid: CellGrid
    array: zarr.Array
    names: list  # of the images that it holds
    sizes: list  # of their files, bytes
    bounds: tuple  # of all images in cells: first row, first col, end row, end col

    @cached_property
    def chunks(self):
        """{(row, col) of a chunk on the disk: its file}; chunk (0, 0) begins at cell (0, 0)."""
        files = [path for path in self.folder.glob("c.0.*") if path.suffix != ".partial"]
        return {tuple(int(part) - _CENTRE for part in path.name.split(".")[2:]): path for path in files}

    def read(self, row, col, height, width):
        """Features (C, h, w) float32 and coverage (h, w) bool of cells. UserError if a chunk is damaged."""
        values = self.read_all(row, col, height, width)
        return torch.from_numpy(values[:-_EXTRA]).float(), torch.from_numpy(values[-1] > 0)

    def brightness(self, row, col, height, width):
        """Brightness uint8 and coverage bool of a rectangle of cells, (height, width) each."""
        brightness, depth = self.read_all(row, col, height, width)[-_EXTRA:]
        return np.rint(brightness).astype(np.uint8), depth > 0

    def read_all(self, row, col, height, width):
        """All channels of a rectangle of cells, (C + 2, height, width) float16."""
        try:
            values = self.array[_window(row, col, height, width)]
            if ((values.view(np.uint16) & _NO_NUMBER) == _NO_NUMBER).any():
                raise ValueError("numbers that are not finite")
            return values
        except _UNREADABLE as error:
            damaged = (file for chunk, file in self.chunks.items() if self._is_damaged(*chunk))
            raise UserError(f"{next(damaged, self.folder)}: cannot be read ({error}); {_ANEW}") from None

    def _is_damaged(self, row, col):
        try:
            return self.array.blocks[0, row + _CENTRE, col + _CENTRE] is None
        except _UNREADABLE:
            return True


def open_index(folder, model, weights, city, tiles, device, rebuild=False):
    """The `CityIndex` of a city by a network: the one in `folder`, to which missing images are added.

    model, tiles: a network with templates, in evaluation mode on its device, and the city's `Tiles`.
    weights: the hash of the network's file; rebuild: make the index anew.

    Raises UserError if the folder holds an index of something else, is in use or cannot be written.
    """
    folder = Path(folder)
    if not len(tiles.names):
        raise UserError(f"{city}: its list names no satellite image, so there is nothing to search in")
    made = _made(model, weights, city)
    index = None if rebuild else _find(folder, made, tiles)
    if index is None or len(index.names) < len(tiles.names):
        with locked(folder, "is writing an index in"):
            # Another process may have written it since.
            index = None if rebuild else _find(folder, made, tiles, "r+")
            if index is None:
                _create(folder, made, tiles)
                index = _find(folder, made, tiles, "r+")
            _extend(index, model, tiles, device)
        index = _find(folder, made, tiles)
    return index


def index_folder(root, model, weights, city, tiles):
    """The folder below `root` of a city's index: one of these images, or of some of them, else a new one.

    It is named after the city and the images' fingerprint, so that cities of one name in two data sets, and
    images that were changed in their place, have an index each. Arguments: as of `open_index`.
    """
    named = Path(root) / f"{city}_{tiles.fingerprint}"
    if not (named / FILE).exists():
        made, sizes = _made(model, weights, city), dict(zip(tiles.names, tiles.sizes, strict=True))
        for folder in sorted(Path(root).glob(f"{glob.escape(city)}_*")):
            with suppress(*_UNREADABLE):
                held = zarr.open_array(folder, mode="r", zarr_format=3).attrs.asdict()
                of_these = dict(zip(held["names"], held["sizes"], strict=True)).items() <= sizes.items()
                # An index without images yet may have been begun for another place.
                if held["names"] and of_these and all(held[name] == value for name, value in made.items()):
                    return folder
    return named


def _made(model, weights, city):
    """What an index is made with, as its attributes have it."""
    stride = model.matching.search_stride
    made = {"version": VERSION, "city": city, "weights": weights, "stride": stride}
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
    channels, side = channels + _EXTRA, 2 * _CENTRE * CHUNK
    array = {"shape": (channels, side, side), "chunks": (channels, CHUNK, CHUNK), "dtype": "float16"}
    return array | {"fill_value": 0}


def _find(folder, made, tiles, mode="r"):
    """The `CityIndex` in a folder, or None. Raises UserError if it was not made of `made` and `tiles`."""
    path = folder / FILE
    if not path.exists():
        if (folder / OLD_FILE).exists():
            raise UserError(f"{folder / OLD_FILE}: made with version 1, not {VERSION}; {_ANEW}")
        return None
    try:
        array = zarr.open_array(folder, mode=mode, zarr_format=3)
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
    sizes = dict(zip(tiles.names, tiles.sizes, strict=True))
    for name, size in zip(manifest["names"], manifest["sizes"], strict=True):
        if sizes.get(name) != size:
            says = "has changed since" if name in sizes else "is not in the list any more"
            raise UserError(f"{path}: holds {name}, which {says}; {_ANEW}")
    grid = CellGrid(made["stride"], made["satellite_size"], tuple(manifest["origin"]), manifest["latitude"])
    firsts, _ = _first_cells(grid, tiles)
    ends = firsts.max(0) + grid.satellite_size // grid.stride
    index = CityIndex(
        folder, grid, array, manifest["names"], manifest["sizes"], (*firsts.min(0).tolist(), *ends.tolist())
    )
    if (count := len(index.chunks)) < manifest["chunks"]:
        raise UserError(f"{folder}: has {count} of {manifest['chunks']} chunks; {_ANEW}")
    return index


def _create(folder, made, tiles):
    """Write an index without images. Chunks of an older index are removed; they would count as its own."""
    grid = make_grid(made["stride"], made["satellite_size"], tiles.centres_px, tiles.gps[:, 0].mean())
    with resumable(folder):
        for path in (folder / FILE, folder / OLD_FILE, *folder.glob("c.0.*"), *folder.glob("*_*.npy")):
            path.unlink(missing_ok=True)
        array = _shape(made["channels"]) | {"compressors": [ZstdCodec(level=1), Crc32cCodec()]}
        array |= {"chunk_key_encoding": {"name": "default", "separator": "."}}
        about = made | {"origin": list(grid.origin), "latitude": float(grid.latitude)}
        about |= {"names": [], "sizes": [], "chunks": 0}
        zarr.create_array(folder, **array, attributes=_sealed(about))


def _extend(index, model, tiles, device):
    """Add missing images block by block, so that memory does not grow with the city.

    Images are recorded once their block is on the disk; after a kill, unrecorded ones are added again.
    """
    for path in index.folder.glob("*.partial"):  # temporary files of killed processes
        path.unlink()
    firsts, cuts = _first_cells(index.grid, tiles)
    blocks, side = firsts // BLOCK, index.grid.satellite_size // index.grid.stride
    held = set(index.names)
    missing = [i for i, name in enumerate(tiles.names) if name not in held]
    missing.sort(key=lambda i: (blocks[i, 1], blocks[i, 0], firsts[i, 1]))
    description = f"indexing {index.array.attrs['city']}"
    with tqdm(total=len(missing), desc=description, unit="image", disable=None) as bar:
        for _, members in groupby(missing, lambda i: tuple(blocks[i])):
            members = list(members)
            start = firsts[members].min(0)
            rectangle = *start, *(firsts[members].max(0) + side - start)
            cells = index.read_all(*rectangle)
            for k in range(0, len(members), _BATCH):
                batch = members[k : k + _BATCH]
                pictures = {i: picture for i in batch if (picture := tiles.load(i)) is not None}
                for i, values in _encode(index.grid, model, pictures, cuts, device):
                    row, col = firsts[i] - start
                    part = cells[:, row : row + side, col : col + side]
                    deeper = values[-1] > part[-1]
                    part[:, deeper] = values[:, deeper]
                bar.update(len(batch))
            with resumable(index.folder):
                index.array[_window(*rectangle)] = cells
                index.names += [tiles.names[i] for i in members]
                index.sizes += [tiles.sizes[i] for i in members]
                del index.chunks  # the cached list
                now = {"names": index.names, "sizes": index.sizes, "chunks": len(index.chunks)}
                index.array.attrs.update(_sealed(index.array.attrs.asdict() | now))


def _first_cells(grid, tiles):
    """Of each image, (M, 2): its first cell (row, col), and the pixels to cut off in the north and west."""
    pixels = np.rint(grid.to_cells(tiles.centres_px - SATELLITE_PX / 2) * grid.stride).astype(int)
    cuts = -pixels % grid.stride
    return (pixels + cuts) // grid.stride, cuts


def _encode(grid, model, pictures, cuts, device):
    """For each {number: image (S, S, 3)}, its number and its cells' channels (C + 2, h, w) float16."""
    if not pictures:
        return
    moved = []
    for i, picture in pictures.items():
        down, right = cuts[i]
        moved.append(np.pad(picture[down:, right:], ((0, down), (0, right), (0, 0)), mode="edge"))
    batch = torch.from_numpy(np.stack(moved)).permute(0, 3, 1, 2).to(device)
    with torch.inference_mode():
        features = model.encode_satellite(normalise(batch), grid.stride)
        brightness = F.avg_pool2d(batch.float().mean(1, keepdim=True), grid.stride)
        values = torch.cat([features, brightness], 1).half().cpu().numpy()
    if not np.isfinite(values).all():
        raise UserError("the network gives features that are not finite in float16; its training went wrong")
    side = values.shape[-1]
    for i, of_image in zip(pictures, values, strict=True):
        # (2, side), rows and columns of the cells' centres in the image before the cut.
        centres = np.arange(side) + 0.5 + cuts[i][:, None] / grid.stride
        rows, cols = np.minimum(centres, side - centres)
        depth = np.minimum(rows[:, None], cols)
        # Negative for cells whose centre lies in the padding; a centre on the very edge is covered.
        depth = np.where(depth >= 0, np.maximum(depth, 0.01), 0).astype(np.float16)
        yield i, np.concatenate([of_image, depth[None]])


def _window(row, col, height, width):
    """A rectangle of cells as an index of the array."""
    top, left = row + _CENTRE * CHUNK, col + _CENTRE * CHUNK
    return slice(None), slice(top, top + height), slice(left, left + width)
