"""CPU time of the loader for one training pair, compared with a plain torchvision pipeline.

    python -m benchmarks.loader
    python -m benchmarks.loader --dataset_root /data/VIGOR --cache_root /data/VIGOR_512

Without --dataset_root it draws synthetic pairs of VIGOR's sizes, 2048 x 1024 and 640 x 640.
"""

import tempfile
import time
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader, default_collate
from torchvision.transforms import v2

from benchmarks.measure import compare, headline, machine, make_parser, race
from common import flags
from common.parallel import keep_freed_memory
from dataset.augment import augment
from dataset.cache import make_cache
from dataset.index import load_index
from dataset.loader import training_loader
from dataset.mini_vigor.writer import make
from dataset.vigor import open_split
from model.settings import ModelSettings

PUBLISHED = ModelSettings()


def plain_batches(root, batch_size):
    """Endless batches as most code of this field reads them: Pillow, then torchvision's transforms."""
    index, size = load_index(root), (PUBLISHED.satellite_size,) * 2
    jitter, erase = v2.ColorJitter(0.3, 0.3, 0.3, 0.1), v2.RandomErasing(0.25, (0.02, 0.1))
    affine = v2.RandomAffine(10, (0.1, 0.1), (0.9, 1.1), interpolation=v2.InterpolationMode.BILINEAR)
    change_panorama = v2.Compose([v2.Resize(PUBLISHED.panorama_size), jitter, v2.GaussianBlur((5, 9))])
    change_satellite = v2.Compose([v2.Resize(size), jitter])
    resize_mask = v2.Resize(size, v2.InterpolationMode.NEAREST)
    to_tensor = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    normalise = v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    finish = v2.Compose([to_tensor, normalise, erase])

    def load(row):
        number = index.satellite[row, 0]
        panorama = Image.open(index.root / index.panorama_path(row)).convert("RGB")
        satellite = change_satellite(Image.open(index.root / index.satellite_path(number)).convert("RGB"))
        mask = resize_mask(Image.open(index.root / index.mask_path(number)).convert("L"))
        move = affine.make_params([satellite])
        return {
            "panorama": finish(change_panorama(panorama)),
            "satellite": finish(affine.transform(satellite, move)),
            "mask": to_tensor(v2.functional.affine(mask, **move)),
            "position": torch.from_numpy(index.position[row, 0]),
        }

    def collate(rows):
        return default_collate([load(row) for row in rows])

    loader = DataLoader(range(len(index)), batch_size, shuffle=True, drop_last=True, collate_fn=collate)
    while True:
        yield from loader


def training_batches(root, batch_size, settings=PUBLISHED, cache_root=None, workers=0, pin_memory=False):
    """Endless batches of train_VIGOR.py's loader at a network's sizes, from original files or a cache."""
    keep_freed_memory()
    images = settings.images
    dataset = open_split(root, "samearea", "train", **images, training=True, cache_root=cache_root)
    loader, sampler = training_loader(dataset, batch_size, 0, workers, pin_memory)
    while True:
        yield from loader
        sampler.epoch += 1


def make_loading(open_batches, root, batch_size, number, augmented=False, **options):
    """Builds, for a race, a function that loads the next batches on one core, as a loader process does."""
    torch.set_num_threads(1)
    batches = open_batches(root, batch_size, **options)

    def load():
        for batch in islice(batches, number):
            if augmented:
                augment(batch, "full")

    return load


def make_data(folder, dataset_root=None, cache_root=None, settings=PUBLISHED, workers=2, **drawing):
    """(a VIGOR folder, a cache of a network's sizes): those given, or new ones inside `folder`.

    drawing: arguments of `dataset.mini_vigor.writer.make`.
    """
    root = dataset_root or make(Path(folder, "vigor"), workers=workers, progress=False, **drawing)
    if cache_root is None:
        cache_root = Path(folder, f"cache_{settings.satellite_size}")
        sizes = {name: getattr(settings, name) for name in ("satellite_size", "panorama_size")}
        make_cache(Path(root), cache_root, workers=workers, **sizes)
    return root, cache_root


def build_parser():
    parser, group = make_parser(__doc__, batch_size=8)
    group.add_argument("--pairs", type=flags.COUNT, default=48, metavar="N", help="in one repetition")
    group = parser.add_argument_group("data")
    group.add_argument("--dataset_root", metavar="DIR", help="a VIGOR folder; by default pairs are drawn")
    group.add_argument("--cache_root", metavar="DIR", help="its cache; by default a temporary one")
    return parser


def main(args):
    device = torch.device("cpu")
    print(machine(device))
    with tempfile.TemporaryDirectory() as folder:
        drawing = {"panoramas": 24, "panorama_width": 2048}
        root, cache_root = make_data(folder, args.dataset_root, args.cache_root, **drawing)
        batch_size = min(args.batch_size, args.pairs, len(load_index(root)))
        number = args.pairs // batch_size
        ours = partial(make_loading, training_batches, root, batch_size, number)
        rivals = {
            "plain pipeline": partial(make_loading, plain_batches, root, batch_size, number),
            "original files": ours,
            "cache": partial(ours, cache_root=cache_root),
            "cache, with augmentation": partial(ours, cache_root=cache_root, augmented=True),
        }
        seconds, _ = race(rivals, args.repetitions, device, clock=time.process_time)
    speedup = compare("loader, CPU time on one core", seconds, number * batch_size)
    headline("loader from the cache against a plain pipeline", f"{speedup['cache']:.1f} x")


if __name__ == "__main__":
    flags.run_script(main, build_parser())
