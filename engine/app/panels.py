"""Single views of a picture, to be looked at and clicked into: the same marks and colours, and from a pixel back to its place.

A panel is (height, width, 3) uint8. Its image spans the whole width, from the upper edge down; scale and compass stand below it.
"""

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from common.camera import Pinhole
from common.geometry import bearing_to, column_to_bearing, move, wrap_degrees
from engine.visualization import pictures
from engine.visualization.search import draw_guess, draw_search

WIDTH_PX = 1000
_DPI, _STRIP_PX = 120, 44
_BEARING = {"color": "#f0e442", "linewidth": 2, "path_effects": pictures.OUTLINE}
ERROR_COLOURS = "plasma"
_LEAST_M = 0.1  # errors below have one colour


def satellite_panel(satellite, one, opacity=0.85, bearing=None):
    """A satellite image (H, W, 3) with the heat map of its `Estimate`, at an opacity; a line from the place along a bearing."""
    figure, axes = _open(one.probability.shape)
    pictures.draw_found(axes, satellite, one, opacity)
    pictures.draw_views(axes, one, truth=False)
    if bearing is not None:
        ends = [move(*one.position, bearing, reach * max(one.probability.shape)) for reach in (0.05, 1.5)]
        axes.plot(*np.transpose(ends)[::-1], **_BEARING)
    return _render(figure)


def street_panel(image, one, bearing=None):
    """The street image (H, W, 3) of an `Estimate` with the compass, and a line at a bearing where that is seen."""
    figure, axes = _open(image.shape[:2])
    pictures.draw_street(axes, image, one)
    axes.set_title("")
    limits = axes.get_xlim(), axes.get_ylim()
    if bearing is not None:
        off = float(wrap_degrees(bearing - _centre(one)))
        if isinstance(one.camera, Pinhole):
            x, y, seen = one.camera.project(torch.tensor([[off]]), torch.linspace(-80, 89, 340)[None])
            axes.plot(x[seen], y[seen] * image.shape[0] / image.shape[1], **_BEARING)
        else:
            axes.axvline(off, **_BEARING)
    axes.set(xlim=limits[0], ylim=limits[1])
    return _render(figure)


def bearing_in_satellite(click, one):
    """The bearing from the place of an `Estimate` to a click (x, y), pixels of its satellite panel."""
    x, y = np.array(click) * one.probability.shape[1] / WIDTH_PX
    return float(bearing_to(*one.position, y, x))


def bearing_in_street(click, one):
    """The bearing of a click (x, y), pixels of the street panel of an `Estimate`."""
    camera = one.camera
    if isinstance(camera, Pinhole):
        x, y = click[0] / WIDTH_PX, click[1] / WIDTH_PX * float(camera.fy / camera.fx)  # pixels are square
        return float(wrap_degrees(_centre(one) + camera.rays(torch.tensor([[x]]), torch.tensor([[y]]))[0]))
    whole = WIDTH_PX * 360 / camera.span
    return float(column_to_bearing(click[0] + (whole - WIDTH_PX) / 2, whole, _centre(one)))


def city_panel(view, near=None, found=None, softness=None):
    """A city from above, a `View`, with a guess, as `draw_guess` takes it, or with what a search has found, a `Searched`."""
    figure, axes = _open(view.image.shape[:2])
    if found:
        draw_search(axes, view, found, softness)
    else:
        pictures.draw_satellite(axes, view.image, view.metres)
        draw_guess(axes, view, near)
    return _render(figure)


def errors_panel(view, places_px, errors_m, chosen=None):
    """A city from above, a `View`, with a dot for each pair, the worst in front.

    places_px: (N, 2) on the map · errors_m: (N,) · chosen: (row, col) on the map of a pair to mark.
    """
    figure, axes = _open(view.image.shape[:2])
    pictures.draw_satellite(axes, pictures.dim(view.image), view.metres)
    order = np.argsort(errors_m, kind="stable")
    rows, cols = np.transpose([view.place(place) for place in places_px[order]]) if len(order) else ((), ())
    scale = LogNorm(_LEAST_M, max(10.0, np.max(errors_m, initial=0)))
    dots = {"c": np.maximum(errors_m[order], _LEAST_M), "cmap": ERROR_COLOURS, "norm": scale, "s": 30}
    drawn = axes.scatter(cols, rows, **dots, edgecolor="black", linewidth=0.5, zorder=4)
    if chosen is not None:
        row, col = view.place(chosen)
        axes.plot(col, row, **pictures.TRUTH)
    strip = _STRIP_PX / figure.bbox.height
    bar = figure.colorbar(drawn, cax=figure.add_axes((0.45, 0.55 * strip, 0.3, 0.25 * strip)), orientation="horizontal")
    bar.ax.set_xticks(ticks := [t for t in (0.1, 1, 10, 100) if t <= scale.vmax], [f"{t:g} m" for t in ticks], fontsize=7)
    bar.ax.minorticks_off()
    return _render(figure)


def map_px(view, click, width_px=WIDTH_PX):
    """(row, col) on the map of a click (x, y), pixels of a panel of a `View`."""
    return view.map_px(np.array(click)[::-1] * view.image.shape[1] / width_px)


def _centre(one):
    """The true bearing of the street image's centre, as `draw_street` takes it."""
    return one.true_heading if one.true_heading is not None else one.heading or 0.0


def _open(size):
    """(figure, axes) of a panel for an image of a size (height, width)."""
    image_px = max(1, round(WIDTH_PX * size[0] / size[1]))
    height = image_px + _STRIP_PX
    figure = Figure(figsize=(WIDTH_PX / _DPI, height / _DPI), dpi=_DPI)
    return figure, figure.add_axes((0, _STRIP_PX / height, 1, image_px / height))


def _render(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
