"""The page's process: it connects to no other machine, and its threads share their memory."""

import os
import sys

from common.parallel import mallopt

_HERE = (None, "", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::")
_M_ARENA_MAX = -8  # of glibc's malloc.h


def stay_on_this_machine(own=None):
    """From now on, connecting to another machine and resolving names raise PermissionError in this process.

    It may also connect to its own address. Python's audit hooks cannot be removed. Proxies of the environment
    are switched off, which programs ask even for addresses of their own machine.
    """
    os.environ |= {"no_proxy": "*", "NO_PROXY": "*"}

    def refuse(event, given):
        if event == "socket.getaddrinfo":
            host = given[0].decode() if isinstance(given[0], bytes) else given[0]
        elif event in ("socket.connect", "socket.sendto") and isinstance(given[1], tuple):
            host = given[1][0]  # a path would be a local socket
        else:
            return
        if host not in (*_HERE, own):
            raise PermissionError(f"{host}: this process asks no other machine for anything")

    sys.addaudithook(refuse)


def share_freed_memory():
    """Let all threads that start from now on allocate from one arena; nothing happens without glibc.

    With an arena for each thread, which keeps what it frees, the page grew by 100 MB for every twenty
    pictures, until each of its many threads had drawn some.
    """
    mallopt(_M_ARENA_MAX, 1)
