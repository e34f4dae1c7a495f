"""The pairs that the picture scripts show, and where their pictures go."""

from pathlib import Path
from typing import NamedTuple

import torch

from common.errors import UserError
from common.files import replacing
from dataset.vigor import VigorDataset
from engine import run
from engine.evaluation.calibration import HeatMap, find_heat_map
from engine.evaluation.comparison import results_folder
from engine.evaluation.conditions import Conditions
from engine.evaluation.estimate import estimate
from engine.evaluation.results import read_results
from model.checkpoint import Loaded, load_model


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

        def model(*views, **known):
            return self.loaded.model(*views, **known, **options)

        return estimate(model, batch, self.loaded.settings.temperature, self.heat_map)

    def panorama_name(self, i):
        """File name of the panorama of a pair."""
        return self.dataset.index.panorama[self.dataset.pairs[i][0]].decode()


def open_samples(model_path, device, source, given, indices, worst=None):
    """The network of a checkpoint or run folder and some pairs: a `Samples`.

    device: a --device value.
    source, given: where the pairs come from, a `Source`, and conditions by name, None where they follow the run.
    indices: of the pairs in their list.
    worst: so many of the largest errors in metres of the stored evaluation instead, the largest first, under its conditions.

    Raises UserError for an index beyond the list, for conditions that are not those of that evaluation, and where there is none
    or it measured another checkpoint.
    """
    names = {}
    if worst:
        table, _, context = read_results(results_folder(model_path), given["area"], given["split"] or "test")
        given = _conditions_of(context, given)
        chosen = table.sort_values("error_m", ascending=False, kind="stable")[:worst]
        names = dict(zip(chosen["index"].tolist(), chosen["panorama"], strict=True))
        indices = list(names)
    device = run.pick_device(device)
    loaded = load_model(model_path, device, FoV=given["FoV_deg"])
    if worst and context["checkpoint_sha256"] != loaded.sha256:
        raise UserError(f"--worst: results/ beside {model_path} measured another checkpoint; evaluate again")
    conditions = Conditions.of(loaded, **given)
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


def _conditions_of(context, given):
    """The conditions of a stored evaluation. UserError where others are given."""
    for name, value in given.items():
        if value is not None and value != context[name]:
            raise UserError(f"--{name.removesuffix('_deg')} {value}: the evaluation that --worst reads had {context[name]}")
    return {name: context[name] for name in given}


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
        with replacing(self.folder / f"{name}.txt") as beside:
            beside.write_text(text)
        print(text, end="")
