"""The files of an index, in a folder or at any address of fsspec.

zarr.json                                   of the array
c.<row>.<col>.0                             a chunk, rows and columns as zarr counts them
part.<row>.<col>.<fingerprint>.<bytes>      empty: that chunk is whole, of such network and images and size
"""

import time
from contextlib import suppress
from pathlib import Path, PurePosixPath

import fsspec
import numpy as np

from common.files import write_bytes

FILE = "zarr.json"
CENTRE = 2**21  # row and column, in chunks, of the grid's cell (0, 0) in the array
_STALE_S = 3600.0  # a temporary file that old belongs to a process that was killed


class Store:
    """A folder, or an address of fsspec such as s3://bucket/index, and the files of an index in it."""

    def __init__(self, address):
        self.address = str(address)
        self.files, self.path = fsspec.core.url_to_fs(self.address)
        local = "file" in np.atleast_1d(self.files.protocol)
        self.local = local
        self.zarr = self.path if local else self.address

    def __str__(self):
        return self.address

    def listing(self):
        """{name: entry of fsspec} of the files."""
        self.files.invalidate_cache()
        found = self.files.find(self.path, maxdepth=1, detail=True)
        return {PurePosixPath(path).name: about for path, about in found.items()}

    def parts(self):
        """({(row, col): bytes} of the chunks, {(row, col): [(fingerprint, bytes)]} of what was recorded)."""
        chunks, records = {}, {}
        for name, about in self.listing().items():
            kind, *words = name.split(".")
            if kind == "c" and len(words) == 3:
                chunks[int(words[0]) - CENTRE, int(words[1]) - CENTRE] = about["size"]
            elif kind == "part":
                records.setdefault((int(words[0]), int(words[1])), []).append((words[2], int(words[3])))
        return chunks, records

    def chunk(self, row, col):
        """The name of a chunk's file."""
        return f"c.{row + CENTRE}.{col + CENTRE}.0"

    def remove(self, names):
        """Remove files; some may be gone already."""
        for name in names:
            with suppress(FileNotFoundError):
                self.files.rm_file(f"{self.path}/{name}")

    def leftovers(self):
        """The names of temporary files of processes that were killed."""
        old = time.time() - _STALE_S
        files = self.listing().items()
        return [name for name, about in files if name.endswith(".partial") and about.get("mtime", old) < old]

    def record(self, part, fingerprint, size):
        """The name of a part's record."""
        return f"part.{part[0]}.{part[1]}.{fingerprint}.{size}"

    def read(self, name):
        """The bytes of a file."""
        path = f"{self.path}/{name}"
        return Path(path).read_bytes() if self.local else self.files.cat_file(path)  # quicker

    def write(self, name, data):
        """Write a file, whole or not at all."""
        path = f"{self.path}/{name}"
        write_bytes(path, data) if self.local else self.files.pipe_file(path, data)

    def note(self, part, fingerprint):
        """Record that a part is on the disk."""
        size = 0
        with suppress(FileNotFoundError):  # zarr writes no chunk in which no cell is covered
            size = self.files.size(f"{self.path}/{self.chunk(*part)}")
        self.files.pipe_file(f"{self.path}/{self.record(part, fingerprint, size)}", b"")
