"""Cost of a search: time to build and query an index, disk space and memory, also of a larger city.

    python -m benchmarks.search --model_path pretrained
    python -m benchmarks.search --model_path pretrained_any_heading --city Chicago --times 20

The larger city repeats the city's own images side by side. Each measurement runs in a process of its own.
"""

import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.measure import headline, machine, make_parser, peak_gb
from common import flags, geometry
from common.device import pick_device
from common.errors import UserError
from efficientnet_pytorch.utils import normalise
from engine.evaluation.conditions import Conditions, Source
from engine.search.index import CHUNK, open_index
from engine.search.query import best_cells, make_templates, scan
from engine.search.searcher import NEAR_M, POOL, Searcher
from engine.search.tiles import Tiles
from model.checkpoint import load_model


def open_city(args, times):
    """(loaded network, dataset, the city's number, its tiles repeated `times` times, device)."""
    device = pick_device(args.device)
    loaded = load_model(args.model_path, device)
    dataset = Source.pick(vars(args)).open(Conditions.of(loaded), loaded.settings)
    listed = dataset.index.listed
    if args.city not in listed:
        raise UserError(f"--city {args.city}: {dataset.index.root} has panoramas of {', '.join(listed)}")
    tiles = Tiles.of_city(dataset.index, listed[args.city], dataset.images)
    width = np.ceil(np.ptp(tiles.centres_px[:, 1]) / geometry.SATELLITE_PX + 2) * geometry.SATELLITE_PX
    centres = np.concatenate([tiles.centres_px + (0, k * width) for k in range(times)])
    names = [name if k == 0 else f"{name}_{k}" for k in range(times) for name in tiles.names]
    gps = np.stack(geometry.latitude_longitude(*centres.T), -1)
    paths = {"paths": tiles.paths * times, "mask_paths": tiles.mask_paths * times}
    return loaded, dataset, listed[args.city], replace(tiles, names=names, gps=gps, **paths), device


def build(args, times, folder):
    """(seconds to build the index, number of images)."""
    loaded, _, _, tiles, device = open_city(args, times)
    start = time.perf_counter()
    open_index(folder / args.city, loaded.model, loaded.sha256, args.city, tiles, device)
    return time.perf_counter() - start, len(tiles.names)


def query(args, times, folder):
    """(median seconds from a panorama to its best cells, km² of the index, number of headings, peak GB)."""
    loaded, dataset, _, tiles, device = open_city(args, times)
    index = open_index(folder / args.city, loaded.model, loaded.sha256, args.city, tiles, device)
    cells = sum(int(index.brightness(r * CHUNK, c * CHUNK, CHUNK, CHUNK)[1].sum()) for r, c in index.chunks)
    seconds = []
    for i in np.linspace(0, len(dataset) - 1, 1 + args.repetitions).astype(int).tolist():
        panorama = dataset[i]["panorama"][None].to(device)
        start = time.perf_counter()
        templates = make_templates(loaded.model, normalise(panorama), index.grid)
        best_cells(scan(index, templates), POOL, NEAR_M / index.grid.cell_m)
        seconds.append(time.perf_counter() - start)
    return np.median(seconds[1:]), cells * index.grid.cell_m**2 / 1e6, len(templates.headings), peak_gb()


def refine(args, folder):
    """Median seconds to look at the best cells of a query in detail."""
    loaded, dataset, number, _, device = open_city(args, 1)
    searcher = Searcher(loaded, dataset.index, dataset.images, [number], device, folder)
    seconds = []
    for i in np.flatnonzero(dataset.index.city == number)[: 1 + args.repetitions].tolist():
        scored = searcher.scan(dataset[i])
        start = time.perf_counter()
        searcher.places(dataset[i], scored)
        seconds.append(time.perf_counter() - start)
    return np.median(seconds[1:])


def alone(function, *arguments):
    """The result of a function that runs in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def build_parser():
    parser, group = make_parser(__doc__)
    group.add_argument("--model_path", default="pretrained", metavar="FILE", help="light or ground_plane")
    group.add_argument("--city", default="Chicago", help="the city to search")
    group.add_argument("--times", type=flags.COUNT, default=20, metavar="N", help="copies in the larger city")
    flags.add_settings(parser, Source)
    return parser


def main(args):
    args.dataset_root = Source.pick(vars(args)).found().dataset_root
    print(machine(pick_device(args.device)))
    for times in (1, args.times):
        with tempfile.TemporaryDirectory() as root:
            folder = Path(root)
            build_s, images = alone(build, args, times, folder)
            query_s, area, headings, gb = alone(query, args, times, folder)
            disk = sum(path.stat().st_size for path in (folder / args.city).iterdir()) / 1e6
            print(f"{images} images, {area:.2f} km², {headings} heading(s)")
            print(f"  index: {build_s / images:.4f} s per image, {disk / area:.1f} MB per km²")
            print(f"  query: {query_s:.3f} s, {query_s / area:.3f} s per km², peak memory {gb:.2f} GB")
            if times == 1:
                print(f"  the {POOL} best cells in detail: {alone(refine, args, folder):.3f} s")
    headline(f"search, {headings} heading(s), per km²", f"{query_s / area:.3f} s")


if __name__ == "__main__":
    flags.run_script(main, build_parser())
