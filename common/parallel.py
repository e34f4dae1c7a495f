"""Threads that work on many images at a time, and reuse of freed memory."""

import ctypes
from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

_BLOCK = 2048  # items that wait for a thread at once: all of VIGOR would be 286,454 futures
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def in_threads(function, items, workers, description, pool=None):
    """Yield `function(item)` for each item of a list, in order, under a progress bar.

    Threads are enough: OpenCV releases Python's lock while it decodes, resizes and encodes. An exception is
    raised here after the running items have ended; no further items start.
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
    """Let this process keep freed memory for its next tensors; does nothing without glibc.

    By default glibc returns blocks of 32 MB and more to the kernel at once and gets zeroed pages for the next
    tensor, which takes a third of a training step at 512 px. Peak memory stays the same.
    """
    mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def mallopt(option, value):
    """Set an option of glibc's malloc; does nothing with another C library."""
    try:
        ctypes.CDLL(None).mallopt(option, value)
    except (OSError, TypeError, AttributeError):
        return
