"""Accuracy of masks, and the time and memory of as many as VIGOR has: 90,618 satellite images.

    python -m benchmarks.masks --output /tmp/large
    python -m benchmarks.masks --output /tmp/small --images 2000

First compares the masks of mini-VIGOR's extracts with the drawn ones. Then writes lists of that many images and
extracts that repeat mini-VIGOR's, and runs python -m dataset.masks on them. --output takes 0.6 GB.
"""

import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import osmium

from common import flags, geometry
from common.files import write_bytes
from dataset.build.grid import STEP_PX, Grid
from dataset.images import read_mask
from dataset.index import find_root
from dataset.lists import coordinates, mask_name, root_cities, satellite_at, satellite_list
from dataset.masks.draw import draw_mask
from dataset.masks.osm import read_map
from dataset.masks.writer import FOLDER
from dataset.mini_vigor.extract import whole_degrees, write_extract
from dataset.mini_vigor.writer import extract_path

DISTRICT_PX = 8192  # between the districts of mini-VIGOR
SHIFTS = ((0, 0), (2, 0), (-2, 0), (0, 2), (0, -2))


def agreement(root, city):
    """Intersection over union of a city's masks from its extract with the drawn ones, for each of SHIFTS."""
    names = satellite_list(root / "splits__corrected" / city)
    corners = geometry.image_corner(coordinates(names, "satellite"))
    streets, counts = read_map([extract_path(root, city)], corners), np.zeros((len(SHIFTS), 2))
    for name, corner in zip(names, corners, strict=True):
        path = root / city / FOLDER / mask_name(name)
        drawn = read_mask(path, (geometry.SATELLITE_PX,) * 2) > 0
        mask = draw_mask(*streets.around(corner), corner) > 0
        for k, shift in enumerate(SHIFTS):
            moved = np.roll(mask, shift, (0, 1))
            counts[k] += [(moved & drawn)[2:-2, 2:-2].sum(), (moved | drawn)[2:-2, 2:-2].sum()]
    return counts[:, 0] / counts[:, 1]


def first_district(path):
    """[(tags, (n, 2) rows and columns on the map)] of the ways in the first district of an extract."""
    ways = [item for item in osmium.FileProcessor(str(path)).with_locations() if item.is_way()]
    places = [np.array([(node.lat, node.lon) for node in way.nodes]) for way in ways]
    places = [np.stack(geometry.mercator_px(*degrees.T), 1) for degrees in places]
    tagged = zip([dict(way.tags) for way in ways], places, strict=True)
    end = min(points[:, 1].min() for points in places) + DISTRICT_PX
    return [(tags, points) for tags, points in tagged if points[0, 1] < end]


def write_city(root, output, city, images):
    """Write lists of `images` satellite images in a square, and an extract that repeats the city's over it."""
    ways = first_district(extract_path(root, city))
    places = np.concatenate([points for _, points in ways])
    corner, size = places.min(0), np.ptp(places, axis=0)
    side = int(np.ceil(images**0.5))
    grid = Grid(geometry.latitude_longitude(*corner))
    cells = np.stack(np.mgrid[2 : side + 2, 2 : side + 2], -1).reshape(-1, 2)[:images]
    first = np.rint((corner - grid.origin) / STEP_PX).astype(int)
    names = [satellite_at(centre)[0] for centre in grid.centre(cells + first)]
    for folder in (output / "splits__corrected" / city, output / "osm"):
        folder.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{name}\n" for name in names)
    write_bytes(output / "splits__corrected" / city / "satellite_list.txt", text.encode())
    steps = [size * step for step in np.ndindex(*np.ceil((side + 4) * STEP_PX / size).astype(int))]
    repeated = [(tags, whole_degrees(points + step)) for step in steps for tags, points in ways]
    write_extract(extract_path(output, city), repeated)
    print(f"{city}: {images:,} images, an extract of {len(repeated):,} ways")


def build_parser():
    """The command line."""
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("data")
    flags.add_dataset_root(group)
    text = "folder of lists, extracts and masks"
    group.add_argument("--output", required=True, metavar="DIR", help=text)
    group.add_argument("--images", type=flags.COUNT, default=90_618, metavar="N", help="satellite images")
    flags.add_workers(group)
    return parser


def main(args):
    """Run the command."""
    root, output = find_root(args.dataset_root), Path(args.output)
    cities = root_cities(root)
    for city, images in zip(cities, np.array_split(np.arange(args.images), len(cities)), strict=True):
        exact, *shifted = agreement(root, city)
        print(f"{city}: intersection over union {exact:.3f}, shifted by 2 px at most {max(shifted):.3f}")
        write_city(root, output, city, len(images))
    command = [
        sys.executable,
        "-m",
        "dataset.masks",
        "--dataset_root",
        str(output),
        "--workers",
        str(args.workers),
    ]
    start = time.perf_counter()
    subprocess.run([*command, "--osm", *[str(extract_path(output, city)) for city in cities]], check=True)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    print(f"{args.images:,} masks: {seconds / 60:.1f} minutes, peak memory {peak:.2f} GB")


if __name__ == "__main__":
    flags.run_script(main, build_parser())
