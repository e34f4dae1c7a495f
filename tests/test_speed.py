"""Speed must not change results: each switch against the plain form of the same computation."""

import copy
from contextlib import nullcontext
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from children import SMALL_VIEW, draw_batch, make_network
from torchvision.ops import StochasticDepth

from common.parallel import keep_freed_memory
from engine.inference.predictor import make_inputs
from engine.training.optimisation import Precision
from loss.heatmap import gaussian_target, infonce
from model import deterministic
from model.settings import NETWORKS


def network_of(name, **settings):
    """A network whose training draws nothing: draws differ between memory formats, precisions and devices."""
    network = make_network(network=name, use_mixstyle=False, dropout_rate=0.0, **settings)
    for module in network.modules():
        if isinstance(module, (torch.nn.Dropout, StochasticDepth)):
            module.p = 0.0
    return network


def plain_copy(network):
    return copy.deepcopy(network).to(memory_format=torch.contiguous_format)


def logits_of(network, batch):
    """What a network gives for a batch."""
    return network(make_inputs(batch, SMALL_VIEW)).logits


def losses_of(network, optimizer, steps, autocast=nullcontext, draw=draw_batch):
    """The loss of each step; a step's batch depends on its number alone."""
    network.train()
    losses = []
    for step in range(steps):
        batch = draw(step % 5)
        with autocast():
            logits = logits_of(network, batch)
        loss = infonce(logits, gaussian_target(batch["position"], 64), 0.1)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor(losses)


@pytest.mark.parametrize("name", NETWORKS)
def test_channels_last_and_bf16_give_the_logits_of_contiguous_float32(name):
    network, batch = network_of(name, backbone=NETWORKS[name], d_model=64), draw_batch(0)
    with torch.no_grad():
        expected = logits_of(plain_copy(network), batch)
        assert (logits_of(network, batch) - expected).abs().max() < 1e-4 * expected.std()
        with Precision("bf16", torch.device("cpu")).autocast():
            rounded = logits_of(network, batch).float()
    assert (rounded - expected).pow(2).mean().sqrt() < 0.05 * expected.std()


@pytest.mark.slow
def test_fifty_steps_agree_with_the_plain_ones(monkeypatch):
    monkeypatch.setattr("model.fusion.DROPOUT", 0.0)
    network = network_of("ground_plane", d_model=64)
    plain, rounded = plain_copy(network), copy.deepcopy(network)
    theirs = losses_of(plain, torch.optim.AdamW(plain.parameters(), 2e-4, foreach=False), 50)
    assert theirs[40:].mean() < theirs[:10].mean() - 0.5, "nothing was learnt, so nothing was compared"
    ours = losses_of(network, torch.optim.AdamW(network.parameters(), 2e-4, fused=True), 50)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=0)
    autocast = Precision("bf16", torch.device("cpu")).autocast
    in_bf16 = losses_of(rounded, torch.optim.AdamW(rounded.parameters(), 2e-4, fused=True), 20, autocast)
    torch.testing.assert_close(in_bf16, theirs[:20], rtol=1e-2, atol=0)


def compare_gradients(plain, ordered, x, monkeypatch):
    """Values and gradients of the ordered form, switched on for the CPU, against PyTorch's."""
    monkeypatch.setattr(deterministic, "wanted", lambda x: True)
    results = []
    for function in (plain, ordered):
        leaf = x.clone().requires_grad_()
        value = function(leaf)
        (value * torch.arange(value.numel()).reshape(value.shape).sin()).sum().backward()
        results.append((value.detach(), leaf.grad))
    torch.testing.assert_close(results[1], results[0])


# Of a feature map, and of what it is pooled to: finer, the same, coarser by whole and by other factors.
SIZES = [((10, 20), (16, 16)), ((16, 16), (16, 16)), ((4, 8), (4, 4)), ((5, 7), (3, 2))]


@pytest.mark.parametrize(("size", "anchors"), SIZES)
@pytest.mark.parametrize("kind", ["average", "maximum"])
def test_ordered_pooling_is_pytorchs(size, anchors, kind, monkeypatch):
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    plain = {"average": F.adaptive_avg_pool2d, "maximum": F.adaptive_max_pool2d}[kind]
    ordered = getattr(deterministic, f"adaptive_{kind}_pool")
    compare_gradients(lambda x: plain(x, anchors), lambda x: ordered(x, anchors), x, monkeypatch)


def test_ordered_sampling_is_pytorchs(monkeypatch):
    draw = torch.Generator().manual_seed(0)
    feature = torch.randn(2, 3, 7, 9, generator=draw)
    grid = torch.rand(2, 5, 6, 2, generator=draw) * 2.6 - 1.3  # some points lie outside
    plain = partial(F.grid_sample, grid=grid, padding_mode="border", align_corners=False)
    compare_gradients(plain, lambda x: deterministic.sample(x, grid), feature, monkeypatch)


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])  # musl and macOS; no libc; Windows
def test_keeping_freed_memory_does_no_harm_anywhere(error, monkeypatch):
    def fail(name):
        raise error

    monkeypatch.setattr("ctypes.CDLL", fail)
    keep_freed_memory()
