"""A city's grid of satellite images, which of them belong to a panorama, and which panoramas train and test.

Positions are (row, col) on the Web Mercator map at zoom 20, (n, 2) float64.
"""

import zlib

import numpy as np
import shapely

from common import geometry
from common.geometry import SATELLITE_PX

STEP_PX = SATELLITE_PX // 2  # VIGOR's satellite images lie half an image apart


class TileGrid:
    """Satellite images half an image apart, their corners on whole pixels of the map.

    through: (latitude, longitude) of some image's centre, for a grid that goes on with another; without it the grid is the same
    wherever on Earth, so that a city that grows keeps its images. An image is known by its cell, whole numbers (row, col).
    """

    def __init__(self, through=None):
        centre = (0, 0) if through is None else geometry.mercator_px(*through)
        self.origin = np.rint(np.array(centre)) % STEP_PX  # of a cell's centre

    def four(self, positions):
        """(n, 4, 2) cells: the positive, whose centre is nearest, and the other three of the 2 x 2 around the position.

        All four show it: the furthest centre is less than half an image away, in rows and in columns.
        """
        there = (positions - self.origin) / STEP_PX
        nearest = np.rint(there).astype(int)
        over = np.where(there >= nearest, 1, -1)  # on which side of that centre
        moves = np.array([(0, 0), (0, 1), (1, 0), (1, 1)])
        return nearest[:, None] + moves * over[:, None]

    def filled(self, cells):
        """(m, 2): every cell of the rectangle around some."""
        (top, left), (bottom, right) = cells.min(0), cells.max(0)
        return np.stack(np.mgrid[top : bottom + 1, left : right + 1], -1).reshape(-1, 2)

    def centre(self, cells):
        """(n, 2) positions of images' centres."""
        return self.origin + np.asarray(cells) * STEP_PX

    def corner(self, cells):
        """(n, 2) positions of images' north-west corners, whole numbers."""
        return self.centre(cells) - SATELLITE_PX // 2


def split_by_blocks(positions, block_m, test_share, seed):
    """(n,) booleans, True for test: whole blocks of the map, about `block_m` on a side, each drawn with the chance of the share.

    Blocks lie where they lie and each is drawn by itself, so that a panorama that is added moves no other one to the other part.
    """
    latitude = round(float(geometry.latitude_longitude(*positions.mean(0))[0]))  # whole degrees, which a city hardly leaves
    blocks = np.floor(positions * float(geometry.metres_per_pixel(latitude)) / block_m).astype(int)
    return split_by_group([f"{row} {col}" for row, col in blocks.tolist()], test_share, seed)


def split_by_group(groups, test_share, seed):
    """(n,) booleans, True for test: whole groups, n names, each drawn by itself with the chance of the share."""
    drawn = {group: np.random.default_rng([seed, zlib.crc32(group.encode())]).random() < test_share for group in set(groups)}
    return np.array([drawn[group] for group in groups])


def near_test(positions, is_test, metres_per_pixel, gap_m):
    """(n,) booleans: panoramas that do not test, but stand nearer than `gap_m` to one that does."""
    points = shapely.points(positions)
    close = np.zeros(len(points), bool)
    if gap_m and is_test.any():
        close[shapely.STRtree(points[is_test]).query(points, predicate="dwithin", distance=gap_m / metres_per_pixel)[0]] = True
    return close & ~is_test
