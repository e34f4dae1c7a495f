"""Atomic writes, hashes, and folders with one writer."""

import errno
import os
import signal
import socket
import subprocess
import sys
from subprocess import PIPE

import pytest
from children import PROJECT

from common.errors import UserError
from common.files import Taken, file_hash, locked, remove_leftovers, replacing, resumable


def test_a_failed_save_leaves_the_older_file(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("older")
    with pytest.raises(OSError, match="disk"), replacing(path) as beside:
        beside.write_bytes(b"half")
        raise OSError("no space left on the disk")
    assert path.read_text() == "older" and os.listdir(tmp_path) == ["table.csv"]


def test_temporary_files_of_killed_processes_are_removed(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in (".a.png.1.1.tmp", "a.png"):
        (tmp_path / "deep" / name).touch()
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path / "deep") == ["a.png"]


def test_a_full_disk_becomes_a_line_that_names_the_file(tmp_path):
    with pytest.raises(UserError, match=r"a\.png: .*No space left"), resumable(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device", "a.png")
    with pytest.raises(UserError, match=f"^{tmp_path}: "), resumable(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_hash(tmp_path):
    (tmp_path / "foo").write_bytes(b"foo")
    assert file_hash(tmp_path / "foo").startswith("2c26b46b68ffc68ff99b453c1d304134")


HOLD = """
import sys, time
from common.files import locked
with locked(sys.argv[1], "is drawing into"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder `tmp_path / 'run'` until its stdin is closed or it is killed."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, cwd=PROJECT, stdin=PIPE, stdout=PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_folder_has_one_writer_at_a_time(tmp_path, holder):
    folder = tmp_path / "run"
    held = f"{folder}: .*{holder.pid} on {socket.gethostname()}"
    with pytest.raises(Taken, match=held), locked(folder, "draws"):
        pass
    holder.stdin.close()
    holder.wait()
    assert os.listdir(folder) == []
    with locked(folder, "draws"), pytest.raises(Taken, match=str(os.getpid())), locked(folder, "draws"):
        pass
    assert os.listdir(folder) == []


def test_the_kernel_releases_the_lock_of_a_killed_process(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "run/.lock").exists()
    with locked(tmp_path / "run", "is training in"):
        pass
    assert os.listdir(tmp_path / "run") == []


def test_a_file_system_without_locks_runs_with_a_warning(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    done = False
    with locked(tmp_path, "is training in"):
        done = True
    printed = capsys.readouterr().err
    assert done and printed.startswith(f"{tmp_path}: ") and "Operation not supported" in printed
    assert os.listdir(tmp_path) == []
