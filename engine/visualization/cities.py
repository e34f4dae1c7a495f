"""Cities to look at and to search in, each opened when it is first asked for."""

import numpy as np

from common.errors import UserError
from common.geometry import latitude_longitude
from engine.evaluation.conditions import Conditions
from engine.search.setup import open_search
from engine.search.single import own_panorama, search_for
from engine.visualization.panels import map_px
from engine.visualization.search import SHOWN, whole_view
from model.checkpoint import load_model


class Cities:
    """The cities of a network's test list.

    model_path: a checkpoint or run folder; None: the repository's networks, by whether a heading is known · source: a `Source` ·
    index_root: where indexes lie, by default beside the checkpoint · device: a torch device. Raises UserError.
    """

    def __init__(self, model_path, source, index_root, device):
        self.model_path, self.source, self.index_root, self.device, self._open = model_path, source, index_root, device, {}
        loaded = self._load(True)
        index = source.open(Conditions.of(loaded), loaded.settings).index
        first = np.unique(index.city, return_index=True)[1].tolist()
        self.names = [index.panorama_path(row).parts[0] for row in first]

    def open(self, name, heading_known=True):
        """(`Searcher`, dataset of its test panoramas, `View`) of a city, by its name; its index is made where it is missing."""
        if name not in self.names:
            raise UserError(f"city {name}: choose one of {', '.join(self.names)}")
        key = name, bool(self.model_path) or heading_known
        if key not in self._open:
            loaded = self._load(heading_known)
            made = open_search(loaded, Conditions.of(loaded), self.source, [name], self.device, self.index_root)
            self._open[key] = *made, whole_view(made[0].cities[0].tiles)
        return self._open[key]

    def place(self, name, click):
        """(latitude, longitude) of a click (x, y) into the panel of a city."""
        return tuple(float(degrees) for degrees in latitude_longitude(*map_px(self.open(name)[2], click)))

    def search(self, name, number=None, panorama=None, heading=None, near=None):
        """(what was found, a `Searched`, its `Searcher`, the `View`) for a test panorama of a city or for one's own.

        number: in the list of the city's test panoramas · panorama: a file, in place of it, heading: of its centre in degrees,
        None: not known · near: (latitude, longitude, radius in metres). Raises UserError.
        """
        listed = number is not None
        searcher, dataset, view = self.open(name, listed or heading is not None)
        if listed and number >= len(dataset):
            raise UserError(f"test panorama {number}: {name} has {len(dataset)}, 0 to {len(dataset) - 1}")
        if not listed and panorama is None:
            raise UserError("drop a panorama, or give the number of a test panorama")
        sample, notes = (dataset[number], ()) if listed else own_panorama(panorama, searcher.loaded.settings, heading)
        return search_for(searcher, dataset, sample, near, SHOWN, notes=notes), searcher, view

    def _load(self, heading_known):
        return load_model(self.model_path or ("pretrained" if heading_known else "pretrained_any_heading"), self.device)
