"""Draw the figures of docs/: the network with its shapes, a search, positions and headings, masks, twelve varied worlds.

    python -m docs.draw
    python -m docs.draw --dataset_root /data/VIGOR --output_dir /tmp

Shapes come from the network itself and everything in the pictures from the project's functions, so that neither can be wrong.
"""

import math
from functools import partial
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from matplotlib.transforms import blended_transform_factory

from common import flags, geometry
from dataset.images import OriginalImages, read_satellite
from dataset.index import MINI_VIGOR, find_root, load_index
from dataset.masks.draw import draw_mask
from dataset.masks.osm import KINDS, read_map
from dataset.mini_vigor import looks, plan, render, writer
from dataset.mini_vigor.city import generator
from dataset.vigor import roll_and_crop
from efficientnet_pytorch.model import STYLE_STRIDES
from engine.search.index import BLOCK
from engine.visualization.pictures import MASK_COLOUR
from model.build import build_model
from model.decoder import STAGES
from model.settings import ModelSettings

HEADING = 60.0  # degrees, of the panorama that is drawn
COLUMNS = {"panorama": "#cfe3f7", "matching": "#fde3c3", "decoder": "#e6dcf5", "satellite": "#d7efd3"}  # and their colours
FUSION_COLOUR = "#f6d6dc"
LABEL = {"fontsize": 9.5, "bbox": {"facecolor": "black", "alpha": 0.6, "edgecolor": "none", "pad": 2}}
MASK_CITY = "Chicago"
ARROW = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0}


def network_outputs():
    """(settings, {name of a module: its output}) of the published network at its sizes; nothing is computed."""
    outputs = {}
    with torch.device("meta"):
        model = build_model().eval()
        for name, module in model.named_modules():
            module.register_forward_hook(lambda module, inputs, output, name=name: outputs.update({name: output}))
        panorama, satellite = (torch.empty(1, 3, *size) for size in (model.view_size, model.satellite_size))
        model(panorama, satellite, satellite[:, :1])
    return model.settings, outputs | {"panorama": panorama, "satellite": satellite}


def draw_network():
    """A figure of the network: the two branches downwards, the decoder upwards between them, one row for each stride."""
    settings, outputs = network_outputs()
    strides = [stage.stride for stage in reversed(STAGES)]  # 2 to 32
    rows = ["top", *strides, "fusion"]
    figure = Figure(figsize=(12.2, 8.2), layout="constrained")
    figure.get_layout_engine().set(hspace=0.35, wspace=0.08)
    mosaic = [[f"{column} {row}" for column in COLUMNS] for row in rows[:-1]]
    boxes = figure.subplot_mosaic([*mosaic, ["panorama fusion"] * 4], width_ratios=(2.9, 1.7, 2.6, 2.9))

    def write(name, text, colour, output=None):
        size = "" if output is None else " x ".join(str(side) for side in output.shape[1:])
        boxes[name].text(0.5, 0.5, text + size, ha="center", va="center", fontsize=10, linespacing=1.25)
        boxes[name].set(xticks=[], yticks=[], facecolor=colour)

    def arrow(*ends):
        """From one (column, row, share of that column's width, share of that row's height) to another."""
        points = [end[2:] for end in ends]
        frames = [blended_transform_factory(boxes[f"{c} top"].transAxes, boxes[f"panorama {r}"].transAxes) for c, r, *_ in ends]
        figure.add_artist(ConnectionPatch(*points, *frames, **ARROW, mutation_scale=12, color="#555555"))

    backbone = "EfficientNet-B0, padding:"
    for column, title in zip(COLUMNS, (f"{backbone} wraps around", "matching", "decoder", f"{backbone} zeros"), strict=True):
        boxes[f"{column} top"].set_title(title, weight="bold", fontsize=10.5)
    for view in ("panorama", "satellite"):
        write(f"{view} top", f"{view}\n", COLUMNS[view], outputs[view])
        for stride, feature in outputs[f"{view}_backbone"].items():
            mixed = ", MixStyle" * (stride in STYLE_STRIDES)
            write(f"{view} {stride}", f"stride {stride}{mixed}\n", COLUMNS[view], feature)
    write("matching top", "published: compared\npixel by pixel\nground_plane: laid out\non the ground, correlated", "none")
    boxes["matching top"].axis("off")
    write("decoder top", "softmax: the heat map\nhead: logits ", COLUMNS["decoder"], outputs["decoder"])
    for stride in strides:
        write(f"matching {stride}", "matching map\n1 channel", COLUMNS["matching"])
        up = "convolve" if stride == strides[-1] else "double"
        write(f"decoder {stride}", f"{up}, join, convolve\n", COLUMNS["decoder"], outputs[f"decoder.stages.{stride}"])
        for column, other in pairwise(("panorama", "matching", "decoder")):
            arrow((column, stride, 1, 0.5), (other, stride, 0, 0.5))
        arrow(("satellite", stride, 0, 0.5), ("decoder", stride, 1, 0.5))
    text = (
        f"TransformerFusionBlock: {settings.vert_anchors * settings.horz_anchors} tokens of {settings.d_model} for each view,\n"
    )
    text += f"{settings.n_layer} layers of cross-attention both ways, fused: "
    write("panorama fusion", text, FUSION_COLOUR, outputs["fusion.fuse"])
    for above, below in pairwise(rows):
        for view in ("panorama", "satellite"):
            arrow((view, above, 0.5, 0), (view, below, 0.5, 1))
        arrow(("decoder", below, 0.5, 1), ("decoder", above, 0.5, 0))
    note = "Every stage joins its matching map, its satellite feature and, with --use_mask, the mask at its size."
    figure.supxlabel(f"{note} MixStyle acts in training.", fontsize=9.5)
    return figure


def street_bearing(mask, position):
    """The bearing, in degrees, along which the mask's foreground reaches farthest from a position (row, col)."""
    beams = cv2.warpPolar(mask, (300, 72), position[::-1].tolist(), 300, cv2.WARP_FILL_OUTLIERS)  # from east on, 5 degrees apart
    return (90.0 + 5 * (beams > 127).cumprod(1).sum(1).argmax()) % 360


def draw_conventions(root):
    """A figure of a satellite image with row, col, VIGOR's offsets and bearings; its panorama, turned, with the same bearings."""
    index, size = load_index(root), geometry.SATELLITE_PX
    images = OriginalImages(root, size, (256, 512))
    for row in np.abs(index.position[:, 0] - (250, 230)).sum(1).argsort():  # where arrows and labels have room
        satellite, position = index.satellite[row, 0], index.position[row, 0]
        street = street_bearing(images.mask(index.mask_path(satellite)), position)
        if 170 < street < 270:
            break
    panorama, heading = roll_and_crop(images.panorama(index.panorama_path(row)), HEADING, 360.0)

    figure = Figure(figsize=(12.4, 4.7), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.75))
    left.imshow(images.satellite(index.satellite_path(satellite)), extent=(0, size, size, 0))
    left.set(xlabel="col, in pixels", ylabel="row, in pixels", xticks=range(0, 641, 160), yticks=range(0, 641, 160))
    left.set_title("satellite image, north up; pixel i covers [i, i + 1)", fontsize=10.5)
    centre, (r, c) = size / 2, position
    point = partial(left.annotate, "", arrowprops=ARROW | {"color": "white", "lw": 1.6})
    left.plot(centre, centre, "w+", ms=13, mew=2)
    point((centre, r), (centre, centre))
    point((c, r), (centre, r))
    offsets = f"row offset {r - centre:+.1f} = row - 320\ncol offset {centre - c:+.1f} = 320 - col"
    left.text(0.02, 0.02, f"panorama at row {r:.1f}, col {c:.1f}\n{offsets}", transform=left.transAxes, color="white", **LABEL)

    H, W = panorama.shape[:2]
    right.imshow(panorama, extent=(0, W, H, 0))
    right.set_title(f"its panorama at heading {heading:.0f}°, the bearing of its centre column", fontsize=10.5)
    points = {"N": 0, "E": 90, "S": 180, "W": 270}
    columns = geometry.bearing_to_column(np.array([*points.values()]), W, heading)
    right.set_xticks(columns, [f"{point}\n{bearing}°" for point, bearing in points.items()])
    elevations = {"zenith, 90°": 90, "horizon, 0°": 0, "nadir, -90°": -90}
    right.set_yticks([geometry.elevation_to_row(elevation, H) for elevation in elevations.values()], elevations)
    for label, bearing, colour in (("street", street, "orange"), ("heading", heading, "red"), ("north", 0.0, "cyan")):
        style, col = LABEL | {"color": f"tab:{colour}", "weight": "bold"}, geometry.bearing_to_column(bearing, W, heading)
        point(geometry.move(r, c, bearing, 130)[::-1], (c, r), arrowprops=ARROW | {"color": style["color"], "lw": 2.2})
        left.text(*geometry.move(r, c, bearing, 155)[::-1], f"{label} {bearing:.0f}°", **style, ha="center", va="center")
        right.axvline(col, color=style["color"], lw=2)
        right.text(col, 14, label, **style, ha="center")
    left.plot(c, r, "o", ms=7, mfc="tab:red", mec="white")
    return figure


def draw_worlds(seed=5, districts=3, side=256):
    """One sheet (H, W, 3) uint8 of varied districts, so many of each city: a satellite image and a panorama taken in it."""
    pairs = []
    for district in range(districts):
        for name in writer.CITIES:
            city = plan.build(name, seed, (2, 3), district, "varied")
            rng = generator(seed, name, "sheet", district)
            cell, gps = next(writer.camera_places(city, (2, 3), 1, rng))
            place = writer.tile_centre(cell)
            above = render.satellite(render.aerial(city), *place, rng, looks.draw_satellite_look(rng))
            taken = looks.draw_camera(rng), looks.draw_panorama_look(rng)
            view = render.panorama(city, *writer.raster_px(city, gps), 2 * side, rng, *taken)
            pairs.append(np.hstack([cv2.resize(above, (side, side), interpolation=cv2.INTER_AREA), view]))
    rows = [np.hstack(pairs[i : i + 2]) for i in range(0, len(pairs), 2)]
    return np.vstack(rows)


def draw_search():
    """A figure of a search over a city: what is made once, above, and what each panorama goes through, below."""
    settings = ModelSettings(network="light", satellite_size=128, panorama_size=(128, 256))
    matching = build_model(settings).matching
    stride, size = matching.search_stride, settings.satellite_size
    cells, side = size // stride, 2 * math.ceil(settings.matching_radius / (stride * 0.1 * geometry.SATELLITE_PX / size)) + 1
    channels = matching.channels[stride]
    rows = {
        "once for a city": (
            (f"satellite images\n3 x {size} x {size}", "satellite"),
            (f"features of stride {stride}\n{channels} x {cells} x {cells}", "satellite"),
            ("one grid of the map, float16:\na cell from the image whose\nedge is furthest away", "satellite"),
            (f"blocks of {BLOCK} x {BLOCK} cells\non the disk", "satellite"),
        ),
        "for each panorama": (
            ("panorama\n3 x {} x {}".format(*settings.panorama_size), "panorama"),
            (f"laid on the ground, for each\nheading: {channels} x {side} x {side}", "panorama"),
            ("compared with block after\nblock by FFT: a score for\nevery cell and heading", "matching"),
            ("the best cells,\nmore than 5 m apart", "matching"),
        ),
        "": (
            ("places: position, heading,\nprobability", "decoder"),
            ("the network's own heat map,\nof all that it knows", "decoder"),
            (f"an image cut out around each,\n3 x {size} x {size}", "satellite"),
        ),
    }
    figure = Figure(figsize=(12.2, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(-0.02, 4.0), ylim=(-0.02, 3.02))
    axes.axis("off")

    def middle(row, k):
        return k + 0.5, 2.5 - row

    for row, (title, boxes) in enumerate(rows.items()):
        first = 0 if len(boxes) == 4 else 1
        for k, (text, colour) in enumerate(boxes, first):
            x, y = middle(row, k)
            box = {"boxstyle": "square,pad=0.6", "facecolor": COLUMNS[colour], "edgecolor": "#555555"}
            axes.text(x, y, text, ha="center", va="center", fontsize=9.5, bbox=box, linespacing=1.25)
        axes.text(0.0, middle(row, 0)[1] + 0.4, title, fontsize=10, weight="bold")

    def arrow(start, end):
        style = ARROW | {"color": "#555555", "shrinkA": 2, "shrinkB": 2}
        axes.annotate("", end, start, arrowprops=style)

    for row, right in ((0, True), (1, True), (2, False)):
        for k in range(3 if right else 2):
            left = k if right else k + 1
            ends = (left + 0.87, middle(row, 0)[1]), (left + 1.13, middle(row, 0)[1])
            arrow(*(ends if right else ends[::-1]))
    arrow((3.3, 2.22), (2.75, 1.8))
    arrow((3.5, 1.26), (3.5, 0.72))
    return figure


def draw_masks(root):
    """A figure of what a mask holds: carriageways alone, and with all that may be asked for beside them."""
    index = load_index(root, "samearea", "test", cities=(MASK_CITY,))
    corners = geometry.image_corner(index.satellite_gps)
    extract, kinds = (
        writer.extract_path(root, MASK_CITY),
        {"carriageways": ("area_highway",), "and all kinds of --also": tuple(KINDS)},
    )
    maps = [read_map([extract], corners, also) for also in kinds.values()]
    masks = [[draw_mask(*drawn.around(corner), corner) for corner in corners] for drawn in maps]
    most = int(np.argmax([(two > one).sum() for one, two in zip(*masks, strict=True)]))
    image = read_satellite(root / index.satellite_path(most), (geometry.SATELLITE_PX,) * 2)
    figure = Figure(figsize=(11, 3.9), layout="constrained")
    parts = zip(figure.subplots(1, 3), ("satellite image", *kinds), (None, *(masks[k][most] for k in range(2))), strict=True)
    for axes, title, mask in parts:
        shown = image if mask is None else np.where(mask[..., None] > 0, 0.6 * image + 0.4 * np.array(MASK_COLOUR), image)
        axes.imshow(shown.astype(np.uint8))
        axes.set(title=title, xticks=[], yticks=[])
    return figure


def build_parser():
    """The command line."""
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("figures")
    flags.add_dataset_root(group)
    group.add_argument("--output_dir", default="docs", metavar="DIR", help="where the figures go")
    return parser


def main(args):
    """Run the command."""
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    conventions = draw_conventions(find_root(args.dataset_root))
    masks = draw_masks(writer.make(MINI_VIGOR, progress=False))  # the folder that has an extract
    figures = {"network": draw_network(), "search": draw_search(), "conventions": conventions, "masks": masks}
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=90)
        print(folder / f"{name}.png")
    cv2.imwrite(str(folder / "worlds.jpg"), cv2.cvtColor(draw_worlds(), cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, 85))
    print(folder / "worlds.jpg")


if __name__ == "__main__":
    flags.run_script(main, build_parser())
