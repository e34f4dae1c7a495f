"""Batches: the same ones for any number of workers, and what becomes of unreadable images."""

import os
import shutil

import numpy as np
import pytest
import torch

from common.camera import Camera, panorama
from common.errors import UserError
from common.view import View
from dataset import loader as loaders
from dataset.index import load_index
from dataset.loader import EpochSampler, TwoCitySampler, collate, evaluation_loader
from dataset.vigor import VigorDataset

VIEW = View(satellite_size=32, panorama_size=(32, 64), ori_noise=180.0)
SEEN = {"view": VIEW, "use_mask": True}


def training_set(root, **options):
    return VigorDataset(load_index(root, split="train"), **SEEN, pos_only=False, training=True, **options)


def equal(first, second):
    pairs = [(first[name], second[name]) for name in first.keys() | second.keys()]
    return all(a.values.equal(b.values) if isinstance(a, Camera) else a.equal(b) for a, b in pairs)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker")  # two cores will do for three
@pytest.mark.parametrize("on_bad_image", ["error", "skip"])
def test_any_number_of_workers_draws_the_same_samples(vigor_root, on_bad_image):
    epochs = {}
    for workers in (0, 3):
        dataset = training_set(vigor_root, on_bad_image=on_bad_image)
        loader, sampler = loaders.training_loader(dataset, 4, seed=3, workers=workers)
        epochs[workers] = []
        for sampler.epoch in (0, 1):
            epochs[workers].append(list(loader))
        sampler.epoch, sampler.first_step = 1, 2  # as a run does that was stopped there
        epochs[workers].append(list(loader))
    for ours, theirs in zip(epochs[0], epochs[3], strict=True):
        assert len(ours) == len(theirs) and all(map(equal, ours, theirs))
    first, second, resumed = epochs[0]
    assert not equal(first[0], second[0])
    assert len(resumed) == len(second) - 2 and all(map(equal, resumed, second[2:]))


def break_images(vigor_root, tmp_path, rows):
    """A copy of the folder in which the panoramas of these rows of the test list are cut short."""
    shutil.copytree(vigor_root, tmp_path / "v", copy_function=os.link)
    index = load_index(tmp_path / "v", split="test")
    paths = [index.root / index.panorama_image(row).path for row in rows]
    for path in paths:
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data[:-100])
    return index, paths


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_are_skipped_counted_and_named_once(vigor_root, tmp_path, capsys, workers):
    index, paths = break_images(vigor_root, tmp_path, [1, 6, 8, 9])
    dataset = VigorDataset(index.select(np.arange(12)), **SEEN, on_bad_image="skip")
    loader = evaluation_loader(dataset, 2, workers)
    for epoch in range(2):
        batches = list(loader)
        assert torch.cat([batch["index"] for batch in batches]).tolist() == [0, 2, 3, 4, 5, 7, 10, 11]
        assert len(batches) == 5 and set(batches[0]) == set(dataset[0])  # the batch of 8 and 9 is gone
        assert all(batch["query"].flatten(1).float().std(1).min() > 5 for batch in batches)  # no blank image
        err = capsys.readouterr().err
        assert [err.count(path.name) for path in paths] == [1 - epoch] * 4
        assert "skipped 4 of 12 pairs, whose images cannot be read" in err
    with pytest.raises(UserError, match="cannot be decoded"):
        dataset[1]
    dataset = VigorDataset(index.select(np.array([8, 9])), **SEEN, on_bad_image="skip")
    with pytest.raises(UserError, match=f"not one of 2 pairs can be read; the first: .*{paths[2].name}"):
        list(evaluation_loader(dataset, 1, workers))


def test_a_batch_stacks_tensors_and_cameras():
    batch = collate([{"index": torch.tensor(k), "camera": panorama(10.0 * k)} for k in range(3)])
    assert batch["index"].tolist() == [0, 1, 2] and batch["camera"].heading.tolist() == [0, 10, 20]


def test_where_batches_are_counted_an_unreadable_one_is_its_own_kind(vigor_root, tmp_path):
    index, _ = break_images(vigor_root, tmp_path, [8, 9])
    dataset = VigorDataset(index.select(np.arange(6, 12)), **SEEN, on_bad_image="skip")
    loader = loaders.ReadableLoader(dataset, count_all=True, batch_size=2)
    first, second, third = loader
    assert second == loaders.UnreadableBatch(2) and set(first) == set(third) == set(dataset[0])


@pytest.mark.parametrize("samples", [17, 3])
def test_processes_share_each_batch(samples):
    """Two processes with batches of two see what one sees with batches of four, wherever they start."""
    whole = EpochSampler(samples, 4, seed=1)
    parts = [EpochSampler(samples, 2, 1, rank, 2) for rank in range(2)]
    for sampler in (whole, *parts):
        sampler.epoch = 5
    assert whole.steps == parts[0].steps == max(1, samples // 4)
    for joint, first, second in zip(whole, *parts, strict=True):
        assert sorted(joint) == sorted(first + second) and first and second
    for sampler in (whole, *parts):
        sampler.first_step = 1
    assert [len(list(sampler)) for sampler in (whole, *parts)] == [whole.steps - 1] * 3


def cities_of(batch, city):
    """The cities of the first and of the second half of a batch."""
    half = len(batch) // 2
    return [set(city[[i for _, i in part]].tolist()) for part in (batch[:half], batch[half:])]


@pytest.mark.parametrize(
    ("sizes", "batch_size", "left_over"),  # (60, 20, 10): the largest city finds 30 partners
    [((30, 30, 30, 30), 4, 0), ((40, 20, 16, 12), 4, 0), ((60, 20, 10), 4, 30), ((12, 8), 5, 0)],
)
def test_batches_of_two_cities(sizes, batch_size, left_over):
    city = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    sampler = TwoCitySampler(city, batch_size, seed=3)
    epoch = list(sampler)
    assert len(epoch) == sampler.steps == len(city) // batch_size and sampler.left_over == left_over
    indices = [i for batch in epoch for _, i in batch]
    assert len(set(indices)) == len(indices) > len(city) - batch_size  # each once
    of_two = [batch for batch in epoch if [len(half) for half in cities_of(batch, city)] == [1, 1]]
    of_two = [batch for batch in of_two if len(set.union(*cities_of(batch, city))) == 2]
    assert len(of_two) == (len(city) - left_over) // batch_size
    sampler.epoch = 1
    assert list(sampler) != epoch
    sampler.epoch, sampler.first_step = 0, 2  # as a run does that was stopped there
    assert list(sampler) == epoch[2:]


def test_every_pair_of_cities_meets_and_processes_get_batches_of_two_cities_each():
    city = np.repeat(np.arange(4), 30)
    pairs = {frozenset(set.union(*cities_of(batch, city))) for batch in TwoCitySampler(city, 2, seed=0)}
    assert len(pairs) == 6
    city = np.repeat(np.arange(3), 16)
    parts = [list(TwoCitySampler(city, 4, 0, rank, 2)) for rank in range(2)]
    assert len(parts[0]) == len(parts[1]) == 6
    assert all([len(part) for part in cities_of(batch, city)] == [1, 1] for part in parts for batch in part)
    assert len({i for part in parts for batch in part for _, i in batch}) == 48


def test_two_cities_need_two_cities_and_two_samples():
    for city, batch_size, says in ((np.zeros(8), 4, "two cities"), (np.arange(8), 1, "--batch_size 1")):
        with pytest.raises(UserError, match=says):
            TwoCitySampler(city, batch_size, 0)
