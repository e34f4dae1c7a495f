"""Seconds, and memory, that reading the lists of VIGOR's test split takes: 52,605 lines, 90,618 satellite images.

    python -m benchmarks.index
    python -m benchmarks.index --dataset_root /data/VIGOR

Without --dataset_root it writes lists of VIGOR's size and form, with drawn coordinates.
"""

import tempfile
from pathlib import Path

import numpy as np

from benchmarks.measure import machine, median, take_turns
from common import flags, geometry
from dataset.index import CITIES, load_index

PANORAMAS, SATELLITES = 52_605, 90_618


def write_lists(root, seed=0):
    """The lists of the same-area test split as large as VIGOR's, without images."""
    rng = np.random.default_rng(seed)
    lines_of, names_of = (np.diff(np.linspace(0, count, len(CITIES) + 1).astype(int)) for count in (PANORAMAS, SATELLITES))
    for city, lines, satellites in zip(CITIES, lines_of, names_of, strict=True):
        folder = Path(root, "splits__corrected", city)
        folder.mkdir(parents=True)
        gps = geometry.latitude_longitude(*(rng.uniform(0, 1e6, satellites) + 1e8 for _ in range(2)))
        names = [f"satellite_{latitude:.13f}_{longitude:.13f}.png" for latitude, longitude in zip(*gps, strict=True)]
        (folder / "satellite_list.txt").write_text("\n".join(names) + "\n")
        with open(folder / "same_area_balanced_test__corrected.txt", "w") as file:
            for i in range(lines):
                place = rng.integers(0, satellites - 3)
                four = " ".join(
                    f"{names[k]} {row} {col}"
                    for k, (row, col) in zip(range(place, place + 4), rng.integers(-320, 320, (4, 2)), strict=True)
                )
                file.write(f"{i:022d},{gps[0][place]:.6f},{gps[1][place]:.6f},.jpg {four}\n")


def build_parser():
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("measurement")
    group.add_argument("--dataset_root", metavar="DIR", help="a VIGOR folder; without it lists of its size are written")
    group.add_argument("--repetitions", type=flags.COUNT, default=5, metavar="N", help="of which the median is taken")
    return parser


def main(args):
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        root = args.dataset_root
        if root is None:
            write_lists(root := folder)
        index = load_index(root, "samearea", "test")
        seconds = median(take_turns({"index": lambda: load_index(root, "samearea", "test")}, args.repetitions))["index"]
    size = sum(value.nbytes for value in vars(index).values() if isinstance(value, np.ndarray))
    print(f"{len(index):,} lines and {len(index.satellite_name):,} satellite images: {seconds:.2f} s, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    flags.run_script(main, build_parser())
