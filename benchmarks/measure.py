"""How the benchmarks measure: rivals take turns, so that whatever else the machine does meets all of them."""

import gc
import multiprocessing
import os
import platform
import statistics
import time
from contextlib import ExitStack
from pathlib import Path

import torch


def machine(device=None):
    """One line that says what a benchmark ran on."""
    name = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "CPU")
    line = f"{name}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}, torch {torch.__version__}"
    if device is not None and device.type == "cuda":
        line = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}; {line}"
    return line


def _lines(path):
    path = Path(path)
    return path.read_text().splitlines() if path.exists() else []


def take_turns(rivals, repetitions, warm_up=1):
    """{name: seconds of each repetition} of functions {name: function} that are called in turns; warm-ups are not counted."""
    seconds = {name: [] for name in rivals}
    for repetition in range(-warm_up, repetitions):
        for name, function in rivals.items():
            gc.collect()
            start = time.perf_counter()
            function()
            if repetition >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


class InOwnProcess:
    """A function that runs in a process of its own, so that rivals share neither memory nor settings.

    builder(*arguments), importable by name, is called there once and gives the function. Calling this object calls that, without
    arguments, and returns the seconds that it took by `clock`; `results` keeps what it returned. It ends with the context.
    """

    def __init__(self, clock, builder, *arguments):
        self.results = []
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, clock, builder, arguments), daemon=True)
        self._process.start()
        other.close()

    def __call__(self):
        self._pipe.send(True)
        seconds, result = self._pipe.recv()
        self.results.append(result)
        return seconds

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._pipe.close()
        self._process.join()


def _serve(pipe, clock, builder, arguments):
    function = builder(*arguments)
    try:
        while pipe.recv():
            start = clock()
            result = function()
            pipe.send((clock() - start, result))
    except EOFError:
        pass


def race(rivals, repetitions, device=None, clock=time.perf_counter):
    """({name: seconds of each repetition}, {name: results}) of {name: (builder, *arguments)}, each in a process of its own.

    They take turns. A GPU's memory may not hold all of them: there they run one after the other. A first call warms up.
    """
    seconds, results = {name: [] for name in rivals}, {}
    one_by_one = device is not None and device.type == "cuda"
    for names in [[name] for name in rivals] if one_by_one else [list(rivals)]:
        with ExitStack() as stack:
            running = {name: stack.enter_context(InOwnProcess(clock, *rivals[name])) for name in names}
            for repetition in range(-1, repetitions):
                for name, process in running.items():
                    figure = process()
                    seconds[name] += [figure] if repetition >= 0 else []
            results |= {name: process.results for name, process in running.items()}
    return seconds, results


def ratio(seconds, slow, fast):
    """How many times longer `slow` took than `fast`: the median of the repetitions' ratios."""
    return statistics.median(a / b for a, b in zip(seconds[slow], seconds[fast], strict=True))


def median(seconds):
    """{name: median} of what `take_turns` gave."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def headline(name, value):
    """Print a figure that docs/PERFORMANCE.md quotes; benchmarks/gpu.sh gathers them in one table by the arrow."""
    print(f"=> {name}: {value}", flush=True)


def print_table(rows):
    """Rows of strings in columns, the first row as their head, as Markdown has it."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for number, row in enumerate(rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|", flush=True)
