"""Positions, heat maps and guesses by cases worked out by hand."""

import numpy as np
import pytest
import torch
from engine.evaluation.prediction import locate, probability_map

from engine.evaluation.table import random_foreground


@pytest.mark.parametrize("size", [128, 512])
def test_positions_are_finer_than_a_pixel(size):
    truth = torch.tensor([[40.3, 71.9], [100.75, 30.5]])
    centres = torch.arange(size) + 0.5
    squares = (centres[None, :, None] - truth[:, 0, None, None]) ** 2 + (centres[None, None] - truth[:, 1, None, None]) ** 2
    sigma = 4 * size / 512
    logits = -squares / (2 * sigma**2) * 0.1  # the heat map at temperature 0.1 is a Gaussian
    assert (locate(logits, 0.1) - truth).abs().max() < 0.2


def test_positions_at_the_edge_and_on_a_plateau():
    logits = torch.zeros(3, 64, 64)
    logits[0, 0, 5] = logits[1, 63, 63] = 9.0
    logits[2, 30:32, 40] = 9.0
    np.testing.assert_allclose(locate(logits, 0.1), [[0.5, 5.5], [63.5, 63.5], [31.0, 40.5]], atol=1e-4)


def test_a_sample_s_map_does_not_hang_on_its_batch():
    logits = torch.randn(3, 16, 16) * torch.tensor([1.0, 10.0, 0.1])[:, None, None] - 20
    alone = torch.cat([probability_map(logits[i : i + 1], 0.1) for i in range(3)])
    assert torch.equal(probability_map(logits, 0.1), alone)
    assert torch.allclose(alone.sum((1, 2)), torch.ones(3))
    assert torch.equal(alone.flatten(1).argmax(1), logits.flatten(1).argmax(1))


def test_a_random_street_pixel_lies_on_the_street():
    mask = torch.zeros(40, 1, 32, 32, dtype=torch.uint8)
    mask[:, :, 4:8, 10:30] = 255
    mask[0] = 0
    position = random_foreground(mask, torch.arange(40))
    assert position[0].tolist() == [16, 16]  # no foreground: the middle
    assert ((position[1:] >= torch.tensor([4, 10])) & (position[1:] < torch.tensor([8, 30]))).all()
    assert abs(position[1:, 1].mean() - 20) < 3  # evenly along the street
    assert torch.equal(position[5:6], random_foreground(mask[5:6], torch.tensor([5])))
