"""Nothing is lost and nothing changes: resuming, killed processes, full disks, a broken loss, refusals."""

import errno
import os
import pickle
import random
import signal
import time
from functools import cache

import pytest
import torch
from children import (
    SMALL,
    differences,
    files_end_at,
    refusal,
    run_folder,
    run_script,
    start,
    start_script,
    wait_for,
)

from common.errors import UserError
from common.files import locked, remove_leftovers
from engine.training import trainer
from engine.training.optimisation import Precision, cosine_learning_rate
from engine.training.state import TrainingState
from engine.training.step import train_step
from loss.heatmap import LOSSES
from model.checkpoint import FORMAT, read_checkpoint, save_checkpoint

pytestmark = pytest.mark.slow

# Everything that draws at random is on: loader workers (of one network), augmentation, MixStyle, dropout,
# stochastic depth.
EXACT = "--mixstyle_p 0.9 --epochs 2 --max_steps 2 --ema 0.9 --accumulate 2"
WORKERS = {"light": " --num_workers 2"}


def train(folder, root, flags, patch=None, status=0):
    """(run folder, output) of a training that leaves its files in `folder`."""
    line = f"{SMALL} --dataset_root {root} --runs_root {folder / 'runs'} {flags}"
    said = run_script(folder / "out", "train_VIGOR", line, patch, status)
    return run_folder(folder / "runs"), said


@pytest.fixture(scope="module")
def undisturbed(vigor_root, tmp_path_factory):
    """A function that gives the folder of a network's run of two epochs, which nothing has disturbed."""

    @cache
    def folder_of(network):
        flags = f"{EXACT} --network {network}{WORKERS.get(network, '')}"
        return train(tmp_path_factory.mktemp(network), vigor_root, flags)[0]

    return folder_of


def die_in_the_middle_of_an_epoch():
    """SIGKILL right after the first save."""

    def save_and_die(path, content):
        save_checkpoint(path, content)
        os.kill(os.getpid(), signal.SIGKILL)

    trainer.save_checkpoint = save_and_die


def die_in_validation():
    """SIGKILL between the last step of an epoch and the end of its validation."""
    trainer.Trainer.validate = lambda *_: os.kill(os.getpid(), signal.SIGKILL)


def die_after_two_steps():
    """SIGKILL when what the second step has learned is saved."""

    def save_and_die(path, content):
        save_checkpoint(path, content)
        if path.name == "latest.pt" and content["progress"]["step"] == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    trainer.save_checkpoint = save_and_die


def epoch_and_step(path):
    progress = torch.load(path, weights_only=True)["progress"]
    return progress["epoch"], progress["step"]


@pytest.mark.parametrize("network", ["published", "light"])
def test_a_run_that_is_killed_twice_ends_like_one_that_is_not(network, undisturbed, vigor_root, tmp_path):
    flags, killed = f"{EXACT} --network {network} --save_every 1{WORKERS.get(network, '')}", -signal.SIGKILL
    folder, _ = train(tmp_path, vigor_root, flags, die_in_the_middle_of_an_epoch, killed)
    leftover = folder / ".latest.pt.123.tmp"  # as a process leaves that is killed while it saves
    leftover.write_bytes(b"half")
    assert epoch_and_step(folder / "latest.pt") == (0, 1)
    run_script(tmp_path / "out", "train_VIGOR", f"--resume {folder}", die_in_validation, killed)
    assert epoch_and_step(folder / "latest.pt") == (0, 2)
    said = run_script(tmp_path / "out", "train_VIGOR", f"--resume {folder / 'latest.pt'}")
    assert "resumed at epoch 1, step 2" in said and "evaluate with: python eval_VIGOR.py" in said
    assert run_folder(tmp_path / "runs") == folder and not leftover.exists()
    for name in ("latest.pt", "best.pt"):
        assert differences(folder / name, undisturbed(network) / name) == []
    assert "optimizer" not in read_checkpoint(folder / "best.pt")
    assert len((folder / "training_log.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("labels", ("none", "corrected --label_tolerance 5 --heading_tolerance 20"))
def test_an_adaptation_that_is_killed_ends_like_one_that_is_not(labels, undisturbed, vigor_root, tmp_path):
    """It says whether anything was checked; its start is measured, and kept where nothing is better."""
    line = (
        f"--num_workers 0 --batch_size 2 --epochs 1 --max_steps 3 --save_every 1 --dataset_root {vigor_root}"
    )
    line += f" --init {undisturbed('light') / 'best.pt'} --adapt --val_every 1 --labels {labels}"
    runs = {name: f"{line} --runs_root {tmp_path / name}" for name in ("whole", "killed")}
    said = run_script(tmp_path / "out", "train_VIGOR", runs["whole"])
    assert said.count("before: val_") == 1
    assert ("it is unknown whether" in said) == (labels == "none") == ("val_mean_m" not in said)
    run_script(tmp_path / "out", "train_VIGOR", runs["killed"], die_after_two_steps, -signal.SIGKILL)
    folder = run_folder(tmp_path / "killed")
    run_script(tmp_path / "out", "train_VIGOR", f"--resume {folder}")
    for name in ("latest.pt", "best.pt"):
        assert differences(folder / name, run_folder(tmp_path / "whole") / name) == []
    (row,) = read_checkpoint(folder / "latest.pt")["progress"]["log"]
    assert row["distill_loss"] >= 0 and 0 <= row["distilled"] <= 1
    assert ("location_loss" in row) == (labels != "none")
    start, best = (
        torch.load(path / "best.pt", weights_only=True)["model"] for path in (undisturbed("light"), folder)
    )
    gained = row["val_disagreement" if labels == "none" else "val_mean_px"] < float(
        said.split("before: ")[1].split()[1].rstrip(",")
    )
    assert gained or all(torch.equal(start[name], best[name]) for name in start)


@pytest.mark.parametrize(
    ("words", "flag"),
    (
        ("--labels none", "--labels none"),
        ("--adapt", "--adapt"),
        ("--network light --distill 1 --ema 0", "--distill 1"),
        ("--network published --distill 1 --ema 0.9", "--distill 1"),
        ("--network published --heading_tolerance 5", "--heading_tolerance 5"),
    ),
)
def test_what_a_teacher_needs(words, flag, vigor_root, tmp_path, capsys):
    line = f"{SMALL} --dataset_root {vigor_root} --runs_root {tmp_path / 'runs'} {words}"
    assert flag in refusal("train_VIGOR", line, capsys)
    assert not (tmp_path / "runs").exists()


def test_signals(vigor_root, tmp_path):
    """kill -9 leaves what can be resumed; SIGTERM and Ctrl-C finish the step and print how to continue.

    They reach the loader's workers too, as a job manager's and a terminal's do.
    """
    runs, out = tmp_path / "runs", tmp_path / "out"
    line = f"{SMALL} --network light --dataset_root {vigor_root} --runs_root {runs} --num_workers 1"
    line += " --epochs 500 --save_every 1 --val_every 500"
    for number, status in ((signal.SIGKILL, -9), (signal.SIGTERM, 0), (signal.SIGINT, 130)):
        process, begun = start_script(out, "train_VIGOR", line), time.time_ns()
        wait_for(lambda t=begun: any(p.stat().st_mtime_ns > t for p in runs.glob("*/latest.pt")), process)
        time.sleep(random.uniform(0, 0.5))
        workers = open(f"/proc/{process.pid}/task/{process.pid}/children").read().split()
        for pid in [process.pid, *map(int, workers)]:
            os.kill(pid, number)
        process.join(30)
        folder, said = run_folder(runs), out.read_text()
        assert process.exitcode == status, said
        continued = f"continue with: python train_VIGOR.py --resume {folder}" in said
        assert continued == (status >= 0) and "Traceback" not in said
        assert epoch_and_step(folder / "latest.pt") > (0, 0)
        line = f"--resume {folder}"


def fill_the_disk():
    """From the second save on, there is no room."""
    save, saves = torch.save, []

    def save_to_a_small_disk(content, file):
        saves.append(file)
        if len(saves) > 1:
            file.write(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(content, file)

    torch.save = save_to_a_small_disk


def test_a_full_disk_keeps_the_older_checkpoint(vigor_root, tmp_path):
    flags = "--epochs 1 --max_steps 2 --save_every 1"
    folder, said = train(tmp_path, vigor_root, flags, fill_the_disk, status=2)
    for name in ("latest.pt", "best.pt"):
        assert f"{folder / name} cannot be saved: No space left on device; " in said
    assert f"make room, then continue with: python train_VIGOR.py --resume {folder}" in said
    assert epoch_and_step(folder / "latest.pt") == (0, 1)
    assert not list(folder.glob(".*.tmp")) and not (folder / "best.pt").exists()


def test_a_failed_save_shows_its_own_error(tmp_path):
    """torch's archive writer fails a second time while it cleans up; the first failure is raised."""
    path = tmp_path / "latest.pt"
    save_checkpoint(path, {"value": torch.ones(3)})
    with files_end_at(8000), pytest.raises(UserError, match="File too large"):
        save_checkpoint(path, {"value": torch.zeros(100_000)})
    assert torch.equal(torch.load(path, weights_only=True)["value"], torch.ones(3))


def break_the_loss():
    """The third batch has no loss."""
    whole, calls = LOSSES["infonce"], []

    def broken(*arguments):
        calls.append(None)
        return whole(*arguments) * (float("nan") if len(calls) == 3 else 1.0)

    LOSSES["infonce"] = broken


def test_a_loss_that_is_no_number(vigor_root, tmp_path):
    folder, said = train(tmp_path, vigor_root, "--epochs 3 --max_steps 2", break_the_loss, status=2)
    assert "error: epoch 2, step 0: loss nan" in said and "non_finite_loss.txt" in said
    assert f"--init {folder / 'best.pt'}" in said
    lines = (folder / "non_finite_loss.txt").read_text().splitlines()
    assert lines[:2] == ["epoch: 2", "step: 0"] and lines[2].startswith("learning_rate: ")
    samples = lines[lines.index("samples:") + 1 :]
    assert len(samples) == 2 and all((vigor_root / name.strip()).is_file() for name in samples)
    for name in ("best.pt", "latest.pt"):  # of the epoch before
        assert all(torch.isfinite(value).all() for value in read_checkpoint(folder / name)["model"].values())
    assert epoch_and_step(folder / "latest.pt") == (1, 0)


def test_what_cannot_be_resumed(undisturbed, capsys):
    folder = undisturbed("published")
    before = (folder / "latest.pt").read_bytes()
    error = refusal("train_VIGOR", f"--resume {folder} --learning_rate 1 --epochs 3", capsys)
    assert "--learning_rate 1.0 differs from the run's 8e-05" in error
    with locked(folder, "is training in"):
        error = refusal("train_VIGOR", f"--resume {folder} --epochs 3", capsys)
    assert f"{folder}: process {os.getpid()} on " in error and "is training in this folder" in error
    assert (folder / "latest.pt").read_bytes() == before


def test_fine_tuning_takes_weights_and_settings_over(undisturbed, vigor_root, tmp_path, capsys):
    best = undisturbed("published") / "best.pt"
    line = f"--init {best} --dataset_root {vigor_root} --runs_root {tmp_path / 'runs'} --num_workers 0"
    line += " --learning_rate 1e-30 --weight_decay 0 --batch_size 2 --epochs 1 --max_steps 1"
    run_script(tmp_path / "out", "train_VIGOR", line)
    tuned, initial = read_checkpoint(run_folder(tmp_path / "runs") / "best.pt"), read_checkpoint(best)
    assert tuned["settings"] == initial["settings"] and tuned["settings"]["d_model"] == 16
    for name, value in initial["model"].items():
        assert not name.endswith("weight") or torch.allclose(tuned["model"][name], value, atol=1e-5)
    error = refusal("train_VIGOR", f"{line} --d_model 24", capsys)
    assert f"{best} does not fit" in error and "misshapen" in error


class Code:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize(
    "save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, 2))]
)
@pytest.mark.parametrize("flag", ["--resume", "--init"])
def test_a_checkpoint_with_code_inside_is_refused(flag, save, vigor_root, tmp_path, capsys):
    path = tmp_path / "latest.pt"
    save({"format": FORMAT, "model": {}, "progress": Code(str(tmp_path / "code"))}, path)
    line = f"{flag} {path} --dataset_root {vigor_root} --runs_root {tmp_path / 'runs'}"
    error = refusal("train_VIGOR", line, capsys)
    assert f"{path}: " in error and "with code inside" in error
    assert [path.name for path in tmp_path.iterdir()] == ["latest.pt"]  # no run, and nothing was executed


STEPS = 100


def train_small(path, every_step=True):
    """A small network, trained by real steps and saved by the real code after its steps, or its epochs."""
    torch.manual_seed(0)
    layers = torch.nn.Linear(8, 64), torch.nn.BatchNorm1d(64), torch.nn.Dropout(0.5), torch.nn.Linear(64, 1)
    network = torch.nn.Sequential(*layers)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, fused=True)
    state = TrainingState(network, network, optimizer, Precision("off", torch.device("cpu")))
    if path.exists():
        state.restore(torch.load(path, weights_only=True))
    remove_leftovers(path.parent)

    def losses(batch):
        return {"loss": state.model(torch.randn(16, 8)).square().mean()}

    progress = state.progress
    while progress.epoch < 2:
        state.model.train()
        while progress.step < STEPS:
            step = progress.epoch * STEPS + progress.step
            rate = cosine_learning_rate(step, 2 * STEPS, 1e-3)
            values, pairs, _ = train_step(state, [{"index": torch.arange(16)}], losses, 0, step, rate)
            progress.count(values, pairs, 0.0)
            if every_step:
                save_checkpoint(path, state.state())
        progress.start_epoch({"epoch": progress.epoch})
        save_checkpoint(path, state.state())


def test_kills_at_random_moments(tmp_path):
    path, reference = tmp_path / "latest.pt", tmp_path / "whole.pt"
    rng, done = random.Random(0), (0, 0)
    for _ in range(4):
        process, begun = start(tmp_path / "out", train_small, path), time.time_ns()
        wait_for(lambda t=begun: path.exists() and path.stat().st_mtime_ns > t, process)
        time.sleep(rng.uniform(0, 0.02))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "the run was over before it was killed"
        assert epoch_and_step(path) > done
        done = epoch_and_step(path)
    for file, every_step in ((path, True), (reference, False)):
        process = start(tmp_path / "out", train_small, file, every_step)
        process.join(60)
        assert process.exitcode == 0, (tmp_path / "out").read_text()
    assert differences(path, reference) == []
