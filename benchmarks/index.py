"""Seconds, and memory, that reading the lists of VIGOR's test split takes: 52,605 lines, 90,618 satellite images.

    python -m benchmarks.index
    python -m benchmarks.index --dataset_root /data/VIGOR

Without --dataset_root it writes lists of VIGOR's size and form, with drawn coordinates.
"""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.measure import machine, make_parser, race
from common import flags, geometry
from dataset.index import load_index
from dataset.lists import VIGOR_CITIES

PANORAMAS, SATELLITES = 52_605, 90_618


def write_lists(root):
    """The lists of the same-area test split as large as VIGOR's, without images."""
    rng = np.random.default_rng(0)
    gps = np.stack(geometry.latitude_longitude(*(1e8 + rng.uniform(0, 1e6, (2, SATELLITES)))), 1)
    parts = np.array_split(np.arange(PANORAMAS), len(VIGOR_CITIES)), np.array_split(gps, len(VIGOR_CITIES))
    for city, lines, centres in zip(VIGOR_CITIES, *parts, strict=True):
        folder = Path(root, "splits__corrected", city)
        folder.mkdir(parents=True)
        names = [f"satellite_{latitude:.13f}_{longitude:.13f}.png" for latitude, longitude in centres]
        (folder / "satellite_list.txt").write_text("\n".join(names) + "\n")
        with open(folder / "same_area_balanced_test__corrected.txt", "w") as file:
            for i, first in zip(lines, rng.integers(0, len(names) - 3, len(lines)), strict=True):
                offsets = rng.integers(-320, 320, (4, 2))
                four = " ".join(f"{names[first + k]} {row} {col}" for k, (row, col) in enumerate(offsets))
                file.write(f"{i:022d},{centres[first, 0]:.6f},{centres[first, 1]:.6f},.jpg {four}\n")


def build_parser():
    parser, group = make_parser(__doc__)
    group.add_argument("--dataset_root", metavar="DIR", help="a VIGOR folder; without it lists of its size are written")
    return parser


def main(args):
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        if args.dataset_root is None:
            write_lists(folder)
        read = partial(load_index, args.dataset_root or folder, "samearea", "test")
        times, found = race({"index": partial(partial, read)}, args.repetitions)  # whose builder gives `read`
    index, seconds = found["index"][0], times["index"].median()
    size = sum(value.nbytes for value in vars(index).values() if isinstance(value, np.ndarray))
    print(f"{len(index):,} lines and {len(index.satellite_name):,} satellite images: {seconds:.2f} s, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    flags.run_script(main, build_parser())
