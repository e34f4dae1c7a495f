"""Where in some cities a query image was taken: every cell is scored, the best ones are matched in detail.

scan        the query's templates over the index of each city -> a score for every cell
places      the best cells -> an image cut around each -> its heat map -> results, probabilities
"""

import math
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch

from common import geometry
from common.errors import UserError
from common.geometry import SATELLITE_PX, latitude_longitude, metres_per_pixel, position_to_map
from common.settings import LATITUDE, LONGITUDE
from dataset.augment import cut
from dataset.loader import collate
from efficientnet_pytorch.utils import normalise
from engine import distributed
from engine.inference.decode import NEAR_M
from engine.inference.predictor import Estimate, Predictor, to_device
from engine.inference.reliability import as_trained
from engine.search.index import CityIndex, index_address, open_index
from engine.search.query import Candidate, best_cells, log_mass, make_templates, nms, restrict, scan
from engine.search.tiles import Tiles

_HALF_M = 50.0  # from a satellite image's centre to its corner, about
POOL = 16  # cells that are matched in detail
_BATCH = 16  # of them at a time
_OF_QUERY = ("query", "camera", "taken")  # entries of a sample that a search uses


class SearchTemperatures(NamedTuple):
    """Temperatures of the softmaxes over cells and results, 1 as trained, and their origin in words."""

    cells: float = 1.0
    places: float = 1.0
    name: str = "probabilities as trained, not calibrated"


class SearchCity(NamedTuple):
    """A city that can be searched: name, number in the `cities` of a `VigorIndex`, images, index."""

    name: str
    number: int
    tiles: Tiles
    index: CityIndex


class SearchResult(NamedTuple):
    """Where a query image may have been taken. Its heading is estimated, or the prior."""

    city: SearchCity
    map_px: tuple  # (row, col) on the map at zoom 20
    latitude: float
    longitude: float
    heading: float  # true bearing of the query image's centre, degrees
    probability: float  # that the camera stood within 5 m
    log_evidence: float  # the result's logit among all results
    satellite: np.ndarray  # (S, S, 3), the image that was cut around the cell
    corner: np.ndarray  # its north-west corner on the map
    estimate: Estimate  # the network's in that image
    candidate: Candidate


def open_cities(
    network, weights, index, images, numbers, device, root, *, rebuild=False, skip=False, streets=False
):
    """The `SearchCity`s of some cities for a network with templates; what is missing of indexes is built.

    The processes of torchrun call this together and share the work.

    weights: the hash of the network's file.
    index, images: a `VigorIndex`, whose lists name the satellite images, and their `OriginalImages`.
    numbers: of the cities in the index's `cities`.
    root: folder or address of the indexes, in which each city has a folder; rebuild: make them anew.
    skip: leave out satellite images that cannot be read. streets: search only streets, by the masks.
    Raises UserError as `open_index` does.
    """
    cities = []
    for number in numbers:
        name, tiles = index.cities[number], Tiles.of_city(index, number, images, skip)
        place = index_address(root, network, weights, name, tiles, streets)
        made = open_index(place, network, weights, name, tiles, device, rebuild, streets)
        cities.append(SearchCity(name, number, tiles, made))
    return cities


class Scores(dict):
    """The `Scored` blocks of cities; recall: how likely the place is among the squares looked at."""

    recall = 1.0


class Searcher:
    """A network with templates on its device, its `View`, and the `SearchCity`s that it searches.

    shared: the processes of torchrun search for the same query image together: each scores its blocks, and
    the best cells and sums of all are exchanged.
    coarse: a `CoarseSearch` that says which squares are looked at; None: all.
    """

    def __init__(self, network, view, device, cities, temperatures=None):
        self.network, self.view, self.device, self.cities = network, view, device, cities
        self.shared, self.coarse = False, None
        self.temperatures = temperatures or SearchTemperatures()  # of its probabilities; may be replaced
        self.predictor = Predictor(network, view, device)

    def city_of(self, number):
        """The `SearchCity` of a number."""
        return next(city for city in self.cities if city.number == number)

    @torch.inference_mode()
    def scan(self, sample, cities=None, near=None, exhaustive=False):
        """`Scores`, {city: its `Scored` blocks}, of a sample's query image over some cities, or all.

        Only `near`, (latitude, longitude, radius in metres), is scored. UserError if no image lies there.
        exhaustive: look at all squares, whatever `coarse` says.
        """
        query, camera = self.query_of(sample)
        view = self.view
        hypotheses = self.network.hypotheses(view.ori_noise, view.camera_height, view.usual_height)
        scored, asked = Scores(), []
        for city in cities or self.cities:
            grid = city.index.grid
            circle = None if near is None else (*grid.from_gps(*near[:2]).tolist(), near[2] / grid.cell_m)
            asked.append((city, make_templates(self.network, query, camera, grid, hypotheses), circle))
        squares = {}
        if self.coarse and not exhaustive:
            squares, scored.recall = self.coarse.choose(asked, len(hypotheses.heights))
        part = (distributed.rank(), distributed.world_size()) if self.shared else (0, 1)
        for city, templates, circle in asked:
            blocks = scan(city.index, templates, circle, part, squares.get(city))
            scored[city] = [block for block in blocks if torch.isfinite(block.score).any()]
        if near is not None and not any(self._together(any(scored.values()))):
            names = ", ".join(city.name for city in scored)
            says = f"no satellite image of {names} lies within {near[2]:g} m of {near[0]:g} {near[1]:g}"
            away, place = _nearest_image(scored, *near[:2])
            where = f"{geometry.distance_in_words(away)} away, at {place[0]:.5f} {place[1]:.5f}"
            raise UserError(f"{says}; the nearest one's centre is {where}")
        return scored

    def prior_of(self, place, radius):
        """What a photograph's own position says of a search: (the circle to search or None, a note or None).

        place: (latitude, longitude) by its EXIF, or None; radius: metres. A position that no receiver gives,
        or far from all images, is not believed.
        """
        if place is None:
            return None, None
        says = f"the file says that it was taken at {place[0]:.5f} {place[1]:.5f} (EXIF)"
        if place == (0, 0) or not (LATITUDE.allows(place[0]) and LONGITUDE.allows(place[1])):
            return None, f"{says}, which no receiver gives: not used"
        away, _ = _nearest_image(self.cities, *place)
        if away > radius + _HALF_M:
            far = geometry.distance_in_words(away)
            return None, f"{says}, {far} from the nearest satellite image: not used; --near gives a guess"
        return (*place, radius), f"{says}: only {radius:g} m around are searched; --near overrules it"

    def places(self, sample, scored, most=5, pool=POOL, seen=None):
        """Up to `most` `SearchResult`s of a sample, best first, further apart than `NEAR_M`.

        scored: of `scan`; pool: cells to match in detail; seen: a dict that keeps matches for another search.
        Of processes that search together only the first gets results.
        """
        candidates = []
        for city, blocks in scored.items():
            apart = NEAR_M / city.index.grid.cell_m
            candidates += [(city, cell) for cell in best_cells(blocks, pool, apart, self._together)]
        candidates = sorted(candidates, key=lambda pair: -pair[1].score)[:pool]
        share = self.mass_of(scored, candidates) * getattr(scored, "recall", 1.0)
        if self.shared and distributed.rank() > 0:
            return []
        seen = {} if seen is None else seen
        new = [pair for pair in candidates if pair not in seen]
        for start in range(0, len(new), _BATCH):
            pairs = new[start : start + _BATCH]
            seen |= zip(pairs, self._match(sample, pairs), strict=True)
        ordered = sorted((seen[pair] for pair in candidates), key=lambda result: -result.log_evidence)
        kept = nms(ordered, lambda result, better: distance_m(result, better.map_px) <= NEAR_M)
        weights = torch.tensor([result.log_evidence for result in kept], dtype=torch.float64)
        probabilities = (share * (weights / self.temperatures.places).softmax(0)).tolist()
        return [result._replace(probability=p) for result, p in zip(kept, probabilities, strict=True)][:most]

    def mass_of(self, scored, candidates):
        """The share of the probability over all cells within `NEAR_M` of (city, `Candidate`) pairs."""
        temperature, share = self.temperatures.cells, 0.0
        total = self._sum(log_mass(chain.from_iterable(scored.values()), temperature))
        for city, blocks in scored.items():
            cells = [(cell.row, cell.col) for other, cell in candidates if other is city]
            if cells:
                near = (restrict(block, cells, NEAR_M / city.index.grid.cell_m) for block in blocks)
                share += math.exp(min(0.0, self._sum(log_mass(near, temperature)) - total))
        return min(1.0, share)

    def whole(self, scored):
        """The blocks of all processes that search together, for a picture."""
        parts = self._together([(block, city.number) for city, blocks in scored.items() for block in blocks])
        whole = Scores(scored)
        for city in scored:
            whole[city] = [block for part in parts for block, number in part if number == city.number]
        return whole

    def _together(self, value):
        """Every process's value where they search together, else only this one's."""
        return distributed.gather(value) if self.shared else [value]

    def _sum(self, log_mass):
        """The log of the sum of what the processes that search together have."""
        return float(np.logaddexp.reduce(self._together(log_mass)))

    def query_of(self, sample):
        """(images (1, 3, H, W), camera) of a sample's query, as the network takes them."""
        batch = cut(self._batch(sample), self.view)
        return normalise(batch["query"]), batch["camera"]

    def _batch(self, sample):
        return to_device(collate([{name: sample[name] for name in _OF_QUERY if name in sample}]), self.device)

    def _match(self, sample, candidates):
        """A `SearchResult`, its probability not yet known, for each (city, `Candidate`)."""
        settings = self.network.settings
        centres = ((city, city.index.grid.to_map((cell.row, cell.col))) for city, cell in candidates)
        parts = [city.tiles.cut(centre_px, settings.use_mask) for city, centre_px in centres]
        images, masks, corners = zip(*parts, strict=True)
        corners, truth = np.stack(corners), np.full((len(parts), 2), np.nan)
        if "corner" in sample:
            pixel = SATELLITE_PX / settings.satellite_size
            truth = (sample["corner"].numpy() - corners) / pixel + sample["position"].numpy()
        latitudes = latitude_longitude(*(corners + SATELLITE_PX / 2).T)[0]
        metres = metres_per_pixel(latitudes, settings.satellite_size)
        batch = {
            "satellite": torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2),
            "metres_per_pixel": torch.from_numpy(metres).float(),
            "position": torch.from_numpy(truth).float(),
            "heading": sample["heading"].expand(len(parts)),
            "index": torch.arange(len(parts)),
        }
        if settings.use_mask:
            batch["mask"] = torch.from_numpy(np.stack(masks))[:, None]
        batch = self._batch(sample) | to_device(batch, self.device)
        pairs = torch.stack([torch.zeros_like(batch["index"]), batch["index"]], 1)
        prediction, estimates = self.predictor.estimates(batch, as_trained(settings), pairs=pairs)
        whole = (prediction.logits.float() / settings.temperature).flatten(1).logsumexp(1).tolist()
        for k, ((city, cell), estimate) in enumerate(zip(candidates, estimates, strict=True)):
            map_px = position_to_map(corners[k], np.array(estimate.position), settings.satellite_size)
            latitude, longitude = (float(degrees) for degrees in latitude_longitude(*map_px))
            heading = float(sample["camera"].heading) if estimate.heading is None else estimate.heading
            mass = _mass_near(estimate.probability, estimate.position, NEAR_M / estimate.metres_per_pixel)
            evidence = whole[k] + math.log(max(mass, 1e-30))
            where = {"city": city, "map_px": tuple(map_px.tolist()), "latitude": latitude}
            where |= {"longitude": longitude, "heading": heading}
            seen = {"satellite": images[k], "corner": corners[k], "estimate": estimate, "candidate": cell}
            yield SearchResult(**where, probability=math.nan, log_evidence=evidence, **seen)


def truth_px(sample, satellite_size):
    """(row, col) on the map, pixels at zoom 20, of the camera of a dataset's sample."""
    return position_to_map(sample["corner"], sample["position"].double(), satellite_size).numpy()


def distance_m(result, map_px):
    """Metres from a `SearchResult` to a (row, col) on the map at zoom 20."""
    return math.dist(result.map_px, map_px) * float(metres_per_pixel(result.latitude))


def _nearest_image(cities, latitude, longitude):
    """(metres to the centre of the satellite image nearest to a position, that centre in degrees)."""
    gps = np.concatenate([city.tiles.gps for city in cities])
    centres_px = np.concatenate([city.tiles.centres_px for city in cities])
    distance_px = np.hypot(*(centres_px - geometry.mercator_px(latitude, longitude)).T)
    nearest = distance_px.argmin()
    return float(distance_px[nearest] * metres_per_pixel(latitude)), tuple(gps[nearest].tolist())


def _mass_near(probability, position, radius):
    """The share of a heat map (H, W) in the pixels whose centres lie within a radius of a position."""
    rows, cols = (np.arange(side) + 0.5 for side in probability.shape)
    return float(probability[np.hypot(rows[:, None] - position[0], cols - position[1]) <= radius].sum())
