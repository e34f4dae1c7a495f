"""Which data set lies in a folder: one in VIGOR's layout, or a public one in its own."""

from pathlib import Path

from common.errors import UserError
from dataset import kitti, opencvl
from dataset.index import AREAS, SPLITS, load_index
from dataset.lists import LABEL_FOLDERS, SATELLITE_LIST

_OTHERS = {"KITTI": kitti, "OpenCVL": opencvl}  # modules with `lies_in` and `load_index`


def other_set(root):
    """(name, module) of the data set in a layout of its own that a folder holds, or None: VIGOR's layout."""
    if any(any(Path(root, folder).glob(f"*/{SATELLITE_LIST}")) for folder, _ in LABEL_FOLDERS.values()):
        return None  # cities may be called anything
    return next(((name, one) for name, one in _OTHERS.items() if one.lies_in(root)), None)


def read_index(root, area="samearea", split="train", labels="corrected", cities=None):
    """The `VigorIndex` of one split of whatever lies in a folder, as of `dataset.index.load_index`.

    Raises UserError.
    """
    found = other_set(root)
    if found is None:
        return load_index(root, area, split, labels, cities)
    name, one = found
    for what, value, allowed in (("area", area, AREAS), ("split", split, SPLITS)):
        if value not in allowed:
            raise UserError(f"{what} {value!r} is not one of {', '.join(allowed)}")
    if labels != "corrected":
        raise UserError(f"--labels {labels}: {root} holds {name}, which has one kind of labels; leave it out")
    return one.load_index(root, area, split, cities)


def refuse_other_sets(root, command):
    """Raises UserError where a folder holds a data set in a layout of its own, which a command is not for."""
    if found := other_set(root):
        raise UserError(
            f"{root}: holds {found[0]}, and {command} is for VIGOR's layout; training and evaluation read it as it is"
        )
