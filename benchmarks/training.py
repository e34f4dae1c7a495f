"""Seconds of a training step: against plain eager PyTorch, by part, and fed by the loader against one repeated batch.

    python -m benchmarks.training
    python -m benchmarks.training --batch_size 64 --num_workers 16 --profile         # on a GPU

Networks have random weights and the published sizes; pairs are synthetic.
"""

import itertools
import statistics
import tempfile
import timeit
from functools import partial

import torch
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.loader import PUBLISHED, find_data, training_batches
from benchmarks.measure import compare, headline, machine, make_parser, race
from benchmarks.network import GROWING, PLAIN, build, draw_batch
from common import flags
from common.device import pick_device
from engine import run
from engine.batch import forward, normalise, to_device
from engine.training.loop import Objective, train_epoch
from engine.training.precision import PRECISIONS, Precision
from engine.training.state import Learner, Progress
from loss.criterion import Criterion
from model.settings import ModelSettings

GROUND_PLANE = ModelSettings(network="ground_plane")
FULL_RUN = 120 * 42_087  # pairs: 120 epochs of VIGOR's 52,609 same-area training pairs, less the fifth that is held out


def make_training(settings, device, *, plain=False, compiled=False, amp="auto", augment="none"):
    """(network, train): train(batches, steps) takes a new network so many updates further, as train_VIGOR.py does it.

    plain: as of `benchmarks.network.build`, and AdamW tensor by tensor.
    """
    model, device = build(settings, device, plain)
    if device.type == "cuda" and not plain:
        run.configure_gpu(tf32=True, deterministic=False)
    optimizer = torch.optim.AdamW(model.parameters(), **({"foreach": False} if plain else {"fused": True}))
    precision = Precision("off" if plain else amp, device)
    learner = Learner(model, torch.compile(model) if compiled else model, optimizer, precision)
    objective = Objective(Criterion("infonce", settings.temperature), precision, augment, settings.FoV)

    def train(batches, steps):
        learner.progress = Progress()
        train_epoch(learner, batches, objective, seed=0, steps=steps, learning_rate=lambda step: 1e-5)

    return model, train


def make_step(device, batch_size, settings, steps=1, **options):
    """A function that makes steps on the same batch again and again. For a race; options: of `make_training`."""
    model, train = make_training(settings, device, **options)
    return partial(train, itertools.repeat(draw_batch(model, batch_size)), steps)


def make_feed(root, cache_root, device, batch_size, workers, steps, repeated=False, settings=PUBLISHED, **options):
    """Steps from the loader's next batches, augmented, or from its first one `repeated`. For a race; options as above."""
    _, train = make_training(settings, device, augment="full", **options)
    device = pick_device(device)
    batches = training_batches(root, batch_size, settings, cache_root, workers, pin_memory=device.type == "cuda")
    return partial(train, itertools.repeat(to_device(next(batches), device)) if repeated else batches, steps)


def make_matching(device, batch_size, amp):
    """Ground-plane matching alone, forward and backward, on the features of a batch. For a race."""
    model, device = build(GROUND_PLANE, device)
    batch, autocast = draw_batch(model, batch_size), Precision(amp, device).autocast
    with torch.no_grad(), autocast():
        views = (model.panorama_backbone, batch["panorama"]), (model.satellite_backbone, batch["satellite"])
        features = [{s: x.requires_grad_() for s, x in backbone(normalise(image)).items()} for backbone, image in views]

    def work():
        model.zero_grad(set_to_none=True)
        with autocast():
            result = model.matching(*features, batch["metres_per_pixel"])
        sum(value.float().sum() for value in result.maps.values()).backward()

    return work


def steps_table(args, device):
    """Plain eager steps against train_VIGOR.py's, for both ways of matching; and the share of ground-plane matching."""
    step = partial(make_step, str(device), args.batch_size, amp=args.amp)
    rivals = {
        PLAIN: partial(step, PUBLISHED, plain=True),
        "train_VIGOR.py, published matching": partial(step, PUBLISHED),
        "train_VIGOR.py, ground-plane matching": partial(step, GROUND_PLANE),
        "ground-plane matching alone": partial(make_matching, str(device), args.batch_size, args.amp),
    }
    if args.compile:
        rivals["published matching, --compile"] = partial(step, PUBLISHED, compiled=True)
        rivals["ground-plane matching, --compile"] = partial(step, GROUND_PLANE, compiled=True)
    seconds, _ = race(rivals, args.repetitions, device)
    ratios = compare("training step at 512", seconds, args.batch_size)
    fastest = ratios.filter(like="published").idxmax()
    headline("training step against plain eager float32", f"{ratios[fastest]:.2f} x ({fastest})")
    share = (seconds["ground-plane matching alone"] / seconds["train_VIGOR.py, ground-plane matching"]).median()
    headline("ground-plane matching's share of its training step", f"{share:.0%}")
    dtype = torch.bfloat16 if Precision(args.amp, device).name == "bf16" else torch.float32
    reached, peak = step_flops(device) * args.batch_size / seconds[fastest].median(), matrix_peak(device, dtype)
    limit = f"{peak / 1e12:.2f} that a 4096 x 4096 {str(dtype).removeprefix('torch.')} product reaches"
    headline("published network's training step", f"{reached / 1e12:.2f} TFLOP/s, {reached / peak:.0%} of the {limit}")


def matrix_peak(device, dtype, side=4096):
    """FLOP/s that the device reaches in one large matrix product: the limit that a step is held against."""
    a, b = torch.randn(2, side, side, device=device, dtype=dtype)
    seconds = timeit.repeat(lambda: (a @ b)[0, 0].item(), number=1, repeat=5)  # reading a number waits for the device
    return 2 * side**3 / statistics.median(seconds)


def step_flops(device):
    """FLOP of the published network's convolutions and products in one step for one pair, two for a multiply-add.

    The backward pass takes twice those of the forward pass, as for every network whose inputs need no gradients.
    """
    model, _ = build(PUBLISHED, device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        forward(model.eval(), draw_batch(model, 1))
    return 3 * counter.get_total_flops()


def fed_table(args, device, folder):
    """Steps from the loader's next batches, augmented, against steps from the same batch again."""
    data = find_data(folder, workers=args.num_workers or 1, panoramas=args.panoramas)
    feed = partial(make_feed, *data, str(device), args.batch_size, args.num_workers, args.steps, amp=args.amp)
    rivals = {name: partial(feed, name == "repeated", compiled=args.compile) for name in ("repeated", "fed")}
    seconds, _ = race(rivals, args.repetitions, device)
    pairs = args.batch_size * args.steps
    headline("training fed by the loader against one repeated batch", f"{compare('batches', seconds, pairs)['fed']:.2f}")
    hours = FULL_RUN / pairs * seconds["fed"].median() / 3600
    headline(f"120 epochs of VIGOR's same-area list, {FULL_RUN:,} pairs", f"{hours:.0f} h; on 8 such, {hours / 8:.0f} h at best")


def small_table(args, device, folder):
    """Steps at 128 px and batches of 4, loader and augmentation included: the light network against ground-plane matching."""
    settings = {name: ModelSettings(network=name, satellite_size=128, panorama_size=(128, 256)) for name in GROWING}
    data = find_data(folder, settings=settings["light"], workers=args.num_workers or 1, panoramas=args.panoramas)
    feed = partial(make_feed, *data, str(device), 4, args.num_workers, 2 * args.steps, amp=args.amp)
    seconds, _ = race({name: partial(feed, settings=each) for name, each in settings.items()}, args.repetitions, device)
    steps = 2 * args.steps
    ratios = compare("training step at 128, fed by the loader", seconds, 4 * steps, "ms a step", 1000 / steps)
    headline("training step at 128, batch 4, light against ground_plane", f"{ratios['light']:.2f} x")


def profile_table(args, device):
    """Where the time of a step goes, by PyTorch's own profiler."""
    train = make_step(device, args.batch_size, PUBLISHED, steps=3, amp=args.amp, compiled=args.compile)
    train()
    with profile() as record:
        train()
    print(record.key_averages().table(sort_by=f"self_{device.type}_time_total", row_limit=15))


def build_parser():
    parser, group = make_parser(__doc__, batch_size=4)
    group.add_argument("--steps", type=flags.COUNT, default=4, metavar="N", help="in one repetition, fed or repeated")
    group.add_argument("--panoramas", type=flags.Number(int, least=2), default=16, metavar="N", help="in each city that feeds")
    group.add_argument("--amp", choices=PRECISIONS, default="auto", help="as of train_VIGOR.py")
    group.add_argument("--compile", action="store_true", help="measure the compiled network too")
    group.add_argument("--profile", action="store_true", help="only print where the time of a step goes")
    group = parser.add_argument_group("machine")
    group.add_argument("--num_workers", type=flags.COUNT_OR_NONE, default=flags.CORES, metavar="N", help=flags.NUM_WORKERS)
    flags.add_device(group)
    return parser


def main(args):
    device = pick_device(args.device)
    print(machine(device))
    if args.profile:
        return profile_table(args, device)
    steps_table(args, device)
    with tempfile.TemporaryDirectory() as folder:
        fed_table(args, device, folder)
        small_table(args, device, folder)


if __name__ == "__main__":
    flags.run_script(main, build_parser())
