"""A city's satellite images as one map of features on the disk, made once for a network, that a panorama is searched for in.

    <folder>/index.json             what it was made of and by, and the images that it holds
    <folder>/<row>_<col>.npy        float16 (C + 4, CHUNK, CHUNK): features of a chunk of cells, mean colours (for pictures), and
                                    how far inside their image they lie

A cell that several images cover takes its features from the one whose edge is furthest away: that distance, in cells, is the last
channel, 0 where no image covers the cell. A chunk that no image touches has no file. Chunks are mapped, not read, one after the
other, so that memory does not grow with the city.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from common.errors import UserError
from common.files import locked, remove_leftovers, replacing
from common.geometry import SATELLITE_PX
from efficientnet_pytorch.utils import normalise
from engine.search.grid import Grid, make_grid

VERSION = 1
FILE = "index.json"
CHUNK = 64  # cells on a side: a file of 0.3 MB
_MORE = 4  # channels beside the features
_BATCH = 16  # images in one forward pass
_AT_ONCE = 256  # images between writes
_NO_ROOM = "--index_root chooses another place"


@dataclass(eq=False)
class CityIndex:
    """The features of a city on the disk; `open_index` makes it.

    folder: where they lie · grid: their `Grid` · channels: of the features · names: the images that it holds.
    """

    folder: Path
    grid: Grid
    channels: int
    names: list

    @cached_property
    def chunks(self):
        """(row, col) of the chunks that there are."""
        return {tuple(map(int, path.stem.split("_"))) for path in self.folder.glob("*_*.npy")}

    @cached_property
    def bounds(self):
        """(first row, first col, end row, end col) in cells of all chunks."""
        numbers = np.array(sorted(self.chunks)) * CHUNK
        return (*numbers.min(0).tolist(), *(numbers.max(0) + CHUNK).tolist())

    def has(self, row, col, height, width):
        """Whether a rectangle of cells touches a chunk."""
        rows, cols = (range(first // CHUNK, (first + side - 1) // CHUNK + 1) for first, side in ((row, height), (col, width)))
        return any((r, c) in self.chunks for r in rows for c in cols)

    def read(self, row, col, height, width):
        """Features (C, height, width) float32 of a rectangle of cells, and where they are covered, (height, width) bool.

        Nothing is covered outside of the chunks. Raises UserError for a chunk that was damaged.
        """
        found = self._gather(row, col, height, width, slice(None))
        return torch.from_numpy(found[:-_MORE]), torch.from_numpy(found[-1] > 0)

    def colours(self, row, col, height, width):
        """The city from above, a pixel a cell, (height, width, 3) uint8, and where it is covered, (height, width) bool."""
        found = self._gather(row, col, height, width, slice(-_MORE, None))
        return np.rint(found[:-1]).astype(np.uint8).transpose(1, 2, 0), found[-1] > 0

    def _gather(self, row, col, height, width, channels):
        """Channels of a rectangle of cells, (c, height, width) float32, 0 where there is no chunk."""
        found = np.zeros((len(range(self.channels + _MORE)[channels]), height, width), np.float32)
        for r in range(row // CHUNK, (row + height - 1) // CHUNK + 1):
            for c in range(col // CHUNK, (col + width - 1) // CHUNK + 1):
                if (r, c) in self.chunks:
                    here, there = _overlap(r * CHUNK, c * CHUNK, row, col, height, width)
                    chunk = _map_chunk(self.folder / f"{r}_{c}.npy", self.channels)
                    found[(slice(None), *here)] = chunk[(channels, *there)]
        return found


def open_index(folder, model, weights, city, tiles, device, rebuild=False):
    """The `CityIndex` of a city by a network: the one that lies in `folder`, completed by images that it lacks.

    model: a network with templates, in evaluation mode on its device · weights: a word for its weights, their file's hash.
    tiles: the city's satellite images, a `Tiles`.
    rebuild: make it anew.

    Raises UserError where the folder holds the index of something else, another process writes to it, or there is no room.
    """
    folder = Path(folder)
    if not len(tiles.names):
        raise UserError(f"{city}: its list names no satellite image, so there is nothing to search in")
    size = model.settings.satellite_size
    stride = model.matching.search_stride
    grid = make_grid(stride, size, tiles.centres_px, tiles.gps[:, 0].mean())
    made = {
        "version": VERSION,
        "city": city,
        "images": str(tiles.root),
        "weights": weights,
        "stride": stride,
        "satellite_size": size,
        "channels": model.matching.channels[stride],
    }
    index, missing = _look(folder, made, grid, tiles) if not rebuild else (None, None)
    if index is None or missing:
        with locked(folder, "is writing an index in"):
            if rebuild:
                for path in (folder / FILE, *folder.glob("*_*.npy")):
                    path.unlink(missing_ok=True)
            remove_leftovers(folder)
            index, missing = _look(folder, made, grid, tiles)  # another process may have finished it meanwhile
            if index is None:
                index, missing = CityIndex(folder, grid, made["channels"], []), list(range(len(tiles.names)))
            _extend(index, made, model, tiles, missing, device)
    if not index.chunks:
        raise UserError(f"{folder}: its chunks are gone; --rebuild makes the index anew")
    return index


def _look(folder, made, grid, tiles):
    """(the `CityIndex` that lies in a folder or None, numbers of the images that it lacks). Raises UserError for another one."""
    there = _read_manifest(folder / FILE)
    if there is None:
        return None, None
    for name, value in made.items():
        if there.get(name) != value:
            raise UserError(f"{folder / FILE}: {_mismatch(name, there.get(name), value)}")
    grid = grid._replace(origin=tuple(there["origin"]), latitude=there["latitude"])
    index = CityIndex(folder, grid, made["channels"], there["names"])
    held = set(index.names)
    if gone := held - set(tiles.names):
        raise UserError(f"{folder / FILE}: holds {min(gone)}, which is not in the list any more; --rebuild makes it anew")
    return index, [i for i, name in enumerate(tiles.names) if name not in held]


def _mismatch(name, then, now):
    """What is wrong where an index was made of or by something else."""
    anew = "--rebuild makes it anew, --index_root chooses another place"
    if name == "weights":
        return f"an index by another checkpoint; {anew}"
    if name == "images":
        return f"an index of the images in {then}, not of those in {now}; {anew}"
    if name == "version":
        return f"an index of version {then}, this project reads {now}; {anew}"
    return f"an index of another grid ({name} {then}, not {now}); {anew}"


def _extend(index, made, model, tiles, missing, device):
    """Add images to an index, by the chunk in which they lie, so that few chunks are open at a time."""
    corners = index.grid.to_cells(tiles.centres_px[missing] - SATELLITE_PX / 2)
    order = np.lexsort((corners[:, 1], corners[:, 0] // CHUNK, corners[:, 1] // CHUNK))
    manifest = {**made, "origin": list(index.grid.origin), "latitude": index.grid.latitude}
    description = f"indexing {made['city']}"
    with tqdm(total=len(missing), desc=description, unit="image", disable=None) as bar:
        for start in range(0, len(order), _AT_ONCE):
            open_chunks, done = {}, order[start : start + _AT_ONCE]
            for first in range(0, len(done), _BATCH):
                batch = done[first : first + _BATCH]
                pictures = [tiles.images.satellite(tiles.paths[missing[i]]) for i in batch]
                for first_cell, features, inside in _describe(index.grid, model, pictures, corners[batch], device):
                    _put(index, open_chunks, first_cell, features, inside)
                bar.update(len(batch))
            index.names += [tiles.names[missing[i]] for i in done]
            _write(index, open_chunks, manifest)


def _describe(grid, model, pictures, corners, device):
    """Of images (S, S, 3) with north-west corners in cells: (first cell, features and colours (C + 3, h, w) float16, cells from
    the edge (h, w)).

    An image that does not lie on the grid is moved by whole pixels, less than a cell, so that it does to half a pixel.
    """
    moved, firsts, spare = [], [], []
    for picture, corner in zip(pictures, corners, strict=True):
        pixels = np.rint(corner * grid.stride).astype(int)
        cut = -pixels % grid.stride
        moved.append(np.pad(picture[cut[0] :, cut[1] :], ((0, cut[0]), (0, cut[1]), (0, 0)), mode="edge"))
        firsts.append((pixels + cut) // grid.stride)
        spare.append(cut)
    batch = torch.from_numpy(np.stack(moved)).permute(0, 3, 1, 2).to(device)
    with torch.inference_mode():
        features = model.describe_satellite(normalise(batch), grid.stride)
        colours = F.avg_pool2d(batch.float(), grid.stride)
        both = torch.cat([features, colours], 1).half().cpu().numpy()
    steps = np.arange(both.shape[-1]) + 0.5
    for first, cut, one in zip(firsts, spare, both, strict=True):
        edges = [np.minimum(at := steps + c / grid.stride, len(steps) - at) for c in cut]
        inside = np.minimum(edges[0][:, None], edges[1])
        # Negative where a cell's middle lies in what was added at the end; on the very edge it is covered still.
        yield first, one, np.where(inside >= 0, np.maximum(inside, 0.01), 0).astype(np.float16)


def _put(index, open_chunks, first, features, inside):
    """Lay features (C, h, w) into the chunks around cell `first`, where they lie further inside than what is there."""
    height, width = inside.shape
    row, col = map(int, first)
    for r in range(row // CHUNK, (row + height - 1) // CHUNK + 1):
        for c in range(col // CHUNK, (col + width - 1) // CHUNK + 1):
            if (r, c) not in open_chunks:
                path = index.folder / f"{r}_{c}.npy"
                chunk = np.zeros((index.channels + _MORE, CHUNK, CHUNK), np.float16)
                if path.exists():
                    chunk[:] = _map_chunk(path, index.channels)
                open_chunks[r, c] = chunk
            here, there = _overlap(r * CHUNK, c * CHUNK, row, col, height, width)
            chunk = open_chunks[r, c][(slice(None), *there)]
            better = inside[here] > chunk[-1]
            chunk[:-1, better] = features[(slice(None), *here)][:, better]
            chunk[-1, better] = inside[here][better]


def _overlap(chunk_row, chunk_col, row, col, height, width):
    """Slices of a rectangle and of a chunk, where they overlap."""
    top, left = max(chunk_row, row), max(chunk_col, col)
    bottom, right = min(chunk_row + CHUNK, row + height), min(chunk_col + CHUNK, col + width)
    here = slice(top - row, bottom - row), slice(left - col, right - col)
    return here, (slice(top - chunk_row, bottom - chunk_row), slice(left - chunk_col, right - chunk_col))


def _map_chunk(path, channels):
    try:
        chunk = np.load(path, mmap_mode="r", allow_pickle=False)
        if chunk.shape == (channels + _MORE, CHUNK, CHUNK) and chunk.dtype == np.float16:
            return chunk
        fault = f"{chunk.dtype} {chunk.shape}"
    except (OSError, ValueError, EOFError) as error:
        fault = error
    raise UserError(f"{path}: no chunk of an index ({fault}); --rebuild makes it anew")


def _write(index, open_chunks, manifest):
    """Chunks first, then the names that they hold: what is not named is put in again."""
    try:
        for (r, c), chunk in open_chunks.items():
            with replacing(index.folder / f"{r}_{c}.npy", durable=False) as beside, open(beside, "wb") as file:
                np.save(file, chunk)
        with replacing(index.folder / FILE) as beside:
            beside.write_text(json.dumps({**manifest, "names": index.names}) + "\n")
    except OSError as error:
        raise UserError(f"{index.folder}: cannot be written ({error.strerror}); {_NO_ROOM}") from None


def _read_manifest(path):
    """What an index says of itself; None where there is none."""
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); --rebuild makes the index anew") from None
    if not isinstance(manifest, dict) or not {"version", "names", "origin", "latitude"} <= manifest.keys():
        raise UserError(f"{path}: no index; --rebuild makes it anew")
    return manifest
