"""The cache: the same samples from small copies, refused where it does not fit, never half a file."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from children import PROJECT

from common import flags
from common.errors import UserError
from dataset import cache
from dataset.index import load_index
from dataset.vigor import VigorDataset

SIZES = {"satellite_size": 64, "panorama_size": (64, 128)}
FLAGS = "--satellite_size 64 --panorama_size 64 128 --workers 2"


def copy_folder(vigor_root, target):
    """Another folder of the same images, as hard links: replace a file, do not write into it."""
    return Path(shutil.copytree(vigor_root, target, copy_function=os.link))


def make(root, target, **changes):
    defaults = {**SIZES, "quality": 95, "use_mask": True, "workers": 1}
    return cache.make_cache(root, target, **{**defaults, **changes})


def dataset(root, cache_root=None, split="test", **changes):
    return VigorDataset(load_index(root, split=split), **{**SIZES, "use_mask": True, **changes}, cache_root=cache_root)


@pytest.fixture(scope="module")
def whole(vigor_root, tmp_path_factory):
    """A finished cache of the whole folder. Read only."""
    target = tmp_path_factory.mktemp("caches") / "c"
    assert make(vigor_root, target) == 4 * (12 + 4 + 4)
    return target


def run(arguments, capsys, status=None):
    """The CLI in this process; returns stdout, or the last line on stderr where it has to fail."""
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
        assert {name: (value.shape, value.dtype) for name, value in first.items()} == {
            name: (value.shape, value.dtype) for name, value in second.items()
        }
        for name in ("mask", "position", "heading", "metres_per_pixel", "index"):  # masks are lossless
            np.testing.assert_array_equal(first[name], second[name])
        for name in ("panorama", "satellite"):
            pair = [np.asarray(image[name], np.float32).ravel() for image in (first, second)]
            assert 0.8 < np.corrcoef(*pair)[0, 1] < 1, name  # blocks of noise, whose colours JPEG blurs; swapped ones give 0.3
    assert not list(whole.rglob("*.tmp"))


def test_the_originals_are_not_needed_any_more(vigor_root, whole, tmp_path):
    shutil.copytree(vigor_root / "splits__corrected", tmp_path / "splits__corrected")
    np.testing.assert_array_equal(dataset(tmp_path, whole)[5]["panorama"], dataset(vigor_root, whole)[5]["panorama"])


KILLED = """
import os, signal, sys
from dataset import cache
replace, done = os.replace, []
def replace_thirty(source, target):
    done.append(target)
    if len(done) > 30:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
cache.os.replace = replace_thirty
cache.main(cache.build_parser().parse_args(sys.argv[1:]))
"""


def test_a_killed_run_is_refused_and_goes_on(vigor_root, tmp_path, capsys):
    target = tmp_path / "c"
    words = f"--dataset_root {vigor_root} --cache_root {target} {FLAGS}"
    done = subprocess.run([sys.executable, "-c", KILLED, *words.split()], cwd=PROJECT, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert list(target.rglob("*.tmp")) and all(cache.is_whole(path) for path in target.glob("*/*/[!.]*"))
    with pytest.raises(UserError, match=r"this cache is not finished; go on with python -m dataset.cache .* --quality 95"):
        dataset(vigor_root, target)
    out = run(words, capsys)
    assert "complete, 80 images, 52 copied now, 0 left out" in out  # 28 copies beside the manifest and its list
    assert not list(target.rglob("*.tmp"))
    dataset(vigor_root, target)


def test_ctrl_c_says_how_to_go_on(vigor_root, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cache, "_copy_all", lambda *_: exec("raise KeyboardInterrupt"))
    error = run(f"--dataset_root {vigor_root} --cache_root {tmp_path / 'c'} {FLAGS}", capsys, status=130)
    assert error == f"stopped; the same command goes on with {tmp_path / 'c'}"


def test_a_file_that_a_power_cut_emptied_is_made_again(vigor_root, tmp_path):
    make(vigor_root, tmp_path / "c")
    copies = sorted((tmp_path / "c").glob("*/*/*"))
    copies[0].write_bytes(b"")
    copies[30].write_bytes(copies[30].read_bytes()[:-20])
    assert make(vigor_root, tmp_path / "c") == 2
    assert make(vigor_root, tmp_path / "c") == 0


def test_another_size_is_refused(vigor_root, whole):
    with pytest.raises(UserError, match=r"holds satellite images of 64 px and panoramas of 64 x 128 px; make one of .* 96"):
        dataset(vigor_root, whole, satellite_size=96)
    with pytest.raises(UserError, match="holds a cache of satellite_size 64, not 96; name another folder"):
        make(vigor_root, whole, satellite_size=96)
    dataset(vigor_root, whole)  # and the attempt did no harm


def test_other_files_are_refused(vigor_root, whole, tmp_path):
    root = copy_folder(vigor_root, tmp_path / "v")
    path = root / "splits__corrected/Chicago/same_area_balanced_test__corrected.txt"
    text = path.read_text()
    path.unlink()
    path.write_text("new" + text)
    with pytest.raises(UserError, match=r"1 of the 56 images in the lists are not in this cache, Chicago/panorama/newChic"):
        dataset(root, whole)
    path.write_text(text)
    index = load_index(root, split="test")
    for row in range(len(index)):
        image = root / index.panorama_path(row)
        data = image.read_bytes()
        image.unlink()
        image.write_bytes(data + b"\0")
    with pytest.raises(UserError, match=r"was made of another file than .*jpg, .* bytes and not .* bring it up to date with"):
        dataset(root, whole)


def test_changed_originals_are_copied_again(vigor_root, tmp_path):
    root = copy_folder(vigor_root, tmp_path / "v")
    make(root, tmp_path / "c")
    image = root / load_index(root, split="test").panorama_path(0)
    data = image.read_bytes()
    image.unlink()
    image.write_bytes(data + b"\0")
    assert make(root, tmp_path / "c") == 1


def test_a_cache_without_masks(vigor_root, tmp_path):
    make(vigor_root, tmp_path / "c", use_mask=False)
    assert "mask" not in dataset(vigor_root, tmp_path / "c", use_mask=False)[0]
    with pytest.raises(UserError, match="this cache holds no masks; --use_mask False needs none"):
        dataset(vigor_root, tmp_path / "c")


def test_unreadable_images_end_in_an_error_or_are_left_out(vigor_root, tmp_path, capsys):
    root = copy_folder(vigor_root, tmp_path / "v")
    index = load_index(root, split="test")
    cut, missing = root / index.panorama_path(0), root / index.panorama_path(3)
    data = cut.read_bytes()
    cut.unlink()
    cut.write_bytes(data[:-100])
    missing.unlink()
    words = f"--dataset_root {root} --cache_root {tmp_path / 'c'} {FLAGS}"
    error = run(words, capsys, status=2)
    assert "2 of 80 images cannot be read, and the cache stays unfinished. The first: " in error and str(root) in error
    with pytest.raises(UserError, match="this cache is not finished"):
        dataset(root, tmp_path / "c")
    assert "complete, 80 images, 0 copied now, 2 left out" in run(f"{words} --on_bad_image skip", capsys)
    samples = dataset(root, tmp_path / "c")
    samples[1]
    with pytest.raises(UserError, match="no such file; it could not be read when the cache was made"):
        samples[0]


FULL_DISK = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, 16_000))  # writes beyond come back short, as on a full disk
from dataset import cache
from common import flags
flags.run_script(cache.main, cache.build_parser(), sys.argv[1:])
"""


def test_a_disk_that_fills_up(vigor_root, tmp_path):
    target = tmp_path / "c"
    words = ["--dataset_root", str(vigor_root), "--cache_root", str(target), "--panorama_size", "256", "512", "--workers", "2"]
    done = subprocess.run([sys.executable, "-c", FULL_DISK, *words], cwd=PROJECT, capture_output=True, text=True)
    last = done.stderr.strip().split("\n")[-1]
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert str(target) in last and "cannot be written (File too large); once that is mended" in last
    assert not json.loads((target / "manifest.json").read_text())["complete"]
    assert not list(target.rglob("*.tmp"))
    assert all(cache.is_whole(path) for path in target.glob("*/*/*"))


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "No space left on device"), (errno.EROFS, "Read-only file system")])
def test_a_place_that_cannot_be_written(vigor_root, tmp_path, capsys, monkeypatch, number, words):
    def refuse(source, target):
        raise OSError(number, os.strerror(number), str(source), None, str(target))

    monkeypatch.setattr(cache.os, "replace", refuse)
    error = run(f"--dataset_root {vigor_root} --cache_root {tmp_path / 'c'} {FLAGS}", capsys, status=2)
    assert str(tmp_path / "c") in error and f"cannot be written ({words}); once that is mended" in error
    assert not [path for path in (tmp_path / "c").rglob("*") if path.is_file()]


def test_a_read_only_folder(vigor_root, tmp_path, capsys):
    (tmp_path / "locked").mkdir(mode=0o555)
    target = Path("/proc/cache") if os.geteuid() == 0 else tmp_path / "locked" / "c"  # nothing else stops root
    error = run(f"--dataset_root {vigor_root} --cache_root {target} {FLAGS}", capsys, status=2)
    assert f"{target}: cannot be written (" in error


def test_folders_that_hold_something_else(vigor_root, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="this folder holds something else than a cache; name an empty or a new one"):
        make(vigor_root, tmp_path)
    with pytest.raises(UserError, match=r"no cache is here; make it with python -m dataset.cache .* --satellite_size 64"):
        dataset(vigor_root, tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json: not the manifest of a cache; remove the folder"):
        dataset(vigor_root, tmp_path)
    (tmp_path / "manifest.json").write_text('{"version": 99}')
    with pytest.raises(UserError, match=r"manifest\.json: not of a cache that this version reads"):
        dataset(vigor_root, tmp_path)
