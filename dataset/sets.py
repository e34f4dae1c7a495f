"""Which data set lies in a folder: one in VIGOR's layout, or a public one in its own.

A data set with its own layout is a module with `lies_in(root)` and `load_index(root, area, split, cities)`,
and an entry of `SETS`. If its panoramas are cropped, its `VIEW` gives their extent. Training, evaluation,
pictures, cache, masks and searches then read its `VigorIndex`.
"""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from common.errors import UserError
from common.geometry import SATELLITE_PX
from dataset import cvusa, kitti, opencvl
from dataset.index import AREAS, SPLITS, check_names, load_index
from dataset.lists import LABEL_FOLDERS, SATELLITE_LIST, label_folders
from dataset.roots import find_root, is_named

NO_LABELS = "none"
SETS = {"KITTI": kitti, "OpenCVL": opencvl, "CVUSA": cvusa}


def other_set(root):
    """(name, module) of the public data set in a folder; None if it has VIGOR's layout."""
    if any(any(Path(root, folder).glob(f"*/{SATELLITE_LIST}")) for folder, _ in LABEL_FOLDERS.values()):
        return None  # cities may be called anything
    return next(((name, module) for name, module in SETS.items() if module.lies_in(root)), None)


def view_of_set(dataset_root=None):
    """Defaults for a `View` from a public data set: {setting: value}. Flags overrule them.

    dataset_root: as in `dataset.roots.find_root`; nothing is drawn.
    """
    found = other_set(find_root(dataset_root)) if is_named(dataset_root) else None
    return dict(getattr(found[1], "VIEW", {})) if found else {}


def read_index(root, area="samearea", split="train", labels="corrected", cities=None):
    """The `VigorIndex` of one split of any data set, with the arguments of `dataset.index.load_index`.

    labels 'none' gives the positive images of any lists and puts all cameras in their middle. Raises
    UserError.
    """
    found = other_set(root)
    if labels == NO_LABELS:
        kind = "corrected" if found else next(iter(label_folders(Path(root))))
        index = read_index(root, area, split, kind, cities)
        return replace(index, position=np.full_like(index.position, SATELLITE_PX / 2), accuracy=None)
    if found is None:
        return load_index(root, area, split, labels, cities)
    name, module = found
    check_names(area=area, split=split)
    if labels != "corrected":
        raise UserError(f"--labels {labels}: {root} holds {name}, which has one kind of labels; leave it out")
    return module.load_index(root, area, split, cities)


def read_all(root, cities=None):
    """All splits of a folder: ({(area, split, cities): `VigorIndex`}, {of unreadable ones: UserError}).

    cities: names, or None for all. Lists that a module's `MORE_LISTS` names instead of cities are read too.
    Raises UserError where nothing can be read.
    """
    found, tables, errors = other_set(root), {}, {}
    labels = "corrected" if found else next(iter(label_folders(Path(root))))
    more = () if cities or not found else getattr(found[1], "MORE_LISTS", ())
    parts = [*product(AREAS, SPLITS, [cities]), *(("crossarea", "test", (name,)) for name in more)]
    for area, split, named in parts:
        try:
            tables[area, split, named] = read_index(root, area, split, labels, named)
        except UserError as error:
            errors[area, split, named] = error
    if not tables:
        raise next(iter(errors.values()))
    return tables, errors
