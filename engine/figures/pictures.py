"""Images and heat maps -> pictures of samples, and the parts that all pictures are made of.

Axes over a satellite image count the pixels of the network's tensor: x is the column, y the row, downwards.
The image itself may have any size. `one` is always an `Estimate`; marks use Okabe and Ito's palette.
"""

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.path import Path
from matplotlib.transforms import ScaledTranslation

from common.geometry import move
from engine.figures.street import OUTLINE, draw_street

matplotlib.rcParams.update({"font.size": 9, "axes.titlesize": 9, "pdf.fonttype": 42})
HEAT_COLOURS = "magma"
TRUTH_COLOUR, PREDICTION_COLOUR = "white", "#56b4e9"
_MARK = dict(linestyle="none", clip_on=False, zorder=5, markerfacecolor="none", path_effects=OUTLINE)
TRUTH = {**_MARK, "marker": "o", "color": TRUTH_COLOUR, "markersize": 12, "markeredgewidth": 2}
# A diagonal cross, open in the middle: a sharp heat map lies there.
_ARMS = [(x * s, y * s) for x in (-1, 1) for y in (-1, 1) for s in (0.4, 1)]
_CROSS = Path(_ARMS, [Path.MOVETO, Path.LINETO] * 4)
PREDICTION = {**_MARK, "marker": _CROSS, "color": PREDICTION_COLOUR, "markersize": 15, "markeredgewidth": 2.5}
MASK_COLOUR = (0, 158, 115)
_ZOOM_SHARE = 0.2  # of the image's shorter side: what the inset around the prediction shows
_STRIP_PT = 10  # points from the lower edge of a satellite image to the middle of the strip below it


def localization_figure(views, one, *, mask=None, heat_map_name="heat map", title="", notes=""):
    """A pair: street image and satellite image above; the heat map, whole and around the prediction, below.

    views: street image and satellite image, each (H, W, 3) uint8, of any resolution.
    mask: (H, W), shares of foreground from 0 to 255, a green veil over the satellite image.
    notes: lines below.

    The axes, in this order: street image, satellite image, heat map, its middle, colour bar.
    """
    street, satellite = views
    figure = Figure(figsize=(12, 10.4 + 0.18 * notes.count("\n")), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(0.66, 1))
    left, plain = above.subplots(1, 2, width_ratios=(1.95, 1))
    draw_street(left, street, one)
    draw_satellite(plain, satellite, one.metres_per_pixel, one.probability.shape)
    plain.set_title("satellite image")
    if mask is not None:
        plain.set_title("satellite image and mask (green)")
        veil = np.dstack([*(np.full_like(mask, value) for value in MASK_COLOUR), mask // 3])
        plain.imshow(veil, extent=plain.images[0].get_extent())
    draw_marks(plain, one.position, one.truth)
    heat, middle = below.subplots(1, 2)
    drawn = draw_found(heat, satellite, one)
    heat.set_title(heat_map_name)
    draw_views(plain, one)
    draw_views(heat, one)
    corner, side = draw_middle(middle, satellite, one)
    heat.add_patch(Rectangle(corner, side, side, fill=False, edgecolor="white", linewidth=1))
    add_colour_bar(below, drawn, middle)
    add_title(figure, title)
    if notes:
        figure.supxlabel(notes, fontsize=8)
    return figure


def heat_maps_figure(satellites, estimates):
    """Heat maps side by side: of N satellite images (N, S, S, 3) uint8 and their `Estimate`s."""
    figure = Figure(figsize=(2 * len(estimates), 2))
    grid = figure.subplots(1, len(estimates), squeeze=False, gridspec_kw={"wspace": 0.03})[0]
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.99)
    for axes, satellite, one in zip(grid, satellites, estimates, strict=True):
        draw_found(axes, satellite, one)
    return figure


def semi_positive_figure(street, tiles, fused, corners, *, title=""):
    """One street image, its satellite images, and what their heat maps say together.

    tiles: (satellite (H, W, 3), of any resolution, `Estimate`, title) of each image.
    fused: the same of their mosaic, on a common grid.
    corners: (K, 2), the images' north-west corners (row, col) on that grid.

    The axes, in this order: street image, fused map, its colour bar, then the tiles.
    """
    figure = Figure(figsize=(13, 8.5), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.12, 1))
    left, right = above.subplots(1, 2, width_ratios=(2, 1.15))
    draw_street(left, street, tiles[0][1])
    add_colour_bar(above, draw_found(right, *fused[:2]), right)
    dotted = {"fill": False, "edgecolor": "white", "linewidth": 0.8, "linestyle": ":"}
    for row, col in corners:
        right.add_patch(Rectangle((col, row), *tiles[0][1].probability.shape, **dotted))
    right.set_title(fused[2])
    for axes, (satellite, one, words) in zip(below.subplots(1, len(tiles)), tiles, strict=True):
        draw_found(axes, satellite, one)
        axes.set_title(words)
    add_title(figure, title)
    return figure


def draw_found(axes, satellite, one, opacity=0.85):
    """A satellite image (H, W, 3) in greys, its heat map over it, and the marks. Returns the drawn map.

    The heat map's opacity is within 0 and 1; the image keeps its colours where that is 0.
    """
    grey = min(1.0, 2 * opacity)
    image = np.rint(grey * dim(satellite) + (1 - grey) * satellite).astype(np.uint8)
    draw_satellite(axes, image, one.metres_per_pixel, one.probability.shape)
    drawn = draw_heat_map(axes, one.probability, opacity=opacity)
    draw_marks(axes, one.position, one.truth)
    return drawn


def draw_middle(axes, satellite, one):
    """A fifth of what `draw_found` draws, about the prediction or near it, with marks that leave it free.

    Returns the corner (x, y) and the side of the part.
    """
    height, width = one.probability.shape
    side = _ZOOM_SHARE * min(height, width)
    top, left = np.clip(np.subtract(one.position, side / 2), 0, (height - side, width - side)).tolist()
    axes.imshow(dim(satellite), extent=(0, width, height, 0))
    draw_heat_map(axes, one.probability)
    axes.set(xlim=(left, left + side), ylim=(top + side, top), xticks=[], yticks=[])
    large = {"markeredgewidth": 2, "clip_on": True}
    if one.truth is not None:
        axes.plot(one.truth[1], one.truth[0], label="truth", **{**TRUTH, **large, "markersize": 34})
    style = {**PREDICTION, **large, "markersize": 60}
    axes.plot(one.position[1], one.position[0], label="prediction", **style)
    span = "" if one.metres_per_pixel is None else f", {side * one.metres_per_pixel:.1f} m on a side"
    axes.set_title(f"around the prediction{span}")
    return (left, top), side


def draw_satellite(axes, satellite, metres_per_pixel=None, size=None):
    """A satellite image (H, W, 3); below it a north arrow and, if metres per pixel are known, a scale bar.

    The axes and metres_per_pixel count pixels of a size (height, width), by default the image's own. Arrow
    and bar stand outside so that they never cover a mark.
    """
    height, width = size or satellite.shape[:2]
    axes.imshow(satellite, extent=(0, width, height, 0))
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    below = ScaledTranslation(0, -_STRIP_PT / 72, axes.figure.dpi_scale_trans)
    strip = axes.get_xaxis_transform() + below  # x in pixels, y = 0 in the strip's middle
    if metres_per_pixel is not None:
        limit = 0.25 * width * metres_per_pixel
        power = 10.0 ** np.floor(np.log10(limit))
        metres = power * max(step for step in (1, 2, 5) if step * power <= limit * (1 + 1e-9))
        length = metres / metres_per_pixel
        axes.plot([0, length], [0, 0], "|-k", linewidth=2, clip_on=False, transform=strip)
        axes.text(length + 0.02 * width, 0, f"{metres:g} m", va="center", transform=strip)
    axes.text(width, 0, "N ↑", ha="right", va="center", transform=strip)


def draw_heat_map(axes, values, colours=HEAT_COLOURS, smooth=False, opacity=0.85, extent=None):
    """A map (H, W) of numbers from 0 on over the image of the axes, transparent where they are small.

    smooth: interpolate between the cells of a coarse map.
    extent: (left, right, bottom, top) that it covers; None: what the image covers.

    Returns the drawn map.
    """
    most = max(float(values.max()), 1e-12)
    alpha = opacity * np.clip(np.sqrt(values / most), 0, 1)
    look = {"cmap": colours, "alpha": alpha, "interpolation": "bilinear" if smooth else "nearest"}
    return axes.imshow(values, extent=extent or axes.images[0].get_extent(), vmin=0, vmax=most, **look)


def draw_marks(axes, prediction, truth=None):
    """Prediction and, where it is known, truth; positions are (row, col)."""
    if truth is not None:
        axes.plot(truth[1], truth[0], label="truth", **TRUTH)
    axes.plot(prediction[1], prediction[0], label="prediction", **PREDICTION)


def draw_views(axes, one, truth=True):
    """Where the street image looks, predicted and, with `truth`, true: arrows, of photographs wedges."""
    reach, photograph = 0.11 * max(one.probability.shape), one.camera.kind == "photo"
    predicted = one.true_heading if photograph and one.heading is None else one.heading
    looks = [(one.position, predicted, PREDICTION_COLOUR)]
    if truth and one.heading is not None and one.truth is not None:
        looks.append((one.truth, one.true_heading, TRUTH_COLOUR))
    for position, heading, colour in looks:
        if heading is not None and photograph:
            _draw_wedge(axes, position, heading, one.camera, 2.5 * reach, colour)
        elif heading is not None:
            tip = move(*position, heading, reach)
            arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 2, "shrinkA": 6}
            arrow["path_effects"] = OUTLINE
            axes.annotate("", tip[::-1], position[::-1], arrowprops=arrow)


def _draw_wedge(axes, position, heading, camera, length, colour):
    """What a camera at a position (row, col) sees along a heading, up to `length` pixels away."""
    left, right = camera.rays(torch.tensor([[0.0, 1.0]]), torch.full((1, 2), 0.5))[0][0].tolist()
    arc = [move(*position, heading + bearing, length) for bearing in np.linspace(left, right, 25)]
    style = {"color": colour, "path_effects": OUTLINE, "scalex": False, "scaley": False, "clip_on": True}
    for points, width in (([arc[0], position, arc[-1]], 1.8), (arc, 1)):
        rows, cols = np.transpose(points)
        axes.plot(cols, rows, linewidth=width, **style)


def add_title(figure, title):
    """A figure's title at the top left and, at the top right, a legend of the marks."""
    two_lines = title + "\n" * ("\n" not in title)  # as high as the legend
    figure.suptitle(two_lines, x=0.01, ha="left")
    labelled = (handle for axes in figure.axes[::-1] for handle in axes.get_legend_handles_labels()[0])
    handles = list({handle.get_label(): handle for handle in labelled}.values())
    legend = figure.legend(handles=handles, loc="upper right", ncols=2, frameon=False, handletextpad=0.7)
    legend.set_in_layout(False)  # it stands beside the title


def add_colour_bar(figure, picture, axes, what="pixel", shrink=0.8, **how):
    """A colour bar, in percent, beside the axes of a heat map over pixels or another thing."""
    percent = {"format": lambda value, _: f"{100 * value:.3g}"}
    bar = figure.colorbar(picture, ax=axes, shrink=shrink, **percent, **how)
    bar.set_label(f"probability of a {what} (%)")


def dim(image):
    """An image in greys that leave colour to what is drawn over it."""
    grey = image.astype(np.float32) @ np.float32([0.299, 0.587, 0.114])
    return np.repeat((40 + 0.7 * grey).astype(np.uint8)[..., None], 3, axis=2)
