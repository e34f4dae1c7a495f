"""The speed benchmark, its script for GPUs and the figures of docs/: each runs, shrunk."""

import os
import subprocess

import cv2
import pytest
from children import PROJECT, call

from dataset.mini_vigor import writer


@pytest.mark.slow
def test_the_speed_of_a_network_and_of_a_search(seattle, capsys):
    sizes = "--networks light --sizes 64 --headings 4 --batch_size 2 --num_workers 0 --repetitions 1"
    call("benchmarks.speed", f"--dataset_root {seattle} {sizes}")
    said = capsys.readouterr().out
    for figure in ("light at 64 px, inference", "light at 64 px, training", "pretrained_any_heading, scan"):
        assert f"=> {figure}" in said


COMMANDS = {
    "nvidia-smi": "#!/bin/sh\necho a GPU\n",
    "python": '#!/bin/sh\ncase "$*" in *--compile*) echo out of memory; exit 3;; esac; echo "=> $2: 1 x"\n',
}


def test_a_failed_part_of_gpu_sh_stops_no_other_and_its_output_is_shown(tmp_path):
    for name, text in COMMANDS.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
    words = ["bash", PROJECT / "benchmarks/gpu.sh", "8", "2"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    table, _, failures = done.stdout.partition("| figure |")[2].partition("FAILED")
    assert done.returncode == 1 and "compiled" in failures and "out of memory" in failures
    assert table.count("| benchmarks.speed | 1 x |") == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_the_figures_of_the_docs_are_drawn(tmp_path):
    small = {"cities": ("Chicago",), "panoramas": 8, "panorama_width": 256, "workers": 1, "progress": False}
    root = writer.make(tmp_path / "mini", **small)
    call("docs.draw", f"--dataset_root {root} --districts 1 --output_dir {tmp_path}")
    for name in ("conventions.png", "masks.png"):
        assert cv2.imread(str(tmp_path / name)).std() > 20
    assert cv2.imread(str(tmp_path / "worlds.jpg")).shape == (2 * 256, 2 * 3 * 256, 3)
