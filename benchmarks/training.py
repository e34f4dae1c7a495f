"""Seconds of a training step: against plain eager PyTorch, by part, and fed by the loader against one repeated batch.

    python -m benchmarks.training
    python -m benchmarks.training --batch_size 64 --num_workers 16 --profile         # on a GPU

Networks have random weights and the published sizes; pairs are synthetic.
"""

import copy
import tempfile
from pathlib import Path

import torch

from benchmarks.measure import machine, median, print_table, ratio, take_turns
from benchmarks.network import draw_batch, plain_eager, synchronised
from dataset import cache, mini_vigor
from dataset.augment import augment
from dataset.index import load_index
from dataset.loader import training_loader
from dataset.vigor import VigorDataset
from engine import options, run
from engine.batch import forward, to_device
from engine.training import Precision
from loss.heatmap import gaussian_target, infonce
from model import build_model


def make_step(settings, device, *, fast, compiled=False, amp="auto", augmented=False):
    """step(batch): one update of a new network from a batch on the device.

    fast: as train_VIGOR.py does it; otherwise float32 in contiguous memory, and AdamW tensor by tensor.
    """
    torch.manual_seed(0)
    model = build_model(settings).to(device).train()
    if not fast:
        model = model.to(memory_format=torch.contiguous_format)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-5, **({"fused": True} if fast else {"foreach": False}))
    precision = Precision(amp if fast else "off", device)
    network = torch.compile(model) if compiled else model

    def step(batch):
        if device.type == "cuda":
            run.configure_gpu(tf32=fast, deterministic=False)
        optimizer.zero_grad(set_to_none=True)
        batch = augment(batch, "full") if augmented else batch
        with precision.autocast():
            logits = forward(network, batch).logits if fast else plain_eager(network, batch)
        loss = infonce(logits, gaussian_target(batch["position"], logits.shape[-1]))
        precision.scaler.scale(loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        precision.scaler.step(optimizer)
        precision.scaler.update()
        return loss

    step.model = model
    return step


def matching_alone(step, batch):
    """A function that runs only ground-plane matching, forward and backward, on the features of a batch."""
    model, inputs = step.model, {}
    hook = model.matching.register_forward_pre_hook(lambda module, args: inputs.update(args=args))
    with torch.no_grad():
        forward(model, batch)
    hook.remove()
    *features, metres_per_pixel = inputs["args"]
    features = [{key: value.detach().requires_grad_() for key, value in view.items()} for view in features]

    def work():
        model.matching.zero_grad(set_to_none=True)
        result = model.matching(*features, metres_per_pixel)
        sum(value.sum() for value in result.maps.values()).backward()

    return work


def steps_table(args, device):
    """Plain eager steps against train_VIGOR.py's, for both ways of matching; and the share of ground-plane matching."""
    batch = draw_batch(args.batch_size, 512, (320, 640), device)
    ways = {name: make_step({"matching": name}, device, fast=True, amp=args.amp) for name in ("published", "ground_plane")}
    rivals = {"plain eager float32, contiguous": make_step({}, device, fast=False)}
    rivals |= {f"{name} matching": way for name, way in ways.items()}
    if args.compile:
        rivals["published matching, compiled"] = make_step({}, device, fast=True, compiled=True, amp=args.amp)
    tasks = {name: synchronised(lambda step=step: step(batch), device) for name, step in rivals.items()}
    tasks["ground-plane matching alone"] = synchronised(matching_alone(ways["ground_plane"], batch), device)
    seconds = take_turns(tasks, args.repetitions)
    rows = [("training step", "s", "pairs/s", "plain eager / this")]
    for name, value in median(seconds).items():
        gain = ratio(seconds, "plain eager float32, contiguous", name)
        rows.append((name, f"{value:.3f}", f"{args.batch_size / value:.2f}", f"{gain:.2f} x"))
    print_table(rows)
    share = ratio(seconds, "ground-plane matching alone", "ground_plane matching")
    print(f"ground-plane matching is {share:.0%} of its training step\n", flush=True)


def fed_table(args, device, folder):
    """A step from the loader's next batch, augmented, against a step from the same batch again."""
    root = mini_vigor.make(Path(folder, "vigor"), panoramas=args.panoramas, workers=args.num_workers or 1, progress=False)
    cache_root, sizes = Path(folder, "cache"), {"satellite_size": 512, "panorama_size": (320, 640), "use_mask": True}
    cache.make_cache(root, cache_root, **sizes, quality=95, workers=args.num_workers or 1)
    dataset = VigorDataset(load_index(root), **sizes, training=True, cache_root=cache_root)
    loader, batches = training_loader(dataset, args.batch_size, 0, args.num_workers, pin_memory=device.type == "cuda")
    step = make_step({}, device, fast=True, amp=args.amp, compiled=args.compile, augmented=True)

    def endless():
        while True:
            yield from loader
            batches.epoch += 1

    stream = endless()
    first = to_device(copy.copy(next(stream)), device)

    def repeated():
        for _ in range(args.steps):
            step(first)

    def fed():
        for _ in range(args.steps):
            step(to_device(next(stream), device))

    seconds = take_turns({"fed": synchronised(fed, device), "repeated": synchronised(repeated, device)}, args.repetitions)
    pairs = args.batch_size * args.steps
    rows = [("batches", "pairs/s")]
    rows += [(name, f"{pairs / value:.2f}") for name, value in median(seconds).items()]
    print_table(rows)
    print(f"fed by the loader, training runs at {ratio(seconds, 'repeated', 'fed'):.2f} of the speed on one repeated batch\n")


def profile_table(args, device):
    """Where the time of a step goes, by PyTorch's own profiler."""
    from torch.profiler import ProfilerActivity, profile

    batch = draw_batch(args.batch_size, 512, (320, 640), device)
    step = make_step({}, device, fast=True, amp=args.amp, compiled=args.compile)
    for _ in range(3):
        step(batch)
    on_gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu) as record:
        for _ in range(3):
            step(batch)
        if on_gpu:
            torch.cuda.synchronize(device)
    print(record.key_averages().table(sort_by=f"self_{'cuda' if on_gpu else 'cpu'}_time_total", row_limit=15))


def build_parser():
    parser = options.make_parser(__doc__.split("\n")[0], __doc__.split("\n\n")[1])
    group = parser.add_argument_group("measurement")
    group.add_argument("-b", "--batch_size", type=options.at_least(1), default=4, metavar="N", help="pairs in a batch")
    group.add_argument("--repetitions", type=options.at_least(1), default=5, metavar="N", help="of which medians are taken")
    group.add_argument("--steps", type=options.at_least(1), default=4, metavar="N", help="in one repetition, fed or repeated")
    group.add_argument("--panoramas", type=options.at_least(2), default=16, metavar="N", help="in each city that feeds")
    group.add_argument("--amp", choices=("auto", "bf16", "fp16", "off"), default="auto", help="as of train_VIGOR.py")
    group.add_argument("--compile", action="store_true", help="measure the compiled network too")
    group.add_argument("--profile", action="store_true", help="only print where the time of a step goes")
    options.add_machine(parser)
    return parser


def main(args):
    device = run.pick_device(args.device)
    print(machine(device))
    if args.profile:
        return profile_table(args, device)
    steps_table(args, device)
    with tempfile.TemporaryDirectory() as folder:
        fed_table(args, device, folder)


if __name__ == "__main__":
    options.run_script(main, build_parser(), (run.RunError,))
