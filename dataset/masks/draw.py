"""Outlines on the map -> a mask, by OpenCV's fixed-point drawing: edges lie where they are to a sixteenth of a pixel."""

import cv2
import numpy as np
import shapely

from common.geometry import SATELLITE_PX

_FRACTION = 4  # bits


def draw_mask(outlines, stands, corner):
    """(640, 640) uint8, 255 where a camera may stand.

    outlines: (n,) polygons on the map, x its column and y its row, in painting order · stands: (n,) booleans, False cuts out ·
    corner: (row, col) of the image's north-west corner on the map.
    """
    mask = np.zeros((SATELLITE_PX, SATELLITE_PX), np.uint8)
    rings, owner = shapely.get_rings(outlines, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    # OpenCV's pixel centres are whole numbers, ours end in a half
    points = np.rint((points - np.asarray(corner)[::-1] - 0.5) * (1 << _FRACTION)).astype(np.int32)
    rings = np.split(points, np.flatnonzero(np.diff(ring)) + 1)
    first = np.searchsorted(owner, np.arange(len(outlines) + 1))
    for number, stand in enumerate(stands.tolist()):  # a polygon's inner rings are holes
        cv2.fillPoly(mask, rings[first[number] : first[number + 1]], 255 if stand else 0, cv2.LINE_8, _FRACTION)
    return mask
