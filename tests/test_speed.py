"""Speed must not change results: each switch against the plain form of the same computation."""

import copy
from contextlib import nullcontext

import pytest
import torch
from torchvision.ops import StochasticDepth

from engine.batch import forward
from engine.run import keep_freed_memory
from engine.training import Precision
from loss.heatmap import gaussian_target, infonce
from model import build_model
from model.decoder import STAGES, Stage

SMALL = {"satellite_size": 64, "panorama_size": [64, 128], "d_model": 64, "use_mixstyle": False, "dropout_rate": 0.0}
MATCHINGS = ("published", "ground_plane")


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


def losses_of(model, optimizer, steps, autocast=nullcontext):
    """The loss of each of so many steps, batches drawn from the step's number."""
    model.train()
    for module in model.modules():  # two memory formats do not draw the same
        if isinstance(module, (torch.nn.Dropout, StochasticDepth)):
            module.p = 0.0
    found = []
    for step in range(steps):
        batch = draw_batch(step % 5)
        with autocast():
            logits = forward(model, batch).logits
        loss = infonce(logits, gaussian_target(batch["position"], 64))
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


@pytest.fixture(params=MATCHINGS)
def twins(request):
    """The same network twice, as build_model gives it and in contiguous memory."""
    torch.manual_seed(0)
    model = build_model({**SMALL, "matching": request.param})
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
    thin = tuple(Stage(key, up // 8, out // 8) for key, up, out in STAGES)  # most of the time would go into its weights
    monkeypatch.setattr("model.decoder.STAGES", thin)
    torch.manual_seed(0)
    model = build_model({**SMALL, "matching": "ground_plane"})
    plain, rounded = copy.deepcopy(model).to(memory_format=torch.contiguous_format), copy.deepcopy(model)
    theirs = losses_of(plain, torch.optim.AdamW(plain.parameters(), 1e-4, foreach=False), 50)
    assert theirs[40:].mean() < theirs[:10].mean() - 0.5, "nothing was learnt, so nothing was compared"
    ours = losses_of(model, torch.optim.AdamW(model.parameters(), 1e-4, fused=True), 50)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=0)
    autocast = Precision("bf16", torch.device("cpu")).autocast
    in_bf16 = losses_of(rounded, torch.optim.AdamW(rounded.parameters(), 1e-4, fused=True), 20, autocast)
    torch.testing.assert_close(in_bf16, theirs[:20], rtol=1e-2, atol=0)


def test_keeping_freed_memory_does_no_harm_anywhere(monkeypatch):
    keep_freed_memory()
    for absent in (AttributeError, OSError, TypeError):  # musl and macOS; no C library by that name; Windows

        def fail(name, absent=absent):
            raise absent

        monkeypatch.setattr("ctypes.CDLL", fail)
        keep_freed_memory()
