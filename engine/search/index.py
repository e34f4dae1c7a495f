"""The features of a city's satellite images, computed once per network and kept on the disk, for searches.

The folder is a zarr array (C + 2, rows, cols) of float16. The channels of a cell are its features, its brightness (for pictures),
and its depth: the distance in cells from the edge of the image that the features come from, 0 where no image covers the cell.
Where images overlap, a cell has the features of the image in which it lies deepest.

The array is larger than the whole map, and cell (0, 0) of the grid lies at its centre, so images can be added on every side. Only
chunks that images touch are stored; each has a checksum. The array's attributes say which weights, images and grid the index
belongs to, and which images it holds.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, product
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

VERSION = 2
FILE = "zarr.json"
OLD_FILE = "index.json"  # of version 1
CHUNK = 128  # cells on a side: blocks of a search are read faster than with 64, and empty cells cost nothing
BLOCK = 256  # cells on a side, whose images are added at a time
_CENTRE = 2**28  # row and column of the grid's cell (0, 0) in the array
_EXTRA = 2  # channels besides the features
_BATCH = 16  # images per forward pass
_ANEW = "--rebuild makes the index anew"


@dataclass(eq=False)
class CityIndex:
    """The features of a city on the disk; `open_index` makes it.

    folder: of the array · grid: its `CellGrid` · array: the zarr array · names: the images that it holds · bounds: of all images
    in cells, (first row, first col, end row, end col).
    """

    folder: Path
    grid: CellGrid
    array: zarr.Array
    names: list
    bounds: tuple

    @cached_property
    def chunks(self):
        """The set of (row, col) of the chunks on the disk; chunk (0, 0) begins at cell (0, 0)."""
        names = [path.name for path in self.folder.glob("c.0.*") if path.suffix != ".partial"]
        return {tuple(int(number) - _CENTRE // CHUNK for number in name.split(".")[2:]) for name in names}

    def has(self, row, col, height, width):
        """Whether a rectangle of cells touches a chunk."""
        return not self.chunks.isdisjoint(_chunks_in(row, col, height, width))

    def read(self, row, col, height, width):
        """Features (C, height, width) float32 of a rectangle of cells, and which are covered, (height, width) bool.

        Raises UserError if a chunk is damaged.
        """
        values = self.read_all(row, col, height, width)
        return torch.from_numpy(values[:-_EXTRA]).float(), torch.from_numpy(values[-1] > 0)

    def brightness(self, row, col, height, width):
        """An image of a rectangle of cells, one pixel per cell, uint8, and which are covered, bool: (height, width) each."""
        brightness, depth = self.read_all(row, col, height, width)[-_EXTRA:]
        return np.rint(brightness).astype(np.uint8), depth > 0

    def read_all(self, row, col, height, width):
        """All channels of a rectangle of cells, (C + 2, height, width) float16."""
        try:
            return self.array[_window(row, col, height, width)]
        except (OSError, ValueError, RuntimeError) as error:
            for chunk in self.chunks.intersection(_chunks_in(row, col, height, width)):
                try:
                    self.array.blocks[0, chunk[0] + _CENTRE // CHUNK, chunk[1] + _CENTRE // CHUNK]
                except (OSError, ValueError, RuntimeError):
                    name = ".".join(str(number + _CENTRE // CHUNK) for number in chunk)
                    raise UserError(f"{self.folder / 'c.0.'}{name}: is damaged ({error}); {_ANEW}") from None
            raise


def open_index(folder, model, weights, city, tiles, device, rebuild=False):
    """The `CityIndex` of a city by a network: the one in `folder`, to which images that it lacks are added.

    model: a network with templates, in evaluation mode on its device · weights: the hash of its weights' file · tiles: the
    city's satellite images, a `Tiles` · rebuild: make the index anew.

    Raises UserError if the folder holds an index of something else, if another process writes to it, or if it cannot be
    written.
    """
    folder = Path(folder)
    if not len(tiles.names):
        raise UserError(f"{city}: its list names no satellite image, so there is nothing to search in")
    stride = model.matching.search_stride
    made = {
        "version": VERSION,
        "city": city,
        "images": str(tiles.root),
        "weights": weights,
        "stride": stride,
        "satellite_size": model.settings.satellite_size,
        "channels": model.matching.channels[stride],
    }
    index = None if rebuild else _find(folder, made, tiles)
    if index is None or len(index.names) < len(tiles.names):
        with locked(folder, "is writing an index in"):
            index = None if rebuild else _find(folder, made, tiles, "r+")  # another process may have finished it meanwhile
            if index is None:
                _create(folder, made, tiles)
                index = _find(folder, made, tiles, "r+")
            _extend(index, model, tiles, device)
        index = _find(folder, made, tiles)
    return index


def _find(folder, made, tiles, mode="r"):
    """The `CityIndex` in a folder, or None. Raises UserError if it was made of something else than `made` and `tiles`."""
    if not (folder / FILE).exists():
        if (folder / OLD_FILE).exists():
            raise UserError(f"{folder / OLD_FILE}: {_mismatch('version', 1, VERSION)}")
        return None
    try:
        array = zarr.open_array(folder, mode=mode, zarr_format=3)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{folder / FILE}: cannot be read ({error}); {_ANEW}") from None
    manifest = array.attrs.asdict()
    for name, value in made.items():
        if manifest.get(name) != value:
            raise UserError(f"{folder / FILE}: {_mismatch(name, manifest.get(name), value)}")
    if gone := set(manifest["names"]) - set(tiles.names):
        raise UserError(f"{folder / FILE}: holds {min(gone)}, which is not in the list any more; {_ANEW}")
    grid = CellGrid(made["stride"], made["satellite_size"], tuple(manifest["origin"]), manifest["latitude"])
    firsts, _ = _first_cells(grid, tiles)
    bounds = *firsts.min(0).tolist(), *(firsts.max(0) + grid.satellite_size // grid.stride).tolist()
    index = CityIndex(folder, grid, array, manifest["names"], bounds)
    if len(index.chunks) < manifest["chunks"]:
        raise UserError(f"{folder}: holds {len(index.chunks)} chunks of {manifest['chunks']}; {_ANEW}")
    return index


def _mismatch(name, then, now):
    """What differs between an index on the disk and the one that is needed."""
    differs = {
        "weights": "an index by another checkpoint",
        "images": f"an index of the images in {then}, not of those in {now}",
        "version": f"an index of version {then}; this program reads version {now}",
    }
    return f"{differs.get(name, f'an index of another grid ({name} {then}, not {now})')}; {_ANEW}, --index_root chooses another place"


def _create(folder, made, tiles):
    """An index without images. Removes what a former one left, as its chunks would count as part of the new one."""
    grid = make_grid(made["stride"], made["satellite_size"], tiles.centres_px, tiles.gps[:, 0].mean())
    channels = made["channels"] + _EXTRA
    with resumable(folder):
        for path in (folder / FILE, folder / OLD_FILE, *folder.glob("c.0.*"), *folder.glob("*_*.npy")):
            path.unlink(missing_ok=True)
        zarr.create_array(
            folder,
            shape=(channels, 2 * _CENTRE, 2 * _CENTRE),
            chunks=(channels, CHUNK, CHUNK),
            dtype="float16",
            fill_value=0,
            compressors=[ZstdCodec(level=1), Crc32cCodec()],
            chunk_key_encoding={"name": "default", "separator": "."},
            attributes={**made, "origin": list(grid.origin), "latitude": grid.latitude, "names": [], "chunks": 0},
        )


def _extend(index, model, tiles, device):
    """Add the images that an index lacks, one block after the other, so that memory does not grow with the city.

    The names of a block's images are recorded after its cells are on the disk; after a kill, images without a record are added
    again.
    """
    for path in index.folder.glob("*.partial"):  # which killed processes left
        path.unlink()
    held = set(index.names)
    missing = [i for i, name in enumerate(tiles.names) if name not in held]
    firsts, cuts = _first_cells(index.grid, tiles)
    blocks = firsts // BLOCK
    missing.sort(key=lambda i: (blocks[i, 1], blocks[i, 0], firsts[i, 1]))
    side = index.grid.satellite_size // index.grid.stride
    description = f"indexing {index.array.attrs['city']}"
    with tqdm(total=len(missing), desc=description, unit="image", disable=None) as bar:
        for _, group in groupby(missing, lambda i: tuple(blocks[i])):
            group = list(group)
            start, end = firsts[group].min(0), firsts[group].max(0) + side
            cells = index.read_all(*start, *(end - start))
            for k in range(0, len(group), _BATCH):
                pictures = {i: picture for i in group[k : k + _BATCH] if (picture := tiles.load(i)) is not None}
                encoded = _encode(index.grid, model, list(pictures.values()), cuts[list(pictures)], device) if pictures else ()
                for (row, col), values in zip(firsts[list(pictures)] - start, encoded, strict=True):
                    part = cells[:, row : row + side, col : col + side]
                    deeper = values[-1] > part[-1]
                    part[:, deeper] = values[:, deeper]
                bar.update(len(group[k : k + _BATCH]))
            with resumable(index.folder):
                index.array[_window(*start, *(end - start))] = cells
                index.names += [tiles.names[i] for i in group]
                del index.chunks
                index.array.attrs.update({"names": index.names, "chunks": len(index.chunks)})


def _first_cells(grid, tiles):
    """Of each image, (M, 2): its first cell (row, col), and the pixels to cut off in the north and west.

    An image that does not lie on the grid is moved by less than a cell, in whole pixels, and then lies on it to half a pixel.
    """
    pixels = np.rint(grid.to_cells(tiles.centres_px - SATELLITE_PX / 2) * grid.stride).astype(int)
    cuts = -pixels % grid.stride
    return (pixels + cuts) // grid.stride, cuts


def _encode(grid, model, pictures, cuts, device):
    """All channels (N, C + 2, h, w) float16 of the cells of images (S, S, 3), of which `cuts` (N, 2) pixels are cut off."""
    moved = [
        np.pad(picture[down:, right:], ((0, down), (0, right), (0, 0)), mode="edge")
        for picture, (down, right) in zip(pictures, cuts, strict=True)
    ]
    batch = torch.from_numpy(np.stack(moved)).permute(0, 3, 1, 2).to(device)
    with torch.inference_mode():
        features = model.describe_satellite(normalise(batch), grid.stride)
        brightness = F.avg_pool2d(batch.float().mean(1, keepdim=True), grid.stride)
        values = torch.cat([features, brightness], 1).half().cpu().numpy()
    side = values.shape[-1]
    centres = np.arange(side) + 0.5 + cuts[..., None] / grid.stride  # (N, 2, side), in cells of the image before the cut
    edge = np.minimum(centres, side - centres)
    depth = np.minimum(edge[:, 0, :, None], edge[:, 1, None, :])
    # Negative for cells whose centre lies in the padding; a centre on the very edge is covered.
    depth = np.where(depth >= 0, np.maximum(depth, 0.01), 0).astype(np.float16)
    return np.concatenate([values, depth[:, None]], 1)


def _window(row, col, height, width):
    """A rectangle of cells as an index of the array."""
    top, left = row + _CENTRE, col + _CENTRE
    return slice(None), slice(top, top + height), slice(left, left + width)


def _chunks_in(row, col, height, width):
    """(row, col) of the chunks that a rectangle of cells touches."""
    return product(*(range(a // CHUNK, (a + n - 1) // CHUNK + 1) for a, n in ((row, height), (col, width))))
