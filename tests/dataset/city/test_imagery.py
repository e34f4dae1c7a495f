"""Satellite images from files of any projection and from tiles: every pixel where it belongs."""

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
from dataset.decoding import encode

CORNER = np.array(geometry.mercator_px(47.6205, -122.321)).round().astype(int) + (3, 5)  # not of a tile
QUICK = {"requests_per_second": 1e6}
TRANSPARENT = cv2.imencode(".png", np.zeros((256, 256, 4), np.uint8))[1].tobytes()
PICTURE = encode(np.arange(256 * 256 * 3, dtype=np.uint8).reshape(256, 256, 3), ".png")
OBLONG = encode(np.zeros((128, 256, 3), np.uint8), ".png")


def expected(corner):
    rows, cols = np.mgrid[:640, :640] + 0.5
    return colour_at(rows + corner[0], cols + corner[1])


def assert_shows(image, corner=CORNER):
    """Each pixel has the colour of its place, and not that of half a pixel to any side."""
    assert image.shape == (640, 640, 3) and image.dtype == np.uint8

    def error(shift):
        return np.abs(image - expected(corner + np.array(shift)))[2:-2, 2:-2].mean()

    assert error((0, 0)) < 0.8
    assert all(error(shift) > 1.2 for shift in ((0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5)))


def provide(server, tmp_path, **options):
    return open_imagery(server.address, tmp_path / "tiles", **{**QUICK, **options})


@pytest.mark.parametrize(("zoom", "side"), [(20, 256), (19, 256), (18, 256), (19, 512), (20, 512), (21, 256)])
def test_tiles_of_any_zoom_and_size_become_the_map_at_zoom_20(server, tmp_path, zoom, side):
    server.side = side
    image = provide(server, tmp_path, zoom=zoom).read(CORNER)
    assert_shows(image)
    if (zoom, side) == (20, 256):  # tiles that fit are not resampled
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

    for pattern, server.answer in (("/{z}/{x}/{-y}.png", from_south), ("/{q}.png", by_quadkey)):
        imagery = open_imagery(server.url + pattern, tmp_path / "tiles", **QUICK)
        assert np.array_equal(imagery.read(CORNER), plain)


def test_tiles_are_kept_and_requested_once(server, tmp_path):
    first = provide(server, tmp_path).read(CORNER)
    assert len(server.asked) == len(set(server.asked)) and 9 <= len(server.asked) <= 16
    server.answer = lambda path: (500, "text/plain", b"", {})
    assert np.array_equal(provide(server, tmp_path).read(CORNER), first)


def test_requests_are_rate_limited_and_named_and_the_user_is_reminded_of_terms(server, tmp_path, monkeypatch):
    now, waited = [0.0], []

    def sleep(seconds):
        waited.append(seconds)
        now[0] += seconds

    monkeypatch.setattr("dataset.city.provider.time.monotonic", lambda: now[0])
    monkeypatch.setattr("dataset.city.provider.time.sleep", sleep)
    imagery = provide(server, tmp_path, requests_per_second=4, user_agent="someone")
    imagery.read(CORNER)
    assert server.agents == {"someone"}
    assert sum(waited) == pytest.approx((len(server.asked) - 1) / 4)
    assert all(part in imagery.terms for part in ("127.0.0.1", "at most 4 requests a second", "terms"))


def test_a_provider_that_is_busy_is_asked_again(server, tmp_path):
    busy = {}

    def answer(path):
        busy[path] = busy.get(path, 0) + 1
        late = path == server.asked[0] and busy[path] < 3
        return (503, "text/plain", b"", {"Retry-After": "0"}) if late else server.draw(path)

    server.answer = answer
    assert np.array_equal(provide(server, tmp_path).read(CORNER), np.rint(expected(CORNER)))


@pytest.mark.parametrize(
    ("status", "data", "kind", "says"),
    [
        (404, b"none", Missing, "status 404 Not Found; try a smaller --zoom than 20"),
        (403, b"no", UserError, r"refuses \(status 403 Forbidden\).* same command"),
        (200, b"<html>\nSorry</html>", Missing, r"19 bytes, is no image \('<html> Sorry</html>'\)"),
        (200, PICTURE[:-40], Missing, "is no image"),
        (200, b"", Missing, "0 bytes, is no image"),
        (200, TRANSPARENT, Missing, "no imagery at zoom 20"),
        (200, OBLONG, Missing, "a tile of 256 x 128 px"),
    ],
)
def test_answers_that_are_no_tile(server, tmp_path, status, data, kind, says):
    server.answer = lambda path: (status, "image/png", data, {})
    with pytest.raises(kind, match=says) as error:
        provide(server, tmp_path).read(CORNER)
    assert server.url in str(error.value) and "\n" not in str(error.value)
    server.answer = server.draw  # nothing of the answer was kept
    assert np.array_equal(provide(server, tmp_path).read(CORNER), np.rint(expected(CORNER)))


def test_after_a_refusal_nothing_more_is_asked(server, tmp_path):
    server.answer = lambda path: (403, "text/plain", b"no", {})
    imagery = provide(server, tmp_path)
    for _ in range(2):
        with pytest.raises(UserError, match=r"refuses \(status 403 Forbidden\)"):
            imagery.read(CORNER)
    assert len(server.asked) == 1


@pytest.mark.parametrize("address", ["https://host/tiles.png", "https://{s}.host/{z}/{x}/{y}.png"])
def test_an_address_needs_places_for_a_tile_s_numbers(tmp_path, address):
    with pytest.raises(UserError, match=r"--imagery https:.*\{z\}, \{x\} and \{y\}"):
        open_imagery(address, tmp_path)


def test_keys_are_neither_shown_nor_kept(server, tmp_path):
    addresses = [f"{server.address}?api_key={key}&style=x" for key in ("mine", "yours")]
    one, other = (open_imagery(address, tmp_path, **QUICK) for address in addresses)
    assert one.name == other.name and one.cache == other.cache and "mine" not in one.name + str(one.cache)
    server.answer = lambda path: (404, "text/plain", b"", {})
    with pytest.raises(Missing) as error:
        one.read(CORNER)
    assert "mine" not in str(error.value) and "api_key=mine" in server.asked[0]


def test_nobody_answers(tmp_path):
    with pytest.raises(Missing, match=r"127\.0\.0\.1:9/20/.*cannot be reached"):
        open_imagery("http://127.0.0.1:9/{z}/{x}/{y}.png", tmp_path, **QUICK).read(CORNER)


def write_raster(path, crs="EPSG:32610", finer=1.0, bands=3, dtype="uint8", reach=60, **profile):
    """The world around CORNER's image as a file; each pixel has the colour of its centre's place."""
    corners = CORNER - reach, CORNER + 640 + reach
    (left, top), (right, bottom) = (geometry.web_mercator_m(*corner) for corner in corners)
    bounds = transform_bounds("EPSG:3857", crs, left, bottom, right, top)
    height, width = (round(finer * (640 + 2 * reach)),) * 2
    grid = from_bounds(*bounds, width, height)
    rows, cols = np.mgrid[:height, :width] + 0.5
    east, north = grid.c + grid.a * cols, grid.f + grid.e * rows
    longitude, latitude = rasterio.warp.transform(crs, "EPSG:4326", east.ravel(), north.ravel())
    colours = colour_at(*geometry.mercator_px(np.array(latitude), np.array(longitude)))
    pixels = np.full((max(bands, 3), height, width), 255, dtype)
    pixels[:3] = np.rint(colours).reshape(height, width, 3).transpose(2, 0, 1)
    options = {"driver": "GTiff", "crs": crs, "transform": grid, "count": bands, "dtype": dtype, **profile}
    with rasterio.open(path, "w", height=height, width=width, **options) as file:
        file.write(pixels[:bands])
    return path


@pytest.mark.parametrize(
    ("crs", "finer"),  # UTM, the map, degrees, feet in Washington; a coarse file
    [(f"EPSG:{code}", 1.25) for code in (32610, 3857, 4326, 2285)] + [("EPSG:32610", 0.6)],
)
def test_a_geotiff_of_any_projection(tmp_path, crs, finer):
    assert_shows(open_imagery(write_raster(tmp_path / "town.tif", crs, finer), tmp_path).read(CORNER))


def test_mbtiles(tmp_path):
    (x, y), (right, _) = (geometry.web_mercator_m(*(CORNER - reach)) for reach in ((60, 60), (60, 59)))
    grid = Affine(right - x, 0, x, 0, x - right, y)
    profile = {"driver": "MBTiles", "tile_format": "PNG", "transform": grid}
    path = write_raster(tmp_path / "town.mbtiles", "EPSG:3857", **profile)
    assert_shows(open_imagery(path, tmp_path).read(CORNER))


def test_bands_of_other_kinds(tmp_path):
    four = write_raster(tmp_path / "infrared.tif", bands=4, photometric="rgb", alpha="no")
    assert_shows(open_imagery(four, tmp_path).read(CORNER))
    grey = open_imagery(write_raster(tmp_path / "grey.tif", bands=1), tmp_path).read(CORNER)
    assert (grey == grey[..., :1]).all() and grey.std() > 30


def test_extent_and_what_lies_beyond(tmp_path):
    imagery = open_imagery(write_raster(tmp_path / "town.tif", "EPSG:3857"), tmp_path)
    south, west, north, east = imagery.extent
    assert (north, west) == pytest.approx(CORNER - 60) and (south, east) == pytest.approx(CORNER + 700)
    with pytest.raises(Missing, match=r"town\.tif: covers 50% of it"):
        imagery.read(CORNER + (380, 0))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("absent", "no such file"),
        ("text", "GDAL cannot open it"),
        ("half", "cannot be read .*download it again"),
        ("deep", "uint16 values.*gdal_translate"),
        ("nowhere", "no projection"),
    ],
)
def test_files_that_are_no_imagery(tmp_path, name, says):
    path = tmp_path / f"{name}.tif"
    if name == "text":
        path.write_text("no raster")
    elif name == "half":
        whole = write_raster(path).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif name == "deep":
        write_raster(path, dtype="uint16")
    elif name == "nowhere":
        rasterio.open(path, "w", driver="GTiff", height=8, width=8, count=3, dtype="uint8").close()
    with pytest.raises(UserError, match=says) as error:
        open_imagery(path, tmp_path).read(CORNER)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
