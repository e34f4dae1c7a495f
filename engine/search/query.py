"""A panorama's templates over a city's index: a score for every cell, a block at a time, by Fourier transforms.

    score(cell) = sum over the template's cells t of template(t) . feature(cell + t)

the log-likelihood, up to a constant, that the camera stands in the cell's middle and looks along a heading. Where it is not
known, a cell's score is that of the mean likelihood over headings; nor the camera's height, over heights too.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import max_pool2d

from common.geometry import wrap_degrees
from model.matching.correlation import fast_length

BLOCK = 256  # cells on a side that are scored at a time


class Templates(NamedTuple):
    """A panorama laid on the ground: kernel (C, K, n, n), n odd, each of a heading, (K,), degrees."""

    kernel: torch.Tensor
    headings: torch.Tensor


class Scored(NamedTuple):
    """A block of cells.

    row, col: of its first cell · score: (h, w) log-likelihoods, -inf where no image covers the cell or nobody asked · heading:
    (h, w), the best heading of each, degrees.
    """

    row: int
    col: int
    score: torch.Tensor
    heading: torch.Tensor


def make_templates(model, panorama, grid, camera=None):
    """The `Templates` of a normalised panorama (1, 3, H, W), or of a photograph with its camera (1, 12), for a city's grid."""
    metres = torch.tensor([grid.metres_per_pixel], dtype=torch.float32, device=panorama.device)
    with torch.inference_mode():
        kernel = model.describe_panorama(panorama, metres, grid.stride, camera)[0]
    headings = model.matching.template_headings
    return Templates(kernel.float(), headings if camera is None else wrap_degrees(headings + camera[0, 0]))


def scan(index, templates, near=None) -> Iterator[Scored]:
    """The `Scored` blocks of a city, or of what lies within a circle.

    near: (row, col, radius) in cells; nothing outside is scored. Blocks that no image touches are left out.
    """
    first_row, first_col, end_row, end_col = _asked(index.bounds, near)
    if first_row >= end_row or first_col >= end_col:
        return
    # As many blocks as it takes, all of one size, no larger than they need be.
    steps = [-(-side // -(-side // BLOCK)) for side in (end_row - first_row, end_col - first_col)]
    size = [fast_length(step + templates.kernel.shape[-1] - 1) for step in steps]
    spectrum = _template_spectrum(templates.kernel, size)
    for row in range(first_row, end_row, steps[0]):
        for col in range(first_col, end_col, steps[1]):
            height, width = min(steps[0], end_row - row), min(steps[1], end_col - col)
            if index.has(row, col, height, width):
                yield _score(index, templates, spectrum, size, row, col, height, width, near)


def _asked(bounds, near):
    """(first row, first col, end row, end col) of the cells to score."""
    if near is None:
        return bounds
    row, col, radius = near
    first = math.floor(row - radius), math.floor(col - radius)
    end = math.ceil(row + radius), math.ceil(col + radius)
    return (
        *(max(a, b) for a, b in zip(first, bounds[:2], strict=True)),
        *(min(a, b) for a, b in zip(end, bounds[2:], strict=True)),
    )


def _template_spectrum(kernel, size):
    """Conjugate of the spectrum (C, K, rows, cols // 2 + 1) of templates: rows that hold nothing are not transformed."""
    return torch.fft.fft(torch.fft.rfft(kernel, n=size[1]), n=size[0], dim=-2).conj().resolve_conj()


def _score(index, templates, spectrum, size, row, col, height, width, near):
    """Score cells from (row, col) on; the template's rim reaches into what lies around them."""
    half = templates.kernel.shape[-1] // 2
    features, covered = index.read(row - half, col - half, height + 2 * half, width + 2 * half)
    of_block, total = torch.fft.rfft2(features.to(templates.kernel.device), s=size), None
    for feature, template in zip(of_block, spectrum, strict=True):  # channels are summed before the transform back
        total = feature * template if total is None else total.addcmul_(feature.expand_as(template), template)
    each = torch.fft.irfft2(total, s=size)[:, :height, :width]  # (K, h, w)
    if len(each) == 1:
        score, heading = each[0], templates.headings.expand(height, width)
    else:
        score = each.logsumexp(0) - math.log(len(each))
        heading = templates.headings[each.argmax(0)]
    covered = covered[half : half + height, half : half + width].to(score.device)
    block = Scored(row, col, score.masked_fill(~covered, -torch.inf), heading)
    return block if near is None else restrict(block, [near[:2]], near[2])


class Candidate(NamedTuple):
    """A cell, its middle (row, col) in cells, that may hold the camera."""

    score: float
    row: float
    col: float
    heading: float


def best_cells(scored, most, apart):
    """Up to `most` `Candidate`s of `Scored` blocks, the best first, further apart than `apart` cells from each other."""
    found = [one for block in scored for one in _peaks(block, most, apart)]
    return keep_apart(sorted(found, key=lambda one: -one.score), most, apart)


def keep_apart(ordered, most, apart):
    """The first `most` of candidates, the best first, that lie further than `apart` from all before them."""
    kept = []
    for one in ordered:
        if all(math.hypot(one.row - other.row, one.col - other.col) > apart for other in kept):
            kept.append(one)
            if len(kept) == most:
                break
    return kept


def _peaks(block, most, apart):
    """The best cells of a block that are the highest within `apart` cells around them, or lie that near to its edge."""
    reach = max(1, math.floor(apart))
    score = block.score[None]  # the highest of rows first, then of columns: much faster than of squares
    highest = max_pool2d(max_pool2d(score, (2 * reach + 1, 1), 1, (reach, 0)), (1, 2 * reach + 1), 1, (0, reach))
    score = score.masked_fill(score < highest, -torch.inf).flatten()
    best = score.topk(min(most, len(score)))
    for value, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        if value == -math.inf:
            return
        row, col = divmod(place, block.score.shape[1])
        yield Candidate(value, block.row + row + 0.5, block.col + col + 0.5, float(block.heading[row, col]))


def extent(scored):
    """(first, end), each (row, col), of the cells that were scored in some blocks."""
    ends = []
    for block in scored:
        rows, cols = np.nonzero(torch.isfinite(block.score).cpu().numpy())
        ends += [(block.row + rows.min(), block.col + cols.min()), (block.row + rows.max() + 1, block.col + cols.max() + 1)]
    return np.min(ends, 0), np.max(ends, 0)


def as_map(scored, first, end):
    """The scores of the cells from `first` to `end`, (row, col) each, as one tensor on the CPU; -inf where none was scored."""
    whole = torch.full(tuple((end - first).tolist()), -torch.inf)
    for block in scored:
        top, left = (block.row, block.col) - first
        part = block.score[max(0, -top) :, max(0, -left) :]
        there = whole[max(0, top) :, max(0, left) :][: part.shape[0], : part.shape[1]]
        there.copy_(part[: there.shape[0], : there.shape[1]])
    return whole


def log_mass(scored, temperature):
    """Log of the sum over all cells of exp(score / temperature)."""
    parts = [(block.score / temperature).flatten().logsumexp(0) for block in scored]
    return float(torch.stack(parts).logsumexp(0)) if parts else -np.inf


def restrict(block, middles, radius):
    """The same block, scored only within a radius of the nearest of some places (row, col), all in cells."""
    height, width = block.score.shape
    rows = torch.arange(block.row, block.row + height, device=block.score.device) + 0.5
    cols = torch.arange(block.col, block.col + width, device=block.score.device) + 0.5
    inside = torch.zeros_like(block.score, dtype=torch.bool)
    for row, col in middles:
        inside |= torch.hypot(rows[:, None] - row, cols - col) <= radius
    return block._replace(score=block.score.masked_fill(~inside, -torch.inf))
