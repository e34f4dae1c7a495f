"""The parts of an index: which images each is of, and the building of one from them."""

import zlib

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from common.errors import UserError
from common.files import resumable
from common.geometry import SATELLITE_PX
from efficientnet_pytorch.utils import normalise
from engine import distributed
from engine.search.store import CENTRE

CHUNK = 128  # cells on a side; measured: blocks of 256 cells with a rim are read faster than with 64 or 256
_BATCH = 16  # images per forward pass


class PartLayout:
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
        cells = np.hstack([self.firsts, self.cuts]).tolist()
        about = list(zip(tiles.names, tiles.sizes, cells, strict=True))
        what = sorted(made.items())
        self.fingerprints = {  # 8 digits that change with what a part is made of
            part: f"{zlib.crc32(repr((what, sorted(about[i] for i in members))).encode()):08x}"
            for part, members in self.images.items()
        }

    @property
    def fingerprint(self):
        """8 digits that change with any part's."""
        return f"{zlib.crc32(repr(sorted(self.fingerprints.items())).encode()):08x}"


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
        cells = np.zeros((CHUNK, CHUNK, self.array.shape[-1]), np.float16)
        corner = np.array(part) * CHUNK
        for i, values in images:
            first = self.layout.firsts[i] - corner
            start, end = np.maximum(first, 0), np.minimum(first + self.layout.side, CHUNK)
            target = cells[start[0] : end[0], start[1] : end[1]]
            source = values[start[0] - first[0] :, start[1] - first[1] :]
            source = source[: target.shape[0], : target.shape[1]]
            deeper = abs(source[..., -1]) > abs(target[..., -1])
            target[deeper] = source[deeper]
        with resumable(self.store):
            self.array[window(*corner.tolist(), CHUNK, CHUNK)] = cells
            self.store.note(part, self.layout.fingerprints[part])

    def _encode(self, numbers):
        """{number: channels (h, w, C + 2) float16 of an image's cells}, None for images that are left out."""
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
            found[i] = np.concatenate([of_image, depth[None]]).transpose(1, 2, 0)
        return found


def _on_street(mask, stride):
    """(h, w) bool: cells of a mask (S, S) that have street in them or beside them."""
    street = torch.from_numpy(mask)[None].float()
    return (F.max_pool2d(F.max_pool2d(street, stride), 3, 1, 1)[0] > 127).numpy()


def window(row, col, height, width):
    """A rectangle of cells as an index of the array."""
    top, left = row + CENTRE * CHUNK, col + CENTRE * CHUNK
    return slice(top, top + height), slice(left, left + width), slice(None)
