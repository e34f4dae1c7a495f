"""What a search over a city costs: seconds to build and to ask, space on the disk, memory; also of a city many times as large.

    python -m benchmarks.search --model_path pretrained
    python -m benchmarks.search --model_path pretrained_any_heading --city Chicago --times 20

The larger city is the city's own images again and again, side by side. Every measurement has a process of its own.
"""

import multiprocessing
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.measure import headline, machine, make_parser
from common import flags, geometry
from common.device import pick_device
from common.errors import UserError
from common.geometry import SATELLITE_PX
from efficientnet_pytorch.utils import normalise
from engine.evaluation.conditions import Conditions, Source
from engine.search.index import CHUNK, open_index
from engine.search.query import best_cells, make_templates, scan
from engine.search.searcher import POOL, Searcher
from engine.search.tiles import Tiles
from model.checkpoint import load_model


def repeated(tiles, times):
    """The `Tiles` of a city that is `times` as large: its images again, each copy further east, their names told apart."""
    step = np.array([0.0, np.ceil(np.ptp(tiles.centres_px[:, 1]) / SATELLITE_PX + 2) * SATELLITE_PX])
    centres = np.concatenate([tiles.centres_px + k * step for k in range(times)])
    names = [name if k == 0 else f"{name}_{k}" for k in range(times) for name in tiles.names]
    gps = np.stack(geometry.latitude_longitude(*centres.T), -1)
    return replace(tiles, names=names, gps=gps, paths=tiles.paths * times, mask_paths=tiles.mask_paths * times)


def open_data(args):
    """(loaded network, dataset, the city's number in it, device). Raises UserError."""
    device = pick_device(args.device)
    loaded = load_model(args.model_path, device)
    dataset = args.source.open(Conditions.of(loaded), loaded.settings)
    listed = dataset.index.listed
    if args.city not in listed:
        raise UserError(f"--city {args.city}: {dataset.index.root} has panoramas of {', '.join(listed)}")
    return loaded, dataset, listed[args.city], device


def open_city(args, times):
    """(loaded network, dataset, tiles, device) of a city that is `times` as large."""
    loaded, dataset, number, device = open_data(args)
    return loaded, dataset, repeated(Tiles.of_city(dataset.index, number, dataset.images), times), device


def build(args, times, folder):
    """(seconds to build the index, images, peak GB)."""
    loaded, _, tiles, device = open_city(args, times)
    start = time.perf_counter()
    open_index(folder / args.city, loaded.model, loaded.sha256, args.city, tiles, device)
    return time.perf_counter() - start, len(tiles.names), _peak_gb()


def ask(args, times, folder):
    """(seconds of each query, km² of the index, headings, peak GB): panorama to best cells, without looking at them in detail."""
    loaded, dataset, tiles, device = open_city(args, times)
    index = open_index(folder / args.city, loaded.model, loaded.sha256, args.city, tiles, device)
    cells = sum(int(index.brightness(r * CHUNK, c * CHUNK, CHUNK, CHUNK)[1].sum()) for r, c in index.chunks)
    seconds = []
    for i in np.linspace(0, len(dataset) - 1, 1 + args.repetitions).astype(int).tolist():
        panorama = dataset[i]["panorama"][None].to(device)
        start = time.perf_counter()
        templates = make_templates(loaded.model, normalise(panorama), index.grid)
        best_cells(scan(index, templates), POOL, 5 / index.grid.cell_m)
        seconds.append(time.perf_counter() - start)
    return seconds[1:], cells * index.grid.cell_m**2 / 1e6, len(templates.headings), _peak_gb()


def look(args, folder):
    """Seconds to look at the best cells of a query in detail."""
    loaded, dataset, number, device = open_data(args)
    searcher = Searcher(loaded, dataset.index, dataset.images, [number], device, folder)
    own = np.flatnonzero(dataset.index.city == number)
    seconds = []
    for i in own[: 1 + args.repetitions].tolist():
        scored = searcher.scan(dataset[i])
        start = time.perf_counter()
        searcher.places(dataset[i], scored)
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def _peak_gb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _alone(function, *arguments):
    """What a function gives in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def build_parser():
    parser, group = make_parser(__doc__)
    group.add_argument("--model_path", default="pretrained", metavar="FILE", help="a light or ground_plane network")
    group.add_argument("--city", default="Chicago", help="whose images are taken")
    group.add_argument("--times", type=flags.COUNT, default=20, metavar="N", help="how much larger the second city is")
    flags.add_settings(parser, Source)
    flags.add_device(parser.add_argument_group("machine"))
    return parser


def main(args):
    args.source = Source.pick(vars(args)).found()
    print(machine(pick_device(args.device)))
    for times in (1, args.times):
        with tempfile.TemporaryDirectory() as root:
            folder = Path(root)
            seconds, images, build_gb = _alone(build, args, times, folder)
            asked, area, headings, gb = _alone(ask, args, times, folder)
            disk = sum(path.stat().st_size for path in (folder / args.city).iterdir()) / 1e6
            print(f"{images} images, {area:.2f} km², {headings} heading(s)")
            size = f"{disk / area:.1f} MB per km² on the disk"
            print(f"  index: {seconds / images:.4f} s an image, {size}, peak memory {build_gb:.2f} GB")
            middle = np.median(asked)
            print(f"  query: {middle:.3f} s, {middle / area:.3f} s per km², peak memory {gb:.2f} GB")
            if times == 1:
                print(f"  the {POOL} best cells in detail: {np.median(_alone(look, args, folder)):.3f} s")
    headline(f"search, {headings} heading(s), per km²", f"{middle / area:.3f} s")


if __name__ == "__main__":
    flags.run_script(main, build_parser())
