"""What a network is measured on and how it sees it: the same for training, evaluation, calibration and pictures."""

import os
from dataclasses import dataclass, fields, replace
from functools import partial

import torch

from common.camera import Pinhole
from common.errors import UserError
from common.flags import (
    BOOLEAN,
    COUNT_OR_NONE,
    DATASET_ROOT,
    FIELD_OF_VIEW,
    HEADING_NOISE,
    POSITIVE,
    TEXT,
    Check,
    Choice,
    Settings,
    setting,
)
from dataset.index import AREAS, LABELS, MINI_VIGOR, SPLITS, find_root
from dataset.vigor import ON_BAD_IMAGE, open_split
from engine.evaluation.tta import FORMS, check_view
from model.settings import ANGLE, HFOV, TILT

_data = partial(setting, group="data")
FORMS_CHOICE = Check(f"1 or {FORMS}", lambda value: value in (1, FORMS), int)
TRAIN_CITIES, TEST_CITIES = "cities of the folder that train and val are of", "cities of the folder that test is of"
UNITS = {  # flags that tell no unit -> names that do
    **{name: f"{name}_deg" for name in ("ori_noise", "FoV", "hfov", "pitch", "roll", "tilt_noise")},
    "camera_height": "camera_height_m",
}
OF_PHOTOGRAPHS = ("camera", "hfov", "pitch", "roll", "tilt_noise", "aspect", "photo_width")  # settings of a network


def photographs(settings):
    """Fields of `Conditions` that a network's settings have for photographs, as a dict; none for panoramas."""
    if settings.camera == "panorama":
        return {}
    return {UNITS.get(name, name): getattr(settings, name) for name in OF_PHOTOGRAPHS}


def as_taken(cameras):
    """The same of photographs that are there: how wide they are, and how far they are tilted. cameras: (N, 12)."""
    taken = Pinhole(torch.from_numpy(cameras))
    hfov, pitch, roll = (angle.numpy().round(1) for angle in (taken.hfov, taken.pitch.abs(), taken.roll.abs()))
    return {"hfov_deg": [float(hfov.min()), float(hfov.max())], "pitch_deg": float(pitch.max()), "roll_deg": float(roll.max())}


@dataclass(frozen=True)
class Source(Settings):
    """Where pairs come from, and what becomes of those that cannot be read."""

    dataset_root: str = _data(None, TEXT, DATASET_ROOT, metavar="DIR", free=True)
    cache_root: str = _data(None, TEXT, "small copies of the images, made by python -m dataset.cache", metavar="DIR", free=True)
    on_bad_image: str = _data(
        "error", Choice(ON_BAD_IMAGE), "stop at an unreadable image, or drop its pairs and count them", free=True
    )

    def found(self):
        """The same with the folder of the data found, by `find_root`."""
        return replace(self, dataset_root=str(find_root(self.dataset_root)))

    @property
    def at_hand(self):
        """Whether there is data without drawing mini-VIGOR first."""
        return bool(self.dataset_root or os.environ.get("VIGOR_ROOT") or MINI_VIGOR.is_dir())

    def open(self, conditions, settings, training=False):
        """The pairs of some `Conditions` at the sizes of a network's settings, a `VigorDataset`. Raises UserError."""
        return open_split(
            find_root(self.dataset_root),
            conditions.area,
            conditions.split,
            labels=conditions.labels,
            cities=conditions.cities,
            orientation_file=conditions.orientation_file,
            ori_noise=conditions.ori_noise_deg,
            pos_only=conditions.pos_only,
            seed=conditions.seed,
            training=training,
            cache_root=self.cache_root,
            on_bad_image=self.on_bad_image,
            **settings.images,
        )


@dataclass(frozen=True)
class AskedPanoramas(Settings):
    """Conditions of panoramas as flags ask for them; None leaves one as the network was trained, or as in parentheses."""

    area: str = _data(None, Choice(AREAS), "default: the area that the network was trained for")
    train_cities: tuple = _data(None, TEXT, f"{TRAIN_CITIES} (default: as trained)", metavar="CITY", count="+")
    test_cities: tuple = _data(None, TEXT, f"{TEST_CITIES} (default: as trained)", metavar="CITY", count="+")
    split: str = _data(None, Choice(SPLITS), "which part (default: test)")
    labels: str = _data(None, Choice(LABELS), "splits__corrected, positions from the file names, or splits (default: as trained)")
    ori_noise: float = _data(None, HEADING_NOISE, "headings within +- degrees (default: as trained)", metavar="DEG")
    FoV: float = _data(
        None, FIELD_OF_VIEW, "degrees of the panorama that are kept (default: as trained)", metavar="DEG", short="-f"
    )
    hfov: tuple = _data(
        None, HFOV, "horizontal field of view of photographs, from and to, or one (default: as trained)", metavar="DEG", count="+"
    )
    pitch: float = _data(
        None,
        ANGLE,
        "how far photographs look up or down, as told (default: as trained); your own: upwards",
        metavar="DEG",
    )
    roll: float = _data(
        None, ANGLE, "how far photographs are turned, as told (default: as trained); your own: clockwise", metavar="DEG"
    )
    tilt_noise: float = _data(None, TILT, "by how much the told pitch and roll may be wrong (default: as trained)", metavar="DEG")
    camera_height: float = _data(
        None,
        POSITIVE,
        "of cameras above the street, where that is known (default: as trained; of several heights all)",
        metavar="M",
    )
    seed: int = _data(None, COUNT_OR_NONE, "of the headings, with each panorama's name (default: 0)", metavar="N")
    orientation_file: str = _data(None, TEXT, "fixed headings of the test list: degrees as CCVPE publishes them", metavar="NPY")

    @property
    def overrides(self):
        """What the network has to be loaded with, as `load_model` takes it."""
        own = {name: getattr(self, name) for name in self.names() if name in ("FoV", "tta", "camera_height", *OF_PHOTOGRAPHS)}
        return own | {"told_within": self.ori_noise}


@dataclass(frozen=True)
class Asked(AskedPanoramas):
    """Those, and which satellite images a panorama is looked for in, and how often."""

    pos_only: bool = _data(
        None,
        BOOLEAN,
        "False: also the semi-positives that contain the panorama, each behind its positive (default: True)",
        metavar="BOOL",
    )
    tta: int = _data(
        None,
        FORMS_CHOICE,
        "8: mean over the pair mirrored and turned by quarters, eight times the work (default: 1; for your own images with the "
        "repository's networks 8)",
        metavar="N",
    )


@dataclass(frozen=True)
class Conditions:
    """Which pairs, with which labels and headings, and how wide a view; summaries and calibrations keep them by these names."""

    area: str
    split: str
    labels: str
    pos_only: bool
    ori_noise_deg: float
    FoV_deg: float
    seed: int = 0
    tta: int = 1
    orientation_file: str | None = None
    train_cities: tuple | None = None
    test_cities: tuple | None = None
    camera_height_m: float | None = None
    camera: str | None = None
    hfov_deg: tuple | None = None
    pitch_deg: float | None = None
    roll_deg: float | None = None
    tilt_noise_deg: float | None = None
    aspect: str | None = None
    photo_width: int | None = None

    @classmethod
    def of(cls, loaded, asked=None):
        """Those that a `Loaded` network was trained for, on the test list, but for what is `Asked`. Raises UserError."""
        settings = loaded.settings
        check_view(settings, loaded.model.tta)
        seen = True, settings.ori_noise, settings.FoV
        cities = {"train_cities": loaded.train_cities, "test_cities": loaded.test_cities}
        own = cls(loaded.area, "test", loaded.labels, *seen, tta=loaded.model.tta, **cities, **photographs(settings))
        asked = asked or Asked()
        for name in asked.names():
            if name in OF_PHOTOGRAPHS and settings.camera == "panorama" and getattr(asked, name) is not None:
                raise UserError(f"--{name} is of photographs, but {loaded.file} is a network for panoramas")
        names = [name for name in asked.names() if name not in OF_PHOTOGRAPHS]  # those are settings of the network already
        given = {UNITS.get(name, name): getattr(asked, name) for name in names}
        return replace(own, **{name: value for name, value in given.items() if value is not None})

    @property
    def cities(self):
        """The names of the cities to read, None: as `dataset.index.load_index` chooses them."""
        return self.test_cities if self.split == "test" else self.train_cities

    def plain(self):
        """As a dict of numbers, words and lists, for JSON; without cities that nobody named, and what is of photographs alone."""
        values = {part.name: getattr(self, part.name) for part in fields(self)}
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return {name: value for name, value in values.items() if value is not None or name == "orientation_file"}

    def of_calibration(self, area):
        """The conditions under which the heat map of these is calibrated: the validation part of the network's own area."""
        return replace(self, area=area, split="val", orientation_file=None)

    @property
    def key(self):
        """What a calibration has to agree in, as a dict: everything that changes what a heat map looks like."""
        kept = (
            "area",
            "labels",
            "pos_only",
            "ori_noise_deg",
            "FoV_deg",
            "train_cities",
            *(UNITS.get(n, n) for n in OF_PHOTOGRAPHS),
        )
        key = {name: value for name, value in self.plain().items() if name in kept}
        return key | ({"tta": self.tta} if self.tta > 1 else {})
