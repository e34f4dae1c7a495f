"""A data set that a module and one line add: cache, masks, training and searches work with it."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from children import SMALL, call, open_pairs, refusal, run_folder
from extract import write_extract
from PIL import Image

from common import geometry
from common.camera import Panorama
from common.errors import UserError
from dataset.images import read_mask
from dataset.index import VigorIndex, part_of
from dataset.layout import BY_PATH
from dataset.sets import SETS, read_index

COUNT, CORNERS = 12, [(0, 0), (0, 320), (320, 0), (320, 320)]  # of panoramas; of crops of the aerial image
ORIGIN = np.rint(geometry.mercator_px(52.0, 4.4))  # its corner on the map
PLACES = np.stack([np.full(COUNT, 480.0), 400.0 + 12 * np.arange(COUNT)], 1)  # along a street


def lies_in(root):
    return (root / "walk.txt").exists()


def load_index(root, area, split, cities=None):
    """Even panoramas train, odd ones test."""
    if area == "crossarea":
        raise UserError(f"{root}: this walk has one area; use --area samearea")
    rows = np.arange(split == "test", COUNT, 2)
    middles = ORIGIN + CORNERS + geometry.SATELLITE_PX / 2
    index = VigorIndex(
        root=root,
        cities=("Walk",),
        city=np.zeros(len(rows), int),
        panorama=np.array([f"street/{row:02d}.png".encode() for row in rows]),
        satellite=np.tile(np.arange(4), (len(rows), 1)),
        position=(PLACES[rows, None] - CORNERS).astype(np.float32),
        satellite_name=np.array([b"aerial.png"] * 4),
        satellite_city=np.zeros(4, int),
        satellite_gps=np.stack(geometry.latitude_longitude(*middles.T), -1),
        cameras=Panorama(torch.zeros(len(rows), 1)),
        crop=np.insert(CORNERS, 2, geometry.SATELLITE_PX, axis=1),
        folders=BY_PATH,
    )
    return part_of(index, area, split, root)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setitem(SETS, "Walk", SimpleNamespace(lies_in=lies_in, load_index=load_index))
    rng = np.random.default_rng(0)
    root = tmp_path / "walk"
    (root / "street").mkdir(parents=True)
    (root / "walk.txt").touch()
    blocks = np.kron(rng.integers(0, 256, (30, 30, 3), np.uint8), np.ones((32, 32, 1), np.uint8))
    Image.fromarray(blocks).save(root / "aerial.png")
    for row in range(COUNT):
        street = np.kron(rng.integers(0, 256, (8, 16, 3), np.uint8), np.ones((16, 16, 1), np.uint8))
        Image.fromarray(street).save(root / f"street/{row:02d}.png")
    return root


opened = partial(open_pairs, use_mask=True)


def test_masks_cache_training_and_search(root, tmp_path, capsys):
    with pytest.raises(UserError, match=r"_mask.tif: no such file; .*dataset.masks .*--use_mask False"):
        opened(root)
    extract = write_extract(tmp_path / "walk.osm", ORIGIN + PLACES[[0, -1]])
    call("dataset.masks", f"--dataset_root {root} --osm {extract}")
    assert "Walk: 4 masks, 4 of them written now" in (out := capsys.readouterr().out)
    assert "100.0% of 6 training panoramas stand on foreground" in out
    mask = read_mask(root / "masks/aerial_0_320_640_mask.tif", (640, 640))
    assert mask[480, 150] == 255 and not mask[:400].any()

    cache = tmp_path / "cache"
    words = f"--dataset_root {root} --cache_root {cache} --satellite_size 64 --panorama_size 64 128"
    call("dataset.cache", words)
    out = capsys.readouterr().out
    assert "20 images, 20 copied now, 0 left out" in out and "not in the cache: " in out
    assert (cache / "aerial_320_0_640.jpg").exists() and (cache / "masks/aerial_0_0_640_mask.png").exists()
    for sample, other in zip(opened(root, cache_root=cache), opened(root), strict=True):
        assert all(torch.equal(sample[name], other[name]) for name in ("mask", "position", "corner"))
        change = sample["satellite"].int() - other["satellite"].int()
        assert abs(change).float().mean() < 30  # JPEG blurs noise; other crops differ by 85

    words = f"{SMALL} --network light --epochs 1 --max_steps 1 --dataset_root {root} --cache_root {cache}"
    call("train_VIGOR", f"{words} --runs_root {tmp_path / 'runs'} --val_on test")
    words = f"--model_path {run_folder(tmp_path / 'runs')} --dataset_root {root} --city Walk --idx 0"
    capsys.readouterr()
    call("search_VIGOR", words)
    assert "samearea_test_Walk 0, street/01.png" in capsys.readouterr().out


def test_lossless_copies_are_the_samples_bit_by_bit(root, tmp_path):
    words = f"--dataset_root {root} --cache_root {tmp_path / 'c'} --satellite_size 64 --panorama_size 64 128"
    call("dataset.cache", f"{words} --use_mask False --lossless True")
    cached, read = (opened(root, cache_root=where, use_mask=False) for where in (tmp_path / "c", None))
    for sample, other in zip(cached, read, strict=True):
        assert all(torch.equal(sample[name], other[name]) for name in ("query", "satellite", "position"))


def test_images_of_another_scale_lie_on_no_map(root):
    index = read_index(root, split="test")
    index.check_map("a search")
    twice = replace(index, resolution=2 * index.metres_per_pixel(np.arange(4)))
    with pytest.raises(UserError, match=r"a search: .* 2.00 to 2.00 times as wide"):
        twice.check_map("a search")


def twins(root, area, split, cities=None):
    """The index of a split; training and test name files that differ in their endings alone."""
    index = load_index(root, area, split)
    name = b"street/00.jpg" if split == "test" else b"street/00.png"
    return replace(index, panorama=np.array([name] * len(index)))


def test_two_images_with_one_copy_are_refused(root, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(SETS, "Walk", SimpleNamespace(lies_in=lies_in, load_index=twins))
    words = f"--dataset_root {root} --cache_root {tmp_path / 'c'} --use_mask False"
    assert "in their endings alone" in refusal("dataset.cache", words, capsys)
