"""Targets and losses against cases worked out by hand."""

import math
from functools import partial

import pytest
import torch

from common.camera import Panorama
from loss.criterion import Criterion
from loss.heatmap import LOSSES, OUTLIERS, cross_entropy, distillation, gaussian_target, infonce
from model.interface import Prediction

HEADINGS = torch.tensor([-180.0, -90.0, 0.0, 90.0])


def batch_at(position, heading=0.0):
    """Pairs whose panoramas stand at positions (row, col) and look along one heading."""
    position = torch.as_tensor(position)
    B = len(position)
    return {"position": position, "heading": torch.full((B,), heading), "camera": Panorama(torch.zeros(B, 1))}


def test_the_target_peaks_at_the_position_with_pixel_centres_at_a_half():
    target = gaussian_target(torch.tensor([[10.5, 20.5], [10.0, 20.0]]), 32, sigma=2.0)
    assert target[0, 10, 20] == 1
    assert target[0, 12, 20] == pytest.approx(math.exp(-0.5))  # one sigma further down
    assert target[0, 10, 24] == pytest.approx(math.exp(-2))  # two to the right
    corner = target[1, 9:11, 19:21]  # a position between four pixels weighs them alike
    assert torch.allclose(corner, torch.full((2, 2), math.exp(-0.0625)))
    for size, row in ((512, 260), (128, 65)):  # sigma scales with the heat map
        target = gaussian_target(torch.full((1, 2), size / 2 + 0.5), size)
        assert target[0, row, size // 2] == pytest.approx(math.exp(-0.5))


def test_losses_by_hand():
    logits, target = torch.tensor([[[0.2, 0.0], [0.0, 0.0]]]), torch.tensor([[[1.0, 0.5], [0.0, 1e-7]]])
    # log softmax of logits / 0.1 = (2, 0, 0, 0): 2 - log(e^2 + 3) for the first, - log(e^2 + 3) for others
    z = math.log(math.exp(2) + 3)
    assert infonce(logits, target, 0.1).item() == pytest.approx(-((2 - z) + 0.5 * (0 - z)) / 1.5)
    logits = torch.tensor([[[math.log(3.0), 0.0]]])  # probabilities 0.75 and 0.25
    found = cross_entropy(logits, torch.full((1, 1, 2), 2.0), 1.0).item()
    assert found == pytest.approx(-(math.log(0.75) + math.log(0.25)) / 2)


@pytest.mark.parametrize("name", LOSSES)
def test_each_sample_counts_alone_and_large_logits_stay_finite(name):
    loss = partial(LOSSES[name], temperature=0.1)
    torch.manual_seed(0)
    logits = torch.randn(3, 8, 8) - 5
    logits[2] *= 1000
    target = gaussian_target(torch.rand(3, 2) * 8, 8, sigma=1.0)
    alone = torch.stack([loss(logits[i : i + 1], target[i : i + 1]) for i in range(3)])
    assert torch.isfinite(alone).all()
    assert loss(logits, target).item() == pytest.approx(alone.mean().item(), rel=1e-5)
    assert loss(logits + 100, target).item() == pytest.approx(alone.mean().item(), rel=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_a_map_at_the_right_place_costs_less_and_temperature_divides_logits(name):
    loss = partial(LOSSES[name], temperature=0.1)
    target = gaussian_target(torch.tensor([[5.5, 11.5]]), 16, sigma=1.0)
    flat, right, swapped = torch.zeros(1, 16, 16), 0.2 * target, 0.2 * target.transpose(1, 2)
    assert loss(right, target) < loss(flat, target) < loss(swapped, target)
    logits, batch = torch.randn(2, 64, 64), batch_at(torch.rand(2, 2) * 64)
    target = gaussian_target(batch["position"], 64)
    expected = LOSSES[name](10 * logits, target, 1.0)
    torch.testing.assert_close(loss(logits, target), expected)
    losses = Criterion(name, 0.1)(Prediction(logits), batch)
    assert losses.keys() == {"loss", "location_loss"} and losses["loss"].isclose(expected)


def test_the_heading_is_part_of_the_loss_where_the_network_tells_it():
    """Four headings on a grid of 2 x 2 cells; the truth, 30 degrees, lies a third of the way from 0 to 90."""
    batch, scores = batch_at([[16.0, 16.0]], 30.0), torch.zeros(1, 4, 2, 2)
    result = Prediction(torch.zeros(1, 64, 64), heading_scores=scores, headings=HEADINGS)
    losses = Criterion("infonce", 0.1)(result, batch)
    heading_loss = losses["heading_loss"].item()
    assert heading_loss == pytest.approx(math.log(16))  # nothing known: 16 cells alike
    assert losses["loss"].item() == pytest.approx(heading_loss + losses["location_loss"].item())
    # The cell's centre lies on the position, at (0.5, 0.5) of the grid.
    share = 1 / (1 + 2 * math.exp(-1 / 0.98) + math.exp(-2 / 0.98))
    for cell, gain in ((0, 0), (2, 2 / 3), (3, 1 / 3)):
        scores[:] = 0
        scores[0, cell, 0, 0] = 1e-3
        more = Criterion("infonce", 0.1)(result, batch)["heading_loss"].item() - math.log(16)
        assert more == pytest.approx(1e-3 * (1 / 16 - gain * share), abs=2e-6)


def test_one_softmax_over_several_images():
    """Two samples against three images each, of which the second's last is missing; worked out by hand."""
    torch.manual_seed(0)
    logits, batch = torch.randn(6, 64, 64), batch_at(torch.rand(2, 2) * 64)
    missing = torch.tensor([[False, False, False], [False, False, True]])
    result = Prediction(logits, maps={8: torch.randn(6, 1, 8, 8), 4: None})
    losses = Criterion("cross_entropy", 0.1, search_stride=8)(result, batch, missing)

    def expected(weight, maps, own, seen):
        normaliser = torch.cat([maps[i].flatten() for i in seen]).div(0.1).logsumexp(0)
        return (weight * (normaliser - maps[own] / 0.1)).sum() / weight.sum()

    samples = (0, (0, 1, 2)), (3, (3, 4))
    for name, stride, sigma, maps in (
        ("location", 1, None, logits),
        ("search", 8, 0.7, result.maps[8][:, 0]),
    ):
        weights = gaussian_target(batch["position"] / stride, 64 // stride, sigma=sigma)
        by_hand = [expected(w, maps, *sample) for w, sample in zip(weights, samples, strict=True)]
        torch.testing.assert_close(losses[f"{name}_loss"], torch.stack(by_hand).mean())
    assert losses.keys() == {"loss", "location_loss", "search_loss"}
    more = result._replace(logits=logits.clone())
    more.logits[1] += 1
    assert Criterion("cross_entropy", 0.1)(more, batch, missing)["location_loss"] > losses["location_loss"]


def test_other_images_are_part_of_the_heading_s_loss():
    """Nothing known of 4 headings on 2 x 2 cells of 3 images: 48 cells alike, 32 where one is missing."""
    scores = torch.zeros(3, 4, 2, 2)
    result = Prediction(torch.zeros(3, 64, 64), heading_scores=scores, headings=HEADINGS)
    for missing, cells in ((False, 48), (True, 32)):
        absent = torch.tensor([[False, False, missing]])
        losses = Criterion("infonce", 0.1)(result, batch_at([[16.0, 16.0]], 30.0), absent)
        assert losses["heading_loss"].item() == pytest.approx(math.log(cells))


def inexact(logits, batch, **tolerances):
    """The losses of an inexact label; logits of probabilities, at temperature 1."""
    return Criterion("infonce", 1.0, **tolerances)(Prediction(logits.clamp_min(1e-30).log()), batch)


@pytest.mark.parametrize("stated", (False, True))
def test_the_probability_around_an_inexact_label_is_summed(stated):
    """All of the probability lies 6 m south of the label and counts by exp(-(6 / R)^2), at any scale."""
    for metres_per_pixel in (0.5, 1.0):
        batch = batch_at([[20.5, 30.5]]) | {"metres_per_pixel": torch.tensor([metres_per_pixel])}
        tolerance = {"label_tolerance": 8.0}
        if stated:  # by the data, image by image
            batch, tolerance = batch | {"accuracy": torch.tensor([8.0])}, {}
        probability = torch.zeros(1, 64, 64)
        probability[0, 20 + round(6 / metres_per_pixel), 30] = 1
        spread = 2 * (8 / metres_per_pixel) ** 2 / 2 + 2 * (4 * 64 / 512) ** 2  # with an exact label's width
        near = math.exp(-((6 / metres_per_pixel) ** 2) / spread)
        anywhere = gaussian_target(batch["position"], 64, math.sqrt(spread / 2)).mean().item()
        expected = -math.log((1 - OUTLIERS) * near + OUTLIERS * anywhere)
        assert inexact(probability, batch, **tolerance)["loss"].item() == pytest.approx(expected, rel=1e-4)


def test_an_outlier_teaches_little():
    """A sharp map 30 m from its label is hardly moved; the published loss moves it with all its might."""
    batch = batch_at([[32.5, 2.5]]) | {"metres_per_pixel": torch.tensor([0.6])}
    pulls = []
    for label_tolerance in (0.0, 5.0):
        logits = (gaussian_target(torch.tensor([[32.5, 52.5]]), 64, sigma=1.0) * 30).requires_grad_()
        loss = Criterion("infonce", 1.0, label_tolerance=label_tolerance)(Prediction(logits), batch)["loss"]
        loss.backward()
        pulls.append(float(logits.grad.abs().sum()))
    assert pulls[1] < 0.05 * pulls[0]


def test_headings_in_reach_count_alike():
    """One cell of the map holds all probability; of four headings, those within the tolerance are right."""
    batch = batch_at([[16.0, 16.0]], 80.0) | {"metres_per_pixel": torch.ones(1)}
    losses = []
    for heading in range(4):
        scores = torch.full((1, 4, 2, 2), -50.0)
        scores[0, heading, 0, 0] = 0
        result = Prediction(torch.zeros(1, 64, 64), heading_scores=scores, headings=HEADINGS)
        losses.append(Criterion("infonce", 0.1, heading_tolerance=90.0)(result, batch)["heading_loss"].item())
    assert losses[2] == pytest.approx(losses[3], rel=1e-5) and losses[3] < 0.1  # 0 and 90 degrees
    assert losses[0] < losses[1]  # -180 is 100 away, a ninth of a step out of reach; -90 is 170 away
    assert losses[1] > 2


def test_a_teacher_s_map_is_the_target_and_pairs_left_out_count_nothing():
    teacher = torch.tensor([[[math.log(3.0), 0.0]], [[0.0, 0.0]]])
    student, kept = torch.tensor([[[0.0, 0.0]], [[5.0, 0.0]]]).requires_grad_(), torch.tensor([1.0, 0.0])
    loss = distillation(student, teacher, 1.0, kept)
    assert loss.item() == pytest.approx(math.log(2) / 2)
    loss.backward()
    torch.testing.assert_close(student.grad[0, 0], torch.tensor([0.5 - 0.9, 0.5 - 0.1]) / 2)  # 3^2 to 1
    assert not student.grad[1].any()
