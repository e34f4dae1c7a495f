"""One Web Mercator grid of cells for a city: cells, the map's pixels at zoom 20, metres.

Cell (i, j) covers [i, i + 1) cells south and [j, j + 1) east of the grid's origin; its middle is (i + 0.5, j + 0.5). A score at
a cell is that of a camera in its middle.
"""

from typing import NamedTuple

import numpy as np

from common import geometry
from common.geometry import SATELLITE_PX


class Grid(NamedTuple):
    """A city's cells.

    stride: of the features, in pixels of the satellite tensor · satellite_size: its side · origin: (row, col) of the north-west
    corner of cell (0, 0), pixels of the map at zoom 20 · latitude: degrees, for metres.
    """

    stride: int
    satellite_size: int
    origin: tuple
    latitude: float

    @property
    def pixel(self):
        """Pixels of the map to one of the satellite tensor."""
        return SATELLITE_PX / self.satellite_size

    @property
    def cell_px(self):
        """Pixels of the map to a cell."""
        return self.stride * self.pixel

    @property
    def metres_per_pixel(self):
        """Of the satellite tensor."""
        return float(geometry.metres_per_pixel(self.latitude, self.satellite_size))

    @property
    def cell_m(self):
        """Metres to a cell."""
        return self.metres_per_pixel * self.stride

    def to_cells(self, map_px):
        """(row, col) in cells, floats, of places (..., 2) on the map."""
        return (np.asarray(map_px, np.float64) - self.origin) / self.cell_px

    def to_map(self, cells):
        """Inverse of `to_cells`."""
        return np.asarray(cells, np.float64) * self.cell_px + self.origin

    def to_gps(self, cells):
        """(latitude, longitude) of a place (row, col) in cells."""
        return tuple(float(degrees) for degrees in geometry.latitude_longitude(*self.to_map(cells)))

    def from_gps(self, latitude, longitude):
        """(row, col) in cells of a place in degrees."""
        return self.to_cells(geometry.mercator_px(latitude, longitude))


def make_grid(stride, satellite_size, centres_px, latitude):
    """The `Grid` on which as many images as possible lie exactly.

    centres_px: (M, 2), the images' middles on the map. Its origin is the north-west corner of the box around all images, moved by
    less than a cell.
    """
    corners = centres_px - SATELLITE_PX / 2
    cell = stride * SATELLITE_PX / satellite_size
    phases = np.round(corners % cell, 3) % cell
    values, counts = np.unique(phases, axis=0, return_counts=True)
    phase = values[counts.argmax()]
    first = corners.min(0)
    return Grid(stride, satellite_size, tuple((first - (first - phase) % cell).tolist()), float(latitude))
