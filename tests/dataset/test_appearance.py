"""What single images look like after training's augmentation, and that what they show stays where it is."""

import pytest
import torch

from dataset import appearance


def test_erasing_paints_the_mean_colour_of_a_quarter_of_the_images():
    torch.manual_seed(0)
    images = torch.rand(200, 3, 24, 32) * 255
    erased = appearance.erase(images.clone())
    hit = (erased != images).flatten(1).any(1)
    assert 30 < hit.sum() < 70
    for before, after in zip(images[hit], erased[hit], strict=True):
        rows, cols = torch.nonzero((before != after).any(0)).T
        height, width = (at.max() - at.min() + 1 for at in (rows, cols))
        assert len(rows) == height * width < 0.15 * 24 * 32  # a rectangle
        torch.testing.assert_close(after[:, rows[0], cols[0]], before.mean((1, 2)))


def test_blur_wraps_around_the_seam(monkeypatch):
    monkeypatch.setattr(appearance, "BLUR_SHARE", 1.0)
    panorama = torch.zeros(1, 3, 32, 64)
    panorama[..., 0] = 255
    torch.manual_seed(0)
    blurred = appearance.blur(panorama.clone())
    torch.testing.assert_close(blurred[..., 1:32], blurred[..., 33:].flip(3))
    torch.testing.assert_close(blurred.sum(), panorama.sum())


def test_what_is_restyled_stays_where_it_is():
    torch.manual_seed(3)
    image = torch.full((16, 3, 37, 51), 40.0)
    image[:, :, 13:22, 29:40] = 210
    changed = appearance.restyle(image.clone())
    assert changed.shape == image.shape and 0 <= float(changed.min()) and float(changed.max()) <= 255
    assert ((changed - image).abs().mean((1, 2, 3)) > 5).float().mean() > 0.8
    for grey in changed.mean(1):
        around = grey[8:28, 24:45]  # light varies over an image
        bright = torch.nonzero(around > (grey[15:20, 31:38].mean() + around.median()) / 2).float() + 0.5
        assert bright.mean(0).tolist() == pytest.approx((9.5, 10.5), abs=1.0)


def test_other_textures_leave_shapes_where_they_are():
    torch.manual_seed(0)
    image = torch.full((64, 3, 37, 51), 40.0)
    image[:, :, 13:24, 29:42] = 210
    changed = appearance.retexture(image.clone())
    assert 0 <= float(changed.min()) and float(changed.max()) <= 255
    hit = (changed != image).flatten(1).any(1)
    assert 20 < hit.sum() < 44  # half of them
    for inside in (changed[:, :, 15:22, 31:40], changed[:, :, :11], changed[..., :27], changed[..., 44:]):
        assert (inside - inside[:, :, :1, :1]).abs().max() < 1e-2  # an even patch stays even up to its edge
    apart = (changed[:, :, 18, 35] - changed[:, :, 5, 5]).abs().sum(1)
    assert (apart[hit] > 5).float().mean() > 0.9 and len(apart[hit].round().unique()) > 15


def test_other_textures_wrap_around_the_seam():
    panorama = torch.rand(8, 3, 24, 48) * 255
    torch.manual_seed(2)
    here = appearance.retexture(panorama, wraps=True)
    torch.manual_seed(2)
    rolled = appearance.retexture(panorama.roll(17, -1), wraps=True)
    assert (here != panorama).any()
    torch.testing.assert_close(rolled, here.roll(17, -1), atol=1e-2, rtol=0)
