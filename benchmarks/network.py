"""Seconds of inference: against plain eager PyTorch, network against network, and how time and memory grow with every size.

    python -m benchmarks.network
    python -m benchmarks.network --growth --output docs/growth.png
    python -m benchmarks.network --batch_size 64                                      # on a GPU

Networks have random weights, pairs are random pixels: neither time nor memory depends on them.
"""

import itertools
import resource
from functools import partial
from unittest import mock

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from benchmarks.measure import NUMBER, compare, headline, machine, make_parser, race
from common import flags
from common.device import pick_device
from engine import run
from engine.batch import forward, normalise
from engine.evaluation.prediction import predict_batch
from loss.criterion import Criterion
from model.build import build_model
from model.settings import ModelSettings

PLAIN = "plain eager float32, contiguous"
BASE = {"batch_size": 4, "satellite_size": 256, "matching_radius": 20, "heading_bins": 1}
GROWING = "ground_plane", "light"  # the networks that match on the ground
GROWTH = {  # what grows -> its unit and values; everything else stays as in BASE
    "batch_size": ("pairs", (1, 2, 4, 8)),
    "satellite_size": ("px", (128, 256, 384, 512)),
    "matching_radius": ("m", (10, 20, 30, 40)),
    "heading_bins": ("headings", (1, 12, 24, 36)),
}


def build(settings, device, plain=False):
    """(network with random weights, its device), as the project's scripts have them.

    plain: a straightforward implementation, on PyTorch as it comes, in contiguous memory that is left there and in true float32.
    That changes the whole process, which should therefore be the network's own.
    """
    torch.manual_seed(0)
    if not plain:
        device = pick_device(device)
        return build_model(settings).to(device), device
    mock.patch("model.decoder.join", partial(torch.cat, dim=1)).start()
    mock.patch("engine.batch.normalise", lambda image: normalise(image).contiguous()).start()
    device = torch.device(device)
    if device.type == "cuda":
        run.configure_gpu(tf32=False, deterministic=False)
    return build_model(settings).to(device, memory_format=torch.contiguous_format), device


def draw_batch(model, B, seed=0):
    """A batch of a network as the loader gives it, of random pixels, on the network's device."""
    draw, size = torch.Generator().manual_seed(seed), model.settings.satellite_size
    pixels = partial(torch.randint, 0, 256, dtype=torch.uint8, generator=draw)
    batch = {
        "panorama": pixels((B, 3, *model.view_size)),
        "satellite": pixels((B, 3, size, size)),
        "mask": pixels((B, 1, size, size)),
        "position": torch.rand(B, 2, generator=draw) * size,
        "heading": torch.zeros(B),
        "metres_per_pixel": torch.full((B,), 0.113 * 640 / size),
        "index": torch.arange(B),
    }
    return {name: value.to(next(model.parameters()).device) for name, value in batch.items()}


def make_inference(settings, device, batch_size, plain=False, calls=1):
    """A function that finds the places of its next batches: flat pixels of the last one's maxima, (B,). For a race.

    plain: as of `build` · calls: batches in one turn; more of them where one is so short that waking up would be measured.
    """
    model, _ = build(settings, device, plain)
    model.eval()
    batches = itertools.cycle([draw_batch(model, batch_size, seed) for seed in range(4)])

    def infer():
        for batch in itertools.islice(batches, calls):
            with torch.inference_mode():
                result = forward(model, batch) if plain else predict_batch(model, batch, settings.temperature)[0]
            found = result.logits.flatten(1).argmax(1).tolist()
        return found

    return infer


def inference_table(device, batch_size, repetitions):
    """Plain eager inference against that of eval_VIGOR.py, and how far their maxima lie apart."""
    ours = "eval_VIGOR.py"
    infer = partial(make_inference, ModelSettings(), str(device), batch_size)
    seconds, found = race({PLAIN: partial(infer, plain=True), ours: infer}, repetitions, device)
    ratios = compare("inference, published network at 512", seconds, batch_size, "s a pair", 1 / batch_size)
    maxima = np.array([found[PLAIN], found[ours]]).reshape(2, -1)
    apart = np.hypot(*np.diff(np.divmod(maxima, 512), axis=1)[:, 0])
    headline("inference against plain eager float32", f"{ratios[ours]:.2f} x")
    headline("inference of VIGOR's 52,605 test pairs", f"{52_605 * seconds[ours].median() / batch_size / 60:.1f} min")
    headline("maxima within 1 px of plain eager float32's", f"{np.mean(apart <= 1):.0%} of {len(apart)} pairs")


def networks_table(device, repetitions):
    """The light network against the one that matches on the ground too, at the sizes of mini-VIGOR's cache and of VIGOR."""
    for size, panorama_size, pairs in ((128, (128, 256), 96), (512, (320, 640), 8)):
        for batch_size in (1, 8):
            calls = pairs // batch_size
            settings = {name: ModelSettings(network=name, satellite_size=size, panorama_size=panorama_size) for name in GROWING}
            infer = partial(make_inference, device=str(device), batch_size=batch_size, calls=calls)
            rivals = {name: partial(infer, each) for name, each in settings.items()}
            seconds, _ = race(rivals, repetitions, device)
            ratios = compare(f"inference at {size}, batch {batch_size}", seconds, pairs, "ms a pair", 1000 / pairs)
            headline(f"inference at {size}, batch {batch_size}, light against ground_plane", f"{ratios['light']:.2f} x")


def make_gradients(settings, device, batch_size):
    """A function that goes forward and backward and gives the most GB held so far for it. For a race."""
    model, device = build(settings, device)
    batch, criterion, before = draw_batch(model, batch_size), Criterion("infonce", settings.temperature), _held(device)

    def work():
        model.zero_grad(set_to_none=True)
        criterion(forward(model, batch), batch)["loss"].backward()
        return _held(device) - before

    return work


def _held(device):
    """The most memory so far, in GB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def measure_growth(device, repetitions):
    """A row for each value of all that grows, for each network: seconds of inference and of a training step, GB of the latter."""
    rows = []
    for network, (name, (_, values)) in itertools.product(GROWING, GROWTH.items()):
        for value in values:
            now = {**BASE, name: value, "network": network}
            size, headings = now["satellite_size"], now["heading_bins"]
            turned = {"heading_bins": max(4, headings), "ori_noise": 0.0 if headings == 1 else 180.0}
            settings = ModelSettings.pick(now, {"panorama_size": (size // 2, size)}, turned)
            makers = {"inference, s": make_inference, "training step, s": make_gradients}
            rivals = {what: partial(make, settings, str(device), now["batch_size"]) for what, make in makers.items()}
            seconds, held = race(rivals, repetitions, device)
            figures = {**seconds.median(), "memory, GB": held["training step, s"][-1]}
            rows.append({"network": network, "what grows": name, "value": value, **figures})
            print(
                f"{network}, {name} {value}:", ", ".join(f"{what} {figure:.3f}" for what, figure in figures.items()), flush=True
            )
    return pd.DataFrame(rows)


def draw_growth(found, path, title):
    """Growth as a picture, a row for each network: seconds to the left, memory dashed to the right."""
    figure = Figure(figsize=(3.4 * len(GROWTH), 2.9 * len(GROWING)), layout="constrained")
    how = {"style": ["s-", "o-", "^--"], "color": ["tab:green", "tab:blue", "tab:orange"], "secondary_y": "memory, GB"}
    found = found.set_index("value").groupby(["network", "what grows"], sort=False)
    for ax, ((network, name), points) in zip(figure.subplots(len(GROWING), len(GROWTH)).flat, found, strict=True):
        points.drop(columns=["network", "what grows"]).plot(**how, mark_right=False, ax=ax, legend=False)
        ax.set(xlabel=f"{name} ({GROWTH[name][0]})", ylabel="seconds", ylim=(0, None), xticks=points.index, title=network)
        ax.right_ax.set(ylabel="GB", ylim=(0, None))
    lines = [*ax.get_lines(), *ax.right_ax.get_lines()]
    figure.legend(lines, [line.get_label() for line in lines], loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(title, fontsize=9, x=0.01, ha="left")
    figure.savefig(path, dpi=130)
    print(path)


def build_parser():
    parser, group = make_parser(__doc__, batch_size=4)
    group.add_argument("--growth", action="store_true", help="measure how cost grows, in place of the comparison")
    group.add_argument("--output", metavar="PNG", help="draw the growth as well")
    flags.add_device(parser.add_argument_group("machine"))
    return parser


def main(args):
    device = pick_device(args.device)
    on = machine(device)
    print(on, flush=True)
    if not args.growth:
        inference_table(device, args.batch_size, args.repetitions)
        return networks_table(device, args.repetitions)
    found = measure_growth(device, args.repetitions)
    print(found.to_string(index=False, float_format=NUMBER))
    if args.output:
        draw_growth(found, args.output, f"{', '.join(f'{k} {v}' for k, v in BASE.items())}; {on}")


if __name__ == "__main__":
    flags.run_script(main, build_parser())
