"""Output of a training run: a progress bar or plain lines, TensorBoard, and text files."""

import resource
import sys
import threading
import time
from collections import deque
from contextlib import contextmanager

import pandas as pd
import torch
from tqdm import tqdm

from common.files import Unwritable, replacing
from common.geometry import REFERENCE_PX
from common.words import counted
from dataset.index import cities_unlike_vigor
from model.checkpoint import BEST

UNLABELLED = "--labels none: keeps the epoch in which the eight forms of a pair disagree least"
UNCHECKED = (
    "Without labels, it is unknown whether the network has become better. To find out, label some "
    "panoramas and run eval_VIGOR.py with both networks"
)
INEXACT = (
    "labels are not exact: against them, a perfect network has a median validation error of {:.2g} m; "
    "differences below that mean nothing"
)
PLAIN_SECONDS = 10.0  # between lines where the output is no terminal
TEST_PROTOCOL = (
    "--val_on test: the test list selects the best epoch and ends training, as in the thesis, so errors of "
    "best.pt on it are too good to compare with other networks'"
)
SLOW_ON_CPU = (
    "no GPU: at {} px a CPU needs seconds for each pair. --network light --satellite_size 128 "
    "--panorama_size 128 256 --batch_size 4 --epochs 8, as in make demo, learns in minutes"
)


class TrainingLog:
    """Shows the progress of training and writes TensorBoard's files to `folder`; does nothing without one.

    first_step: the run's step where this process starts; TensorBoard hides points of later steps.
    log_every: steps between points; pairs: global batch size.
    """

    def __init__(self, folder, first_step, log_every, pairs):
        self.log_every, self.pairs, self.board = log_every, pairs, None
        self.active = folder is not None
        if self.active:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(folder, purge_step=first_step)
            threading.excepthook = _tell_no_lack_of_room
        self.bar = None

    def begin_epoch(self, name, done, steps):
        """A new bar of this name; an earlier process has done `done` of the epoch's `steps`."""
        self.plain = not sys.stderr.isatty()
        self.name, self.steps, self.done = name, steps, done
        self.printed = time.perf_counter()
        self.times = deque([self.printed], maxlen=50)  # the speed is averaged over the last steps
        shown = {"initial": done, "total": steps, "leave": False, "disable": self.plain or not self.active}
        self.bar = tqdm(desc=name, unit="step", **shown)

    def step(self, run_step, values):
        """After a step. values: its losses, gradient norm and learning rate."""
        self.done += 1
        if not self.active:
            return
        now = time.perf_counter()
        self.times.append(now)
        rate = (len(self.times) - 1) * self.pairs / (now - self.times[0])
        self.bar.set_postfix(loss=f"{values.get('loss', 0):.3f}", pairs_per_s=f"{rate:.1f}", refresh=False)
        self.bar.update()
        if self.plain and now - self.printed >= PLAIN_SECONDS:
            self.printed = now
            left = tqdm.format_interval((self.steps - self.done) * self.pairs / rate)
            shown = f"loss {values.get('loss', 0):.3f}, {rate:.1f} pairs/s, {left} left of the epoch"
            print(f"{self.name}, step {self.done} of {self.steps}: {shown}", file=sys.stderr, flush=True)
        if run_step % self.log_every == 0:
            speed = {"speed/pairs_per_second": rate, "speed/memory_gib": memory_gib()}
            self._write_scalars({f"train/{name}": value for name, value in values.items()} | speed, run_step)

    def end_epoch(self):
        """Remove the bar."""
        self.bar.close()

    def validation(self, run_step, errors, figure):
        """Validation errors by name, and a figure or None."""
        self._write_scalars({f"validation/{name}": value for name, value in errors.items()}, run_step)
        if figure is not None:
            self._write(lambda board: board.add_figure("validation/heat_maps", figure, run_step))
        self._write(lambda board: board.flush())

    def close(self):
        """Flush and close TensorBoard's files."""
        self._write(lambda board: board.close())

    def _write_scalars(self, values, run_step):
        for name, value in values.items():
            self._write(lambda board, name=name, value=value: board.add_scalar(name, value, run_step))

    def _write(self, action):
        if self.board is None:
            return
        try:
            action(self.board)
        except OSError as error:  # a run goes on without its curves
            self.board = None
            says = f"TensorBoard's file cannot be written ({error.strerror}); training goes on without it"
            print(says, file=sys.stderr)


def _tell_no_lack_of_room(error):
    """Leaves out the traceback of TensorBoard's thread on a full disk: `TrainingLog` prints a line."""
    if not isinstance(error.exc_value, OSError):
        threading.__excepthook__(error)


def opening_lines(trainer, resumed):
    """A run's settings, line by line."""
    settings, state, data = trainer.settings, trainer.state, trainer.data
    optimisation, network = settings.optimisation, settings.network
    millions = sum(p.numel() for p in state.network.parameters()) / 1e6
    size = f"{network.network} network, {millions:.{1 if millions > 1 else 3}f} M parameters"
    yield f"{trainer.folder}: {size}, on {trainer.device} in precision {state.precision.name}"
    val_on, area = settings.validation.val_on, settings.lists.area
    pairs = counted(len(data.train_set), "training pair")
    pairs += f" and {counted(len(data.val_set), 'validation pair')} ({val_on})"
    yield f"{pairs} of {settings.source.dataset_root}"
    for what, dataset, split in (("training", data.train_set, "train"), ("validation", data.val_set, val_on)):
        if cities := cities_unlike_vigor(dataset.index, area, split):
            yield f"{what} pairs are of {', '.join(cities)}"
    batch = f"global batch {trainer.global_batch} = {settings.machine.batch_size} pairs x "
    batch += f"{trainer.processes} process(es) x {optimisation.accumulate} accumulated"
    yield f"{trainer.steps} steps an epoch, {batch}, learning rate {optimisation.learning_rate:g}"
    if network.use_mixstyle and network.mixstyle_mix == "crossdomain":
        left = f"{data.sampler.left_over} of {len(data.train_set)} pairs an epoch"
        yield f"crossdomain: batches of two cities, half of each; {left} are left over, mixed as random does"
    if val_on == "test":
        yield TEST_PROTOCOL
    if settings.unlabelled:
        yield UNLABELLED
    elif median := trainer.labels_median_m:
        yield INEXACT.format(median)
    if trainer.device.type == "cpu" and settings.view.satellite_size > 256:
        yield SLOW_ON_CPU.format(settings.view.satellite_size)
    if resumed:
        yield f"resumed at epoch {state.progress.number}, step {state.progress.step}"


def closing_lines(trainer):
    """A run's result, line by line."""
    progress, validation, source = trainer.state.progress, trainer.validation, trainer.settings.source
    if progress.since_best >= validation.patience:
        yield f"stopped early: {validation.patience} validations without a gain of {validation.min_delta} px"
    if trainer.settings.unlabelled:
        yield f"least disagreement of the eight forms: {progress.best:.3f} nats. {UNCHECKED}"
    else:
        yield f"best mean validation error: {progress.best:.2f} px at {REFERENCE_PX}"
    cache = f" --cache_root {source.cache_root}" if source.cache_root else ""
    data = f"--dataset_root {source.dataset_root}{cache}"
    yield f"evaluate with: python eval_VIGOR.py --model_path {trainer.folder / BEST} {data}"


def write_log(folder, rows):
    """training_log.csv: one row an epoch; columns of epochs without a validation stay empty."""
    with _tolerating(folder / "training_log.csv") as beside:
        pd.DataFrame(rows).to_csv(beside, index=False, float_format="%.6g")


def write_non_finite(path, error, names):
    """A NonFiniteLoss as text: where and when, every value, and the samples by name."""
    lines = [f"{name}: {value}" for name, value in error.values.items()]
    lines += ["samples:", *(f"  {name}" for name in names)]
    with _tolerating(path) as beside:
        beside.write_text("\n".join(lines) + "\n", "utf-8")


@contextmanager
def _tolerating(path):
    """`replacing`, but a failure, such as a full disk, is only printed, since a run can do without these."""
    try:
        with replacing(path) as beside:
            yield beside
    except Unwritable as error:
        print(f"{path} cannot be written: {error.reason}", file=sys.stderr, flush=True)


def memory_gib():
    """The peak memory of this process: the GPU's if there is one, else the computer's."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts KiB
