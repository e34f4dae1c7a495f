"""A world whose colours encode the position, its tiles, and a network of mean colours."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F

from common import geometry
from common.geometry import SATELLITE_PX
from dataset.layout import ImageFile
from engine.search.tiles import Tiles

SIZE = 64  # pixels of a satellite tensor
STRIDE = 8
PIXEL = SATELLITE_PX / SIZE  # pixels of the map to one of it
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CORNER = np.array(geometry.mercator_px(41.85, -87.65)).round()


def colour(map_px):
    """(..., 3) of positions (..., 2) on the map: red grows southwards, green eastwards; blue is constant."""
    south, east = np.moveaxis((np.asarray(map_px) - CORNER) / 20, -1, 0)
    return np.stack([60 + south, 60 + east, np.full_like(south, 128)], -1)


class World:
    """Stands for `OriginalImages`: images of the world's colours; paths are numbers of the tiles."""

    def __init__(self, corners):
        self.corners, self.satellite_size, self.numbers = corners, SIZE, []

    def read(self, image):
        picture = self.satellite(int(image.path))
        return picture[..., 0] if image.kind == "mask" else picture

    def satellite(self, number):
        self.numbers.append(number)
        steps = (np.arange(SIZE) + 0.5) * PIXEL
        places = np.stack(np.meshgrid(steps, steps, indexing="ij"), -1) + self.corners[number]
        return np.rint(colour(places)).astype(np.uint8)


def make_tiles(offsets, root="/world"):
    """`Tiles` of that world; offsets of their north-west corners from `CORNER`, in map pixels."""
    corners = CORNER + np.asarray(offsets, float)
    gps = np.stack(geometry.latitude_longitude(*(corners + SATELLITE_PX / 2).T), -1)
    numbers = range(len(corners))
    files, masks = ([ImageFile(kind, str(number)) for number in numbers] for kind in ("satellite", "mask"))
    return Tiles(Path(root), World(corners), [f"satellite_{i}" for i in numbers], gps, files, masks)


class Colours:
    """A network whose features are the mean colours of its cells, 0 to 1."""

    def __init__(self, size=SIZE):
        self.settings = SimpleNamespace(satellite_size=size)
        self.matching = SimpleNamespace(search_stride=STRIDE, channels={STRIDE: 3}, has_templates=True)

    def encode_satellite(self, satellite, stride):
        mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in IMAGENET)
        return F.avg_pool2d(satellite * deviation + mean, stride)
