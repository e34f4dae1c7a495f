"""The cache: the same samples from small copies, refused where it does not fit, never half a file."""

import errno
import json
import os
import shutil
import signal

import numpy as np
import pytest
from children import crop_panoramas, files_end_at, run_script

from common import flags
from common.errors import UserError
from common.view import View
from dataset import cache
from dataset.index import load_index
from dataset.vigor import VigorDataset

SIZES = {"satellite_size": 64, "panorama_size": (64, 128)}
FLAGS = "--satellite_size 64 --panorama_size 64 128 --workers 2"


def replace(path, data):
    path.unlink()
    path.write_bytes(data)


def make(root, target, **changes):
    return cache.make_cache(root, target, **{**SIZES, "workers": 1, **changes})


def dataset(root, cache_root=None, split="test", use_mask=True, **changes):
    view = View(**{**SIZES, **changes})
    return VigorDataset(load_index(root, split=split), view=view, use_mask=use_mask, cache_root=cache_root)


@pytest.fixture(scope="module")
def whole(vigor_root, tmp_path_factory):
    """A finished cache of the whole folder. Read only."""
    target = tmp_path_factory.mktemp("caches") / "c"
    assert make(vigor_root, target) == 4 * (12 + 4 + 4)
    return target


def run(arguments, capsys, status=None):
    """Run the command in this process; returns stdout, or with a status the last line on stderr."""
    call = (cache.main, cache.build_parser(), arguments.split())
    if status is None:
        flags.run_script(*call)
        return capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        flags.run_script(*call)
    assert stop.value.code == status
    return capsys.readouterr().err.strip().split("\n")[-1]


def test_copies_are_the_samples_themselves(vigor_root, whole):
    ours, theirs = dataset(vigor_root, whole), dataset(vigor_root)
    for i in (0, 7, 23):
        first, second = ours[i], theirs[i]
        assert first.keys() == second.keys()
        for name in first.keys() - {"camera"}:
            assert (first[name].shape, first[name].dtype) == (second[name].shape, second[name].dtype)
        for name in ("mask", "position", "heading", "metres_per_pixel", "index"):  # masks are lossless
            np.testing.assert_array_equal(first[name], second[name])
        for name in ("query", "satellite"):
            pair = [np.asarray(image[name], np.float32).ravel() for image in (first, second)]
            assert 0.8 < np.corrcoef(*pair)[0, 1] < 1, name  # JPEG blurs the noise
    assert not list(whole.rglob("*.tmp"))


def test_the_originals_may_be_removed(vigor_root, whole, tmp_path):
    shutil.copytree(vigor_root / "splits__corrected", tmp_path / "splits__corrected")
    ours, theirs = dataset(tmp_path, whole)[5], dataset(vigor_root, whole)[5]
    np.testing.assert_array_equal(ours["query"], theirs["query"])


def die_after_thirty_copies():
    """SIGKILL instead of the next file's renaming."""
    replace, done = os.replace, []

    def replace_thirty(source, target):
        done.append(target)
        if len(done) > 30:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = replace_thirty


@pytest.mark.slow
def test_a_killed_run_is_refused_and_goes_on(vigor_root, tmp_path, capsys):
    target = tmp_path / "c"
    words = f"--dataset_root {vigor_root} --cache_root {target} {FLAGS}"
    run_script(tmp_path / "said", "dataset.cache", words, die_after_thirty_copies, -signal.SIGKILL)
    kept = list(target.glob("*/*/[!.]*"))
    assert list(target.rglob("*.tmp")) and all(cache.is_whole(path) for path in kept)
    assert 26 <= len(kept) <= 28  # besides the manifest and its list; each thread may lose the one at hand
    with pytest.raises(UserError, match=r"not finished.* python -m dataset.cache .* --quality 95"):
        dataset(vigor_root, target)
    out = run(words, capsys)
    assert f"80 images, {80 - len(kept)} copied now, 0 left out" in out
    assert not list(target.rglob("*.tmp"))
    dataset(vigor_root, target)


def test_ctrl_c_names_the_cache_to_continue(vigor_root, tmp_path, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, "in_threads", interrupt)
    words = f"--dataset_root {vigor_root} --cache_root {tmp_path / 'c'} {FLAGS}".split()
    with pytest.raises(SystemExit, match="130"):
        flags.run_script(cache.main, cache.build_parser(), words)
    error = capsys.readouterr().err
    assert "the same command" in error and str(tmp_path / "c") in error


def test_a_file_that_a_power_cut_emptied_is_made_again(vigor_root, tmp_path):
    make(vigor_root, tmp_path / "c")
    copies = sorted((tmp_path / "c").glob("*/*/*"))
    copies[0].write_bytes(b"")
    copies[30].write_bytes(copies[30].read_bytes()[:-20])
    assert make(vigor_root, tmp_path / "c") == 2
    assert make(vigor_root, tmp_path / "c") == 0


def test_another_size_is_refused(vigor_root, whole):
    for use in (dataset, make):
        with pytest.raises(UserError, match="satellite_size 64, not 96"):
            use(vigor_root, whole, satellite_size=96)
    with pytest.raises(UserError, match=r"panorama_size .*64, 128.*python -m dataset.cache .* 64 96"):
        dataset(vigor_root, whole, panorama_size=(64, 96))
    dataset(vigor_root, whole)  # and the attempt did no harm


def test_other_files_are_refused(root, whole):
    path = root / "splits__corrected/Chicago/same_area_balanced_test__corrected.txt"
    text = path.read_bytes()
    replace(path, b"new" + text)
    with pytest.raises(UserError, match=r"1 of the 56 .*Chicago/panorama/newChic.*python -m dataset.cache"):
        dataset(root, whole)
    replace(path, text)
    index = load_index(root, split="test")
    for row in range(len(index)):
        image = root / index.panorama_image(row).path
        replace(image, image.read_bytes() + b"\0")
    with pytest.raises(UserError, match=r"made from another .*jpg, .* bytes .*python -m dataset.cache"):
        dataset(root, whole)


def test_changed_originals_are_copied_again(root, tmp_path):
    make(root, tmp_path / "c")
    image = root / load_index(root, split="test").panorama_image(0).path
    replace(image, image.read_bytes() + b"\0")
    assert make(root, tmp_path / "c") == 1


def test_a_cache_without_masks(vigor_root, tmp_path):
    make(vigor_root, tmp_path / "c", use_mask=False)
    assert "mask" not in dataset(vigor_root, tmp_path / "c", use_mask=False)[0]
    with pytest.raises(UserError, match="holds no masks; set --use_mask False"):
        dataset(vigor_root, tmp_path / "c")


def test_unreadable_images_end_in_an_error_or_are_left_out(root, tmp_path, capsys):
    index = load_index(root, split="test")
    cut, missing = root / index.panorama_image(0).path, root / index.panorama_image(3).path
    replace(cut, cut.read_bytes()[:-100])
    missing.unlink()
    words = f"--dataset_root {root} --cache_root {tmp_path / 'c'} {FLAGS}"
    error = run(words, capsys, status=2)
    assert "2 of 80 images cannot be read" in error and str(root) in error and "--on_bad_image skip" in error
    with pytest.raises(UserError, match="this cache is not finished"):
        dataset(root, tmp_path / "c")
    assert "complete, 80 images, 0 copied now, 2 left out" in run(f"{words} --on_bad_image skip", capsys)
    samples = dataset(root, tmp_path / "c")
    samples[1]
    with pytest.raises(UserError, match="no such file; it could not be read when the cache was made"):
        samples[0]


def test_a_disk_that_fills_up(vigor_root, tmp_path, capsys):
    target = tmp_path / "c"
    with files_end_at(16_000):
        words = f"--dataset_root {vigor_root} --cache_root {target} --panorama_size 256 512 --workers 2"
        last = run(words, capsys, status=2)
    assert str(target) in last and "cannot be written (File too large)" in last
    assert not json.loads((target / "manifest.json").read_text())["complete"]
    assert not list(target.rglob("*.tmp"))
    assert all(cache.is_whole(path) for path in target.glob("*/*/*"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_place_that_cannot_be_written(vigor_root, tmp_path, capsys, monkeypatch, number):
    def refuse(source, target):
        raise OSError(number, os.strerror(number), str(source), None, str(target))

    monkeypatch.setattr(os, "replace", refuse)
    error = run(f"--dataset_root {vigor_root} --cache_root {tmp_path / 'c'} {FLAGS}", capsys, status=2)
    assert str(tmp_path / "c") in error and f"cannot be written ({os.strerror(number)})" in error
    assert not [path for path in (tmp_path / "c").rglob("*") if path.is_file()]


def test_folders_that_hold_something_else(vigor_root, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else than a cache"):
        make(vigor_root, tmp_path)
    with pytest.raises(UserError, match=r"no cache.* python -m dataset.cache .* --satellite_size 64"):
        dataset(vigor_root, tmp_path)
    cases = {"{": r"manifest\.json: not the manifest of a cache", '{"version": 99}': "version 99, not"}
    for text, says in cases.items():
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(UserError, match=says):
            dataset(vigor_root, tmp_path)


def test_a_cache_of_cropped_panoramas_is_for_views_of_these(root, whole, tmp_path):
    crop_panoramas(root)
    cropped = {"panorama_size": (32, 128), "vertical": (45.0, 45.0), "lossless": True}
    make(root, tmp_path / "c", **cropped)
    ours, theirs = (dataset(root, cache_root, vertical=(45.0, 45.0)) for cache_root in (tmp_path / "c", None))
    assert ours[3]["camera"].extent == theirs[3]["camera"].extent == (360, 45, 45)
    assert ours[3]["query"].equal(theirs[3]["query"])
    with pytest.raises(UserError, match=r"--panorama_size 32 128 --vertical 45 45"):
        dataset(root, whole, vertical=(45.0, 45.0))
    make(root, tmp_path / "d", panorama_size=(32, 128), on_bad_image="skip")
    with pytest.raises(UserError, match=r"vertical as usual, not \[45\.0, 45\.0\]"):
        dataset(root, tmp_path / "d", vertical=(45.0, 45.0))
