"""What a network is measured on and how it sees it: one class that evaluation, calibration and pictures share."""

from dataclasses import asdict, dataclass, replace

from dataset.index import find_root
from dataset.vigor import open_split


@dataclass(frozen=True)
class Source:
    """Where pairs come from: VIGOR's folder (None: see `find_root`), its cache, and what to do about unreadable images."""

    dataset_root: str | None = None
    cache_root: str | None = None
    on_bad_image: str = "error"

    def open(self, conditions, settings):
        """The pairs of some `Conditions` at the sizes of a network's settings, a `VigorDataset`. Raises UserError."""
        return open_split(
            find_root(self.dataset_root),
            conditions.area,
            conditions.split,
            labels=conditions.labels,
            orientation_file=conditions.orientation_file,
            ori_noise=conditions.ori_noise_deg,
            pos_only=conditions.pos_only,
            seed=conditions.seed,
            cache_root=self.cache_root,
            on_bad_image=self.on_bad_image,
            **settings.images,
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
    orientation_file: str | None = None

    @classmethod
    def of(cls, loaded, **given):
        """Those that a `Loaded` network was trained for, on the test list; what is given and not None replaces them."""
        settings = loaded.settings
        own = cls(loaded.area, "test", loaded.labels, True, settings.ori_noise, settings.FoV)
        return replace(own, **{name: value for name, value in given.items() if value is not None})

    def of_calibration(self, area):
        """The conditions under which the heat map of these is calibrated: the validation part of the network's own area."""
        return replace(self, area=area, split="val", orientation_file=None)

    @property
    def key(self):
        """What a calibration has to agree in, as a dict: everything that changes what a heat map looks like."""
        kept = ("area", "labels", "pos_only", "ori_noise_deg", "FoV_deg")
        return {name: value for name, value in asdict(self).items() if name in kept}
