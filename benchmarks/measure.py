"""How the benchmarks measure: rivals take turns, so that whatever else the machine does meets all of them."""

import gc
import os
import platform
import statistics
import time
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


def cpu_seconds():
    """Seconds of processor time that this process and its ended children have used, over all their threads."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def take_turns(rivals, repetitions, clock=time.perf_counter, warm_up=1):
    """{name: seconds of each repetition} of functions {name: function} that are called in turns; warm-ups are not counted."""
    seconds = {name: [] for name in rivals}
    for repetition in range(-warm_up, repetitions):
        for name, function in rivals.items():
            gc.collect()
            start = clock()
            function()
            if repetition >= 0:
                seconds[name].append(clock() - start)
    return seconds


def ratio(seconds, slow, fast):
    """How many times longer `slow` took than `fast`: the median of the repetitions' ratios."""
    return statistics.median(a / b for a, b in zip(seconds[slow], seconds[fast], strict=True))


def median(seconds):
    """{name: median} of what `take_turns` gave."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def print_table(rows):
    """Rows of strings in columns, the first row as their head, as Markdown has it."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for number, row in enumerate(rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|", flush=True)
