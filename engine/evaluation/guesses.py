"""What needs no network, for comparison: a random place on the street."""

import torch


def random_foreground(mask, index):
    """A position (B, 2) drawn evenly from each mask's foreground: what knowing the streets alone would give.

    mask: (B, 1, S, S) uint8 coverage, 0 to 255 · index: (B,), which seeds the draw. An empty mask gives its middle.
    """
    S = mask.shape[-1]
    draw = torch.stack([torch.rand(3, generator=torch.Generator().manual_seed(int(i))) for i in index]).to(mask.device)
    cumulative = mask.flatten(1).long().cumsum(1).double()  # whole numbers add up to the same in any order
    pixel = torch.searchsorted(cumulative, draw[:, :1].double() * cumulative[:, -1:], right=True).clamp_max(S * S - 1)
    position = torch.cat((pixel // S, pixel % S), 1) + draw[:, 1:]
    return torch.where(cumulative[:, -1:] > 0, position, S / 2)


def street_columns(logits, batch, position):
    """What `predict` takes to add `street_row` and `street_col`, a `random_foreground`, where there are masks."""
    if "mask" not in batch:
        return {}
    row, col = random_foreground(batch["mask"], batch["index"]).unbind(1)
    return {"street_row": row, "street_col": col}
