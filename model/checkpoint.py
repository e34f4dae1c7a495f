"""Checkpoints: reading and writing ours, and the network of any, ours or a published one.

Ours      {'format': 'cvm-vigor', 'version': 3, 'settings': model settings, 'args': the run's flags, 'model': state dict, ...}
Published {'model_state_dict': state dict, 'args': flags or {}, ...}, with `args.yaml` beside it in the run folder

Ours of version 2 name the network by its matching. Those of version 1, which name no version, also call a feature by its block
and the panorama's stream 'ground'.
"""

import argparse
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import yaml

from common.errors import UserError
from common.files import file_hash, replacing
from efficientnet_pytorch.weights import UNREADABLE, find_faults
from model.build import build_model
from model.matcher import Matcher
from model.published import BLOCKS, from_published, published_settings, read_flag
from model.settings import ModelSettings

# The networks that come with the repository, by the word that stands for their file.
_PRETRAINED_FOLDER = Path(__file__).resolve().parent.parent / "runs" / "pretrained"
PRETRAINED = {
    "pretrained": _PRETRAINED_FOLDER / "light.pt",  # for panoramas whose heading is known
    "pretrained_any_heading": _PRETRAINED_FOLDER / "light_any_heading.pt",
    "pretrained_photo": _PRETRAINED_FOLDER / "light_photo.pt",  # for photographs, of any heading
}
COMPASS_DEG = 20.0  # how far a photograph's heading, a compass's, may be wrong
BEST, LATEST = "best.pt", "latest.pt"  # of a run folder: the network to use, and all that is needed to go on
FORMAT, VERSION = "cvm-vigor", 3
# Of the data; what holds where a run does not say. No cities: those of the folder that the area chooses.
RUN = {"area": "samearea", "labels": "corrected", "pos_only": True, "train_cities": None, "test_cities": None}
# Published files may carry their best distance as a NumPy number and their flags as a Namespace: data, not code.
_SCALAR = np.float64(0).__reduce__()[0]
_HARMLESS = [argparse.Namespace, np.dtype, np.dtypes.Float32DType, np.dtypes.Float64DType]
_HARMLESS += [(_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]  # NumPy 1's and 2's name for it


@dataclass(frozen=True)
class Loaded:
    """A network from a checkpoint, and what its run says of the data that it learned from.

    file: the checkpoint itself · published: whether it is a published one · assumed: names of settings that it does not tell.
    """

    file: Path
    model: Matcher
    area: str
    labels: str
    pos_only: bool
    train_cities: tuple | None
    test_cities: tuple | None
    published: bool = False
    assumed: tuple = ()

    @property
    def settings(self):
        """The network's `ModelSettings`."""
        return self.model.settings

    @property
    def folder(self):
        """Where the checkpoint lies, and what is made from it belongs."""
        return self.file.parent

    @cached_property
    def sha256(self):
        """The hash of the file."""
        return file_hash(self.file)


def pretrained_for(photo, heading_known):
    """Which network of the repository a street image is for: (its word of `PRETRAINED`, options of `load_model`).

    photo: whether it is a photograph, whose heading, where it is known, is a compass's.
    """
    if photo:
        return "pretrained_photo", {"told_within": COMPASS_DEG if heading_known else None}
    return "pretrained" if heading_known else "pretrained_any_heading", {}


def checkpoint_file(path, name=BEST):
    """The file of a checkpoint that may be given as its run folder, or as a word of `PRETRAINED`."""
    path = Path(PRETRAINED.get(str(path), path))
    return path / name if path.is_dir() else path


def load_model(path, device="cpu", *, tta=None, told_within=None, camera_height=None, **overrides):
    """The network of a checkpoint, ours or published, in evaluation mode on a device: a `Loaded`.

    path: the file, or a run folder with `best.pt`. Nothing in it is executed, and every entry has to fit.
    tta: forms of a pair to average over; None: 1.
    told_within: degrees to each side by which photographs' headings are told; a network for photographs that was trained for more
    looks no further.
    camera_height: of the cameras above the street, metres, where it is known: a network for several heights then tries no other.
    overrides: settings to build the network with instead of its own, where not None; `FoV` fits any weights.
    Raises UserError.
    """
    file = checkpoint_file(path)
    checkpoint = read_checkpoint(file)
    published = checkpoint.get("format") != FORMAT
    overrides = {name: value for name, value in overrides.items() if value is not None}
    try:
        state = {
            name.removeprefix("module."): value  # nn.DataParallel's
            for name, value in checkpoint["model_state_dict" if published else "model"].items()
        }
        flags = _published_flags(checkpoint, file) if published else checkpoint.get("args", {})
        settings = published_settings(state, flags) if published else checkpoint["settings"]
        run = {name: read_flag(flags.get(name, default), default, name) for name, default in RUN.items()}
        read = replace(ModelSettings.read(settings), **overrides)  # what follows from its own settings stays
        if told_within is not None and read.cameras:
            read = replace(read, ori_noise=min(read.ori_noise, told_within))
        if camera_height is not None:
            read = replace(read, camera_height=camera_height, height_factor=1.0)
        model = build_model(read)
        if published:
            state = from_published(state, model)
        elif fault := find_faults(state, {name: value.shape for name, value in model.state_dict().items()}):
            raise ValueError(fault)
    except (UserError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{file} does not fit this network: {error}") from error
    if camera_height is not None and not model.matching.has_templates:
        raise UserError(f"--camera_height: {file} lays nothing out on the ground; networks light and ground_plane do")
    model.load_state_dict({**model.state_dict(), **state})
    model.tta = tta or 1
    assumed = tuple(name for name in ("num_heads",) if published and name not in flags)
    return Loaded(file, model.to(device).eval(), **run, published=published, assumed=assumed)


def read_checkpoint(file):
    """The dict of a checkpoint, on the CPU, ours under today's names; code inside is never run. UserError for anything else."""
    if not Path(file).is_file():
        raise UserError(f"{file}: no such checkpoint; give a .pt file, or a run folder that holds {BEST}")
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise UserError(f"{file}: no readable checkpoint (cut off, not from torch.save, or with code inside)") from error
    neither = "neither a checkpoint of this project nor a published one"
    if not isinstance(checkpoint, dict):
        raise UserError(f"{file} holds a {type(checkpoint).__name__}: {neither}")
    published = checkpoint.get("model_state_dict")
    if checkpoint.get("format") == FORMAT:
        if checkpoint.get("version", 1) > VERSION:
            raise UserError(
                f"{file}: of a newer version of this project ({checkpoint['version']}, this one reads up to {VERSION})"
            )
        good = isinstance(checkpoint.get("model"), dict) and isinstance(checkpoint.get("settings"), dict)
    else:
        good = isinstance(published, dict) and any("grd_efficientnet." in str(name) for name in published)
    if not good:
        found = ", ".join(map(str, list(checkpoint)[:5])) or "nothing"
        raise UserError(f"{file} holds a dict with {found}: {neither}")
    return _upgrade(checkpoint) if checkpoint.get("format") == FORMAT else checkpoint


def save_checkpoint(path, content):
    """Write a dict of tensors and plain values as a checkpoint of this project.

    Raises OSError, whose strerror says why, where that fails (a full disk); the older file then stays.
    """
    with replacing(path) as beside, open(beside, "wb") as file:
        try:
            torch.save({"format": FORMAT, "version": VERSION, **content}, file)
        except RuntimeError as error:  # torch closes its archive after a failed write, and fails again
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def _upgrade(checkpoint):
    """A checkpoint of ours under today's names."""
    version = checkpoint.get("version", 1)
    for part in (checkpoint["settings"], checkpoint.get("args")):
        if part and "tilt_noise" in part:
            part.setdefault("estimate_tilt", False)  # no network did before there was a head for it
    if version < 2:
        for part in ("model", "average"):
            if checkpoint.get(part):
                checkpoint[part] = {_name_of_version_2(name): value for name, value in checkpoint[part].items()}
    if version < 3:
        for part in ("settings", "args"):
            if "matching" in checkpoint.get(part, {}):
                checkpoint[part]["network"] = checkpoint[part].pop("matching")
    return {**checkpoint, "version": VERSION}


def _name_of_version_2(name):
    strides = {str(block): str(stride) for block, stride in BLOCKS.items()}
    name = re.sub(r"^(decoder\.stages|matching\.\w+)\.(\d+)", lambda found: f"{found[1]}.{strides[found[2]]}", name)
    return name.replace("ground_", "panorama_").replace("_ground", "_panorama") if name.startswith("fusion.") else name


def _published_flags(checkpoint, file):
    """The flags of a published run: the checkpoint's own, else those of args.yaml beside it, else none."""
    flags = checkpoint.get("args") or {}
    beside = file.parent / "args.yaml"
    if not flags and beside.is_file():
        try:
            flags = yaml.safe_load(beside.read_text()) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{beside} is no readable YAML") from error
    return flags if isinstance(flags, dict) else vars(flags)
