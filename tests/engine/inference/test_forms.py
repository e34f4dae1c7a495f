"""Test-time augmentation: a changed world gets the changed answer, whatever the network says."""

from dataclasses import replace

import pytest
import torch
from children import SMALL_VIEW, draw_batch, make_network

from common.camera import Panorama
from common.geometry import wrap_degrees
from common.view import FORMS
from dataset.augment import PHOTO_COLUMNS, PairChange, augment, change_pair
from engine.inference.decode import read_heading
from engine.inference.predictor import Predictor

VIEW = replace(SMALL_VIEW, tta=FORMS)
CHANGES = [(True, 0), (False, 1), (False, 2), (True, 3)]


def predictor(view=VIEW, **settings):
    return Predictor(make_network(view, **{"network": "light", "use_mask": False} | settings), view, "cpu")


def changed(batch, mirror, quarters):
    """The batch as training's augmentation changes it, which is other code."""
    B, turn = len(batch["index"]), batch["query"].shape[-1] if batch["camera"].wraps else PHOTO_COLUMNS
    columns = torch.full((B,), quarters * turn // 4)
    return change_pair(batch, PairChange(torch.full((B,), mirror), columns, torch.ones(B), torch.zeros(B, 2)))


def assert_followed(here, there, mirror, quarters):
    expected = (here.flip(-1) if mirror else here).rot90(-quarters, (-2, -1))
    torch.testing.assert_close(there, expected, atol=2e-3 * float(here.std()), rtol=0)


OTHERS = [({"use_mask": True}, False, 1), ({"network": "ground_plane"}, True, 3)]


@pytest.mark.parametrize(("settings", "mirror", "quarters"), [*(({}, *one) for one in CHANGES), *OTHERS])
def test_a_changed_world_gets_the_changed_answer(settings, mirror, quarters):
    answer, batch = predictor(**settings), draw_batch(1)
    with torch.inference_mode():
        here, there = answer(batch).logits, answer(changed(batch, mirror, quarters)).logits
        plain = predictor(SMALL_VIEW, **settings)(batch).logits
        assert torch.equal(plain, predictor(SMALL_VIEW, **settings)(batch).logits)
    assert_followed(here, there, mirror, quarters)
    assert (here - plain).abs().max() > 0.1 * plain.std()


@pytest.mark.slow
@pytest.mark.parametrize(("mirror", "quarters"), [(True, 0), (False, 3)])
def test_headings_and_heights_follow(mirror, quarters):
    """A mirrored world has the opposite heading, a turned one the same: panoramas turn too. Heights stay."""
    view, batch = replace(VIEW, ori_noise=180.0), draw_batch(1)
    answer = predictor(view, height_factor=1.6)
    here, there = (answer.columns(each)[1] for each in (batch, changed(batch, mirror, quarters)))
    turn = wrap_degrees(there["heading"] - here["heading"] * (-1 if mirror else 1))
    assert abs(turn).max() < 0.5
    assert there["camera_height"] == pytest.approx(here["camera_height"], rel=0.01)
    plain = predictor(replace(view, tta=1), height_factor=1.6).columns(batch)[1]
    assert here["camera_height"] != pytest.approx(plain["camera_height"], rel=1e-4)


@pytest.mark.parametrize(("mirror", "quarters"), CHANGES)
def test_photographs_of_a_changed_world_get_the_changed_answer(mirror, quarters):
    view = replace(VIEW, camera="photo", ori_noise=20.0)
    answer, batch = predictor(view), augment(draw_batch(1), "none", view)
    moved = changed(batch, mirror, quarters)
    with torch.inference_mode():
        here, there = answer(batch), answer(moved)
    assert_followed(here.logits, there.logits, mirror, quarters)
    middle = torch.full((2, 2), 32.0)
    headings = [
        read_heading(found.heading_scores, found.headings, middle, (64, 64)) + seen["camera"].heading
        for found, seen in ((here, batch), (there, moved))
    ]
    turn = wrap_degrees(headings[1] - headings[0] * (-1 if mirror else 1) - 90 * quarters)
    assert turn.abs().max() < 0.1


def test_a_cropped_panorama_turns_as_the_whole_one():
    camera = Panorama(torch.zeros(2, 1), top=60.0, bottom=30.0)
    answer, batch = predictor(), draw_batch(1) | {"camera": camera}
    with torch.inference_mode():
        here, there = answer(batch).logits, answer(changed(batch, True, 1)).logits
    assert_followed(here, there, True, 1)
