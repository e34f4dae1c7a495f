"""Draw conventions.png and masks.png of docs/ from a mini-VIGOR, worlds.jpg, twelve varied districts, and
hard.jpg, two hard places of the page.

    python -m docs.draw
    python -m docs.draw --dataset_root data/mini_vigor --output_dir /tmp

Every figure shows what the project's own functions return, so it cannot contradict them.
"""

from itertools import product
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from common import flags, geometry
from common.settings import COUNT
from dataset.decoding import encode
from dataset.images import OriginalImages, read_satellite, read_whole
from dataset.index import load_index
from dataset.masks.draw import draw_mask
from dataset.masks.osm import ALSO, KINDS, read_map
from dataset.mini_vigor import looks, render, writer
from dataset.mini_vigor.city import generator
from dataset.roots import MINI_VIGOR
from dataset.vigor import roll_panorama
from engine.app.examples import load_examples
from engine.figures.pictures import MASK_COLOUR, PREDICTION_COLOUR, draw_found, draw_satellite
from engine.figures.street import draw_street
from engine.figures.tracks import SIGMAS_95
from engine.localizer import Localizer

HEADING = 60.0  # degrees, of the panorama in conventions.png
LABEL = {"fontsize": 9.5, "bbox": {"facecolor": "black", "alpha": 0.6, "edgecolor": "none", "pad": 2}}
MASK_CITY = "Chicago"
HARD = "rural", "downtown"  # of the page's examples


def street_bearing(mask, position):
    """The bearing, in degrees, in which the mask's foreground reaches farthest from a position (row, col)."""
    beams = cv2.warpPolar(mask, (300, 72), position[::-1].tolist(), 300, cv2.WARP_FILL_OUTLIERS)
    return (90.0 + 5 * (beams > 127).cumprod(1).sum(1).argmax()) % 360  # a beam every 5 degrees, from east on


def choose_pair(index, images):
    """(row of the index, position, bearing of its street) of a pair whose arrows and labels have room."""
    for row in np.abs(index.position[:, 0] - (250, 230)).sum(1).argsort():
        position = index.position[row, 0]
        street = street_bearing(images.read(index.mask_image(index.satellite[row, 0])), position)
        if 170 < street < 270:
            break
    return row, position, street


def draw_conventions(root):
    """A figure of a satellite image with row, col, offsets and bearings, and its turned panorama."""
    index, size = load_index(root), geometry.SATELLITE_PX
    images = OriginalImages(root, size, (256, 512))
    row, (r, c), street = choose_pair(index, images)
    panorama, heading = roll_panorama(images.read(index.panorama_image(row)), HEADING)

    figure = Figure(figsize=(12.4, 4.7), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.75))
    satellite = images.read(index.satellite_image(index.satellite[row, 0]))
    left.imshow(satellite, extent=(0, size, size, 0))
    ticks = range(0, 641, 160)
    left.set(xlabel="col, in pixels", ylabel="row, in pixels", xticks=ticks, yticks=ticks)
    left.set_title("satellite image, north up; pixel i covers [i, i + 1)", fontsize=10.5)

    def arrow(start, end, colour, width):
        style = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, "color": colour, "lw": width}
        left.annotate("", end, start, arrowprops=style)

    centre = size / 2
    left.plot(centre, centre, "w+", ms=13, mew=2)
    arrow((centre, centre), (centre, r), "white", 1.6)
    arrow((centre, r), (c, r), "white", 1.6)
    offsets = f"row offset {r - centre:+.1f} = row - 320\ncol offset {centre - c:+.1f} = 320 - col"
    text = f"panorama at row {r:.1f}, col {c:.1f}\n{offsets}"
    left.text(0.02, 0.02, text, transform=left.transAxes, color="white", **LABEL)

    H, W = panorama.shape[:2]
    right.imshow(panorama, extent=(0, W, H, 0))
    title = f"its panorama at heading {heading:.0f}°, the bearing of its centre column"
    right.set_title(title, fontsize=10.5)
    points = {"N": 0, "E": 90, "S": 180, "W": 270}
    columns = geometry.bearing_to_column(np.array([*points.values()]), W, heading)
    right.set_xticks(columns, [f"{point}\n{bearing}°" for point, bearing in points.items()])
    elevations = {"zenith, 90°": 90, "horizon, 0°": 0, "nadir, -90°": -90}
    right.set_yticks(geometry.elevation_to_row(np.array([*elevations.values()]), H), elevations)
    bearings = {"street": (street, "tab:orange"), "heading": (heading, "tab:red"), "north": (0.0, "tab:cyan")}
    for label, (bearing, colour) in bearings.items():
        style = LABEL | {"color": colour, "weight": "bold", "ha": "center"}
        col = geometry.bearing_to_column(bearing, W, heading)
        arrow((c, r), geometry.move(r, c, bearing, 130)[::-1], colour, 2.2)
        left.text(*geometry.move(r, c, bearing, 155)[::-1], f"{label} {bearing:.0f}°", **style, va="center")
        right.axvline(col, color=colour, lw=2)
        right.text(col, 14, label, **style)
    left.plot(c, r, "o", ms=7, mfc="tab:red", mec="white")
    return figure


def draw_worlds(districts, seed=5, side=256):
    """One sheet (H, W, 3) uint8 of each city's varied districts, as pairs of satellite image and panorama."""
    drawing = writer.Drawing(panoramas=2, seed=seed, styles="varied")
    pairs = []
    for number, name in product(range(districts), writer.CITIES):
        city, ((cell, gps), *_) = writer.lay_out(writer.District(None, name, number, 1, drawing))
        rng = generator(seed, name, "sheet", number)
        centre = writer.tile_centre(cell)
        above = render.satellite(render.aerial(city), *centre, rng, looks.draw_satellite_look(rng))
        camera, look = looks.draw_camera(rng), looks.draw_panorama_look(rng)
        view = render.panorama(city, *writer.raster_px(city, gps), 2 * side, rng, camera, look)
        pairs.append(np.hstack([cv2.resize(above, (side, side), interpolation=cv2.INTER_AREA), view]))
    return np.vstack([np.hstack(pairs[i : i + 2]) for i in range(0, len(pairs), 2)])


def draw_hard(names=HARD):
    """A figure of some of the page's examples: panorama, satellite image, heat map with truth and answer."""
    examples = {one["name"]: one for one in load_examples()}
    figure, localizer = Figure(figsize=(12, 3.4 * len(names)), layout="constrained"), Localizer()
    rows = figure.subplots(len(names), 3, width_ratios=(2, 1, 1), squeeze=False)
    for (left, middle, right), name in zip(rows, names, strict=True):
        example = examples[name]
        street, above = (read_whole(example[kind], 2048) for kind in ("street", "satellite"))
        centre, metres = example["centre"], geometry.metres_per_pixel(example["centre"][0], len(above))
        known = {name: example.get(name) for name in ("heading", "vertical")}
        known |= {"metres_per_pixel": metres, "centre": tuple(centre)}
        found = localizer.locate(example["street"], example["satellite"], **known)
        one, size = found.estimate, len(found.estimate.probability)
        truth = geometry.gps_to_position(*example["truth"], *centre, size)
        one = one._replace(truth=tuple(map(float, truth)))
        draw_street(left, street, one)
        draw_satellite(middle, above, metres)
        middle.set_title(f"satellite image: {example['caption'].lower()}")
        draw_found(right, above, one)
        sides = [2 * SIGMAS_95 * side / one.metres_per_pixel for side in (found.along_m, found.across_m)]
        how = {"fill": False, "color": PREDICTION_COLOUR, "linewidth": 2, "clip_on": True}
        right.add_patch(Ellipse(one.position[::-1], *sides, angle=found.along_deg - 90, **how))
        error = np.hypot(*np.subtract(one.position, one.truth)) * one.metres_per_pixel
        right.set_title(f"{error:.1f} m off; {100 * found.probability:.0f} % within 5 m of the answer")
    return figure


def draw_masks(root):
    """A figure of what a mask holds: carriageways alone, and with every kind that --also adds."""
    index = load_index(root, "samearea", "test", cities=(MASK_CITY,))
    corners = geometry.image_corner(index.satellite_gps)
    kinds = {"carriageways": ALSO, "and all kinds of --also": tuple(KINDS)}
    masks = []
    for also in kinds.values():
        streets = read_map([writer.extract_path(root, MASK_CITY)], corners, also)
        masks.append(np.stack([draw_mask(*streets.around(corner), corner) for corner in corners]) > 0)
    most = int((masks[1] & ~masks[0]).sum((1, 2)).argmax())
    image = read_satellite(root / index.satellite_image(most).path, (geometry.SATELLITE_PX,) * 2)
    figure = Figure(figsize=(11, 3.9), layout="constrained")
    shown = [np.zeros_like(masks[0][most]), masks[0][most], masks[1][most]]
    for axes, title, mask in zip(figure.subplots(1, 3), ("satellite image", *kinds), shown, strict=True):
        tinted = np.where(mask[..., None], 0.6 * image + 0.4 * np.array(MASK_COLOUR), image)
        axes.imshow(tinted.astype(np.uint8))
        axes.set(title=title, xticks=[], yticks=[])
    return figure


def build_parser():
    """The command line."""
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("figures")
    group.add_argument("--dataset_root", metavar="DIR", help="a mini-VIGOR (default: data/mini_vigor)")
    text = "districts of each city in worlds.jpg"
    group.add_argument("--districts", type=COUNT, default=3, metavar="N", help=text)
    group.add_argument("--output_dir", default="docs", metavar="DIR", help="folder of the figures")
    return parser


def main(args):
    """Run the command."""
    root, folder = Path(args.dataset_root or writer.make(MINI_VIGOR)), Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    draw_conventions(root).savefig(folder / "conventions.png", dpi=90)
    draw_masks(root).savefig(folder / "masks.png", dpi=90)
    draw_hard().savefig(folder / "hard.jpg", dpi=80, pil_kwargs={"quality": 85})
    sheet = encode(draw_worlds(args.districts), ".jpg", cv2.IMWRITE_JPEG_QUALITY, 85)
    (folder / "worlds.jpg").write_bytes(sheet)
    print(f"conventions.png, masks.png, worlds.jpg and hard.jpg are in {folder}")


if __name__ == "__main__":
    flags.run_script(main, build_parser())
