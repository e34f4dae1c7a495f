"""The index of a city: what each cell holds, and what is refused, resumed and added."""

import os
import resource
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from worlds import CORNER, PIXEL, SIZE, STRIDE, Colours, World, colour, make_tiles

from common.errors import UserError
from common.files import locked
from common.geometry import SATELLITE_PX
from engine.search.index import BLOCK, CHUNK, FILE, index_folder, open_index

FIVE = [(0, 0), (0, 320), (320, 0), (320, 320), (640, 320)]  # corners of images
REBUILD = "--rebuild"


def make(folder, tiles, model=None, weights="abc", **options):
    return open_index(folder, model or Colours(), weights, "Chicago", tiles, "cpu", **options)


def error_of(*arguments, **options):
    with pytest.raises(UserError) as caught:
        make(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def read_everything(index):
    row, col, end_row, end_col = index.bounds
    return index.read_all(row, col, end_row - row, end_col - col)


@pytest.mark.parametrize("shift", [0, 13, 41.5])
def test_every_cell_holds_what_lies_there(tmp_path, shift):
    """Rows are south, columns east; a cell's centre is half a cell from its corner."""
    index = make(tmp_path, make_tiles([*FIVE, (320 + shift, 640 + 2 * shift)]))
    row, col, end_row, end_col = index.bounds
    features, covered = index.read(row, col, end_row - row, end_col - col)
    rows, cols = np.nonzero(covered.numpy())
    assert len(rows) > 190
    expected = colour(index.grid.to_map(np.stack([rows + row, cols + col], -1) + 0.5))
    found = features.numpy()[:, rows, cols].T * 255
    offset_px = 0 if shift == 0 else 0.5 * PIXEL  # images off the grid are moved by whole pixels
    edge = PIXEL * STRIDE / 2  # and padded at their end by up to half a cell
    assert np.abs(found - expected)[:, :2].mean() < 0.3 + offset_px / 20
    assert np.abs(found - expected).max() < 0.6 + (offset_px + edge * (shift > 0)) / 20
    picture, present = index.brightness(row, col, end_row - row, end_col - col)
    assert present.sum() == covered.sum() and np.abs(picture[rows, cols] - found.mean(1)).max() <= 1


def test_a_cell_has_the_features_of_the_image_in_which_it_lies_deepest(tmp_path):
    tiles = make_tiles([(0, 0), (0, 320)])
    tiles.images.satellite = lambda number: np.full((SIZE, SIZE, 3), 50 + 100 * number, np.uint8)
    index = make(tmp_path, tiles)
    half, whole = 320 / PIXEL / STRIDE, SATELLITE_PX / PIXEL / STRIDE
    features, _ = index.read(int(whole / 2), 0, 1, int(whole + half))
    middle = int((half + whole) / 2)  # between the centres of both
    assert np.allclose(features[0, 0, : middle - 1] * 255, 50, atol=0.5)
    assert np.allclose(features[0, 0, middle + 1 :] * 255, 150, atol=0.5)


def test_images_can_be_added_on_every_side(tmp_path):
    """Beyond the first images and their chunks, in all four directions."""
    far = 2 * CHUNK * STRIDE * PIXEL
    offsets = [(0, 0), (0, 320), (-320, -640), (-far, 0), (0, -far), (far, 320), (320, far)]
    tiles, first = make_tiles(offsets), make_tiles(offsets[:2])
    assert make(tmp_path / "grown", first).names == first.names
    grown = make(tmp_path / "grown", tiles)
    assert sorted(grown.names) == sorted(tiles.names) and sorted(tiles.images.numbers) == [2, 3, 4, 5, 6]
    whole = make(tmp_path / "whole", tiles)
    shift = np.rint((np.array(grown.grid.origin) - whole.grid.origin) / grown.grid.cell_px).astype(int)
    assert (shift > CHUNK).all()
    np.testing.assert_array_equal(np.add(grown.bounds, [*shift, *shift]), whole.bounds)
    np.testing.assert_array_equal(read_everything(grown), read_everything(whole))
    tiles.images.numbers.clear()
    make(tmp_path / "grown", tiles)
    assert not tiles.images.numbers, "a finished index is only opened"


def test_an_interrupted_build_resumes_and_gives_the_same(tmp_path, monkeypatch):
    side = BLOCK * STRIDE * PIXEL
    tiles = make_tiles([(row, col) for row in (0, side) for col in (0, 320, 640, side, side + 320)])
    load = World.satellite

    def interrupt(world, number):
        if len(world.numbers) == 4:
            raise KeyboardInterrupt
        return load(world, number)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(World, "satellite", interrupt)
        make(tmp_path / "cut", tiles)
    recorded = zarr.open_array(tmp_path / "cut", mode="r").attrs["names"]
    assert recorded == ["satellite_0", "satellite_1", "satellite_2"], "one block of images"
    whole = make(tmp_path / "whole", tiles)
    chunk = max(whole.chunks.values())
    shutil.copy(chunk, tmp_path / "cut")  # written, but the names of its images were not
    (tmp_path / "cut" / f"{chunk.stem}.0123.partial").write_bytes(b"half")  # a killed process's
    tiles.images.numbers.clear()
    index = make(tmp_path / "cut", tiles)
    assert sorted(index.names) == sorted(tiles.names) and sorted(tiles.images.numbers) == list(range(3, 10))
    np.testing.assert_array_equal(read_everything(index), read_everything(whole))
    assert set(os.listdir(index.folder)) == set(os.listdir(whole.folder))


def test_empty_cells_take_no_space(tmp_path):
    index = make(tmp_path, make_tiles([(0, 0), (0, 300_000)]))
    assert {path for path in tmp_path.iterdir() if path.name != FILE} == {*index.chunks.values()}
    image = (SIZE // STRIDE) ** 2 * (3 + 2) * 2  # bytes
    assert [path.stat().st_size < image + 500 for path in index.chunks.values()] == [True, True]
    assert not index.read(0, 3 * CHUNK, CHUNK, CHUNK)[1].any()


def test_the_index_of_something_else_is_refused(tmp_path):
    make(tmp_path, make_tiles(FIVE))
    for changed, before, now in (
        ((make_tiles(FIVE), None, "def"), "abc", "def"),
        ((make_tiles(FIVE), Colours(SIZE * 2)), "64", "128"),
    ):
        error = error_of(tmp_path, *changed)
        assert error.startswith(f"{tmp_path / FILE}: ") and error.index(before) < error.index(now)
        assert REBUILD in error and "--index_root" in error
    fewer = make_tiles(FIVE[:4])
    assert "satellite_4" in error_of(tmp_path, fewer)
    assert sorted(make(tmp_path, fewer, rebuild=True).names) == fewer.names
    (tmp_path / FILE).unlink()
    (tmp_path / "index.json").write_text("{}")
    assert error_of(tmp_path, fewer).startswith(f"{tmp_path / 'index.json'}: "), "version 1"
    index = make(tmp_path, fewer, rebuild=True)
    assert set(tmp_path.iterdir()) == {tmp_path / FILE, *index.chunks.values()}


def test_cells_of_another_network_do_not_survive_a_rebuild_that_was_cut_off(tmp_path):
    make(tmp_path / "a", make_tiles(FIVE))
    (tmp_path / "a" / FILE).unlink()
    again, expected = (read_everything(make(tmp_path / name, make_tiles(FIVE[3:]))) for name in "ab")
    np.testing.assert_array_equal(again, expected)


DAMAGES = {
    "flipped": lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
    "cut": lambda data: data[:100],
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_chunk_is_named(tmp_path, damage):
    index = make(tmp_path, make_tiles([*FIVE, (0, 100_000)]))
    chunk = index.chunks[0, 0]
    chunk.write_bytes(damage(chunk.read_bytes()))
    with pytest.raises(UserError, match=rf"^{chunk}: .*{REBUILD}"):
        index.read(-20, -20, 40, 40)
    _, col = max(index.chunks)
    assert index.read(0, col * CHUNK, CHUNK, CHUNK)[1].any(), "other chunks can still be read"


def test_numbers_that_are_not_finite_are_no_features(tmp_path):
    index = make(tmp_path / "index", make_tiles(FIVE))
    cell = index.array.shape[1] // 2
    zarr.open_array(index.folder, mode="r+")[0, cell, cell] = np.nan
    with pytest.raises(UserError, match=f"^{index.folder}.* not finite.*{REBUILD}"):
        read_everything(make(tmp_path / "index", make_tiles(FIVE)))
    model = Colours()
    model.encode_satellite = lambda satellite, stride: (
        1e6 * Colours.encode_satellite(model, satellite, stride)
    )
    assert "not finite" in error_of(tmp_path / "other", make_tiles(FIVE), model)


@pytest.mark.parametrize("entry", ['"latitude": 41', '"sizes": [', '"fill_value": 0', "satellite_3", "53687"])
def test_a_flipped_bit_of_the_manifest_is_refused(tmp_path, entry):
    """The origin decides where all places lie, and what cells without an image hold is said there too."""
    make(tmp_path, make_tiles(FIVE))
    data = (tmp_path / FILE).read_bytes()
    place = data.index(entry.encode()) + len(entry) - 1
    (tmp_path / FILE).write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    assert error_of(tmp_path, make_tiles(FIVE)).startswith(f"{tmp_path / FILE}: ")


def test_an_index_belongs_to_its_images_wherever_they_lie(tmp_path):
    """Another data set with a city of that name has its own; added images extend the one there is."""

    def write(name, images, size=10):
        (tmp_path / name).mkdir(exist_ok=True)
        for i in range(images):
            (tmp_path / name / str(i)).write_bytes(bytes(size))
        return make_tiles(FIVE[:images], tmp_path / name)

    def folder_of(tiles):
        folder = index_folder(tmp_path / "indexes", Colours(), "abc", "Chicago", tiles)
        make(folder, tiles)
        return folder

    first = folder_of(write("a", 3))
    assert folder_of(write("b", 3)) == first and folder_of(write("a", 5)) == first
    assert folder_of(write("c", 3, size=11)) != first
    write("a", 3, size=12)  # in their place
    assert folder_of(make_tiles(FIVE, tmp_path / "a")) != first
    assert "has changed" in error_of(first, make_tiles(FIVE, tmp_path / "a"))


@pytest.mark.parametrize("text", ['{"zarr_format": 3', "{}", ""])
def test_a_damaged_manifest_and_lost_chunks_are_named(tmp_path, text):
    tiles = make_tiles(FIVE)
    make(tmp_path, tiles)
    (tmp_path / FILE).write_text(text)
    error = error_of(tmp_path, tiles)
    assert error.startswith(f"{tmp_path / FILE}: ") and REBUILD in error
    make(tmp_path, tiles, rebuild=True).chunks[0, 0].unlink()
    error = error_of(tmp_path, tiles)
    assert error.startswith(f"{tmp_path}: ") and REBUILD in error


def test_a_full_disk_is_named_and_the_build_resumes(tmp_path):
    rng = np.random.default_rng(0)
    tiles = make_tiles([(row * 640, col * 640) for row in range(6) for col in range(6)])
    tiles.images.satellite = lambda number: rng.integers(0, 255, (SIZE, SIZE, 3), np.uint8)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, limits[1]))  # no file can grow further
    try:
        assert str(tmp_path) in error_of(tmp_path, tiles)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == [FILE] and not zarr.open_array(tmp_path, mode="r").attrs["names"]
    assert sorted(make(tmp_path, tiles).names) == sorted(tiles.names)


def test_folders_that_cannot_be_written_and_lists_without_images_are_named(tmp_path):
    tiles = make_tiles(FIVE)
    assert error_of(Path("/proc/index"), tiles).startswith("/proc/index: ")
    assert error_of(tmp_path, replace(tiles, names=[])).startswith("Chicago: ")
    with locked(tmp_path, "is writing an index in"):
        assert error_of(tmp_path, tiles).startswith(f"{tmp_path}: process {os.getpid()} on ")


def test_the_grid_is_metric_and_begins_in_the_north_west(tmp_path):
    grid = make(tmp_path, make_tiles([(7, 3), (327, 323)])).grid
    np.testing.assert_allclose(grid.origin, CORNER + (7, 3), atol=0.01)
    assert grid.cell_px == STRIDE * PIXEL == 80
    assert grid.cell_m == pytest.approx(80 * 0.1112, rel=1e-3)
    assert grid.from_gps(*grid.to_gps((3.5, 8.25))) == pytest.approx((3.5, 8.25), abs=1e-6)
    (north, west), (south, east) = grid.to_gps((3, 8)), grid.to_gps((4, 9))
    assert south < north and west < east
