"""Test-time augmentation: a changed world gets the changed answer, whatever the network says."""

from dataclasses import replace

import pytest
import torch
from children import SMALL_VIEW, make_network

from common.camera import Panorama
from common.geometry import wrap_degrees
from common.view import FORMS, View
from dataset.augment import PHOTO_COLUMNS, PairChange, change_pair, cut
from engine.inference.predictor import Predictor

W = 128
VIEW = replace(SMALL_VIEW, tta=FORMS)


def predictor(view=VIEW, **settings):
    network = make_network(view, network="light", **{"use_mask": False, **settings})
    return Predictor(network, view, torch.device("cpu"))


def draw_batch(B=2, use_mask=False):
    generator = torch.Generator().manual_seed(1)

    def image(*shape):
        return torch.randint(0, 256, (B, *shape), generator=generator, dtype=torch.uint8)

    batch = {
        "query": image(3, 64, W),
        "camera": Panorama(torch.zeros(B, 1)),
        "satellite": image(3, 64, 64),
        "position": torch.full((B, 2), 32.0),
        "heading": torch.zeros(B),
        "metres_per_pixel": torch.full((B,), 1.1),
        "index": torch.arange(B),
    }
    return batch | ({"mask": image(1, 64, 64) // 128 * 255} if use_mask else {})


def change(mirror, quarters, B=2):
    """What training's augmentation calls that change."""
    return PairChange(
        torch.full((B,), mirror), torch.full((B,), quarters * W // 4), torch.ones(B), torch.zeros(B, 2)
    )


@pytest.mark.parametrize(("mirror", "quarters"), [(True, 0), (False, 1), (False, 2), (True, 3)])
@pytest.mark.parametrize("use_mask", [False, True])
def test_a_changed_world_gets_the_changed_answer(mirror, quarters, use_mask):
    predict, batch = predictor(use_mask=use_mask), draw_batch(use_mask=use_mask)
    with torch.inference_mode():
        here, there = predict(batch).logits, predict(change_pair(batch, change(mirror, quarters))).logits
        plain = predictor(SMALL_VIEW, use_mask=use_mask)(batch).logits
    expected = (here.flip(-1) if mirror else here).rot90(-quarters, (-2, -1))
    torch.testing.assert_close(there, expected, atol=2e-3 * float(here.std()), rtol=0)
    assert (here - plain).abs().max() > 0.1 * plain.std()


@pytest.mark.parametrize(("mirror", "quarters"), [(True, 0), (False, 3)])
def test_headings_and_heights_follow(mirror, quarters):
    """A mirrored world has the opposite heading; a turn keeps it: panoramas turn along. Heights stay."""
    view = replace(VIEW, ori_noise=180.0)
    predict, batch = predictor(view, height_factor=1.6), draw_batch()
    here, there = (predict.columns(each)[1] for each in (batch, change_pair(batch, change(mirror, quarters))))
    turn = wrap_degrees(there["heading"] - here["heading"] * (-1 if mirror else 1))
    assert abs(turn).max() < 0.5
    assert there["camera_height"] == pytest.approx(here["camera_height"], rel=0.01)
    plain = predictor(replace(view, tta=1), height_factor=1.6).columns(batch)[1]
    assert here["camera_height"] != pytest.approx(plain["camera_height"], rel=1e-4)


@pytest.mark.parametrize(("mirror", "quarters"), [(True, 0), (False, 1), (True, 3)])
def test_photographs_of_a_changed_world_get_the_changed_answer(mirror, quarters):
    """Their prior headings turn with it, and so does the estimated heading."""
    view = View(
        satellite_size=64, panorama_size=(64, W), camera="photo", photo_width=64, ori_noise=20.0, tta=FORMS
    )
    predict, batch = predictor(view), draw_batch()
    taken, prior = view.draw_cameras(
        torch.rand(2, view.CAMERA_DRAWS, generator=torch.Generator().manual_seed(0))
    )
    tilt = torch.stack((taken.pitch, taken.roll), 1)
    batch = cut(batch | {"taken": taken, "camera": prior, "tilt": tilt, "heading": taken.heading}, view)
    columns = torch.full((2,), quarters * PHOTO_COLUMNS // 4)
    changed = change_pair(batch, change(mirror, quarters)._replace(columns=columns))
    (here, of_here), (there, of_there) = (predict.columns(each) for each in (batch, changed))
    expected = (here.logits.flip(-1) if mirror else here.logits).rot90(-quarters, (-2, -1))
    torch.testing.assert_close(there.logits, expected, atol=2e-3 * float(expected.std()), rtol=0)
    turn = of_there["heading"] - of_here["heading"] * (-1 if mirror else 1) - 90 * quarters
    assert abs(wrap_degrees(turn)).max() < 0.5
