"""Several satellite images of one place: their heat maps on one grid of the world, and one estimate from all of them."""

from typing import NamedTuple

import numpy as np
import torch

from engine.evaluation.prediction import locate

UNRELIABLE = 0.1  # share of heat maps that are taken to say nothing about their panorama


class FusedMap(NamedTuple):
    """Heat maps of K images, fused; positions are (row, col) in pixels of the grid.

    probability: (H, W), summing to 1 over what the images cover, 0 elsewhere.
    position: the estimate.
    corners: (K, 2), the images' north-west corners.
    origin: what to add to a position on the grid to get the world's.
    """

    probability: np.ndarray
    position: tuple
    corners: np.ndarray
    origin: np.ndarray


def fuse(probability, corners):
    """One estimate from the heat maps of K overlapping images of one panorama, some of which may not contain it.

    probability: (K, S, S), each summing to 1 · corners: (K, 2), the north-west corners (row, col) of the images in the world, in
    their pixels. Returns a `FusedMap`, whose grid holds the box around all images.

    A heat map is the network's belief on the supposition that the panorama lies inside its image. Against a map that knows
    nothing (1 / S^2 everywhere), a place x is then r(x) = p(x) S^2 times as likely. Two things temper it before the images'
    ratios are multiplied. A tenth of the maps may be wrong altogether: r becomes 0.9 r + 0.1, so that no image can rule a place
    out by itself. And about places beyond its edge an image says nothing: r = 1. The confident peak of an image that does not
    contain the panorama thus counts once, where the panorama's true place gathers the ratios of all images that contain it.
    """
    S = probability.shape[-1]
    corners = np.asarray(corners, np.float64)
    origin = np.floor(corners.min(0))
    corners = corners - origin
    H, W = np.floor(corners.max(0)).astype(int) + S + 1
    log_ratio, covered = np.zeros((H, W)), np.zeros((H, W), bool)
    for p, corner in zip(probability, corners, strict=True):
        first, shifted, inside = _on_grid(p, corner)
        window = tuple(slice(start, start + n) for start, n in zip(first, shifted.shape, strict=True))
        ratio = (1 - UNRELIABLE) * shifted * S**2 + UNRELIABLE
        log_ratio[window] += np.where(inside, np.log(ratio), 0.0)
        covered[window] |= inside
    log_ratio[~covered] = -np.inf
    fused = np.exp(log_ratio - log_ratio.max())
    position = locate(torch.from_numpy(log_ratio)[None], 1.0)[0].tolist()  # by the rule that every prediction follows
    return FusedMap(fused / fused.sum(), tuple(position), corners, origin)


def mosaic(images, corners, shape, outside=255):
    """(K, S, S, 3) images side by side on a grid (H, W), to the nearest pixel; where they overlap, their mean."""
    total, count = np.zeros((*shape, 3)), np.zeros((*shape, 1))
    for image, corner in zip(images, corners, strict=True):
        row, col = np.rint(corner).astype(int)
        window = slice(row, row + len(image)), slice(col, col + len(image))
        total[window] += image
        count[window] += 1
    return np.where(count > 0, total / np.maximum(count, 1), outside).round().astype(np.uint8)


def _on_grid(p, corner):
    """A map (S, S) moved to whole pixels, bilinearly: (first row and column, (S + 1, S + 1) map, where it is inside)."""
    S = len(p)
    first = np.floor(corner).astype(int)
    down, right = corner - first
    padded = np.pad(p, 1, mode="edge")
    rows = down * padded[:-1] + (1 - down) * padded[1:]  # (S + 1, S + 2)
    shifted = right * rows[:, :-1] + (1 - right) * rows[:, 1:]
    centres = np.arange(S + 1) + 0.5
    inside = [(centres > part) & (centres < part + S) for part in (down, right)]
    return first, shifted, inside[0][:, None] & inside[1]
