"""The speed benchmarks and the figures of docs/: each runs, shrunk."""

import copy
import os
import subprocess
from dataclasses import replace
from functools import partial

import cv2
import pytest
import torch
from children import PROJECT, call

from benchmarks.loader import plain_batches, training_batches
from benchmarks.measure import race
from benchmarks.network import make_inference
from benchmarks.training import make_feed, make_step, make_training
from dataset.mini_vigor import writer
from model.settings import ModelSettings

SMALL = ModelSettings(network="light", satellite_size=64, panorama_size=(64, 128))


def test_plain_inference_finds_the_same_places(thin):
    published = replace(SMALL, network="published", d_model=16, num_heads=2)
    for settings in (SMALL, published):
        plain, ours = (make_inference(settings, "cpu", 2, plain=plain)() for plain in (True, False))
        assert plain == ours


def test_training_updates_the_network_whatever_feeds_it(thin, vigor_root):
    model, train = make_training(SMALL, "cpu", augmentation="full")
    before = copy.deepcopy(model.state_dict())
    train(training_batches(vigor_root, 2, SMALL), 1)
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
    make_step("cpu", 2, SMALL, plain=True)()
    for repeated in (False, True):
        make_feed((vigor_root, None), "cpu", 2, 0, 1, repeated, settings=SMALL)()
    assert set(next(plain_batches(vigor_root, 2))) == {"panorama", "satellite", "mask", "position"}


def build_counter(results):
    return iter(results).__next__


def test_competitors_take_turns_and_the_first_call_warms_up():
    builders = {name: partial(build_counter, [name + str(call) for call in range(3)]) for name in "ab"}
    seconds, results = race(builders, 2, torch.device("cpu"))
    assert seconds.shape == (2, 2) and (seconds >= 0).all(axis=None)
    assert results == {"a": ["a0", "a1", "a2"], "b": ["b0", "b1", "b2"]}


PYTHON = """#!/usr/bin/env bash
case "$*" in
    *--growth*) echo "out of memory"; exit 3 ;;
    *) echo "=> $2: 1.00 x" ;;
esac
"""


def test_a_failed_part_of_gpu_sh_stops_no_other_and_its_output_is_shown(tmp_path):
    for name, text in (("python", PYTHON), ("nvidia-smi", "#!/bin/sh\necho a GPU\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
    words = ["bash", PROJECT / "benchmarks/gpu.sh", "8", "2"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    table, _, failures = done.stdout.partition("| figure |")[2].partition("FAILED")
    assert done.returncode == 1 and "growth" in failures and "out of memory" in failures
    assert table.count("| benchmarks.training | 1.00 x |") == 2 and "| benchmarks.search | 1.00 x |" in table


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_the_figures_of_the_docs_are_drawn(tmp_path):
    drawing = {"cities": ("Chicago",), "panoramas": 4, "panorama_width": 256}
    root = writer.make(tmp_path / "mini", workers=1, progress=False, **drawing)
    call("docs.draw", f"--dataset_root {root} --districts 1 --output_dir {tmp_path}")
    for name in ("conventions.png", "masks.png"):
        assert cv2.imread(str(tmp_path / name)).std() > 20
    assert cv2.imread(str(tmp_path / "worlds.jpg")).shape == (2 * 256, 2 * 3 * 256, 3)
