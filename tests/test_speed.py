"""Speed must not change results: each switch against the plain form of the same computation."""

import copy
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import pytest
import torch
from children import thin_network
from torchvision.ops import StochasticDepth

from common.parallel import keep_freed_memory
from engine.batch import forward
from engine.training.precision import Precision
from loss.heatmap import gaussian_target, infonce
from model import deterministic
from model.build import build_model
from model.settings import NETWORKS, ModelSettings

SMALL = ModelSettings(satellite_size=64, panorama_size=(64, 128), d_model=64, use_mixstyle=False, dropout_rate=0.0)


def draw_batch(seed, B=2):
    """A batch with a little structure: plain random pixels would make every logit alike."""
    draw = torch.Generator().manual_seed(seed)

    def pixels(*shape):
        coarse = torch.rand(B, shape[0], shape[1] // 8, shape[2] // 8, generator=draw)
        return (torch.nn.functional.interpolate(coarse, shape[1:]) * 255).to(torch.uint8)

    return {
        "panorama": pixels(3, 64, 128),
        "satellite": pixels(3, 64, 64),
        "mask": pixels(1, 64, 64),
        "position": torch.rand(B, 2, generator=draw) * 64,
        "heading": torch.zeros(B),
        "metres_per_pixel": torch.full((B,), 1.1),
    }


def turn_off_dropout(model):
    """Two memory formats, precisions or devices do not draw the same. `no_dropout` does it for attention."""
    for module in model.modules():
        if isinstance(module, (torch.nn.Dropout, StochasticDepth)):
            module.p = 0.0


def losses_of(model, optimizer, steps, autocast=nullcontext):
    """The loss of each of so many steps, batches drawn from the step's number."""
    model.train()
    turn_off_dropout(model)
    found = []
    for step in range(steps):
        batch = draw_batch(step % 5)
        with autocast():
            logits = forward(model, batch).logits
        loss = infonce(logits, gaussian_target(batch["position"], 64), 0.1)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        found.append(loss.item())
    return torch.tensor(found)


@pytest.fixture
def no_dropout(monkeypatch):
    """Attention's dropout is no module of its own."""
    monkeypatch.setattr("model.fusion.DROPOUT", 0.0)


@pytest.fixture(params=NETWORKS)
def twins(request):
    """The same network twice, as build_model gives it and in contiguous memory."""
    torch.manual_seed(0)
    model = build_model(replace(SMALL, network=request.param))
    return model, copy.deepcopy(model).to(memory_format=torch.contiguous_format)


def test_channels_last_gives_the_logits_of_contiguous_memory(twins):
    batch = draw_batch(0)
    ours, plain = (forward(model.eval(), batch).logits for model in twins)
    assert (ours - plain).abs().max() < 1e-4 * plain.std()


def test_bf16_agrees_to_its_eight_bits(twins):
    model = twins[0].eval()
    batch, precision = draw_batch(0), Precision("bf16", torch.device("cpu"))
    exact = forward(model, batch).logits
    with precision.autocast():
        rounded = forward(model, batch).logits.float()
    assert (rounded - exact).pow(2).mean().sqrt() < 0.05 * exact.std()


def test_fifty_steps_agree_with_the_plain_ones(no_dropout, monkeypatch):
    thin_network(monkeypatch.setattr)
    torch.manual_seed(0)
    model = build_model(replace(SMALL, network="ground_plane"))
    plain, rounded = copy.deepcopy(model).to(memory_format=torch.contiguous_format), copy.deepcopy(model)
    theirs = losses_of(plain, torch.optim.AdamW(plain.parameters(), 2e-4, foreach=False), 50)
    assert theirs[40:].mean() < theirs[:10].mean() - 0.5, "nothing was learnt, so nothing was compared"
    ours = losses_of(model, torch.optim.AdamW(model.parameters(), 2e-4, fused=True), 50)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=0)
    autocast = Precision("bf16", torch.device("cpu")).autocast
    in_bf16 = losses_of(rounded, torch.optim.AdamW(rounded.parameters(), 2e-4, fused=True), 20, autocast)
    torch.testing.assert_close(in_bf16, theirs[:20], rtol=1e-2, atol=0)


@pytest.mark.parametrize(
    ("ordered", "plain"),
    [
        (deterministic.adaptive_average_pool, torch.nn.functional.adaptive_avg_pool2d),
        (deterministic.adaptive_maximum_pool, torch.nn.functional.adaptive_max_pool2d),
    ],
)
@pytest.mark.parametrize(("size", "anchors"), [((10, 20), (16, 16)), ((16, 16), (16, 16)), ((4, 8), (4, 4)), ((5, 7), (3, 2))])
def test_ordered_pooling_is_pytorchs(ordered, plain, size, anchors, monkeypatch):
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    compare_gradients(lambda x: plain(x, anchors), lambda x: ordered(x, anchors), x, monkeypatch)


def test_ordered_sampling_is_pytorchs(monkeypatch):
    draw = torch.Generator().manual_seed(0)
    feature, grid = torch.randn(2, 3, 7, 9, generator=draw), torch.rand(2, 5, 6, 2, generator=draw) * 2.6 - 1.3  # some outside
    plain = partial(torch.nn.functional.grid_sample, grid=grid, padding_mode="border", align_corners=False)
    compare_gradients(plain, lambda x: deterministic.sample(x, grid), feature, monkeypatch)


def compare_gradients(plain, ordered, x, monkeypatch):
    """Values and gradients of the ordered form, made to serve on the CPU, against PyTorch's."""
    monkeypatch.setattr(deterministic, "wanted", lambda x: True)
    results = []
    for function in (plain, ordered):
        leaf = x.clone().requires_grad_()
        value = function(leaf)
        (value * torch.arange(value.numel()).reshape(value.shape).sin()).sum().backward()
        results.append((value.detach(), leaf.grad))
    torch.testing.assert_close(results[1], results[0])


def test_keeping_freed_memory_does_no_harm_anywhere(monkeypatch):
    keep_freed_memory()
    for absent in (AttributeError, OSError, TypeError):  # musl and macOS; no C library by that name; Windows

        def fail(name, absent=absent):
            raise absent

        monkeypatch.setattr("ctypes.CDLL", fail)
        keep_freed_memory()
