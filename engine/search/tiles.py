"""A city's satellite images: where each lies on the map, and images cut out of them around any position."""

import sys
import zlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from common import geometry
from common.errors import UserError
from common.files import file_size
from common.geometry import SATELLITE_PX
from dataset.images import OriginalImages
from dataset.layout import numbered

_KEPT = 128  # images in memory: those around a few positions
_WHOLE_PX = 1e-3  # offsets that differ from whole pixels by less count as whole


@dataclass(eq=False)
class Tiles:
    """The satellite images of a city; M of them."""

    root: Path  # of the data
    images: OriginalImages  # their reader
    names: list  # each its own
    gps: np.ndarray  # (M, 2) degrees of their centres
    files: list  # `ImageFile`s
    masks: list  # likewise
    skip: bool = False  # name unreadable images on stderr instead of raising UserError

    def __post_init__(self):
        self.satellite = lru_cache(_KEPT)(self.load)
        self.mask = lru_cache(_KEPT)(lambda i: self._read(self.masks[i]))

    def load(self, i):
        """A satellite image, None if it is left out; `satellite` also keeps it in memory."""
        return self._read(self.files[i])

    def _read(self, image):
        try:
            return self.images.read(image)
        except UserError as error:
            if not self.skip:
                raise
            tqdm.write(f"skipped: {error}", file=sys.stderr)
            return None

    @classmethod
    def of_city(cls, index, city, images, skip=False):
        """The images of a city, by its number in a `VigorIndex`. Raises UserError if they lie on no map."""
        index.check_map("a search")
        rows = np.flatnonzero(index.satellite_city == city)
        files, masks = ([image(row) for row in rows] for image in (index.satellite_image, index.mask_image))
        listed = zip(index.satellite_name[rows].tolist(), files, strict=True)
        names = [numbered(name.decode(), file.crop) for name, file in listed]
        return cls(index.root.resolve(), images, names, index.satellite_gps[rows], files, masks, skip)

    @cached_property
    def sizes(self):
        """Bytes of the images' files, 0 where there is none."""
        return [file_size(self.root / file.path) for file in self.files]

    @property
    def fingerprint(self):
        """8 digits that change with the images' names and the sizes of their files."""
        return f"{zlib.crc32(repr(sorted(zip(self.names, self.sizes, strict=True))).encode()):08x}"

    @cached_property
    def centres_px(self):
        """(M, 2) centres (row, col) on the map, pixels at zoom 20."""
        return np.stack(geometry.mercator_px(*self.gps.T), -1)

    def nearest(self, place_px):
        """The number of the image whose centre is nearest to a position on the map."""
        return int(abs(self.centres_px - place_px).max(1).argmin())

    def holding(self, place_px):
        """(M,) booleans: which images contain a position on the map."""
        return (abs(self.centres_px - place_px) <= SATELLITE_PX / 2).all(1)

    def mosaic(self, corner, height, width, pixel):
        """The images on a white canvas (height, width, 3) uint8 at a map corner, `pixel` map pixels each."""
        picture, covered = np.full((height, width, 3), 255, np.uint8), np.zeros((height, width), bool)
        corners = np.rint((self.centres_px - SATELLITE_PX / 2 - corner) / pixel).astype(int)
        side = round(SATELLITE_PX / pixel)
        order = np.lexsort(corners.T[::-1])
        for overlap in (0.1, 1.0):  # images that hardly overlap, then those that fill the gaps: few are read
            for i in order:
                top, left = corners[i]
                target = tuple(slice(max(0, at), max(0, at + side)) for at in (top, left))
                if not covered[target].size or covered[target].mean() >= overlap:
                    continue
                if (image := self.load(i)) is None:
                    continue
                if len(image) != side:
                    image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
                h, w = covered[target].shape
                picture[target] = image[max(0, -top) :, max(0, -left) :][:h, :w]
                covered[target] = True
        return picture

    def cut(self, place_px, use_mask):
        """An image around a position on the map: (satellite (S, S, 3), mask (S, S) or None, its corner).

        The nearest tile's pixels are copied; others fill the rest, shifted by parts of a pixel; else black.
        """
        size, pixel = self.images.satellite_size, SATELLITE_PX / self.images.satellite_size
        distance = abs(self.centres_px - place_px).max(1)
        around = np.argsort(distance, kind="stable")[: (distance < SATELLITE_PX).sum()].tolist()
        nearest = self.centres_px[around[0]] - SATELLITE_PX / 2
        corner = nearest + np.rint((place_px - SATELLITE_PX / 2 - nearest) / pixel) * pixel
        satellite, mask = np.zeros((size, size, 3), np.uint8), np.zeros((size, size), np.uint8)
        covered = np.zeros((size, size), bool)
        for i in around:
            offset = (self.centres_px[i] - SATELLITE_PX / 2 - corner) / pixel
            part = _covered_by(offset, size)
            new = part & ~covered
            if new.any() and (image := self.satellite(i)) is not None:  # most images need not be read
                satellite[new] = _shifted(image, offset)[new]
                if use_mask and (image := self.mask(i)) is not None:
                    mask[new] = _shifted(image, offset)[new]
                covered |= part
        return satellite, mask if use_mask else None, corner


def _covered_by(offset, size):
    """(size, size) bool: pixels of a canvas that an image of its size at an offset (row, col) covers."""
    first = np.arange(size)[:, None]
    rows, cols = ((first >= offset - _WHOLE_PX) & (first + 1 <= offset + size + _WHOLE_PX)).T
    return rows[:, None] & cols


def _shifted(image, offset):
    """An image at an offset (row, col) of a canvas of its size; offsets of whole pixels keep its values."""
    whole = abs(offset - np.rint(offset)).max() < _WHOLE_PX
    down, right = np.rint(offset) if whole else offset
    how = cv2.INTER_NEAREST if whole else cv2.INTER_LINEAR
    move, size = np.float64([[1, 0, right], [0, 1, down]]), image.shape[1::-1]
    return cv2.warpAffine(image, move, size, flags=how, borderMode=cv2.BORDER_REPLICATE)
