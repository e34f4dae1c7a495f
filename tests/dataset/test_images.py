"""Images at their own size, and their size without decoding them."""

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from dataset.images import check_pixels, read_whole


def test_an_image_at_its_own_size(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (30, 60, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_whole(tmp_path / "a.png", 60), image)
    assert read_whole(image, 40).shape == (20, 40, 3)


def test_an_image_of_too_many_pixels_is_not_decoded(tmp_path, monkeypatch):
    Image.new("1", (3000, 2000)).save(tmp_path / "a.png")
    monkeypatch.setattr("cv2.imdecode", None)
    assert check_pixels(tmp_path / "a.png", 6_000_000) == tmp_path / "a.png"
    with pytest.raises(UserError, match="3000 x 2000 px; up to 5 million pixels are taken"):
        check_pixels(tmp_path / "a.png", 5_000_000)
    (tmp_path / "b.png").write_bytes(b"no image at all")
    with pytest.raises(UserError, match="cannot be decoded"):
        check_pixels(tmp_path / "b.png", 5_000_000)
