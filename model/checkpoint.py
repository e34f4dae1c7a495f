"""Checkpoints: reading and writing ours, and loading networks from ours and from published ones.

Ours      {'format': 'cvm-vigor', 'version': 4, 'settings': of the network, 'view': of its training,
          'args': the run's flags, 'provenance': code and data, 'model': state dict, ...}
Published {'model_state_dict': state dict, 'args': flags or {}, ...}, with `args.yaml` beside it
"""

import argparse
import os
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import yaml

from common.errors import UserError
from common.files import file_hash, replacing
from common.view import View
from efficientnet_pytorch.weights import UNREADABLE, find_faults
from model.build import build_model
from model.matcher import Matcher
from model.published import from_published, published_settings, read_flag
from model.settings import NetworkSettings

# The networks that come with the repository, by the word that flags accept for their file.
_PRETRAINED_FOLDER = Path(__file__).resolve().parent.parent / "runs" / "pretrained"
PRETRAINED = {
    "pretrained": _PRETRAINED_FOLDER / "light.pt",  # for panoramas whose heading is known
    "pretrained_any_heading": _PRETRAINED_FOLDER / "light_any_heading.pt",
    "pretrained_photo": _PRETRAINED_FOLDER / "light_photo.pt",  # for photographs of any heading
}
COMPASS_DEG = 20.0  # largest error of a photograph's heading, which comes from a compass
BEST, LATEST = "best.pt", "latest.pt"  # of a run folder: the network to use, and all that resuming needs
FORMAT, VERSION = "cvm-vigor", 4
# Settings of a run's data, and their values for files that lack them.
DATA = {
    "area": "samearea",
    "labels": "corrected",
    "pos_only": True,
    "train_cities": None,
    "test_cities": None,
}
# Published files may hold their best distance as a NumPy number and their flags as a Namespace.
_SCALAR = np.float64(0).__reduce__()[0]
_HARMLESS = [argparse.Namespace, np.dtype, np.dtypes.Float32DType, np.dtypes.Float64DType]
_HARMLESS += [(_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]  # of NumPy 1 and 2


@dataclass(frozen=True)
class Checkpoint:
    """A network from a file, the `View` of its training and the settings of its data."""

    file: Path
    network: Matcher  # in evaluation mode on its device
    view: View  # of its training
    data: dict  # values of the entries of `DATA`
    published: bool = False
    assumed: tuple = ()  # names of settings that the file does not hold
    root: str | None = None  # of its training data, if the file has it
    fingerprint: str | None = None  # of its training list, if the file has it

    @property
    def settings(self):
        """The network's `NetworkSettings`."""
        return self.network.settings

    @property
    def folder(self):
        """The folder of the checkpoint."""
        return self.file.parent

    @property
    def name(self):
        """The network in words: its file, and the hash that distinguishes files of the same name."""
        return f"{shown_path(self.file)} (sha256 {self.sha256[:12]})"

    @cached_property
    def sha256(self):
        """The hash of the file."""
        return file_hash(self.file)


def pretrained_for(photo, heading_known):
    """The repository's network for a panorama or a photo: (word of `PRETRAINED`, changes to its `View`).

    A photograph's known heading is taken to come from a compass.
    """
    if photo:
        return "pretrained_photo", {"ori_noise": COMPASS_DEG} if heading_known else {}
    return "pretrained" if heading_known else "pretrained_any_heading", {}


def checkpoint_file(path, name=BEST):
    """The file of a checkpoint, which may be given as its run folder or as a word of `PRETRAINED`."""
    path = Path(PRETRAINED.get(str(path), path))
    return path / name if path.is_dir() else path


def shown_path(file):
    """A file as messages and reports name it: relative to the project's folder if it lies inside."""
    project = _PRETRAINED_FOLDER.parent.parent
    return file.relative_to(project) if file.is_relative_to(project) else file


def load_model(path, device="cpu"):
    """The `Checkpoint` of a file, of a run folder's `best.pt` or of a word of `PRETRAINED`.

    Nothing in the file is executed, and every entry must fit. Raises UserError.
    """
    file = checkpoint_file(path)
    content = read_checkpoint(file)
    published = content.get("format") != FORMAT
    try:
        state = content["model_state_dict" if published else "model"]
        state = {name.removeprefix("module."): value for name, value in state.items()}  # of nn.DataParallel
        flags = _published_flags(content, file) if published else content.get("args", {})
        if published:
            settings, view = published_settings(state, flags)
        else:
            settings, view = content["settings"], content["view"]
        data = {name: read_flag(flags.get(name, default), default, name) for name, default in DATA.items()}
        if data["labels"] == "none":
            data["labels"] = DATA["labels"]  # measuring needs some
        network = build_model(NetworkSettings.read(settings, "network"))
        if published:
            state = from_published(state, network)
        elif fault := find_faults(state, {name: value.shape for name, value in network.state_dict().items()}):
            raise ValueError(fault)
        view = View.read(view, "view")
    except (UserError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{file} does not fit this network: {error}") from error
    network.load_state_dict({**network.state_dict(), **state})
    assumed = tuple(name for name in ("num_heads",) if published and name not in flags)
    origin = flags.get("dataset_root"), content.get("provenance", {}).get("data_fingerprint")
    return Checkpoint(file, network.to(device).eval(), view, data, published, assumed, *origin)


def read_checkpoint(file):
    """The dict of a checkpoint, on the CPU; code inside is never run.

    Raises UserError for anything else, for a file whose checksums do not fit its content, and for weights
    that are not finite.
    """
    if not os.path.isfile(file):
        raise UserError(f"{file}: no such checkpoint; give a .pt file, or a run folder that holds {BEST}")
    try:
        _check_sums(file)
        with torch.serialization.safe_globals(_HARMLESS):
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except (*UNREADABLE, zipfile.BadZipFile, zlib.error) as error:
        says = "no readable checkpoint (cut off, not from torch.save, or with code inside)"
        raise UserError(f"{file}: {says}") from error
    neither = "neither a checkpoint of this project nor a published one"
    if not isinstance(checkpoint, dict):
        raise UserError(f"{file} holds a {type(checkpoint).__name__}: {neither}")
    published = checkpoint.get("model_state_dict")
    if checkpoint.get("format") == FORMAT:
        if (version := checkpoint.get("version", 1)) != VERSION:
            says = f"a checkpoint of version {version}, this project reads {VERSION}; train it again"
            raise UserError(f"{file}: {says}")
        good = all(isinstance(checkpoint.get(part), dict) for part in ("model", "settings", "view"))
    else:
        good = isinstance(published, dict) and any("grd_efficientnet." in str(name) for name in published)
    if not good:
        found = ", ".join(map(str, list(checkpoint)[:5])) or "nothing"
        raise UserError(f"{file} holds a dict with {found}: {neither}")
    for name, value in (checkpoint["model"] if published is None else published).items():
        if torch.is_tensor(value) and not value.isfinite().all():
            says = f"the weights {name} are not finite numbers; the training went wrong"
            raise UserError(f"{file}: {says}, use an earlier checkpoint")
    return checkpoint


def _check_sums(file):
    """Raises UserError if a part of torch's archive differs from its checksum, which torch.load ignores."""
    if zipfile.is_zipfile(file):  # files from before PyTorch 1.6 are none
        with zipfile.ZipFile(file) as archive:
            # torch compresses no part, and silently reads nothing from a part that is marked as a folder.
            good = {part.filename: part.file_size == part.compress_size for part in archive.infolist()}
            good |= {part.filename: False for part in archive.infolist() if part.external_attr & 0x10}
            if damaged := archive.testzip() or next((name for name in good if not good[name]), None):
                raise UserError(f"{file}: damaged, {damaged} differs from its checksum; copy the file again")


def save_checkpoint(path, content):
    """Write tensors and plain values as a checkpoint. Raises `Unwritable`; the older file stays then."""
    with replacing(path) as beside, open(beside, "wb") as file:
        try:
            torch.save({"format": FORMAT, "version": VERSION, **content}, file)
        except RuntimeError as error:  # torch closes its archive after a failed write, and fails again
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def _published_flags(checkpoint, file):
    """The flags of a published run: the checkpoint's own, else those of args.yaml beside it, else none."""
    flags = checkpoint.get("args") or {}
    beside = file.parent / "args.yaml"
    if not flags and beside.is_file():
        try:
            flags = yaml.safe_load(beside.read_text("utf-8")) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{beside} is no readable YAML") from error
    return flags if isinstance(flags, dict) else vars(flags)
