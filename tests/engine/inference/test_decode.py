"""Positions, heat maps and probabilities, by cases worked out by hand."""

import math

import numpy as np
import pytest
import torch

from engine.inference import decode
from engine.inference.decode import locate, probability_map, truth_pixel


@pytest.mark.parametrize("size", [128, 512])
def test_positions_are_finer_than_a_pixel(size):
    truth = torch.tensor([[40.3, 71.9], [100.75, 30.5]])
    centres = torch.arange(size) + 0.5
    rows, cols = (centres - truth[:, axis, None] for axis in (0, 1))
    squares = rows[:, :, None] ** 2 + cols[:, None] ** 2
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


def test_regions_that_hold_the_truth():
    """2 x 2 maps: the truth's own pixel, and equal ones, count half."""
    maps = torch.tensor([[[0.4, 0.3], [0.2, 0.1]], [[0.25, 0.25], [0.25, 0.25]], [[0.4, 0.3], [0.2, 0.1]]])
    truth = torch.tensor([[1.5, 0.2], [0.0, 0.0], [0.9, 0.9]])
    pixel = truth_pixel(2, truth)
    assert pixel.tolist() == [2, 0, 0]
    np.testing.assert_allclose(decode.truth_region(maps, pixel), [0.4 + 0.3 + 0.1, 0.5, 0.2], atol=1e-6)
    assert truth_pixel(2, torch.tensor([[2.0, -0.1]])).item() == 2  # on the far edge and beyond the near one


def test_how_much_likelier_another_heading_is():
    """Of headings -90, 0, 90 and 180, 90 is the likeliest; the first label is near it."""
    headings = torch.tensor([-90.0, 0.0, 90.0, 180.0])
    scores = torch.tensor([0.5, 1.0, 3.0, -1.0])[None, :, None, None].expand(3, 4, 8, 8)
    position, labelled = torch.tensor([[4.0, 5.0]] * 3), torch.tensor([85.0, 3.0, -178.0])
    doubt = decode.heading_doubt(scores, headings, position, (8, 8), labelled, within=10)
    np.testing.assert_allclose(doubt, [0, 2, 4], atol=1e-5)


def test_probability_within_a_circle():
    flat, places = torch.full((2, 64, 64), 1 / 64**2), torch.tensor([[32.3, 31.8], [0.0, 64.0]])
    mass = decode.mass_within(flat, places, torch.tensor([8.0, 8.0])).numpy()
    np.testing.assert_allclose(mass * 64**2, [math.pi * 64, math.pi * 16], rtol=0.005)


@pytest.mark.parametrize("bearing", [0.0, 30.0, 90.0, 140.0])
def test_how_a_map_is_spread(bearing):
    """A ridge of 8 by 2 pixels that runs along a bearing, over a faint floor."""
    rows, cols = torch.meshgrid(torch.arange(96) + 0.5, torch.arange(128) + 0.5, indexing="ij")
    north, east = 40 - rows, cols - 70
    sine, cosine = math.sin(math.radians(bearing)), math.cos(math.radians(bearing))
    along, across = north * cosine + east * sine, east * cosine - north * sine
    ridge = torch.exp(-(along**2) / 128 - across**2 / 8)
    probability = ridge / ridge.sum() * 0.97 + 0.03 / ridge.numel()
    longer, shorter, found = decode.spread(probability)
    assert (longer, shorter) == pytest.approx((8, 2), rel=0.1)
    assert abs((found - bearing + 90) % 180 - 90) < 1 and 0 <= found < 180
    assert decode.spread(torch.eye(9)[4].outer(torch.eye(9)[4]))[:2] == pytest.approx((12**-0.5,) * 2)


def test_other_places_are_the_further_peaks():
    row, col = torch.arange(64)[:, None], torch.arange(80)
    logits = torch.full((64, 80), -20.0)
    for (r, c), share in (((10, 12), 0.5), ((50, 60), 0.3), ((12, 14), 0.02), ((40, 20), 0.18)):
        peak = torch.log(torch.tensor(share)) - ((row - r) ** 2 + (col - c) ** 2) * 3.0
        logits = torch.maximum(logits, peak)
    probability = probability_map(logits[None], 1.0)[0]
    places, shares = zip(*decode.other_places(probability, (10.5, 12.5), radius=5.0), strict=True)
    np.testing.assert_allclose(places, [(50.5, 60.5), (40.5, 20.5)], atol=1.5)
    assert shares == pytest.approx([0.3, 0.18], abs=0.02)


IN_1_2 = torch.tensor([[6.0, 10.0]])  # a position in cell (1, 2)


def scores_at(row, col, values):
    """(1, K, 4, 4) scores with these values in one cell, 4 px wide, of a 16 px image; others elsewhere."""
    scores = torch.arange(len(values)).flip(0).float()[None, :, None, None].repeat(1, 1, 4, 4)
    scores[0, :, row, col] = torch.tensor(values)
    return scores


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 4.0, 4.0, 0.0], -45),  # halfway between -90 and 0
        ([0.0, 1.0, 5.0, 1.0], 0),
        ([5.0, 2.0, 0.0, 2.0], -180),  # both neighbours, across the end of the circle, are alike
        ([4.0, 0.0, 0.0, 4.0], 135),
    ],
)
def test_headings_are_read_between_hypotheses_at_the_place(values, expected):
    headings = torch.tensor([-180.0, -90.0, 0.0, 90.0])
    found = decode.read_heading(scores_at(1, 2, values), headings, IN_1_2, (16, 16))
    assert abs((float(found) - expected + 180) % 360 - 180) < 0.01
    swapped = decode.read_heading(scores_at(2, 1, values), headings, IN_1_2, (16, 16))
    assert float(swapped) != pytest.approx(expected)


def test_heights_are_read_in_their_logarithm():
    for values, expected in (([0.0, 3.0, 0.0], 2), ([3.0, 3.0, -9.0], 2**0.5)):
        found = decode.read_height(scores_at(1, 2, values), torch.tensor([1.0, 2.0, 4.0]), IN_1_2, (16, 16))
        assert float(found) == pytest.approx(expected)
