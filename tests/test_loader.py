"""Batches: the same ones for any number of workers, and what becomes of unreadable images."""

import os
import shutil

import numpy as np
import pytest
import torch

from dataset import loader as loaders
from dataset.images import DataError
from dataset.loader import evaluation_loader, training_loader
from dataset.vigor import VigorDataset, load_index

SIZES = {"satellite_size": 32, "panorama_size": (32, 64), "use_mask": True}


@pytest.fixture(autouse=True)
def nothing_logged_yet(monkeypatch):
    monkeypatch.setattr(loaders, "_logged", set())


def training_set(root, **options):
    return VigorDataset(load_index(root, split="train"), **SIZES, ori_noise=180, pos_only=False, training=True, **options)


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker")  # two cores will do for four
@pytest.mark.parametrize("on_bad_image", ["error", "skip"])
def test_any_number_of_workers_draws_the_same_samples(vigor_root, on_bad_image):
    epochs = {}
    for workers in (0, 2, 4):
        loader, batches = training_loader(training_set(vigor_root, on_bad_image=on_bad_image), 4, seed=3, workers=workers)
        epochs[workers] = []
        for batches.epoch in (0, 1):
            epochs[workers].append(list(loader))
        batches.epoch, batches.first_step = 1, 2  # as a run does that was stopped there
        epochs[workers].append(list(loader))
    for workers in (2, 4):
        for ours, theirs in zip(epochs[0], epochs[workers], strict=True):
            assert len(ours) == len(theirs) and all(map(equal, ours, theirs))
    first, second, resumed = epochs[0]
    assert not equal(first[0], second[0])
    assert len(resumed) == len(second) - 2 and all(map(equal, resumed, second[2:]))


def break_images(vigor_root, tmp_path, rows):
    """A copy of the folder in which the panoramas of these rows of the test list are cut short."""
    shutil.copytree(vigor_root, tmp_path / "v", copy_function=os.link)
    index = load_index(tmp_path / "v", split="test")
    paths = [index.root / index.panorama_path(row) for row in rows]
    for path in paths:
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data[:-100])
    return index, paths


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_are_skipped_counted_and_named_once(vigor_root, tmp_path, capsys, workers):
    index, paths = break_images(vigor_root, tmp_path, [1, 6, 8, 9])
    dataset = VigorDataset(index.select(np.arange(12)), **SIZES, on_bad_image="skip")
    loader = evaluation_loader(dataset, 2, workers)
    for epoch in range(2):
        batches = list(loader)
        assert torch.cat([batch["index"] for batch in batches]).tolist() == [0, 2, 3, 4, 5, 7, 10, 11]
        assert len(batches) == 5 and set(batches[0]) == set(dataset[0])  # the batch of 8 and 9 is gone
        assert all(batch["panorama"].flatten(1).float().std(1).min() > 5 for batch in batches)  # no blank image
        err = capsys.readouterr().err
        assert [err.count(path.name) for path in paths] == [1 - epoch] * 4
        assert "skipped 4 of 12 pairs, whose images cannot be read" in err
    with pytest.raises(DataError, match="cannot be decoded"):
        dataset[1]


def test_without_skipping_an_unreadable_image_ends_the_epoch(vigor_root, tmp_path):
    index, paths = break_images(vigor_root, tmp_path, [1])
    with pytest.raises(DataError, match="cannot be decoded") as error:
        list(evaluation_loader(VigorDataset(index, **SIZES), 2, 2))
    assert str(error.value).startswith(str(paths[0])) and "\n" not in str(error.value)


def test_an_epoch_without_a_readable_image_is_an_error(vigor_root, tmp_path):
    index, paths = break_images(vigor_root, tmp_path, [0, 1])
    dataset = VigorDataset(index.select(np.arange(2)), **SIZES, on_bad_image="skip")
    with pytest.raises(DataError, match=f"not one of 2 pairs can be read; the first: .*{paths[0].name}"):
        list(evaluation_loader(dataset, 1, 0))


def test_an_unknown_way_with_bad_images_is_refused(vigor_root):
    with pytest.raises(DataError, match="on_bad_image 'blank' is not one of error, skip"):
        training_set(vigor_root, on_bad_image="blank")
