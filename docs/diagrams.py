"""Diagrams of boxes and arrows: the thesis's network, the light one, a search. Shapes come from the networks themselves."""

import math
from itertools import pairwise

import torch
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from matplotlib.transforms import blended_transform_factory

from common import geometry
from efficientnet_pytorch.channels import STYLE_STRIDES
from engine.search.index import CHUNK
from model.build import build_model
from model.decoder import STAGES
from model.light import FINE_RADIUS_M, GROUPS, HEAD_CHANNELS
from model.settings import ModelSettings

COLUMNS = {"panorama": "#cfe3f7", "matching": "#fde3c3", "decoder": "#e6dcf5", "satellite": "#d7efd3"}  # and their colours
FUSION_COLOUR = "#f6d6dc"
ARROW = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0}


def network_outputs(settings=None):
    """(settings, {name of a module: its output}) of a network at its sizes, by default the published; nothing is computed."""
    outputs = {}
    with torch.device("meta"):
        model = build_model(settings).eval()
        for name, module in model.named_modules():
            module.register_forward_hook(lambda module, inputs, output, name=name: outputs.update({name: output}))
        panorama, satellite = (torch.empty(1, 3, *size) for size in (model.view_size, model.satellite_size))
        model(panorama, satellite, satellite[:, :1], metres_per_pixel=torch.ones(1))
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


class Boxes:
    """A figure of boxes with text at (column, row) places, rows counted downwards, and arrows between them."""

    def __init__(self, columns, rows, height):
        self.figure = Figure(figsize=(12.2, height), layout="constrained")
        self.rows, self.axes, self.boxes = rows, self.figure.subplots(), {}
        self.axes.set(xlim=(-0.02, columns), ylim=(-0.02, rows))
        self.axes.axis("off")

    def middle(self, column, row):
        """Where a place lies on the axes."""
        return column + 0.5, self.rows - 0.5 - row

    def write(self, column, row, text, colour):
        """A box; colour: a name of COLUMNS."""
        style = {"boxstyle": "square,pad=0.6", "facecolor": COLUMNS[colour], "edgecolor": "#555555"}
        where = {"ha": "center", "va": "center", "fontsize": 9.5, "linespacing": 1.25}
        self.boxes[column, row] = self.axes.text(*self.middle(column, row), text, bbox=style, **where)

    def arrow(self, start, end):
        """From the edge of the box at one place to that of another."""
        ends = {f"patch{end}": self.boxes[place].get_bbox_patch() for end, place in zip("AB", (start, end), strict=True)}
        style = ARROW | {"color": "#555555", "shrinkA": 4, "shrinkB": 4}
        self.axes.annotate("", self.middle(*end), self.middle(*start), arrowprops=style | ends)


def draw_light():
    """A figure of the light network: the two views' ways to the templates and features that are compared, and on to the map."""
    settings, outputs = network_outputs(ModelSettings(network="light", satellite_size=128, panorama_size=(128, 256)))
    matched = outputs["matching"]
    coarse, fine = sorted(matched.templates, reverse=True)

    def size(tensor):
        return " x ".join(str(side) for side in tensor.shape[1:])

    def features(view):
        found = outputs[f"{view}_backbone"]
        return "\n".join(f"stride {stride}: {size(feature)}" for stride, feature in found.items())

    shares = "\n".join(f"stride {s}: {size(matched.shares[s])}" for s in (coarse, fine))
    templates = "\n".join(f"stride {s}: {size(matched.templates[s])}" for s in (coarse, fine))
    compared = "\n".join(
        f"stride {s}: {matched.templates[s].shape[1]} x {' x '.join(str(side) for side in matched.maps[s].shape[-2:])}"
        for s in (coarse, fine)
    )
    radii = f"{settings.matching_radius:g} and {FINE_RADIUS_M:g} m around the camera"
    boxes = Boxes(5, 3, 4.6)
    boxes.write(0, 0, f"panorama\n{size(outputs['panorama'])}", "panorama")
    boxes.write(1, 0, f"EfficientNet-Lite0,\nwraps around the seam\n{features('panorama')}", "panorama")
    boxes.write(2, 0, f"laid on the ground,\nfor each heading\n{templates}\n{radii}", "panorama")
    boxes.write(0, 2, f"satellite image\n{size(outputs['satellite'])}", "satellite")
    boxes.write(1, 2, f"EfficientNet-Lite0\n{features('satellite')}", "satellite")
    boxes.write(2, 2, f"deepened by the next\ncoarser stride\n{compared}", "satellite")
    boxes.write(2, 1, f"correlated in {GROUPS} groups of channels\n{shares}", "matching")
    boxes.write(3, 1, f"head: three convolutions\nof {HEAD_CHANNELS} channels, added\nto the maps' sum", "decoder")
    boxes.write(4, 1, f"softmax: the heat map\n{' x '.join(str(side) for side in outputs[''].logits.shape[1:])}", "decoder")
    ways = [[(0, row), (1, row), (2, row), (2, 1)] for row in (0, 2)] + [[(2, 1), (3, 1), (4, 1)], [(2, 2), (3, 1)]]
    for way in ways:
        for start, end in pairwise(way):
            boxes.arrow(start, end)
    boxes.axes.text(3.28, 0.78, "satellite features, mask", fontsize=9)
    return boxes.figure


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
            (f"chunks of {CHUNK} x {CHUNK} cells\non the disk", "satellite"),
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
    boxes = Boxes(4.0, len(rows), 4.4)
    for row, (title, of_row) in enumerate(rows.items()):
        first = 0 if len(of_row) == 4 else 1
        for k, (text, colour) in enumerate(of_row, first):
            boxes.write(k, row, text, colour)
        boxes.axes.text(0.0, boxes.middle(0, row)[1] + 0.4, title, fontsize=10, weight="bold")
    once, each = ([(k, row) for k in range(4)] for row in range(2))
    for way in (once, [*each, (3, 2), (2, 2), (1, 2)], [once[-1], each[2]]):
        for start, end in pairwise(way):
            boxes.arrow(start, end)
    return boxes.figure
