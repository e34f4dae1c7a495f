"""Cities to look at and to search in, each opened when it is first asked for."""

from typing import NamedTuple

import numpy as np

from common.errors import UserError
from common.geometry import latitude_longitude
from dataset.photograph import kind_of_street
from engine.evaluation.conditions import Conditions
from engine.search.searcher import Searcher
from engine.search.setup import open_search
from engine.search.single import Searched, own_query, search_for
from engine.visualization.panels import city_panel, map_px, satellite_panel
from engine.visualization.search import SHOWN, View, search_figure, whole_view
from model.checkpoint import load_model, pretrained_for


class Found(NamedTuple):
    """A `Searched`, the `Searcher` that found it, the `View` and the name of its city."""

    searched: Searched
    searcher: Searcher
    view: View
    name: str

    def panel(self):
        """The city with its heat map and the best places."""
        return city_panel(self.view, None, self.searched, self.searcher.softness)

    def details(self):
        """(panel, caption) of each place."""
        for rank, place in enumerate(self.searched.places, 1):
            yield satellite_panel(place.satellite, place.estimate), f"{rank}: {place.probability:.1%}"

    def picture(self):
        """The figure that the script draws."""
        return search_figure(self.searched, self.searcher.softness, self.name)


class Cities:
    """The cities of a network's test list.

    model_path: a checkpoint or run folder; None: the repository's networks, by whether a heading is known · source: a `Source` ·
    index_root: where indexes lie, by default beside the checkpoint · device: a torch device. Raises UserError.
    """

    def __init__(self, model_path, source, index_root, device):
        self.model_path, self.source, self.index_root, self.device, self._open = model_path, source, index_root, device, {}
        loaded = self._load()
        index = source.open(Conditions.of(loaded), loaded.settings).index
        first = np.unique(index.city, return_index=True)[1].tolist()
        self.names = [index.panorama_path(row).parts[0] for row in first]

    def open(self, name, photo=False, heading_known=True):
        """(`Searcher`, dataset of its test panoramas, `View`) of a city, by its name; its index is made where it is missing.

        photo, heading_known: what is searched for, as of `pretrained_for`.
        """
        if name not in self.names:
            raise UserError(f"city {name}: choose one of {', '.join(self.names)}")
        key = (name,) if self.model_path else (name, photo, heading_known)
        if key not in self._open:
            loaded = self._load(photo, heading_known)
            made = open_search(loaded, Conditions.of(loaded), self.source, [name], self.device, self.index_root)
            self._open[key] = *made, whole_view(made[0].cities[0].tiles)
        return self._open[key]

    def panel(self, name, near=None):
        """(what there is of a city in words, its panel with a guess, (latitude, longitude, radius in metres) or None)."""
        searcher, dataset, view = self.open(name)
        images = len(searcher.cities[0].tiles.names)
        return f"{name}: {images} satellite images, {len(dataset)} test panoramas.", city_panel(view, near)

    def place(self, name, click):
        """(latitude, longitude) of a click (x, y) into the panel of a city."""
        return tuple(float(degrees) for degrees in latitude_longitude(*map_px(self.open(name)[2], click)))

    def search(self, name, number=None, street=None, heading=None, near=None, lens=None):
        """What was found for a test panorama of a city or for one's own image, a `Found`.

        number: in the list of the city's test panoramas · street: in its place a panorama or a photograph, a file, and heading,
        of its centre in degrees, None: not known · near: (latitude, longitude, radius in metres) · lens: of a photograph, a
        dict as `own_query` takes it. Raises UserError.
        """
        listed = number is not None
        photo = not listed and street is not None and kind_of_street(street) == "photo"
        searcher, dataset, view = self.open(name, photo, listed or heading is not None)
        if listed and number >= len(dataset):
            raise UserError(f"test panorama {number}: {name} has {len(dataset)}, 0 to {len(dataset) - 1}")
        if not listed and street is None:
            raise UserError("drop a panorama or a photograph, or give the number of a test panorama")
        settings, files = searcher.loaded.settings, (None, street) if photo else (street, None)
        sample, notes = (dataset[number], ()) if listed else own_query(*files, settings, heading, **(lens or {}))
        return Found(search_for(searcher, dataset, sample, near, SHOWN, notes=notes), searcher, view, name)

    def _load(self, photo=False, heading_known=True):
        name, options = (self.model_path, {}) if self.model_path else pretrained_for(photo, heading_known)
        return load_model(name, self.device, **options)
