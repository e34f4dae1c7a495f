"""Work of the page: it can be stopped, ends in time, and leaves nothing behind; and the page's address."""

import socket
import threading

import pytest

from common.errors import UserError
from engine.app.process import Stopped, Work, check_address


def work_on(work, started):
    """Work without an end, which only an interruption ends; its message."""
    with pytest.raises(Stopped) as stopped, work.of("one"):
        started.set()
        while True:
            pass
    return str(stopped.value)


def test_work_ends_in_time():
    assert "0.1 s" in work_on(Work(limit_s=0.1), threading.Event())


def test_work_is_stopped_by_its_own_session_alone():
    work, started, said = Work(limit_s=60), threading.Event(), []
    thread = threading.Thread(target=lambda: said.append(work_on(work, started)))
    thread.start()
    assert started.wait(60)
    work.stop("another")
    assert thread.is_alive() and not said
    work.stop("one")
    thread.join(60)
    assert said == ["stopped"]
    with work.of("one"):  # what was stopped does not stop what follows
        assert sum(range(1000)) == 499_500


def test_an_address_that_cannot_be_listened_on():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"^--port {port}: "):
            check_address("127.0.0.1", port)
    check_address("127.0.0.1", port)
    for host in ("192.0.2.1", "not a host", "1.2.3", "x" * 300):
        with pytest.raises(UserError, match=r"^--host ") as error:
            check_address(host, port)
        assert "\n" not in str(error.value)
