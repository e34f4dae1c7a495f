"""Cities to look at and to search in on the page, each opened when it is first needed."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.errors import UserError
from common.geometry import SATELLITE_PX, latitude_longitude
from dataset.exif import read_header
from dataset.images import read_whole
from dataset.own import own_query
from dataset.protocol import open_data
from engine.app.forms import on_page
from engine.app.located import street_entries
from engine.app.scene import (
    HEAT,
    PREDICTION,
    TRUTH,
    circle,
    city_scene,
    data_url,
    heat_image,
    layer,
    mark,
    pair_scene,
)
from engine.figures.search import SHOWN, CityMap
from engine.inference.asked import asked_protocol
from engine.search.report import gpx
from engine.search.searcher import Searcher
from engine.search.setup import open_search
from engine.search.single import Searched, search_for
from engine.visualization.samples import WHOLE_PX, as_seen
from engine.visualization.search import city_heat, map_around, search_figure, whole_map

RADIUS_M = 200.0  # around the position in a file


class CitySearch(NamedTuple):
    """A city search: `Searched`, `Searcher`, the city's `CityMap` and name, and the network's name."""

    searched: Searched
    searcher: Searcher
    city_map: CityMap
    name: str
    network: str
    street: np.ndarray  # (H, W, 3), the query image as the network sees it, but as fine as its file

    def words(self):
        """The report in the page's words, with the network's name."""
        lines = map(on_page, self.searched.report.splitlines())
        return "\n".join([*lines, f"network: {self.network}", ""])

    def scene(self, chosen=1, kept=False):
        """The city with its heat map and the best results by rank; `kept`: see `city_scene`."""
        heat, place = city_heat(self.searched, self.searcher.temperatures), self.city_map.place
        (top, left), (bottom, right) = place(heat.first), place(heat.end)
        box = left, top, right - left, bottom - top
        layers = [layer(HEAT, image=data_url(heat_image(heat.probability)), box=box, opacity=0.7)]
        if heat.near is not None:
            layers.append(layer("Searched", colour=TRUTH, shapes=[circle(self.city_map, heat.near)]))
        pins = []
        for rank, result in sorted(heat.results.items(), reverse=True):  # the best in front
            about = {"label": str(rank), "id": rank, "chosen": rank == chosen}
            pins.append(mark(place(result.map_px), "dot", **about))
        shares = ", ".join(f"{k}: {100 * heat.results[k].probability:.0f} %" for k in sorted(heat.results))
        layers.append(layer("Places", says=shares, colour=PREDICTION, marks=pins))
        if heat.truth is not None:
            layers.append(layer("Truth", colour=TRUTH, marks=[mark(place(heat.truth), "ring", radius=9)]))
        return city_scene(self.city_map, layers, kept)

    def detail(self, rank):
        """The scene of the result of a rank: the square cut out of the city there, and its heat map."""
        result = self.searched.places[rank - 1]
        near = map_around(result.city.tiles, result.corner, result.corner + SATELLITE_PX, SATELLITE_PX)
        views = self.street, near.image
        return pair_scene(views, result.estimate, result.estimate.camera, result.heading)

    def files(self):
        """{file name: text} to download."""
        places = []
        for rank, one in enumerate(self.searched.places, 1):
            places.append((one.latitude, one.longitude, f"{rank}: {one.probability:.1%}"))
        return {"places.geojson": self.searched.geojson, "places.gpx": gpx(places)}

    def picture(self):
        """The figure of `search_VIGOR.py`."""
        return search_figure(self.searched, self.searcher, self.name)


class Cities:
    """The cities of a `Source`'s test list, which a `Localizer`'s network searches. Raises UserError.

    The indexes' folder is by default beside the checkpoint.
    """

    def __init__(self, localizer, source, index_root=None):
        self.localizer, self.source, self.index_root = localizer, source, index_root
        self._open, self._locks = {}, {}
        answerer = localizer.answerer()
        view, checkpoint = answerer.predictor.view, answerer.checkpoint
        data = open_data(source, asked_protocol(checkpoint, {}), view, checkpoint.settings.use_mask)
        self.names = list(data.index.listed)

    def open(self, name, answerer=None):
        """(`Searcher`, dataset of test panoramas, `CityMap`) of a city. A missing index is computed.

        The answerer's network searches; by default the one for panoramas with a known heading.
        """
        if name not in self.names:
            raise UserError(f"city {name}: choose one of {', '.join(self.names)}")
        key = name, answerer or self.localizer.answerer()
        lock = self._locks.setdefault(key, threading.Lock())
        while not lock.acquire(timeout=0.2):  # an event that waits here can be stopped
            pass
        try:
            if key not in self._open:
                self._open[key] = self._opened(*key)
        finally:
            lock.release()
        return self._open[key]

    def _opened(self, name, answerer):
        view, checkpoint = replace(answerer.predictor.view, tta=1), answerer.checkpoint
        how = [name], self.localizer.device, self.index_root
        made = open_search(checkpoint, view, asked_protocol(checkpoint, {}), self.source, *how)
        return *made, whole_map(made[0].cities[0].tiles)

    def look(self, name, near=None):
        """(text about a city, its scene). near: (latitude, longitude, radius in metres) to mark, or None."""
        searcher, dataset, city_map = self.open(name)
        images = len(searcher.cities[0].tiles.names)
        says = f"{name}: {images} satellite images, {len(dataset)} test panoramas."
        layers = [] if near is None else [layer("Searched", colour=TRUTH, shapes=[circle(city_map, near)])]
        return says, city_scene(city_map, layers)

    def place(self, name, x, y):
        """(latitude, longitude) of a place (x, y) of the scene of a city."""
        return tuple(float(degrees) for degrees in latitude_longitude(*self.open(name)[2].map_px((y, x))))

    def search(self, name, *, number=None, street=None, heading=None, near=None, lens=None, vertical=None):
        """The `CitySearch` for a test panorama of a city, or for the user's own image.

        number: index of the test panorama in the city's list.
        street: a file instead, with heading, lens and vertical as in `street_entries`.
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
            street = dataset.index.root / dataset.index.panorama_image(dataset.pairs[number][0]).path
        else:
            raise UserError(f"test panorama {number}: {name} has {count}, 0 to {count - 1}")
        searched = search_for(searcher, sample, near, SHOWN, notes=notes)
        turned = float(sample["heading"]) if known is None and sample["camera"].kind == "panorama" else 0.0
        if Path(street).is_file():
            seen = as_seen(read_whole(street, WHOLE_PX), sample, searcher.view, turned)
        else:  # beside a cache alone
            seen = as_seen(sample["query"].permute(1, 2, 0).numpy(), sample, searcher.view)
        network = (answerer or self.localizer.answerer()).checkpoint.name
        return CitySearch(searched, searcher, city_map, name, network, seen)
