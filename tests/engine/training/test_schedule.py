"""When a run does what."""

import argparse

import pytest

from engine.training.schedule import DURATION, cosine_learning_rate, steps_of, validation_is_due


def test_learning_rates():
    rates = [cosine_learning_rate(step, 101, 1e-3) for step in range(101)]
    assert rates[0] == 1e-3 and rates[100] == pytest.approx(1e-6)
    assert rates[50] == pytest.approx((1e-3 + 1e-6) / 2)
    assert rates == sorted(rates, reverse=True)
    warm = [cosine_learning_rate(step, 101, 1e-3, warmup_steps=4) for step in range(5)]
    assert warm == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3])


def test_durations():
    assert steps_of(DURATION("0.5"), 100) == 50 and steps_of(DURATION("30steps"), 100) == 30
    for text in ("-1", "steps", "3 days", "nan"):
        with pytest.raises(argparse.ArgumentTypeError, match="not a number of epochs, or of steps"):
            DURATION(text)


def test_validations():
    assert [epoch for epoch in range(1, 41) if validation_is_due(epoch, 40)] == [*range(3, 31, 3), *range(31, 41)]
    assert [epoch for epoch in range(1, 8) if validation_is_due(epoch, 7, every=4)] == [4, 7]
