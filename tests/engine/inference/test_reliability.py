"""Reliability: signs worked out by hand, a fit that finds what made the pairs, and how it is kept."""

import math

import pytest
import torch

from common.camera import Panorama
from engine.inference import reliability as R
from model.interface import Prediction

TRAINED, METRES = 0.1, torch.tensor([0.5, 0.5])
FRONT = Panorama(torch.zeros(2, 1), span=180.0, top=60.0, bottom=30.0)


def prediction(logits, disagreement=None, camera=FRONT):
    return Prediction(logits=logits, disagreement=disagreement, camera=camera[: len(logits)])


def test_signs_of_a_peak_with_a_rival():
    logits = torch.zeros(2, 40, 40)
    logits[:, 20, 10] = 3.0
    logits[:, 20, 19] = 2.5  # 4.5 m away: the same place
    logits[:, 20, 21] = 2.0  # 5.5 m away: a rival, ten lower in units of the temperature
    logits[1] = 0.0
    found = R.signs(prediction(logits, torch.tensor([0.49, 0.0])), METRES, TRAINED)
    sharp, flat = (dict(zip(R.SIGNS, row, strict=True)) for row in found.tolist())
    assert sharp["rival"] == pytest.approx(-math.log(11), rel=1e-5) and flat["rival"] == 0
    assert sharp["peak"] == pytest.approx(math.log(30 - 75 / 1600), rel=1e-4)
    assert flat["area"] == pytest.approx(math.log(400)) and sharp["area"] < 2
    assert sharp["disagreement"] == pytest.approx(math.log(0.5)) and flat["disagreement"] < -4
    assert sharp["seen"] == pytest.approx(0.25)


def drawn(N, doubtful, seed=0):
    """Maps of (N, 24, 24) logits with two equal peaks, and the pixel of the truth: at one of them, or, for
    a share `doubtful` of the pairs whose forms disagree, anywhere."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(N, 24, 24, generator=generator) * 0.02
    pixel = torch.randint(576, (N,), generator=generator)
    lost = torch.rand(N, generator=generator) < doubtful
    there = torch.where(lost, torch.randint(576, (N,), generator=generator), pixel)
    logits.view(N, -1)[torch.arange(N), there] += 1.5
    return logits, pixel, lost


def test_a_fit_trusts_what_deserves_it():
    logits, pixel, lost = drawn(600, 0.4)
    camera = Panorama(torch.zeros(600, 1))
    found = prediction(logits, lost * 0.5, camera)
    metres = torch.full((600,), 0.5)
    fit = R.fit_reliability(R.signs(found, metres, TRAINED), logits.flatten(1), pixel, TRAINED)
    temperature, share = fit(found, metres, TRAINED)
    assert (share >= 0).all() and (share < 1).all() and (temperature > 0).all()
    heat_map = R.HeatMap(TRAINED, "calibrated", R.Reliability.read(fit.plain()))
    probability = heat_map.probability(found, metres)
    torch.testing.assert_close(probability.sum((1, 2)), torch.ones(600))
    torch.testing.assert_close(probability, R.mixed(logits, temperature, share))
    claimed = probability.flatten(1).amax(1)
    assert claimed[~lost].mean() > 0.8 and claimed[lost].mean() < 0.2
    nats = R.nll(logits.flatten(1), pixel, temperature, share)
    there = probability.flatten(1).gather(1, pixel[:, None])[:, 0]
    torch.testing.assert_close(nats, -there.log(), rtol=1e-3, atol=1e-3)
    plain = R.HeatMap(TRAINED, "as trained").probability(found, metres)
    assert nats.mean() < -plain.flatten(1).gather(1, pixel[:, None]).log().mean() - 0.5


def test_a_fit_that_was_changed_by_hand_is_refused():
    logits, pixel, _ = drawn(60, 0.2)
    found = prediction(logits, None, Panorama(torch.zeros(60, 1)))
    given = R.signs(found, torch.ones(60), TRAINED)
    plain = R.fit_reliability(given, logits.flatten(1), pixel, TRAINED).plain()
    wrong = [{"signs": ["area"]}, {"mean": [math.nan] * 5}, {"weights": [[0.0] * 6]}]
    for change in wrong:
        with pytest.raises(ValueError):
            R.Reliability.read(plain | change)
