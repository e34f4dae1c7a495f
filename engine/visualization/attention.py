"""What a network looked at -> figures: an overview, a sheet of all fusion layers, and matching on the ground."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle, Wedge
from matplotlib.transforms import Affine2D
from torch.utils.data import default_collate

from engine.batch import to_device
from engine.visualization import explain, pictures

LOOK_COLOURS = "viridis"  # what a network looks at is no probability of a place: another map than the heat map's
TOKEN_COLOUR = "#d55e00"


def attention_figures(samples, i, heads):
    """{what it shows: figure} of pair i of some `Samples`; heads: attention heads that get a sheet of their own."""
    model, settings = samples.loaded.model, samples.loaded.settings
    sample = samples.dataset[i]
    batch = to_device(default_collate([sample]), samples.device)
    result, (one,) = samples.estimate(batch, return_attention=True)
    cams = [
        explain.grad_cam(model, batch, backbone.blocks[-1], one.position)
        for backbone in (model.panorama_backbone, model.satellite_backbone)
    ]
    rows = round(len(cams[0]) * model.sky / (model.view_size[0] - model.sky))
    cams[0] = np.pad(cams[0], ((rows, 0), (0, 0)))  # above what the branch sees nothing speaks
    views = samples.views(i, sample)
    title = f"{samples.list_name} {i}" + (f": error {one.error}" if one.truth else "")
    figures = {}
    if result.attention is None:
        words = f"{title}\n{settings.network} network: no cross-attention; what it compares is in the picture of the ground"
        figures["overview"] = overview_figure(views, one, cams, None, title=words)
    else:
        figures |= _attention_sheets(samples, views, one, cams, result.attention, title, heads)
    if result.templates is not None:
        laid_out, template, maps = explain.ground_plane_panels(model, result, batch, one)
        figures["ground_plane"] = ground_plane_figure(
            laid_out, views[1], template, maps, one, radius=settings.matching_radius, title=title
        )
    return figures


def _attention_sheets(samples, views, one, cams, attention, title, heads):
    """The overview and the sheets with every layer, as `attention_figures` gives them."""
    settings = samples.loaded.settings
    anchors = settings.vert_anchors, settings.horz_anchors
    assumed = " (assumed)" if "num_heads" in samples.loaded.assumed else ""
    heads_word = f"mean over {settings.num_heads} heads{assumed}"

    def looks(head=None):
        return [explain.look(layer, anchors, one.position, settings.satellite_size, head) for layer in attention]

    def sheet(words, head=None):
        return layers_figure(views, one, looks(head), title=f"{title}\nattention, {words}")

    last = f"{title}\nattention of the last of {len(attention)} layers, {heads_word}"
    figures = {"overview": overview_figure(views, one, cams, looks()[-1], title=last)}
    figures["layers"] = sheet(heads_word)
    return figures | {f"layers_head{head:02d}": sheet(f"head {head}", head) for head in heads}


def overview_figure(views, one, cams, look, *, title):
    """Both views, Grad-CAM of both branches, and the final layer's attention both ways where the network has any.

    views: (panorama, satellite), uint8 images of any resolution.
    one: the sample's `Estimate`.
    cams: Grad-CAM maps of both branches.
    look: the last layer's `Look`, or None.

    The axes stand in rows: panorama, satellite image.
    """
    names = [("", "satellite image"), (f"Grad-CAM of the {pictures.kind_of(one)} branch", "Grad-CAM of the satellite branch")]
    names += [look_titles(look)] if look else []
    figure = Figure(figsize=(10.5, 0.5 + 3.5 * len(names)), layout="constrained")
    axes = figure.subplots(len(names), 2, width_ratios=(1.85, 1))
    for row, (left, right) in enumerate(axes):
        _draw_views(left, right, views, one, grey=row > 0)
        if row:
            left.set_title(names[row][0])
        right.set_title(names[row][1])
        pictures.draw_marks(right, one.position, one.truth)
    for target, cam in zip(axes[1], cams, strict=True):
        pictures.draw_heat_map(target, cam, LOOK_COLOURS, smooth=True, opacity=0.65)
    if look:
        _draw_look(*axes[2], look.panorama, look.satellite, look)
    pictures.add_title(figure, title)
    squares = " Squares: the tokens that look." if look else ""
    figure.supxlabel(f"Grad-CAM explains the logit of the predicted pixel.{squares}", fontsize=8)
    return figure


def layers_figure(views, one, looks, *, title):
    """A row for each layer's `Look`: where the token at the prediction looks and back, then both means over all queries."""
    figure = Figure(figsize=(14, 1.1 + 3.0 * len(looks)), layout="constrained")
    grid = figure.subplots(len(looks), 4, width_ratios=(1.85, 1, 1.85, 1), squeeze=False)
    for number, (axes, look) in enumerate(zip(grid, looks, strict=True), 1):
        for left, right in (axes[:2], axes[2:]):
            _draw_views(left, right, views, one, grey=True)
            pictures.draw_marks(right, one.position, one.truth)
        _draw_look(*axes[:2], look.panorama, look.satellite, look)
        _draw_look(*axes[2:], look.mean_panorama, look.mean_satellite)
        first, back = look_titles(look)
        titles = (
            f"layer {number}: {first}",
            back,
            f"layer {number}: mean over all satellite queries{_peak(look.mean_panorama)}",
            f"mean over all panorama queries{_peak(look.mean_satellite)}",
        )
        for target, words in zip(axes, titles, strict=True):
            target.set_title(words)
    even = 1 / looks[0].panorama.size
    pictures.add_title(figure, title)
    figure.supxlabel(f"Each map sums to 1 over its tokens; looking everywhere alike would give {even:.2g} a token.", fontsize=8)
    return figure


def look_titles(look):
    """Titles of the panorama and the satellite image with the attention of a query and back."""
    return (
        f"where the satellite token at the prediction looks{_peak(look.panorama)}",
        f"back from the brightest token{_peak(look.satellite)}",
    )


def ground_plane_figure(laid_out, crop, template, maps, one, *, radius, title):
    """What ground-plane matching compares, and what it finds.

    laid_out: (n, n, 4), the panorama on the ground, `radius` metres to each side.
    crop: the satellite image (H, W, 3), of any resolution, shown about the prediction.
    template: dict of `colours` (k, k, 3), `extent` in metres (west, east, south, north), `rotation` in degrees clockwise by which
    it is to be turned, and the `view`, (bearing of its centre, width in degrees), after that.
    maps: {stride: (h, w)}.
    one: the sample's `Estimate`.

    The axes: panorama, satellite, template, then the maps.
    """
    figure = Figure(figsize=(12.5, 8.6), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    photo, around, features = above.subplots(1, 3)
    photo.imshow(laid_out, extent=(-radius, radius, -radius, radius))
    photo.set_title(f"{pictures.kind_of(one)} laid on the ground")
    size, metres = len(one.probability), one.metres_per_pixel
    row, col = one.position
    around.imshow(crop, extent=(-col * metres, (size - col) * metres, (row - size) * metres, row * metres))
    around.set_title("satellite image around the prediction")
    picture = features.imshow(template["colours"], extent=template["extent"], interpolation="nearest")
    picture.set_transform(Affine2D().rotate_deg(-template["rotation"]) + features.transData)
    bearing, width = template["view"]
    half = min(width / 2, 180)
    disc = Wedge((0, 0), radius, 90 - bearing - half, 90 - bearing + half, transform=features.transData)
    picture.set_clip_path(disc)
    features.set_title("its features on the ground\n(three main components as red, green, blue)")
    for axes in (photo, around, features):
        axes.set(xlim=(-radius, radius), ylim=(-radius, radius), xlabel="metres east", ylabel="metres north", aspect="equal")
        axes.plot(0, 0, "+", color="white", markersize=10, markeredgewidth=3)
        axes.plot(0, 0, "+", color="black", markersize=10, markeredgewidth=1)
    for axes, (stride, values) in zip(below.subplots(1, len(maps)), maps.items(), strict=True):
        pictures.draw_satellite(axes, crop, metres, one.probability.shape)
        axes.imshow(values, extent=axes.images[0].get_extent(), cmap=LOOK_COLOURS, interpolation="nearest")
        axes.set_title(f"matching map at stride {stride}\n{values.min():.3g} (dark) to {values.max():.3g} (bright)")
        pictures.draw_marks(axes, one.position, one.truth)
        if one.heading is not None:
            pictures.draw_heading(axes, one.position, one.heading, 0.12 * size, pictures.PREDICTION_COLOUR)
            if one.truth is not None:
                pictures.draw_heading(axes, one.truth, one.true_heading, 0.12 * size, pictures.TRUTH_COLOUR)
    pictures.add_title(figure, title)
    return figure


def _draw_views(left, right, views, one, grey):
    street, satellite = (pictures.dim(view) if grey else view for view in views)
    pictures.draw_street(left, street, one)
    pictures.draw_satellite(right, satellite, one.metres_per_pixel, one.probability.shape)


def _draw_look(left, right, panorama_map, satellite_map, look=None):
    pictures.draw_heat_map(left, panorama_map, LOOK_COLOURS, opacity=0.65)
    pictures.draw_heat_map(right, satellite_map, LOOK_COLOURS, opacity=0.65)
    if look is not None:
        _draw_token(left, look.panorama_token, look.panorama.shape)
        _draw_token(right, look.satellite_token, look.satellite.shape)


def _draw_token(axes, token, grid):
    """The outline of a token (row, col) of a grid that covers the axes' image."""
    left, right, bottom, top = axes.images[0].get_extent()
    width, height = (right - left) / grid[1], (bottom - top) / grid[0]
    corner = left + token[1] * width, top + token[0] * height
    axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=TOKEN_COLOUR, linewidth=2))


def _peak(values):
    return f"\nup to {np.max(values):.2g}"
