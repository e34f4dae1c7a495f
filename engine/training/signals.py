"""Requests to stop, by Ctrl-C or a job manager, and their effect on a loader's processes."""

import signal
import time


class StopRequest:
    """Within a `with` block Ctrl-C and SIGTERM become a request to stop: the object becomes true.

    A second Ctrl-C, at least one second after the first, stops at once. (torchrun forwards a terminal's
    Ctrl-C, so its processes get it twice.)
    """

    def __init__(self):
        self.signal, self._since = None, 0.0

    def __enter__(self):
        numbers = signal.SIGINT, signal.SIGTERM
        self._before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *error):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        now = time.monotonic()
        if self.signal is None:
            self.signal, self._since = number, now
        elif number == signal.SIGINT and now - self._since > 1:
            raise KeyboardInterrupt

    def __bool__(self):
        return self.signal is not None

    @property
    def exit_status(self):
        """The exit status of the process: 130 after Ctrl-C, 0 after SIGTERM."""
        return 130 if self.signal == signal.SIGINT else 0


class EndOfLoader:
    """Returned in place of a batch at the end of a loader."""


def next_batch(batches, stop):
    """The next batch of a loader's iterator, or an EndOfLoader at its end or after a stop ended its workers.

    A job manager's SIGTERM often goes to every process. torch's handler of SIGCHLD would raise at any moment
    after a worker's death, even during an update; without it, only the loader raises the error.
    """
    try:
        batch = next(batches)
    except StopIteration:
        return EndOfLoader()
    except (RuntimeError, OSError, EOFError):
        if stop:
            return EndOfLoader()
        raise
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return batch


class Until:
    """A loader that ends early when `stop` becomes true."""

    def __init__(self, loader, stop):
        self.loader, self.stop = loader, stop

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        batches = iter(self.loader)
        while not self.stop:
            batch = next_batch(batches, self.stop)
            if isinstance(batch, EndOfLoader):
                return
            yield batch
