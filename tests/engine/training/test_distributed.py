"""Two processes do what one does: gradients, weights, validation, saving, stopping, dying."""

import copy
import os
import signal
import time

import numpy as np
import pytest
import torch
from children import PROJECT, SMALL, run_group, script, start
from torch.distributed import run as elastic

from common.view import View
from dataset.augment import augment
from dataset.loader import evaluation_loader, training_loader
from dataset.protocol import Protocol, Source, open_data
from engine import distributed
from engine.inference.predictor import Predictor, make_inputs
from engine.training import trainer
from engine.training.optimisation import BatchNormWarmUp, Precision
from engine.training.state import TrainingState
from engine.training.step import train_step
from loss.criterion import Criterion
from model.build import build_model
from model.checkpoint import read_checkpoint
from model.settings import NETWORKS, network_settings

CPU = torch.device("cpu")
VIEW = View(satellite_size=64, panorama_size=(64, 128))
STEPS = 10


def work_together(root, network, path):
    """What one of the processes does; the first writes down what came of it."""
    with distributed.processes(torch.device("cpu")) as device:
        parts = compare_gradients, compare_validation, compare_weights
        found = {name: value for part in parts for name, value in part(root, network, device).items()}
        if distributed.rank() == 0:
            torch.save(found, path)


def make_network(**settings):
    torch.manual_seed(distributed.rank())  # the first process's weights have to reach the others
    return build_model(network_settings(VIEW, {"backbone": "thin", "d_model": 16, "num_heads": 2}, settings))


def open_lists(root, split):
    return open_data(Source(dataset_root=root), Protocol(split=split), VIEW, True, training=split == "train")


def losses_of(model, batch, mode):
    batch = augment(batch, mode, VIEW)
    return Criterion("infonce", 0.1)(model(make_inputs(batch, VIEW)), batch)


def gradients(model, network, batch):
    network.zero_grad(set_to_none=True)
    losses_of(model, batch, "none")["loss"].backward()
    return {name: parameter.grad.clone() for name, parameter in network.named_parameters()}


def compare_gradients(root, network, device):
    dataset = open_lists(root, "train")
    mine = next(iter(training_loader(dataset, 2, 0, 0, part=(distributed.rank(), 2))[0]))
    joint = next(iter(training_loader(dataset, 4, 0, 0)[0]))
    network = make_network(network=network).eval()
    apart = gradients(distributed.data_parallel(network, device), network, mine)
    together = gradients(network, network, joint)
    difference = max(float((apart[name] - together[name]).abs().max()) for name in apart)
    largest = max(float(gradient.abs().max()) for gradient in together.values())
    indices = [set(part) for part in distributed.gather(mine["index"].tolist())]
    joint = set(joint["index"].tolist())
    return {"difference": difference, "largest": largest, "indices": indices, "joint": joint}


def compare_validation(root, network, device):
    dataset = open_lists(root, "test")
    dataset.pairs = dataset.pairs[:9]  # five batches, the last of one pair
    network = make_network(network=network).eval()
    for parameter in network.parameters():
        torch.distributed.broadcast(parameter.data, 0)
    predictor = Predictor(network, VIEW, device)
    part = predictor.table(evaluation_loader(dataset, 2, 0, part=(distributed.rank(), 2)))
    table = distributed.gather_table(part)
    whole = predictor.table(evaluation_loader(dataset, 2, 0))
    return {"table": to_tensors(table), "whole": to_tensors(whole)}


def to_tensors(table):
    return {name: torch.from_numpy(column) for name, column in table.items() if name != "seconds"}


def compare_weights(root, network, device):
    dataset = open_lists(root, "train")
    dataset.pairs = np.concatenate([dataset.pairs] * 3)
    loader, _ = training_loader(dataset, 2, 0, 0, part=(distributed.rank(), 2))
    network = make_network(network=network, mixstyle_p=0.9)
    model = distributed.data_parallel(network, device)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, fused=True)
    state = TrainingState(network, model, optimizer, Precision("off", CPU), warm_up=BatchNormWarmUp(network))
    before = copy.deepcopy(network.state_dict())
    for step, batch in zip(range(STEPS), loader, strict=False):
        values, pairs, _ = train_step(state, [batch], lambda b: losses_of(model, b, "full"), 0, step, 1e-3)
        state.progress.count(values, pairs, 0.0)
    distributed.broadcast_buffers(network)
    states = distributed.gather(network.state_dict())
    moved = [name for name, value in before.items() if not torch.equal(value, states[0][name])]
    return {
        "unequal": [name for name in before if not torch.equal(states[0][name], states[1][name])],
        "share_moved": len(moved) / len(before),
    }


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=NETWORKS)
def found(request, vigor_root, tmp_path_factory):
    """What two processes have found in comparing themselves with one."""
    folder = tmp_path_factory.mktemp("group")
    run_group(folder / "out", 2, work_together, str(vigor_root), request.param, folder / "found.pt")
    return torch.load(folder / "found.pt", weights_only=True)


def test_gradients_equal_those_of_the_joint_batch(found):
    first, second = found["indices"]
    assert first | second == found["joint"] and not first & second
    assert found["largest"] > 1e-2
    assert found["difference"] < 1e-5


def test_validation_equals_that_of_one_process(found):
    assert found["table"]["index"].tolist() == list(range(9))
    assert found["table"].keys() == found["whole"].keys()
    for name, column in found["whole"].items():
        assert torch.equal(found["table"][name], column), name


def test_weights_stay_equal(found):
    assert found["unequal"] == [] and found["share_moved"] > 0.95


def stop_the_second_process():
    """SIGTERM to the second process alone, in its second step."""
    calls = []

    def stop_and_train(*arguments):
        calls.append(None)
        if distributed.rank() == 1 and len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(*arguments)

    trainer.train_step = stop_and_train


def test_a_run_of_two_processes(vigor_root, tmp_path):
    """Both stop where one of them is asked to; only the first writes and speaks; the run goes on with two alone."""
    line = f"{SMALL} --dataset_root {vigor_root} --runs_root {tmp_path / 'runs'} --epochs 1 --max_steps 3"
    said = run_group(tmp_path / "out", 2, script, "train_VIGOR", line, stop_the_second_process)
    (folder,) = (tmp_path / "runs").iterdir()
    assert said.count("global batch 4 = 2 pairs x 2 process(es) x 1 accumulated") == 1
    assert f"continue with: torchrun --nproc_per_node 2 train_VIGOR.py --resume {folder}" in said
    saved = read_checkpoint(folder / "latest.pt")
    assert saved["progress"]["step"] == 2 and saved["processes"] == 2
    said = run_group(tmp_path / "out", 2, script, "train_VIGOR", f"--resume {folder}")
    assert said.count("resumed at epoch 1, step 2") == 1 and said.count("epoch 1, learning_rate") == 1
    assert len(list(folder.glob("events.out.tfevents.*"))) == 2  # one each time
    row = read_checkpoint(folder / "latest.pt")["progress"]["log"][0]
    assert row["pairs_per_second"] > 0 and row["val_mean_m"] > 0


BROKEN = """
import os, sys
sys.path.insert(0, {project!r})
import train_VIGOR
from common import flags
from engine.training import trainer
train_step, calls = trainer.train_step, []
def break_down(*arguments):
    calls.append(None)
    if os.environ["RANK"] == "1" and len(calls) == 2:
        raise ValueError("the second process breaks down")
    return train_step(*arguments)
trainer.train_step = break_down
flags.run_script(train_VIGOR.main, train_VIGOR.build_parser())
"""


def test_a_process_that_dies_ends_the_others(vigor_root, tmp_path):
    script = tmp_path / "train_broken.py"
    script.write_text(BROKEN.format(project=str(PROJECT)))
    words = f"{SMALL} --dataset_root {vigor_root} --runs_root {tmp_path / 'runs'} --epochs 100".split()
    begun = time.monotonic()
    torchrun = start(tmp_path / "out", elastic.main, ["--standalone", "--nproc_per_node", "2", str(script), *words])
    torchrun.join(170)
    said = (tmp_path / "out").read_text()
    assert torchrun.exitcode not in (0, None), said
    assert "ValueError: the second process breaks down" in said
    cause = said[said.index("Root Cause") :]
    assert "rank      : 1" in cause and "exitcode  : 1" in cause
    assert time.monotonic() - begun < 120  # a minute, and another to start
