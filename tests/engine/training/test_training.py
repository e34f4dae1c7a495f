"""Training steps by hand: accumulation, precision, statistics, averages, schedules, and what a run shows."""

import argparse
import csv
import re
from unittest.mock import MagicMock

import pytest
import torch
from children import SMALL, run_folder, run_script

from dataset.loader import UnreadableBatch
from engine.training import logging, optimisation
from engine.training.optimisation import DURATION, BatchNormWarmUp, MovingAverage, Precision
from engine.training.settings import Optimisation
from engine.training.signals import EndOfLoader, Until, next_batch
from engine.training.state import TrainingState
from engine.training.step import NonFiniteLoss, train_step
from engine.training.trainer import Trainer

CPU = torch.device("cpu")


def make_state(scaler=None, rate=0.1):
    torch.manual_seed(0)
    network, precision = torch.nn.Linear(3, 1), Precision("off", CPU)
    precision.scaler = scaler or precision.scaler
    return TrainingState(network, network, torch.optim.SGD(network.parameters(), rate), precision)


def make_batches(size, count):
    x = torch.arange(size * count * 3.0).reshape(count, size, 3).sin()
    return [{"index": torch.arange(size), "x": part} for part in x]


def run_steps(state, *groups, rate=0.1, **options):
    """Take a step for each group of batches; the last one's result."""

    def losses(batch):
        return {"loss": state.model(batch["x"]).square().mean()}

    for group in groups:
        result = train_step(state, group, losses, 0, state.progress.step, rate, **options)
        state.progress.count(*result[:2], 1.0)
    return result


def test_accumulated_batches_equal_one_large_batch():
    apart, together = make_state(), make_state()
    batches = make_batches(2, 6)
    run_steps(apart, batches[:3], batches[3:])
    run_steps(together, *([batch] for batch in make_batches(6, 2)))
    assert apart.progress.step == together.progress.step == 2 and apart.progress.pairs == 12
    torch.testing.assert_close(apart.network.state_dict(), together.network.state_dict())
    assert apart.progress.means()["loss"] == pytest.approx(together.progress.means()["loss"], rel=1e-5)


def test_a_step_by_hand():
    """One SGD step with the gradient's norm clipped, and its values."""
    state = make_state()
    (batch,) = make_batches(4, 1)
    weight, bias = state.network.weight.detach().clone(), state.network.bias.detach().clone()
    error = batch["x"] @ weight.T + bias
    gradient = torch.cat([2 * (error * batch["x"]).mean(0), 2 * error.mean(0)])
    values, pairs, stopping = run_steps(state, [batch], rate=0.25, clip_norm=0.01)
    norm = gradient.norm()
    assert values == pytest.approx({"loss": float(error.square().mean()), "gradient_norm": float(norm)})
    assert (pairs, stopping) == (4, False)
    moved = torch.cat([(weight - state.network.weight).flatten(), bias - state.network.bias])
    torch.testing.assert_close(moved.detach(), 0.25 * 0.01 * gradient / norm, rtol=1e-3, atol=1e-8)
    assert run_steps(state, [batch], stop=[1])[2] is True


@pytest.mark.parametrize("kind", [RuntimeError, ConnectionResetError, EOFError])
def test_a_stop_may_take_the_workers_of_a_loader(kind):
    """Without a stop request, the error of a dead worker is raised."""

    def broken():
        raise kind("killed by signal")
        yield

    assert isinstance(next_batch(broken(), stop=True), EndOfLoader)
    with pytest.raises(kind, match="killed by signal"):
        next_batch(broken(), stop=False)
    assert isinstance(next_batch(iter([]), stop=False), EndOfLoader)
    assert list(Until([1, 2, 3], stop=[])) == [1, 2, 3] and list(Until([1, 2, 3], stop=[1])) == []


def test_a_loader_may_only_end_early_after_a_stop():
    state = make_state()
    trainer = MagicMock(state=state, steps=5, run_step=0, optimisation=Optimisation())
    trainer.saving.save_every, trainer.data.train_loader = None, make_batches(2, 2)
    trainer.losses = lambda batch: {"loss": state.model(batch["x"]).square().mean()}
    with pytest.raises(RuntimeError, match="the loader ended before step 3 of 5"):
        Trainer.train_epoch(trainer, stop=[])
    trainer.data.train_loader = []
    assert Trainer.train_epoch(trainer, stop=[1]) is True


def test_an_unreadable_batch_counts_as_a_step_and_changes_no_weight():
    state, same = make_state(), make_state()
    first, second = make_batches(2, 2)
    run_steps(state, [first], [UnreadableBatch(2)], [second])
    run_steps(same, [first], [second])
    assert (state.progress.step, state.progress.updates) == (3, 2)
    torch.testing.assert_close(state.network.state_dict(), same.network.state_dict(), rtol=0, atol=0)
    assert state.progress.means()["loss"] == same.progress.means()["loss"]


def test_an_infinite_loss_does_not_reach_the_weights():
    state = make_state()
    before = state.network.weight.detach().clone()
    batch = {"index": torch.tensor([7, 9]), "x": torch.full((2, 3), torch.inf)}
    with pytest.raises(NonFiniteLoss, match=r"epoch 1, step 0: loss (inf|nan)") as error:
        run_steps(state, [batch])
    assert error.value.indices == [7, 9] and error.value.values["learning_rate"] == 0.1
    assert torch.equal(state.network.weight, before)


def test_precision():
    assert Precision("auto", CPU).name == "off" and not Precision("bf16", CPU).scaler.is_enabled()
    layer, x = torch.nn.Linear(3, 3), torch.ones(1, 3)
    for flag, dtype in (("off", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
        with Precision(flag, CPU).autocast():
            assert layer(x).dtype == dtype


def test_fp16_skips_the_steps_whose_gradients_overflow():
    state = make_state(torch.amp.GradScaler("cpu", init_scale=2.0**11))
    scaler = state.precision.scaler
    weight = state.network.weight
    weight.register_hook(lambda gradient: gradient * (torch.inf if scaler.get_scale() > 2000 else 1))
    before = weight.detach().clone()
    first, second = make_batches(2, 2)
    run_steps(state, [first])
    assert torch.equal(weight, before) and scaler.get_scale() == 2.0**10
    run_steps(state, [second])
    assert not torch.equal(weight, before) and state.progress.totals["skipped_steps"] == 1
    hopeless = make_state(torch.amp.GradScaler("cpu", init_scale=0.5))
    hopeless.network.weight.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(NonFiniteLoss, match="gradient_norm"):
        run_steps(hopeless, [first])


def test_batch_norms_follow_faster_at_first():
    norm = torch.nn.BatchNorm1d(1, momentum=0.01)
    warm_up = BatchNormWarmUp(torch.nn.Sequential(norm, torch.nn.BatchNorm1d(1, track_running_stats=False)))
    expected = torch.zeros(1)
    for t, momentum in ((0, 1.0), (1, 3 / 4), (2, 3 / 5), (296, 3 / 299), (297, 0.01), (5000, 0.01)):
        x = torch.randn(8, 1) + t
        with warm_up(t):
            norm(x).sum().backward()
        expected = (1 - momentum) * expected + momentum * x.mean(0)
        torch.testing.assert_close(norm.running_mean, expected, rtol=1e-4, atol=1e-4)
    assert norm.momentum == 0.01


def test_the_moving_average_by_hand():
    network = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False), torch.nn.BatchNorm1d(1))
    network[0].weight.data.fill_(1.0)
    average = MovingAverage(network, decay=0.5)
    averaged, trained = average.network.state_dict(), network.state_dict()
    for step, kept in ((0, 1 / 10), (1, 2 / 11), (100, 0.5)):
        before = {name: value.clone() for name, value in averaged.items()}
        for name in ("0.weight", "1.running_var"):
            trained[name] += 2
        average.update(step)
        for name in ("0.weight", "1.running_var"):
            torch.testing.assert_close(averaged[name], kept * before[name] + (1 - kept) * trained[name])
    assert not average.network.training and not any(p.requires_grad for p in average.network.parameters())
    state = make_state()
    assert state.measured is state.network
    state.average = average
    assert state.measured is average.network


def test_learning_rates_durations_and_validations():
    rates = [optimisation.cosine_learning_rate(step, 101, 1e-3) for step in range(101)]
    assert rates[0] == 1e-3 and rates[100] == pytest.approx(1e-6) and rates == sorted(rates, reverse=True)
    assert rates[50] == pytest.approx((1e-3 + 1e-6) / 2)
    warm = [optimisation.cosine_learning_rate(step, 101, 1e-3, warmup_steps=4) for step in range(5)]
    assert warm == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3])
    durations = [optimisation.steps_of(DURATION(text), 100) for text in ("0.5", "30steps")]
    assert durations == [50, 30]
    for text in ("-1", "steps", "3 days", "nan"):
        with pytest.raises(argparse.ArgumentTypeError, match=text):
            DURATION(text)
    due = [epoch for epoch in range(1, 41) if optimisation.validation_is_due(epoch, 40)]
    assert due == [*range(3, 31, 3), *range(31, 41)]
    assert [epoch for epoch in range(1, 8) if optimisation.validation_is_due(epoch, 7, every=4)] == [4, 7]


def print_every_step():
    logging.PLAIN_SECONDS = 0


@pytest.mark.slow
def test_what_a_run_shows(vigor_root, tmp_path):
    """The log, TensorBoard, and the warning of --val_on test; with everything that is off by default."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    line = f"{SMALL} --dataset_root {vigor_root} --runs_root {tmp_path / 'runs'} --epochs 2 --max_steps 2"
    line += " --log_every 1 --val_every 2 --val_on test --warmup 1steps --amp bf16 --mixstyle_mix crossdomain"
    said = run_script(tmp_path / "out", "train_VIGOR", line, print_every_step)
    begins = [re.split(": loss|, learning", text)[0] for text in said.splitlines() if "epoch " in text[:6]]
    steps = [[f"epoch {n} of 2, step {k} of 2" for k in (1, 2)] + [f"epoch {n}"] for n in (1, 2)]
    assert begins == steps[0] + steps[1] and said.count(" left of the epoch\n") == 4
    assert "in precision bf16" in said and "18 training pairs and 24 validation pairs (test)" in said
    assert "--val_on test" in said and re.search(r"crossdomain.*; \d+ of 18 pairs", said)
    folder = run_folder(tmp_path / "runs")
    first, second = csv.DictReader(open(folder / "training_log.csv"))
    assert (first["epoch"], first["val_mean_m"]) == ("1", "") and float(second["val_mean_m"]) > 0
    assert float(second["pairs_per_second"]) > 0 and float(second["learning_rate"]) == pytest.approx(1e-6)
    board = EventAccumulator(str(folder)).Reload()
    losses, rates = (board.Scalars(f"train/{name}") for name in ("loss", "learning_rate"))
    assert [event.step for event in losses] == [1, 2, 3, 4]
    assert float(first["loss"]) == pytest.approx((losses[0].value + losses[1].value) / 2, rel=1e-4)
    assert [rates[i].value for i in (0, 1, 3)] == pytest.approx([8e-5, 8e-5, 1e-6])
    tags = "train/gradient_norm", "speed/pairs_per_second", "speed/memory_gib", "validation/val_mean_m"
    assert all(board.Scalars(tag)[-1].value > 0 for tag in tags)
    (picture,) = board.Images("validation/heat_maps")
    assert picture.step == 4 and picture.width == 8 * picture.height
