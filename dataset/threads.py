"""Many images at a time. Threads are enough: OpenCV lets go of Python's lock while it decodes, resizes and encodes."""

from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

_BLOCK = 2048  # items that wait for a thread at once: all of VIGOR would be 286,454 futures


def in_threads(function, items, workers, description):
    """Yield `function(item)` for each item of a list, in order, under a progress bar.

    After an exception, which is raised here, nothing more is started and what runs is waited for.
    """
    with (
        tqdm(total=len(items), desc=description, unit="image", smoothing=0.05, disable=None) as bar,
        ThreadPoolExecutor(workers) as pool,
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
