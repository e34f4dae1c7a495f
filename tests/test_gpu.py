"""What only a GPU can show; `benchmarks/gpu.sh` runs it too."""

import copy
import os
import subprocess
import sys

import pytest
import torch
from children import PROJECT, draw_batch
from test_speed import logits_of, losses_of, network_of, plain_copy

from engine import run
from engine.inference.predictor import to_device
from engine.training.optimisation import Precision
from loss.heatmap import gaussian_target, infonce
from model.settings import NETWORKS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(autouse=True)
def settings_put_back():
    """Precision and determinism are the process's; later tests get them as they were."""
    yield
    torch.use_deterministic_algorithms(False)
    run.configure_gpu(tf32=False, deterministic=False)


def draw_there(seed, B=2):
    return to_device(draw_batch(seed, B), "cuda")


def step_of(network, batch, precision, compiled=None):
    """(loss, gradients as one vector) of one step."""
    network.train()
    with precision.autocast():
        logits = logits_of(compiled or network, batch)
    loss = infonce(logits, gaussian_target(batch["position"], logits.shape[-1]), 0.1)
    loss.backward()
    gradients = [p.grad.float().flatten() for p in network.parameters() if p.grad is not None]
    return loss.detach(), torch.cat(gradients)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_in_bf16_compiled_and_channels_last_agrees_with_plain_float32(name, monkeypatch):
    monkeypatch.setattr("model.fusion.DROPOUT", 0.0)
    run.configure_gpu(tf32=False, deterministic=False)
    network = network_of(name, backbone=NETWORKS[name], d_model=64).cuda()
    plain, batch = plain_copy(network), draw_there(0, B=8)
    expected_loss, expected = step_of(plain, batch, Precision("off", torch.device("cuda")))
    bf16 = Precision("bf16", torch.device("cuda"))
    loss, gradient = step_of(network, batch, bf16, torch.compile(network))
    torch.testing.assert_close(loss, expected_loss, rtol=0.02, atol=0)
    assert torch.nn.functional.cosine_similarity(gradient, expected, dim=0) > 0.95


@pytest.mark.parametrize("name", NETWORKS)
def test_the_logits_of_a_gpu_are_those_of_a_cpu(name):
    run.configure_gpu(tf32=False, deterministic=False)
    network = network_of(name, backbone=NETWORKS[name])
    with torch.inference_mode():
        expected = logits_of(network, draw_batch(0))
        logits = logits_of(network.cuda(), draw_there(0)).cpu()
    assert (logits - expected).abs().max() < 1e-3 * expected.std()


def test_fifty_steps_with_tf32_learn_what_float32_learns(monkeypatch):
    monkeypatch.setattr("model.fusion.DROPOUT", 0.0)
    network, losses = network_of("ground_plane", d_model=64).cuda(), {}
    for tf32 in (False, True):
        run.configure_gpu(tf32=tf32, deterministic=False)
        twin = copy.deepcopy(network)
        optimizer = torch.optim.AdamW(twin.parameters(), 1e-4, fused=True)
        losses[tf32] = losses_of(twin, optimizer, 50, draw=draw_there)
    torch.testing.assert_close(losses[True], losses[False], rtol=0.02, atol=0)


def train(root, folder, *flags, launcher=(sys.executable,)):
    """The weights at the end of a short run on the GPU."""
    line = f"train_VIGOR.py --dataset_root {root} --runs_root {folder} --backbone_weights none --d_model 64 "
    line += "--satellite_size 64 --panorama_size 64 128 --batch_size 2 --max_steps 3 --epochs 1 --device cuda"
    environment = {**os.environ, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    words = [*launcher, *line.split(), *flags]
    done = subprocess.run(words, cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*/latest.pt")
    return torch.load(path, map_location="cpu", weights_only=True)["model"]


@pytest.mark.parametrize("network", NETWORKS)
def test_deterministic_runs_end_with_the_same_bits(vigor_root, tmp_path, network):
    flags = ["--deterministic", "--network", network]
    first, second = (train(vigor_root, tmp_path / name, *flags) for name in ("first", "second"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_torchrun_trains_over_nccl(vigor_root, tmp_path):
    torchrun = f"-m torch.distributed.run --standalone --nproc_per_node {torch.cuda.device_count()}"
    assert train(vigor_root, tmp_path / "group", launcher=(sys.executable, *torchrun.split()))
