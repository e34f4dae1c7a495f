"""Draw the figures of docs/: both kinds of networks, a search, positions and headings, masks, twelve varied worlds.

    python -m docs.draw
    python -m docs.draw --dataset_root /data/VIGOR --output_dir /tmp

Shapes come from the network itself and everything in the pictures from the project's functions, so that neither can be wrong.
"""

from functools import partial
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure

from common import flags, geometry
from dataset.images import OriginalImages, read_satellite
from dataset.index import MINI_VIGOR, find_root, load_index
from dataset.masks.draw import draw_mask
from dataset.masks.osm import KINDS, read_map
from dataset.mini_vigor import looks, plan, render, writer
from dataset.mini_vigor.city import generator
from dataset.vigor import roll_and_crop
from docs import diagrams
from docs.diagrams import ARROW
from engine.visualization.pictures import MASK_COLOUR

HEADING = 60.0  # degrees, of the panorama that is drawn
LABEL = {"fontsize": 9.5, "bbox": {"facecolor": "black", "alpha": 0.6, "edgecolor": "none", "pad": 2}}
MASK_CITY = "Chicago"


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
    figures = {"network": diagrams.draw_network(), "light": diagrams.draw_light(), "search": diagrams.draw_search()}
    figures |= {"conventions": conventions, "masks": masks}
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=90)
        print(folder / f"{name}.png")
    cv2.imwrite(str(folder / "worlds.jpg"), cv2.cvtColor(draw_worlds(), cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, 85))
    print(folder / "worlds.jpg")


if __name__ == "__main__":
    flags.run_script(main, build_parser())
