"""Scores for the cells of a city's index: correlation with a panorama's templates, block by block, by FFT.

    score(cell) = sum over the template's cells t of template(t) . feature(cell + t)

is the log-likelihood, up to a constant, that the camera stands at the cell's centre with a given heading. If
heading or height are unknown, a cell's score is the log of the mean likelihood over headings and heights.
"""

import math
from collections.abc import Iterator
from itertools import chain, islice, product
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import max_pool2d, pad

from common.geometry import wrap_degrees
from model.coarse import SQUARE
from model.matching.correlation import fast_length

BLOCK = 256  # cells on a side that are scored at a time
_GROUP = 64  # cells on a side in which squares make one block
_BATCH = 256  # squares in one product of matrices, about


class Templates(NamedTuple):
    """A panorama projected to the ground: kernels (C, K, n, n), n odd, and their headings (K,), degrees.

    prior: (K,), the logarithm of how likely each is before the images are seen, times K.
    """

    kernel: torch.Tensor
    headings: torch.Tensor
    prior: torch.Tensor


class Scored(NamedTuple):
    """A block of cells."""

    row: int  # of its first cell
    col: int
    score: torch.Tensor  # (h, w) log-likelihoods; -inf without an image or outside the search
    heading: torch.Tensor  # (h, w), the best heading of each cell, degrees


def make_templates(network, query, camera, grid, hypotheses):
    """The `Templates` of a query image (1, 3, H, W) and `Hypotheses`; its camera's heading is the prior."""
    metres = torch.tensor([grid.metres_per_pixel], dtype=torch.float32, device=query.device)
    with torch.inference_mode():
        kernel = network.encode_query(query, camera, metres, grid.stride, hypotheses)[0]
    headings = wrap_degrees(hypotheses.template_headings + camera.heading)
    return Templates(kernel.float(), headings, hypotheses.template_prior)


def scan(index, templates, near=None, part=(0, 1), squares=None) -> Iterator[Scored]:
    """The `Scored` blocks of a city, within a circle `near` (row, col, radius) in cells, or None.

    part: (number, count), every count-th block from a number on.
    squares: first cells (N, 2) of the only squares to look at, `SQUARE` cells on a side, or None.
    """
    first, end = np.array(index.bounds[:2]), np.array(index.bounds[2:])
    if near is not None:
        centre = np.array(near[:2])
        first = np.maximum(first, np.floor(centre - near[2]).astype(int))
        end = np.minimum(end, np.ceil(centre + near[2]).astype(int))
    if (first >= end).any():
        return
    if squares is None:
        found = score_blocks(index, templates, first, end, part)
        blocks = (Scored(row, col, *_over_templates(*scores, templates)) for row, col, *scores in found)
    else:
        blocks = _scan_squares(index, templates, squares, part)
    for block in blocks:
        yield block if near is None else restrict(block, [near[:2]], near[2])


def _over_templates(scores, covered, templates):
    """Of scores (K, ...): the log of the mean likelihood, -inf where not covered, and the best heading."""
    score, best = scores.logsumexp(0) - math.log(len(scores)), scores.argmax(0)
    return score.masked_fill(~covered.to(score.device), -torch.inf), templates.headings[best]


def score_blocks(index, templates, first, end, part=(0, 1)):
    """The scores of each template in blocks of the cells from `first` to `end`, (row, col) each.

    part: (number, count), every count-th block from a number on.

    Yields (row, col) of a block's first cell, its scores (K, h, w) and its coverage (h, w).
    """
    # As few blocks as possible, all of one size, and no larger than necessary.
    steps = [-(-side // -(-side // BLOCK)) for side in (np.asarray(end) - first).tolist()]
    corners = product(range(first[0], end[0], steps[0]), range(first[1], end[1], steps[1]))
    sides = ((r, c, min(steps[0], end[0] - r), min(steps[1], end[1] - c)) for r, c in corners)
    half = templates.kernel.shape[-1] // 2
    size = [fast_length(step + 2 * half) for step in steps]
    # The conjugate spectrum (C, K, rows, cols // 2 + 1); padding rows of the templates are not transformed.
    spectrum = torch.fft.fft(torch.fft.rfft(templates.kernel, n=size[1]), n=size[0], dim=-2)
    spectrum = spectrum.conj().resolve_conj()
    for row, col, height, width in islice(sides, part[0], None, part[1]):
        # The templates reach beyond the block.
        features, covered = index.read(row - half, col - half, height + 2 * half, width + 2 * half)
        covered = covered[half : half + height, half : half + width]
        if covered.any():
            scores = _correlate(features.to(spectrum.device), spectrum, size)[:, :height, :width]
            yield row, col, scores + templates.prior[:, None, None], covered


def _scan_squares(index, templates, squares, part):
    """The `Scored` blocks of squares: those of one group make a block, without the cells between them."""
    which = np.unique(squares // _GROUP, axis=0, return_inverse=True)[1].ravel()
    order = np.argsort(which, kind="stable")  # neighbours in turn, so that chunks are read once
    order = order[which[order] % part[1] == part[0]]
    if not len(order):
        return
    batches = np.array_split(squares[order], -(-len(order) // _BATCH))
    found = _score_squares(index, templates, batches)
    found = torch.cat([torch.stack(both, 1) for both in found]).cpu().numpy()  # (N, 2, SQUARE, SQUARE)
    ends = np.flatnonzero(np.diff(which[order])) + 1
    for corners, values in zip(np.split(squares[order], ends), np.split(found, ends), strict=True):
        first = corners.min(0)
        i, j = (corners - first).T // SQUARE
        block = np.full((2, i.max() + 1, SQUARE, j.max() + 1, SQUARE), -np.inf, np.float32)
        block[:, i, :, j] = values
        block = torch.from_numpy(block).flatten(3).flatten(1, 2)
        yield Scored(*first.tolist(), *block)


def _score_squares(index, templates, batches):
    """The (scores, headings), (N, SQUARE, SQUARE) each, of batches of squares (N, 2).

    The features around each square are multiplied by a matrix of the templates, moved to each of its cells,
    so that the cost grows with the number of squares alone.
    """
    kernel, half, spare = templates.kernel, templates.kernel.shape[-1] // 2, SQUARE - 1
    moves = list(product(range(SQUARE), repeat=2))
    moved = torch.stack([pad(kernel, (c, spare - c, r, spare - r)) for r, c in moves], -1)
    matrix = moved.permute(2, 3, 0, 1, 4).reshape(-1, kernel.shape[1] * len(moves))
    for squares in batches:
        features, covered = index.windows(squares - half, SQUARE + 2 * half)
        scores = (features.to(kernel.device).flatten(1) @ matrix).view(len(squares), -1, SQUARE, SQUARE)
        scores = scores.transpose(0, 1) + templates.prior[:, None, None, None]
        yield _over_templates(scores, covered[:, half:-half, half:-half], templates)


def _correlate(features, spectrum, size):
    """Correlation (K, *size) of features (C, h, w) with templates."""
    total = None  # over channels, before the transform back
    for feature, template in zip(torch.fft.rfft2(features, s=size), spectrum, strict=True):
        total = feature * template if total is None else total.addcmul_(feature.expand_as(template), template)
    return torch.fft.irfft2(total, s=size)


class Candidate(NamedTuple):
    """A cell that may hold the camera: score, centre (row, col) in cells, best heading in degrees."""

    score: float
    row: float
    col: float
    heading: float


def best_cells(scored, most, apart, together=lambda peaks: [peaks]):
    """Up to `most` `Candidate`s of `Scored` blocks, best first, more than `apart` cells from each other.

    together: gives the lists of all processes that share the blocks, from this one's.
    """
    peaks = together([peak for block in scored for peak in _peaks(block, most, apart)])
    # Ordered by place too, so that equal scores come in one order whoever scored them.
    peaks = sorted(chain.from_iterable(peaks), key=lambda peak: (-peak.score, peak.row, peak.col))
    return nms(peaks, lambda one, other: math.hypot(one.row - other.row, one.col - other.col) <= apart, most)


def nms(ordered, is_near, most=None):
    """Non-maximum suppression: up to `most` items, best first, without those that are near a better one."""
    kept = []
    for item in ordered:
        if len(kept) == most:
            break
        if not any(is_near(item, better) for better in kept):
            kept.append(item)
    return kept


def _peaks(block, most, apart):
    """The best cells of a block that are the highest within `apart` cells around them."""
    reach = max(1, math.floor(apart))
    # The maximum over rows, then over columns: much faster than over squares.
    highest = max_pool2d(block.score[None], (2 * reach + 1, 1), 1, (reach, 0))
    highest = max_pool2d(highest, (1, 2 * reach + 1), 1, (0, reach))[0]
    score = block.score.masked_fill(block.score < highest, -torch.inf).flatten()
    best = score.topk(min(most, len(score)))
    for value, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        if value == -math.inf:
            return
        row, col = divmod(place, block.score.shape[1])
        yield Candidate(value, block.row + row + 0.5, block.col + col + 0.5, float(block.heading[row, col]))


def extent(scored):
    """(first, end), each (row, col), of the cells that have a score in some blocks."""
    corners = []
    for block in scored:
        cells = torch.isfinite(block.score).nonzero().cpu().numpy() + (block.row, block.col)
        corners.append((cells.min(0), cells.max(0) + 1))
    firsts, ends = zip(*corners, strict=True)
    return np.min(firsts, 0), np.max(ends, 0)


def as_map(scored, first, end):
    """The scores of the cells from `first` to `end`, (row, col) each, on the CPU; -inf for those without."""
    whole = torch.full(tuple((end - first).tolist()), -torch.inf)
    for block in scored:
        top, left = (block.row, block.col) - first
        part = block.score[max(0, -top) :, max(0, -left) :]
        target = whole[max(0, top) :, max(0, left) :][: part.shape[0], : part.shape[1]]
        target.copy_(part[: target.shape[0], : target.shape[1]])
    return whole


def log_mass(scored, temperature):
    """Log of the sum over all cells of exp(score / temperature)."""
    sums = [(block.score / temperature).flatten().logsumexp(0) for block in scored]
    return float(torch.stack(sums).logsumexp(0)) if sums else -math.inf


def restrict(block, centres, radius):
    """The same block with scores only within a radius of at least one of the centres (row, col), in cells."""
    height, width = block.score.shape
    rows = torch.arange(block.row, block.row + height, device=block.score.device) + 0.5
    cols = torch.arange(block.col, block.col + width, device=block.score.device) + 0.5
    inside = torch.zeros_like(block.score, dtype=torch.bool)
    for row, col in centres:
        if -radius < row - block.row < height + radius and -radius < col - block.col < width + radius:
            inside |= torch.hypot(rows[:, None] - row, cols - col) <= radius
    return block._replace(score=block.score.masked_fill(~inside, -torch.inf))
