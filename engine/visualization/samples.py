"""The pairs that the picture scripts show, and where their pictures go."""

import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from common.device import pick_device
from common.errors import UserError
from common.files import replacing, write_bytes
from common.geometry import position_to_map
from common.view import View
from common.words import in_words
from dataset.augment import cut
from dataset.images import read_part, read_whole
from dataset.loader import collate
from dataset.protocol import Protocol, open_data
from dataset.sets import view_of_set
from dataset.vigor import VigorDataset, roll_panorama
from engine import run
from engine.evaluation.comparison import results_folder
from engine.evaluation.results import prepare_folder, read_results
from engine.inference.asked import asked_protocol, asked_view
from engine.inference.predictor import Predictor, to_device
from engine.inference.reliability import HeatMap
from engine.inference.temperatures import conditions_key, find_heat_map
from model.checkpoint import Checkpoint, load_model

PHOTO_PX = 640  # width, about, of photographs that are cut out of panoramas; panoramas have no more detail
WHOLE_PX = 2048  # of the longer side of an image that pictures are drawn over, at most


class Samples(NamedTuple):
    """A network with its view, and the pairs of a list to show."""

    checkpoint: Checkpoint
    predictor: Predictor
    heat_map: HeatMap
    dataset: VigorDataset
    list_name: str  # such as samearea_test
    indices: list
    protocol: Protocol

    def provenance(self):
        """Provenance of these pairs' pictures, see `engine.run.provenance`."""
        return run.provenance(self.checkpoint, self.dataset.index, self.protocol, self.predictor.view)

    def batch(self, samples):
        """Samples as a batch on the network's device."""
        return to_device(collate(samples), self.predictor.device)

    def estimates(self, samples, **options):
        """The `Prediction` for samples, and an `Estimate` of each. options: those of `Predictor.__call__`."""
        return self.predictor.estimates(self.batch(samples), self.heat_map, **options)

    def views(self, i, sample, kind=None):
        """Street image, as the network sees it, and satellite image of pair i, (H, W, 3) uint8 each.

        They are as large as their files; without files, as with a cache alone, they are those of the sample.
        kind: the satellite image's, if it is not the pair's.
        """
        index, view = self.dataset.index, self.predictor.view
        row, own = self.dataset.pairs[i]
        number = index.satellite[row, own if kind is None else kind]
        image = index.satellite_image(number)
        street, satellite = index.root / index.panorama_image(row).path, index.root / image.path
        if not (street.is_file() and satellite.is_file()):
            street, satellite = (sample[name].permute(1, 2, 0).numpy() for name in ("query", "satellite"))
            return as_seen(street, sample, view), satellite
        if image.crop:
            satellite = read_part(satellite, image.crop)
        turned = float(sample["heading"]) if sample["camera"].kind == "panorama" else 0.0
        return as_seen(read_whole(street, WHOLE_PX), sample, view, turned), read_whole(satellite, WHOLE_PX)

    def places_px(self):
        """(N, 2) labelled positions (row, col) on the map, pixels at zoom 20, of all pairs of the list."""
        index, (rows, kinds) = self.dataset.index, self.dataset.pairs.T
        return position_to_map(index.corner(index.satellite[rows, kinds]), index.position[rows, kinds])

    def panorama_name(self, i):
        """File name of the panorama of a pair."""
        return self.dataset.index.panorama[self.dataset.pairs[i][0]].decode()


def as_seen(image, sample, view, turned=0.0):
    """A street image (H, W, 3) uint8 of any size, turned by degrees, then cropped by a network's `View`.

    sample: its `camera`, and `taken` if the network sees a photograph cut out of a panorama.
    """
    image = np.ascontiguousarray(roll_panorama(image, turned)[0])
    cameras = collate([{name: sample[name] for name in ("camera", "taken") if name in sample}])
    finer = max(1, PHOTO_PX // view.photo_width)
    batch = cameras | {"query": torch.from_numpy(image).permute(2, 0, 1)[None]}
    seen = cut(batch, replace(view, photo_width=finer * view.photo_width))["query"][0]
    return seen.round().byte().permute(1, 2, 0).numpy()


def open_samples(model_path, device, source, given, indices, worst=None):
    """The network of a checkpoint or run folder and some pairs: `Samples`.

    device: a --device value.
    source: where the pairs come from, a `Source`.
    given: {name: value} of settings of `Protocol` and `View` that differ from those of training.
    indices: of the pairs in their list.
    worst: instead, number of pairs with the largest errors in metres of the stored evaluation, in its view.

    Raises UserError for an index beyond the list, for settings that do not apply or differ from those of
    that evaluation, and if it is missing or measured another checkpoint.
    """
    names = {}
    if worst:
        asked = given.get("area"), given.get("split", "test")
        table, _, context = read_results(results_folder(model_path), *asked)
        given = _as_evaluated(context, given)
        chosen = table.sort_values("error_m", ascending=False, kind="stable")[:worst]
        names = dict(zip(chosen["index"].tolist(), chosen["panorama"], strict=True))
        indices = list(names)
    device = pick_device(device)
    checkpoint = load_model(model_path, device)
    if worst and context["checkpoint_sha256"] != checkpoint.sha256:
        raise UserError(f"--worst: results/ beside {model_path} measured another checkpoint; evaluate again")
    view = asked_view(checkpoint, given, view_of_set(source.dataset_root))
    protocol = asked_protocol(checkpoint, given, None if worst else source)
    dataset = open_data(source, protocol, view, checkpoint.settings.use_mask)
    list_name = f"{protocol.area}_{protocol.split}"
    if max(indices) >= (count := len(dataset)):
        says = f"the {protocol.area} {protocol.split} list has {count} pairs, 0 to {count - 1}"
        raise UserError(f"--idx {max(indices)}: {says}")
    key = conditions_key(checkpoint, protocol.of_validation(checkpoint.data["area"]), view)
    heat_map, predictor = find_heat_map(checkpoint, key), Predictor(checkpoint.network, view, device)
    samples = Samples(checkpoint, predictor, heat_map, dataset, list_name, indices, protocol)
    for i, name in names.items():
        if samples.panorama_name(i) != name:
            says = f"pair {i} was {name} in the evaluation; give its --dataset_root, or evaluate again"
            raise UserError(f"--worst: {says}")
    return samples


def _as_evaluated(context, given):
    """The settings of a stored evaluation, {name: value}. Raises UserError where `given` has others."""
    names = (*Protocol.names(), *View.names())
    stored = {name: context[name] for name in names if context.get(name) is not None}
    for name, value in given.items():
        if (list(value) if isinstance(value, tuple) else value) != stored.get(name):
            raise UserError(f"--{name} {value}: the evaluation that --worst reads had {stored.get(name)}")
    return stored


class Output:
    """The folder of the pictures, created if it is missing. Raises UserError if it cannot be written."""

    def __init__(self, folder, dpi, form):
        self.folder, self.dpi, self.form = Path(folder), dpi, form
        self.about = {}  # what is recorded in texts and GeoJSON, as of `engine.run.provenance`
        prepare_folder(self.folder)

    def save_figure(self, figure, name):
        """Write a figure as `<name>.<format>`, atomically, and print its path."""
        path = self.folder / f"{name}.{self.form}"
        with replacing(path) as beside:
            figure.savefig(beside, dpi=self.dpi, format=self.form)
        print(f"picture: {path}")

    def save_report(self, text, name):
        """Write a text report with its provenance beside a figure, and print the report."""
        about = "".join(f"{key}: {in_words(value)}\n" for key, value in self.about.items())
        self.save_text(f"{text}\n{about}", f"{name}.txt")
        print(text, end="")

    def save_geojson(self, text, name):
        """Write GeoJSON beside a figure, with its provenance as a further member."""
        content = json.loads(text) | {"provenance": self.about}
        self.save_text(json.dumps(content, indent=1) + "\n", f"{name}.geojson")

    def save_text(self, text, file):
        """Write a text file beside a figure."""
        write_bytes(self.folder / file, text.encode(), durable=True)
