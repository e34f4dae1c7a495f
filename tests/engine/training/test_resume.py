"""Nothing is lost and nothing changes: resuming, being killed, full disks, files that are not to be trusted."""

import errno
import os
import pickle
import random
import signal
import time

import pytest
import torch
from children import SMALL, differences, refusal, run_folder, run_script, start, start_script, wait_for

from common.errors import UserError
from common.files import locked, remove_leftovers
from engine.training import trainer
from engine.training.optimisation import Precision, cosine_learning_rate
from engine.training.state import TrainingState
from engine.training.step import train_step
from loss.heatmap import LOSSES
from model import checkpoint
from model.checkpoint import read_checkpoint, save_checkpoint
from model.settings import NETWORKS

# Everything that draws at random is on: loader workers, augmentation, MixStyle, dropout and stochastic depth.
EXACT = f"{SMALL} --num_workers 2 --mixstyle_p 0.9 --epochs 2 --max_steps 2 --ema 0.9 --accumulate 2"


def die_in_the_middle_of_an_epoch():
    """SIGKILL right after the first save."""

    def save_and_die(path, content):
        save_checkpoint(path, content)
        os.kill(os.getpid(), signal.SIGKILL)

    trainer.save_checkpoint = save_and_die


def die_in_validation():
    """SIGKILL between the last step of an epoch and the end of its validation."""

    trainer.Trainer.validate = lambda *_: os.kill(os.getpid(), signal.SIGKILL)


def train_undisturbed(folder, root, network):
    places = f"--dataset_root {root} --runs_root {folder / 'runs'}"
    run_script(folder / "out", "train_VIGOR", f"{EXACT} --network {network} {places}")
    return run_folder(folder / "runs")


@pytest.fixture(scope="module")
def uninterrupted(vigor_root, tmp_path_factory):
    """The folder of a run of two epochs of the published network that nothing has disturbed."""
    return train_undisturbed(tmp_path_factory.mktemp("uninterrupted"), vigor_root, "published")


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_a_run_that_is_killed_twice_ends_like_one_that_is_not(network, uninterrupted, vigor_root, tmp_path):
    if network != "published":
        (tmp_path / "whole").mkdir()
        uninterrupted = train_undisturbed(tmp_path / "whole", vigor_root, network)
    runs, out = tmp_path / "runs", tmp_path / "out"
    line = f"{EXACT} --network {network} --dataset_root {vigor_root} --runs_root {runs} --save_every 1"
    run_script(out, "train_VIGOR", line, die_in_the_middle_of_an_epoch, status=-signal.SIGKILL)
    folder = run_folder(runs)
    leftover = folder / ".latest.pt.123.tmp"  # as a process leaves that is killed while it saves
    leftover.write_bytes(b"half")
    progress = read_checkpoint(folder / "latest.pt")["progress"]
    assert (progress["epoch"], progress["step"]) == (0, 1)
    run_script(out, "train_VIGOR", f"--resume {folder}", die_in_validation, status=-signal.SIGKILL)
    progress = read_checkpoint(folder / "latest.pt")["progress"]
    assert (progress["epoch"], progress["step"]) == (0, 2)
    said = run_script(out, "train_VIGOR", f"--resume {folder / 'latest.pt'}")
    assert "resumed at epoch 1, step 2" in said and "evaluate with: python eval_VIGOR.py" in said
    assert run_folder(runs) == folder and not leftover.exists()
    for name in ("latest.pt", "best.pt"):
        assert differences(folder / name, uninterrupted / name) == []
    assert "optimizer" not in read_checkpoint(folder / "best.pt")
    assert len((folder / "training_log.csv").read_text().splitlines()) == 3


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_signals(network, vigor_root, tmp_path):
    """kill -9, which leaves what can be resumed; then SIGTERM and Ctrl-C, which finish the step and say how to go on.

    They reach the loader's workers too, as a job manager's and a terminal's do.
    """
    runs, out = tmp_path / "runs", tmp_path / "out"
    line = f"{SMALL} --network {network} --dataset_root {vigor_root} --runs_root {runs} --num_workers 1 --epochs 500"
    line += " --save_every 1 --val_every 500"
    for number, status in ((signal.SIGKILL, -9), (signal.SIGKILL, -9), (signal.SIGTERM, 0), (signal.SIGINT, 130)):
        process = start_script(out, "train_VIGOR", line)
        before = list(runs.glob("*/latest.pt"))
        saved = before[0].stat().st_mtime_ns if before else 0
        wait_for(lambda s=saved: any(path.stat().st_mtime_ns > s for path in runs.glob("*/latest.pt")), process)
        time.sleep(random.uniform(0, 0.5))
        workers = open(f"/proc/{process.pid}/task/{process.pid}/children").read().split()
        for pid in [process.pid, *map(int, workers)]:
            os.kill(pid, number)
        process.join(30)
        folder, said = run_folder(runs), out.read_text()
        assert process.exitcode == status, said
        if status >= 0:
            assert f"continue with: python train_VIGOR.py --resume {folder}" in said and "Traceback" not in said
        progress = read_checkpoint(folder / "latest.pt")["progress"]
        assert (progress["epoch"], progress["step"]) > (0, 0)
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
    line = f"{SMALL} --dataset_root {vigor_root} --runs_root {tmp_path / 'runs'} --epochs 1 --max_steps 2 --save_every 1"
    said = run_script(tmp_path / "out", "train_VIGOR", line, fill_the_disk, status=2)
    folder = run_folder(tmp_path / "runs")
    assert f"{folder / 'latest.pt'} cannot be saved: No space left on device; the older one is kept" in said
    assert f"{folder / 'best.pt'} cannot be saved: No space left on device; there is no older one" in said
    assert f"the end of this run is not saved; make room, then: python train_VIGOR.py --resume {folder}" in said
    assert read_checkpoint(folder / "latest.pt")["progress"]["step"] == 1
    assert not list(folder.glob(".*.tmp"))


def test_a_full_disk_shows_its_own_error(tmp_path, monkeypatch):
    """torch's archive writer fails a second time while it cleans up; the first failure is the one to tell."""
    path = tmp_path / "latest.pt"
    save_checkpoint(path, {"value": torch.ones(3)})
    monkeypatch.setattr(checkpoint, "open", lambda *_: open("/dev/full", "wb", buffering=0), raising=False)
    with pytest.raises(OSError, match="No space left") as failure:
        save_checkpoint(path, {"value": torch.zeros(100_000)})
    assert failure.value.errno == errno.ENOSPC
    assert torch.equal(torch.load(path, weights_only=True)["value"], torch.ones(3))


def break_the_loss():
    """The third batch has no loss."""
    whole, calls = LOSSES["infonce"], []

    def broken(*arguments):
        calls.append(None)
        return whole(*arguments) * (float("nan") if len(calls) == 3 else 1.0)

    LOSSES["infonce"] = broken


def test_a_loss_that_is_no_number(vigor_root, tmp_path):
    line = f"{SMALL} --dataset_root {vigor_root} --runs_root {tmp_path / 'runs'} --epochs 3 --max_steps 2"
    said = run_script(tmp_path / "out", "train_VIGOR", line, break_the_loss, status=2)
    folder = run_folder(tmp_path / "runs")
    assert "error: epoch 2, step 0: loss nan" in said and "non_finite_loss.txt names the samples" in said
    assert f"Try a lower --learning_rate and --init {folder / 'best.pt'}" in said
    lines = (folder / "non_finite_loss.txt").read_text().splitlines()
    assert lines[:2] == ["epoch: 2", "step: 0"] and lines[2].startswith("learning_rate: ")
    samples = lines[lines.index("samples:") + 1 :]
    assert len(samples) == 2 and all((vigor_root / name.strip()).is_file() for name in samples)
    for name in ("best.pt", "latest.pt"):  # of the epoch before
        assert all(torch.isfinite(value).all() for value in read_checkpoint(folder / name)["model"].values())
    assert read_checkpoint(folder / "latest.pt")["progress"]["epoch"] == 1


def test_settings_that_differ_are_refused_by_name(uninterrupted, tmp_path):
    said = run_script(tmp_path / "out", "train_VIGOR", f"--resume {uninterrupted} --learning_rate 1 --epochs 3", status=2)
    assert "--learning_rate 1.0 differs from the run's 8e-05; leave it out, or start a new run without --resume" in said


def test_fine_tuning_takes_weights_and_settings_over(uninterrupted, vigor_root, tmp_path):
    line = f"--init {uninterrupted / 'best.pt'} --dataset_root {vigor_root} --runs_root {tmp_path / 'runs'}"
    more = "--learning_rate 1e-30 --weight_decay 0 --batch_size 2 --epochs 1 --max_steps 1 --num_workers 0"
    run_script(tmp_path / "out", "train_VIGOR", f"{line} {more}")
    mine = read_checkpoint(run_folder(tmp_path / "runs") / "best.pt")
    its = read_checkpoint(uninterrupted / "best.pt")
    assert mine["settings"] == its["settings"] and mine["settings"]["d_model"] == 16
    weights = [name for name in its["model"] if name.endswith("weight")]
    assert all(torch.allclose(mine["model"][name], its["model"][name], atol=1e-5) for name in weights)
    said = run_script(tmp_path / "out", "train_VIGOR", f"{line} {more} --d_model 24", status=2)
    assert "best.pt does not fit the network that the flags describe" in said and "misshapen" in said


def test_a_run_that_still_trains_is_not_resumed_a_second_time(uninterrupted):
    before = (uninterrupted / "latest.pt").read_bytes()
    with locked(uninterrupted, "is training in"):
        process = start_script(uninterrupted.parent / "second", "train_VIGOR", f"--resume {uninterrupted} --epochs 3")
        process.join(120)
    said = (uninterrupted.parent / "second").read_text()
    assert process.exitcode == 2 and f"{uninterrupted}: process {os.getpid()} on " in said
    assert "is training in this folder; wait for it, or stop it first" in said and said.count("\n") == 1
    assert (uninterrupted / "latest.pt").read_bytes() == before


class Code:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("flag", ["--resume", "--init"])
def test_a_checkpoint_with_code_in_it_is_refused(flag, vigor_root, tmp_path, capsys):
    path = tmp_path / "latest.pt"
    content = {"format": "cvm-vigor", "model": {}, "settings": {}, "progress": Code(tmp_path / "ran")}
    torch.save(content, path)
    places = f"--dataset_root {vigor_root} --runs_root {tmp_path / 'runs'}"
    said = refusal("train_VIGOR", f"{flag} {path} {places}", capsys)
    assert f"{path}: no readable checkpoint (cut off, not from torch.save, or with code inside)" in said
    assert not (tmp_path / "ran").exists() and not (tmp_path / "runs").exists()
    path.write_bytes(pickle.dumps(Code(tmp_path / "ran"), protocol=2))
    with pytest.raises(UserError, match="with code inside"):
        read_checkpoint(path)
    assert not (tmp_path / "ran").exists()


STEPS = 200


def small_state():
    torch.manual_seed(0)
    layers = torch.nn.Linear(8, 64), torch.nn.BatchNorm1d(64), torch.nn.Dropout(0.5), torch.nn.Linear(64, 1)
    network = torch.nn.Sequential(*layers)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, fused=True)
    return TrainingState(network, network, optimizer, Precision("off", torch.device("cpu")))


def train_small(path, every_step=True):
    """A small network, trained by real steps and saved by the real code after each of its steps, or of its epochs."""
    state = small_state()
    if path.exists():
        state.restore(torch.load(path, weights_only=True))
    if path.parent.exists():
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


@pytest.mark.slow
def test_twenty_kills_at_random_moments(tmp_path):
    path, reference = tmp_path / "latest.pt", tmp_path / "whole" / "latest.pt"
    reference.parent.mkdir()
    undisturbed = start(tmp_path / "out", train_small, reference, False)
    undisturbed.join(60)
    assert undisturbed.exitcode == 0, (tmp_path / "out").read_text()
    rng, done = random.Random(0), 0
    for _ in range(20):
        process = start(tmp_path / "out", train_small, path)
        written = path.stat().st_mtime_ns if path.exists() else 0
        wait_for(lambda w=written: path.exists() and path.stat().st_mtime_ns > w, process)
        time.sleep(rng.uniform(0, 0.02))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "the run was over before it was killed"
        progress = torch.load(path, weights_only=True)["progress"]
        assert progress["epoch"] * STEPS + progress["step"] > done
        done = progress["epoch"] * STEPS + progress["step"]
    process = start(tmp_path / "out", train_small, path)
    process.join(60)
    assert process.exitcode == 0, (tmp_path / "out").read_text()
    assert differences(path, reference) == []
