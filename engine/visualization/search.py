"""A search over a city -> one picture: the city from above with the heat map, and the best places in detail."""

from itertools import chain
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from torch.nn.functional import max_pool2d

from common.geometry import SATELLITE_PX
from engine.search.query import as_map, extent, log_mass
from engine.search.searcher import distance_m
from engine.visualization.pictures import (
    PREDICTION_COLOUR,
    TRUTH,
    TRUTH_COLOUR,
    add_title,
    dim,
    draw_found,
    draw_heading,
    draw_heat_map,
    draw_panorama,
    draw_satellite,
)

SHOWN = 5  # places in detail
_DETAIL_M = 600.0  # a view of at most this side shows the images themselves, a larger one the index's cells
_MARGIN = 8  # cells around what was searched


def search_figure(sample, scored, places, *, softness, FoV=360.0, truth=None, guess=None, title="", notes=""):
    """The picture of a search.

    sample: the panorama (`panorama`, `heading`) · scored: what `Searcher.scan` gave · places: the best first · softness: the
    search's · truth: (row, col) on the map, where it is known · guess: (latitude, longitude, radius in metres) or None.

    The city drawn is that of the best place. The axes are those of the panorama, the city with its colour bar, then the places.
    """
    figure = Figure(figsize=(13, 8.8), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.75, 1))
    above, below = left.subfigures(2, 1, height_ratios=(0.5, 1))
    heading = float(sample["heading"])
    known = None if np.isnan(heading) else heading
    draw_panorama(
        above.subplots(),
        sample["panorama"].permute(1, 2, 0).numpy(),
        known,
        FoV,
        None if known is not None else places[0].heading,
    )
    city = places[0].city
    axes = below.subplots()
    view, drawn = _draw_city(axes, city, scored, softness)
    percent = {"format": lambda value, _: f"{100 * value:.3g}"}
    bar = below.colorbar(drawn, ax=axes, location="bottom", shrink=0.5, aspect=40, **percent)
    bar.set_label("probability of a cell (%)")
    _draw_places(axes, view, [place for place in enumerate(places, 1) if place[1].city is city], truth)
    if guess is not None:
        row, col = view.place(city.index.grid.to_map(city.index.grid.from_gps(*guess[:2])))
        radius = guess[2] / city.index.grid.metres_per_pixel * city.index.grid.pixel / view.pixel
        axes.add_patch(Circle((col, row), radius, fill=False, color="white", linestyle=":", linewidth=1.5))
    side_m = np.array(view.image.shape[:2]) * view.metres
    axes.set_title(f"{city.name}, {side_m[1]:.0f} x {side_m[0]:.0f} m: probability of each cell; numbers: the best places")
    grid = right.subplots(3, 2).flat
    for number, (axes, place) in enumerate(zip(grid, places[:SHOWN], strict=False), 1):
        draw_found(axes, place.satellite, place.estimate)
        draw_heading(axes, place.estimate.position, place.heading, 0.2 * len(place.satellite), PREDICTION_COLOUR)
        error = f", {_metres(distance_m(place, truth))} off" if truth is not None else ""
        where = "" if place.city is city else f"{place.city.name}, "
        axes.set_title(f"{number}: {where}{100 * place.probability:.1f} %{error}")
    for axes in list(grid):
        axes.set_axis_off()
    right.axes[-1].set_axis_off()
    add_title(figure, title)
    if notes:
        figure.supxlabel(notes, fontsize=8)
    return figure


def _metres(error):
    return f"{error:.2f} m" if error < 100 else f"{error:.0f} m" if error < 10_000 else f"{error / 1000:.0f} km"


class _View(NamedTuple):
    """A picture of a part of a city: image (H, W, 3), its corner on the map, and of one pixel the map's pixels and metres."""

    image: np.ndarray
    corner: np.ndarray
    pixel: float
    metres: float

    def place(self, map_px):
        """(row, col) in the picture of a place on the map."""
        return tuple((np.asarray(map_px) - self.corner) / self.pixel)


def _draw_city(axes, city, scored, softness):
    """Draw what was searched of a city and its heat map: (its `_View`, the drawn map)."""
    blocks = scored[city]
    first, end = extent(blocks)
    first, end = first - _MARGIN, end + _MARGIN
    view = _view(city, first, end)
    draw_satellite(axes, dim(view.image), view.metres)
    score = as_map(blocks, first, end)
    total = log_mass(chain.from_iterable(scored.values()), softness.cells)
    probability = (score / softness.cells - total).exp()
    reach = max(score.shape) // 120  # or a single cell would not be seen
    wide = max_pool2d(probability[None, None], 2 * reach + 1, 1, reach)[0, 0].numpy()
    return view, draw_heat_map(axes, wide)


def _view(city, first, end):
    """The `_View` of a rectangle of cells: of the images themselves where it is small, else of the index's brightness."""
    grid = city.index.grid
    corner, sides = grid.to_map(first), end - first
    if max(sides) * grid.cell_m > _DETAIL_M:
        image, covered = city.index.brightness(*first.tolist(), *sides.tolist())
        image[~covered] = 255
        return _View(np.repeat(image[..., None], 3, 2), corner, grid.cell_px, grid.cell_m)
    height, width = (sides * grid.stride).tolist()
    image = np.full((height, width, 3), 255, np.uint8)
    offsets = np.rint((city.tiles.centres_px - SATELLITE_PX / 2 - corner) / grid.pixel).astype(int)
    size = grid.satellite_size
    near = [i for i, at in enumerate(offsets) if (at > -size).all() and (at < (height, width)).all()]
    for inner in (0, size // 4):  # whole images first, then their middles
        for i in near:
            top, left = offsets[i] + inner
            if (picture := city.tiles.satellite(i)) is None:  # it cannot be read and is left out
                continue
            part = picture[inner : size - inner, inner : size - inner]
            part = part[max(0, -top) : max(0, height - top), max(0, -left) : max(0, width - left)]
            image[max(0, top) : max(0, top) + part.shape[0], max(0, left) : max(0, left) + part.shape[1]] = part
    return _View(image, corner, grid.pixel, grid.metres_per_pixel)


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
