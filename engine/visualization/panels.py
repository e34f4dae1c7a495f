"""Single views of a picture, to be looked at and clicked into: the same marks and colours, and from a pixel back to its place.

A panel is (height, width, 3) uint8. Its image spans the whole width, from the upper edge down; scale and compass stand below it.
"""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

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
    if one.heading is not None:
        pictures.draw_heading(axes, one.position, one.heading, 0.11 * max(one.probability.shape), pictures.PREDICTION_COLOUR)
    if bearing is not None:
        ends = [move(*one.position, bearing, reach * max(one.probability.shape)) for reach in (0.05, 1.5)]
        axes.plot(*np.transpose(ends)[::-1], **_BEARING)
    return _render(figure)


def panorama_panel(panorama, one, FoV=360.0, bearing=None):
    """A panorama (H, W, 3) of an `Estimate` with the compass below it, and a line at a bearing where that is seen."""
    height, width = panorama.shape[:2]
    figure, axes = _open((height, width))
    pictures.draw_panorama(axes, panorama, one.true_heading, FoV, one.heading)
    axes.set_title("")
    if bearing is not None:
        axes.axvline(wrap_degrees(bearing - _centre(one)), **_BEARING)
    axes.set(xlim=(-FoV / 2, FoV / 2))
    return _render(figure)


def bearing_in_satellite(click, one):
    """The bearing from the place of an `Estimate` to a click (x, y), pixels of its satellite panel."""
    x, y = np.array(click) * one.probability.shape[1] / WIDTH_PX
    return float(bearing_to(*one.position, y, x))


def bearing_in_panorama(click, one, FoV=360.0):
    """The bearing of a click (x, y), pixels of the panorama panel of an `Estimate`."""
    whole = WIDTH_PX * 360 / FoV
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
    """The true bearing of the panorama's centre column, as `draw_panorama` takes it."""
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
