"""Targets and losses against cases worked out by hand."""

import math

import pytest
import torch

from loss.heatmap import LOSSES, cross_entropy, focal, gaussian_target, infonce, make_loss


def test_the_target_peaks_at_the_position_with_pixel_centres_at_a_half():
    target = gaussian_target(torch.tensor([[10.5, 20.5], [10.0, 20.0]]), 32, sigma=2.0)
    assert target[0, 10, 20] == 1
    assert target[0, 12, 20] == pytest.approx(math.exp(-0.5))  # one sigma further down
    assert target[0, 10, 24] == pytest.approx(math.exp(-2))  # two to the right
    corner = target[1, 9:11, 19:21]  # a position between four pixels weighs them alike
    assert torch.allclose(corner, torch.full((2, 2), math.exp(-0.0625)))


def test_sigma_scales_with_the_heat_map():
    assert gaussian_target(torch.tensor([[256.5, 256.5]]), 512)[0, 260, 256] == pytest.approx(math.exp(-0.5))
    assert gaussian_target(torch.tensor([[64.5, 64.5]]), 128)[0, 65, 64] == pytest.approx(math.exp(-0.5))


def test_infonce_by_hand():
    logits = torch.tensor([[[0.2, 0.0], [0.0, 0.0]]])
    target = torch.tensor([[[1.0, 0.5], [0.0, 1e-7]]])
    # log softmax of logits / 0.1 = (2, 0, 0, 0): 2 - log(e^2 + 3) for the first, - log(e^2 + 3) for the others
    z = math.log(math.exp(2) + 3)
    assert infonce(logits, target, 0.1).item() == pytest.approx(-((2 - z) + 0.5 * (0 - z)) / 1.5)


def test_cross_entropy_and_focal_by_hand():
    logits = torch.tensor([[[math.log(3.0), 0.0]]])  # probabilities 0.75 and 0.25
    target = torch.tensor([[[2.0, 2.0]]])
    assert cross_entropy(logits, target).item() == pytest.approx(-(math.log(0.75) + math.log(0.25)) / 2)
    assert focal(logits, target).item() == pytest.approx(-(0.25**2 * math.log(0.75) + 0.75**2 * math.log(0.25)) / 2)


@pytest.mark.parametrize("name", LOSSES)
def test_each_sample_counts_alone_and_large_logits_stay_finite(name):
    """The published division by the batch's maximum made samples depend on each other and flipped negative maps."""
    loss = make_loss(name)
    torch.manual_seed(0)
    logits = torch.randn(3, 8, 8) - 5
    logits[2] *= 1000
    target = gaussian_target(torch.rand(3, 2) * 8, 8, sigma=1.0)
    alone = torch.stack([loss(logits[i : i + 1], target[i : i + 1]) for i in range(3)])
    assert torch.isfinite(alone).all()
    assert loss(logits, target).item() == pytest.approx(alone.mean().item(), rel=1e-5)
    assert loss(logits + 100, target).item() == pytest.approx(alone.mean().item(), rel=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_a_map_at_the_right_place_costs_less(name):
    loss = make_loss(name)
    target = gaussian_target(torch.tensor([[5.5, 11.5]]), 16, sigma=1.0)
    flat, right, swapped = torch.zeros(1, 16, 16), 0.2 * target, 0.2 * target.transpose(1, 2)
    assert loss(right, target) < loss(flat, target) < loss(swapped, target)
