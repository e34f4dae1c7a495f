"""Which cases an evaluation shows, and what knowing the streets alone would give."""

import numpy as np
import pytest
import torch

from engine.evaluation import gallery
from engine.evaluation.table import random_foreground


@pytest.mark.parametrize("cases", [16, 4])
def test_cases_to_show(cases, monkeypatch):
    monkeypatch.setattr(gallery, "CASES", cases)
    worst, median = gallery.choose_cases(np.arange(100.0)[::-1])
    assert worst.tolist() == list(range(cases))
    assert median.tolist() == list(range(49 + cases // 2, 49 - cases // 2, -1))  # about the median 49.5
    worst, median = gallery.choose_cases([3.0, 1.0, 2.0])
    assert worst.tolist() == [0, 2, 1] and median.tolist() == [1, 2, 0]


def test_a_random_street_pixel_lies_on_the_street():
    mask = torch.zeros(40, 1, 32, 32, dtype=torch.uint8)
    mask[:, :, 4:8, 10:30] = 255
    mask[0] = 0
    position = random_foreground(mask, torch.arange(40))
    assert position[0].tolist() == [16, 16]  # no foreground: the middle
    assert ((position[1:] >= torch.tensor([4, 10])) & (position[1:] < torch.tensor([8, 30]))).all()
    assert abs(position[1:, 1].mean() - 20) < 3  # evenly along the street
    assert torch.equal(position[5:6], random_foreground(mask[5:6], torch.tensor([5])))
