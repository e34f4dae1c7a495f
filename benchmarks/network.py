"""Seconds of inference: against plain eager PyTorch, and the light network against the ground_plane network.

    python -m benchmarks.network
    python -m benchmarks.network --batch_size 64                                      # on a GPU

Networks have random weights and images random pixels: neither time nor memory depends on them.
"""

import itertools
from functools import partial

import numpy as np
import torch

from benchmarks.measure import compare, headline, machine, make_parser, race
from common import flags
from common.device import pick_device
from engine import run
from engine.batch import forward
from engine.evaluation.prediction import predict_batch
from model.build import build_model
from model.settings import ModelSettings

PLAIN = "plain eager float32, contiguous"
GROUND = "ground_plane", "light"  # the networks that match on the ground


def build(settings, device, plain=False):
    """(network with random weights, its device), as the project's scripts build it.

    plain: a straightforward implementation instead: contiguous memory before every convolution, and float32
    products in full precision. This setting holds for the whole process.
    """
    torch.manual_seed(0)
    device = torch.device(device) if plain else pick_device(device)
    model = build_model(settings).to(device)
    if plain:
        if device.type == "cuda":
            run.configure_gpu(tf32=False, deterministic=False)
        model.to(memory_format=torch.contiguous_format)
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.register_forward_pre_hook(lambda module, inputs: inputs[0].contiguous())
    return model, device


def draw_batch(model, B, seed=0):
    """A batch as the loader gives it, of random pixels, on the network's device."""
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
    """Builds, for a race, a function that predicts for the next batches and returns the last one's maxima.

    Maxima are flat pixels, (B,). calls: batches in one call; use several if a batch takes milliseconds.
    """
    model, _ = build(settings, device, plain)
    model.eval()
    batches = itertools.cycle([draw_batch(model, batch_size, seed) for seed in range(4)])

    def infer():
        for batch in itertools.islice(batches, calls):
            with torch.inference_mode():
                found = (
                    forward(model, batch) if plain else predict_batch(model, batch, settings.temperature)[0]
                )
            maxima = found.logits.flatten(1).argmax(1).tolist()
        return maxima

    return infer


def compare_with_plain(device, batch_size, repetitions):
    """Inference of eval_VIGOR.py against plain eager inference, and the distance between their maxima."""
    ours = "eval_VIGOR.py"
    infer = partial(make_inference, ModelSettings(), str(device), batch_size)
    seconds, found = race({PLAIN: partial(infer, plain=True), ours: infer}, repetitions, device)
    speedup = compare("inference, published network at 512", seconds, batch_size)
    maxima = np.array([found[PLAIN], found[ours]]).reshape(2, -1)
    apart = np.hypot(*np.diff(np.divmod(maxima, 512), axis=1)[:, 0])
    headline("inference against plain eager float32", f"{speedup[ours]:.2f} x")
    headline("VIGOR's 52,605 test pairs", f"{52_605 * seconds[ours].median() / batch_size / 60:.1f} min")
    headline("maxima within 1 px of plain eager float32", f"{np.mean(apart <= 1):.0%} of {len(apart)} pairs")


def compare_networks(device, repetitions):
    """The light against the ground_plane network, at the sizes of mini-VIGOR's cache and at VIGOR's."""
    for size, panorama_size, pairs in ((128, (128, 256), 96), (512, (320, 640), 8)):
        for batch_size in (1, 8):
            sizes = {"satellite_size": size, "panorama_size": panorama_size}
            rest = {"device": str(device), "batch_size": batch_size, "calls": pairs // batch_size}
            rivals = {
                name: partial(make_inference, ModelSettings(network=name, **sizes), **rest) for name in GROUND
            }
            title = f"inference at {size}, batch {batch_size}"
            speedup = compare(title, race(rivals, repetitions, device)[0], pairs)
            headline(f"{title}, light against ground_plane", f"{speedup['light']:.2f} x")


def build_parser():
    return make_parser(__doc__, batch_size=4)[0]


def main(args):
    device = pick_device(args.device)
    print(machine(device), flush=True)
    compare_with_plain(device, args.batch_size, args.repetitions)
    compare_networks(device, args.repetitions)


if __name__ == "__main__":
    flags.run_script(main, build_parser())
