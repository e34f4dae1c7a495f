"""Seconds of a training step: against plain eager PyTorch, fed by the loader, and growth with every size.

    python -m benchmarks.training
    python -m benchmarks.training --growth --repetitions 2
    python -m benchmarks.training --batch_size 64 --num_workers 16 --profile         # on a GPU

Networks have random weights and the published sizes; pairs are synthetic.
"""

import itertools
import tempfile
from functools import partial

import pandas as pd
import torch
from torch.profiler import profile

from benchmarks.loader import PUBLISHED, make_data, training_batches
from benchmarks.measure import compare, headline, machine, make_parser, peak_gb, race
from benchmarks.network import GROUND, PLAIN, build, draw_batch, make_inference
from common import flags
from common.device import pick_device
from dataset.augment import augment
from engine import run
from engine.batch import forward, to_device
from loss.criterion import Criterion
from model.settings import ModelSettings

FULL_RUN = 120 * 42_087  # pairs: 120 epochs of VIGOR's same-area training list without validation's fifth
BASE = {"batch_size": 4, "satellite_size": 256, "matching_radius": 20, "heading_bins": 1}
GROWTH = {  # values of each quantity that grows; the others stay as in BASE
    "batch_size": (1, 2, 4, 8),
    "satellite_size": (128, 256, 384, 512),
    "matching_radius": (10, 20, 30, 40),
    "heading_bins": (1, 12, 24, 36),
}


def make_training(settings, device, *, plain=False, compiled=False, augmentation="none"):
    """(network, train): train(batches, steps) makes so many updates of a new network, as train_VIGOR.py does.

    It is the bare loop: augmentation, forward pass (bf16 on a GPU), loss, backward pass, clipping, AdamW.
    `train` returns the memory in GB that it has needed so far.
    plain: as of `benchmarks.network.build`, with AdamW tensor by tensor.
    """
    model, device = build(settings, device, plain)
    fast = device.type == "cuda" and not plain
    if fast:
        run.configure_gpu(tf32=True, deterministic=False)
    options = {"foreach": False} if plain else {"fused": True}
    optimizer = torch.optim.AdamW(model.parameters(), 1e-5, **options)
    network = torch.compile(model) if compiled else model
    before, criterion = peak_gb(), Criterion("infonce", settings.temperature)

    def train(batches, steps):
        model.train()
        for batch in itertools.islice(batches, steps):
            batch = augment(to_device(batch, device), augmentation, settings.FoV)
            with torch.autocast(device.type, torch.bfloat16, enabled=fast):
                prediction = forward(network, batch)
            optimizer.zero_grad(set_to_none=True)
            criterion(prediction, batch)["loss"].backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        return peak_gb() - before

    return model, train


def make_step(device, batch_size, settings, steps=1, **options):
    """Builds, for a race, a function that trains on one repeated batch. options: of `make_training`."""
    model, train = make_training(settings, device, **options)
    return partial(train, itertools.repeat(draw_batch(model, batch_size)), steps)


def make_feed(data, device, batch_size, workers, steps, repeated=False, settings=PUBLISHED, compiled=False):
    """Builds, for a race, a function that trains on the loader's batches, or on the first one `repeated`."""
    _, train = make_training(settings, device, compiled=compiled, augmentation="full")
    root, cache_root = data
    pin_memory = pick_device(device).type == "cuda"
    batches = training_batches(root, batch_size, settings, cache_root, workers, pin_memory)
    return partial(train, itertools.repeat(to_device(next(batches), device)) if repeated else batches, steps)


def compare_steps(args, device):
    """Steps of train_VIGOR.py against plain eager steps."""
    step = partial(make_step, str(device), args.batch_size)
    rivals = {PLAIN: partial(step, PUBLISHED, plain=True)}
    for name in ("published", "ground_plane"):
        rivals[name] = partial(step, ModelSettings(network=name))
        if args.compile:
            rivals[f"{name}, --compile"] = partial(step, ModelSettings(network=name), compiled=True)
    seconds, _ = race(rivals, args.repetitions, device)
    speedup = compare("training step at 512", seconds, args.batch_size)
    fastest = speedup.filter(like="published").idxmax()
    headline("training step against plain eager float32", f"{speedup[fastest]:.2f} x ({fastest})")


def compare_feeds(args, device, folder):
    """Training fed by the loader against one repeated batch at 512, and the light network's steps at 128."""
    make_pairs = partial(make_data, folder, workers=args.num_workers or 1, panoramas=args.panoramas)
    feed = partial(make_feed, make_pairs(), str(device), args.batch_size, args.num_workers, args.steps)
    rivals = {name: partial(feed, name == "repeated", compiled=args.compile) for name in ("repeated", "fed")}
    seconds, _ = race(rivals, args.repetitions, device)
    pairs = args.batch_size * args.steps
    speedup = compare("training at 512", seconds, pairs)
    headline("training fed by the loader against one repeated batch", f"{speedup['fed']:.2f}")
    hours = FULL_RUN / pairs * seconds["fed"].median() / 3600
    headline(f"120 epochs of VIGOR's same-area list, {FULL_RUN:,} pairs", f"{hours:.0f} h")
    sizes = {"satellite_size": 128, "panorama_size": (128, 256)}
    settings = {name: ModelSettings(network=name, **sizes) for name in GROUND}
    data = make_pairs(settings=settings["light"])
    feed = partial(make_feed, data, str(device), 4, args.num_workers, args.steps)
    rivals = {name: partial(feed, settings=settings[name]) for name in GROUND}
    speedup = compare("training at 128", race(rivals, args.repetitions, device)[0], 4 * args.steps)
    headline("training step at 128, batch 4, light against ground_plane", f"{speedup['light']:.2f} x")


def profile_step(args, device):
    """Print where the time of a step goes, by PyTorch's profiler."""
    train = make_step(device, args.batch_size, PUBLISHED, steps=3, compiled=args.compile)
    train()
    with profile() as record:
        train()
    print(record.key_averages().table(sort_by=f"self_{device.type}_time_total", row_limit=15))


def measure_growth(device, repetitions):
    """Print seconds of inference and of a training step, and GB of the latter, for each value of GROWTH."""
    lines = []
    for network, (name, values) in itertools.product(GROUND, GROWTH.items()):
        for value in values:
            now = {**BASE, name: value, "network": network}
            size, headings, batch_size = now["satellite_size"], now["heading_bins"], now.pop("batch_size")
            now |= {"panorama_size": (size // 2, size), "heading_bins": max(4, headings)}
            settings = ModelSettings(**now, ori_noise=0.0 if headings == 1 else 180.0)
            rivals = {
                "inference, s": partial(make_inference, settings, str(device), batch_size),
                "training step, s": partial(make_step, str(device), batch_size, settings),
            }
            seconds, results = race(rivals, repetitions, device)
            line = {"network": network, "quantity": name, "value": value, **seconds.median().to_dict()}
            lines.append(line | {"memory, GB": results["training step, s"][-1]})
            print(lines[-1], flush=True)
    print(pd.DataFrame(lines).to_string(index=False, float_format="{:.4g}".format))


def build_parser():
    parser, group = make_parser(__doc__, batch_size=4)
    group.add_argument("--steps", type=flags.COUNT, default=4, metavar="N", help="in one repetition, fed")
    at_least_two = flags.Number(int, least=2)
    group.add_argument("--panoramas", type=at_least_two, default=16, metavar="N", help="in each drawn city")
    group.add_argument("--compile", action="store_true", help="measure the compiled network too")
    group.add_argument("--growth", action="store_true", help="only measure how time and memory grow")
    group.add_argument("--profile", action="store_true", help="only print where the time of a step goes")
    workers = {"type": flags.COUNT_OR_NONE, "default": flags.CORES, "help": flags.NUM_WORKERS}
    group.add_argument("--num_workers", metavar="N", **workers)
    return parser


def main(args):
    device = pick_device(args.device)
    print(machine(device), flush=True)
    if args.profile:
        return profile_step(args, device)
    if args.growth:
        return measure_growth(device, args.repetitions)
    compare_steps(args, device)
    with tempfile.TemporaryDirectory() as folder:
        compare_feeds(args, device, folder)


if __name__ == "__main__":
    flags.run_script(main, build_parser())
