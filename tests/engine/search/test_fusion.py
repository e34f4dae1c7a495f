"""Heat maps of overlapping images, fused by hand-made cases."""

import numpy as np
import pytest
from children import gaussian

from engine.search.fusion import fuse, mosaic

SIZE = 64


def test_four_maps_make_one_estimate():
    """Three tiles, half a tile apart, contain the position; the fourth has a confident peak elsewhere."""
    place = np.array([1000.4, 2060.7])
    corners = np.array([[960.3, 2020.1], [960.3, 2052.1], [992.3, 2020.1], [992.3, 2052.1]]) + 0.25
    maps = [gaussian(*(place - corner), sigma=3) for corner in corners]
    held = [(0 <= place - corner).all() and (place - corner < SIZE).all() for corner in corners]
    assert all(held), "the place lies in each tile"
    corners[3] = [980.0, 2064.0]  # now the place lies 3 px to its west
    maps[3] = gaussian(30.0, 40.0, sigma=0.6)
    fused = fuse(np.stack(maps), corners)
    np.testing.assert_allclose(np.add(fused.position, fused.origin), place, atol=0.25)
    assert fused.probability.sum() == pytest.approx(1)
    np.testing.assert_allclose(fused.corners + fused.origin, corners)
    assert fused.probability[int(fused.corners[3, 0]) - 10, -3] == 0, "outside of all tiles"


def test_a_wrong_map_is_outvoted_and_an_ignorant_one_changes_nothing():
    flat = np.full((SIZE, SIZE), SIZE**-2)
    right, wrong = gaussian(20.5, 30.5), gaussian(50, 10)
    here = np.zeros((3, 2))
    fused = fuse(np.stack([right, right, wrong]), here)
    np.testing.assert_allclose(fused.position, (20.5, 30.5), atol=0.05)
    alone, with_flat = fuse(np.stack([right]), here[:1]), fuse(np.stack([right, flat]), here[:2])
    np.testing.assert_allclose(alone.probability, with_flat.probability)


def test_a_mosaic_keeps_every_image_in_its_place():
    images = np.stack([np.full((4, 4, 3), value, np.uint8) for value in (10, 30)])
    found = mosaic(images, np.array([[0.0, 0.2], [2.0, 2.9]]), (7, 8))
    expected = {(0, 0): 10, (5, 6): 30, (3, 3): 20, (6, 0): 255}
    assert all((found[place] == value).all() for place, value in expected.items())
