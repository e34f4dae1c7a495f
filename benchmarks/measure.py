"""How the benchmarks measure: rivals take turns, so that whatever else the machine does meets all of them."""

import multiprocessing
import os
import platform
import re
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import torch

from common import flags

NUMBER = "{:.4g}".format  # how tables write one
_function = None  # of a rival, in its process


def machine(device=None):
    """One line that says what a benchmark ran on, which is a Linux."""
    name = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    line = f"{name[1] if name else 'CPU'}, {len(os.sched_getaffinity(0))} cores, "
    line += f"Python {platform.python_version()}, torch {torch.__version__}"
    if device is not None and device.type == "cuda":
        line = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}; {line}"
    return line


def race(rivals, repetitions, device=None, clock=time.perf_counter):
    """(seconds, a data frame with a column for each rival and a row for each repetition; {name: results of all its calls}).

    rivals: {name: builder}. A builder is called in a process of its own, so that rivals share neither memory nor settings, and
    gives the function that is measured there by `clock`. They take turns. A GPU's memory may not hold all of them: there they
    run one after the other. A first call warms up.
    """
    calls, context = {name: [] for name in rivals}, multiprocessing.get_context("spawn")
    for names in [[name] for name in rivals] if device is not None and device.type == "cuda" else [list(rivals)]:
        with ExitStack() as stack:
            pools = [stack.enter_context(ProcessPoolExecutor(1, context, _build, (rivals[name],))) for name in names]
            for _ in range(1 + repetitions):
                for name, pool in zip(names, pools, strict=True):
                    calls[name].append(pool.submit(_call, clock).result())
    seconds = pd.DataFrame({name: [second for second, _ in found[1:]] for name, found in calls.items()})
    return seconds, {name: [result for _, result in found] for name, found in calls.items()}


def _build(builder):
    global _function
    _function = builder()


def _call(clock):
    start = clock()
    result = _function()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return clock() - start, result


def compare(title, seconds, pairs, unit="s", scale=1):
    """Print what a race found as a table. Gives how many times longer the first rival took than each, by name.

    Those are medians of the repetitions' ratios · pairs: of one call · unit, scale: of the times in the table, and what a call's
    seconds are multiplied with to have it.
    """
    first, median = seconds.columns[0], seconds.median()
    ratios = seconds.rdiv(seconds[first], axis=0).median()
    table = pd.DataFrame({unit: median * scale, "pairs/s": pairs / median, f"{first} / this": ratios})
    print(table.rename_axis(columns=title).to_string(float_format=NUMBER), flush=True)
    return ratios


def headline(name, value):
    """Print a figure that docs/PERFORMANCE.md quotes; benchmarks/gpu.sh gathers them in one table by the arrow."""
    print(f"=> {name}: {value}", flush=True)


def make_parser(page, batch_size=None):
    """(parser, its group for more flags) of a benchmark. batch_size: the default, where there are batches."""
    parser = flags.make_parser(page)
    group = parser.add_argument_group("measurement")
    if batch_size:
        group.add_argument("-b", "--batch_size", type=flags.COUNT, default=batch_size, metavar="N", help="pairs in a batch")
    group.add_argument("--repetitions", type=flags.COUNT, default=5, metavar="N", help="of which medians are taken")
    return parser, group
