"""A process that asks no other machine for anything."""

import socket
import urllib.request

import pytest
from children import start

from engine.app.process import stay_on_this_machine


def refused_elsewhere_served_here():
    stay_on_this_machine()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        pass
    for ask in (
        lambda: socket.create_connection(("192.0.2.1", 80), timeout=1),
        lambda: socket.getaddrinfo("example.org", 80),
        lambda: urllib.request.urlopen("http://example.org"),
        lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 53)),
    ):
        with pytest.raises(OSError, match="asks no other machine"):
            ask()
    print("so it is")


def test_no_other_machine_is_asked(tmp_path):
    """In a process of its own: the refusal cannot be taken back."""
    process = start(tmp_path / "said", refused_elsewhere_served_here, http_proxy="http://192.0.2.1:3128")
    process.join(60)
    assert (tmp_path / "said").read_text() == "so it is\n" and process.exitcode == 0
