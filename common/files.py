"""Files that are whole or not there, their hashes, and folders that one process at a time writes to."""

import errno
import fcntl
import hashlib
import os
import socket
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

from common.errors import UserError

_LOCK = ".lock"
_HELD = (errno.EACCES, errno.EAGAIN)  # what POSIX lets lockf say where another process has the lock


class Taken(UserError):
    """A folder that another process has locked."""


@contextmanager
def replacing(path, durable=True):
    """Gives a path beside `path` to write to; on leaving, that file takes the place of `path`.

    A crash, an error or a full disk leaves the older file as it was. durable: wait until the disk has it, so that a power cut
    cannot lose it; thousands of images that can be made again need not.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        yield beside
        if durable:
            _flush(beside)
        os.replace(beside, path)
        if durable:
            _flush(path.parent)  # the rename itself
    finally:
        beside.unlink(missing_ok=True)


def _flush(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path, data, durable=False):
    """Write a file as a whole or not at all, as `replacing` does."""
    with replacing(path, durable) as beside:
        beside.write_bytes(data)


@contextmanager
def resumable(place):
    """Around the writing of a command that goes on where it stopped: an OSError, a full disk say, becomes one line, a UserError.

    place: what could not be written, where the error itself names no file.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{error.filename or place}: cannot be written ({error.strerror}); once that is mended, "
            "the same command goes on where it stopped"
        ) from None


def remove_leftovers(folder):
    """Delete the half-written files that killed processes have left in a folder, and in those inside, which nobody else uses."""
    for path in Path(folder).rglob(".*.tmp"):
        path.unlink(missing_ok=True)


def file_hash(path):
    """SHA-256 of a file, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def locked(folder, doing):
    """While the block runs, no other process gets here with the same folder; for those who write to it.

    folder: made where it is missing · doing: what goes on there, for the line that another process gets, such as 'is training
    in'. Raises `Taken`, a UserError that names host and process, where another process has the folder.

    The lock is the kernel's (POSIX, by `fcntl.lockf`): it goes with its process, however that ends, also over NFS. Where a file
    system has no locks, a line says so and the block runs without.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _open_lock(folder / _LOCK, doing)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another place") from None
    with file:
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        try:
            yield
        finally:
            (folder / _LOCK).unlink(missing_ok=True)  # while it is still held


def _open_lock(path, doing):
    """The locked file at `path`. Whoever holds a lock removes its file: what was locked may no longer be what lies there."""
    while True:
        file = open(path, "a+")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                file.seek(0)
                holder = file.read().strip() or "another process"
                file.close()
                raise Taken(f"{path.parent}: {holder} {doing} this folder; wait for it, or stop it first") from None
            print(
                f"{path.parent}: this file system has no locks ({error.strerror}); see to it that nobody else writes here",
                file=sys.stderr,
            )
            return file
        try:
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        except FileNotFoundError:
            pass
        file.close()
