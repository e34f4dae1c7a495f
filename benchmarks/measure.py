"""How the benchmarks measure: competitors take turns, so that other load on the machine affects all."""

import multiprocessing
import os
import platform
import re
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import torch

from common import flags

_function = None  # of a competitor, in its process


def machine(device):
    """One line that names the hardware and the versions (Linux)."""
    name = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    line = f"{name[1] if name else 'CPU'}, {len(os.sched_getaffinity(0))} cores, "
    line += f"Python {platform.python_version()}, torch {torch.__version__}"
    if device.type == "cuda":
        line = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}; {line}"
    return line


def race(builders, repetitions, device, clock=time.perf_counter):
    """(seconds, a DataFrame with one row per repetition; results of all calls, {name: list}), by competitor.

    builders: {name: function without arguments}. Each builder runs in a process of its own and returns the
    function that `clock` measures there; the first call warms up. On a GPU, whose memory may not hold all
    competitors, they run one after the other.
    """
    calls, context = {name: [] for name in builders}, multiprocessing.get_context("spawn")
    for names in [[name] for name in builders] if device.type == "cuda" else [list(builders)]:
        with ExitStack() as stack:
            pools = [ProcessPoolExecutor(1, context, _build, (builders[name],)) for name in names]
            pools = [stack.enter_context(pool) for pool in pools]
            for _ in range(1 + repetitions):
                for name, pool in zip(names, pools, strict=True):
                    calls[name].append(pool.submit(_call, clock).result())
    seconds = pd.DataFrame({name: [second for second, _ in of_name[1:]] for name, of_name in calls.items()})
    return seconds, {name: [result for _, result in of_name] for name, of_name in calls.items()}


def _build(builder):
    global _function
    _function = builder()


def _call(clock):
    start = clock()
    result = _function()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return clock() - start, result


def compare(title, seconds, pairs):
    """Print the seconds of a race as a table. Returns each competitor's speed-up over the first, by name.

    A speed-up is the median of the repetitions' ratios. pairs: in one call.
    """
    speedup = seconds.rdiv(seconds.iloc[:, 0], axis=0).median()
    table = pd.DataFrame({"ms per pair": 1000 / pairs * seconds.median(), "speed-up": speedup})
    table["pairs/s"] = pairs / seconds.median()
    print(table.rename_axis(columns=title).to_string(float_format="{:.4g}".format), flush=True)
    return speedup


def peak_gb():
    """The peak memory of this process so far in GB: the GPU's if it is used."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def headline(name, value):
    """Print a figure for docs/PERFORMANCE.md; benchmarks/gpu.sh collects such lines."""
    print(f"=> {name}: {value}", flush=True)


def make_parser(page, batch_size=None):
    """(parser, its group for further flags) of a benchmark. batch_size: the default, if there are batches."""
    parser = flags.make_parser(page)
    group = parser.add_argument_group("measurement")
    if batch_size:
        count = {"type": flags.COUNT, "default": batch_size, "metavar": "N", "help": "pairs in a batch"}
        group.add_argument("-b", "--batch_size", **count)
    group.add_argument("--repetitions", type=flags.COUNT, default=5, metavar="N", help="measured calls")
    flags.add_device(group)
    return parser, group
