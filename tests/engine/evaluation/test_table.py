"""What an evaluation compares with and shows, by cases worked out by hand."""

import numpy as np
import torch

from engine.evaluation import gallery
from engine.evaluation.table import random_foreground


def test_a_random_street_pixel_lies_on_the_street():
    mask = torch.zeros(40, 1, 32, 32, dtype=torch.uint8)
    mask[:, :, 4:8, 10:30] = 255
    mask[0] = 0
    position = random_foreground(mask, torch.arange(40))
    assert position[0].tolist() == [16, 16]  # no foreground: the middle
    assert ((position[1:] >= torch.tensor([4, 10])) & (position[1:] < torch.tensor([8, 30]))).all()
    assert abs(position[1:, 1].mean() - 20) < 3  # evenly along the street
    assert torch.equal(position[5:6], random_foreground(mask[5:6], torch.tensor([5])))


def test_cases_to_show(monkeypatch):
    monkeypatch.setattr(gallery, "CASES", 16)  # the figures of tests show fewer
    worst, median = gallery.choose_cases(np.arange(100.0)[::-1])
    assert worst.tolist() == list(range(16))
    assert median.tolist() == list(range(57, 41, -1))  # errors 42 to 57, about the median 49.5
    worst, median = gallery.choose_cases([3.0, 1.0, 2.0])
    assert worst.tolist() == [0, 2, 1] and median.tolist() == [1, 2, 0]
