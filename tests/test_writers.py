"""Commands that write: on a full disk, into a folder that can only be read, stopped and killed anywhere.

Nothing half-written counts, nothing ends in a traceback, and the same command goes on.
"""

import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import suppress

import pytest
from children import SMALL, SMALL_VIEW, call, make_network, run_script, save_network, start_script

NETWORK = "--model_path {net} --dataset_root {root}"
WRITERS = {
    "check": ("dataset.check", "--dataset_root {root} --workers 1 --output {out}/findings.csv"),
    "cache": (
        "dataset.cache",
        "--dataset_root {root} --cache_root {out}/c --satellite_size 32 --panorama_size 32 64 --workers 1",
    ),
    "picture": ("visualize_loc", f"{NETWORK} --idx 0 --dpi 20 --output_dir {{out}}/pictures"),
    "evaluation": (
        "eval_VIGOR",
        f"{NETWORK} --num_workers 0 --limit 2 --calibrate 0 --output_dir {{out}}/results",
    ),
    "search": (
        "search_VIGOR",
        f"{NETWORK} --city Seattle --idx 0 --pool 2 --dpi 20 "
        "--output_dir {out}/found --index_root {out}/index",
    ),
    "training": (
        "train_VIGOR",
        f"{SMALL} --network light --epochs 1 --max_steps 1 --dataset_root {{root}} --runs_root {{out}}/runs",
    ),
    "export": ("model.export", "--model_path {net} --output {out}/net.onnx"),
}
LONG = [pytest.param(name, marks=pytest.mark.slow) for name in ("evaluation", "search", "training", "export")]
ALL = ["check", "cache", "picture", *LONG]


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    """The folder of a light network of random weights."""
    return save_network(tmp_path_factory.mktemp("net"), make_network(SMALL_VIEW, network="light"))


@pytest.fixture
def disk(tmp_path):
    """A disk of 2 MB, where mounting one is permitted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(f"mount -t tmpfs -o size=2m tmpfs {folder}".split(), capture_output=True)
    if mounted.returncode:
        pytest.skip("a disk of 2 MB: mounting is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk):
    """Leaves 20 kB of a disk; undone by what is given back."""
    status = os.statvfs(disk)
    (disk / "filler").write_bytes(bytes(status.f_bavail * status.f_frsize - 20_000))
    return (disk / "filler").unlink


def close(disk):
    """Makes a disk one that can only be read; undone by what is given back."""
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    return lambda: subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)


@pytest.mark.parametrize("obstacle", [fill, close])
@pytest.mark.parametrize("name", ALL)
def test_a_disk_that_takes_nothing_more(name, obstacle, disk, net, vigor_root, capfd):
    script, line = WRITERS[name]
    line = line.format(net=net, root=vigor_root, out=disk)
    undo = obstacle(disk)
    with pytest.raises(SystemExit) as stop:
        call(script, line)
    said = capfd.readouterr().err
    assert stop.value.code == 2 and "Traceback" not in said
    assert str(disk) in said.strip().split("\n")[-1] and "--resume" not in said
    undo()
    call(script, line)
    assert visible(disk) != {}


def visible(folder):
    """{name: content} of the files below a folder that are not hidden."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: path.read_bytes() for name, path in names.items() if "/." not in f"/{name}"}


SAME = (".png", ".jpg", ".tif", "findings.csv", "files.txt")  # files without times
MOMENTS = {signal.SIGTERM: 143, signal.SIGKILL: -9}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["check", "cache", "picture", "evaluation", "search"])
def test_a_command_that_is_stopped_goes_on(name, net, vigor_root, tmp_path):
    """Twice with each signal, or as often as the environment's KILLS says, at random moments of its work."""
    script, line = WRITERS[name]
    places = {"net": net, "root": vigor_root}
    for folder in ("whole", "cut"):
        (tmp_path / folder).mkdir()
    start = time.monotonic()
    run_script(tmp_path / "said", script, line.format(out=tmp_path / "whole", **places))
    whole, seconds = visible(tmp_path / "whole"), time.monotonic() - start
    draw = random.Random(0)
    for number in [*MOMENTS] * int(os.environ.get("KILLS", 2)):
        out = tmp_path / "cut"
        process = start_script(tmp_path / "said", script, line.format(out=out, **places))
        process.join(draw.uniform(0.1, 1) * seconds)
        with suppress(ProcessLookupError):  # where it is done already
            os.kill(process.pid, number)
        process.join(60)
        said = (tmp_path / "said").read_text()
        assert "Traceback" not in said and process.exitcode in (0, MOMENTS[number], -number), said
        cut = visible(out)
        assert all(data == whole[file] for file, data in cut.items() if file.endswith(SAME))
        run_script(tmp_path / "said", script, line.format(out=out, **places))
        assert visible(out).keys() == whole.keys()
        shutil.rmtree(out)
        out.mkdir()
