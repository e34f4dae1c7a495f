"""A city's Web Mercator grid of cells; conversions between cells, degrees, and map pixels at zoom 20.

Cell (i, j) covers [i, i + 1) cells south and [j, j + 1) cells east of the grid's origin; its centre is
(i + 0.5, j + 0.5). The score of a cell is that of a camera at its centre.
"""

from typing import NamedTuple

import numpy as np

from common import geometry
from common.geometry import SATELLITE_PX


class CellGrid(NamedTuple):
    """The cells of a city."""

    stride: int  # of the features, in pixels of the satellite tensor
    satellite_size: int  # side of that tensor
    origin: tuple  # (row, col) of the north-west corner of cell (0, 0), in map pixels at zoom 20
    latitude: float  # degrees, which gives the cells' metres

    @property
    def pixel(self):
        """Map pixels per pixel of the satellite tensor."""
        return SATELLITE_PX / self.satellite_size

    @property
    def cell_px(self):
        """Side of a cell, in map pixels at zoom 20."""
        return self.stride * self.pixel

    @property
    def metres_per_pixel(self):
        """Metres per pixel of the satellite tensor."""
        return float(geometry.metres_per_pixel(self.latitude, self.satellite_size))

    @property
    def cell_m(self):
        """Side of a cell, in metres."""
        return self.metres_per_pixel * self.stride

    def to_cells(self, map_px):
        """(row, col) in cells, floats, of positions (..., 2) on the map."""
        return (np.asarray(map_px, np.float64) - self.origin) / self.cell_px

    def to_map(self, cells):
        """Inverse of `to_cells`."""
        return np.asarray(cells, np.float64) * self.cell_px + self.origin

    def to_gps(self, cells):
        """(latitude, longitude) of a position (row, col) in cells."""
        return tuple(float(degrees) for degrees in geometry.latitude_longitude(*self.to_map(cells)))

    def from_gps(self, latitude, longitude):
        """Inverse of `to_gps`."""
        return self.to_cells(geometry.mercator_px(latitude, longitude))


def make_grid(stride, satellite_size, centres_px, latitude):
    """The `CellGrid` on whose cells as many images as possible, by their centres (M, 2), lie exactly.

    The origin is the north-west corner of the box around all images, moved by less than a cell.
    """
    corners = centres_px - SATELLITE_PX / 2
    cell_px = stride * SATELLITE_PX / satellite_size
    phases, counts = np.unique(np.round(corners % cell_px, 3) % cell_px, axis=0, return_counts=True)
    first = corners.min(0)
    origin = first - (first - phases[counts.argmax()]) % cell_px
    return CellGrid(stride, satellite_size, tuple(origin.tolist()), float(latitude))
