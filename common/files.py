"""Atomic writes of files, hashes of files, and locks on folders with one writer at a time."""

import errno
import hashlib
import json
import os
import socket
import stat
import sys
import threading
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from common.errors import UserError

_LOCK = ".lock"
_ELSEWHERE = "make room, or choose another place"
_LOCK_WAIT_S = 0.1  # for a holder that is about to leave
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)  # errors of file systems without locks


class Taken(UserError):
    """A folder that another process has locked."""


class Unwritable(UserError):
    """A file or folder that cannot be written, such as on a full disk. `reason`: the system's words."""

    def __init__(self, place, reason, way_out):
        super().__init__(place, reason, way_out)  # by which it passes from one process to another
        self.place, self.reason, self.way_out = place, reason, way_out

    def __str__(self):
        return f"{self.place}: cannot be written ({self.reason}); {self.way_out}"


@contextmanager
def writing(place, way_out=_ELSEWHERE):
    """Turns an OSError, such as a full disk, into an `Unwritable`, which names what the error names.

    place: a file or folder, named if the error itself names none. The way out is also that of an `Unwritable`
    raised inside.
    """
    try:
        yield
    except Unwritable as error:
        raise Unwritable(error.place, error.reason, way_out) from None
    except OSError as error:
        raise Unwritable(str(error.filename or place), error.strerror or str(error), way_out) from None


def resumable(place):
    """`writing` for a command that can be resumed."""
    return writing(place, "once that is mended, the same command goes on where it stopped")


@contextmanager
def replacing(path, durable=True):
    """Gives a path beside `path` to write to; on leaving, that file takes the place of `path`.

    A crash, an error or a full disk leaves the older file as it was; an OSError becomes an `Unwritable`. A
    folder that is missing is made.
    durable: wait until the file is on the disk, so that a power cut cannot lose it; files that can be made
    again do not need it.
    """
    path = Path(path)
    with _beside(path) as beside:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        if durable:
            _flush(beside)
        os.replace(beside, path)
        if durable:
            _flush(path.parent)  # the rename itself


def try_writing(path, size=2**16):
    """Raises `Unwritable` unless a file of `size` bytes can be written at a path; an existing file stays.

    For commands that run for a long time before they write.
    """
    with _beside(path) as beside:
        beside.write_bytes(bytes(size))


@contextmanager
def _beside(path):
    """Gives a temporary path of this thread in the folder of `path`, and removes what is left there.

    Raises `Unwritable` where a folder, a pipe or a device, such as /dev/null, would be replaced.
    """
    path = Path(path)
    name = f"{zlib.crc32(os.fsencode(path.name)):08x}"  # short: the file's own may be as long as names can be
    beside = path.with_name(f".{name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(mode := os.stat(path).st_mode):
                is_folder = stat.S_ISDIR(mode)
                raise OSError(os.strerror(errno.EISDIR) if is_folder else "a pipe or a device, not a file")
        yield beside
    except OSError as error:
        raise Unwritable(str(path), error.strerror or str(error), _ELSEWHERE) from None
    finally:
        with suppress(OSError):  # the error above is the one to report
            beside.unlink()


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


def read_json(path):
    """The object in a JSON file, a dict. Raises OSError, and ValueError for all that is not one."""
    try:
        content = json.loads(Path(path).read_text("utf-8-sig"))
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError(f"{type(content).__name__} where a JSON object belongs")
    return content


def remove_leftovers(folder):
    """Delete killed processes' temporary files below a folder that no other process is using."""
    for path in Path(folder).rglob(".*.tmp"):
        path.unlink(missing_ok=True)


def file_size(path):
    """Size of a file in bytes, 0 where there is none."""
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):  # the latter for a name that holds a zero
        return 0


def file_hash(path):
    """SHA-256 of a file, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def locked(folder, doing):
    """Locks a folder for the block: every other process that locks the same folder gets an error.

    The folder is made if it is missing; `doing` says for the message what the block does, such as 'is
    training in'. Raises `Taken`, which names host and process, if another process holds the lock, and
    UserError if the folder cannot be written. The kernel releases the lock when its process ends, however it
    ends. On a file system without locks, a line on stderr says so and the block runs unprotected.
    """
    folder = Path(folder)
    path = folder / _LOCK
    lock = FileLock(path, on_acquired=_write_holder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=_LOCK_WAIT_S, poll_interval=_LOCK_WAIT_S / 4)
    except Timeout:
        holder = path.read_text("utf-8").strip() if path.exists() else ""
        says = f"{holder or 'another process'} {doing} this folder; wait for it, or stop it first"
        raise Taken(f"{folder}: {says}") from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise Unwritable(str(folder), error.strerror, _ELSEWHERE) from None
        says = "make sure that no other process writes to this folder"
        print(f"{folder}: this file system has no locks ({error.strerror}); {says}", file=sys.stderr)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # before the release, after which it could be another process's lock
        lock.release()


def _write_holder(descriptor):
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
