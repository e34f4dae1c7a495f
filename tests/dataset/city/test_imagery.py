"""Satellite images out of files of any projection and out of tiles from an address: every pixel where it belongs."""

import cv2
import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine, from_bounds
from rasterio.warp import transform_bounds
from tile_server import colour_at

from common import geometry
from common.errors import UserError
from dataset.city.imagery import Missing, open_imagery
from dataset.images import encode

CORNER = np.array(geometry.mercator_px(47.6205, -122.321)).round().astype(int) + (3, 5)  # of no tile
KEYS = {"requests_per_second": 1e6}
TRANSPARENT = cv2.imencode(".png", np.zeros((256, 256, 4), np.uint8))[1].tobytes()
PICTURE = encode(np.arange(256 * 256 * 3, dtype=np.uint8).reshape(256, 256, 3), ".png")


def expected(corner):
    rows, cols = np.mgrid[:640, :640] + 0.5
    return colour_at(rows + corner[0], cols + corner[1])


def assert_shows(image, corner):
    """Each pixel has its place's colour; half a pixel to any side it would not."""
    assert image.shape == (640, 640, 3) and image.dtype == np.uint8

    def error(shift):
        return np.abs(image - expected(corner + np.array(shift)))[2:-2, 2:-2].mean()

    assert error((0, 0)) < 0.8
    assert all(error(shift) > 1.2 for shift in ((0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5)))


def provide(server, tmp_path, **options):
    return open_imagery(server.address, tmp_path / "tiles", **{**KEYS, **options})


@pytest.mark.parametrize(("zoom", "side"), [(20, 256), (19, 256), (18, 256), (19, 512), (20, 512), (21, 256)])
def test_tiles_of_any_zoom_and_size_become_the_map_at_zoom_20(server, tmp_path, zoom, side):
    server.side = side
    assert_shows(provide(server, tmp_path, zoom=zoom).read(CORNER), CORNER)


def test_tiles_that_fit_are_cut_and_not_resampled(server, tmp_path):
    image = provide(server, tmp_path).read(CORNER)
    assert np.array_equal(image, np.rint(expected(CORNER)))


def test_rows_from_the_south_and_quadkeys(server, tmp_path):
    plain = provide(server, tmp_path).read(CORNER)
    draw, count = server.draw, 2**20

    def from_south(path):
        zoom, col, row = path.removesuffix(".png").strip("/").split("/")
        return draw(f"/{zoom}/{col}/{count - 1 - int(row)}.png")

    def by_quadkey(path):
        digits = path.removesuffix(".png").strip("/")
        col = sum((int(digit) & 1) << bit for bit, digit in enumerate(reversed(digits)))
        row = sum((int(digit) >> 1) << bit for bit, digit in enumerate(reversed(digits)))
        return draw(f"/{len(digits)}/{col}/{row}.png")

    for pattern, answer in (("/{z}/{x}/{-y}.png", from_south), ("/{q}.png", by_quadkey)):
        server.answer = answer
        assert np.array_equal(open_imagery(server.url + pattern, tmp_path / "tiles", **KEYS).read(CORNER), plain)


def test_tiles_are_kept_and_asked_for_once(server, tmp_path):
    first = provide(server, tmp_path).read(CORNER)
    assert len(server.asked) == len(set(server.asked)) and 9 <= len(server.asked) <= 16
    server.answer = lambda path: (500, "text/plain", b"", {})
    assert np.array_equal(provide(server, tmp_path).read(CORNER), first)


def test_who_asks_how_often_and_whose_terms_hold(server, tmp_path, monkeypatch):
    now, waited = [0.0], []
    monkeypatch.setattr("dataset.city.provider.time.monotonic", lambda: now[0])

    def sleep(seconds):
        waited.append(seconds)
        now[0] += seconds

    monkeypatch.setattr("dataset.city.provider.time.sleep", sleep)
    imagery = provide(server, tmp_path, requests_per_second=4, user_agent="someone")
    imagery.read(CORNER)
    assert server.agents == {"someone"}
    assert sum(waited) == pytest.approx((len(server.asked) - 1) / 4)
    assert "127.0.0.1" in imagery.terms and "at most 4 requests a second" in imagery.terms and "terms" in imagery.terms


def test_a_provider_that_is_busy_is_asked_again(server, tmp_path):
    busy = {}

    def answer(path):
        busy[path] = busy.get(path, 0) + 1
        late = path == server.asked[0] and busy[path] < 3
        return (503, "text/plain", b"", {"Retry-After": "0"}) if late else server.draw(path)

    server.answer = answer
    assert np.array_equal(provide(server, tmp_path).read(CORNER), np.rint(expected(CORNER)))


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        ((404, "text/plain", b"none", {}), Missing, r"status 404 Not Found; a smaller --zoom than 20"),
        ((403, "text/plain", b"no", {}), UserError, r"the provider refuses \(status 403 Forbidden\).*goes on where it stopped"),
        (
            (200, "text/html", b"<html>\nSorry</html>", {}),
            Missing,
            r"the answer, 19 bytes, is no image \('<html> Sorry</html>'\)",
        ),
        ((200, "image/png", PICTURE[:-40], {}), Missing, r"is no image"),
        ((200, "image/png", b"", {}), Missing, r"the answer, 0 bytes, is no image"),
        (
            (200, "image/png", TRANSPARENT, {}),
            Missing,
            r"a transparent tile, no imagery at zoom 20",
        ),
        ((200, "image/png", encode(np.zeros((128, 256, 3), np.uint8), ".png"), {}), Missing, r"a tile of 256 x 128 px"),
    ],
)
def test_answers_that_are_no_tile(server, tmp_path, answer, kind, says):
    server.answer = lambda path: answer
    with pytest.raises(kind, match=says) as error:
        provide(server, tmp_path).read(CORNER)
    assert server.url in str(error.value) and "\n" not in str(error.value)
    server.answer = server.draw  # and nothing of it was kept
    assert np.array_equal(provide(server, tmp_path).read(CORNER), np.rint(expected(CORNER)))


def test_an_address_needs_places_for_a_tile_s_numbers(tmp_path):
    with pytest.raises(UserError, match=r"where do a tile's numbers go"):
        open_imagery("https://host/tiles.png", tmp_path)
    with pytest.raises(UserError, match=r"\{s\} is none of"):
        open_imagery("https://{s}.host/{z}/{x}/{y}.png", tmp_path)


def test_keys_are_neither_told_nor_part_of_what_is_kept(server, tmp_path):
    one, other = (open_imagery(f"{server.address}?api_key={key}&style=x", tmp_path, **KEYS) for key in ("mine", "yours"))
    assert one.name == other.name and one.cache == other.cache and "mine" not in one.name + str(one.cache)
    server.answer = lambda path: (404, "text/plain", b"", {})
    with pytest.raises(Missing) as error:
        one.read(CORNER)
    assert "mine" not in str(error.value) and "api_key=mine" in server.asked[0]


def test_nobody_answers(tmp_path, monkeypatch):
    monkeypatch.setattr("dataset.city.provider._RETRIES", 0)
    with pytest.raises(Missing, match=r"127\.0\.0\.1:9/20/.*cannot be reached"):
        open_imagery("http://127.0.0.1:9/{z}/{x}/{y}.png", tmp_path, **KEYS).read(CORNER)


def write_raster(path, crs, finer=1.0, bands=3, dtype="uint8", reach=60, **profile):
    """The world around CORNER's image as a file in some projection; each pixel the colour of its centre's place."""
    (left, top), (right, bottom) = geometry.web_mercator_m(*(CORNER - reach)), geometry.web_mercator_m(*(CORNER + 640 + reach))
    bounds = transform_bounds("EPSG:3857", crs, left, bottom, right, top)
    height, width = (round(finer * (640 + 2 * reach)),) * 2
    grid = from_bounds(*bounds, width, height)
    rows, cols = np.mgrid[:height, :width] + 0.5
    east, north = grid.c + grid.a * cols, grid.f + grid.e * rows
    longitude, latitude = rasterio.warp.transform(crs, "EPSG:4326", east.ravel(), north.ravel())
    colours = colour_at(*geometry.mercator_px(np.array(latitude), np.array(longitude))).reshape(height, width, 3)
    pixels = np.rint(colours).astype(dtype).transpose(2, 0, 1)
    pixels = np.concatenate([pixels, np.full((max(bands - 3, 0), height, width), 255, dtype)])[:bands]
    options = {"crs": crs, "transform": grid, "height": height, "width": width, "count": bands, "dtype": dtype}
    with rasterio.open(path, "w", **{"driver": "GTiff", **options, **profile}) as file:
        file.write(pixels)
    return path


@pytest.mark.parametrize(
    "crs", ["EPSG:32610", "EPSG:3857", "EPSG:4326", "EPSG:2285"]
)  # UTM, the map, degrees, feet in Washington
def test_a_geotiff_of_any_projection(tmp_path, crs):
    imagery = open_imagery(write_raster(tmp_path / "town.tif", crs, finer=1.25), tmp_path)
    assert_shows(imagery.read(CORNER), CORNER)


def test_mbtiles(tmp_path):
    (x, y), (right, _) = geometry.web_mercator_m(*(CORNER - 60)), geometry.web_mercator_m(*(CORNER - (60, 59)))
    grid = Affine(right - x, 0, x, 0, x - right, y)
    options = {"driver": "MBTiles", "crs": "EPSG:3857", "transform": grid, "tile_format": "PNG"}
    rows, cols = np.mgrid[:760, :760] + 0.5
    pixels = np.rint(colour_at(*(CORNER - 60)[:, None, None] + (rows, cols))).astype(np.uint8)
    with rasterio.open(tmp_path / "town.mbtiles", "w", height=760, width=760, count=3, dtype="uint8", **options) as file:
        file.write(pixels.transpose(2, 0, 1))
    assert_shows(open_imagery(tmp_path / "town.mbtiles", tmp_path).read(CORNER), CORNER)


def test_coarse_files_are_smoothed_and_not_shifted(tmp_path):
    imagery = open_imagery(write_raster(tmp_path / "town.tif", "EPSG:32610", finer=0.6), tmp_path)
    assert_shows(imagery.read(CORNER), CORNER)


def test_bands_of_other_kinds(tmp_path):
    four = write_raster(tmp_path / "infrared.tif", "EPSG:32610", bands=4, photometric="rgb", alpha="no")
    assert_shows(open_imagery(four, tmp_path).read(CORNER), CORNER)
    grey = open_imagery(write_raster(tmp_path / "grey.tif", "EPSG:32610", bands=1), tmp_path).read(CORNER)
    assert (grey == grey[..., :1]).all() and grey.std() > 30


def test_extent_and_what_lies_beyond(tmp_path):
    imagery = open_imagery(write_raster(tmp_path / "town.tif", "EPSG:3857"), tmp_path)
    south, west, north, east = imagery.extent
    assert (north, west) == pytest.approx(CORNER - 60) and (south, east) == pytest.approx(CORNER + 700)
    with pytest.raises(Missing, match=r"town\.tif: covers 50% of it"):
        imagery.read(CORNER + (380, 0))


def test_files_that_are_no_imagery(tmp_path):
    def refused(path, says):
        with pytest.raises(UserError, match=says) as error:
            open_imagery(path, tmp_path).read(CORNER)
        assert str(path) in str(error.value) and "\n" not in str(error.value)

    refused(tmp_path / "absent.tif", "no such file")
    (tmp_path / "text.tif").write_text("no raster")
    refused(tmp_path / "text.tif", "GDAL cannot open it")
    whole = write_raster(tmp_path / "whole.tif", "EPSG:32610").read_bytes()
    (tmp_path / "half.tif").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "half.tif", "cannot be read .*download it again")
    refused(write_raster(tmp_path / "deep.tif", "EPSG:32610", dtype="uint16"), "uint16 values; gdal_translate")
    with rasterio.open(tmp_path / "nowhere.tif", "w", driver="GTiff", height=8, width=8, count=3, dtype="uint8"):
        pass
    refused(tmp_path / "nowhere.tif", "tells no projection")
