"""Two processes do what one does: gradients, weights, validation, saving, stopping, dying."""

import copy
import os
import signal

import numpy as np
import pytest
import torch
from children import SMALL, SMALL_VIEW, run_folder, run_group, script, start
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from dataset.augment import augment
from dataset.loader import evaluation_loader, training_loader
from dataset.protocol import Protocol, Source, open_data
from engine import distributed
from engine.inference.predictor import Predictor, make_inputs
from engine.training import trainer
from engine.training.optimisation import BatchNormWarmUp, Precision
from engine.training.state import TrainingState
from engine.training.step import train_step
from engine.training.teacher import Teacher
from loss.criterion import Criterion
from model.build import build_model
from model.checkpoint import read_checkpoint
from model.settings import network_settings

pytestmark = pytest.mark.slow
STEPS = 5


def work_together(root, network, path):
    """What one of the processes does; the first saves the results."""
    with distributed.processes(torch.device("cpu")) as device:
        parts = compare_gradients, compare_validation, compare_weights
        results = {name: value for part in parts for name, value in part(root, network, device).items()}
        if distributed.rank() == 0:
            torch.save(results, path)


def make_network(network, **settings):
    torch.manual_seed(distributed.rank())  # the first process's weights have to reach the others
    small = {"backbone": "thin", "d_model": 16, "num_heads": 2, "network": network}
    return build_model(network_settings(SMALL_VIEW, small, settings))


def open_pairs(root, split):
    source, protocol = Source(dataset_root=root), Protocol(split=split)
    return open_data(source, protocol, SMALL_VIEW, True, training=split == "train")


def losses_of(model, batch, mode):
    batch = augment(batch, mode, SMALL_VIEW)
    return Criterion("infonce", 0.1)(model(make_inputs(batch, SMALL_VIEW)), batch)


def gradients(model, network, batch, teacher=None):
    """Gradients of exact labels, or of inexact ones and a teacher."""
    network.zero_grad(set_to_none=True)
    batch = augment(batch, "none", SMALL_VIEW)
    found = model(make_inputs(batch, SMALL_VIEW))
    loss = Criterion("infonce", 0.1, label_tolerance=20.0 if teacher else None)(found, batch)["loss"]
    if teacher:
        taught = Teacher(teacher, SMALL_VIEW, 1e-3).losses(batch, found.logits, 2.0)
        assert 0 < taught["distilled"] <= 1
        loss = loss + taught["distill_loss"]
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in network.named_parameters()}


def compare_gradients(root, network, device):
    dataset = open_pairs(root, "train")
    half = next(iter(training_loader(dataset, 2, 0, 0, part=(distributed.rank(), 2))[0]))
    joint = next(iter(training_loader(dataset, 4, 0, 0)[0]))
    network = make_network(network).eval()
    model = distributed.data_parallel(network, device)
    teacher = copy.deepcopy(network)
    pairs = [
        (gradients(model, network, half, given), gradients(network, network, joint, given))
        for given in (None, teacher)
    ]
    indices = [set(part) for part in distributed.gather(half["index"].tolist())]
    return {
        "difference": max(float((a[name] - b[name]).abs().max()) for a, b in pairs for name in a),
        "largest": min(max(float(x.abs().max()) for x in together.values()) for _, together in pairs),
        "indices": [*indices, set(joint["index"].tolist())],
    }


def compare_validation(root, network, device):
    dataset = open_pairs(root, "test")
    dataset.pairs = dataset.pairs[:9]  # five batches, the last of one pair
    network = make_network(network).eval()
    for parameter in network.parameters():
        torch.distributed.broadcast(parameter.data, 0)
    predictor = Predictor(network, SMALL_VIEW, device)
    part = predictor.table(evaluation_loader(dataset, 2, 0, part=(distributed.rank(), 2)))
    tables = {"table": distributed.gather_table(part)}
    tables["whole"] = predictor.table(evaluation_loader(dataset, 2, 0))
    return {
        which: {name: torch.from_numpy(column) for name, column in table.items() if name != "seconds"}
        for which, table in tables.items()
    }


def compare_weights(root, network, device):
    dataset = open_pairs(root, "train")
    dataset.pairs = np.concatenate([dataset.pairs] * 2)
    loader, _ = training_loader(dataset, 2, 0, 0, part=(distributed.rank(), 2))
    network = make_network(network, mixstyle_p=0.9)
    model, precision = distributed.data_parallel(network, device), Precision("off", device)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, fused=True)
    state = TrainingState(network, model, optimizer, precision, warm_up=BatchNormWarmUp(network))
    before = copy.deepcopy(network.state_dict())
    for step, batch in zip(range(STEPS), loader, strict=False):
        values, pairs, _ = train_step(state, [batch], lambda b: losses_of(model, b, "full"), 0, step, 1e-3)
        state.progress.count(values, pairs, 0.0)
    distributed.broadcast_buffers(network)
    first, second = distributed.gather(network.state_dict())
    return {
        "unequal": [name for name in before if not torch.equal(first[name], second[name])],
        "moved": np.mean([not torch.equal(value, first[name]) for name, value in before.items()]).item(),
    }


@pytest.mark.parametrize("network", ["published", "light"])
def test_two_processes_do_what_one_does(network, vigor_root, tmp_path):
    run_group(tmp_path / "out", 2, work_together, str(vigor_root), network, tmp_path / "results.pt")
    results = torch.load(tmp_path / "results.pt", weights_only=True)
    first, second, joint = results["indices"]
    assert first | second == joint and not first & second
    assert results["largest"] > 1e-2 and results["difference"] < 1e-5, "gradients are the joint batch's"
    table, whole = results["table"], results["whole"]
    assert table["index"].tolist() == list(range(9)) and table.keys() == whole.keys()
    assert [name for name in whole if not torch.equal(table[name], whole[name])] == []
    assert results["unequal"] == [] and results["moved"] > 0.95, "weights stay equal"


def interfere(act):
    """Call `act` in the second process alone, in its second step."""
    calls = []

    def act_and_train(*arguments):
        calls.append(None)
        if distributed.rank() == 1 and len(calls) == 2:
            act()
        return train_step(*arguments)

    trainer.train_step = act_and_train


def stop_the_second_process():
    interfere(lambda: os.kill(os.getpid(), signal.SIGTERM))


def break_the_second_process():
    def act():
        raise ValueError("the second process breaks down")

    interfere(act)


def test_a_run_of_two_processes(vigor_root, tmp_path):
    """SIGTERM to one stops both; only the first writes and prints; two processes resume the run."""
    line = f"{SMALL} --dataset_root {vigor_root} --runs_root {tmp_path / 'runs'} --epochs 1 --max_steps 3"
    said = run_group(tmp_path / "out", 2, script, "train_VIGOR", line, stop_the_second_process)
    folder = run_folder(tmp_path / "runs")
    assert said.count("global batch 4 = 2 pairs x 2 process(es) x 1 accumulated") == 1
    assert f"continue with: torchrun --nproc_per_node 2 train_VIGOR.py --resume {folder}" in said
    saved = read_checkpoint(folder / "latest.pt")
    assert saved["progress"]["step"] == 2 and saved["processes"] == 2
    said = run_group(tmp_path / "out", 2, script, "train_VIGOR", f"--resume {folder}")
    assert said.count("resumed at epoch 1, step 2") == 1 and said.count("epoch 1, learning_rate") == 1
    assert len(list(folder.glob("events.out.tfevents.*"))) == 2  # one each time
    row = read_checkpoint(folder / "latest.pt")["progress"]["log"][0]
    assert row["pairs_per_second"] > 0 and row["val_mean_m"] > 0


def launch(*given):
    """What torchrun does with a script, for processes that are forked: their imports are made already."""
    how = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "start_method": "fork", "max_restarts": 0}
    elastic_launch(LaunchConfig(1, 1, 2, **how), script)(*given)


def test_a_process_that_dies_ends_the_others(vigor_root, tmp_path):
    line = f"{SMALL} --dataset_root {vigor_root} --runs_root {tmp_path / 'runs'} --epochs 10000"
    torchrun = start(tmp_path / "out", launch, "train_VIGOR", line, break_the_second_process)
    torchrun.join(300)
    said = (tmp_path / "out").read_text()
    assert torchrun.exitcode not in (0, None), said
    assert "ValueError: the second process breaks down" in said
    cause = said[said.index("Root Cause") :]
    assert "rank      : 1" in cause and "exitcode  : 1" in cause
