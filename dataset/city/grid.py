"""The grid of a city's satellite images, and the split of its street images into training and test.

Positions are (row, col) on the Web Mercator map at zoom 20, (n, 2) float64.
"""

import zlib

import numpy as np
import shapely

from common import geometry
from common.geometry import SATELLITE_PX
from dataset.layout import STEP_PX


class TileGrid:
    """Satellite images half an image apart, their corners on whole map pixels, numbered by cells (row, col).

    through: (latitude, longitude) of the centre of an image whose grid is continued. Without it, the grid is
    the same everywhere on Earth, so a city that grows keeps its images.
    """

    def __init__(self, through=None):
        centre = (0, 0) if through is None else geometry.mercator_px(*through)
        self.origin = np.rint(np.array(centre)) % STEP_PX  # of a cell's centre

    def four(self, positions):
        """(n, 4, 2) cells of the 2 x 2 images around positions, first the positive, whose centre is nearest.

        All four show the position: their centres are less than half an image away in rows and columns.
        """
        cells = (positions - self.origin) / STEP_PX
        nearest = np.rint(cells).astype(int)
        direction = np.where(cells >= nearest, 1, -1)
        steps = np.array([(0, 0), (0, 1), (1, 0), (1, 1)])
        return nearest[:, None] + steps * direction[:, None]

    def filled(self, cells):
        """(m, 2): all cells of the smallest rectangle that contains the given ones."""
        (top, left), (bottom, right) = cells.min(0), cells.max(0)
        return np.stack(np.mgrid[top : bottom + 1, left : right + 1], -1).reshape(-1, 2)

    def centre(self, cells):
        """(n, 2) positions of the images' centres."""
        return self.origin + np.asarray(cells) * STEP_PX

    def corner(self, cells):
        """(n, 2) positions of the images' north-west corners, whole numbers."""
        return self.centre(cells) - SATELLITE_PX // 2


def split_by_blocks(positions, block_m, test_share, seed):
    """(n,) booleans: whether the block of the map, with sides of about `block_m`, is drawn for test.

    A draw depends on the block's place and the seed only, so new panoramas do not change the part of others.
    """
    latitude = round(float(geometry.latitude_longitude(*positions.mean(0))[0]))  # stable while a city grows
    blocks = np.floor(positions * float(geometry.metres_per_pixel(latitude)) / block_m).astype(int)
    return split_by_group([f"{row} {col}" for row, col in blocks.tolist()], test_share, seed)


def split_by_group(groups, test_share, seed):
    """(n,) booleans, True for test: each group, given by n names, is test with probability `test_share`."""

    def draw(group):
        return np.random.default_rng([seed, zlib.crc32(group.encode())]).random() < test_share

    is_test = {group: draw(group) for group in set(groups)}
    return np.array([is_test[group] for group in groups])


def near_test(positions, is_test, metres_per_pixel, gap_m):
    """(n,) booleans: panoramas outside the test part that stand nearer than `gap_m` to a test panorama."""
    points = shapely.points(positions)
    close = np.zeros(len(points), bool)
    if gap_m and is_test.any():
        test_tree = shapely.STRtree(points[is_test])
        close[test_tree.query(points, predicate="dwithin", distance=gap_m / metres_per_pixel)[0]] = True
    return close & ~is_test
