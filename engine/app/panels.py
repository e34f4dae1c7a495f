"""Parts of pictures to look at and to click into: drawn alike, and from their pixels back to places.

A panel is (height, width, 3) uint8. Its image spans the whole width, from the upper edge down; scale bar and
compass stand below it.
"""

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from common.geometry import bearing_to, move, wrap_degrees
from engine.figures import pictures
from engine.figures.search import draw_city, draw_prior
from engine.figures.street import OUTLINE, centre_bearing, draw_street

WIDTH_PX = 1000
_DPI, _STRIP_PX = 120, 44
_BEARING = {"color": "#f0e442", "linewidth": 2, "path_effects": OUTLINE}
ERROR_COLOURS = "plasma"
_LEAST_M = 0.1  # errors below have one colour


def satellite_panel(satellite, one, opacity=0.85, bearing=None):
    """A satellite image (H, W, 3), the heat map of its `Estimate` at an opacity, a line along a bearing."""
    figure, axes = _open(one.probability.shape)
    pictures.draw_found(axes, satellite, one, opacity)
    pictures.draw_views(axes, one, truth=False)
    if bearing is not None:
        size = max(one.probability.shape)
        ends = [move(*one.position, bearing, reach * size) for reach in (0.05, 1.5)]
        axes.plot(*np.transpose(ends)[::-1], **_BEARING)
    return _render(figure)


def street_panel(image, one, bearing=None):
    """The street image (H, W, 3) of an `Estimate`, its compass, a line at a bearing where it is seen."""
    figure, axes = _open(image.shape)
    draw_street(axes, image, one)
    axes.set_title("")
    if bearing is not None:
        off = torch.tensor([[wrap_degrees(bearing - (centre_bearing(one) or 0.0))]], dtype=torch.float32)
        x, y, seen = one.camera.project(off, torch.linspace(-90, 90, 721)[None])
        axes.plot(x[seen], y[seen] * image.shape[0] / image.shape[1], scalex=False, scaley=False, **_BEARING)
    return _render(figure)


def bearing_in_satellite(click, one):
    """The bearing from the position of an `Estimate` to a click (x, y), pixels of its satellite panel."""
    x, y = np.array(click) * one.probability.shape[1] / WIDTH_PX
    return float(bearing_to(*one.position, y, x))


def bearing_in_street(click, one):
    """The bearing of a click (x, y), pixels of the street panel of an `Estimate`."""
    camera = one.camera
    x, y = (torch.tensor([[value / WIDTH_PX]]) for value in click)
    if camera.kind == "photo":
        y = y * camera.fy / camera.fx  # shares of the height: pixels are square
    return float(wrap_degrees((centre_bearing(one) or 0.0) + camera.rays(x, y)[0]))


def city_panel(city_map, near=None):
    """A `CityMap` with a prior, (latitude, longitude, radius in metres), or None."""
    figure, axes = _open(city_map.image.shape)
    pictures.draw_satellite(axes, city_map.image, city_map.metres)
    draw_prior(axes, city_map, near)
    return _render(figure)


def search_panel(city_map, heat):
    """A `CityMap` with the outcome of a search, a `CityHeat`."""
    figure, axes = _open(city_map.image.shape)
    draw_city(axes, city_map, heat)
    return _render(figure)


def errors_panel(city_map, places_px, errors_m, chosen=None):
    """A `CityMap` with a dot for each pair, the largest error in front, and a mark on the chosen one.

    Places, (N, 2), and the chosen one, (row, col) or None, are on the map; errors are (N,).
    """
    figure, axes = _open(city_map.image.shape)
    pictures.draw_satellite(axes, pictures.dim(city_map.image), city_map.metres)
    order = np.argsort(errors_m, kind="stable")
    rows, cols = (places_px[order] - city_map.corner).T / city_map.pixel
    scale = LogNorm(_LEAST_M, max(10.0, np.max(errors_m, initial=0)))
    dots = {"c": np.maximum(errors_m[order], _LEAST_M), "cmap": ERROR_COLOURS, "norm": scale, "s": 30}
    drawn = axes.scatter(cols, rows, **dots, edgecolor="black", linewidth=0.5, zorder=4)
    if chosen is not None:
        row, col = city_map.place(chosen)
        axes.plot(col, row, **pictures.TRUTH)
    strip = _STRIP_PX / figure.bbox.height
    beside = figure.add_axes((0.45, 0.55 * strip, 0.3, 0.25 * strip))
    bar = figure.colorbar(drawn, cax=beside, orientation="horizontal")
    ticks = [metres for metres in (0.1, 1, 10, 100) if metres <= scale.vmax]
    bar.ax.set_xticks(ticks, [f"{metres:g} m" for metres in ticks], fontsize=7)
    bar.ax.minorticks_off()
    return _render(figure)


def map_px(city_map, click):
    """(row, col) on the map of a click (x, y), pixels of a panel of a `CityMap`."""
    return city_map.map_px(np.array(click)[::-1] * city_map.image.shape[1] / WIDTH_PX)


def _open(size):
    """(figure, axes) of a panel for an image of a size (height, width, ...)."""
    image_px = max(1, round(WIDTH_PX * size[0] / size[1]))
    height = image_px + _STRIP_PX
    figure = Figure(figsize=(WIDTH_PX / _DPI, height / _DPI), dpi=_DPI)
    return figure, figure.add_axes((0, _STRIP_PX / height, 1, image_px / height))


def _render(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
