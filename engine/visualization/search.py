"""A search over a city -> one picture: the city from above with the heat map, and the best places in detail."""

from itertools import chain
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from torch.nn.functional import max_pool2d

from common.geometry import SATELLITE_PX, mercator_px, metres_per_pixel
from engine.search.query import as_map, extent, log_mass
from engine.search.searcher import distance_m
from engine.visualization.pictures import (
    PREDICTION_COLOUR,
    TRUTH,
    TRUTH_COLOUR,
    add_title,
    dim,
    draw_found,
    draw_heat_map,
    draw_satellite,
    draw_street,
    draw_views,
)

SHOWN = 5  # places in detail
_DETAIL_M = 600.0  # a view of at most this side shows the images themselves, a larger one the index's cells
_WHOLE_PX = 1600  # of the longer side of a whole city's picture
_MARGIN = 8  # cells around what was searched


def search_figure(found, softness, title=""):
    """The picture of a search, a `Searched`; softness: the search's.

    The city drawn is that of the best place. The axes are those of the street image, the city with its colour bar, the places.
    """
    figure = Figure(figsize=(13, 8.8), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.75, 1))
    above, below = left.subfigures(2, 1, height_ratios=(0.5, 1))
    sample, places, truth = found.sample, found.places, found.truth
    draw_street(above.subplots(), sample["panorama"].permute(1, 2, 0).numpy(), places[0].estimate)
    city = places[0].city
    axes = below.subplots()
    view = _view(city, *_searched(found.scored[city]))
    drawn = draw_search(axes, view, found, softness)
    percent = {"format": lambda value, _: f"{100 * value:.3g}"}
    bar = below.colorbar(drawn, ax=axes, location="bottom", shrink=0.5, aspect=40, **percent)
    bar.set_label("probability of a cell (%)")
    side_m = np.array(view.image.shape[:2]) * view.metres
    axes.set_title(f"{city.name}, {side_m[1]:.0f} x {side_m[0]:.0f} m: probability of each cell; numbers: the best places")
    grid = right.subplots(3, 2).flat
    for number, (axes, place) in enumerate(zip(grid, places[:SHOWN], strict=False), 1):
        draw_found(axes, place.satellite, place.estimate)
        draw_views(axes, place.estimate._replace(heading=place.heading), truth=False)
        error = f", {_metres(distance_m(place, truth))} off" if truth is not None else ""
        where = "" if place.city is city else f"{place.city.name}, "
        axes.set_title(f"{number}: {where}{100 * place.probability:.1f} %{error}")
    for axes in list(grid):
        axes.set_axis_off()
    right.axes[-1].set_axis_off()
    add_title(figure, title)
    if found.notes:
        figure.supxlabel("\n".join(found.notes), fontsize=8)
    return figure


def _metres(error):
    return f"{error:.2f} m" if error < 100 else f"{error:.0f} m" if error < 10_000 else f"{error / 1000:.0f} km"


class View(NamedTuple):
    """A picture of a part of a city: image (H, W, 3), its corner on the map, and of one pixel the map's pixels and metres."""

    image: np.ndarray
    corner: np.ndarray
    pixel: float
    metres: float

    def place(self, map_px):
        """(row, col) in the picture of a place on the map."""
        return tuple((np.asarray(map_px) - self.corner) / self.pixel)

    def map_px(self, place):
        """Inverse of `place`."""
        return np.asarray(place) * self.pixel + self.corner


def whole_view(tiles):
    """The `View` of all satellite images of a city, some `Tiles`, as large as they are or _WHOLE_PX pixels long."""
    corner, end = tiles.centres_px.min(0) - SATELLITE_PX / 2, tiles.centres_px.max(0) + SATELLITE_PX / 2
    pixel = max(SATELLITE_PX / tiles.images.satellite_size, max(end - corner) / _WHOLE_PX)
    image = tiles.mosaic(corner, *np.ceil((end - corner) / pixel).astype(int), pixel)
    return View(image, corner, pixel, float(metres_per_pixel(tiles.gps[:, 0].mean())) * pixel)


def draw_search(axes, view, found, softness):
    """The `View` of the best place's city, the heat map of a `Searched` over it, numbers at its places, the truth, the guess.

    Returns the drawn map.
    """
    city = found.places[0].city
    draw_satellite(axes, dim(view.image), view.metres)
    drawn = _draw_city_map(axes, city, view, found.scored, softness)
    _draw_places(axes, view, [place for place in enumerate(found.places, 1) if place[1].city is city], found.truth)
    draw_guess(axes, view, found.near)
    return drawn


def draw_guess(axes, view, near):
    """A circle on a `View`: (latitude, longitude, radius in metres), or None."""
    if near is not None:
        row, col = view.place(mercator_px(*near[:2]))
        axes.add_patch(Circle((col, row), near[2] / view.metres, fill=False, color="white", linestyle=":", linewidth=1.5))


def _searched(blocks):
    """(first, end) of the cells that were searched, and some around them."""
    first, end = extent(blocks)
    return first - _MARGIN, end + _MARGIN


def _draw_city_map(axes, city, view, scored, softness):
    """Draw the probability of each cell that was searched. Returns the drawn map."""
    first, end = _searched(scored[city])
    score = as_map(scored[city], first, end)
    total = log_mass(chain.from_iterable(scored.values()), softness.cells)
    probability = (score / softness.cells - total).exp()
    reach = max(score.shape) // 120  # or a single cell would not be seen
    wide = max_pool2d(probability[None, None], 2 * reach + 1, 1, reach)[0, 0].numpy()
    (top, left), (bottom, right) = (view.place(city.index.grid.to_map(cell)) for cell in (first, end))
    return draw_heat_map(axes, wide, extent=(left, right, bottom, top))


def _view(city, first, end):
    """The `View` of a rectangle of cells: of the images themselves where it is small, else of the index's brightness."""
    grid = city.index.grid
    corner, sides = grid.to_map(first), end - first
    if max(sides) * grid.cell_m > _DETAIL_M:
        image, covered = city.index.brightness(*first.tolist(), *sides.tolist())
        image[~covered] = 255
        return View(np.repeat(image[..., None], 3, 2), corner, grid.cell_px, grid.cell_m)
    image = city.tiles.mosaic(corner, *(sides * grid.stride).tolist(), grid.pixel)
    return View(image, corner, grid.pixel, grid.metres_per_pixel)


def _draw_places(axes, view, numbered, truth):
    """Numbers at the places, the best in front, and a ring at the truth."""
    if truth is not None:
        row, col = view.place(truth)
        if 0 <= row < len(view.image) and 0 <= col < view.image.shape[1]:
            axes.plot(col, row, label="truth", **TRUTH)
    for number, place in reversed(numbered[:SHOWN]):
        row, col = view.place(place.map_px)
        box = {"boxstyle": "circle,pad=0.25", "facecolor": "black", "edgecolor": PREDICTION_COLOUR, "linewidth": 1.5}
        axes.annotate(
            str(number),
            (col, row),
            xytext=(14, 14),
            textcoords="offset points",
            color=TRUTH_COLOUR,
            fontsize=9,
            bbox=box,
            arrowprops={"arrowstyle": "-", "color": PREDICTION_COLOUR, "linewidth": 1.5, "shrinkB": 3},
            zorder=6,
        )
