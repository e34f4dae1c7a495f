"""Negatives: satellite images, of the batch or mined, that do not contain a panorama's place."""

import torch

from common.geometry import SATELLITE_PX, position_to_map

NONE = -1  # a row of a table that is not filled


def holds_place(batch, size):
    """(B, B): whether satellite image j of a batch, `size` pixels on a side, contains query i's place."""
    place = position_to_map(batch["corner"], batch["position"].double(), size)
    inside = (place[:, None] - batch["corner"]) / SATELLITE_PX
    return ((inside >= 0) & (inside < 1)).all(-1)


def choose_negatives(batch, count):
    """(B, count) int64: other satellite images for each panorama of a batch, `NONE` where too few remain.

    They are drawn at random, first from the panorama's city, and never contain its place. The batch is that
    of `VigorDataset` before augmentation; draws come from torch's global generator.
    """
    B, city = len(batch["city"]), batch["city"].cpu()
    priority = torch.rand(B, B) + (city[:, None] == city)
    priority = priority.masked_fill(holds_place(batch, batch["satellite"].shape[-1]).cpu(), -1.0)
    best = priority.topk(min(count, B), dim=1)
    chosen = torch.where(best.values >= 0, best.indices, NONE)
    return torch.nn.functional.pad(chosen, (0, count - chosen.shape[1]), value=NONE)


def pair_up(batch, chosen):
    """Pairs a batch with its negatives: (batch, pairs (B N, 2), missing (B, N)).

    The augmented batch may hold mined images, `others` (B, M, 3, S, S); `chosen` (B, n) is as of
    `choose_negatives`. The returned batch holds each panorama's satellite images next to each other, its own
    first. Pairs are (panorama, satellite image), N per panorama. Missing ones repeat the panorama's own image
    and do not count.
    """
    B, device = len(chosen), batch["satellite"].device
    chosen = chosen.to(device)
    M = batch["others"].shape[1] if "others" in batch else 0
    if M:
        batch = batch | {
            name: torch.cat([batch[name][:, None], batch[others]], 1).flatten(0, 1)
            for name, others in (("satellite", "others"), ("mask", "others_mask"))
            if name in batch
        }
        batch["metres_per_pixel"] = batch["metres_per_pixel"].repeat_interleave(1 + M)
    own = torch.arange(B, device=device)[:, None]
    of_batch = torch.where(chosen == NONE, own, chosen) * (1 + M)
    satellites = torch.cat([own * (1 + M) + torch.arange(1 + M, device=device), of_batch], 1)
    missing = torch.cat([torch.zeros(B, 1 + M, dtype=torch.bool, device=device), chosen == NONE], 1)
    return batch, torch.stack([own.expand_as(satellites), satellites], -1).flatten(0, 1), missing
