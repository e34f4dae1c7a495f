"""How right masks are, and the time and memory that those of a folder as large as VIGOR's take: 90,618 satellite images.

    python -m benchmarks.masks --output /tmp/large
    python -m benchmarks.masks --output /tmp/small --images 2000

Compares the masks of mini-VIGOR's extracts with the drawn ones first. Then writes lists of that many images, without images, and
extracts that repeat mini-VIGOR's, and runs python -m dataset.masks on them as a user would. --output takes 0.6 GB.
"""

import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import osmium

from benchmarks.index import SATELLITES
from benchmarks.measure import machine
from common import flags, geometry
from common.files import write_bytes
from dataset.city.grid import STEP_PX, TileGrid
from dataset.images import read_mask
from dataset.index import find_root
from dataset.lists import coordinates, mask_name, root_cities, satellite_at, satellite_list
from dataset.masks.draw import draw_mask
from dataset.masks.osm import read_map
from dataset.masks.writer import FOLDER
from dataset.mini_vigor.extract import whole_degrees, write_extract
from dataset.mini_vigor.writer import extract_path

SHIFTS = ((2, 0), (-2, 0), (0, 2), (0, -2))


def agreement(root, city):
    """(intersection over union of all masks of mini-VIGOR's extract with the drawn ones, the most of those shifted by 2 px)."""
    names = satellite_list(root / "splits__corrected" / city)
    corners = geometry.image_corner(coordinates(names, "satellite"))
    streets, counts = read_map([extract_path(root, city)], corners), np.zeros((1 + len(SHIFTS), 2))
    for name, corner in zip(names, corners, strict=True):
        drawn = root / city / FOLDER / mask_name(name)
        true, mask = read_mask(drawn, (geometry.SATELLITE_PX,) * 2) > 0, draw_mask(*streets.around(corner), corner) > 0
        for k, shift in enumerate(((0, 0), *SHIFTS)):
            moved = np.roll(mask, shift, (0, 1))
            counts[k] += [(moved & true)[2:-2, 2:-2].sum(), (moved | true)[2:-2, 2:-2].sum()]
    share = counts[:, 0] / counts[:, 1]
    return share[0], share[1:].max()


def write_city(root, output, city, images):
    """Lists of `images` satellite images in a square, and an extract that covers it with repetitions of the city's own."""
    mapped = read_features(extract_path(root, city))
    places = np.concatenate([points for _, points in mapped])
    corner, size = places.min(0), np.ptp(places, axis=0)  # (row, col), of one repetition
    side = int(np.ceil(images**0.5))
    grid = TileGrid(geometry.latitude_longitude(*corner))
    cells = np.stack(np.mgrid[2 : side + 2, 2 : side + 2], -1).reshape(-1, 2)[:images]
    first = np.rint((corner - grid.origin) / STEP_PX).astype(int)
    names = [satellite_at(centre)[0] for centre in grid.centre(cells + first)]
    folder = output / "splits__corrected" / city
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / "satellite_list.txt", "".join(f"{name}\n" for name in names).encode())
    times = np.ceil((side + 4) * STEP_PX / size).astype(int)
    repeated = [
        (tags, whole_degrees(points + size * (i, j))) for i in range(times[0]) for j in range(times[1]) for tags, points in mapped
    ]
    (output / "osm").mkdir(exist_ok=True)
    write_extract(output / "osm" / f"{city}.osm.pbf", repeated)
    return len(repeated), len(names)


def read_features(path):
    """[(tags, (n, 2) (row, col) on the map)] of the ways of an extract of mini-VIGOR's, of its first district."""
    ways = (thing for thing in osmium.FileProcessor(str(path)).with_locations() if thing.is_way())
    found = [(dict(way.tags), np.array([(node.lat, node.lon) for node in way.nodes])) for way in ways]
    found = [(tags, np.stack(geometry.mercator_px(*points.T), 1)) for tags, points in found]
    first = min(points[:, 1].min() for _, points in found)
    return [(tags, points) for tags, points in found if points[0, 1] < first + 8192]  # districts lie that far apart


def build_parser():
    """The command line."""
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("how much")
    flags.add_dataset_root(group)
    group.add_argument("--output", required=True, metavar="DIR", help="where lists, extracts and masks go")
    group.add_argument("--images", type=flags.COUNT, default=SATELLITES, metavar="N", help="satellite images in all")
    flags.add_workers(group)
    return parser


def main(args):
    """Run the command."""
    root, output = find_root(args.dataset_root), Path(args.output)
    print(machine())
    cities = root_cities(root)
    for city in cities:
        right, shifted = agreement(root, city)
        print(f"{city}: intersection over union with the drawn masks {right:.3f}, shifted by 2 px {shifted:.3f} at most")
    for city, share in zip(cities, np.array_split(np.arange(args.images), len(cities)), strict=True):
        outlines, images = write_city(root, output, city, len(share))
        print(f"{city}: {images:,} images, an extract of {outlines:,} ways")
    extracts = [str(output / "osm" / f"{city}.osm.pbf") for city in cities]
    command = [sys.executable, "-m", "dataset.masks", "--dataset_root", str(output), "--osm", *extracts]
    start = time.perf_counter()
    subprocess.run([*command, "--workers", str(args.workers)], check=True)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    each = f"{1000 * seconds / args.images:.1f} ms each"
    print(f"{args.images:,} masks: {seconds / 60:.1f} minutes, {each}, peak memory {peak:.2f} GB")


if __name__ == "__main__":
    flags.run_script(main, build_parser())
