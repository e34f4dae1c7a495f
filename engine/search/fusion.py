"""Several satellite images of one place: their heat maps on one grid, and one estimate from all of them."""

from typing import NamedTuple

import numpy as np
import torch

from engine.inference.decode import locate

UNRELIABLE = 0.1  # share of heat maps that are assumed to carry no information about their panorama


class FusedMap(NamedTuple):
    """The fused heat maps of K images; positions are (row, col) in pixels of the grid.

    probability (H, W) sums to 1 over what the images cover, 0 elsewhere; position is the estimate; corners
    (K, 2) are the images' north-west corners; origin is the world position of the grid's corner.
    """

    probability: np.ndarray
    position: tuple
    corners: np.ndarray
    origin: np.ndarray


def fuse(probability, corners):
    """The `FusedMap` of one panorama's K overlapping images; some may not show its place.

    probability: (K, S, S), each summing to 1. corners: (K, 2), the north-west corners (row, col) of the
    images in the world, in their pixels. The grid contains the box around all images.

    A heat map p is the network's belief under the assumption that the panorama lies inside its image.
    Relative to a uniform map, it makes a position x r(x) = p(x) S^2 times as likely. The ratios of the images
    are multiplied after two corrections. A tenth of the maps may be wrong altogether: r becomes 0.9 r + 0.1,
    so that no single image can rule a position out. Beyond its edge an image carries no information: r = 1.
    So the peak of an image without the panorama counts once; the truth collects the ratios of all that hold
    it.
    """
    S = probability.shape[-1]
    corners = np.asarray(corners, np.float64)
    origin = np.floor(corners.min(0))
    corners = corners - origin
    H, W = np.floor(corners.max(0)).astype(int) + S + 1
    log_ratio, covered = np.zeros((H, W)), np.zeros((H, W), bool)
    for p, corner in zip(probability, corners, strict=True):
        (row, col), shifted, inside = _on_grid(p, corner)
        window = slice(row, row + S + 1), slice(col, col + S + 1)
        ratio = (1 - UNRELIABLE) * shifted * S**2 + UNRELIABLE
        log_ratio[window] += np.where(inside, np.log(ratio), 0.0)
        covered[window] |= inside
    log_ratio[~covered] = -np.inf
    fused = np.exp(log_ratio - log_ratio.max())
    position = locate(torch.from_numpy(log_ratio)[None], 1.0)[0].tolist()
    return FusedMap(fused / fused.sum(), tuple(position), corners, origin)


def mosaic(images, corners, shape, outside=255):
    """(K, S, S, 3) images on a grid (H, W), to the nearest pixel; their mean where they overlap."""
    total, count = np.zeros((*shape, 3)), np.zeros((*shape, 1))
    for image, corner in zip(images, corners, strict=True):
        row, col = np.rint(corner).astype(int)
        window = slice(row, row + len(image)), slice(col, col + len(image))
        total[window] += image
        count[window] += 1
    return np.where(count > 0, total / np.maximum(count, 1), outside).round().astype(np.uint8)


def _on_grid(p, corner):
    """A map (S, S) shifted to whole pixels: its first (row, col), and (S + 1, S + 1) values and coverage."""
    first = np.floor(corner).astype(int)
    down, right = corner - first
    padded = np.pad(p, 1, mode="edge")
    rows = down * padded[:-1] + (1 - down) * padded[1:]  # (S + 1, S + 2)
    shifted = right * rows[:, :-1] + (1 - right) * rows[:, 1:]
    centres = np.arange(len(p) + 1) + 0.5
    inside_rows, inside_cols = ((centres > part) & (centres < part + len(p)) for part in (down, right))
    return first, shifted, inside_rows[:, None] & inside_cols
