"""Seconds of inference, training steps, the loader and a search, for each network and size, as one table.

    python -m benchmarks.speed
    python -m benchmarks.speed --networks light --sizes 128 --headings 36
    python -m benchmarks.speed --batch_size 64 --num_workers 16 --compile             # on a GPU
    python -m benchmarks.speed --networks light --sizes 512 --profile

Networks have random weights and images random pixels, on which neither time nor memory depends. The loader
reads mini-VIGOR, or --dataset_root; the search looks for its test panoramas with the repository's network.
"""

import os
import platform
import resource
import tempfile
import time

import numpy as np
import pandas as pd
import torch
from torch.profiler import profile

from common import flags
from common.camera import Panorama
from common.device import pick_device
from common.settings import CORES, COUNT, COUNT_OR_NONE, NUM_WORKERS
from common.view import View
from dataset.augment import augment
from dataset.loader import training_loader
from dataset.protocol import Protocol, Source, open_data
from engine import run
from engine.inference.predictor import Predictor, make_inputs
from engine.search.setup import open_search
from engine.training.optimisation import Precision
from engine.training.state import TrainingState
from engine.training.step import train_step
from loss.criterion import Criterion
from model.build import build_model
from model.checkpoint import load_model
from model.settings import NETWORKS, network_settings

VIGOR_RUN = 120 * 42_087  # pairs: 120 epochs of VIGOR's same-area training list without validation's fifth


def machine(device):
    """One line that names the hardware and the versions."""
    cpu = f"{os.cpu_count()} cores of {platform.processor() or platform.machine()}"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu
    return f"{name}, Python {platform.python_version()}, torch {torch.__version__}"


def seconds_of(call, device, repetitions):
    """The median duration of a call in seconds; a first call warms up."""
    times = []
    for _ in range(1 + repetitions):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))


def peak_gb(device):
    """The peak memory of this process so far in GB: the GPU's if it is used."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def random_batch(view, B, device):
    """A batch of random pixels, as `VigorDataset` gives it."""
    draw, size = torch.Generator().manual_seed(0), view.satellite_size

    def pixels(*shape):
        return torch.randint(0, 256, (B, *shape), dtype=torch.uint8, generator=draw)

    batch = {
        "query": pixels(3, *view.panorama_px),
        "camera": Panorama(torch.zeros(B, 1)),
        "satellite": pixels(3, size, size),
        "mask": pixels(1, size, size),
        "position": torch.rand(B, 2, generator=draw) * size,
        "heading": torch.zeros(B),
        "metres_per_pixel": torch.full((B,), 0.113 * 640 / size),
        "index": torch.arange(B),
    }
    return {name: value.to(device) for name, value in batch.items()}


def make_training(network, view, device, compiled):
    """A function that takes one training step with a batch, as train_VIGOR.py does."""
    model = torch.compile(network) if compiled else network
    optimizer = torch.optim.AdamW(network.parameters(), 1e-5, fused=True)
    state = TrainingState(network, model, optimizer, Precision("auto", device))
    criterion = Criterion("infonce", network.settings.temperature)

    def losses(batch):
        batch = augment(batch, "full", view)
        with state.precision.autocast():
            prediction = model(make_inputs(batch, view))
        return criterion(prediction, batch)

    def step(batch):
        network.train()
        train_step(state, [batch], losses, seed=0, run_step=0, rate=1e-5)

    return step


def measure_network(name, size, args, device):
    """A row of the table: milliseconds for a pair, and pairs a second of training fed by the loader."""
    B, panorama_size = args.batch_size, (320, 640) if size == 512 else (size, 2 * size)
    noise = 180.0 if args.headings > 1 else 0.0
    view = View(satellite_size=size, panorama_size=panorama_size, ori_noise=noise)
    settings = network_settings(view, {"network": name, "heading_bins": max(4, args.headings)})
    network = build_model(settings).to(device, memory_format=torch.channels_last)
    predictor, batch = Predictor(network.eval(), view, device), random_batch(view, B, device)
    step = make_training(network, view, device, args.compile)
    if args.profile:
        step(batch)
        with profile() as record:
            step(batch)
        print(record.key_averages().table(sort_by=f"self_{device.type}_time_total", row_limit=15))
    row = {"network": name, "size": size, "weights, M": sum(p.numel() for p in network.parameters()) / 1e6}
    row["inference, ms"] = 1000 / B * seconds_of(lambda: predictor.columns(batch), device, args.repetitions)
    network.train()
    row["step, ms"] = 1000 / B * seconds_of(lambda: step(batch), device, args.repetitions)
    dataset = open_data(Source(args.dataset_root).found(), Protocol(split="train"), view, True, training=True)
    loader, _ = training_loader(dataset, B, 0, args.num_workers)
    batches = iter(loader)
    fed = seconds_of(lambda: step(next(batches)), device, min(args.repetitions, len(loader) - 1))
    row |= {"fed, pairs/s": B / fed, "VIGOR's 120 epochs, h": VIGOR_RUN / B * fed / 3600}
    return row | {"GB": peak_gb(device)}


def measure_search(word, args, device):
    """Print figures of a search over the first city of the data with one of the repository's networks."""
    source, protocol, checkpoint = Source(args.dataset_root).found(), Protocol(), load_model(word, device)
    view = checkpoint.view
    names = list(open_data(source, protocol, view, False).index.listed)[:1]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        searcher, dataset = open_search(checkpoint, view, protocol, source, names, device, folder)
        making = time.perf_counter() - start
        sample, city = dataset[0], searcher.cities[0]
        scored = searcher.scan(sample)
        scan = seconds_of(lambda: searcher.scan(sample), device, args.repetitions)
        places = seconds_of(lambda: searcher.places(sample, scored), device, args.repetitions)
    bounds = np.array(city.index.bounds).reshape(2, 2)
    km2 = float(np.prod(bounds[1] - bounds[0])) * (city.index.grid.cell_m / 1000) ** 2
    print(f"=> {word}, index, s for an image: {making / len(city.tiles.names):.3f}", flush=True)
    print(f"=> {word}, scan, s for a km2: {scan / km2:.3f}", flush=True)
    print(f"=> {word}, best places, s: {places:.2f}", flush=True)


def build_parser():
    """The command line."""
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("what to measure")
    networks = {"choices": list(NETWORKS), "default": ["light", "ground_plane", "published"]}
    help = f"networks to measure, of {', '.join(NETWORKS)}"
    group.add_argument("--networks", nargs="+", metavar="NAME", help=help, **networks)
    sizes = {"default": [128, 512], "help": "sides of satellite images"}
    group.add_argument("--sizes", nargs="+", type=COUNT, metavar="PX", **sizes)
    group.add_argument("--headings", type=COUNT, default=1, metavar="N", help="hypotheses on the full circle")
    group.add_argument("--profile", action="store_true", help="also print where the time of a step goes")
    group = parser.add_argument_group("how")
    flags.add_dataset_root(group)
    group.add_argument("-b", "--batch_size", type=COUNT, default=4, metavar="N", help="pairs in a batch")
    group.add_argument("--repetitions", type=COUNT, default=5, metavar="N", help="measured calls")
    group.add_argument("--num_workers", type=COUNT_OR_NONE, default=CORES, metavar="N", help=NUM_WORKERS)
    group.add_argument("--compile", action="store_true", help="compile the networks")
    flags.add_device(group)
    return parser


def main(args):
    """Run the command."""
    device = pick_device(args.device)
    if device.type == "cuda":
        run.configure_gpu(tf32=True, deterministic=False)
    print(machine(device), flush=True)
    rows = []
    for name in args.networks:
        for size in args.sizes:
            row = measure_network(name, size, args, device)
            rows.append(row)
            print(f"=> {name} at {size} px, inference, ms for a pair: {row['inference, ms']:.3g}", flush=True)
            print(f"=> {name} at {size} px, training, pairs/s: {row['fed, pairs/s']:.3g}", flush=True)
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.4g}".format))
    if "light" in args.networks:
        for word in ("pretrained", "pretrained_any_heading"):
            measure_search(word, args, device)


if __name__ == "__main__":
    flags.run_script(main, build_parser())
