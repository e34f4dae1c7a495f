"""The index of a city: which cell gets what, from which image; what is refused, resumed and added."""

import errno
import json
from dataclasses import replace

import numpy as np
import pytest
from worlds import CORNER, PIXEL, SIZE, STRIDE, Colours, World, colour, make_tiles

from common.errors import UserError
from common.geometry import SATELLITE_PX
from engine.search import index as module
from engine.search.index import CHUNK, open_index

BLOCK = [(0, 0), (0, 320), (320, 0), (320, 320), (640, 320)]


def make(folder, tiles, **options):
    return open_index(folder, Colours(), "abc", "Chicago", tiles, "cpu", **options)


def error_of(folder, tiles, model=None, weights="abc"):
    with pytest.raises(UserError) as fault:
        open_index(folder, model or Colours(), weights, "Chicago", tiles, "cpu")
    return str(fault.value)


@pytest.mark.parametrize("shift", [0, 13, 41.5])
def test_every_cell_holds_what_lies_there(tmp_path, shift):
    """Rows are south, columns east, and a cell's middle half a cell from its corner, also for images off the grid."""
    tiles = make_tiles([*BLOCK, (320 + shift, 640 + 2 * shift)])
    index = make(tmp_path, tiles)
    row, col, end_row, end_col = index.bounds
    features, covered = index.read(row, col, end_row - row, end_col - col)
    rows, cols = np.nonzero(covered.numpy())
    assert len(rows) > 190
    expected = colour(index.grid.to_map(np.stack([rows + row, cols + col], -1) + 0.5))
    found = features.numpy()[:, rows, cols].T * 255
    offset_px = 0 if shift == 0 else 0.5 * PIXEL  # what is off the grid is moved by whole pixels
    edge = PIXEL * STRIDE / 2  # and at its end by up to half a cell, where it is filled up
    assert np.abs(found - expected)[:, :2].mean() < 0.3 + offset_px / 20
    assert np.abs(found - expected).max() < 0.6 + (offset_px + edge * (shift > 0)) / 20
    picture, there = index.brightness(row, col, end_row - row, end_col - col)
    assert there.sum() == covered.sum() and np.abs(picture[rows, cols] - found.mean(1)).max() <= 1


def test_a_cell_takes_its_features_from_the_image_that_it_lies_deepest_in(tmp_path):
    tiles = make_tiles([(0, 0), (0, 320)])
    own = tiles.images.satellite
    tiles.images.satellite = lambda number: np.full_like(own(number), 50 + 100 * number)
    index = make(tmp_path, tiles)
    half, whole = 320 / PIXEL / STRIDE, SATELLITE_PX / PIXEL / STRIDE
    features, _ = index.read(int(whole / 2), 0, 1, int(whole + half))
    middle = int((half + whole) / 2)  # between the centres of both
    assert np.allclose(features[0, 0, : middle - 1] * 255, 50, atol=0.5)
    assert np.allclose(features[0, 0, middle + 1 :] * 255, 150, atol=0.5)


def test_images_that_come_later_give_the_same_index(tmp_path):
    tiles = make_tiles(BLOCK)
    first = make_tiles(BLOCK[:2])
    whole, grown = make(tmp_path / "whole", tiles), make(tmp_path / "grown", first)
    assert grown.names == first.names
    grown = make(tmp_path / "grown", tiles)
    assert sorted(grown.names) == sorted(whole.names) and sorted(tiles.images.read) == sorted([*range(5), 2, 3, 4])
    for one, other in zip(whole.read(0, 0, 60, 60), grown.read(0, 0, 60, 60), strict=True):
        np.testing.assert_allclose(one, other, atol=0.004)
    make(tmp_path / "grown", tiles)
    assert len(tiles.images.read) == 8, "a finished index is only opened"


def test_a_build_that_was_cut_off_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_AT_ONCE", 2)
    tiles = make_tiles(BLOCK)
    own, asked = World.satellite, []

    def fail(world, number):
        asked.append(number)
        if len(asked) > 3:
            raise KeyboardInterrupt
        return own(world, number)

    monkeypatch.setattr(World, "satellite", fail)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, tiles)
    held = json.loads((tmp_path / "index.json").read_text())["names"]
    assert len(held) == 2 and not list(tmp_path.glob(".*.tmp"))
    monkeypatch.setattr(World, "satellite", own)
    index = make(tmp_path, tiles)
    assert sorted(index.names) == sorted(tiles.names) and len(tiles.images.read) == 6
    again = make(tmp_path / "again", tiles)
    np.testing.assert_array_equal(index.read(0, 0, 60, 60)[0], again.read(0, 0, 60, 60)[0])


def test_it_is_small(tmp_path):
    """Float16, and chunks only where there are images: two images far apart need a chunk each."""
    index = make(tmp_path, make_tiles([(0, 0), (0, 30000)]))
    files = list(tmp_path.glob("*.npy"))
    assert len(files) == len(index.chunks) == 2
    assert max(path.stat().st_size for path in files) <= 2 * (2 + CHUNK**2 * (3 + 2)) + 128


def test_what_is_of_something_else_is_refused(tmp_path):
    tiles = make_tiles(BLOCK)
    make(tmp_path, tiles)
    anew = "--rebuild makes it anew, --index_root chooses another place"
    start = f"{tmp_path / 'index.json'}: "
    assert error_of(tmp_path, tiles, weights="def") == f"{start}an index by another checkpoint; {anew}"
    assert error_of(tmp_path, tiles, Colours(SIZE * 2)) == f"{start}an index of another grid (satellite_size 64, not 128); {anew}"
    elsewhere = error_of(tmp_path, make_tiles(BLOCK, "/other"))
    assert elsewhere == f"{start}an index of the images in /world, not of those in /other; {anew}"
    assert "holds satellite_4, which is not in the list any more" in error_of(tmp_path, make_tiles(BLOCK[:4]))
    assert sorted(make(tmp_path, make_tiles(BLOCK[:4]), rebuild=True).names) == tiles.names[:4]


def test_a_damaged_index_is_refused(tmp_path):
    tiles = make_tiles(BLOCK)
    index = make(tmp_path, tiles)
    chunk = tmp_path / "0_0.npy"
    chunk.write_bytes(chunk.read_bytes()[:500])
    with pytest.raises(UserError, match=r"0_0.npy: no block of an index .*; --rebuild makes it anew"):
        index.read(0, 0, 8, 8)
    (tmp_path / "index.json").write_text('{"version": 1')
    assert "index.json: cannot be read" in error_of(tmp_path, tiles)
    (tmp_path / "index.json").write_text("{}")
    assert error_of(tmp_path, tiles).endswith("index.json: no index; --rebuild makes it anew")
    for path in make(tmp_path, tiles, rebuild=True).folder.glob("*.npy"):
        path.unlink()
    assert error_of(tmp_path, tiles) == f"{tmp_path}: its blocks are gone; --rebuild makes the index anew"


def test_a_full_disk_and_a_city_without_images(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    nothing = replace(make_tiles(BLOCK), names=[])
    assert error_of(tmp_path, nothing) == "Chicago: its list names no satellite image, so there is nothing to search in"
    monkeypatch.setattr(module.np, "save", full)
    line = error_of(tmp_path, make_tiles(BLOCK))
    assert line == f"{tmp_path}: cannot be written (No space left on device); --index_root chooses another place"
    assert not list(tmp_path.glob("*.json")) and not list(tmp_path.glob(".*.tmp"))


def test_a_grid_s_cells_are_metric_and_its_origin_the_north_west(tmp_path):
    grid = make(tmp_path, make_tiles([(7, 3), (327, 323)])).grid
    np.testing.assert_allclose(grid.origin, CORNER + (7, 3), atol=0.01)
    assert grid.cell_px == STRIDE * PIXEL == 80
    assert grid.cell_m == pytest.approx(80 * 0.1112, rel=1e-3)
    south, east = grid.from_gps(*grid.to_gps((3.5, 8.25)))
    assert (south, east) == pytest.approx((3.5, 8.25), abs=1e-6)
    assert grid.to_gps((4, 8))[0] < grid.to_gps((3, 8))[0] and grid.to_gps((3, 9))[1] > grid.to_gps((3, 8))[1]
