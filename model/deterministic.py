"""Pooling and sampling whose gradients are bit-identical in every run.

On a GPU, PyTorch's faster kernels add gradients in no fixed order and raise an error under `--deterministic`.
The functions below then compute the same values by matrix products and gathers, which have fixed orders.
"""

import torch
import torch.nn.functional as F


def wanted(x):
    """Whether this tensor's gradients need the ordered forms."""
    return x.is_cuda and torch.are_deterministic_algorithms_enabled()


def adaptive_average_pool(x, size):
    """`F.adaptive_avg_pool2d` of (B, C, H, W) to `size` (height, width)."""
    if not wanted(x):
        return F.adaptive_avg_pool2d(x, size)
    rows, cols = (_average(length, count).to(x) for length, count in zip(x.shape[-2:], size, strict=True))
    return rows @ x @ cols.mT


def adaptive_maximum_pool(x, size):
    """`F.adaptive_max_pool2d` of (B, C, H, W) to `size` (height, width)."""
    if not wanted(x):
        return F.adaptive_max_pool2d(x, size)
    for axis, count in zip((2, 3), size, strict=True):
        first, last = _bins(x.shape[axis], count)
        steps = torch.arange(int((last - first).max()))
        taken = torch.minimum(first[:, None] + steps, last[:, None] - 1).to(x.device)
        x = x.index_select(axis, taken.flatten()).unflatten(axis, taken.shape).max(axis + 1).values
    return x


def sample(feature, grid):
    """`F.grid_sample` of (B, C, H, W) at a (B, h, w, 2) grid, clamped at the border, corners not aligned."""
    if not wanted(feature):
        return F.grid_sample(feature, grid, padding_mode="border", align_corners=False)
    _, C, H, W = feature.shape
    col, row = (((grid[..., k] + 1) * side - 1).div(2).clamp(0, side - 1) for k, side in ((0, W), (1, H)))
    left, top = col.floor().long(), row.floor().long()
    right, below = (left + 1).clamp_max(W - 1), (top + 1).clamp_max(H - 1)

    def take(rows, cols):
        place = (rows * W + cols).flatten(1)[:, None].expand(-1, C, -1)
        return feature.flatten(2).gather(2, place).unflatten(2, grid.shape[1:3])

    across, down = (col - left)[:, None], (row - top)[:, None]
    upper = torch.lerp(take(top, left), take(top, right), across)
    return torch.lerp(upper, torch.lerp(take(below, left), take(below, right), across), down)


def _bins(length, count):
    """(first, end) of the entries of an axis that each of `count` bins covers; neighbours may share one."""
    place = torch.arange(count)
    return place * length // count, ((place + 1) * length + count - 1) // count


def _average(length, count):
    """(count, length): each row averages over a bin."""
    first, last = _bins(length, count)
    place = torch.arange(length)
    inside = (place >= first[:, None]) & (place < last[:, None])
    return inside / inside.sum(1, keepdim=True)
