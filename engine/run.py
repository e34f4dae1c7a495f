"""A run: its folder, what is made with its network, its revision of the code, its random numbers, a GPU."""

import os
import shlex
import subprocess
import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import numpy as np
import torch
import yaml

from common.errors import UserError
from common.files import write_bytes, writing
from model.checkpoint import PRETRAINED, checkpoint_file

PROJECT = Path(__file__).resolve().parent.parent
MADE = Path("runs/VIGOR/pretrained")  # what is made with the repository's networks, a folder for each


def run_name(area, settings, weight_decay):
    """The name of a new training run's folder after its time, from its `NetworkSettings`; as published."""
    n = settings
    network = f"nL{n.n_layer}" if n.network == "published" else n.network
    network += f"_nL{n.n_layer}" if n.network == "ground_plane" else ""
    mixing = f"useMixStyle{n.use_mixstyle}_mix_{n.mixstyle_mix}"
    return f"{area}_{network}_T{n.temperature:g}_wd{weight_decay:g}_useMask{n.use_mask}_{mixing}"


def made_folder(model_path):
    """Where results, pictures, indexes and fits of a checkpoint, a run folder or a word of `PRETRAINED` go.

    Beside the checkpoint, but for the repository's networks: theirs goes to `MADE`, never among its files.
    """
    file = checkpoint_file(model_path)
    shipped = file.resolve() in [path.resolve() for path in PRETRAINED.values()]
    return MADE / file.stem if shipped else file.parent


def network_of(folder):
    """What `load_model` takes as the network of a folder of results: undoes `made_folder`."""
    shipped = {made_folder(word).resolve(): word for word in PRETRAINED}
    return shipped.get(Path(folder).resolve(), folder)


def create_folder(parent, name):
    """A new folder `<time>_<name>` under `parent`. Two runs that start in the same second get two folders."""
    stem = f"{datetime.now():%Y%m%d_%H%M%S}_{name}"
    with writing(Path(parent, stem), "choose another place with --runs_root"):
        for attempt in range(1000):
            folder = Path(parent, f"{stem}_{attempt}" if attempt else stem)
            with suppress(FileExistsError):
                folder.mkdir(parents=True)
                return folder
    raise UserError(f"{Path(parent, stem)}: a thousand runs of that name exist")


def provenance(checkpoint=None, index=None, protocol=None, view=None):
    """What a result stands on, so that two numbers that differ can be traced: a flat dict for JSON.

    The code's revision, PyTorch's version and the command; of a `Checkpoint` its file and hash; of a
    `VigorIndex` its root and fingerprint; what a `Protocol` and a `View` ask.
    """
    record = {"git_revision": git_revision(), "torch_version": str(torch.__version__)}
    record["command"] = shlex.join(sys.argv)
    if checkpoint:
        record |= {"model_path": str(checkpoint.file), "checkpoint_sha256": checkpoint.sha256}
        record["published"] = checkpoint.published
    if index:
        record |= {"dataset_root": str(index.root), "data_fingerprint": index.fingerprint}
    return record | (protocol.plain() if protocol else {}) | (view.conditions if view else {})


def write_args(folder, flags):
    """args.yaml: every flag, and what `provenance` says."""
    record = {**flags, **provenance()}
    write_bytes(Path(folder) / "args.yaml", yaml.safe_dump(record, sort_keys=True).encode())


def git_revision():
    """The commit of the code, with '+' where the working tree differs; 'unknown' outside a git checkout."""

    def git(*words):
        words = ["git", "-C", str(PROJECT), *words]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def configure_gpu(tf32, deterministic):
    """Speed against exactness on a GPU; the CPU is exact by itself.

    tf32: float32 products round their inputs to 10 bits, several times faster. deterministic: the same bits
    in every run, some operations slower; torch raises RuntimeError where an operation has no such form.
    """
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = not deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


def seed_step(seed, epoch, step, rank=0):
    """Seed every generator that a training step draws from, so that draws do not depend on earlier ones."""
    words = np.random.SeedSequence([seed, epoch, step, rank]).generate_state(1, np.uint64)
    torch.manual_seed(int(words[0] >> np.uint64(1)))
