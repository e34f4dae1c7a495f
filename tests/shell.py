"""Runs the lines of a shell whose `python` is a fork of this process, which has imported what every script needs.

    python tests/shell.py 'python train_VIGOR.py --help'

Each command is a process of its own, in the shell's folder, and finds its modules there; only packages come with the fork.
"""

import gc
import os
import runpy
import subprocess
import sys

import matplotlib.backends.backend_agg
import matplotlib.figure  # noqa: F401
import pandas  # noqa: F401
import torchvision  # noqa: F401

# Words are parted by tabs: neither these nor line ends are in them.
PYTHON = "python() {{ local status IFS=$'\\t'; echo \"$*\" >&{0}; read -r status <&{1} && return $status; }}\n"


def run(words):
    """What `python words` does."""
    sys.path[0] = os.getcwd()
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    gc.freeze()  # or forks would copy what their collections look at
    asked, ask = os.pipe()
    told, tell = os.pipe()
    shell = subprocess.Popen(["bash", "-euo", "pipefail", "-c", PYTHON.format(ask, told) + sys.argv[1]], pass_fds=(ask, told))
    for end in (ask, told):
        os.close(end)
    for line in open(asked):
        words = line.rstrip("\n").split("\t")
        if (child := os.fork()) == 0:
            break
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.write(tell, f"{status % 256}\n".encode())
    else:
        sys.exit(shell.wait())
    run(words)
