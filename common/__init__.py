"""Conventions and small tools of all floors.

Ctrl-C while a script loads its modules ends it silently; a missing package ends it with one line.
"""

import multiprocessing
import signal
import sys
from pathlib import Path

from common.errors import missing_package


def _is_loading_a_script():
    """Whether this process runs a script of the project, or a module of it by -m, and is no other program."""
    if multiprocessing.parent_process() is not None or not (sys.argv and sys.argv[0]):
        return False
    script, project = Path(sys.argv[0]).resolve(), Path(__file__).resolve().parent.parent
    return project in script.parents and Path(sys.prefix).resolve() not in script.parents


def _report(kind, error, traceback):
    """An exception hook: a line for a package that is not installed, Python's traceback for all else."""
    line = missing_package(error)
    if line is None:
        return sys.__excepthook__(kind, error, traceback)
    print(f"{Path(sys.argv[0]).name}: error: {line}", file=sys.stderr)


if _is_loading_a_script():
    sys.excepthook = _report
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # `common.flags.run_script` gives Python's handler back
