"""A city's satellite images as one map of features on the disk, made once for a network, that a panorama is searched for in.

    <folder>/index.json             what it was made of and by, and the images that it holds
    <folder>/<row>_<col>.npy        float16 (n, 2 + (C + 2) CHUNK^2), a block of cells: of each chunk that images touch its
                                    (row, col) in the block, then features, brightness (for pictures) and how far
                                    inside their image its cells lie

A cell that several images cover takes its features from the one whose edge is furthest away: that distance, in cells, is the last
channel, 0 where no image covers the cell. Blocks are mapped, not read, one after the other, so that memory does not grow with the
city.
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
CHUNK, BLOCK = 16, 256  # cells on a side
_PER_BLOCK = BLOCK // CHUNK
_MORE = 2  # channels beside the features
_BATCH = 16  # images in one forward pass
_AT_ONCE = 256  # images between writes
_ELSEWHERE = "--index_root chooses another place"


@dataclass(eq=False)
class CityIndex:
    """The features of a city on the disk; `open_index` makes it.

    folder: where they lie · grid: their `Grid` · channels: of the features · names: the images that it holds · bounds: of all
    images in cells, (first row, first col, end row, end col).
    """

    folder: Path
    grid: Grid
    channels: int
    names: list
    bounds: tuple

    @cached_property
    def chunks(self):
        """{(row, col) of a chunk: its place in the file of its block}."""
        return {chunk: i for path in self.folder.glob("*_*.npy") for i, chunk in enumerate(_chunks_of(path, self.channels))}

    def has(self, row, col, height, width):
        """Whether a rectangle of cells touches a chunk."""
        return any(chunk in self.chunks for chunk in _numbers(CHUNK, row, col, height, width))

    def read(self, row, col, height, width):
        """Features (C, height, width) float32 of a rectangle of cells, and where they are covered, (height, width) bool.

        Nothing is covered outside of the chunks. Raises UserError for a block that was damaged.
        """
        found = self._gather(row, col, height, width, slice(None))
        return torch.from_numpy(found[:-_MORE]).float(), torch.from_numpy(found[-1] > 0)

    def brightness(self, row, col, height, width):
        """The city from above, a pixel a cell, (height, width) uint8, and where it is covered, (height, width) bool."""
        found = self._gather(row, col, height, width, slice(-_MORE, None))
        return np.rint(found[0]).astype(np.uint8), found[-1] > 0

    def _gather(self, row, col, height, width, channels):
        """Channels of a rectangle of cells, (c, height, width) float16, 0 where there is no chunk."""
        found = np.zeros((len(range(self.channels + _MORE)[channels]), height, width), np.float16)
        for block in _numbers(BLOCK, row, col, height, width):
            here, there = _overlap(BLOCK, *block, row, col, height, width)
            # Whole chunks first, all of a block at once, then the part of them that is asked for.
            (top, end_row), (left, end_col) = ((part.start // CHUNK, -(-part.stop // CHUNK)) for part in there)
            first = block[0] * _PER_BLOCK + top, block[1] * _PER_BLOCK + left
            asked = [(r, c) for r in range(end_row - top) for c in range(end_col - left)]
            held = [(self.chunks[key], r, c) for r, c in asked if (key := (first[0] + r, first[1] + c)) in self.chunks]
            if not held:
                continue
            places, rows, cols = np.array(held).T
            chunks = _map_block(self.folder / _file(block), self.channels)[places, 2:]
            whole = np.zeros((len(found), end_row - top, CHUNK, end_col - left, CHUNK), np.float16)
            whole[:, rows, :, cols] = chunks.reshape(len(held), -1, CHUNK, CHUNK)[:, channels]
            whole = whole.reshape(len(found), (end_row - top) * CHUNK, (end_col - left) * CHUNK)
            inner = tuple(
                slice(part.start - n * CHUNK, part.stop - n * CHUNK) for part, n in zip(there, (top, left), strict=True)
            )
            found[(slice(None), *here)] = whole[(slice(None), *inner)]
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
                nowhere = (np.iinfo(int).max,) * 2 + (np.iinfo(int).min,) * 2
                index, missing = CityIndex(folder, grid, made["channels"], [], nowhere), list(range(len(tiles.names)))
            _extend(index, made, model, tiles, missing, device)
    if not index.chunks:
        raise UserError(f"{folder}: its blocks are gone; --rebuild makes the index anew")
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
    index = CityIndex(folder, grid, made["channels"], there["names"], tuple(there["bounds"]))
    held = set(index.names)
    if gone := held - set(tiles.names):
        raise UserError(f"{folder / FILE}: holds {min(gone)}, which is not in the list any more; --rebuild makes it anew")
    return index, [i for i, name in enumerate(tiles.names) if name not in held]


def _mismatch(name, then, now):
    """What is wrong where an index was made of or by something else."""
    anew = f"--rebuild makes it anew, {_ELSEWHERE}"
    if name == "weights":
        return f"an index by another checkpoint; {anew}"
    if name == "images":
        return f"an index of the images in {then}, not of those in {now}; {anew}"
    if name == "version":
        return f"an index of version {then}, this project reads {now}; {anew}"
    return f"an index of another grid ({name} {then}, not {now}); {anew}"


def _extend(index, made, model, tiles, missing, device):
    """Add images to an index, block after block, so that few blocks are open at a time."""
    corners = index.grid.to_cells(tiles.centres_px[missing] - SATELLITE_PX / 2)
    order = np.lexsort((corners[:, 1], corners[:, 0] // BLOCK, corners[:, 1] // BLOCK))
    manifest = {**made, "origin": list(index.grid.origin), "latitude": index.grid.latitude}
    description = f"indexing {made['city']}"
    with tqdm(total=len(missing), desc=description, unit="image", disable=None) as bar:
        for start in range(0, len(order), _AT_ONCE):
            opened, done = {}, order[start : start + _AT_ONCE]
            for first in range(0, len(done), _BATCH):
                batch = done[first : first + _BATCH]
                pictures = [tiles.load(missing[i]) for i in batch]
                there = [i for i, picture in enumerate(pictures) if picture is not None]
                pictures = [pictures[i] for i in there]
                for first_cell, features, inside in _describe(index.grid, model, pictures, corners[batch[there]], device):
                    _put(index, opened, first_cell, features, inside)
                bar.update(len(batch))
            index.names += [tiles.names[missing[i]] for i in done]
            _write(index, opened, manifest)


def _describe(grid, model, pictures, corners, device):
    """Of images (S, S, 3) with north-west corners in cells: (first cell, features and brightness (C + 1, h, w) float16, cells
    from the edge (h, w)).

    An image that does not lie on the grid is moved by whole pixels, less than a cell, so that it does to half a pixel.
    """
    if not pictures:
        return
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
        brightness = F.avg_pool2d(batch.float().mean(1, keepdim=True), grid.stride)
        both = torch.cat([features, brightness], 1).half().cpu().numpy()
    steps = np.arange(both.shape[-1]) + 0.5
    for first, cut, one in zip(firsts, spare, both, strict=True):
        edges = [np.minimum(at := steps + c / grid.stride, len(steps) - at) for c in cut]
        inside = np.minimum(edges[0][:, None], edges[1])
        # Negative where a cell's middle lies in what was added at the end; on the very edge it is covered still.
        yield first, one, np.where(inside >= 0, np.maximum(inside, 0.01), 0).astype(np.float16)


def _put(index, opened, first, features, inside):
    """Lay features (C, h, w) into the chunks around cell `first`, where they lie further inside than what is there.

    opened: {block: {chunk: array}} in memory, to which blocks are added as they are touched.
    """
    height, width = inside.shape
    row, col = map(int, first)
    index.bounds = (
        *map(min, index.bounds[:2], (row, col)),
        *map(max, index.bounds[2:], (row + height, col + width)),
    )
    for r, c in _numbers(CHUNK, row, col, height, width):
        block = r // _PER_BLOCK, c // _PER_BLOCK
        if block not in opened:
            opened[block] = _read_block(index.folder / _file(block), index.channels)
        chunk = opened[block].setdefault((r, c), np.zeros((index.channels + _MORE, CHUNK, CHUNK), np.float16))
        here, there = _overlap(CHUNK, r, c, row, col, height, width)
        part = chunk[(slice(None), *there)]
        better = inside[here] > part[-1]
        part[:-1, better] = features[(slice(None), *here)][:, better]
        part[-1, better] = inside[here][better]


def _numbers(side, row, col, height, width):
    """(row, col) of the squares of so many cells that a rectangle touches."""
    rows, cols = (range(first // side, (first + many - 1) // side + 1) for first, many in ((row, height), (col, width)))
    return ((r, c) for r in rows for c in cols)


def _overlap(side, square_row, square_col, row, col, height, width):
    """Slices of a rectangle and of one of the squares that `_numbers` gives, where they overlap."""
    top, left = max(square_row * side, row), max(square_col * side, col)
    bottom, right = min((square_row + 1) * side, row + height), min((square_col + 1) * side, col + width)
    here = slice(top - row, bottom - row), slice(left - col, right - col)
    return here, tuple(
        slice(part.start + d, part.stop + d)
        for part, d in zip(here, (row - square_row * side, col - square_col * side), strict=True)
    )


def _file(block):
    return f"{block[0]}_{block[1]}.npy"


def _map_block(path, channels):
    """The file of a block as it lies on the disk."""
    try:
        block = np.load(path, mmap_mode="r", allow_pickle=False)
        if block.ndim == 2 and block.shape[1] == 2 + (channels + _MORE) * CHUNK**2 and block.dtype == np.float16:
            return block
        fault = f"{block.dtype} {block.shape}"
    except (OSError, ValueError, EOFError) as error:
        fault = error
    raise UserError(f"{path}: no block of an index ({fault}); --rebuild makes it anew")


def _chunks_of(path, channels):
    """(row, col) of the chunks in the file of a block, in its order."""
    row, col = (int(number) * _PER_BLOCK for number in path.stem.split("_"))
    return [(row + int(r), col + int(c)) for r, c in np.array(_map_block(path, channels)[:, :2])]


def _read_block(path, channels):
    """{chunk: array in memory} of a block; nothing where there is no file yet."""
    if not path.exists():
        return {}
    chunks = np.array(_map_block(path, channels)[:, 2:]).reshape(-1, channels + _MORE, CHUNK, CHUNK)
    return dict(zip(_chunks_of(path, channels), chunks, strict=True))


def _write(index, opened, manifest):
    """Blocks first, then the names that they hold: what is not named is put in again."""
    try:
        for block, chunks in opened.items():
            rows = [np.concatenate([(r % _PER_BLOCK, c % _PER_BLOCK), one.ravel()]) for (r, c), one in sorted(chunks.items())]
            with replacing(index.folder / _file(block), durable=False) as beside, open(beside, "wb") as file:
                np.save(file, np.array(rows, np.float16))
        with replacing(index.folder / FILE) as beside:
            beside.write_text(json.dumps({**manifest, "bounds": list(index.bounds), "names": index.names}) + "\n")
    except OSError as error:
        raise UserError(f"{index.folder}: cannot be written ({error.strerror}); {_ELSEWHERE}") from None


def _read_manifest(path):
    """What an index says of itself; None where there is none."""
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); --rebuild makes the index anew") from None
    if not isinstance(manifest, dict) or not {"version", "names", "origin", "latitude", "bounds"} <= manifest.keys():
        raise UserError(f"{path}: no index; --rebuild makes it anew")
    return manifest
