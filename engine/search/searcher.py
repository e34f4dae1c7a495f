"""Where in a city, or in several, a panorama was taken: every cell is scored, and the best places are looked at in detail.

scan        the templates of the panorama over the index of each city -> a score for every cell
places      the best cells -> an image cut around each -> the network's own heat map -> places, their probabilities
"""

import math
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from common.errors import UserError
from common.geometry import (
    SATELLITE_PX,
    distance_in_words,
    latitude_longitude,
    mercator_px,
    metres_per_pixel,
    position_to_map,
)
from efficientnet_pytorch.utils import normalise
from engine.evaluation.calibration import HeatMap
from engine.evaluation.prediction import Estimate, estimate
from engine.search.index import CityIndex, open_index
from engine.search.query import Candidate, best_cells, log_mass, make_templates, restrict, scan
from engine.search.tiles import Tiles

NEAR_M = 5.0  # places are further apart, and the probability of one is that of so many metres around it
POOL = 16  # cells that are looked at in detail
_BATCH = 16  # of them at a time


class Softness(NamedTuple):
    """How soft a search's probabilities are: temperatures of cells and of places, 1 as trained, and what to call them."""

    cells: float = 1.0
    places: float = 1.0
    name: str = "probabilities as trained, not calibrated"


class City(NamedTuple):
    """A city that can be searched: its name, its number in the index's `cities`, its images and its index."""

    name: str
    number: int
    tiles: Tiles
    index: CityIndex


class Place(NamedTuple):
    """Where a panorama may have been taken.

    city: its `City` · map_px: (row, col) on the map at zoom 20 · latitude, longitude, heading: degrees; the heading is the true
    bearing of the panorama's centre, as the network sees it, or as it was given · probability: that the camera stood within 5 m
    · log_evidence: what it comes from · satellite: (S, S, 3), the image that was cut around the cell · corner: its north-west
    corner on the map · estimate: the network's answer in that image · candidate: the cell by which it was found.
    """

    city: City
    map_px: tuple
    latitude: float
    longitude: float
    heading: float
    probability: float
    log_evidence: float
    satellite: np.ndarray
    corner: np.ndarray
    estimate: Estimate
    candidate: Candidate


class Searcher:
    """A network and the cities that it searches.

    loaded: a `Loaded` network with templates, on its device.
    index: a `VigorIndex`, whose lists name the satellite images · images: what reads them, an `OriginalImages`.
    numbers: of the cities in that index's `cities`.
    folder: where indexes lie, one folder a city; they are made where they are missing.
    softness: the `Softness` of probabilities, as trained where it is None; it may be set later · rebuild: make indexes anew ·
    skip: leave out satellite images that cannot be read.

    Raises UserError, also as `open_index` does.
    """

    def __init__(self, loaded, index, images, numbers, device, folder, softness=None, rebuild=False, skip=False):
        if not loaded.model.matching.has_templates:
            raise UserError(
                f"{loaded.file}: a {loaded.settings.network} network has no templates to search a city with; train one with "
                "--network light or --network ground_plane"
            )
        self.loaded, self.model, self.device, self.softness = loaded, loaded.model, device, softness or Softness()
        self.folder, self.skip = folder, skip
        self.cities = []
        for number in numbers:
            name, tiles = index.cities[number], Tiles.of_city(index, number, images, skip)
            made = open_index(Path(folder) / name, loaded.model, loaded.sha256, name, tiles, device, rebuild)
            self.cities.append(City(name, number, tiles, made))

    def city_of(self, number):
        """The `City` of a number."""
        return next(city for city in self.cities if city.number == number)

    def scan(self, sample, cities=None, near=None):
        """{city: its `Scored` blocks} of a street image over some cities, all by default.

        sample: of the dataset or like it, of which `panorama` is used, and of a photograph `camera`.
        near: (latitude, longitude, radius in metres); nothing outside is scored. Raises UserError where no image lies there.
        """
        panorama = normalise(sample["panorama"][None].to(self.device))
        camera = sample["camera"][None].to(self.device) if "camera" in sample else None
        found = {}
        for city in cities or self.cities:
            circle = None if near is None else _circle(city.index.grid, *near)
            templates = make_templates(self.model, panorama, city.index.grid, camera)
            found[city] = [block for block in scan(city.index, templates, circle) if torch.isfinite(block.score).any()]
        if not any(found.values()):
            names = ", ".join(city.name for city in found)
            says = f"no satellite image of {names} lies within {near[2]:g} m of {near[0]:g} {near[1]:g}"
            raise UserError(f"{says}; {_nearest_image(found, *near[:2])}")
        return found

    def places(self, sample, scored, most=5, pool=POOL, seen=None):
        """The best `Place`s, up to `most`, the best first, further apart than `NEAR_M`.

        sample: of the dataset or like it, of which `panorama` and `heading` are used, and where it has them `corner` and
        `position`, the truth · scored: as `scan` gives it · pool: cells to look at in detail · seen: a dict that keeps what was
        looked at, for another search for the same panorama.
        """
        candidates = []
        for city, blocks in scored.items():
            candidates += [(city, one) for one in best_cells(blocks, pool, NEAR_M / city.index.grid.cell_m)]
        candidates = sorted(candidates, key=lambda pair: -pair[1].score)[:pool]
        seen = {} if seen is None else seen
        new = [pair for pair in candidates if _key(*pair) not in seen]
        for start in range(0, len(new), _BATCH):
            for pair, place in zip(new[start : start + _BATCH], self._look(sample, new[start : start + _BATCH]), strict=True):
                seen[_key(*pair)] = place
        ordered = sorted((seen[_key(*pair)] for pair in candidates), key=lambda place: -place.log_evidence)
        kept = []
        for place in ordered:
            if all(distance_m(place, other.map_px) > NEAR_M for other in kept):
                kept.append(place)
        share = self.mass_of(scored, candidates)
        weights = torch.tensor([place.log_evidence for place in kept], dtype=torch.float64) / self.softness.places
        probabilities = (share * weights.softmax(0)).tolist()
        return [place._replace(probability=p) for place, p in zip(kept, probabilities, strict=True)][:most]

    def mass_of(self, scored, candidates):
        """The share of the probability over all cells that lies within `NEAR_M` of some candidates, (city, `Candidate`)s."""
        total = log_mass(chain.from_iterable(scored.values()), self.softness.cells)
        share = 0.0
        for city, blocks in scored.items():
            cells = [(one.row, one.col) for where, one in candidates if where is city]
            if cells:
                near = (restrict(block, cells, NEAR_M / city.index.grid.cell_m) for block in blocks)
                share += math.exp(min(0.0, log_mass(near, self.softness.cells) - total))
        return min(1.0, share)

    def _look(self, sample, candidates):
        """A `Place` for each (city, `Candidate`), its probability not yet known."""
        settings = self.loaded.settings
        cut = [city.tiles.cut(city.index.grid.to_map((one.row, one.col)), settings.use_mask) for city, one in candidates]
        corners = np.stack([corner for _, _, corner in cut])
        pixel = SATELLITE_PX / settings.satellite_size
        truth = np.full((len(cut), 2), np.nan)
        if "corner" in sample:
            truth = (sample["corner"].numpy() - corners) / pixel + sample["position"].numpy()
        latitudes = latitude_longitude(*(corners + SATELLITE_PX / 2).T)[0]
        metres = metres_per_pixel(latitudes, settings.satellite_size)
        batch = {
            "panorama": sample["panorama"][None],
            "satellite": torch.from_numpy(np.stack([image for image, _, _ in cut])).permute(0, 3, 1, 2),
            "metres_per_pixel": torch.from_numpy(metres).float(),
            "position": torch.from_numpy(truth).float(),
            "heading": sample["heading"].expand(len(cut)),
            "index": torch.arange(len(cut)),
        }
        if "camera" in sample:
            batch["camera"] = sample["camera"][None]
        if settings.use_mask:
            batch["mask"] = torch.from_numpy(np.stack([mask for _, mask, _ in cut]))[:, None]
        batch = {name: value.to(self.device) for name, value in batch.items()}
        pairs = torch.stack([torch.zeros_like(batch["index"]), batch["index"]], 1)
        as_trained = HeatMap(settings.temperature, "heat map as trained")
        result, estimates = estimate(self.model, batch, settings.temperature, as_trained, pairs=pairs)
        whole = (result.logits.float() / settings.temperature).flatten(1).logsumexp(1).tolist()
        for (city, one), (image, _, corner), found, log_whole in zip(candidates, cut, estimates, whole, strict=True):
            place = position_to_map(corner, np.array(found.position), settings.satellite_size)
            latitude, longitude = latitude_longitude(*place)
            heading = found.heading if found.heading is not None else found.true_heading
            near = _mass_near(found.probability, found.position, NEAR_M / found.metres_per_pixel)
            evidence = log_whole + math.log(max(near, 1e-30))
            found_there = float(latitude), float(longitude), 0.0 if heading is None else heading, math.nan, evidence
            yield Place(city, tuple(place.tolist()), *found_there, image, corner, found, one)


def truth_px(sample, satellite_size):
    """(row, col) on the map, pixels at zoom 20, of a dataset's sample's panorama."""
    return position_to_map(sample["corner"], sample["position"].double(), satellite_size).numpy()


def distance_m(place, map_px):
    """Metres from a `Place` to a (row, col) on the map at zoom 20."""
    return math.dist(place.map_px, map_px) * float(metres_per_pixel(place.latitude))


def _key(city, one):
    return city.number, one.row, one.col


def _nearest_image(cities, latitude, longitude):
    """Where the satellite image nearest to a place lies, in words."""
    gps = np.concatenate([city.tiles.gps for city in cities])
    centres_px = np.concatenate([city.tiles.centres_px for city in cities])
    metres = np.hypot(*(centres_px - mercator_px(latitude, longitude)).T) * metres_per_pixel(latitude)
    place = "{:.5f} {:.5f}".format(*gps[metres.argmin()])
    return f"the nearest one's centre is {distance_in_words(metres.min())} away, at {place}"


def _circle(grid, latitude, longitude, radius_m):
    """(row, col, radius) in cells."""
    return (*grid.from_gps(latitude, longitude).tolist(), radius_m / grid.cell_m)


def _mass_near(probability, position, radius):
    """The share of a heat map (H, W) within a radius of a position, in pixels."""
    rows, cols = (np.arange(side) + 0.5 for side in probability.shape)
    return float(probability[np.hypot(rows[:, None] - position[0], cols - position[1]) <= radius].sum())
