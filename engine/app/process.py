"""The page's process: address, running work, memory. It connects to no other machine."""

import ctypes
import errno
import os
import socket
import sys
import threading
from contextlib import contextmanager

from common.errors import UserError
from common.parallel import mallopt

_HERE = (None, "", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::")
_M_ARENA_MAX = -8  # of glibc's malloc.h


def stay_on_this_machine(own=None):
    """From now on, connecting to other machines and resolving names raise PermissionError in this process.

    Connections to its own address stay allowed. Python's audit hooks cannot be removed. Proxies of the
    environment are switched off, since clients use them even for addresses of their own machine.
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
    """Make all threads that start from now on share one malloc arena (glibc only).

    With one arena per thread, which keeps freed memory, the page grew by 100 MB for every twenty pictures
    until each of its many threads had drawn some.
    """
    mallopt(_M_ARENA_MAX, 1)


class Stopped(KeyboardInterrupt):
    """Raised in an event's thread when the user stops it or it takes too long; the message says which."""


class Work:
    """The page's running work by session, to cancel it on request or after a time limit.

    Python raises an exception in its thread between two instructions, as Ctrl-C does in the main thread:
    whatever Ctrl-C can interrupt can be cancelled here.
    """

    def __init__(self, limit_s):
        self.limit_s, self._threads, self._lock = limit_s, {}, threading.RLock()

    @contextmanager
    def of(self, session):
        """Context manager for work of a session in this thread. Raises `Stopped` within it."""
        key = session, threading.get_ident()
        late = f"this took more than {self.limit_s:g} s and was stopped"
        timer = threading.Timer(self.limit_s, self._interrupt, (key, late))
        timer.daemon = True
        with self._lock:
            self._threads[key] = None
        timer.start()
        try:
            yield
        except Stopped:
            raise Stopped(self._threads[key]) from None
        finally:
            timer.cancel()
            with self._lock:
                del self._threads[key]
                _raise_in(key[1], None)  # what has not arrived yet

    def stop(self, session):
        """Cancel all work of a session."""
        for key in [key for key in list(self._threads) if key[0] == session]:
            self._interrupt(key, "stopped")

    def _interrupt(self, key, says):
        with self._lock:
            if key in self._threads:
                self._threads[key] = says
                _raise_in(key[1], Stopped)


def _raise_in(thread, exception):
    """Make Python raise an exception in a thread; None cancels one that is still pending."""
    exception = None if exception is None else ctypes.py_object(exception)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), exception)


def check_address(host, port):
    """Raises UserError, naming the flag, unless this machine can listen at an address and a port."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise UserError(f"--port {port}: {error.strerror}; --port chooses another") from None
        says = f"no address of this machine ({error.strerror})"
        raise UserError(f"--host {host}: {says}; 127.0.0.1 is for its own browser, 0.0.0.0 for all") from None
    except UnicodeError:
        raise UserError(f"--host {host}: no name of a host") from None
