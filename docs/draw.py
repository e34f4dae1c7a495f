"""Draw the figures of docs/: the network with its shapes, and the conventions of positions and headings.

    python -m docs.draw
    python -m docs.draw --dataset_root /data/VIGOR --output_dir /tmp

Shapes come from the network itself and everything in the pictures from the project's functions, so that neither can be wrong.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.patches import FancyBboxPatch

from common import flags, geometry
from dataset.images import OriginalImages
from dataset.index import find_root, load_index
from dataset.vigor import roll_and_crop
from model.decoder import STAGES
from model.matcher import build_model

HEADING = 60.0  # degrees, of the panorama that is drawn
COLOURS = {"panorama": "#cfe3f7", "satellite": "#d7efd3", "matching": "#fde3c3", "decoder": "#e6dcf5", "fusion": "#f6d6dc"}


def network_shapes():
    """({name: (C, H, W)} of all that `draw_network` names, settings), at the published sizes; nothing is computed."""
    with torch.device("meta"):
        model = build_model().eval()
        size, settings = model.satellite_size[0], model.settings
        shapes = {"panorama": (3, *model.view_size), "satellite": (3, size, size)}

        def note(name):
            return lambda module, inputs, output: shapes.update({name: tuple(output.shape[1:])})

        for view in ("panorama", "satellite"):
            backbone = getattr(model, f"{view}_backbone")
            backbone.register_forward_hook(
                lambda module, inputs, output, view=view: shapes.update(
                    {(view, k): tuple(x.shape[1:]) for k, x in output.items()}
                )
            )
        for key, stage in model.decoder.stages.items():
            stage.register_forward_hook(note(int(key)))
        model.fusion.fuse.register_forward_hook(note("fused"))
        images = [torch.empty(1, *shapes[view]) for view in ("panorama", "satellite")]
        shapes["logits"] = tuple(model(*images, torch.empty(1, 1, size, size)).logits.shape[1:])
    return shapes, settings


def _box(ax, x, y, text, colour, width, height=0.62):
    """A labelled box about (x, y)."""
    style = "round,pad=0,rounding_size=0.08"
    ax.add_patch(FancyBboxPatch((x - width / 2, y - height / 2), width, height, boxstyle=style, fc=colour, ec="#555555", lw=0.8))
    ax.text(x, y, text, ha="center", va="center", fontsize=10, linespacing=1.25)


def _arrow(ax, start, end, **style):
    ax.annotate(
        "", end, start, arrowprops={"arrowstyle": "-|>", "color": "#555555", "lw": 1.0, "shrinkA": 0, "shrinkB": 0} | style
    )


def draw_network(path):
    """The two branches downwards, the decoder upwards between them, one row for each stride."""
    shapes, settings = network_shapes()
    x = {"panorama": 1.6, "matching": 4.55, "decoder": 7.3, "satellite": 10.6}
    width = {"panorama": 2.9, "matching": 1.7, "decoder": 2.6, "satellite": 2.9}
    rows = {"top": 6.9, **{stage.key: 1.9 + 0.95 * i for i, stage in enumerate(STAGES)}}
    figure, ax = plt.subplots(figsize=(12.2, 8.2), layout="constrained")
    ax.set(xlim=(0, 12.2), ylim=(-0.15, 8.1))
    ax.axis("off")

    def sized(shape):
        return " x ".join(str(side) for side in shape)

    def name(text, column, row, colour=None):
        _box(ax, x[column], row, text, COLOURS[colour or column], width[column])

    for view, padding in (("panorama", "wraps around"), ("satellite", "zeros")):
        ax.text(x[view], 7.75, f"EfficientNet-B0, padding: {padding}", ha="center", fontsize=10.5, weight="bold")
        name(f"{view}\n{sized(shapes[view])}", view, rows["top"])
        above = rows["top"]
        for stage in reversed(STAGES):
            y, mixed = rows[stage.key], ", MixStyle" * (stage.key in (4, 9))
            name(f"feature {stage.key}{mixed}\n{sized(shapes[view, stage.key])}", view, y)
            _arrow(ax, (x[view], above - 0.31), (x[view], y + 0.31))
            above = y
    below = None
    ax.text(x["decoder"], 7.75, "decoder", ha="center", fontsize=10.5, weight="bold")
    ax.text(x["matching"], 7.75, "matching", ha="center", fontsize=10.5, weight="bold")
    for stage in STAGES:
        y = rows[stage.key]
        name("matching map\n1 channel", "matching", y)
        up = "convolve" if below is None else "double"
        name(f"{up}, join, convolve\n{sized(shapes[stage.key])}", "decoder", y)
        edges = {column: (x[column] - width[column] / 2, x[column] + width[column] / 2) for column in x}
        _arrow(ax, (edges["panorama"][1], y), (edges["matching"][0], y))
        _arrow(ax, (edges["matching"][1], y), (edges["decoder"][0], y))
        _arrow(ax, (edges["satellite"][0], y), (edges["decoder"][1], y))
        if below is not None:
            _arrow(ax, (x["decoder"], below + 0.31), (x["decoder"], y - 0.31))
        below = y
    _arrow(ax, (x["decoder"], below + 0.31), (x["decoder"], rows["top"] - 0.31))
    name(f"head: logits {sized(shapes['logits'])}\nsoftmax: the heat map", "decoder", rows["top"])
    bottom, coarsest = 0.75, rows[STAGES[0].key]
    tokens = settings.vert_anchors * settings.horz_anchors
    _box(
        ax,
        6.1,
        bottom,
        f"TransformerFusionBlock: {tokens} tokens of {settings.d_model} for each view,\n"
        f"{settings.n_layer} layers of cross-attention both ways, fused: {sized(shapes['fused'])}",
        COLOURS["fusion"],
        5.6,
        0.7,
    )
    for view, edge in (("panorama", 3.3), ("satellite", 8.9)):
        ax.plot([x[view], x[view]], [coarsest - 0.31, bottom], color="#555555", lw=1.0)
        _arrow(ax, (x[view], bottom), (edge, bottom))
    _arrow(ax, (x["decoder"], bottom + 0.35), (x["decoder"], coarsest - 0.31))
    ways = "published: compared\npixel by pixel\nground_plane: laid out\non the ground, correlated"
    ax.text(x["matching"], rows["top"], ways, ha="center", va="center", fontsize=9)
    ax.text(
        6.1,
        0.12,
        "Every stage joins its matching map, its satellite feature and, with --use_mask, the mask at its size. "
        "MixStyle acts in training.",
        ha="center",
        fontsize=9.5,
    )
    _save(figure, path)


def street_bearing(mask, position):
    """The bearing, in degrees, along which the mask's foreground reaches farthest from a position (row, col)."""
    bearings = np.arange(0, 360, 5)
    rows, cols = geometry.move(*position, bearings[:, None], np.arange(0, 300))
    inside = (rows >= 0) & (rows < len(mask)) & (cols >= 0) & (cols < len(mask))
    free = inside & (mask[np.clip(rows, 0, len(mask) - 1).astype(int), np.clip(cols, 0, len(mask) - 1).astype(int)] > 127)
    return float(bearings[np.argmax(free.cumprod(1).sum(1))])


def draw_conventions(path, root):
    """A satellite image with row, col, VIGOR's offsets and bearings; its panorama, turned, with the same bearings."""
    index, size = load_index(root), geometry.SATELLITE_PX
    images = OriginalImages(root, size, (256, 512))
    for row in np.abs(index.position[:, 0] - (250, 230)).sum(1).argsort():  # where arrows and labels have room
        satellite, position = index.satellite[row, 0], index.position[row, 0]
        street = street_bearing(images.mask(index.mask_path(satellite)), position)
        if 170 < street < 270:
            break
    panorama, heading = roll_and_crop(images.panorama(index.panorama_path(row)), HEADING, 360.0)
    rays = {"street": (street, "tab:orange"), "heading": (heading, "tab:red"), "north": (0.0, "tab:cyan")}

    figure, (left, right) = plt.subplots(1, 2, figsize=(12.4, 4.7), width_ratios=(1, 1.75), layout="constrained")
    left.imshow(images.satellite(index.satellite_path(satellite)), extent=(0, size, size, 0))
    left.set(xlabel="col, in pixels", ylabel="row, in pixels", xticks=range(0, 641, 160), yticks=range(0, 641, 160))
    left.set_title("satellite image, north up; pixel i covers [i, i + 1)", fontsize=10.5)
    centre, (r, c) = size / 2, position
    left.plot(centre, centre, "w+", ms=13, mew=2)
    offsets = {"color": "white", "lw": 1.6, "arrowstyle": "-|>"}
    left.annotate("", (centre, r), (centre, centre), arrowprops=offsets | {"shrinkA": 0, "shrinkB": 0})
    left.annotate("", (c, r), (centre, r), arrowprops=offsets | {"shrinkA": 0, "shrinkB": 0})
    box = {"facecolor": "black", "alpha": 0.6, "edgecolor": "none", "pad": 2}
    note = f"panorama at row {r:.1f}, col {c:.1f}\nrow offset {r - centre:+.1f} = row - 320\n"
    note += f"col offset {centre - c:+.1f} = 320 - col"
    left.text(0.02, 0.02, note, transform=left.transAxes, color="white", fontsize=9.5, bbox=box)
    for label, (bearing, colour) in rays.items():
        _arrow(left, (c, r), geometry.move(r, c, bearing, 130)[::-1], color=colour, lw=2.2)
        at = {"ha": "center", "va": "center", "bbox": box}
        left.text(
            *geometry.move(r, c, bearing, 155)[::-1], f"{label} {bearing:.0f}°", color=colour, fontsize=9.5, weight="bold", **at
        )
    left.plot(c, r, "o", ms=7, mfc="tab:red", mec="white")

    H, W = panorama.shape[:2]
    right.imshow(panorama, extent=(0, W, H, 0))
    right.set_title(f"its panorama at heading {heading:.0f}°, the bearing of its centre column", fontsize=10.5)
    points = {"N": 0, "E": 90, "S": 180, "W": 270}
    right.set_xticks(
        [geometry.bearing_to_column(bearing, W, heading) for bearing in points.values()],
        [f"{point}\n{bearing}°" for point, bearing in points.items()],
    )
    elevations = {"zenith, 90°": 90, "horizon, 0°": 0, "nadir, -90°": -90}
    right.set_yticks([geometry.elevation_to_row(elevation, H) for elevation in elevations.values()], elevations)
    for label, (bearing, colour) in rays.items():
        col = geometry.bearing_to_column(bearing, W, heading)
        right.axvline(col, color=colour, lw=2)
        right.text(col, 14, label, color=colour, fontsize=9.5, weight="bold", ha="center", bbox=box)
    _save(figure, path)


def _save(figure, path):
    figure.savefig(path, dpi=90)
    plt.close(figure)
    print(path)


def build_parser():
    """The command line."""
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("figures")
    flags.add_dataset_root(group)
    group.add_argument("--output_dir", default="docs", metavar="DIR", help="where network.png and conventions.png go")
    return parser


def main(args):
    """Run the command."""
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    draw_network(folder / "network.png")
    draw_conventions(folder / "conventions.png", find_root(args.dataset_root))


if __name__ == "__main__":
    flags.run_script(main, build_parser())
