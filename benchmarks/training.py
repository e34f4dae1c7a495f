"""Seconds of a training step: against plain eager PyTorch, by part, and fed by the loader against one repeated batch.

    python -m benchmarks.training
    python -m benchmarks.training --batch_size 64 --num_workers 16 --profile         # on a GPU

Networks have random weights and the published sizes; pairs are synthetic.
"""

import copy
import tempfile
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import headline, machine, median, print_table, race, ratio, take_turns
from benchmarks.network import PLAIN, draw_batch, plain_eager, synchronised
from common import flags
from dataset import cache
from dataset.augment import augment
from dataset.index import load_index
from dataset.loader import training_loader
from dataset.mini_vigor.writer import make
from dataset.vigor import VigorDataset
from engine import run
from engine.batch import forward, to_device
from engine.training.precision import Precision
from loss.heatmap import gaussian_target, infonce
from model.matcher import build_model
from model.settings import ModelSettings

PUBLISHED, GROUND_PLANE = ModelSettings(), ModelSettings(matching="ground_plane")
FULL_RUN = 120 * 42_087  # pairs: 120 epochs of VIGOR's 52,609 same-area training pairs, less the fifth that is held out


def make_step(settings, device, *, plain=False, compiled=False, amp="auto", augmented=False):
    """(network, step): step(batch) is one update of a new network from a batch on the device.

    plain: float32 in contiguous memory, and AdamW tensor by tensor; else as train_VIGOR.py does it.
    """
    torch.manual_seed(0)
    model = build_model(settings).to(device).train()
    if plain:
        model = model.to(memory_format=torch.contiguous_format)
    if device.type == "cuda":
        run.configure_gpu(tf32=not plain, deterministic=False)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-5, **({"foreach": False} if plain else {"fused": True}))
    precision = Precision("off" if plain else amp, device)
    network = torch.compile(model) if compiled else model

    def step(batch):
        optimizer.zero_grad(set_to_none=True)
        batch = augment(batch, "full") if augmented else batch
        with precision.autocast():
            logits = plain_eager(network, batch) if plain else forward(network, batch).logits
        loss = infonce(logits, gaussian_target(batch["position"], logits.shape[-1]), 0.1)
        precision.scaler.scale(loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        precision.scaler.step(optimizer)
        precision.scaler.update()

    return model, step


def make_repeated_step(settings, device, batch_size, options):
    """A step on the same batch again and again, without arguments. Meant for a process of its own; options: of `make_step`."""
    device = torch.device(device) if options.get("plain") else run.pick_device(device)
    step = make_step(settings, device, **options)[1]
    batch = draw_batch(batch_size, 512, (320, 640), device)
    return synchronised(lambda: step(batch), device)


def make_matching(device, batch_size, amp):
    """Ground-plane matching alone, forward and backward, on the features of a batch. Meant for a process of its own."""
    device = run.pick_device(device)
    model, _ = make_step(GROUND_PLANE, device)
    inputs, autocast = {}, Precision(amp, device).autocast
    hook = model.matching.register_forward_pre_hook(lambda module, args: inputs.update(args=args))
    with torch.no_grad(), autocast():
        forward(model, draw_batch(batch_size, 512, (320, 640), device))
    hook.remove()
    *features, metres_per_pixel = inputs["args"]
    features = [{key: value.detach().requires_grad_() for key, value in view.items()} for view in features]

    def work():
        model.matching.zero_grad(set_to_none=True)
        with autocast():
            result = model.matching(*features, metres_per_pixel)
        sum(value.float().sum() for value in result.maps.values()).backward()

    return synchronised(work, device)


def steps_table(args, device):
    """Plain eager steps against train_VIGOR.py's, for both ways of matching; and the share of ground-plane matching."""

    def rival(settings, **options):
        return make_repeated_step, settings, str(device), args.batch_size, options

    rivals = {
        PLAIN: rival(PUBLISHED, plain=True),
        "train_VIGOR.py, published matching": rival(PUBLISHED, amp=args.amp),
        "train_VIGOR.py, ground-plane matching": rival(GROUND_PLANE, amp=args.amp),
        "ground-plane matching alone": (make_matching, str(device), args.batch_size, args.amp),
    }
    if args.compile:
        rivals["published matching, --compile"] = rival(PUBLISHED, amp=args.amp, compiled=True)
        rivals["ground-plane matching, --compile"] = rival(GROUND_PLANE, amp=args.amp, compiled=True)
    seconds, _ = race(rivals, args.repetitions, device)
    rows = [("training step at 512", "s", "pairs/s", "plain eager / this")]
    for name, value in median(seconds).items():
        rows.append((name, f"{value:.3f}", f"{args.batch_size / value:.2f}", f"{ratio(seconds, PLAIN, name):.2f} x"))
    print_table(rows)
    fastest = max((name for name in rivals if "published" in name), key=lambda name: ratio(seconds, PLAIN, name))
    headline("training step against plain eager float32", f"{ratio(seconds, PLAIN, fastest):.2f} x ({fastest})")
    share = ratio(seconds, "ground-plane matching alone", "train_VIGOR.py, ground-plane matching")
    headline("ground-plane matching's share of its training step", f"{share:.0%}")
    dtype = torch.bfloat16 if Precision(args.amp, device).name == "bf16" else torch.float32
    reached, peak = step_flops(device) * args.batch_size / median(seconds)[fastest], matrix_peak(device, dtype)
    limit = f"{peak / 1e12:.2f} that a 4096 x 4096 {str(dtype).removeprefix('torch.')} product reaches"
    headline("published network's training step", f"{reached / 1e12:.2f} TFLOP/s, {reached / peak:.0%} of the {limit}")


def matrix_peak(device, dtype, side=4096):
    """FLOP/s that the device reaches in one large matrix product: the limit that a step is held against."""
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    seconds = median(take_turns({"product": synchronised(lambda: a @ b, device)}, 5, warm_up=2))["product"]
    return 2 * side**3 / seconds


def step_flops(device):
    """FLOP of the published network's convolutions and products in one step for one pair, two for a multiply-add.

    The backward pass takes twice those of the forward pass, as for every network whose inputs need no gradients.
    """
    model = build_model().to(device).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        forward(model, draw_batch(1, 512, (320, 640), device))
    return 3 * counter.get_total_flops()


def fed_table(args, device, folder):
    """A step from the loader's next batch, augmented, against a step from the same batch again."""
    root = make(Path(folder, "vigor"), panoramas=args.panoramas, workers=args.num_workers or 1, progress=False)
    cache_root, sizes = Path(folder, "cache"), {"satellite_size": 512, "panorama_size": (320, 640), "use_mask": True}
    cache.make_cache(root, cache_root, **sizes, quality=95, workers=args.num_workers or 1)
    dataset = VigorDataset(load_index(root), **sizes, training=True, cache_root=cache_root)
    loader, sampler = training_loader(dataset, args.batch_size, 0, args.num_workers, pin_memory=device.type == "cuda")
    step = make_step(PUBLISHED, device, amp=args.amp, compiled=args.compile, augmented=True)[1]

    def endless():
        while True:
            yield from loader
            sampler.epoch += 1

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
    speeds = {name: pairs / value for name, value in median(seconds).items()}
    print_table([("batches", "pairs/s"), *((name, f"{speed:.2f}") for name, speed in speeds.items())])
    headline("training fed by the loader against one repeated batch", f"{ratio(seconds, 'repeated', 'fed'):.2f}")
    hours = FULL_RUN / speeds["fed"] / 3600
    headline(f"120 epochs of VIGOR's same-area list, {FULL_RUN:,} pairs", f"{hours:.0f} h; on 8 such, {hours / 8:.0f} h at best")


def profile_table(args, device):
    """Where the time of a step goes, by PyTorch's own profiler."""
    batch = draw_batch(args.batch_size, 512, (320, 640), device)
    step = make_step(PUBLISHED, device, amp=args.amp, compiled=args.compile)[1]
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
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("measurement")
    group.add_argument("-b", "--batch_size", type=flags.COUNT, default=4, metavar="N", help="pairs in a batch")
    group.add_argument("--repetitions", type=flags.COUNT, default=5, metavar="N", help="of which medians are taken")
    group.add_argument("--steps", type=flags.COUNT, default=4, metavar="N", help="in one repetition, fed or repeated")
    group.add_argument("--panoramas", type=flags.Number(int, least=2), default=16, metavar="N", help="in each city that feeds")
    group.add_argument("--amp", choices=("auto", "bf16", "fp16", "off"), default="auto", help="as of train_VIGOR.py")
    group.add_argument("--compile", action="store_true", help="measure the compiled network too")
    group.add_argument("--profile", action="store_true", help="only print where the time of a step goes")
    group = parser.add_argument_group("machine")
    group.add_argument("--num_workers", type=flags.COUNT_OR_NONE, default=flags.cores(), metavar="N", help=flags.NUM_WORKERS)
    flags.add_device(group)
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
    flags.run_script(main, build_parser())
