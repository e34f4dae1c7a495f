"""Cities to look at and to search in on the page, each opened when it is first needed."""

from dataclasses import replace
from typing import NamedTuple

from common.errors import UserError
from common.geometry import latitude_longitude
from dataset.exif import read_header
from dataset.own import own_query
from dataset.protocol import open_data
from engine.app.forms import on_page
from engine.app.located import street_entries
from engine.app.panels import city_panel, map_px, satellite_panel, search_panel
from engine.figures.search import SHOWN, CityMap
from engine.inference.asked import asked_protocol
from engine.search.searcher import Searcher
from engine.search.setup import open_search
from engine.search.single import Searched, search_for
from engine.visualization.search import city_heat, search_figure, whole_map

RADIUS_M = 200.0  # around the position in a file


class CitySearch(NamedTuple):
    """A `Searched`, its `Searcher`, the `CityMap` and the name of its city, the network's name."""

    searched: Searched
    searcher: Searcher
    city_map: CityMap
    name: str
    network: str

    def words(self):
        """The report as the page words it, and the network that searched."""
        lines = map(on_page, self.searched.report.splitlines())
        return "\n".join([*lines, f"network: {self.network}", ""])

    def panel(self):
        """The city with its heat map and the best results."""
        return search_panel(self.city_map, city_heat(self.searched, self.searcher.temperatures))

    def details(self):
        """(panel, caption) of each result."""
        for rank, result in enumerate(self.searched.places, 1):
            yield satellite_panel(result.satellite, result.estimate), f"{rank}: {result.probability:.1%}"

    def picture(self):
        """The figure that the script draws."""
        return search_figure(self.searched, self.searcher, self.name)


class Cities:
    """The cities of the test list of a `Localizer`'s network, which searches. Raises UserError.

    The list comes from a `Source`; the indexes' folder is by default beside the checkpoint.
    """

    def __init__(self, localizer, source, index_root=None):
        self.localizer, self.source, self.index_root, self._open = localizer, source, index_root, {}
        answerer = localizer.answerer()
        view, checkpoint = answerer.predictor.view, answerer.checkpoint
        data = open_data(source, asked_protocol(checkpoint, {}), view, checkpoint.settings.use_mask)
        self.names = list(data.index.listed)

    def open(self, name, answerer=None):
        """(`Searcher`, dataset of its test panoramas, `CityMap`) of a city, whose index is made if missing.

        The network of the answerer searches, by default that of panoramas whose heading is known.
        """
        if name not in self.names:
            raise UserError(f"city {name}: choose one of {', '.join(self.names)}")
        answerer = answerer or self.localizer.answerer()
        if (name, answerer) not in self._open:
            view, checkpoint = replace(answerer.predictor.view, tta=1), answerer.checkpoint
            how = [name], self.localizer.device, self.index_root
            made = open_search(checkpoint, view, asked_protocol(checkpoint, {}), self.source, *how)
            self._open[name, answerer] = *made, whole_map(made[0].cities[0].tiles)
        return self._open[name, answerer]

    def panel(self, name, near=None):
        """(a city in words, its panel). near: (latitude, longitude, radius in metres) to mark, or None."""
        searcher, dataset, city_map = self.open(name)
        images = len(searcher.cities[0].tiles.names)
        says = f"{name}: {images} satellite images, {len(dataset)} test panoramas."
        return says, city_panel(city_map, near)

    def place(self, name, click):
        """(latitude, longitude) of a click (x, y) into the panel of a city."""
        return tuple(float(degrees) for degrees in latitude_longitude(*map_px(self.open(name)[2], click)))

    def search(self, name, *, number=None, street=None, heading=None, near=None, lens=None, vertical=None):
        """The `CitySearch` for a test panorama of a city, or for the user's own image.

        number: of the test panorama, in the city's list.
        street: in its place, a file, with a heading, lens and vertical as of `street_entries`.
        near: (latitude, longitude, radius in metres) of a prior; None: the position in the street's file.

        Raises UserError.
        """
        answerer, known = None, None
        if number is None and street is not None:
            known = street_entries(self.localizer, street, lens, vertical)
            answerer = self.localizer.answerer("photo" in known, heading is not None)
        searcher, dataset, city_map = self.open(name, answerer)
        if known:
            sample, notes = own_query(searcher.view, answerer.needs, heading=heading, **known)
            if near is None:
                near, note = searcher.prior_of(read_header(street).place, RADIUS_M)
                notes = [*notes, *filter(None, [note])]
        elif number is None:
            raise UserError("drop a panorama or a photograph, or give the number of a test panorama")
        elif number < (count := len(dataset)):
            sample, notes = dataset[number], ()
        else:
            raise UserError(f"test panorama {number}: {name} has {count}, 0 to {count - 1}")
        searched = search_for(searcher, sample, near, SHOWN, notes=notes)
        network = (answerer or self.localizer.answerer()).checkpoint.name
        return CitySearch(searched, searcher, city_map, name, network)
