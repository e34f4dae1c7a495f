"""Conventions and small tools of all floors. Ctrl-C while a script loads its modules ends it silently."""

import multiprocessing
import signal
import sys
from pathlib import Path


def _is_loading_a_script():
    """Whether this process runs a script of the project, or a module by -m, and is no program's import."""
    script = sys.argv[0] if sys.argv else ""
    in_project = Path(script).resolve().parent == Path(__file__).resolve().parent.parent
    return multiprocessing.parent_process() is None and (script == "-m" or in_project)


# `common.flags.run_script` gives Python's handler back.
if _is_loading_a_script() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
