"""A process that asks no other machine for anything, whatever the libraries in it would like to."""

import os
import sys

_HERE = (None, "", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::")


def stay_on_this_machine(own=None):
    """From now on this process connects to no other machine and looks no name up: what tries gets a
    PermissionError.

    own: an address of this machine that it may connect to as well. It cannot be undone: Python's audit hooks
    stay. A proxy that the environment names is not asked either, which programs do even for addresses of
    their own machine.
    """
    os.environ |= {"no_proxy": "*", "NO_PROXY": "*"}

    def refuse(event, given):
        if event == "socket.getaddrinfo":
            asked = given[0].decode() if isinstance(given[0], bytes) else given[0]
        elif event in ("socket.connect", "socket.sendto") and isinstance(
            given[1], tuple
        ):  # a path is a socket on the disk
            asked = given[1][0]
        else:
            return
        if asked not in (*_HERE, own):
            raise PermissionError(f"{asked}: this process asks no other machine for anything")

    sys.addaudithook(refuse)
