"""Logits and scores -> positions (row, col) in map pixels, headings, heights and probabilities."""

import math

import torch
import torch.nn.functional as F

from common.geometry import wrap_degrees

REGION = 0.9  # share of the probability in the region from which the spread is computed
NEAR_M = 5.0  # radius of the circle around a place whose probability is reported


def locate(logits, temperature):
    """The predicted position (B, 2): the expectation in a window around the maximum of logits (B, H, W).

    The window reaches a 64th of the longer side (two sigmas of the published target) to each side. At the
    image's edge it stays symmetric; otherwise the edge would push the estimate inwards.
    """
    B, H, W = logits.shape
    reach, last = max(1, max(H, W) // 64), torch.tensor([H - 1, W - 1], device=logits.device)
    peak = logits.flatten(1).argmax(1)
    peak = torch.stack((peak // W, peak % W), 1)  # (B, 2)
    steps = torch.arange(-reach, reach + 1, device=logits.device)
    window = peak[:, :, None] + steps  # (B, 2, w)
    room = torch.minimum(peak, last - peak)  # pixels between the peak and the nearest edge
    inside = steps.abs() <= room[:, :, None]
    window = torch.minimum(window.clamp_min(0), last[:, None])
    batch = torch.arange(B, device=logits.device)[:, None, None]
    values = logits[batch, window[:, 0, :, None], window[:, 1, None, :]].float() / temperature  # (B, w, w)
    values = values.masked_fill(~(inside[:, 0, :, None] & inside[:, 1, None, :]), -torch.inf)
    weights = values.flatten(1).softmax(1).reshape_as(values)
    offset = torch.stack(((weights.sum(2) * steps).sum(1), (weights.sum(1) * steps).sum(1)), 1)
    return peak + 0.5 + offset


def read_heading(scores, headings, position, size):
    """The heading, degrees (B,), by `_read_hypotheses`; on a full circle the ends are neighbours."""
    circular = len(headings) * (headings[1] - headings[0]) > 359
    return wrap_degrees(_read_hypotheses(scores, headings, position, size, circular))


def read_height(scores, heights, position, size):
    """The predicted height of the camera in metres, (B,), as `_read_hypotheses` reads its logarithm."""
    return _read_hypotheses(scores, heights.log(), position, size).exp()


def _read_hypotheses(scores, values, position, size, circular=False):
    """The value (B,) that is likeliest at a position, refined between evenly spaced hypotheses.

    scores: (B, K, h, w), log-likelihoods of values (K,) on a coarser grid.
    position: (B, 2), in satellite pixels; size: (height, width) that the grid covers from the corner on.

    A parabola through the best hypothesis and its two neighbours gives the estimate. At an end of the range,
    where there is one neighbour, it is the expectation over both.
    """
    there = _scores_at(scores, position, size)
    step = values[1] - values[0]
    best = there.argmax(1)
    neighbours = best[:, None] + torch.arange(-1, 2, device=best.device)
    outside = ((neighbours < 0) | (neighbours >= len(values))) & ~torch.as_tensor(circular)
    found = there.gather(1, neighbours % len(values))
    before, here, after = found.unbind(1)
    parabola = 0.5 * (before - after) / (before - 2 * here + after).clamp_max(-1e-6)
    weights = found.masked_fill(outside, -torch.inf).softmax(1)
    offset = torch.where(outside.any(1), weights[:, 2] - weights[:, 0], parabola.clamp(-0.5, 0.5))
    return values[best] + step * offset


def heading_doubt(scores, headings, position, size, labelled, within):
    """How much likelier another heading is at a position than the labelled one: nats (B,), 0 or more.

    scores, headings, position, size: as in `read_heading`. labelled: (B,) degrees, relative like `headings`;
    headings `within` so many degrees of it count as the labelled one.
    """
    there = _scores_at(scores, position, size)
    near = wrap_degrees(headings - labelled[:, None]).abs() <= within
    return there.amax(1) - there.masked_fill(~near, -torch.inf).amax(1)


def _scores_at(scores, position, size):
    """(B, K): scores (B, K, h, w) of a grid that covers `size`, (height, width), at positions (B, 2)."""
    height_width = torch.tensor(size, dtype=position.dtype, device=position.device)
    grid = (position * (2 / height_width) - 1).flip(1)[:, None, None].to(scores.dtype)
    return F.grid_sample(scores, grid, padding_mode="border", align_corners=False)[:, :, 0, 0]


def probability_map(logits, temperature):
    """Softmax over all pixels of each sample: (B, H, W), each summing to 1."""
    return (logits.float().flatten(1) / temperature).softmax(1).reshape_as(logits)


def truth_pixel(size, true_position):
    """The flat index (B,) of the pixel of a map `size` on a side nearest to a position (B, 2)."""
    cell = true_position.floor().long().clamp(0, size - 1)
    return cell[:, 0] * size + cell[:, 1]


def truth_region(probability, pixel):
    """The share (B,) of the probability (B, S, S) in pixels more probable than the truth's `truth_pixel`.

    Equally probable pixels, including that one, count half, so a flat map gives one half.
    """
    probability = probability.flatten(1)
    there = probability.gather(1, pixel[:, None])
    return (probability * ((probability > there) + 0.5 * (probability == there))).sum(1)


def mass_within(probability, position, radius):
    """The share (B,) of the probability (B, H, W) within circles; pixels on the rim count in part."""
    rows, cols = (torch.arange(side, device=probability.device) + 0.5 for side in probability.shape[-2:])
    distance = torch.hypot(rows[:, None] - position[:, :1, None], cols - position[:, 1:, None])
    return (probability * (radius[:, None, None] - distance + 0.5).clamp(0, 1)).sum((1, 2))


def spread(probability):
    """The spread of a heat map (H, W) as an ellipse: (longer, shorter standard deviation in pixels, bearing
    of the longer axis in degrees from 0 to 180).

    They are computed over the smallest region with a share `REGION` of the probability, so that a faint
    background does not count, and scaled so that a Gaussian gives its own standard deviations.
    """
    flat = probability.flatten().double()
    ordered, order = flat.sort(descending=True)
    count = int((ordered.cumsum(0) < REGION * flat.sum()).sum()) + 1
    weight, pixel = ordered[:count] / ordered[:count].sum(), order[:count]
    north, east = -(pixel // probability.shape[1]), pixel % probability.shape[1]
    place = torch.stack((north, east)).double()
    apart = place - (place * weight).sum(1, keepdim=True)
    of_gaussian = 1 + (1 - REGION) * math.log(1 - REGION) / REGION  # the share of its variance in the region
    squares = (apart * weight) @ apart.T / of_gaussian + torch.eye(2) / 12  # a pixel's own
    variance, axes = torch.linalg.eigh(squares)  # the smaller first
    bearing = float(torch.rad2deg(torch.atan2(axes[1, 1], axes[0, 1]))) % 180
    return float(variance[1].sqrt()), float(variance[0].sqrt()), bearing


def other_places(probability, position, radius, least=0.1, most=3):
    """Other likely places than `position`: [((row, col), share within `radius` px), ...], the best first.

    They are at least two radii apart, and each has at least the share `least`.
    """
    left, places = probability.clone(), []
    rows, cols = (torch.arange(side) + 0.5 for side in left.shape)
    k = max(1, round(radius / 2)) * 2 + 1

    def clear(place, reach):
        left[torch.hypot(rows[:, None] - place[0], cols - place[1]) < reach] = 0

    clear(position, 2 * radius)
    while len(places) < most:
        around = F.avg_pool2d(left[None, None], k, 1, k // 2)[0, 0]
        row, col = divmod(int(around.argmax()), left.shape[1])
        place = row + 0.5, col + 0.5
        share = float(mass_within(left[None], torch.tensor([place]), torch.tensor([float(radius)])))
        if share < least:
            break
        places.append((place, share))
        clear(place, 2 * radius)
    return places
