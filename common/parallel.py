"""Many images at a time, and memory that is kept for the next ones."""

import ctypes
from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

_BLOCK = 2048  # items that wait for a thread at once: all of VIGOR would be 286,454 futures
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def in_threads(function, items, workers, description, pool=None):
    """Yield `function(item)` for each item of a list, in order, under a progress bar.

    Threads are enough: OpenCV releases Python's lock while it decodes, resizes and encodes. After an
    exception, which is raised here, nothing more is started and what runs is waited for.
    pool: an executor in place of threads.
    """
    with (
        tqdm(total=len(items), desc=description, unit="image", smoothing=0.05, disable=None) as bar,
        pool or ThreadPoolExecutor(workers) as pool,
    ):
        for start in range(0, len(items), _BLOCK):
            futures = [pool.submit(function, item) for item in items[start : start + _BLOCK]]
            try:
                for future in futures:
                    yield future.result()
                    bar.update()
            finally:
                for future in futures:
                    future.cancel()


def keep_freed_memory():
    """Let this process keep the memory that it frees, for its next tensors; nothing happens without glibc.

    glibc hands blocks of 32 MB and more back to the kernel at once, and takes every page of them anew,
    zeroed, for the next tensor: a third of the time of a training step at 512 px. Peak memory stays the same.
    """
    mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def mallopt(option, value):
    """Set an option of glibc's malloc; nothing happens with another C library."""
    try:
        ctypes.CDLL(None).mallopt(option, value)
    except (OSError, TypeError, AttributeError):
        return
