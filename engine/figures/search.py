"""A search over a city: the city from above with the heat map, and the best results in detail."""

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from common.geometry import mercator_px
from engine.figures import pictures
from engine.figures.street import draw_street

SHOWN = 5  # results in detail


class CityMap(NamedTuple):
    """A picture of a part of a city."""

    image: np.ndarray  # (H, W, 3) uint8
    corner: np.ndarray  # (row, col) of its north-west corner on the map at zoom 20
    pixel: float  # map pixels per pixel of the image
    metres: float  # per pixel of the image

    def place(self, map_px):
        """(row, col) in the picture of a position on the map."""
        return tuple((np.asarray(map_px) - self.corner) / self.pixel)

    def map_px(self, place):
        """Inverse of `place`."""
        return np.asarray(place) * self.pixel + self.corner


class CityHeat(NamedTuple):
    """The outcome of a search on a `CityMap`."""

    probability: np.ndarray  # (h, w), of each cell
    first: np.ndarray  # (row, col) of the cells' north-west corner on the map
    end: np.ndarray  # (row, col) of their south-east corner
    results: dict  # {rank: `SearchResult`} of those in the city
    truth: np.ndarray | None  # (row, col) on the map
    near: tuple | None  # the prior: (latitude, longitude, radius in metres)


def places_figure(street, city_map, heat, results, titles, *, title, city_title, notes=()):
    """The picture of a search: the street image (H, W, 3), the best result's city, the best `SearchResult`s.

    The axes, in this order: street image, city, its colour bar, results.
    """
    figure = Figure(figsize=(13, 8.8), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.75, 1))
    above, below = left.subfigures(2, 1, height_ratios=(0.5, 1))
    draw_street(above.subplots(), street, results[0].estimate)
    axes = below.subplots()
    drawn = draw_city(axes, city_map, heat)
    pictures.add_colour_bar(below, drawn, axes, "cell", location="bottom", shrink=0.5, aspect=40)
    axes.set_title(city_title)
    grid = right.subplots(3, 2).flat
    for axes, result, words in zip(grid, results[:SHOWN], titles, strict=False):
        pictures.draw_found(axes, result.satellite, result.estimate)
        pictures.draw_views(axes, result.estimate._replace(heading=result.heading), truth=False)
        axes.set_title(words)
    for axes in right.axes[len(results[:SHOWN]) :]:
        axes.set_axis_off()
    pictures.add_title(figure, title)
    if notes:
        figure.supxlabel("\n".join(notes), fontsize=8)
    return figure


def draw_city(axes, city_map, heat):
    """A `CityMap` and its `CityHeat`: heat map, ranks of results, truth, prior. Returns the drawn map."""
    pictures.draw_satellite(axes, pictures.dim(city_map.image), city_map.metres)
    (top, left), (bottom, right) = city_map.place(heat.first), city_map.place(heat.end)
    drawn = pictures.draw_heat_map(axes, heat.probability, extent=(left, right, bottom, top))
    if heat.truth is not None:
        row, col = city_map.place(heat.truth)
        if 0 <= row < len(city_map.image) and 0 <= col < city_map.image.shape[1]:
            axes.plot(col, row, label="truth", **pictures.TRUTH)
    blue = {"edgecolor": pictures.PREDICTION_COLOUR, "linewidth": 1.5}
    box = {"boxstyle": "circle,pad=0.25", "facecolor": "black", **blue}
    style = {"color": pictures.TRUTH_COLOUR, "fontsize": 9, "bbox": box, "zorder": 6}
    style["arrowprops"] = {"arrowstyle": "-", "shrinkB": 3, **blue}
    for rank, result in sorted(heat.results.items(), reverse=True):  # the best in front
        place = city_map.place(result.map_px)[::-1]
        axes.annotate(str(rank), place, xytext=(14, 14), textcoords="offset points", **style)
    draw_prior(axes, city_map, heat.near)
    return drawn


def draw_prior(axes, city_map, near):
    """A circle on a `CityMap`: (latitude, longitude, radius in metres), or None."""
    if near is not None:
        row, col = city_map.place(mercator_px(*near[:2]))
        style = {"fill": False, "color": "white", "linestyle": ":", "linewidth": 1.5}
        axes.add_patch(Circle((col, row), near[2] / city_map.metres, **style))
