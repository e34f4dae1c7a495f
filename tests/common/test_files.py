"""Atomic writes, hashes, and folders with one writer."""

import errno
import multiprocessing
import os
import pickle
import socket
import time

import pytest
from children import wait_for

from common.errors import UserError
from common.files import (
    Taken,
    Unwritable,
    file_hash,
    locked,
    read_json,
    remove_leftovers,
    replacing,
    resumable,
    try_writing,
    write_bytes,
    writing,
)


def test_a_failed_save_leaves_the_older_file(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("older")
    with pytest.raises(Unwritable, match=f"^{path}: .*disk"), replacing(path) as beside:
        beside.write_bytes(b"half")
        raise OSError("no space left on the disk")
    with pytest.raises(KeyboardInterrupt), replacing(path) as beside:
        beside.write_bytes(b"half")
        raise KeyboardInterrupt
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


def test_the_outermost_way_out_holds_and_passes_between_processes(tmp_path):
    (tmp_path / "nowhere").touch()  # no folder
    with pytest.raises(Unwritable) as caught, writing(tmp_path, "another --output"):
        write_bytes(tmp_path / "nowhere/table.csv", b"")
    line = str(pickle.loads(pickle.dumps(caught.value)))
    assert line == str(caught.value) and line.endswith("another --output")
    assert line.startswith(f"{tmp_path / 'nowhere/table.csv'}: ")


@pytest.mark.parametrize("name", ["nowhere/table.csv", "n" * 300, "."])
def test_what_cannot_be_written_is_found_before_the_work(tmp_path, name):
    (tmp_path / "table.csv").write_text("older")
    try_writing(tmp_path / "table.csv")
    with pytest.raises(Unwritable):
        try_writing(tmp_path / name)
    assert os.listdir(tmp_path) == ["table.csv"] and (tmp_path / "table.csv").read_text() == "older"


def test_a_pipe_or_a_device_is_never_replaced(tmp_path):
    os.mkfifo(path := tmp_path / "pipe")
    for write in (try_writing, lambda path: write_bytes(path, b"x")):
        with pytest.raises(Unwritable, match="a pipe or a device"):
            write(path)
    assert path.is_fifo() and os.listdir(tmp_path) == ["pipe"]


@pytest.mark.parametrize("text", ["", "[]", "NaN", "{", "[" * 100_000])
def test_json_that_is_no_object(tmp_path, text):
    (path := tmp_path / "about.json").write_text(text)
    with pytest.raises(ValueError, match=r"JSON|Expecting"):
        read_json(path)


def test_a_hash(tmp_path):
    (tmp_path / "foo").write_bytes(b"foo")
    assert file_hash(tmp_path / "foo").startswith("2c26b46b68ffc68ff99b453c1d304134")


def hold(folder):
    """Keep a folder until the process is killed."""
    with locked(folder, "is drawing into"):
        (folder / "held").touch()
        time.sleep(60)


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder `tmp_path / 'run'` until it is killed."""
    (tmp_path / "run").mkdir()
    process = multiprocessing.get_context("fork").Process(target=hold, args=(tmp_path / "run",))
    process.start()
    wait_for((tmp_path / "run/held").exists, process)
    (tmp_path / "run/held").unlink()
    yield process
    process.kill()


def test_a_folder_has_one_writer_at_a_time(tmp_path, holder):
    folder = tmp_path / "run"
    held = f"{folder}: .*{holder.pid} on {socket.gethostname()}"
    with pytest.raises(Taken, match=held), locked(folder, "draws"):
        pass
    holder.kill()
    holder.join()
    assert (folder / ".lock").exists()  # the kernel releases the lock of a killed process
    with locked(folder, "draws"), pytest.raises(Taken, match=str(os.getpid())), locked(folder, "draws"):
        pass
    assert os.listdir(folder) == []


def test_a_file_system_without_locks_runs_with_a_warning(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    with locked(tmp_path, "is training in"):
        printed = capsys.readouterr().err
    assert printed.startswith(f"{tmp_path}: ") and "Operation not supported" in printed
    assert os.listdir(tmp_path) == []


def test_names_may_be_as_long_as_a_file_system_takes(tmp_path):
    with replacing(tmp_path / ("n" * 255)) as beside:
        beside.write_bytes(b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["n" * 255]
