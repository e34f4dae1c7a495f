"""The folder of the data: the one given, VIGOR_ROOT's, or mini-VIGOR, which is drawn on first use."""

import os
from pathlib import Path

MINI_VIGOR = Path(__file__).resolve().parent.parent / "data" / "mini_vigor"


def is_named(dataset_root=None):
    """Whether a folder is named, by the argument or by VIGOR_ROOT."""
    return bool(dataset_root or os.environ.get("VIGOR_ROOT"))


def at_hand(dataset_root=None):
    """Whether there is data without drawing mini-VIGOR first."""
    return is_named(dataset_root) or MINI_VIGOR.is_dir()


def find_root(dataset_root=None):
    """The folder to read: the one given, else VIGOR_ROOT's, else mini-VIGOR, drawn if it is not there yet."""
    if given := dataset_root or os.environ.get("VIGOR_ROOT"):
        return Path(given)
    from dataset.mini_vigor.writer import make  # drawing takes imports that only this case needs

    print(f"no --dataset_root and no VIGOR_ROOT: using the synthetic mini-VIGOR in {MINI_VIGOR}")
    make(MINI_VIGOR)
    return MINI_VIGOR
