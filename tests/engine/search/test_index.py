"""The index of a city: what each cell holds, and what is refused, resumed and added."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from children import files_end_at
from worlds import CORNER, PIXEL, SIZE, STRIDE, Colours, World, colour, make_tiles

from common.errors import UserError
from common.geometry import SATELLITE_PX
from engine.search.index import index_address, open_index
from engine.search.parts import CHUNK
from engine.search.store import FILE

FIVE = [(0, 0), (0, 320), (320, 0), (320, 320), (640, 320)]  # corners of images
REBUILD = "--rebuild"


def make(folder, tiles, model=None, weights="abc", **options):
    return open_index(folder, model or Colours(), weights, "Chicago", tiles, "cpu", **options)


def error_of(*arguments, **options):
    with pytest.raises(UserError) as caught:
        make(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def chunk_files(index):
    """{(row, col): path} of the chunks of an index in a folder."""
    folder = Path(index.store.path)
    return {part: folder / index.store.chunk(*part) for part in index.store.parts()[0]}


def read_everything(index):
    row, col, end_row, end_col = index.bounds
    return index.read_all(row, col, end_row - row, end_col - col)


@pytest.mark.parametrize("shift", [0, 13, 41.5])
def test_every_cell_holds_what_lies_there(tmp_path, shift):
    """Rows are south, columns east; a cell's centre is half a cell from its corner."""
    index = make(tmp_path, make_tiles([*FIVE, (320 + shift, 640 + 2 * shift)]))
    row, col, end_row, end_col = index.bounds
    features, covered = index.read(row, col, end_row - row, end_col - col)
    window, standing = index.windows(np.array([(row, col), (row + 1, col + 2)]), 5)
    assert torch.equal(window[1], features[:, 1:6, 2:7].permute(1, 2, 0))
    assert torch.equal(standing[1], covered[1:6, 2:7])
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
    make(tmp_path / "grown", first)
    assert first.images.numbers == [0, 1]
    grown = make(tmp_path / "grown", tiles)
    assert {2, 3, 4, 5, 6} <= {*tiles.images.numbers}
    whole = make(tmp_path / "whole", tiles)
    shift = np.rint((np.array(grown.grid.origin) - whole.grid.origin) / grown.grid.cell_px).astype(int)
    assert (shift > CHUNK).all()
    np.testing.assert_array_equal(np.add(grown.bounds, [*shift, *shift]), whole.bounds)
    np.testing.assert_array_equal(read_everything(grown), read_everything(whole))
    tiles.images.numbers.clear()
    make(tmp_path / "grown", tiles)
    assert not tiles.images.numbers, "a finished index is only opened"


def test_an_interrupted_build_resumes_and_gives_the_same(tmp_path, monkeypatch):
    side = CHUNK * STRIDE * PIXEL
    tiles = make_tiles([(row, col) for row in (0, side) for col in (0, 320, 640, side, side + 320)])
    load = World.satellite

    def interrupt(world, number):
        if len(world.numbers) == 4:
            raise KeyboardInterrupt
        return load(world, number)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(World, "satellite", interrupt)
        make(tmp_path / "cut", tiles)
    whole = make(tmp_path / "whole", tiles)
    assert len(list((tmp_path / "cut").glob("part.*"))) == 1 < len(list((tmp_path / "whole").glob("part.*")))
    chunk = chunk_files(whole)[max(chunk_files(whole))]
    shutil.copy(chunk, tmp_path / "cut")  # written, but not recorded
    half = tmp_path / "cut" / f"{chunk.stem}.0123.partial"  # a killed process's
    half.write_bytes(b"half")
    os.utime(half, (0, 0))
    tiles.images.numbers.clear()
    index = make(tmp_path / "cut", tiles)
    assert sorted(tiles.images.numbers) == list(range(3, 10)), "what was built is not built again"
    np.testing.assert_array_equal(read_everything(index), read_everything(whole))
    assert {*os.listdir(tmp_path / "cut")} == {*os.listdir(tmp_path / "whole")}


def test_empty_cells_take_no_space(tmp_path):
    index = make(tmp_path, make_tiles([(0, 0), (0, 300_000)]))
    files = chunk_files(index).values()
    assert len([*tmp_path.iterdir()]) == 1 + 2 * len(files), "a chunk and a record for each"
    image = (SIZE // STRIDE) ** 2 * (3 + 2) * 2  # bytes
    assert [path.stat().st_size < image + 2000 for path in files] == [True, True]
    assert not index.read(0, 3 * CHUNK, CHUNK, CHUNK)[1].any()


def test_the_index_of_something_else_is_refused(tmp_path):
    make(tmp_path, make_tiles(FIVE))
    for changed, before, now in (
        ((make_tiles(FIVE), None, "def"), "abc", "def"),
        ((make_tiles(FIVE), Colours(SIZE * 2)), "64", "128"),
    ):
        error = error_of(tmp_path, *changed)
        assert error.startswith(f"{tmp_path / FILE}: ")
        says = error.removeprefix(f"{tmp_path}")  # whose number may be one of these
        assert says.index(before) < says.index(now)
        assert REBUILD in error and "--index_root" in error
    with pytest.raises(UserError, match="streets False, not True"):
        make(tmp_path, make_tiles(FIVE), streets=True)
    (tmp_path / FILE).write_text((tmp_path / FILE).read_text().replace('"version": 5', '"version": 4'))
    assert "version 4, not 5" in error_of(tmp_path, make_tiles(FIVE))
    index = make(tmp_path, make_tiles(FIVE), rebuild=True)
    files = {path.name.split(".")[0] for path in tmp_path.iterdir()}
    assert files == {"zarr", "c", "part"} and len(chunk_files(index)) == 1


def test_images_that_left_the_list_or_changed_leave_the_index_too(tmp_path):
    make(tmp_path / "a", make_tiles([*FIVE, (0, 100_000)]))
    fewer = make(tmp_path / "a", make_tiles(FIVE[:4]))
    assert chunk_files(fewer).keys() == {(0, 0)}
    np.testing.assert_array_equal(
        read_everything(fewer), read_everything(make(tmp_path / "b", make_tiles(FIVE[:4])))
    )


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
def test_a_damaged_chunk_is_named_and_built_anew(tmp_path, damage, capfd):
    """At once if it is found while cells are read, else by the next command."""
    tiles = make_tiles([*FIVE, (0, 100_000)])
    index = make(tmp_path, tiles)
    before, chunk = read_everything(make(tmp_path, tiles)), chunk_files(index)[0, 0]
    for again in (index, None):
        chunk.write_bytes(damage(chunk.read_bytes()))
        tiles.images.numbers.clear()
        np.testing.assert_array_equal(read_everything(again or make(tmp_path, tiles)), before)
        assert {*tiles.images.numbers} == {0, 1, 2, 3, 4}, "the far image's part is whole"
        assert capfd.readouterr().err.count(f"{chunk}: ") == 1


def test_a_missing_chunk_and_one_of_another_network_are_built_anew(tmp_path, capfd):
    rng = np.random.default_rng(0)
    tiles = make_tiles(FIVE)
    index = make(tmp_path / "a", tiles)
    before, chunk = read_everything(index), chunk_files(index)[0, 0]
    other = make_tiles(FIVE)
    other.images.satellite = lambda number: rng.integers(0, 255, (SIZE, SIZE, 3), np.uint8)
    strange = make(tmp_path / "b", other, weights="def")
    for spoil in (chunk.unlink, lambda: shutil.copy(chunk_files(strange)[0, 0], chunk)):
        spoil()
        np.testing.assert_array_equal(read_everything(make(tmp_path / "a", tiles)), before)
        assert capfd.readouterr().err.count(f"{chunk}: ") == 1


def test_an_index_lies_at_any_address_of_fsspec(tmp_path):
    tiles = make_tiles(FIVE)
    stored = make("memory://indexes/a", tiles)
    np.testing.assert_array_equal(read_everything(stored), read_everything(make(tmp_path, tiles)))
    tiles.images.numbers.clear()
    assert make("memory://indexes/a", tiles).bounds == stored.bounds and not tiles.images.numbers
    assert index_address("memory://other", Colours(), "abc", "Chicago", tiles).startswith("memory://other/")


def test_only_streets_are_searched_but_all_is_seen(tmp_path):
    tiles = make_tiles([(0, 0)])
    rows = np.where(np.arange(SIZE) < 20, 255, 0).astype(np.uint8)
    tiles.mask = lambda i: np.repeat(rows[:, None], SIZE, 1)
    index = make(tmp_path, tiles, streets=True)
    features, standing = index.read(0, 0, 8, 8)
    # Rows 0 to 2 have street in them, row 3 lies beside it.
    assert standing[:4].all() and not standing[4:].any()
    assert (features[0] > 0).all() and index.brightness(0, 0, 8, 8)[1].all()


def test_numbers_that_are_not_finite_are_no_features(tmp_path):
    index = make(tmp_path / "index", make_tiles(FIVE))
    cell = index.array.shape[0] // 2
    before = read_everything(make(tmp_path / "index", make_tiles(FIVE)))
    zarr.open_array(index.store.zarr, mode="r+")[cell, cell, 0] = np.nan
    np.testing.assert_array_equal(read_everything(index), before)
    model = Colours()
    model.encode_satellite = lambda satellite, stride: (
        1e6 * Colours.encode_satellite(model, satellite, stride)
    )
    assert "not finite" in error_of(tmp_path / "other", make_tiles(FIVE), model)


@pytest.mark.parametrize("entry", ['"latitude": 41', '"origin": [', '"fill_value": 0', "Chicago", "53687"])
def test_a_flipped_bit_of_the_manifest_is_refused(tmp_path, entry):
    """The origin decides where all places lie, and what cells without an image hold is said there too."""
    make(tmp_path, make_tiles(FIVE))
    data = (tmp_path / FILE).read_bytes()
    place = data.index(entry.encode()) + len(entry) - 1
    (tmp_path / FILE).write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    assert error_of(tmp_path, make_tiles(FIVE)).startswith(f"{tmp_path / FILE}: ")


def test_an_index_belongs_to_its_images_wherever_they_lie(tmp_path):
    """Another data set with a city of that name has its own; added images extend the one there is."""
    places = [(0, 100_000), *FIVE]

    def write(name, images, size=10):
        (tmp_path / name).mkdir(exist_ok=True)
        for i in range(images):
            (tmp_path / name / str(i)).write_bytes(bytes(size))
        return make_tiles(places[:images], tmp_path / name)

    def folder_of(tiles):
        folder = index_address(tmp_path / "indexes", Colours(), "abc", "Chicago", tiles)
        make(folder, tiles)
        return folder

    first = folder_of(write("a", 3))
    assert folder_of(write("b", 3)) == first and folder_of(write("a", 5)) == first
    assert folder_of(write("c", 3, size=11)) != first
    write("a", 3, size=12)  # in their place
    assert folder_of(make_tiles(places, tmp_path / "a")) != first


@pytest.mark.parametrize("text", ['{"zarr_format": 3', "{}", ""])
def test_a_damaged_manifest_is_named(tmp_path, text):
    tiles = make_tiles(FIVE)
    make(tmp_path, tiles)
    (tmp_path / FILE).write_text(text)
    error = error_of(tmp_path, tiles)
    assert error.startswith(f"{tmp_path / FILE}: ") and REBUILD in error
    make(tmp_path, tiles, rebuild=True)


def test_a_full_disk_is_named_and_the_build_resumes(tmp_path):
    rng = np.random.default_rng(0)
    tiles = make_tiles([(row * 640, col * 640) for row in range(6) for col in range(6)])
    tiles.images.satellite = lambda number: rng.integers(0, 255, (SIZE, SIZE, 3), np.uint8)
    with files_end_at(8000):
        assert str(tmp_path) in error_of(tmp_path, tiles)
    assert os.listdir(tmp_path) == [FILE]
    assert read_everything(make(tmp_path, tiles)).shape[-1] == 5


def test_folders_that_cannot_be_written_and_lists_without_images_are_named(tmp_path):
    tiles = make_tiles(FIVE)
    assert error_of(Path("/proc/index"), tiles).startswith("/proc/index: ")
    assert error_of(tmp_path, replace(tiles, names=[])).startswith("Chicago: ")


def test_the_grid_is_metric_and_begins_in_the_north_west(tmp_path):
    grid = make(tmp_path, make_tiles([(7, 3), (327, 323)])).grid
    np.testing.assert_allclose(grid.origin, CORNER + (7, 3), atol=0.01)
    assert grid.cell_px == STRIDE * PIXEL == 80
    assert grid.cell_m == pytest.approx(80 * 0.1112, rel=1e-3)
    assert grid.from_gps(*grid.to_gps((3.5, 8.25))) == pytest.approx((3.5, 8.25), abs=1e-6)
    (north, west), (south, east) = grid.to_gps((3, 8)), grid.to_gps((4, 9))
    assert south < north and west < east
