"""Seconds of inference: against plain eager PyTorch, and how time and memory grow with every size.

    python -m benchmarks.network
    python -m benchmarks.network --growth --output docs/growth.png
    python -m benchmarks.network --batch_size 64                                      # on a GPU

Networks have random weights, pairs are random pixels: neither time nor memory depends on them.
"""

import itertools
import multiprocessing
import resource
from unittest import mock

import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.measure import headline, machine, median, print_table, race, ratio, take_turns
from common import flags
from engine import run
from engine.batch import forward, normalise
from engine.evaluation.prediction import predict_batch
from loss.heatmap import gaussian_target, infonce
from model.matcher import build_model
from model.settings import ModelSettings

GROWTH = {  # what grows -> its values; everything else stays as in BASE
    "batch_size": (1, 2, 4, 8),
    "satellite_size": (128, 256, 384, 512),
    "matching_radius": (10, 20, 30, 40),
    "heading_bins": (1, 12, 24, 36),
}
BASE = {"batch_size": 4, "satellite_size": 256, "matching_radius": 20, "heading_bins": 1}
UNITS = {"batch_size": "pairs", "satellite_size": "px", "matching_radius": "m", "heading_bins": "headings"}


def draw_batch(B, satellite_size, panorama_size, device, seed=0):
    """A batch as the loader gives it, of random pixels, on the device."""
    draw = torch.Generator().manual_seed(seed)

    def pixels(*shape):
        return torch.randint(0, 256, (B, *shape), dtype=torch.uint8, generator=draw)

    batch = {
        "panorama": pixels(3, *panorama_size),
        "satellite": pixels(3, satellite_size, satellite_size),
        "mask": pixels(1, satellite_size, satellite_size),
        "position": torch.rand(B, 2, generator=draw) * satellite_size,
        "heading": torch.zeros(B),
        "metres_per_pixel": torch.full((B,), 0.113 * 640 / satellite_size),
        "index": torch.arange(B),
    }
    return {name: value.to(device) for name, value in batch.items()}


def plain_eager(model, batch):
    """Logits from a network in contiguous memory that is left there: what a straightforward implementation would compute."""
    panorama, satellite = (normalise(batch[name]).contiguous() for name in ("panorama", "satellite"))
    with mock.patch("model.decoder.join", lambda maps: torch.cat(maps, dim=1)):
        return model(panorama, satellite, batch["mask"].float() / 255, metres_per_pixel=batch["metres_per_pixel"]).logits


def synchronised(function, device):
    """The function, which returns when the device is done."""

    def call():
        result = function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return result

    return call


PLAIN = "plain eager float32, contiguous"


def make_inference(device, batch_size, plain):
    """A function that finds the places of its next batch: (B,) flat pixels of the maxima. Meant for a process of its own.

    plain: a straightforward network on PyTorch as it comes; else as eval_VIGOR.py predicts.
    """
    device = torch.device(device) if plain else run.pick_device(device)
    torch.manual_seed(0)
    model = build_model().to(device).eval()
    if plain:
        model = model.to(memory_format=torch.contiguous_format)
    batches = itertools.cycle([draw_batch(batch_size, 512, (320, 640), device, seed) for seed in range(4)])

    def infer():
        batch = next(batches)
        with torch.inference_mode():
            logits = plain_eager(model, batch) if plain else predict_batch(model, batch, temperature=0.1)[0].logits
        return logits.flatten(1).argmax(1).tolist()

    return infer


def inference_table(args, device):
    """Plain eager inference against that of eval_VIGOR.py, and how far their maxima lie apart."""
    rivals = {PLAIN: True, "eval_VIGOR.py": False}
    rivals = {name: (make_inference, str(device), args.batch_size, plain) for name, plain in rivals.items()}
    seconds, found = race(rivals, args.repetitions, device)
    rows = [("inference, published network at 512", "s a pair", "pairs/s", "plain eager / this")]
    a_pair = {name: value / args.batch_size for name, value in median(seconds).items()}
    for name, value in a_pair.items():
        rows.append((name, f"{value:.4f}", f"{1 / value:.2f}", f"{ratio(seconds, PLAIN, name):.2f} x"))
    print_table(rows)
    maxima = np.array([found[PLAIN], found["eval_VIGOR.py"]]).reshape(2, -1)
    apart = np.hypot(*np.diff(np.divmod(maxima, 512), axis=1)[:, 0])
    headline("inference against plain eager float32", f"{ratio(seconds, PLAIN, 'eval_VIGOR.py'):.2f} x")
    headline("inference of VIGOR's 52,605 test pairs", f"{52_605 * a_pair['eval_VIGOR.py'] / 60:.1f} min")
    headline("maxima within 1 px of plain eager float32's", f"{np.mean(apart <= 1):.0%} of {len(apart)} pairs")


def cost(settings, batch_size, device, repetitions):
    """(seconds of inference, seconds of a training step, most GB held) for a network; meant for a process of its own."""
    device = run.pick_device(device)
    model = build_model(settings).to(device)
    size = model.settings.satellite_size
    batch = draw_batch(batch_size, size, model.panorama_size, device)
    before = _held(device)

    def step():
        model.train().zero_grad(set_to_none=True)
        logits = forward(model, batch).logits
        infonce(logits, gaussian_target(batch["position"], size), 0.1).backward()

    @torch.inference_mode()
    def infer():
        forward(model.eval(), batch)

    seconds = median(take_turns({"infer": synchronised(infer, device), "step": synchronised(step, device)}, repetitions))
    return seconds["infer"], seconds["step"], _held(device) - before


def _held(device):
    """The most memory so far, in GB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def growth(args, device):
    """{what grows: [(value, seconds of inference, seconds of a step, GB)]}, each in a process of its own."""
    found = {}
    for name, values in GROWTH.items():
        found[name] = []
        for value in values:
            now = {**BASE, name: value}
            settings = ModelSettings(
                satellite_size=now["satellite_size"],
                panorama_size=(now["satellite_size"] // 2, now["satellite_size"]),
                matching="ground_plane",
                matching_radius=now["matching_radius"],
                ori_noise=0.0 if now["heading_bins"] == 1 else 180.0,
                heading_bins=max(4, now["heading_bins"]),
            )
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                figures = pool.apply(cost, (settings, now["batch_size"], str(device), args.repetitions))
            found[name].append((value, *figures))
            print(f"{name} {value}: inference {figures[0]:.3f} s, step {figures[1]:.3f} s, {figures[2]:.2f} GB", flush=True)
    return found


def growth_table(found):
    """Growth as a table: each size, seconds and memory beside it."""
    rows = [("what grows", "value", "inference, s", "training step, s", "memory, GB")]
    for name, points in found.items():
        rows += [(name, str(value), *(f"{figure:.2f}" for figure in figures)) for value, *figures in points]
    print_table(rows)


def draw_growth(found, path, title):
    """Growth as a picture: seconds to the left, memory dashed to the right."""
    figure = Figure(figsize=(3.4 * len(found), 3.2), layout="constrained")
    axes = figure.subplots(1, len(found))
    for ax, (name, points) in zip(axes, found.items(), strict=True):
        values, infer, step, held = zip(*points, strict=True)
        ax.plot(values, step, "o-", color="tab:blue", label="training step")
        ax.plot(values, infer, "s-", color="tab:green", label="inference")
        ax.set(xlabel=f"{name} ({UNITS[name]})", ylabel="seconds", ylim=(0, None), xticks=values)
        right = ax.twinx()
        right.plot(values, held, "^--", color="tab:orange", label="memory")
        right.set(ylabel="GB", ylim=(0, None))
    handles = axes[0].get_lines() + right.get_lines()
    figure.legend(handles, [line.get_label() for line in handles], loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(title, fontsize=9, x=0.01, ha="left")
    figure.savefig(path, dpi=130)
    print(path)


def build_parser():
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("measurement")
    group.add_argument("-b", "--batch_size", type=flags.COUNT, default=4, metavar="N", help="pairs in a batch")
    group.add_argument("--repetitions", type=flags.COUNT, default=5, metavar="N", help="of which medians are taken")
    group.add_argument("--growth", action="store_true", help="measure how cost grows, in place of the comparison")
    group.add_argument("--output", metavar="PNG", help="draw the growth as well")
    flags.add_device(parser.add_argument_group("machine"))
    return parser


def main(args):
    device = run.pick_device(args.device)
    on = machine(device)
    print(on, flush=True)
    if not args.growth:
        return inference_table(args, device)
    found = growth(args, device)
    growth_table(found)
    if args.output:
        draw_growth(found, args.output, f"ground-plane matching, {', '.join(f'{k} {v}' for k, v in BASE.items())}; {on}")


if __name__ == "__main__":
    flags.run_script(main, build_parser())
