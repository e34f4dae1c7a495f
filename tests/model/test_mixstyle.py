"""MixStyle against its formula, and the cases in which it must do nothing."""

import numpy as np
import pytest
import torch

from model.mixstyle import MixStyle, mix_styles


def batch(size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scale = torch.arange(1, size + 1).view(-1, 1, 1, 1)
    return scale * torch.randn(size, 3, 5, 4, generator=generator) + 10 * scale


def test_formula():
    x, partners, weight = batch(3), [2, 0, 1], [0.25, 1.0, 0.0]
    mixed = mix_styles(x, torch.tensor(partners), torch.tensor(weight).view(3, 1, 1, 1)).numpy()
    flat = x.numpy().reshape(3, 3, 20).astype(np.float64)
    mean, deviation = flat.mean(2), np.sqrt(flat.var(2, ddof=1) + 1e-6)
    content = (flat - mean[..., None]) / deviation[..., None]
    for i, (j, w) in enumerate(zip(partners, weight, strict=True)):
        scale, offset = (w * style[i] + (1 - w) * style[j] for style in (deviation, mean))
        expected = content[i] * scale[:, None] + offset[:, None]
        np.testing.assert_allclose(mixed[i].reshape(3, 20), expected, rtol=1e-4)


def test_styles_are_constants_to_the_gradient():
    x = batch(2).requires_grad_()
    mix_styles(x, torch.tensor([1, 0]), torch.zeros(2, 1, 1, 1)).sum().backward()
    deviation = (torch.var(x.detach(), dim=(2, 3), keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(x.grad, (deviation[[1, 0]] / deviation).expand_as(x))


def test_nothing_happens_in_evaluation_alone_or_without_luck():
    torch.manual_seed(0)  # every 24th permutation leaves all as it is
    x = batch(4)
    assert MixStyle(probability=1.0).eval()(x) is x
    assert MixStyle(probability=1.0)(x[:1]).equal(x[:1])
    assert MixStyle(probability=0.0)(x).equal(x)
    torch.manual_seed(0)
    first = MixStyle(probability=1.0)(x)
    torch.manual_seed(0)
    assert MixStyle(probability=1.0)(x).equal(first) and not first.equal(x), "the seed decides"


def test_one_coin_per_call():
    """A call changes all samples or none; a large alpha keeps weights off 1."""
    torch.manual_seed(0)
    x, layer, changed = batch(6), MixStyle(probability=0.3, alpha=50.0, mix="crossdomain"), 0
    for _ in range(200):
        differs = (layer(x) != x).flatten(1).any(dim=1)
        assert differs.all() or not differs.any()
        changed += int(differs.all())
    assert 40 <= changed <= 80


def test_weights_follow_beta():
    """Beta(0.1, 0.1): mean 0.5, variance 1 / (4 * 1.2); read off two samples of constant styles."""
    torch.manual_seed(0)
    pattern = torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2)
    x = torch.cat([pattern, pattern + 1.0])
    layer = MixStyle(probability=1.0, alpha=0.1, mix="crossdomain")
    weights = torch.stack([1.0 - layer(x)[0].mean() for _ in range(2000)])
    assert abs(weights.mean() - 0.5) < 0.04 and abs(weights.var() - 1 / 4.8) < 0.02


@pytest.mark.parametrize("size", [2, 5, 8])
def test_partners_are_a_permutation_that_crosses_the_halves(size):
    torch.manual_seed(0)
    half = size // 2
    for _ in range(20):
        mixed, crossed = (MixStyle(mix=mix).partners(size) for mix in ("random", "crossdomain"))
        assert mixed.sort().values.tolist() == crossed.sort().values.tolist() == list(range(size))
        assert (crossed[:half] >= half).all() and (crossed[half : 2 * half] < half).all()


CITIES = [2, 2, 2, 0, 0, 0], [1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1], [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize("city", CITIES)
def test_only_halves_of_two_cities_are_crossed(city):
    torch.manual_seed(0)
    layer = MixStyle(mix="crossdomain")
    drawn = torch.stack([layer.partners(6, city=torch.tensor(city)) for _ in range(50)])
    assert (drawn.sort(1).values == torch.arange(6)).all() and (drawn[:, :3] >= 3).any()
    assert (drawn[:, :3] < 3).any() == (drawn[:, 3:] >= 3).any() == (city != CITIES[0])
