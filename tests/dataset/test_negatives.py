"""Which other satellite images a panorama is to be told from, and how a batch brings them along."""

import numpy as np
import pytest
import torch
from children import SMALL_VIEW

from dataset.augment import augment
from dataset.index import load_index
from dataset.loader import collate
from dataset.negatives import NONE, choose_negatives, holds_place, pair_up
from dataset.vigor import VigorDataset

SEEN = {"view": SMALL_VIEW, "use_mask": True}


def batch_of(corners, positions, city, size=64):
    B = len(corners)
    return {
        "corner": torch.tensor(corners, dtype=torch.float64),
        "position": torch.tensor(positions, dtype=torch.float32),
        "city": torch.tensor(city),
        "satellite": torch.zeros(B, 3, size, size),
        "metres_per_pixel": torch.arange(B) + 1.0,
    }


def test_an_image_holds_a_place_by_rows_and_columns():
    """The second image lies 320 px further east: it holds a panorama of the first's east half."""
    batch = batch_of([(1000, 2000), (1000, 2320), (1640, 2000)], [(32, 40), (1, 31), (63, 63)], [0, 0, 0])
    expected = [[True, True, False], [True, True, False], [False, False, True]]
    assert holds_place(batch, 64).tolist() == expected
    batch["position"][1] = torch.tensor([1.0, 33.0])  # 650 px east of the first image's corner
    assert holds_place(batch, 64)[1].tolist() == [False, True, False]


def test_negatives_are_of_the_own_city_first_and_never_hold_the_place():
    corners = [(1000, 2000), (1000, 2320), (9000, 2000), (5000, 5000), (7000, 7000), (9000, 9000)]
    batch = batch_of(corners, [(32, 40)] * 6, [0, 0, 0, 0, 1, 1])
    torch.manual_seed(0)
    drawn = torch.stack([choose_negatives(batch, 3) for _ in range(50)])
    assert not (drawn == torch.arange(6)[:, None]).any(), "never the own image"
    assert set(drawn[:, 0].flatten().tolist()) == {2, 3, 4, 5}, "1 holds the place of 0"
    assert (drawn[:, 0, :2].sort(-1).values == torch.tensor([2, 3])).all(), "its own city's two first"
    assert set(drawn[:, 4, 0].tolist()) == {5}
    few = choose_negatives(batch, 7)
    assert few.shape == (6, 7) and (few[0] != NONE).sum() == 4 and (few[4] != NONE).sum() == 5
    assert choose_negatives(batch, 0).shape == (6, 0)


def test_pairs_and_what_is_missing():
    batch = batch_of([(0, 0)] * 2, [(1, 1)] * 2, [0, 0])
    shown, pairs, missing = pair_up(batch, torch.tensor([[1, NONE], [0, NONE]]))
    assert shown["satellite"] is batch["satellite"]
    assert pairs.tolist() == [[0, 0], [0, 1], [0, 0], [1, 1], [1, 0], [1, 1]]
    assert missing.tolist() == [[False, False, True]] * 2


def test_mined_images_come_with_their_samples(vigor_root):
    index = load_index(vigor_root, split="train")
    mined = torch.full((len(index), 2), NONE, dtype=torch.int32)
    dataset = VigorDataset(index, **SEEN, training=True, mined=mined)
    assert "others" not in dataset[0]
    mined[0], mined[1] = torch.tensor([5, 9]), torch.tensor([2, 3])
    samples = [dataset[0], dataset[1]]
    assert samples[0]["others"].shape == (2, 3, 64, 64) and samples[0]["others_mask"].shape == (2, 1, 64, 64)
    expected = dataset.images.read(index.satellite_image(9))
    np.testing.assert_array_equal(samples[0]["others"][1].permute(1, 2, 0), expected)
    batch = collate(samples)
    shown, pairs, missing = pair_up(batch, choose_negatives(batch, 1))
    assert shown["satellite"][4].equal(batch["others"][1, 0])
    assert shown["mask"][2].equal(batch["others_mask"][0, 1])
    assert shown["satellite"][3].equal(batch["satellite"][1]) and len(shown["metres_per_pixel"]) == 6
    assert [pair for pair in pairs.tolist() if pair[0] == 1][:3] == [[1, 3], [1, 4], [1, 5]]
    assert missing.shape == (2, 4)


@pytest.mark.parametrize("mode", ["none", "photometric", "full", "strong"])
def test_mined_images_are_changed_as_the_own_one(vigor_root, mode):
    """The own image given as a mined one stays equal to it where views move; colours are drawn for each."""
    index = load_index(vigor_root, split="train")
    mined = torch.tensor(np.repeat(index.satellite[:, :1], 2, 1), dtype=torch.int32)
    dataset = VigorDataset(index, **SEEN, training=True, mined=mined)
    batch = collate([dataset[i] for i in range(4)])
    torch.manual_seed(1)
    changed = augment(batch, mode, SMALL_VIEW)
    first, second = changed["others"].unbind(1)
    for one, other in ((first, changed["satellite"]), (first, second)):
        assert one.equal(other) == (mode == "none")
    torch.testing.assert_close(changed["others_mask"][:, 1].float(), changed["mask"].float())
    assert 0 <= changed["others"].min() and changed["others"].max() <= 255
