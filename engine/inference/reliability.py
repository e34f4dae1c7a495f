"""Calibration for each pair, from features of its heat map.

    probability = (1 - share) softmax(logits / temperature) + share / number of pixels

A single temperature is overconfident on pairs that are harder than those it was fitted on. Here each pair has
its own temperature and its own uniform share. The logarithm of the temperature and the log odds of the share
are linear in a few `signs`. The fit uses pairs harder than those of training (`eval_VIGOR.py --reliability`).
"""

import math
from typing import NamedTuple

import torch

from engine.inference.decode import probability_map

SIGNS = ("area", "peak", "rival", "disagreement", "seen")
RIVAL_M = 5.0  # least distance from the most probable place to a rival peak
STEPS = 60  # of the fit
PENALTY = 0.01  # on squared weights, in nats
_CLIP = 3.0  # standard deviations at which signs are clipped, since the fit saw none further away


class HeatMap(NamedTuple):
    """The conversion of logits to a heat map, and its name in pictures."""

    temperature: float  # of all pairs; with a `reliability`, that of training
    name: str
    reliability: "Reliability | None" = None

    def probability(self, found, metres_per_pixel):
        """The heat maps (P, H, W), each summing to 1, of a `Prediction` of P pairs."""
        if self.reliability is None:
            return probability_map(found.logits, self.temperature)
        return mixed(found.logits, *self.reliability(found, metres_per_pixel, self.temperature))


class Reliability(NamedTuple):
    """A fit. mean, scale: of the signs (F,); weights (2, F + 1): of the logarithm of the temperature and of
    the log odds of the share, the constants last."""

    mean: torch.Tensor
    scale: torch.Tensor
    weights: torch.Tensor

    def __call__(self, found, metres_per_pixel, trained):
        """(temperature, share), (P,) each, of a `Prediction`; `trained`: the temperature of training."""
        given = signs(found, metres_per_pixel, trained)
        return _apply(self.weights.to(given), ((given - self.mean.to(given)) / self.scale.to(given)))

    def plain(self):
        """The fit as lists, for JSON."""
        return {"signs": list(SIGNS), **{name: part.tolist() for name, part in self._asdict().items()}}

    @classmethod
    def read(cls, plain):
        """The fit from `plain`. Raises ValueError for other signs and for numbers that are not finite."""
        parts = [torch.tensor(plain[name], dtype=torch.float32) for name in cls._fields]
        shapes = [tuple(part.shape) for part in parts]
        expected = [(len(SIGNS),), (len(SIGNS),), (2, len(SIGNS) + 1)]
        if tuple(plain["signs"]) != SIGNS or shapes != expected:
            raise ValueError(f"expected the signs {', '.join(SIGNS)}")
        if not all(part.isfinite().all() for part in parts):
            raise ValueError("numbers that are not finite")
        return cls(*parts)


def as_trained(settings):
    """The `HeatMap` of a network, by its `NetworkSettings`, at the temperature of its training."""
    return HeatMap(settings.temperature, f"heat map as trained (temperature {settings.temperature:g})")


def signs(found, metres_per_pixel, trained):
    """(P, F): features of a `Prediction` of P pairs that indicate its certainty, in the order of `SIGNS`.

    area: of the ground over which the heat map is spread (entropy), nats of square metres. peak: logarithm of
    the difference between maximum and mean of the logits. rival: how much lower the highest logit further
    than `RIVAL_M` away is. disagreement: between the eight forms. seen: the camera's field of view, degrees
    across times degrees down, as a share of a whole panorama's.
    """
    logits = found.logits.float() / trained
    H, W = logits.shape[1:]
    flat = logits.flatten(1)
    log_p = flat.log_softmax(1)
    entropy = -(log_p.exp() * log_p).sum(1)
    best, pixel = flat.max(1)
    rows, cols = torch.arange(H, device=flat.device), torch.arange(W, device=flat.device)
    down, right = rows[None] - (pixel // W)[:, None], cols[None] - (pixel % W)[:, None]
    distance = (down[:, :, None].square() + right[:, None].square()).sqrt() * metres_per_pixel[:, None, None]
    rival = logits.masked_fill(distance <= RIVAL_M, -torch.inf).flatten(1).amax(1)
    disagreement = torch.zeros_like(best) if found.disagreement is None else found.disagreement
    parts = [
        entropy + 2 * metres_per_pixel.log(),
        (best - flat.mean(1)).clamp_min(1e-3).log(),
        -torch.log1p((best - rival).clamp(0, 100)),
        (disagreement + 0.01).log(),
        (found.camera.hfov * found.camera.vfov / (360 * 180)).to(best),
    ]
    return torch.stack(parts, 1)


def fit_reliability(given, logits, pixel, trained):
    """The `Reliability` with the highest likelihood of the truth of N pairs.

    given: (N, F), their `signs`. logits: (N, pixels). pixel: (N,), the truth's. trained: the temperature of
    training, where the fit starts.
    """
    mean, scale = given.mean(0), given.std(0).clamp_min(1e-3)
    standard = (given - mean) / scale
    weights = torch.zeros(2, len(SIGNS) + 1)
    weights[:, -1] = torch.tensor([math.log(trained), -3.0])
    weights.requires_grad_()
    optimizer = torch.optim.LBFGS([weights], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = nll(logits, pixel, *_apply(weights, standard)).mean()
        value = value + PENALTY * weights[:, :-1].square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return Reliability(mean, scale, weights.detach())


def nll(logits, pixel, temperature, share):
    """Nats (N,) of the truth's pixel (N,) in the maps of logits (N, pixels)."""
    log_p = (logits / temperature[:, None]).log_softmax(1).gather(1, pixel[:, None])[:, 0]
    return -torch.logaddexp(log_p + torch.log1p(-share), share.log() - math.log(logits.shape[1]))


def mixed(logits, temperature, share):
    """Heat maps (P, H, W), each summing to 1, of logits (P, H, W)."""
    flat = logits.float().flatten(1)
    sharp = (flat / temperature[:, None]).softmax(1) * (1 - share)[:, None]
    return (sharp + share[:, None] / flat.shape[1]).reshape_as(logits)


def _apply(weights, standard):
    values = standard.clamp(-_CLIP, _CLIP) @ weights[:, :-1].T + weights[:, -1]
    return values[:, 0].exp(), values[:, 1].sigmoid()
