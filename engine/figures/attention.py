"""Figures of what a network looked at: an overview, a sheet of all fusion layers, and matching on the ground.

Attention comes as `AttentionMaps` of `engine.visualization.explain`, one of each fusion layer.
"""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle, Wedge
from matplotlib.transforms import Affine2D

from engine.figures import pictures
from engine.figures.street import draw_street, kind_of

LOOK_COLOURS = "viridis"  # attention is no probability of a place: another colour map than the heat map's
TOKEN_COLOUR = "#d55e00"


def overview_figure(views, one, cams, maps, *, title):
    """Both views, Grad-CAM maps of both branches and, if there are any, the last layer's `AttentionMaps`.

    The views, street and satellite image, are uint8, of any resolution. The axes stand in rows, those of the
    street image on the left.
    """
    rows = 3 if maps else 2
    figure = Figure(figsize=(10.5, 0.5 + 3.5 * rows), layout="constrained")
    axes = figure.subplots(rows, 2, width_ratios=(1.85, 1))
    for row, pair in enumerate(axes):
        _draw_pair(*pair, views, one, grey=row > 0)
    axes[0, 1].set_title("satellite image")
    for target, cam, branch in zip(axes[1], cams, (kind_of(one), "satellite"), strict=True):
        pictures.draw_heat_map(target, cam, LOOK_COLOURS, smooth=True, opacity=0.65)
        target.set_title(f"Grad-CAM of the {branch} branch")
    if maps:
        draw_attention(*axes[2], maps)
    pictures.add_title(figure, title)
    squares = " Squares: the tokens that look." if maps else ""
    figure.supxlabel(f"Grad-CAM explains the logit of the predicted pixel.{squares}", fontsize=8)
    return figure


def layers_figure(views, one, layers, *, title):
    """A row for each layer's `AttentionMaps`: a token's looks and back, then the means over all."""
    figure = Figure(figsize=(14, 1.1 + 3.0 * len(layers)), layout="constrained")
    grid = figure.subplots(len(layers), 4, width_ratios=(1.85, 1, 1.85, 1), squeeze=False)
    for number, (axes, maps) in enumerate(zip(grid, layers, strict=True), 1):
        _draw_pair(*axes[:2], views, one, grey=True)
        _draw_pair(*axes[2:], views, one, grey=True)
        draw_attention(*axes[:2], maps, f"layer {number}: ")
        _draw_look(axes[2], maps.mean_panorama, f"layer {number}: mean over all satellite queries")
        _draw_look(axes[3], maps.mean_satellite, "mean over all panorama queries")
    even = f"looking everywhere alike would give {1 / layers[0].panorama.size:.2g} a token"
    pictures.add_title(figure, title)
    figure.supxlabel(f"Each map sums to 1 over its tokens; {even}.", fontsize=8)
    return figure


def draw_attention(left, right, maps, prefix=""):
    """The attention of the token at the prediction and back, both tokens outlined. prefix: of the title."""
    words = f"{prefix}where the satellite token at the prediction looks"
    _draw_look(left, maps.panorama, words, maps.panorama_token)
    _draw_look(right, maps.satellite, "back from the brightest token", maps.satellite_token)


def ground_plane_figure(laid_out, crop, template, maps, one, *, radius, title):
    """What ground-plane matching compares, and what it finds.

    laid_out: (n, n, 4), the street image on the ground, `radius` metres to each side.
    crop: the satellite image (H, W, 3), of any resolution, shown about the prediction.
    template: dict of `colours` (k, k, 3), `extent` in metres (west, east, south, north), `rotation` in
    degrees clockwise by which to turn it, and the `view`, (bearing of its centre, width in degrees).
    maps: {stride: (h, w)}.

    The axes, in this order: street image, satellite image, template, then the maps.
    """
    figure = Figure(figsize=(12.5, 8.6), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    photo, around, features = above.subplots(1, 3)
    photo.imshow(laid_out, extent=(-radius, radius, -radius, radius))
    photo.set_title(f"{kind_of(one)} laid on the ground")
    (height, width), metres, (row, col) = one.probability.shape, one.metres_per_pixel, one.position
    around.imshow(crop, extent=np.multiply(metres, (-col, width - col, row - height, row)))
    around.set_title("satellite image around the prediction")
    picture = features.imshow(template["colours"], extent=template["extent"], interpolation="nearest")
    picture.set_transform(Affine2D().rotate_deg(-template["rotation"]) + features.transData)
    bearing, wide = template["view"]
    half = min(wide / 2, 180)
    disc = Wedge((0, 0), radius, 90 - bearing - half, 90 - bearing + half, transform=features.transData)
    picture.set_clip_path(disc)
    features.set_title("its features on the ground\n(three main components as red, green, blue)")
    limits = {"xlim": (-radius, radius), "ylim": (-radius, radius), "aspect": "equal"}
    for axes in (photo, around, features):
        axes.set(xlabel="metres east", ylabel="metres north", **limits)
        for colour, thick in (("white", 3), ("black", 1)):
            axes.plot(0, 0, "+", color=colour, markersize=10, markeredgewidth=thick)
    for axes, (stride, values) in zip(below.subplots(1, len(maps)), maps.items(), strict=True):
        pictures.draw_satellite(axes, crop, metres, one.probability.shape)
        extent = axes.images[0].get_extent()
        axes.imshow(values, extent=extent, cmap=LOOK_COLOURS, interpolation="nearest")
        span = f"{values.min():.3g} (dark) to {values.max():.3g} (bright)"
        axes.set_title(f"matching map at stride {stride}\n{span}")
        pictures.draw_marks(axes, one.position, one.truth)
        pictures.draw_views(axes, one)
    pictures.add_title(figure, title)
    return figure


def _draw_pair(left, right, views, one, grey):
    street, satellite = (pictures.dim(view) if grey else view for view in views)
    draw_street(left, street, one)
    pictures.draw_satellite(right, satellite, one.metres_per_pixel, one.probability.shape)
    pictures.draw_marks(right, one.position, one.truth)


def _draw_look(axes, values, title, token=None):
    """A map over the image of the axes, its maximum in the title, a token (row, col) of it outlined."""
    pictures.draw_heat_map(axes, values, LOOK_COLOURS, opacity=0.65)
    axes.set_title(f"{title}\nup to {np.max(values):.2g}")
    if token is not None:
        left, right, bottom, top = axes.images[0].get_extent()
        width, height = (right - left) / values.shape[1], (bottom - top) / values.shape[0]
        corner = left + token[1] * width, top + token[0] * height
        axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=TOKEN_COLOUR, linewidth=2))
