"""Files that are whole or not there, and checkpoints made of them."""

import os
from contextlib import contextmanager
from pathlib import Path

FORMAT = "cvm-vigor"


@contextmanager
def replacing(path):
    """Gives a path beside `path` to write to; on leaving, that file is flushed to disk and takes the place of `path`.

    A crash, an error or a full disk leaves the older file as it was.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield beside
        _flush(beside)
        os.replace(beside, path)
        _flush(path.parent)  # the rename itself
    finally:
        beside.unlink(missing_ok=True)


def _flush(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save(path, content):
    """Write a dict of tensors and plain values as a checkpoint of this project.

    Raises OSError, whose strerror says why, where that fails (a full disk); the older file then stays.
    """
    import torch  # here, so that scripts which only write pictures do not wait for it

    with replacing(path) as beside, open(beside, "wb") as file:
        try:
            torch.save({"format": FORMAT, **content}, file)
        except RuntimeError as error:  # torch closes its archive after a failed write, and fails again
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def remove_leftovers(folder):
    """Delete the half-written files that processes which were killed have left; for a folder that nobody writes to."""
    for path in Path(folder).glob(".*.tmp"):
        path.unlink(missing_ok=True)
