"""Files of every kind: one clear line, or the pixels of the plain RGB file as it is to be shown."""

import os
import shutil
from io import BytesIO

import cv2
import numpy as np
import pytest
from children import make_exif
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from common.errors import UserError
from common.view import View
from dataset.cache import CachedImages, make_cache
from dataset.city.street_images import write_panorama
from dataset.city.table import read_table
from dataset.decoding import encode, shown_size
from dataset.exif import read_header
from dataset.images import (
    OriginalImages,
    read_mask,
    read_panorama,
    read_part,
    read_photograph,
    read_satellite,
)
from dataset.index import load_index
from dataset.own import Needs, own_query

FORMATS = {  # Pillow's name and options, the modes that it holds, the largest difference of a pixel
    "JPEG": ({"quality": 95, "subsampling": 0}, ("RGB", "L", "CMYK"), 6),
    "MPO": ({"quality": 95, "subsampling": 0}, ("RGB",), 6),
    "PNG": ({}, ("RGB", "L", "1", "P", "LA", "RGBA", "I;16"), 1),
    "TIFF": ({"compression": "tiff_lzw"}, ("RGB", "L", "1", "P", "RGBA", "I;16"), 1),
    "WEBP": ({"lossless": True, "exact": True}, ("RGB", "RGBA"), 1),
    "BMP": ({}, ("RGB", "L", "1", "P"), 1),
    "GIF": ({}, ("L", "P"), 1),
    "JPEG2000": ({}, ("RGB", "L"), 1),
}
TAGGED = ("JPEG", "PNG", "TIFF", "WEBP")  # what this test writes with an orientation tag


def smooth(width, height):
    """An image without sharp edges, which no lossy format changes much."""
    y, x = np.mgrid[:height, :width] / max(width, height)
    return np.stack([255 * x, 255 * y, 128 + 60 * np.sin(5 * (x + y))], -1).clip(0, 255).astype(np.uint8)


def in_mode(image, mode):
    """An RGB image in a mode of Pillow's, and its pixels (H, W, 3) as every reader should see them."""
    if mode == "I;16":
        grey = np.asarray(image.convert("L"))
        return Image.fromarray(grey.astype(np.uint16) * 257), np.repeat(grey[..., None], 3, -1)
    image = image.convert(mode)
    return image, np.asarray(image.convert("RGB"))


@st.composite
def files(draw, sizes=None):
    """(bytes, pixels as shown, tolerance, whether the file is cut off). sizes: (width, height) as stored."""
    name = draw(st.sampled_from(sorted(FORMATS)))
    options, modes, tolerance = FORMATS[name]
    longer = draw(st.integers(16, 96))
    sizes = sizes or [(2 * longer, longer), (longer, 2 * longer), (longer, longer)]
    size = draw(st.sampled_from(sizes))
    image, pixels = in_mode(Image.fromarray(smooth(*size)), draw(st.sampled_from(modes)))
    tag = draw(st.sampled_from([None, 0, *range(1, 9)])) if name in TAGGED else None
    if tag is not None:
        options = options | {"exif": make_exif(tag)}
        turned = Image.fromarray(pixels)
        turned.info["exif"] = make_exif(tag).tobytes()
        turned.getexif()[0x0112] = tag
        pixels = np.asarray(ImageOps.exif_transpose(turned))
    image.save(file := BytesIO(), name, **options)
    data, share = file.getvalue(), draw(st.sampled_from([1.0, 1.0, 0.05, 0.4, 0.8, 0.95]))
    return data[: int(len(data) * share)], pixels, tolerance, share < 1


def outcome(read, source):
    """What a reader gives, or its UserError, which has to be one line."""
    try:
        return read(source)
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 500
        return error


READERS = [
    lambda source: read_panorama(source, 16, 32),
    lambda source: read_satellite(source, (24, 24), any_size=True),
    lambda source: read_photograph(source),
    lambda source: read_photograph(source, (20, 30)),
    lambda source: read_part(source, (2, 4, 10)),
]


@given(files())
@settings(max_examples=120, deadline=None, derandomize=True)
def test_a_file_is_read_as_the_pixels_that_it_shows(drawn):
    data, pixels, tolerance, is_cut = drawn
    for read in READERS:
        seen, expected = outcome(read, data), outcome(read, pixels)
        if isinstance(seen, UserError):
            assert is_cut or isinstance(expected, UserError), seen
            continue
        assert seen.shape == expected.shape and seen.dtype == np.uint8
        assert abs(seen.astype(int) - expected).max() <= tolerance
    if not is_cut:
        assert shown_size(data) == read_header(data).size == pixels.shape[1::-1]
        foreground = outcome(lambda mask: read_mask(mask, pixels.shape[:2], any_size=True), data)
        if tolerance == 1:  # a lossy mask is none
            np.testing.assert_array_equal(foreground, pixels.any(-1) * np.uint8(255))


def test_jpegs_are_decoded_at_less_than_their_size_and_others_are_not(tmp_path):
    """PNGs at a half or less would alias: noise, averaged over 8 x 8 pixels, is nearly grey."""
    noise = np.random.default_rng(0).integers(0, 256, (256, 512, 3), np.uint8)
    for name, options in (("a.png", {}), ("a.jpg", {"quality": 100, "subsampling": 0})):
        Image.fromarray(noise).save(tmp_path / name, **options)
        seen = read_panorama(tmp_path / name, 32, 64).astype(int)
        assert abs(seen - read_panorama(noise, 32, 64)).mean() < 1


def through_a_data_set(root, folder):
    """Ways of an image's file, by its `ImageFile` and bytes: read as it is, from a cache, in a city."""

    def put(image, data):
        (root / image.path).write_bytes(data)
        return image

    def from_cache(image, data):
        put(image, data)
        shutil.rmtree(folder / "cache", ignore_errors=True)
        sizes = {"satellite_size": 64, "panorama_size": (32, 64), "lossless": True}
        make_cache(root, folder / "cache", workers=1, **sizes)
        return CachedImages(folder / "cache", 64, (32, 64), lossless=True).read(image)

    def of_city(image, data):
        (folder / "p.png").write_bytes(data)
        (folder / "own.csv").write_text("file,latitude,longitude,heading\np.png,1,2,0\n")
        (row,) = read_table(folder / "own.csv")
        write_panorama(row, folder / "written.jpg")
        return read_panorama(folder / "written.jpg", 32, 64)

    original = OriginalImages(root, 64, (32, 64))
    ways = {"as it is": lambda image, data: original.read(put(image, data)), "cached": from_cache}
    return {"panorama": ways | {"in a city": of_city}, "satellite": ways}


@pytest.fixture(scope="module")
def small_root(vigor_root, tmp_path_factory):
    """A folder of one city of `vigor_root`, to be changed."""
    root = tmp_path_factory.mktemp("small")
    for part in ("Seattle", "splits__corrected/Seattle"):
        shutil.copytree(vigor_root / part, root / part)
    return root


SIZES = {"panorama": [(64, 32), (32, 64), (96, 48)], "satellite": [(640, 640)]}


@pytest.mark.parametrize("kind", SIZES)
def test_a_data_set_its_cache_and_a_city_read_a_file_as_the_pixels_that_it_shows(small_root, tmp_path, kind):
    """A search reads its satellite images as the data set does."""
    index, ways = load_index(small_root, "samearea", "test"), through_a_data_set(small_root, tmp_path)[kind]
    panorama, satellite = index.panorama_image(0), index.satellite_image(index.satellite[0, 0])
    image = panorama if kind == "panorama" else satellite
    before = (small_root / image.path).read_bytes()
    read, sizes = (read_panorama, (32, 64)) if kind == "panorama" else (read_satellite, ((64, 64),))

    @given(files(SIZES[kind]))
    @settings(max_examples=10, deadline=None, derandomize=True)
    def check(drawn):
        data, pixels, tolerance, is_cut = drawn
        expected = outcome(lambda pixels: read(pixels, *sizes), pixels)
        for name, way in ways.items():
            seen = outcome(lambda data, way=way: way(image, data), data)
            if isinstance(seen, UserError):
                assert is_cut or isinstance(expected, UserError), f"{name}: {seen}"
            else:
                away = abs(seen.astype(int) - expected)
                assert away.max() <= (12 if name == "in a city" else tolerance), name

    try:
        check()
    finally:
        (small_root / image.path).write_bytes(before)


WEB_PAGE = b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (WEB_PAGE, "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n", "git lfs pull"),
        (b"no image at all, but words", "a text"),
        (b"%PDF-1.7 ...", "PDF"),
        (b"", "empty"),
        (os.urandom(300) + b"\x00\xff", "no image"),
        (b"\xff\xd8\xff", "no image"),
        ("folder", "a folder"),
        ("pipe", "a pipe"),
        (encode(np.zeros((9000, 20_000), np.uint8), ".png"), "20000 x 9000 px; up to 178 million"),
    ],
)
def test_what_is_no_image_is_called_by_its_name(tmp_path, content, says):
    path = tmp_path / "street.jpg"
    if content == "folder":
        path.mkdir()
    elif content == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(content)
    for read in (read_header, shown_size, lambda file: read_panorama(file, 16, 32)):
        with pytest.raises(UserError, match=f"street.jpg: .*{says}"):
            read(path)
    with pytest.raises(UserError, match="File name too long"):
        read_photograph(tmp_path / ("x" * 300))


def test_a_panorama_that_is_whole_only_through_its_tag(tmp_path):
    """Stored 1:2 with orientation 6 it works; stored 2:1 with that tag it is 1:2, and refused."""
    image = Image.fromarray(smooth(128, 64))
    path = tmp_path / "turned.jpg"
    image.transpose(Image.Transpose.ROTATE_90).save(path, quality=95, exif=make_exif(6))
    assert abs(read_panorama(path, 32, 64).astype(int) - read_panorama(np.asarray(image), 32, 64)).max() < 6
    image.save(path, exif=make_exif(6))
    with pytest.raises(UserError, match=r"turned.jpg: 64 x 128 px.*orientation tag"):
        read_panorama(path, 32, 64)


def test_a_photograph_s_camera_follows_its_tag(tmp_path):
    view = View(satellite_size=64, panorama_size=(64, 128), camera="photo", photo_width=128, ori_noise=180.0)
    pixels, path = smooth(90, 120), tmp_path / "upright.jpg"
    cv2.imwrite(str(path), np.rot90(pixels)[..., ::-1])
    Image.open(path).save(path, exif=make_exif(6), quality=95)
    sample, _ = own_query(view, Needs(False, True, True), photo=path, hfov=50)
    plain, _ = own_query(view, Needs(False, True, True), photo=pixels, hfov=50)
    assert sample["query"].shape == plain["query"].shape
    assert abs(sample["query"].int() - plain["query"]).max() < 12
    np.testing.assert_array_equal(sample["camera"].values, plain["camera"].values)
