"""Draws a mask from outlines on the map, to a sixteenth of a pixel (OpenCV's fixed-point drawing)."""

import cv2
import numpy as np
import shapely

from common.geometry import SATELLITE_PX

_FRACTION_BITS = 4


def draw_mask(outlines, stands, corner):
    """(640, 640) uint8, 255 where a camera may stand.

    outlines: (n,) polygons on the map, x its column and y its row, in painting order.
    stands: (n,) booleans; outlines with False are cut out.
    corner: (row, col) of the image's north-west corner on the map.
    """
    mask = np.zeros((SATELLITE_PX, SATELLITE_PX), np.uint8)
    rings, owner = shapely.get_rings(outlines, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    # OpenCV's pixel centres are whole numbers, ours are at + 0.5
    points = np.rint((points - np.asarray(corner)[::-1] - 0.5) * (1 << _FRACTION_BITS)).astype(np.int32)
    rings = np.split(points, np.flatnonzero(np.diff(ring)) + 1)
    first = np.searchsorted(owner, np.arange(len(outlines) + 1))
    for start, stop, stand in zip(first[:-1], first[1:], stands.tolist(), strict=True):
        # inner rings become holes
        cv2.fillPoly(mask, rings[start:stop], 255 if stand else 0, cv2.LINE_8, _FRACTION_BITS)
    return mask
