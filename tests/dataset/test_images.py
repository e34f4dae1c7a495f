"""Images at their own size, their size without decoding them, cropped panoramas, HEIF files."""

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from dataset import images
from dataset.decoding import check_pixels, shown_size
from dataset.images import read_photograph, read_whole

NOISE = np.random.default_rng(0).integers(0, 256, (30, 60, 3), np.uint8)


def test_an_image_at_its_own_size(tmp_path):
    Image.fromarray(NOISE).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_whole(tmp_path / "a.png", 60), NOISE)
    assert read_whole(NOISE, 40).shape == (20, 40, 3)


def test_an_image_of_too_many_pixels_is_not_decoded(tmp_path, monkeypatch):
    Image.new("1", (3000, 2000)).save(tmp_path / "a.png")
    monkeypatch.setattr("cv2.imdecode", None)
    assert check_pixels(tmp_path / "a.png", 6_000_000) == tmp_path / "a.png"
    with pytest.raises(UserError, match="3000 x 2000 px"):
        check_pixels(tmp_path / "a.png", 5_000_000)
    (tmp_path / "b.png").write_bytes(b"no image at all")
    with pytest.raises(UserError, match=r"b\.png"):
        check_pixels(tmp_path / "b.png", 5_000_000)


@pytest.mark.parametrize(
    ("size", "vertical", "span"),
    [
        ((640, 320), (90.0, 90.0), 360.0),
        ((751, 375), (90.0, 90.0), 360.0),  # 360.5, within one per cent
        ((1232, 224), (38.6, 26.9), 360.0),  # 360.25
        ((616, 224), (38.6, 26.9), 180.125),
        ((1232, 224), (90.0, 90.0), 990.0),
        ((300, 200), (90.0, 90.0), 270.0),
    ],
)
def test_how_wide_a_panorama_is(size, vertical, span):
    assert images.panorama_span(*size, vertical) == pytest.approx(span)
    image = np.zeros((*size[::-1], 3), np.uint8)
    if span == 360:
        assert images.read_panorama(image, 48, 128, vertical).shape == (48, 128, 3)
    else:
        with pytest.raises(UserError, match=f"{size[0]} x {size[1]} px.*--vertical"):
            images.read_panorama(image, 48, 128, vertical)


def test_heif_photographs_are_read(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    smooth = np.indices((96, 128)).sum(0)[..., None] + np.array([0, 10, 30])
    picture = pillow_heif.from_pillow(Image.fromarray(smooth.astype(np.uint8)))
    picture.save(tmp_path / "phone.heic", quality=95)
    assert shown_size(tmp_path / "phone.heic") == (128, 96)
    image = read_photograph(tmp_path / "phone.heic")
    assert image.shape == (96, 128, 3) and abs(image.astype(float) - smooth).mean() < 3  # RGB, not BGR
    (tmp_path / "cut.heic").write_bytes((tmp_path / "phone.heic").read_bytes()[:200])
    with pytest.raises(UserError, match=r"cut\.heic"):
        read_photograph(tmp_path / "cut.heic")
