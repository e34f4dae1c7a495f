"""Pictures of a search's result: the city from above, the heat map, the best results."""

from dataclasses import replace
from itertools import chain

import numpy as np
from torch.nn.functional import max_pool2d

from common.geometry import SATELLITE_PX, metres_per_pixel
from dataset.images import OriginalImages
from engine.figures.search import SHOWN, CityHeat, CityMap, places_figure
from engine.search.query import as_map, extent, log_mass
from engine.search.report import error_in_words
from engine.search.searcher import distance_m
from engine.visualization.samples import as_seen

_DETAIL_M = 600.0  # up to this side a map shows the images themselves, else the index's cells
_WHOLE_PX = 2048  # of the longer side of a whole city's map
_MARGIN = 8  # cells around what was searched


def search_figure(searched, searcher, title=""):
    """The figure of a `Searched` by a `Searcher`, in the city of the best result."""
    sample, results, titles = searched.sample, searched.places[:SHOWN], []
    city = results[0].city
    for rank, result in enumerate(results, 1):
        known = searched.truth is not None
        error = f", {error_in_words(distance_m(result, searched.truth))} off" if known else ""
        where = "" if result.city is city else f"{result.city.name}, "
        titles.append(f"{rank}: {where}{100 * result.probability:.1f} %{error}")
    heat = city_heat(searched, searcher.temperatures)
    city_map = _part_map(city, *_searched_cells(searched.scored[city]))
    height, width = np.array(city_map.image.shape[:2]) * city_map.metres
    says = f"{city.name}, {width:.0f} x {height:.0f} m: probability of each cell; numbers: the best places"
    street = as_seen(sample["query"].permute(1, 2, 0).numpy(), sample, searcher.view)
    words = {"title": title, "city_title": says, "notes": searched.notes}
    return places_figure(street, city_map, heat, results, titles, **words)


def city_heat(searched, temperatures):
    """The `CityHeat` of a `Searched` in the city of the best result, at its `Searcher`'s temperatures."""
    city, grid = searched.places[0].city, searched.places[0].city.index.grid
    first, end = _searched_cells(searched.scored[city])
    total = log_mass(chain.from_iterable(searched.scored.values()), temperatures.cells)
    probability = (as_map(searched.scored[city], first, end) / temperatures.cells - total).exp()
    reach = max(probability.shape) // 120  # or a single cell would not be seen
    wide = max_pool2d(probability[None, None], 2 * reach + 1, 1, reach)[0, 0].numpy()
    results = {rank: r for rank, r in enumerate(searched.places[:SHOWN], 1) if r.city is city}
    return CityHeat(wide, grid.to_map(first), grid.to_map(end), results, searched.truth, searched.near)


def whole_map(tiles):
    """The `CityMap` of all satellite images of a city, `Tiles`, up to _WHOLE_PX pixels long."""
    corner, end = tiles.centres_px.min(0) - SATELLITE_PX / 2, tiles.centres_px.max(0) + SATELLITE_PX / 2
    return map_around(tiles, corner, end, _WHOLE_PX)


def map_around(tiles, corner, end, most):
    """The `CityMap` of a rectangle of the map, up to `most` pixels long, at the resolution of the files."""
    finest, images = SATELLITE_PX / tiles.images.satellite_size, tiles.images
    if isinstance(images, OriginalImages):  # else a cache, whose copies have the network's size
        finest = 1.0
    pixel = max(finest, max(end - corner) / most)
    if finest == 1.0:
        tiles = replace(tiles, images=replace(images, satellite_size=round(SATELLITE_PX / pixel)))
    image = tiles.mosaic(corner, *np.ceil((end - corner) / pixel).astype(int), pixel)
    return CityMap(image, corner, pixel, float(metres_per_pixel(tiles.gps[:, 0].mean())) * pixel)


def _searched_cells(blocks):
    """(first, end) of the cells that were searched, with a margin around them."""
    first, end = extent(blocks)
    return first - _MARGIN, end + _MARGIN


def _part_map(city, first, end):
    """The `CityMap` of a rectangle of cells: the images if it is small, else the index's brightness."""
    grid = city.index.grid
    corner, sides = grid.to_map(first), end - first
    if max(sides) * grid.cell_m > _DETAIL_M:
        image, covered = city.index.brightness(*first.tolist(), *sides.tolist())
        image[~covered] = 255
        return CityMap(np.repeat(image[..., None], 3, 2), corner, grid.cell_px, grid.cell_m)
    image = city.tiles.mosaic(corner, *(sides * grid.stride).tolist(), grid.pixel)
    return CityMap(image, corner, grid.pixel, grid.metres_per_pixel)
