"""Test-time augmentation: a changed world gets the changed answer, whatever the network says."""

import copy
from dataclasses import replace

import pytest
import torch
from engine.evaluation.prediction import other_places, predict_batch, probability_map, read_heading
from engine.evaluation.tta import FORMS, answer, check_view

from common.errors import UserError
from common.geometry import wrap_degrees
from dataset.augment import PHOTO_COLUMNS, PairChange, change_pair, photograph
from model.build import build_model
from model.settings import ModelSettings

SETTINGS = ModelSettings(network="light", satellite_size=64, panorama_size=(64, 128), use_mask=False)
W = 128


def make(tta=FORMS, **settings):
    """A network whose head says something, in evaluation mode."""
    torch.manual_seed(0)
    model = build_model(replace(SETTINGS, **settings)).eval()
    torch.nn.init.normal_(model.head.convolutions[-2].weight, std=0.1)
    model.tta = tta
    return model


def draw_batch(B=2, use_mask=False):
    generator = torch.Generator().manual_seed(1)

    def image(*shape):
        return torch.randint(0, 256, (B, *shape), generator=generator, dtype=torch.uint8)

    batch = {
        "panorama": image(3, 64, 128),
        "satellite": image(3, 64, 64),
        "position": torch.full((B, 2), 32.0),
        "heading": torch.zeros(B),
        "metres_per_pixel": torch.full((B,), 1.1),
        "index": torch.arange(B),
    }
    return batch | ({"mask": image(1, 64, 64) // 128 * 255} if use_mask else {})


def change(mirror, quarters, B=2):
    """What training's augmentation calls that change; its code is another's."""
    return PairChange(torch.full((B,), mirror), torch.full((B,), quarters * W // 4), torch.ones(B), torch.zeros(B, 2))


@pytest.mark.parametrize(("mirror", "quarters"), [(True, 0), (False, 1), (False, 2), (True, 3)])
@pytest.mark.parametrize("use_mask", [False, True])
def test_a_changed_world_gets_the_changed_answer(mirror, quarters, use_mask):
    model, batch = make(use_mask=use_mask), draw_batch(use_mask=use_mask)
    changed = change_pair(batch, change(mirror, quarters))
    with torch.inference_mode():
        here, there = answer(model, batch).logits, answer(model, changed).logits
        plain = answer(make(tta=1, use_mask=use_mask), batch).logits
    expected = (here.flip(-1) if mirror else here).rot90(-quarters, (-2, -1))
    torch.testing.assert_close(there, expected, atol=2e-3 * float(here.std()), rtol=0)
    assert (here - plain).abs().max() > 0.1 * plain.std()


def test_headings_follow():
    """A mirrored world has the opposite heading; a turn keeps it, for panoramas turn along."""
    model, batch = make(ori_noise=180.0), draw_batch()
    for mirror, quarters in ((True, 0), (False, 3)):
        changed = change_pair(batch, change(mirror, quarters))
        headings = [predict_batch(model, each, 0.1)[1]["heading"] for each in (batch, changed)]
        turn = (headings[1] - headings[0] * (-1 if mirror else 1) + 180) % 360 - 180
        assert abs(turn).max() < 0.5


def test_heights_are_the_same_in_each_form():
    model, batch = make(height_factor=1.6), draw_batch()
    for mirror, quarters in ((True, 0), (False, 3)):
        changed = change_pair(batch, change(mirror, quarters))
        heights = [predict_batch(model, each, 0.1)[1]["camera_height"] for each in (batch, changed)]
        assert heights[1] == pytest.approx(heights[0], rel=0.01)
    assert heights[0] != pytest.approx(predict_batch(make(height_factor=1.6, tta=1), batch, 0.1)[1]["camera_height"], rel=1e-3)


def test_one_form_is_the_network_itself():
    model, batch = make(tta=1), draw_batch()
    with torch.inference_mode():
        one = answer(model, batch)
        again = answer(copy.deepcopy(model), batch)
    assert torch.equal(one.logits, again.logits)


def test_a_cut_view_is_refused():
    with pytest.raises(UserError, match="--tta 8: it turns whole panoramas, but this view is 180° wide; use --tta 1"):
        check_view(replace(SETTINGS, FoV=180.0), 8)
    check_view(replace(SETTINGS, FoV=180.0), 1)


def test_other_places_are_the_further_peaks():
    row, col = torch.arange(64)[:, None], torch.arange(80)
    logits = torch.full((64, 80), -20.0)
    for (r, c), share in (((10, 12), 0.5), ((50, 60), 0.3), ((12, 14), 0.02), ((40, 20), 0.18)):
        logits = torch.maximum(logits, torch.log(torch.tensor(share)) - ((row - r) ** 2 + (col - c) ** 2) * 3.0)
    probability = probability_map(logits[None], 1.0)[0]
    places = other_places(probability, (10.5, 12.5), radius=5.0)
    assert [place for place, _ in places] == [pytest.approx((50.5, 60.5), abs=1.5), pytest.approx((40.5, 20.5), abs=1.5)]
    assert [share for _, share in places] == pytest.approx([0.3, 0.18], abs=0.02)


@pytest.mark.parametrize(("mirror", "quarters"), [(True, 0), (False, 1), (True, 3)])
def test_photographs_of_a_changed_world_get_the_changed_answer(mirror, quarters):
    """Their told headings turn with it, and so does the heading that is found."""
    torch.manual_seed(0)
    settings = replace(SETTINGS, camera="photo", photo_width=64, ori_noise=20.0)
    model = build_model(settings).eval()
    torch.nn.init.normal_(model.head.convolutions[-2].weight, std=0.1)
    batch = photograph(draw_batch(), settings.cameras)
    changed = change_pair(batch, change(mirror, quarters)._replace(columns=torch.full((2,), quarters * PHOTO_COLUMNS // 4)))
    model.tta = FORMS
    with torch.inference_mode():
        here, there = answer(model, batch), answer(model, changed)
    expected = (here.logits.flip(-1) if mirror else here.logits).rot90(-quarters, (-2, -1))
    torch.testing.assert_close(there.logits, expected, atol=2e-3 * float(expected.std()), rtol=0)
    middle = torch.full((2, 2), 32.0)
    headings = [
        read_heading(result.heading_scores, result.headings, middle, (64, 64)) + seen["camera"][:, 0]
        for result, seen in ((here, batch), (there, changed))
    ]
    turn = wrap_degrees(headings[1] - headings[0] * (-1 if mirror else 1) - 90 * quarters)
    assert turn.abs().max() < 0.1
