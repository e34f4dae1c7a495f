"""What only a GPU can show; `benchmarks/gpu.sh` runs it too."""

import copy
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from children import PROJECT
from engine.batch import forward, to_device
from engine.training.precision import Precision
from test_speed import SMALL, draw_batch, losses_of, turn_off_dropout

from engine import run
from loss.heatmap import gaussian_target, infonce
from model.build import build_model
from model.settings import NETWORKS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(autouse=True)
def settings_put_back():
    """Precision and determinism are the process's; later tests get them as they were."""
    yield
    torch.use_deterministic_algorithms(False)
    run.configure_gpu(tf32=False, deterministic=False)


def step_of(model, batch, precision, network=None):
    """(loss, gradients as one vector) of one step."""
    model.train()
    with precision.autocast():
        logits = forward(network or model, batch).logits
    loss = infonce(logits, gaussian_target(batch["position"], logits.shape[-1]), 0.1)
    loss.backward()
    return loss.detach(), torch.cat([p.grad.float().flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("network", NETWORKS)
def test_a_step_in_bf16_compiled_and_channels_last_agrees_with_plain_float32(network, monkeypatch):
    monkeypatch.setattr("model.fusion.DROPOUT", 0.0)
    run.configure_gpu(tf32=False, deterministic=False)
    torch.manual_seed(0)
    model = build_model(replace(SMALL, network=network)).cuda()
    turn_off_dropout(model)
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    batch = to_device(draw_batch(0, B=8), "cuda")
    expected_loss, expected = step_of(plain, batch, Precision("off", torch.device("cuda")))
    loss, gradient = step_of(model, batch, Precision("bf16", torch.device("cuda")), torch.compile(model))
    torch.testing.assert_close(loss, expected_loss, rtol=0.02, atol=0)
    assert torch.nn.functional.cosine_similarity(gradient, expected, dim=0) > 0.95


def test_the_logits_of_a_gpu_are_those_of_a_cpu():
    run.configure_gpu(tf32=False, deterministic=False)
    for network in NETWORKS:
        torch.manual_seed(0)
        model = build_model(replace(SMALL, network=network)).eval()
        with torch.inference_mode():
            expected = forward(model, draw_batch(0)).logits
            logits = forward(model.cuda(), to_device(draw_batch(0), "cuda")).logits.cpu()
        assert (logits - expected).abs().max() < 1e-3 * expected.std()


def test_fifty_steps_with_tf32_learn_what_float32_learns(monkeypatch):
    monkeypatch.setattr("model.fusion.DROPOUT", 0.0)
    monkeypatch.setattr("test_speed.draw_batch", lambda seed: to_device(draw_batch(seed), "cuda"))
    torch.manual_seed(0)
    model = build_model(replace(SMALL, network="ground_plane")).cuda()
    losses = {}
    for tf32 in (False, True):
        run.configure_gpu(tf32=tf32, deterministic=False)
        twin = copy.deepcopy(model)
        losses[tf32] = losses_of(twin, torch.optim.AdamW(twin.parameters(), 1e-4, fused=True), 50)
    torch.testing.assert_close(losses[True], losses[False], rtol=0.02, atol=0)


def train(root, folder, *flags, launcher=(sys.executable,)):
    """The weights at the end of a short run on the GPU."""
    small = "--satellite_size 64 --panorama_size 64 128 --d_model 64 --backbone_weights none --batch_size 2 --max_steps 3"
    words = f"train_VIGOR.py --dataset_root {root} --runs_root {folder} {small} --epochs 1 --device cuda".split()
    environment = {**os.environ, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    done = subprocess.run([*launcher, *words, *flags], cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*/latest.pt")
    return torch.load(path, map_location="cpu", weights_only=True)["model"]


@pytest.mark.parametrize("network", NETWORKS)
def test_deterministic_runs_end_with_the_same_bits(vigor_root, tmp_path, network):
    flags = ["--deterministic", "--network", network]
    first, second = (train(vigor_root, tmp_path / name, *flags) for name in ("first", "second"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_torchrun_trains_over_nccl(vigor_root, tmp_path):
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(torch.cuda.device_count()))
    assert train(vigor_root, tmp_path / "group", launcher=launcher)
