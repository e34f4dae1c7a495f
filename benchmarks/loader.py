"""Processor time of the loader for one training pair, against a plain torchvision pipeline.

    python -m benchmarks.loader
    python -m benchmarks.loader --dataset_root /data/VIGOR --cache_root /data/VIGOR_512

Without --dataset_root it draws synthetic pairs at VIGOR's own sizes: panoramas of 2048 x 1024, satellite images of 640 x 640.
"""

import tempfile
import time
from pathlib import Path

import torch
from PIL import Image
from torchvision.transforms import v2

from benchmarks.measure import headline, machine, median, print_table, race, ratio
from common import flags
from common.parallel import keep_freed_memory
from dataset import cache
from dataset.augment import augment
from dataset.index import find_root, load_index
from dataset.loader import training_loader
from dataset.mini_vigor.writer import make
from dataset.vigor import VigorDataset

SATELLITE_SIZE, PANORAMA_SIZE = 512, (320, 640)
PLAIN = "plain pipeline"


class PlainDataset(torch.utils.data.Dataset):
    """The pairs of an index as most training code of this field reads them: Pillow, and torchvision's transforms one by one."""

    def __init__(self, index):
        self.index = index
        finish = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
        jitter, erase = v2.ColorJitter(0.3, 0.3, 0.3, 0.1), v2.RandomErasing(0.25, (0.02, 0.1))
        self.panorama = v2.Compose([v2.Resize(PANORAMA_SIZE), jitter, v2.GaussianBlur((5, 9)), *finish, erase])
        self.satellite = v2.Compose([v2.Resize((SATELLITE_SIZE,) * 2), jitter])
        self.mask = v2.Resize((SATELLITE_SIZE,) * 2, v2.InterpolationMode.NEAREST)
        self.finish_satellite = v2.Compose([*finish, erase])
        self.finish_mask = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])

    def __len__(self):
        return len(self.index)

    def __getitem__(self, row):
        index = self.index
        satellite = index.satellite[row, 0]
        panorama = Image.open(index.root / index.panorama_path(row)).convert("RGB")
        aerial = Image.open(index.root / index.satellite_path(satellite)).convert("RGB")
        mask = Image.open(index.root / index.mask_path(satellite)).convert("L")
        turn, *move = (torch.rand(4) * 2 - 1).tolist()
        affine = {
            "angle": turn * 10,
            "translate": [int(move[0] * 0.1 * SATELLITE_SIZE), int(move[1] * 0.1 * SATELLITE_SIZE)],
            "scale": 1 + move[2] * 0.1,
            "shear": [0.0],
        }
        aerial = v2.functional.affine(self.satellite(aerial), interpolation=v2.InterpolationMode.BILINEAR, **affine)
        mask = v2.functional.affine(self.mask(mask), **affine)
        return {
            "panorama": self.panorama(panorama),
            "satellite": self.finish_satellite(aerial),
            "mask": self.finish_mask(mask),
            "position": torch.from_numpy(index.position[row, 0]),
        }


def make_plain(root, pairs, batch_size):
    """A function that loads pairs as most code does. Meant for a process of its own, as are those below."""
    torch.set_num_threads(1)
    dataset = PlainDataset(load_index(root))

    def load():
        for number, _ in enumerate(torch.utils.data.DataLoader(dataset, batch_size, shuffle=True), start=1):
            if number * batch_size >= pairs:
                return

    return load


def make_ours(root, pairs, batch_size, cache_root=None, augmented=False):
    """A function that loads pairs as a process of train_VIGOR.py's loader does, from raw files or a cache."""
    torch.set_num_threads(1)
    keep_freed_memory()
    sizes = {"satellite_size": SATELLITE_SIZE, "panorama_size": PANORAMA_SIZE, "use_mask": True}
    dataset = VigorDataset(load_index(root), **sizes, training=True, cache_root=cache_root)
    loader, sampler = training_loader(dataset, batch_size, seed=0, workers=0)

    def load():
        sampler.epoch += 1
        for number, batch in enumerate(loader, start=1):
            if augmented:
                augment(batch, "full")
            if number * batch_size >= pairs:
                return

    return load


def build_parser():
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("data")
    group.add_argument("--dataset_root", metavar="DIR", help="a VIGOR folder; without it pairs of VIGOR's sizes are drawn")
    group.add_argument("--cache_root", metavar="DIR", help="its cache; without it one is made for the while")
    group = parser.add_argument_group("measurement")
    group.add_argument("--pairs", type=flags.COUNT, default=48, metavar="N", help="loaded in one repetition")
    group.add_argument("-b", "--batch_size", type=flags.COUNT, default=8, metavar="N", help="pairs in a batch")
    group.add_argument("--repetitions", type=flags.COUNT, default=5, metavar="N", help="of which medians are taken")
    return parser


def main(args):
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        root, cache_root = args.dataset_root, args.cache_root
        if root is None:
            root = make(Path(folder, "vigor"), panoramas=24, panorama_width=2048, progress=False)
        root = find_root(root)
        pairs = min(args.pairs, len(load_index(root)))
        if cache_root is None:
            cache_root = Path(folder, "cache")
            sizes = {"satellite_size": SATELLITE_SIZE, "panorama_size": PANORAMA_SIZE}
            cache.make_cache(root, cache_root, **sizes, quality=95, use_mask=True, workers=2)
        common = root, pairs, args.batch_size
        rivals = {
            PLAIN: (make_plain, *common),
            "raw files": (make_ours, *common),
            "cache": (make_ours, *common, cache_root),
            "cache, augmentation on this core too": (make_ours, *common, cache_root, True),
        }
        seconds, _ = race(rivals, args.repetitions, clock=time.process_time)
    rows = [("loader", "CPU ms a pair", "pairs/s of a core", "plain pipeline / this")]
    for name, value in median(seconds).items():
        rows.append((name, f"{value / pairs * 1000:.1f}", f"{pairs / value:.0f}", f"{ratio(seconds, PLAIN, name):.1f} x"))
    print_table(rows)
    for name in ("cache", "raw files"):
        headline(f"loader, CPU time for a pair, plain pipeline against {name}", f"{ratio(seconds, PLAIN, name):.1f} x")


if __name__ == "__main__":
    flags.run_script(main, build_parser())
