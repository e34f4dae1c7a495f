"""A run: its folder, its settings, its revision of the code, its random numbers and its device.

PyTorch is imported where it is used: every script takes its flags with the help of this file, and --help should not wait.
"""

import ctypes
import os
import signal
import subprocess
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import yaml

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
PROJECT = Path(__file__).resolve().parent.parent


class RunError(Exception):
    """Flags, a run folder or a device that cannot be used; one line that says why and what to do."""


def run_name(args):
    """What a new run folder of training is called, after its time; as published."""
    return (
        f"{args.area}_nL{args.n_layer}_T{args.temperature:g}_wd{args.weight_decay:g}"
        f"_useMask{args.use_mask}_useMixStyle{args.use_mixstyle}_mix_{args.mixstyle_mix}"
    )


def create_folder(parent, name):
    """A new folder `<time>_<name>` under `parent`. Two runs that start in the same second get two folders."""
    parent = Path(parent)
    stem = f"{datetime.now():%Y%m%d_%H%M%S}_{name}"
    for attempt in range(1000):
        folder = parent / (stem if attempt == 0 else f"{stem}_{attempt}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            continue
        except OSError as error:
            raise RunError(f"{folder}: cannot be made ({error.strerror}); choose another place with --runs_root") from None
    raise RunError(f"{parent / stem}: a thousand runs of that name exist")


def write_args(folder, args):
    """args.yaml: every flag, the git revision and the versions that the run stands on."""
    import torch

    record = {**args, "git_revision": git_revision(), "torch_version": str(torch.__version__)}
    (Path(folder) / "args.yaml").write_text(yaml.safe_dump(record, sort_keys=True))


def read_args(folder):
    """What `write_args` wrote, or what a published run folder holds; an empty dict where there is no file."""
    path = Path(folder) / "args.yaml"
    if not path.exists():
        return {}
    try:
        record = yaml.safe_load(path.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: not a YAML file ({' '.join(str(error).split())})") from None
    if not isinstance(record, dict):
        raise RunError(f"{path}: holds no settings by name")
    return {
        name: {"True": True, "False": False}.get(value, value) if isinstance(value, str) else value
        for name, value in record.items()
    }


def git_revision():
    """The commit of the code, with '+' where the working tree differs; 'unknown' outside a git checkout."""

    def git(*words):
        return subprocess.run(["git", "-C", str(PROJECT), *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def pick_device(name):
    """The torch device of a --device value: 'auto', 'cpu', 'cuda', 'cuda:1', ... The CPU is made ready for large tensors."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RunError(f"--device {name} cannot be used here ({str(error).splitlines()[0]}); --device cpu always works") from None
    if device.type == "cpu":
        keep_freed_memory()
    return device


def keep_freed_memory():
    """Let this process keep the memory that it frees, for its next tensors. Where the C library is not glibc, nothing happens.

    glibc hands blocks of 32 MB and more back to the kernel at once, and takes every page of them anew, zeroed, for the next
    tensor: a third of the time of a training step at 512 px went there. Peak memory stays as it was.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def configure_gpu(tf32, deterministic):
    """Speed against exactness on a GPU; the CPU is exact by itself.

    tf32: float32 products round their inputs to 10 bits, several times faster · deterministic: the same bits in every run,
    some operations slower; torch raises RuntimeError at an operation that has no such form.
    """
    import torch

    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = not deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


def seed_step(seed, epoch, step, rank=0):
    """Seed every generator that a training step draws from, so that the draws depend on nothing that came before."""
    import torch

    state = int(np.random.SeedSequence([seed, epoch, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))
    torch.manual_seed(state)


class StopRequest:
    """Within a `with` block Ctrl-C and SIGTERM become a request to stop at the next good moment: the object becomes true.

    A second Ctrl-C, a second or more after the first, stops at once. (torchrun passes a terminal's Ctrl-C on, so that its
    processes get it twice.)
    """

    def __init__(self):
        self.signal, self._since = None, 0.0

    def __enter__(self):
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
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
        """What the process should exit with: 130 after Ctrl-C, 0 after SIGTERM."""
        return 130 if self.signal == signal.SIGINT else 0
