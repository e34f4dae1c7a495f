"""The pairs that the picture scripts show, and where their pictures go."""

from pathlib import Path
from typing import NamedTuple

import torch

from common.device import pick_device
from common.errors import UserError
from common.files import replacing
from common.geometry import position_to_map
from dataset.images import read_part, read_whole
from dataset.vigor import VigorDataset, photograph_of, roll_and_crop
from engine.evaluation.calibration import HeatMap, find_heat_map
from engine.evaluation.comparison import results_folder
from engine.evaluation.conditions import UNITS, Asked, Conditions
from engine.evaluation.prediction import estimate
from engine.evaluation.results import read_results
from model.checkpoint import Loaded, load_model

PHOTO_PX = 640  # width of photographs that are cut out of panoramas for pictures, about; panoramas have no more to show
WHOLE_PX = 2048  # of the longer side of an image that pictures are drawn over, at most


class Samples(NamedTuple):
    """A network and the pairs of a list to show."""

    loaded: Loaded
    device: torch.device
    heat_map: HeatMap
    dataset: VigorDataset
    list_name: str  # such as samearea_test
    indices: list

    def estimate(self, batch, **options):
        """The network's result for a batch on its device, and an `Estimate` of each pair; options go to the network."""
        return estimate(self.loaded.model, batch, self.loaded.settings.temperature, self.heat_map, **options)

    def views(self, i, sample, kind=None):
        """Street image, as the network sees it, and satellite image of pair i at the sizes of their files: (H, W, 3) uint8 each.

        sample: the pair's, whose own images are given where the files are not there, as beside a cache alone.
        kind: of the satellite image, where it is not the pair's.
        """
        dataset, index = self.dataset, self.dataset.index
        row, own = dataset.pairs[i]
        number = index.satellite[row, own if kind is None else kind]
        panorama, satellite = (index.root / path for path in (index.panorama_path(row), index.satellite_path(number)))
        if not (panorama.is_file() and satellite.is_file()):
            return tuple(sample[name].permute(1, 2, 0).numpy() for name in ("panorama", "satellite"))
        street = read_whole(panorama, WHOLE_PX)
        if dataset.cameras and not dataset.photographs:
            size = dataset.cameras.size
            finer = max(1, PHOTO_PX // size[1])
            street = photograph_of(street, dataset.camera_of(row)[0], [finer * side for side in size])
        elif not dataset.photographs:
            street = roll_and_crop(street, float(sample["heading"]), dataset.FoV)[0]
        if index.crop is not None:
            satellite = read_part(satellite, index.crop[number])
        return street, read_whole(satellite, WHOLE_PX)

    def places_px(self):
        """(N, 2) places (row, col) on the map, pixels at zoom 20, of all pairs of the list, by their labels."""
        index, (rows, kinds) = self.dataset.index, self.dataset.pairs.T
        return position_to_map(index.corner(index.satellite[rows, kinds]), index.position[rows, kinds])

    def panorama_name(self, i):
        """File name of the panorama of a pair."""
        return self.dataset.index.panorama[self.dataset.pairs[i][0]].decode()


def open_samples(model_path, device, source, asked, indices, worst=None):
    """The network of a checkpoint or run folder and some pairs: a `Samples`.

    device: a --device value.
    source, asked: where the pairs come from, and under which conditions: a `Source` and what is `Asked`.
    indices: of the pairs in their list.
    worst: so many of the largest errors in metres of the stored evaluation instead, the largest first, under its conditions.

    Raises UserError for an index beyond the list, for conditions that are not those of that evaluation, and where there is none
    or it measured another checkpoint.
    """
    names = {}
    if worst:
        table, _, context = read_results(results_folder(model_path), asked.area, asked.split or "test")
        asked = _conditions_of(context, asked)
        chosen = table.sort_values("error_m", ascending=False, kind="stable")[:worst]
        names = dict(zip(chosen["index"].tolist(), chosen["panorama"], strict=True))
        indices = list(names)
    device = pick_device(device)
    loaded = load_model(model_path, device, **asked.overrides)
    if worst and context["checkpoint_sha256"] != loaded.sha256:
        raise UserError(f"--worst: results/ beside {model_path} measured another checkpoint; evaluate again")
    conditions = Conditions.of(loaded, asked)
    dataset = source.open(conditions, loaded.settings)
    if max(indices) >= len(dataset):
        last = f"has {len(dataset)} pairs, 0 to {len(dataset) - 1}"
        raise UserError(f"--idx {max(indices)}: the {conditions.area} {conditions.split} list {last}")
    heat_map = find_heat_map(loaded, conditions.of_calibration(loaded.area).key)
    samples = Samples(loaded, device, heat_map, dataset, f"{conditions.area}_{conditions.split}", indices)
    for i, name in names.items():
        if samples.panorama_name(i) != name:
            raise UserError(f"--worst: pair {i} was {name} in the evaluation; give its --dataset_root, or evaluate again")
    return samples


def _conditions_of(context, asked):
    """The conditions of a stored evaluation, as `Asked`. UserError where others are asked for."""
    stored = {name: context.get(UNITS.get(name, name)) for name in Asked.names()}
    for name, value in asked.plain().items():
        if value not in (None, stored[name]):
            raise UserError(f"--{name} {value}: the evaluation that --worst reads had {stored[name]}")
    return Asked(**stored)


class Output:
    """The folder that pictures go to, made where it is missing. Raises UserError where that cannot be."""

    def __init__(self, folder, dpi, form):
        self.folder, self.dpi, self.form = Path(folder), dpi, form
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.folder}: cannot be made ({error.strerror}); choose another place with --output_dir") from None

    def save_figure(self, figure, name):
        """Write a figure as `<name>.<format>`, whole or not at all, and say where."""
        path = self.folder / f"{name}.{self.form}"
        with replacing(path) as beside:
            figure.savefig(beside, dpi=self.dpi, format=self.form)
        print(f"picture: {path}")

    def save_report(self, text, name):
        """Write a text report beside a figure, and print it."""
        self.save_text(text, f"{name}.txt")
        print(text, end="")

    def save_text(self, text, file):
        """Write a text file beside a figure."""
        with replacing(self.folder / file) as beside:
            beside.write_text(text)
