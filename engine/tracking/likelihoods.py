"""What a network says of a frame's image, over the states of a lattice.

Two levels of detail. Far from certain, the frame's templates are correlated with the city's index, cell by
cell. Once the belief fits into a satellite image, the network's heat map around it gives places to a fraction
of a metre. Both are log-likelihood ratios: 0 where a state is as likely as the mean of the region looked at,
which is larger than the belief, so that an image that fits nothing near it tells so.
"""

import math
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from common.geometry import SATELLITE_PX, latitude_longitude, metres_per_pixel, wrap_degrees
from dataset.augment import cut
from dataset.loader import collate
from efficientnet_pytorch.utils import normalise
from engine.inference.predictor import Predictor, to_device
from engine.search.query import Templates, score_blocks
from engine.tracking.lattice import SHARPER, Belief, Level, covering, squares
from engine.tracking.pose import mean_heading, mean_place

FINE_REACH_M = 22.0  # half of the side of a belief that one satellite image, 36 m to each side, may serve
FINE_SPAN_DEG = 60.0
FINE_STEP_DEG = 2.0
# Way over which the errors of the index's scores are correlated: a wrong heading misleads for whole streets.
CELLS_M, CELLS_ANY_HEADING_M = 10.0, 20.0
SQUARES, SQUARE_SHARE = 3, 0.1  # parts of a wide belief that are looked at in detail, and the least share
REGION_M = 60.0  # half of the side of what is looked at, at least
_NOWHERE = -60.0  # the log-likelihood of a place that no satellite image shows
_TINY = 1e-30


class Likelihood:
    """The log-likelihoods of a drive's frames by a network, over places and headings in a city.

    city: a `SearchCity`; network, view, device: what is asked, and how.
    sample: a function of a frame's number that gives its sample, or None for a frame without an image.
    heat_map: how the network's logits become probabilities, a `HeatMap`.
    cells: the temperature of the scores of the index's cells.
    """

    def __init__(self, city, network, view, device, sample, heat_map, cells):
        self.city, self.network, self.view, self.device, self.sample = city, network, view, device, sample
        self.heat_map, self.cells = heat_map, cells
        self.grid = city.index.grid
        self.step_deg = 360 / network.settings.heading_bins
        self.predictors = {}

    @property
    def levels(self):
        """The `Level`s at which it can be asked, fine to coarse."""
        grid = self.grid
        fine = grid.cell_m / grid.stride / 2
        apart = CELLS_M if self.knows_heading else CELLS_ANY_HEADING_M
        return (
            Level(fine, FINE_STEP_DEG, FINE_REACH_M, FINE_SPAN_DEG, sharper=SHARPER),
            Level(grid.cell_m, self.step_deg, correlated_m=apart),
            Level(2 * grid.cell_m, self.step_deg, correlated_m=apart),
            Level(4 * grid.cell_m, self.step_deg, correlated_m=apart, states=2**60),
        )

    def to_place(self, map_px):
        """(south, east) in metres of places on the map, pixels at zoom 20."""
        return self.grid.to_cells(map_px) * self.grid.cell_m

    def to_map(self, place):
        """Inverse of `to_place`."""
        return self.grid.to_map(np.asarray(place) / self.grid.cell_m)

    def from_gps(self, latitude, longitude):
        """(south, east) in metres of a position in degrees."""
        return tuple((self.grid.from_gps(latitude, longitude) * self.grid.cell_m).tolist())

    def to_gps(self, place):
        """Inverse of `from_gps`."""
        return self.grid.to_gps(np.asarray(place) / self.grid.cell_m)

    def __call__(self, frame, belief):
        """The log-likelihood of a frame's image, broadcastable to the (K, h, w) of a belief before it."""
        sample = self.sample(frame)
        if sample is None:
            return torch.zeros(1, 1, 1)
        if belief.lattice.level.cell_m >= self.grid.cell_m:
            return self._by_index(sample, belief)
        if not self._is_shown(place := mean_place(belief)):
            return torch.full((1, 1, 1), _NOWHERE)
        return self._in_detail(sample, belief.lattice, place, mean_heading(belief))

    def _is_shown(self, place):
        """Whether a satellite image around a place (south, east) would show anything."""
        away = abs(self.city.tiles.centres_px - self.to_map(place)).max(1).min()
        return away < SATELLITE_PX

    def _batch(self, sample, heading):
        sample = {name: sample[name] for name in ("query", "camera", "taken") if name in sample}
        turn = heading - float(sample["camera"].heading)
        batch = to_device(collate([sample]), self.device)
        return batch | {"camera": batch["camera"].turned(turn)}

    @property
    def knows_heading(self):
        """Whether the network takes headings as given, so that an image says nothing of them."""
        return self.view.ori_noise == 0

    def _by_index(self, sample, belief):
        """From the index's cells, at their size or a multiple of it."""
        lattice, grid = belief.lattice, self.grid
        headings = lattice.centres()[0]
        if self.knows_heading:
            headings = torch.tensor([mean_heading(belief)])
        region = _region(covering(lattice, self.levels[1]), REGION_M)
        scores = self._cell_scores(sample, headings, region) / self.cells
        shown = torch.isfinite(scores).sum()
        if not shown:
            return torch.full((1, 1, 1), _NOWHERE)
        log = scores - (scores.flatten().logsumexp(0) - math.log(int(shown)))
        size = round(lattice.level.cell_m / grid.cell_m)
        i, j = lattice.row * size - region.row, lattice.col * size - region.col
        part = log[:, i : i + lattice.shape[1] * size, j : j + lattice.shape[2] * size]
        if size > 1:
            part = F.avg_pool2d(part.clamp_max(60).exp(), size).log()
        return self._with_details(sample, belief, part.clamp_min(_NOWHERE), log, region)

    def _with_details(self, sample, belief, log, by_cell, region):
        """The index's log-likelihoods of a belief's states; by the heat map in the likeliest squares.

        by_cell: those of the index's cells in a region, a `Lattice`: their mean tells squares apart.
        """
        lattice, level, cell = belief.lattice, belief.lattice.level, self.grid.cell_m
        fine = Level(self.levels[0].cell_m, level.step_deg)
        size = round(level.cell_m / fine.cell_m)
        side = round(SATELLITE_PX / self.grid.cell_px)  # of a satellite image, in cells
        log, likely = log.clone(), Belief(lattice, belief.p * (log / 2).exp())
        for part in squares(likely, FINE_REACH_M, SQUARES, SQUARE_SHARE):
            place, span = mean_place(part), part.lattice.shape[0] * level.step_deg
            if not self._is_shown(place) or (span > FINE_SPAN_DEG and not self.knows_heading):
                continue
            there = self._in_detail(sample, covering(part.lattice, fine), place, mean_heading(part))
            i, j = (max(0, round(x / cell) - side // 2 - r) for x, r in zip(place, region[2:4], strict=True))
            image = by_cell[:, i : i + side, j : j + side]
            if not (shown := int(torch.isfinite(image).sum())):
                continue
            there = F.avg_pool2d(there.exp(), size).log() + image.flatten().logsumexp(0) - math.log(shown)
            k = (part.lattice.heading - lattice.heading + torch.arange(len(there))) % level.headings
            i, j = part.lattice.row - lattice.row, part.lattice.col - lattice.col
            k = k * (len(log) > 1)  # one for all headings
            log[k, i : i + there.shape[1], j : j + there.shape[2]] = there.clamp_min(_NOWHERE)
        return log

    @torch.inference_mode()
    def _cell_scores(self, sample, headings, region):
        """Log-likelihoods (K, h, w) of headings (K,) at the index's cells in a region, a `Lattice`.

        They are known up to a constant, and -inf where no satellite image lies.
        """
        network, grid = self.network, self.grid
        batch = cut(self._batch(sample, 0.0), self.view)
        asked = network.hypotheses(0.0, self.view.camera_height, self.view.usual_height)
        asked = asked._replace(headings=headings.to(self.device, torch.float32))
        metres = torch.tensor([grid.metres_per_pixel], device=self.device)
        query = normalise(batch["query"])
        kernel = network.encode_query(query, batch["camera"], metres, grid.stride, asked)[0].float()
        templates = Templates(kernel, wrap_degrees(asked.template_headings), asked.template_prior)
        K, (h, w) = len(headings), region.shape[1:]
        scores = torch.full((K, h, w), -torch.inf)
        first = region.row, region.col
        for row, col, part, covered in score_blocks(self.city.index, templates, first, region.end):
            part = part.unflatten(0, (-1, K)).logsumexp(0) - math.log(len(asked.heights))
            part = part.masked_fill(~covered.to(part.device), -torch.inf).cpu()
            i, j = row - region.row, col - region.col
            scores[:, i : i + part.shape[1], j : j + part.shape[2]] = part
        return scores

    def _in_detail(self, sample, lattice, place, heading):
        """From the heat map of a satellite image around a place, with headings around one."""
        noise = self._heading_noise(lattice)
        log, corner, scores, given = self._map_scores(sample, place, heading, noise)
        _, south, east = lattice.centres()
        # Where the lattice's cells lie in the satellite image, as shares of it.
        first = self.to_place(corner)
        side = SATELLITE_PX * self.grid.cell_m / self.grid.cell_px
        share = [(axis.double() - at) / side for axis, at in ((south, first[0]), (east, first[1]))]
        y, x = torch.meshgrid(*(2 * at.float() - 1 for at in share), indexing="ij")
        there = torch.stack((x, y), -1)[None]

        def at_cells(maps):
            return F.grid_sample(maps[None], there, padding_mode="border", align_corners=False)[0]

        log = at_cells(log[None])
        if scores is None:
            return log
        scores = at_cells(scores)
        scores = scores - (scores.logsumexp(0) - math.log(len(scores)))
        return log + _between(scores, given, lattice.centres()[0])

    @torch.inference_mode()
    def _map_scores(self, sample, place, heading, noise):
        """(log heat map (H, W), its corner on the map, heading scores (K, ., .), headings (K,)).

        place: (south, east) of the satellite image's centre; heading: the prior, noise: how far it is off at
        most, degrees; the last two results are None where headings are given. The heat map is relative to
        its mean.
        """
        settings = self.network.settings
        size = settings.satellite_size
        image, mask, corner = self.city.tiles.cut(self.to_map(place), settings.use_mask)
        metres = metres_per_pixel(latitude_longitude(*(corner + SATELLITE_PX / 2))[0], size)
        tile = {"satellite": torch.from_numpy(image).permute(2, 0, 1)[None]}
        tile["metres_per_pixel"] = torch.tensor([float(metres)])
        if settings.use_mask:
            tile["mask"] = torch.from_numpy(mask)[None, None]
        tile = to_device(tile, self.device)
        found = self._predictor(noise)(self._batch(sample, heading) | tile)
        probability = self.heat_map.probability(found, tile["metres_per_pixel"])[0].cpu()
        log = (probability * probability.numel()).clamp_min(_TINY).log()
        if found.heading_scores is None:
            return log, corner, None, None
        return log, corner, found.heading_scores[0].float().cpu(), found.headings.cpu() + heading

    def _heading_noise(self, lattice):
        """How far the headings of a lattice lie from its middle, in whole steps of the network."""
        if self.knows_heading:
            return 0.0
        half = (lattice.shape[0] - 1) * lattice.level.step_deg / 2
        return min(180.0, self.step_deg * max(1, math.ceil(half / self.step_deg)))

    def _predictor(self, noise):
        """The `Predictor` that tries headings within `noise` of the prior."""
        if noise not in self.predictors:
            view = replace(self.view, ori_noise=noise)
            self.predictors[noise] = Predictor(self.network, view, self.device)
        return self.predictors[noise]


def _region(lattice, least_m):
    """A lattice that reaches at least so far from its middle."""
    bounds = []
    for first, count in ((lattice.row, lattice.shape[1]), (lattice.col, lattice.shape[2])):
        more = max(0, math.ceil(least_m / lattice.level.cell_m - count / 2))
        bounds.append((first - more, count + 2 * more))
    (row, h), (col, w) = bounds
    return lattice._replace(row=row, col=col, shape=(lattice.shape[0], h, w))


def _between(scores, given, wanted):
    """Log-likelihoods (K', h, w) of headings (K',) from scores (K, h, w) of evenly spaced ones, degrees.

    A parabola through a heading's three nearest gives each.
    """
    step = float(given[1] - given[0])
    place = (wrap_degrees(wanted - given[len(given) // 2]) / step) + len(given) // 2
    middle = place.round().long().clamp(1, len(given) - 2)
    t = (place - middle).clamp(-1.5, 1.5)[:, None, None]
    before, here, after = scores[middle - 1], scores[middle], scores[middle + 1]
    return here + t * (after - before) / 2 + t * t * (before - 2 * here + after) / 2
