"""Finished evaluations to walk through on the page: pairs by error, on their cities, with their pictures."""

import os
import sys
from pathlib import Path

import numpy as np

from common.errors import UserError
from engine.app.panels import errors_panel, map_px
from engine.evaluation.comparison import compare, results_folder
from engine.evaluation.report import describe_conditions
from engine.evaluation.results import read_results
from engine.figures.curves import ced_figure
from engine.run import made_folder, network_of
from engine.search.tiles import Tiles
from engine.visualization.explain import attention_figures
from engine.visualization.localization import listed_pair, semi_positives
from engine.visualization.samples import open_samples
from engine.visualization.search import whole_map

ANY = "any"


class Evaluated:
    """The evaluation in results/ of a run, a folder or a checkpoint, over the pairs of a `Source`.

    `table` has a row for each pair, the worst first; `samples` are its `Samples`; `cities` and `kinds` occur
    among its pairs. Raises UserError without an evaluation, or if it measured another network or other pairs.
    """

    def __init__(self, run, source, device):
        self.run, (table, _, self.context) = run, read_results(results_folder(run))
        self.table = table.sort_values("error_m", ascending=False, kind="stable", ignore_index=True)
        self.samples = open_samples(run, device, source, {}, [], worst=sys.maxsize)
        self.cities, self.kinds = sorted(table["city"].unique()), sorted(table["kind"].unique())
        self._places_px, self._maps = self.samples.places_px(), {}

    def pairs(self, city=None, kind=None, least=None, most=None):
        """Rows of the table, the worst first: of a city and a kind (None, ANY: all), errors in bounds."""
        shown = self.table[self.table["error_m"].between(least or 0, np.inf if most is None else most)]
        for name, value in (("city", city), ("kind", kind)):
            shown = shown if value in (None, ANY) else shown[shown[name] == value]
        return shown

    def map_of(self, city):
        """The `CityMap` of a city, by its name; its images are read once."""
        if city not in self._maps:
            dataset = self.samples.dataset
            number = dataset.index.city[dataset.pairs[self.pairs(city)["index"].iloc[0], 0]]
            self._maps[city] = whole_map(Tiles.of_city(dataset.index, number, dataset.images))
        return self._maps[city]

    def panel(self, city, pairs, chosen=None):
        """A city with a dot for each of some rows of the table. chosen: the `index` of one to mark."""
        places, marked = self._places_px[pairs["index"]], None if chosen is None else self._places_px[chosen]
        return errors_panel(self.map_of(city), places, pairs["error_m"].to_numpy(), marked)

    def nearest(self, city, pairs, click):
        """The `index` of the pair nearest to a click (x, y) into that panel. Raises UserError."""
        _check_some(pairs)
        away = np.hypot(*(self._places_px[pairs["index"]] - map_px(self.map_of(city), click)).T)
        return int(pairs["index"].iloc[away.argmin()])

    def step(self, pairs, index, by):
        """The `index` of the pair `by` rows on, cyclically; the first after an unknown one."""
        _check_some(pairs)
        order = pairs["index"].tolist()
        return order[(order.index(index) + by) % len(order) if index in order else 0]

    def picture(self, index):
        """(figure, report) of a pair, as the script draws and prints them."""
        return listed_pair(self.samples, index)

    def sheets(self, index):
        """Figures of a pair beside its picture: its semi-positives, and what the network looked at."""
        yield semi_positives(self.samples, index)[0]
        yield from attention_figures(self.samples, index).values()

    def curves(self, pairs, other=None):
        """Cumulative errors: of some pairs and of all, or of the pairs shared with another run's folder."""
        if other is not None:
            runs = [self.run, other]
            _, errors, notes, context = compare(runs, self.context["area"], self.context["split"])
            return ced_figure(errors, f"{describe_conditions(context)}\n{'; '.join(notes)}")
        errors = {"all": self.table["error_m"]}
        if 0 < len(pairs) < len(self.table):
            errors["shown"] = pairs["error_m"]
        return ced_figure(errors, describe_conditions(self.context))


def _check_some(pairs):
    if not len(pairs):
        raise UserError("there is no such pair; other filters may leave some")


class Evaluations:
    """Runs whose evaluation is finished: all below a root folder, and the one of a model_path, if given.

    `folders` are those of the runs, by their paths below the root; source and device are as of `Evaluated`.
    """

    def __init__(self, root, model_path, source, device):
        root = Path(root).resolve()
        folders = {path.parent.parent for path in root.glob("**/results/summary_*.json")}
        own = made_folder(model_path).resolve() if model_path else None
        if own and any(own.glob("results/summary_*.json")):
            folders.add(own)
        self.folders = {os.path.relpath(folder, root): folder for folder in sorted(folders)}
        self._source, self._device, self._open = source, device, {}

    def open(self, name):
        """The `Evaluated` of a name, opened when it is first needed. Raises UserError."""
        if name not in self.folders:
            says = "choose an evaluation first" if self.folders else "there is no finished evaluation"
            raise UserError(says)
        if name not in self._open:
            self._open[name] = Evaluated(network_of(self.folders[name]), self._source, self._device)
        return self._open[name]
