"""A city's satellite images: where each lies on the map, and an image cut out of them around any place."""

import sys
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from common import geometry
from common.errors import UserError
from common.geometry import SATELLITE_PX
from dataset.images import OriginalImages

_KEPT = 128  # images in memory: those around a few places


@dataclass(eq=False)
class Tiles:
    """The satellite images of a city.

    root: of the data · images: what reads them · names: (M,) file names · gps: (M, 2) degrees of their middles · paths,
    mask_paths: (M,) relative to the root · skip: leave out what cannot be read, and name it on stderr, instead of a UserError.
    """

    root: Path
    images: OriginalImages
    names: list
    gps: np.ndarray
    paths: list
    mask_paths: list
    skip: bool = False

    def __post_init__(self):
        self.satellite = lru_cache(_KEPT)(self.load)
        self.mask = lru_cache(_KEPT)(lambda i: self._read(self.images.mask, self.mask_paths[i]))

    def load(self, i):
        """A satellite image that is not kept in memory, as `satellite` gives it."""
        return self._read(self.images.satellite, self.paths[i])

    def _read(self, read, path):
        """An image, or None where it cannot be read and is to be left out."""
        try:
            return read(path)
        except UserError as error:
            if not self.skip:
                raise
            tqdm.write(f"skipped: {error}", file=sys.stderr)
            return None

    @classmethod
    def of_city(cls, index, city, images, skip=False):
        """Those that the lists of a `VigorIndex` have of a city, by its number there. UserError where they lie on no grid."""
        if index.by_path:
            raise UserError(f"{index.root}: has no grid of satellite images to search; folders in VIGOR's layout have one")
        rows = np.flatnonzero(index.satellite_city == city)
        names = [index.satellite_name[row].decode() for row in rows]
        paths = [index.satellite_path(row) for row in rows], [index.mask_path(row) for row in rows]
        return cls(index.root.resolve(), images, names, index.satellite_gps[rows], *paths, skip)

    @cached_property
    def centres_px(self):
        """(M, 2) middles (row, col) on the map, pixels at zoom 20."""
        return np.stack(geometry.mercator_px(*self.gps.T), -1)

    def nearest(self, place_px):
        """The number of the image in whose middle a place on the map lies best."""
        return int(abs(self.centres_px - place_px).max(1).argmin())

    def holding(self, place_px):
        """(M,) booleans: which images hold a place on the map."""
        return (abs(self.centres_px - place_px) <= SATELLITE_PX / 2).all(1)

    def mosaic(self, corner, height, width, pixel):
        """The images side by side, (height, width, 3) uint8, white where none lies; most that would add nothing are not read.

        corner: (row, col) on the map of its north-west corner · pixel: pixels of the map to one of its own.
        """
        picture, covered = np.full((height, width, 3), 255, np.uint8), np.zeros((height, width), bool)
        corners = np.rint((self.centres_px - SATELLITE_PX / 2 - corner) / pixel).astype(int)
        side = round(SATELLITE_PX / pixel)
        order = np.lexsort(corners.T[::-1])
        for overlap in (0.1, 1.0):  # images side by side first, then what is missing between them: few need be read
            for i in order:
                top, left = corners[i]
                here = tuple(slice(max(0, at), max(0, at + side)) for at in (top, left))
                if not covered[here].size or covered[here].mean() >= overlap or (image := self.load(i)) is None:
                    continue
                if len(image) != side:
                    image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
                part, shape = image[max(0, -top) :, max(0, -left) :], covered[here].shape
                picture[here], covered[here] = part[: shape[0], : shape[1]], True
        return picture

    def cut(self, place_px, use_mask):
        """An image around a place on the map, from all that cover it: (satellite (S, S, 3), mask (S, S) or None, corner).

        corner: (row, col) on the map of its north-west corner. It lies on the pixels of the nearest image, which are taken over
        as they are; what others fill in is moved by parts of a pixel. What none covers is black.
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
                satellite[new] = _moved(image, offset)[new]
                if use_mask and (image := self.mask(i)) is not None:
                    mask[new] = _moved(image, offset)[new]
                covered |= part
        return satellite, mask if use_mask else None, corner


def _covered_by(offset, size):
    """Which pixels of a square canvas an image of its size covers whole whose corner lies at a (row, col), (size, size) bool."""
    rows, cols = ((np.arange(size) >= at - 1e-3) & (np.arange(size) + 1 <= at + size + 1e-3) for at in offset)
    return rows[:, None] & cols


def _moved(image, offset):
    """An image with its corner moved to a (row, col) of a canvas of its size; by whole pixels it stays as it is."""
    move = np.float64([[1, 0, offset[1]], [0, 1, offset[0]]])
    whole = abs(offset - np.rint(offset)).max() < 1e-3
    how = cv2.INTER_NEAREST if whole else cv2.INTER_LINEAR
    return cv2.warpAffine(image, np.rint(move) if whole else move, image.shape[1::-1], flags=how, borderMode=cv2.BORDER_REPLICATE)
