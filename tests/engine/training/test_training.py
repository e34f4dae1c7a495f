"""The training loop, by hand: steps, accumulation, precision, statistics, averages, and what one sees of them."""

import csv
import re

import pytest
import torch
from children import SMALL, run_script

from dataset.loader import UnreadableBatch
from engine.training import logging
from engine.training.loop import NonFiniteLoss, train_epoch
from engine.training.precision import Precision
from engine.training.signals import EndOfLoader, Until, next_batch
from engine.training.state import Learner, MovingAverage
from engine.training.warm_up import BatchNormWarmUp

CPU = torch.device("cpu")


def make_learner(scaler=None, rate=0.1):
    torch.manual_seed(0)
    model, precision = torch.nn.Linear(3, 1), Precision("off", CPU)
    precision.scaler = scaler or precision.scaler
    return Learner(model, model, torch.optim.SGD(model.parameters(), rate), precision)


def make_batches(size, count):
    x = torch.arange(size * count * 3.0).reshape(count, size, 3).sin()
    return [{"index": torch.arange(size), "x": part} for part in x]


def squares(network, batch):
    return {"loss": network(batch["x"]).square().mean()}


def run_epoch(learner, batches, **options):
    settings = {"seed": 0, "steps": len(batches), "learning_rate": lambda step: 0.1} | options
    return train_epoch(learner, batches, squares, **settings)


def test_accumulated_batches_equal_one_large_batch():
    apart, together = make_learner(), make_learner()
    run_epoch(apart, make_batches(2, 6), steps=2, accumulate=3)
    run_epoch(together, make_batches(6, 2))
    assert apart.progress.step == together.progress.step == 2 and apart.progress.pairs == 12
    torch.testing.assert_close(apart.model.state_dict(), together.model.state_dict())
    assert apart.progress.means()["loss"] == pytest.approx(together.progress.means()["loss"], rel=1e-5)


def test_a_step_by_hand():
    """One SGD step with the gradient's norm clipped to 1, and what is told of it."""
    learner, told = make_learner(), []
    (batch,) = make_batches(4, 1)
    weight, bias = learner.model.weight.detach().clone(), learner.model.bias.detach().clone()
    error = batch["x"] @ weight.T + bias
    gradient = torch.cat([2 * (error * batch["x"]).mean(0), 2 * error.mean(0)])
    run_epoch(learner, [batch], learning_rate=lambda step: 0.25, clip_norm=0.01, after_step=told.append)
    norm = gradient.norm()
    assert told[0] == pytest.approx({"loss": float(error.square().mean()), "gradient_norm": float(norm), "learning_rate": 0.25})
    moved = torch.cat([(weight - learner.model.weight).flatten(), bias - learner.model.bias])
    torch.testing.assert_close(moved.detach(), 0.25 * 0.01 * gradient / norm, rtol=1e-3, atol=1e-8)


def test_stopping_finishes_the_step():
    learner, stop = make_learner(), []
    assert run_epoch(learner, make_batches(2, 5), stop=stop, after_step=lambda _: stop.append(1) or None) is True
    assert learner.progress.step == 2  # asked for after the first, seen in the second
    assert run_epoch(learner, make_batches(2, 3), steps=5) is False and learner.progress.step == 5
    assert list(Until([1, 2, 3], stop=[])) == [1, 2, 3] and list(Until([1, 2, 3], stop=[1])) == []


def test_a_loader_s_end_is_its_own_kind():
    """It may end where a stop was asked for, which takes its workers; anything else is a mistake and says so."""

    def broken(error):
        raise error
        yield

    assert isinstance(next_batch(iter([]), stop=False), EndOfLoader)
    for error in (
        RuntimeError("worker killed by signal"),
        ConnectionResetError("killed by signal"),
        EOFError("killed by signal"),
    ):
        assert isinstance(next_batch(broken(error), stop=True), EndOfLoader)
        with pytest.raises(type(error), match="killed by signal"):
            next_batch(broken(error), stop=False)
    assert run_epoch(make_learner(), make_batches(2, 2), steps=5, stop=[1]) is True
    with pytest.raises(RuntimeError, match="the loader ended before step 3 of 5"):
        run_epoch(make_learner(), make_batches(2, 2), steps=5)


def test_a_batch_of_which_nothing_could_be_read_counts_but_teaches_nothing():
    learner, same = make_learner(), make_learner()
    first, second = make_batches(2, 2)
    run_epoch(learner, [first, UnreadableBatch(2), second])
    run_epoch(same, [first, second])
    assert (learner.progress.step, learner.progress.updates) == (3, 2)
    torch.testing.assert_close(learner.model.state_dict(), same.model.state_dict(), rtol=0, atol=0)
    assert learner.progress.means()["loss"] == same.progress.means()["loss"]


def test_an_infinite_loss_does_not_reach_the_weights():
    learner = make_learner()
    before = learner.model.weight.detach().clone()
    batch = {"index": torch.tensor([7, 9]), "x": torch.full((2, 3), torch.inf)}
    with pytest.raises(NonFiniteLoss, match=r"epoch 1, step 0: loss (inf|nan), gradient_norm nan at learning rate 0\.1") as error:
        run_epoch(learner, [batch])
    assert error.value.indices == [7, 9] and error.value.values["learning_rate"] == 0.1
    assert torch.equal(learner.model.weight, before)


def test_precision():
    assert Precision("auto", CPU).name == "off" and not Precision("bf16", CPU).scaler.is_enabled()
    layer, x = torch.nn.Linear(3, 3), torch.ones(1, 3)
    for flag, dtype in (("off", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
        with Precision(flag, CPU).autocast():
            assert layer(x).dtype == dtype


def test_fp16_skips_the_steps_whose_gradients_overflow():
    learner = make_learner(torch.amp.GradScaler("cpu", init_scale=2.0**11))
    learner.model.weight.register_hook(
        lambda gradient: gradient * (torch.inf if learner.precision.scaler.get_scale() > 2000 else 1)
    )
    before = learner.model.weight.detach().clone()
    run_epoch(learner, make_batches(2, 1))
    assert torch.equal(learner.model.weight, before) and learner.progress.totals["skipped_steps"] == 1
    assert learner.precision.scaler.get_scale() == 2.0**10
    run_epoch(learner, make_batches(2, 1), steps=2)
    assert not torch.equal(learner.model.weight, before) and learner.progress.totals["skipped_steps"] == 1
    hopeless = make_learner(torch.amp.GradScaler("cpu", init_scale=0.5))
    hopeless.model.weight.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(NonFiniteLoss, match="gradient_norm"):
        run_epoch(hopeless, make_batches(2, 1))


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
    model = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False), torch.nn.BatchNorm1d(1))
    model[0].weight.data.fill_(1.0)
    average = MovingAverage(model, decay=0.5)
    mine, its = average.model.state_dict(), model.state_dict()
    for step, kept in ((0, 1 / 10), (1, 2 / 11), (100, 0.5)):
        before = {name: value.clone() for name, value in mine.items()}
        its["0.weight"] += 1
        its["1.running_var"] += 3
        average.update(step)
        for name in ("0.weight", "1.running_var"):
            torch.testing.assert_close(mine[name], kept * before[name] + (1 - kept) * its[name])
    assert not average.model.training and not any(parameter.requires_grad for parameter in average.model.parameters())
    learner = make_learner()
    assert learner.measured is learner.model
    learner.average = average
    assert learner.measured is average.model


def tell_of_every_step():
    logging.PLAIN_SECONDS = 0


def test_what_a_run_shows(vigor_root, tmp_path):
    """The log, TensorBoard, and what --val_on test says; with all that is not on by default."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    flags = f"--dataset_root {vigor_root} --runs_root {tmp_path / 'runs'} --epochs 2 --max_steps 2 --val_every 2 --log_every 1"
    line = f"{SMALL} {flags} --val_on test --warmup 1steps --amp bf16 --mixstyle_mix crossdomain"
    said = run_script(tmp_path / "out", "train_VIGOR", line, tell_of_every_step)
    begins = [one.partition(": loss")[0].partition(", learning")[0] for one in said.splitlines() if one.startswith("epoch ")]
    first, second = ([f"epoch {n} of 2, step 1 of 2", f"epoch {n} of 2, step 2 of 2", f"epoch {n}"] for n in (1, 2))
    assert begins == first + second and said.count(" left of the epoch\n") == 4
    (folder,) = (tmp_path / "runs").iterdir()
    assert "in precision bf16" in said and "18 training and 24 validation pairs (test)" in said
    assert "the best epoch is picked, and training ends, by the test list, as in the thesis" in said
    left = re.search(r"crossdomain: batches of two cities, half of each; (\d+) of 18 pairs an epoch are left over", said)
    assert 0 <= int(left[1]) <= 18
    first, second = csv.DictReader(open(folder / "training_log.csv"))
    assert (first["epoch"], first["val_mean_m"]) == ("1", "") and float(second["val_mean_m"]) > 0
    assert float(second["pairs_per_second"]) > 0 and float(second["learning_rate"]) == pytest.approx(1e-6)
    board = EventAccumulator(str(folder)).Reload()
    losses = [event.value for event in board.Scalars("train/loss")]
    assert [event.step for event in board.Scalars("train/loss")] == [1, 2, 3, 4]
    assert float(first["loss"]) == pytest.approx(sum(losses[:2]) / 2, rel=1e-4)
    rates = [event.value for event in board.Scalars("train/learning_rate")]
    assert rates[:2] == pytest.approx([8e-5, 8e-5]) and rates[3] == pytest.approx(1e-6)
    for tag in ("train/gradient_norm", "speed/pairs_per_second", "speed/memory_gib", "validation/val_mean_m"):
        assert board.Scalars(tag)[-1].value > 0
    (picture,) = board.Images("validation/heat_maps")
    assert picture.step == 4 and picture.width == 8 * picture.height
