"""Images and heat maps -> pictures of samples. Nothing is loaded and nothing is predicted here.

Axes over a satellite image count the pixels of the network's tensor, as positions do: x is the column, y the row, downwards. The
image itself may have any size. Maps are perceptually even in colour, marks are of Okabe and Ito's palette, and truth and
prediction differ in shape as well.
"""

import matplotlib
import numpy as np
import torch
from matplotlib import patheffects
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.path import Path
from matplotlib.transforms import ScaledTranslation

from common.camera import Pinhole, panorama
from common.geometry import move

matplotlib.rcParams.update({"font.size": 9, "axes.titlesize": 9, "pdf.fonttype": 42})
HEAT_COLOURS = "magma"
TRUTH_COLOUR, PREDICTION_COLOUR = "white", "#56b4e9"
OUTLINE = [patheffects.withStroke(linewidth=4, foreground="black")]
_MARK = {"linestyle": "none", "clip_on": False, "zorder": 5, "markerfacecolor": "none", "path_effects": OUTLINE}
TRUTH = {**_MARK, "marker": "o", "color": TRUTH_COLOUR, "markersize": 12, "markeredgewidth": 2}
# A diagonal cross, open in the middle: a sharp heat map lies there.
_CROSS = Path([(x * s, y * s) for x in (-1, 1) for y in (-1, 1) for s in (0.4, 1)], [Path.MOVETO, Path.LINETO] * 4)
PREDICTION = {**_MARK, "marker": _CROSS, "color": PREDICTION_COLOUR, "markersize": 15, "markeredgewidth": 2.5}
MASK_COLOUR = (0, 158, 115)
_ZOOM_SHARE = 0.2  # of the image's shorter side: what the inset around the prediction shows
_STRIP_PT = 10  # points from the lower edge of a satellite image to the middle of the strip below it
_WHOLE = panorama()
_COMPASS = {0: "N", 45: "NE", 90: "E", 135: "SE", 180: "S", 225: "SW", 270: "W", 315: "NW"}


def localization_figure(views, one, *, mask=None, heat_map_name="heat map", title="", notes=""):
    """One pair: the street image and the satellite image, with mask where given, above; the heat map, whole and around the
    prediction, below.

    views: street image and satellite image, each (H, W, 3) uint8, of any resolution.
    one: the pair's `Estimate`; None stands for what is not known.
    mask: (H, W) uint8.
    notes: lines below.

    The axes are, in this order, of the street image, the satellite image, the heat map, its middle and the colour bar.
    """
    street, satellite = views
    figure = Figure(figsize=(12, 10.4 + 0.18 * notes.count("\n")), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(0.66, 1))
    left, plain = above.subplots(1, 2, width_ratios=(1.95, 1))
    draw_street(left, street, one)
    draw_satellite(plain, satellite, one.metres_per_pixel, one.probability.shape)
    plain.set_title("satellite image" + (" and mask (green)" if mask is not None else ""))
    if mask is not None:
        draw_mask(plain, mask)
    draw_marks(plain, one.position, one.truth)
    heat, middle = below.subplots(1, 2)
    drawn = draw_found(heat, satellite, one)
    heat.set_title(heat_map_name)
    for axes in (plain, heat):
        draw_views(axes, one)
    corner, side = draw_middle(middle, satellite, one)
    heat.add_patch(Rectangle(corner, side, side, fill=False, edgecolor="white", linewidth=1))
    add_colour_bar(below, drawn, middle)
    add_title(figure, title)
    if notes:
        figure.supxlabel(notes, fontsize=8)
    return figure


def heat_maps_figure(satellites, estimates):
    """Heat maps side by side: satellites (N, S, S, 3) uint8, and what a network says about each, N `Estimate`s."""
    figure = Figure(figsize=(2 * len(estimates), 2))
    grid = figure.subplots(1, len(estimates), squeeze=False, gridspec_kw={"wspace": 0.03})[0]
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.99)
    for axes, satellite, one in zip(grid, satellites, estimates, strict=True):
        draw_found(axes, satellite, one)
    return figure


def semi_positive_figure(street, tiles, fused, corners, *, title=""):
    """One street image, its satellite images, and what their heat maps say together.

    tiles: (satellite (H, W, 3), of any resolution, `Estimate`, title) of each image.
    fused: the same on the common grid, the image being the mosaic.
    corners: (K, 2), the north-west corners (row, col) of the images on that grid.

    The axes are those of the street image, the fused map with its colour bar, then the tiles.
    """
    figure = Figure(figsize=(13, 8.5), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.12, 1))
    left, right = above.subplots(1, 2, width_ratios=(2, 1.15))
    draw_street(left, street, tiles[0][1])
    add_colour_bar(above, draw_found(right, *fused[:2]), right)
    outline = {"fill": False, "edgecolor": "white", "linewidth": 0.8, "linestyle": ":"}
    for row, col in corners:
        right.add_patch(Rectangle((col, row), *tiles[0][1].probability.shape, **outline))
    right.set_title(fused[2])
    for axes, (satellite, one, words) in zip(below.subplots(1, len(tiles)), tiles, strict=True):
        draw_found(axes, satellite, one)
        axes.set_title(words)
    add_title(figure, title)
    return figure


def draw_found(axes, satellite, one, opacity=0.85):
    """A satellite image (H, W, 3) in greys, the heat map of its `Estimate` over it, and its marks. Returns the drawn map.

    opacity: of the heat map, 0 to 1; the image has its colours where that is 0.
    """
    grey = min(1.0, 2 * opacity)
    image = np.rint(grey * dim(satellite) + (1 - grey) * satellite).astype(np.uint8)
    draw_satellite(axes, image, one.metres_per_pixel, one.probability.shape)
    drawn = draw_heat_map(axes, one.probability, opacity=opacity)
    draw_marks(axes, one.position, one.truth)
    return drawn


def draw_middle(axes, satellite, one):
    """What `draw_found` draws, a fifth of it around the prediction, with marks that stand around a sharp heat map, not on it.

    Where the prediction is near an edge, the part that is shown moves inwards. Returns its corner (x, y) and its side.
    """
    height, width = one.probability.shape
    side = _ZOOM_SHARE * min(height, width)
    top, left = (min(max(0.0, at - side / 2), whole - side) for at, whole in zip(one.position, (height, width), strict=True))
    axes.imshow(dim(satellite), extent=(0, width, height, 0))
    draw_heat_map(axes, one.probability)
    axes.set(xlim=(left, left + side), ylim=(top + side, top), xticks=[], yticks=[])
    large = {"markersize": 60, "markeredgewidth": 2, "clip_on": True}
    if one.truth is not None:
        axes.plot(one.truth[1], one.truth[0], label="truth", **{**TRUTH, **large, "markersize": 34})
    axes.plot(one.position[1], one.position[0], label="prediction", **{**PREDICTION, **large})
    span = "" if one.metres_per_pixel is None else f", {side * one.metres_per_pixel:.1f} m on a side"
    axes.set_title(f"around the prediction{span}")
    return (left, top), side


def draw_street(axes, image, one):
    """The street image (H, W, 3) of an `Estimate`, a panorama or a photograph, with compass bearings.

    The bearing of its centre is the true one; where that is not known the predicted one is taken, and without that no bearing is
    drawn. x is degrees from a panorama's centre, or the width of a photograph, 0 to 1.
    """
    draw = draw_photograph if isinstance(one.camera, Pinhole) else draw_panorama
    draw(axes, image, one.camera, one.true_heading, one.heading)


def kind_of(one):
    """'photograph' or 'panorama': what the street image of an `Estimate` is."""
    return "photograph" if isinstance(one.camera, Pinhole) else "panorama"


def draw_photograph(axes, photograph, camera, heading=None, predicted_heading=None):
    """A photograph (H, W, 3) of a `Pinhole` camera, with the horizon that it was told to have, and bearings on it."""
    height, width = photograph.shape[:2]
    axes.imshow(photograph, extent=(0, 1, height / width, 0), aspect="equal")
    axes.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(height / width, 0))
    hfov = float(camera.hfov)
    words = f"photograph, {hfov:.0f}° wide, dashed: the horizon assumed"
    centre = heading if heading is not None else predicted_heading
    if heading is not None:
        words += f"\naxis at bearing {heading % 360:.0f}°"
        words += "" if predicted_heading is None else f", predicted {predicted_heading % 360:.0f}°"
    elif predicted_heading is not None:
        words += f"\naxis at bearing {centre % 360:.0f}° as predicted"
    axes.set_title(words)
    line = _on_horizon(camera, np.linspace(-89, 89, 357))
    axes.plot(line[0], line[1] * height / width, "--", color="white", linewidth=1.2, path_effects=OUTLINE)
    if centre is None:
        return
    step = 15 if hfov < 100 else 30
    bearings = np.arange(np.ceil((centre - 90) / step), np.floor((centre + 90) / step) + 1) * step
    x, y = _on_horizon(camera, bearings - centre)
    for bearing, at, down in zip(bearings, x, y * height / width, strict=True):
        if 0.02 < at < 0.98 and 0 < down < height / width:
            words = _COMPASS.get(int(bearing) % 360, f"{int(bearing) % 360}°")
            axes.plot(at, down, "|", color="white", markersize=10, path_effects=OUTLINE)
            axes.annotate(words, (at, down), (0, 7), textcoords="offset points", ha="center", color="white", path_effects=OUTLINE)


def _on_horizon(camera, bearings):
    """(x, y), shares of the image, of points of the horizon at bearings (n,) from the axis; NaN where they are not seen."""
    x, y, seen = (
        part[0].numpy() for part in camera.project(torch.tensor(bearings, dtype=torch.float32)[None], torch.zeros(1, 1))
    )
    return np.where(seen, x, np.nan), np.where(seen, y, np.nan)


def draw_panorama(axes, panorama, camera=_WHOLE, heading=0.0, predicted_heading=None):
    """A panorama (H, W, 3) of an `Equirectangular` camera with compass bearings along its lower edge."""
    FoV, (height, width) = camera.span, panorama.shape[:2]
    axes.imshow(panorama, extent=(-FoV / 2, FoV / 2, 0, height * FoV / width), aspect="equal")
    axes.set(xticks=[], yticks=[])
    centre, words = heading, "panorama"
    if heading is not None:
        words += f", centre at bearing {heading % 360:.0f}°"
        words += "" if predicted_heading is None else f", predicted {predicted_heading % 360:.0f}°"
    elif predicted_heading is not None:
        centre = predicted_heading
        words += f", centre at bearing {centre % 360:.0f}° as predicted"
    axes.set_title(words)
    if centre is None:
        return
    step = 45 if FoV > 100 else 30
    bearings = np.arange(np.ceil((centre - FoV / 2) / step), np.floor((centre + FoV / 2) / step) + 1) * step
    axes.set_xticks(bearings - centre, [_COMPASS.get(int(b) % 360, f"{int(b) % 360}°") for b in bearings])


def draw_satellite(axes, satellite, metres_per_pixel=None, size=None):
    """A satellite image (H, W, 3), and below it a north arrow and, where metres per pixel are known, a scale bar.

    size: (height, width) in whose pixels the axes count and metres_per_pixel is meant, where they are not the image's own.
    Arrow and bar stand outside so that they never cover a mark.
    """
    height, width = size or satellite.shape[:2]
    axes.imshow(satellite, extent=(0, width, height, 0))
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    below = ScaledTranslation(0, -_STRIP_PT / 72, axes.figure.dpi_scale_trans)
    strip = axes.get_xaxis_transform() + below  # x in pixels, y = 0 in the strip's middle
    if metres_per_pixel is not None:
        metres = round_length(0.25 * width * metres_per_pixel)
        length = metres / metres_per_pixel
        axes.plot([0, length], [0, 0], "|-k", linewidth=2, clip_on=False, transform=strip)
        axes.text(length + 0.02 * width, 0, f"{metres:g} m", va="center", transform=strip)
    axes.text(width, 0, "N ↑", ha="right", va="center", transform=strip)


def draw_mask(axes, mask):
    """A mask (H, W), the share of foreground in each pixel, 0 to 255, as a green veil over the image of the axes."""
    veil = np.dstack([*(np.full_like(mask, value) for value in MASK_COLOUR), mask // 3])
    axes.imshow(veil, extent=axes.images[0].get_extent())


def draw_heat_map(axes, values, colours=HEAT_COLOURS, smooth=False, opacity=0.85, extent=None):
    """A map (H, W) of numbers from 0 on over the image of the axes, which shines through where they are small.

    smooth: interpolate between the cells of a coarse map · extent: (left, right, bottom, top) that it covers, where that is not
    the image's. Returns the drawn map.
    """
    highest = max(float(values.max()), 1e-12)
    return axes.imshow(
        values,
        extent=extent or axes.images[0].get_extent(),
        cmap=colours,
        vmin=0,
        vmax=highest,
        alpha=opacity * np.clip(np.sqrt(values / highest), 0, 1),
        interpolation="bilinear" if smooth else "nearest",
    )


def draw_marks(axes, prediction, truth=None):
    """Prediction and, where it is known, truth; positions are (row, col)."""
    if truth is not None:
        axes.plot(truth[1], truth[0], label="truth", **TRUTH)
    axes.plot(prediction[1], prediction[0], label="prediction", **PREDICTION)


def draw_views(axes, one, truth=True):
    """Where the street image of an `Estimate` looks, as predicted and, with `truth`, in truth: arrows, of photographs wedges."""
    reach, photograph = 0.11 * max(one.probability.shape), isinstance(one.camera, Pinhole)
    predicted = one.true_heading if photograph and one.heading is None else one.heading
    looks = [(one.position, predicted, PREDICTION_COLOUR)]
    if truth and one.heading is not None and one.truth is not None:
        looks.append((one.truth, one.true_heading, TRUTH_COLOUR))
    for position, heading, colour in looks:
        if heading is not None and photograph:
            draw_wedge(axes, position, heading, one.camera, 2.5 * reach, colour)
        elif heading is not None:
            draw_heading(axes, position, heading, reach, colour)


def draw_wedge(axes, position, heading, camera, length, colour):
    """What a `Pinhole` camera at a position (row, col), looking along a heading, sees: lines of `length` pixels along its rim."""
    left, right = camera.rays(torch.tensor([[0.0, 1.0]]), torch.full((1, 2), 0.5))[0][0].tolist()
    rim = [move(*position, heading + bearing, length) for bearing in (left, right)]
    arc = [move(*position, heading + bearing, length) for bearing in np.linspace(left, right, 25)]
    rows, cols = np.transpose([*arc[:1], position, rim[1]])
    style = {"color": colour, "path_effects": OUTLINE, "scalex": False, "scaley": False, "clip_on": True}
    axes.plot(cols, rows, linewidth=1.8, **style)
    rows, cols = np.transpose(arc)
    axes.plot(cols, rows, linewidth=1, **style)


def draw_heading(axes, position, heading, length, colour):
    """An arrow of `length` pixels from a position (row, col) along a bearing in degrees."""
    tip = move(*position, heading, length)
    arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 2, "shrinkA": 6, "path_effects": OUTLINE}
    axes.annotate("", xy=tip[::-1], xytext=(position[1], position[0]), arrowprops=arrow)


def add_title(figure, title):
    """A figure's title at the top left and, at the top right, which mark is which."""
    figure.suptitle(title + "\n" * ("\n" not in title), x=0.01, ha="left")  # two lines, as the legend is that high
    handles = {handle.get_label(): handle for axes in figure.axes[::-1] for handle in axes.get_legend_handles_labels()[0]}
    legend = figure.legend(handles=list(handles.values()), loc="upper right", ncols=2, frameon=False, handletextpad=0.7)
    legend.set_in_layout(False)  # it stands beside the title


def add_colour_bar(figure, picture, axes):
    """A colour bar beside a heat map's axes, in percent."""
    bar = figure.colorbar(picture, ax=axes, shrink=0.8, format=lambda value, _: f"{100 * value:.3g}")
    bar.set_label("probability of a pixel (%)")


def dim(image):
    """An image in greys that leave colour to what is drawn over it."""
    grey = image.astype(np.float32) @ np.float32([0.299, 0.587, 0.114])
    return np.repeat((40 + 0.7 * grey).astype(np.uint8)[..., None], 3, axis=2)


def round_length(limit):
    """The longest of 1, 2 or 5 times a power of ten that is at most `limit`."""
    power = 10.0 ** np.floor(np.log10(limit))
    return power * max(step for step in (1, 2, 5) if step * power <= limit * (1 + 1e-9))
