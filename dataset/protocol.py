"""Settings of the data: the folder, the pairs, their labels and headings; and `open_data`."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from common import geometry
from common.errors import UserError
from common.settings import BOOLEAN, DATASET_ROOT, SEED, TEXT, Choice, Settings, setting
from dataset.decoding import check_file
from dataset.index import AREAS, LABELS, SPLITS
from dataset.lists import root_cities
from dataset.roots import at_hand, find_root
from dataset.sets import NO_LABELS, other_set, read_index
from dataset.vigor import ON_BAD_IMAGE, VigorDataset

_data = partial(setting, group="data")
_CACHE = "small copies of the images, made by python -m dataset.cache"
_BAD_IMAGE = "stop at an unreadable image, or skip its pairs and count them"
_AREA = (
    "samearea: parts of each city's panoramas train and test; crossarea: New York and Seattle train, or "
    "--train_cities, with all of their panoramas"
)
_LABELS = (
    "corrected: splits__corrected; gps: positions from the file names; original: splits; none: for --adapt, "
    "which uses no positions, only which satellite image shows a panorama"
)
_POS_ONLY = "False: half of training uses a semi-positive; evaluation adds those that contain the camera"
_SEED = "seed of random headings, which also depend on the panorama's name"
_ORIENTATIONS = "fixed headings of the test list in degrees, as CCVPE publishes them"


@dataclass(frozen=True)
class Source(Settings):
    """The folder of the pairs, and the handling of unreadable images."""

    dataset_root: str = _data(None, TEXT, DATASET_ROOT, metavar="DIR", free=True)
    cache_root: str = _data(None, TEXT, _CACHE, metavar="DIR", free=True)
    on_bad_image: str = _data("error", Choice(ON_BAD_IMAGE), _BAD_IMAGE, free=True)

    def found(self):
        """The same with the folder resolved; mini-VIGOR is drawn if no other folder is named."""
        return replace(self, dataset_root=str(find_root(self.dataset_root)))

    @property
    def at_hand(self):
        """Whether there is data without drawing mini-VIGOR first."""
        return at_hand(self.dataset_root)


@dataclass(frozen=True)
class Lists(Settings):
    """The lists to read, in training and evaluation."""

    area: str = _data("samearea", Choice(AREAS), _AREA)
    labels: str = _data("corrected", Choice((*LABELS, NO_LABELS)), _LABELS)
    train_cities: tuple = _data(None, TEXT, "cities to train and validate on", metavar="CITY", count="+")
    test_cities: tuple = _data(None, TEXT, "cities to test on", metavar="CITY", count="+")
    pos_only: bool = _data(True, BOOLEAN, _POS_ONLY, metavar="BOOL")


@dataclass(frozen=True)
class Protocol(Lists):
    """The pairs to measure."""

    split: str = _data("test", Choice(SPLITS), "which part of the lists")
    seed: int = _data(0, SEED, _SEED, metavar="N")
    orientation_file: str = _data(None, TEXT, _ORIENTATIONS, metavar="NPY")

    @property
    def cities(self):
        """The names of the cities to read; None: as `dataset.index.load_index` chooses them."""
        return self.test_cities if self.split == "test" else self.train_cities

    def of_validation(self, area):
        """The protocol of the validation part of an area, on which heat maps are calibrated."""
        return replace(self, area=area, split="val", orientation_file=None)


def check_cities(root, given):
    """Raises UserError, with the flag, for a city without lists in a root of VIGOR's layout.

    given: {setting: value}. `train_cities` and `test_cities` are checked, even if this command reads neither.
    """
    named = {name: given.get(name) or () for name in ("train_cities", "test_cities")}
    there = root_cities(root) if any(named.values()) and other_set(root) is None else ()
    for name, cities in named.items():
        if absent := [city for city in cities if there and city not in there]:
            raise UserError(f"--{name} {absent[0]}: {root} has lists of {', '.join(there)}")


def open_data(source, protocol, view, use_mask, training=False):
    """The samples of a `Protocol` as a `View` shows them, a `VigorDataset`. Raises UserError."""
    root = find_root(source.dataset_root)
    index = read_index(root, protocol.area, protocol.split, protocol.labels, protocol.cities)
    if training:  # whose test cities serve its evaluations
        check_cities(root, protocol.plain())
    orientations = None
    if protocol.orientation_file:
        if protocol.split != "test":
            says = f"an orientation file follows the test list and cannot serve for {protocol.split}"
            raise UserError(f"{protocol.orientation_file}: {says}")
        orientations = read_orientations(protocol.orientation_file, len(index))
    options = {"pos_only": protocol.pos_only, "seed": protocol.seed, "cache_root": source.cache_root}
    options |= {"training": training, "on_bad_image": source.on_bad_image, "orientations": orientations}
    return VigorDataset(index, view=view, use_mask=use_mask, **options)


def read_orientations(path, count):
    """Headings, (count,) in degrees, from an .npy file of angles in test-list order, as CCVPE has for VIGOR.

    There, an angle says by how many degrees the north-centred panorama was rolled to the right, so its centre
    looks as far to the left of north: our heading is its negative. Raises UserError.
    """
    takes = "--orientation_file takes an .npy file of one angle for each panorama"
    try:
        angles = np.load(check_file(path, takes), allow_pickle=False)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or 'cannot be read'}; {takes}") from None
    except (ValueError, EOFError):
        raise UserError(f"{path}: not an .npy file of numbers; {takes}") from None
    found = f"{angles.dtype} of shape {angles.shape}" if isinstance(angles, np.ndarray) else "an archive"
    if not isinstance(angles, np.ndarray) or angles.dtype.kind not in "fiu" or angles.shape != (count,):
        needs = f"the test list needs {count} angles in degrees, of shape ({count},)"
        raise UserError(f"{path}: {found}, but {needs}")
    if not np.isfinite(angles).all():
        raise UserError(f"{path}: entry {int(np.isfinite(angles).argmin())} is not a finite number")
    return geometry.wrap_degrees(-angles.astype(np.float64))
