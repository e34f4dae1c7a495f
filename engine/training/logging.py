"""What one sees of a training run: a progress bar or plain lines, TensorBoard, and what is written down."""

import resource
import sys
import time
from collections import deque
from contextlib import contextmanager

import pandas as pd
import torch
from tqdm import tqdm

from common.files import replacing

PLAIN_SECONDS = 10.0  # between lines where the output is no terminal


class TrainingLog:
    """Shows training as it goes and writes TensorBoard's files into `folder`; with folder None (not rank 0) it does nothing.

    first_step: of the run, where this process starts; what TensorBoard has from later steps is hidden · log_every: steps
    between points · pairs: in one step, over all processes.
    """

    def __init__(self, folder, first_step, log_every, pairs):
        self.log_every, self.pairs, self.board = log_every, pairs, None
        self.active = folder is not None
        if self.active:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(folder, purge_step=first_step)
        self.bar = None

    def begin_epoch(self, name, done, steps):
        """A new bar of this name; `done` of the epoch's `steps` have been taken by an earlier process."""
        self.plain = not sys.stderr.isatty()
        self.name, self.steps, self.done = name, steps, done
        self.told = time.perf_counter()
        self.times = deque([self.told], maxlen=50)  # the speed shown is that of the last steps
        shown = {"initial": done, "total": steps, "leave": False, "disable": self.plain or not self.active}
        self.bar = tqdm(desc=name, unit="step", **shown)

    def step(self, run_step, values):
        """After a step: `values` holds its losses, gradient norm and learning rate."""
        self.done += 1
        if not self.active:
            return
        now = time.perf_counter()
        self.times.append(now)
        rate = (len(self.times) - 1) * self.pairs / (now - self.times[0])
        self.bar.set_postfix(loss=f"{values.get('loss', 0):.3f}", pairs_per_s=f"{rate:.1f}", refresh=False)
        self.bar.update()
        if self.plain and now - self.told >= PLAIN_SECONDS:
            self.told = now
            left = tqdm.format_interval((self.steps - self.done) * self.pairs / rate)
            shown = f"loss {values.get('loss', 0):.3f}, {rate:.1f} pairs/s, {left} left of the epoch"
            print(f"{self.name}, step {self.done} of {self.steps}: {shown}", file=sys.stderr, flush=True)
        if run_step % self.log_every == 0:
            points = {f"train/{name}": value for name, value in values.items()}
            self._write_scalars(points | {"speed/pairs_per_second": rate, "speed/memory_gib": memory_gib()}, run_step)

    def end_epoch(self):
        """Take the bar away."""
        self.bar.close()

    def validation(self, run_step, errors, figure):
        """Validation errors by name, and a figure or None."""
        self._write_scalars({f"validation/{name}": value for name, value in errors.items()}, run_step)
        if figure is not None:
            self._write(lambda board: board.add_figure("validation/heat_maps", figure, run_step))
        self._write(lambda board: board.flush())

    def close(self):
        """Write out what TensorBoard still holds back."""
        self._write(lambda board: board.close())

    def _write_scalars(self, values, run_step):
        for name, value in values.items():
            self._write(lambda board, name=name, value=value: board.add_scalar(name, value, run_step))

    def _write(self, action):
        if self.board is None:
            return
        try:
            action(self.board)
        except OSError as error:  # curves are not worth a run
            self.board = None
            print(f"TensorBoard's file cannot be written ({error.strerror}); training goes on without it", file=sys.stderr)


def write_log(folder, rows):
    """training_log.csv: one row an epoch; columns of epochs without a validation stay empty."""
    with _tolerating(folder / "training_log.csv") as beside:
        pd.DataFrame(rows).to_csv(beside, index=False, float_format="%.6g")


def write_non_finite(path, error, names):
    """What is known of a NonFiniteLoss, as text: where and when, every value, and the samples by name."""
    lines = [f"{name}: {value}" for name, value in error.values.items()] + ["samples:"] + [f"  {name}" for name in names]
    with _tolerating(path) as beside:
        beside.write_text("\n".join(lines) + "\n")


@contextmanager
def _tolerating(path):
    """`replacing`, but where it fails (a full disk) it says so and goes on: these files are not worth a run."""
    try:
        with replacing(path) as beside:
            yield beside
    except OSError as error:
        print(f"{path} cannot be written: {error.strerror}", file=sys.stderr, flush=True)


def memory_gib():
    """The most memory that this process has held so far: the GPU's where there is one, else the computer's."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts KiB
