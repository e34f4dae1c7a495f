"""Commands that write: on a full disk, into a folder that can only be read, stopped and killed anywhere.

Nothing half-written counts, nothing ends in a traceback, and the same command goes on.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
import rasterio
import torch
from children import SMALL, SMALL_VIEW, call, make_network, run_script, save_network, start_script

from common import geometry
from dataset.city.imagery import MERCATOR, map_grid
from dataset.index import load_index
from model import export as exporter

NETWORK = "--model_path {net} --dataset_root {root}"
ONE_CITY = f"{NETWORK} --city Seattle --dpi 20 --index_root {{out}}/index --output_dir {{out}}/found"
WRITERS = {
    "check": ("dataset.check", "--dataset_root {root} --workers 1 --output {out}/findings.csv"),
    "cache": (
        "dataset.cache",
        "--dataset_root {root} --cache_root {out}/c --satellite_size 32 --panorama_size 32 64 --workers 1",
    ),
    "city": (
        "dataset.city",
        "--root {out}/own --city Own --panoramas {raw}/city.csv --imagery {raw}/above.tif --workers 1",
    ),
    "picture": ("visualize_loc", f"{NETWORK} --idx 0 --dpi 20 --output_dir {{out}}/pictures"),
    "evaluation": (
        "eval_VIGOR",
        f"{NETWORK} --num_workers 0 --limit 2 --calibrate 0 --output_dir {{out}}/results",
    ),
    "search": ("search_VIGOR", f"{ONE_CITY} --idx 0 --pool 2"),
    "tracking": ("track_VIGOR", f"{ONE_CITY} --frames {{raw}}/drive.csv"),
    "training": (
        "train_VIGOR",
        f"{SMALL} --network light --epochs 1 --max_steps 1 --dataset_root {{root}} --runs_root {{out}}/runs",
    ),
    "export": ("model.export", "--model_path {net} --output {out}/net.onnx"),
}
# Their first and last writes are tried first, so that a disk refuses them before the work.
LONG = ("city", "evaluation", "search", "tracking", "training")
ALL = [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in WRITERS]
KILLS = int(os.environ.get("KILLS", 0))  # by each signal; 0: one each for a few commands


@pytest.fixture(scope="module")
def places(vigor_root, tmp_path_factory):
    """What commands read: a root, a light network of random weights, a table of panoramas and imagery."""
    raw, net = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("net")
    save_network(net, make_network(SMALL_VIEW, network="light"))
    index = load_index(vigor_root, "samearea", "test", cities=("Seattle",))
    lines, parts = ["file,latitude,longitude,heading"], ["split", "train", "train", "test"]
    for row in range(3):
        image = vigor_root / index.panorama_image(row).path
        shutil.copy(image, raw / f"{row}.jpg")
        lines.append(",".join([f"{row}.jpg", *image.name.split(",")[1:3], "0"]))
    (raw / "drive.csv").write_text("\n".join(lines))
    (raw / "city.csv").write_text("\n".join(map(",".join, zip(lines, parts, strict=True))))
    corner = np.round(geometry.mercator_px(*index.satellite_gps.mean(0))) - 1500
    pixels = np.random.default_rng(0).integers(0, 256, (3, 300, 300), np.uint8).repeat(10, 1).repeat(10, 2)
    how = {"driver": "GTiff", "crs": MERCATOR, "transform": map_grid(corner), "dtype": "uint8", "count": 3}
    with rasterio.open(raw / "above.tif", "w", width=3000, height=3000, **how) as file:
        file.write(pixels)
    return {"root": vigor_root, "net": net, "raw": raw}


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


def export_quickly():
    """PyTorch's exporter takes a minute before it writes; this one writes as long."""

    def write(*_, f, **__):
        with open(f, "wb") as file:
            for number in range(256):
                file.write(bytes([number]) * 4096)
                os.fsync(file.fileno())

    torch.onnx.export = write
    exporter.difference = lambda *args: 0.0


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
def test_a_disk_that_takes_nothing_more(name, obstacle, disk, places, capfd, monkeypatch):
    script, line = WRITERS[name]
    monkeypatch.setattr("torch.onnx.export", torch.onnx.export)  # undoes what follows
    monkeypatch.setattr(exporter, "difference", exporter.difference)
    export_quickly()
    line = line.format(out=disk, **places)
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


SAME = (".png", ".jpg", ".tif", ".onnx", "findings.csv", "files.txt")  # files without times
MOMENTS = {signal.SIGTERM: 143, signal.SIGKILL: -9}


def kinds(files):
    """The names of files without the times and processes in them."""
    return {re.sub(r"\d{8}_\d{6}(_\d+)?|(?<=tfevents).*", "", name) for name in files}


def check_whole(name, data, whole):
    """Fails for a file that was cut off; whole: {name: content} of a run that was not stopped."""
    assert not name.endswith(SAME) or data == whole[name], name
    if name.endswith("json"):
        json.loads(data)
    if name.endswith(".pt"):
        torch.load(BytesIO(data), weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS if KILLS else ["cache", "city", "search"])
def test_a_command_that_is_stopped_goes_on(name, places, tmp_path):
    """At random moments of its work, with each signal in turn; begun anew whenever it was done already."""
    script, line = WRITERS[name]
    (tmp_path / "whole").mkdir()
    (out := tmp_path / "cut").mkdir()
    start = time.monotonic()
    run_script(tmp_path / "said", script, line.format(out=tmp_path / "whole", **places), export_quickly)
    whole, seconds = visible(tmp_path / "whole"), time.monotonic() - start
    draw, line = random.Random(0), line.format(out=out, **places)
    for number in [*MOMENTS] * max(1, KILLS):
        process = start_script(tmp_path / "said", script, line, export_quickly)
        process.join(draw.uniform(0.05, 1) * seconds)
        with suppress(ProcessLookupError):  # where it is done already
            os.kill(process.pid, number)
        process.join(60)
        said = (tmp_path / "said").read_text()
        assert "Traceback" not in said and process.exitcode in (0, MOMENTS[number], -number), said
        for file, data in visible(out).items():
            check_whole(file, data, whole)
        if process.exitcode == 0:
            shutil.rmtree(out)
            out.mkdir()
    run_script(tmp_path / "said", script, line, export_quickly)
    assert kinds(visible(out)) == kinds(whole)
