"""What scripts share: metrics by hand, positions, schedules, files, flags."""

import argparse
import os

import numpy as np
import pytest
import torch

from engine import checkpoint, options, run
from engine.prediction import locate, probability_map, random_foreground
from engine.training import cosine_learning_rate


@pytest.mark.parametrize("size", [128, 512])
def test_positions_are_finer_than_a_pixel(size):
    truth = torch.tensor([[40.3, 71.9], [100.75, 30.5]])
    centres = torch.arange(size) + 0.5
    squares = (centres[None, :, None] - truth[:, 0, None, None]) ** 2 + (centres[None, None] - truth[:, 1, None, None]) ** 2
    sigma = 4 * size / 512
    logits = -squares / (2 * sigma**2) * 0.1  # the heat map at temperature 0.1 is a Gaussian
    assert (locate(logits, 0.1) - truth).abs().max() < 0.2


def test_positions_at_the_edge_and_on_a_plateau():
    logits = torch.zeros(3, 64, 64)
    logits[0, 0, 5] = logits[1, 63, 63] = 9.0
    logits[2, 30:32, 40] = 9.0
    np.testing.assert_allclose(locate(logits, 0.1), [[0.5, 5.5], [63.5, 63.5], [31.0, 40.5]], atol=1e-4)


def test_a_sample_s_map_does_not_hang_on_its_batch():
    logits = torch.randn(3, 16, 16) * torch.tensor([1.0, 10.0, 0.1])[:, None, None] - 20
    alone = torch.cat([probability_map(logits[i : i + 1], 0.1) for i in range(3)])
    assert torch.equal(probability_map(logits, 0.1), alone)
    assert torch.allclose(alone.sum((1, 2)), torch.ones(3))
    assert torch.equal(alone.flatten(1).argmax(1), logits.flatten(1).argmax(1))


def test_learning_rates():
    rates = [cosine_learning_rate(step, 101, 1e-3) for step in range(101)]
    assert rates[0] == 1e-3 and rates[100] == pytest.approx(1e-6)
    assert rates[50] == pytest.approx((1e-3 + 1e-6) / 2)
    assert rates == sorted(rates, reverse=True)
    warm = [cosine_learning_rate(step, 101, 1e-3, warmup_steps=4) for step in range(5)]
    assert warm == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3])


def test_a_failed_save_leaves_the_older_file(tmp_path):
    path = tmp_path / "latest.pt"
    checkpoint.save(path, {"value": torch.ones(3)})

    with pytest.raises(OSError, match="disk"), checkpoint.replacing(path) as beside:
        beside.write_bytes(b"half")
        raise OSError("no space left on the disk")
    assert torch.equal(torch.load(path, weights_only=True)["value"], torch.ones(3))
    assert os.listdir(tmp_path) == ["latest.pt"]


def test_two_runs_of_one_second_get_two_folders(tmp_path):
    folders = {run.create_folder(tmp_path, "samearea") for _ in range(5)}
    assert len(folders) == 5


def test_args_come_back_with_real_booleans(tmp_path):
    run.write_args(tmp_path, {"pos_only": False, "learning_rate": 8e-5, "panorama_size": [320, 640]})
    args = run.read_args(tmp_path)
    assert args["pos_only"] is False and args["learning_rate"] == 8e-5 and args["panorama_size"] == [320, 640]
    (tmp_path / "args.yaml").write_text("pos_only: 'False'\nuse_mask: 'True'\narea: samearea\n")  # as published
    assert run.read_args(tmp_path) == {"pos_only": False, "use_mask": True, "area": "samearea"}
    (tmp_path / "args.yaml").write_text("a: [")
    with pytest.raises(run.RunError, match=r"args\.yaml: not a YAML file"):
        run.read_args(tmp_path)


def test_step_seeds_differ_and_repeat():
    def draw(*key):
        run.seed_step(*key)
        return torch.rand(1).item()

    assert draw(0, 3, 5) == draw(0, 3, 5)
    assert len({draw(0, 3, 5), draw(0, 3, 6), draw(0, 4, 5), draw(1, 3, 5), draw(0, 3, 5, 1)}) == 5


@pytest.mark.parametrize("text", ["yes", "1", "", "truee"])
def test_booleans_are_strict(text):
    with pytest.raises(argparse.ArgumentTypeError, match="neither True nor False"):
        options.boolean(text)
    assert options.boolean("True") is True and options.boolean("False") is False


def test_resumed_settings():
    args = argparse.Namespace(epochs=9, learning_rate=1.0, seed=0, given={"epochs", "learning_rate"})
    with pytest.raises(run.RunError, match=r"--learning_rate 1\.0 differs from the run's 2\.0"):
        options.resumed(args, {"epochs": 5, "learning_rate": 2.0, "seed": 7}, free=("epochs",))
    merged = options.resumed(args, {"epochs": 5, "learning_rate": 1.0, "seed": 7}, free=("epochs",))
    assert (merged.epochs, merged.seed) == (9, 7)


def test_a_random_street_pixel_lies_on_the_street():
    mask = torch.zeros(40, 1, 32, 32, dtype=torch.uint8)
    mask[:, :, 4:8, 10:30] = 255
    mask[0] = 0
    position = random_foreground(mask, torch.arange(40))
    assert position[0].tolist() == [16, 16]  # no foreground: the middle
    assert ((position[1:] >= torch.tensor([4, 10])) & (position[1:] < torch.tensor([8, 30]))).all()
    assert abs(position[1:, 1].mean() - 20) < 3  # evenly along the street
    assert torch.equal(position[5:6], random_foreground(mask[5:6], torch.tensor([5])))


def _allocate_too_much(args):
    torch.empty(2**60)


def _overflow_the_gpu(args):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139.81 GiB ...")


def _lose_a_worker(args):
    raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. ... workers are out of shared memory.")


@pytest.mark.parametrize(
    ("main", "way_out"),
    [
        (_allocate_too_much, "--batch_size"),
        (_overflow_the_gpu, "2.00 GiB. A smaller --batch_size"),
        (_lose_a_worker, "--shm-size"),
    ],
)
def test_too_little_memory_is_one_line_with_a_way_out(main, way_out, capsys):
    with pytest.raises(SystemExit):
        options.run_script(main, options.make_parser("", ""), (), [])
    assert way_out in (line := capsys.readouterr().err) and line.count("\n") == 1
