"""Files that are whole or not there, and folders with one writer."""

import os
import re
import signal
import socket
import subprocess
import sys

import pytest
from children import PROJECT

from common.errors import UserError
from common.files import file_hash, locked, replacing


def test_a_failed_save_leaves_the_older_file(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("older")
    with pytest.raises(OSError, match="disk"), replacing(path) as beside:
        beside.write_bytes(b"half")
        raise OSError("no space left on the disk")
    assert path.read_text() == "older" and os.listdir(tmp_path) == ["table.csv"]


def test_a_hash(tmp_path):
    (tmp_path / "foo").write_bytes(b"foo")
    assert file_hash(tmp_path / "foo").startswith("2c26b46b68ffc68ff99b453c1d304134")  # as sha256sum has it


HOLD = """
import sys, time
from common.files import locked
with locked(sys.argv[1], "is drawing into"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder `tmp_path / 'run'`, until its stdin is closed or it is killed."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_folder_has_one_writer_at_a_time(tmp_path, holder):
    folder = tmp_path / "run"
    held = f"{folder}: process {holder.pid} on {socket.gethostname()} is training in this folder; wait for it, or stop it first"
    with pytest.raises(UserError, match=re.escape(held)), locked(folder, "is training in"):
        pass
    holder.stdin.close()
    holder.wait()
    assert os.listdir(folder) == []  # who leaves takes the lock along
    with locked(folder, "is training in"):
        assert (folder / ".lock").read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"


def test_a_lock_dies_with_its_process(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "run/.lock").exists()  # what is left of it holds nobody back
    with locked(tmp_path / "run", "is training in"):
        pass
    assert os.listdir(tmp_path / "run") == []


def test_a_file_system_without_locks_is_said_so(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.lockf", refuse)
    with locked(tmp_path, "is training in"):
        pass
    said = f"{tmp_path}: this file system has no locks (Operation not supported); see to it that nobody else writes here"
    assert capsys.readouterr().err.strip() == said
