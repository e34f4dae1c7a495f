"""A finished evaluation to walk through: its pairs by error, where they lie in their cities, and what the network saw there."""

import os
import sys
from pathlib import Path

import numpy as np

from common.errors import UserError
from engine.evaluation.comparison import compare, results_folder
from engine.evaluation.conditions import Asked
from engine.evaluation.curves import ced_figure
from engine.evaluation.report import describe_conditions
from engine.evaluation.results import read_results
from engine.search.tiles import Tiles
from engine.visualization.attention import attention_figures
from engine.visualization.localization import listed_pair
from engine.visualization.panels import errors_panel, map_px
from engine.visualization.samples import open_samples
from engine.visualization.search import whole_view
from engine.visualization.semi_positive import semi_positives
from model.checkpoint import checkpoint_file

ANY = "any"


class Evaluated:
    """The evaluation in results/ of a run.

    run: its folder, or a checkpoint · source: where its pairs come from, a `Source` · device: a --device value.
    table: a row for each pair, the worst first · samples: its `Samples` · cities, kinds: what there is.

    Raises UserError where there is none, or where network or pairs are not those that were measured.
    """

    def __init__(self, run, source, device):
        self.run, (table, _, self.context) = run, read_results(results_folder(run))
        self.table = table.sort_values("error_m", ascending=False, kind="stable").reset_index(drop=True)
        self.samples = open_samples(run, device, source, Asked(), [], worst=sys.maxsize)
        self.cities, self.kinds = sorted(table["city"].unique()), sorted(table["kind"].unique())
        self._places_px, self._views = self.samples.places_px(), {}

    def pairs(self, city=None, kind=None, least=None, most=None):
        """The rows of the table of a city and a kind, with errors in metres within bounds; None or ANY: all. The worst first."""
        asked = np.ones(len(self.table), bool)
        for name, value in (("city", city), ("kind", kind)):
            asked &= True if value in (None, ANY) else (self.table[name] == value).to_numpy()
        error = self.table["error_m"].to_numpy()
        return self.table[asked & (error >= (least or 0)) & (error <= (np.inf if most is None else most))]

    def view(self, city):
        """The `View` of a city, by its name; its images are read once."""
        if city not in self._views:
            index = self.samples.dataset.index
            number = index.city[self.samples.dataset.pairs[self.pairs(city)["index"].iloc[0], 0]]
            self._views[city] = whole_view(Tiles.of_city(index, number, self.samples.dataset.images))
        return self._views[city]

    def panel(self, city, pairs, chosen=None):
        """A city with a dot for each of some pairs, rows of the table; chosen: the `index` of one to mark."""
        places = self._places_px[pairs["index"]]
        marked = None if chosen is None else self._places_px[chosen]
        return errors_panel(self.view(city), places, pairs["error_m"].to_numpy(), marked)

    def nearest(self, city, pairs, click):
        """The `index` of the pair whose dot lies nearest to a click (x, y) into that panel. UserError where there is none."""
        _some(pairs)
        away = np.hypot(*(self._places_px[pairs["index"]] - map_px(self.view(city), click)).T)
        return int(pairs["index"].iloc[away.argmin()])

    def step(self, pairs, index, by):
        """The `index` of the pair that comes so many after the one of an `index` among some, all round; the first for another.

        Raises UserError where there is none.
        """
        _some(pairs)
        order = pairs["index"].tolist()
        return order[(order.index(index) + by) % len(order) if index in order else 0]

    def picture(self, index):
        """(figure, report) of a pair, as the script draws and prints them."""
        return listed_pair(self.samples, index)

    def sheets(self, index):
        """Figures of a pair beside its picture: its semi-positives, and what the network looked at, as the scripts draw them."""
        yield semi_positives(self.samples, index)[0]
        yield from attention_figures(self.samples, index, []).values()

    def curves(self, pairs, other=None):
        """Cumulative errors: of some pairs and of all, or of all pairs that another run, by its folder, has as well."""
        if other is not None:
            _, errors, notes, context = compare([self.run, other], self.context["area"], self.context["split"])
            return ced_figure(errors, f"{describe_conditions(context)}\n{'; '.join(notes)}")
        errors = {"all": self.table["error_m"]} | ({"shown": pairs["error_m"]} if 0 < len(pairs) < len(self.table) else {})
        return ced_figure(errors, describe_conditions(self.context))


def _some(pairs):
    if not len(pairs):
        raise UserError("there is no such pair; other filters may leave some")


class Evaluations:
    """Runs whose evaluation is finished: all below a folder, and one's own.

    root: the folder · model_path: a run's folder or checkpoint, or None · source, device: as of `Evaluated`.
    names: of the runs, by their folders below the root.
    """

    def __init__(self, root, model_path, source, device):
        root = Path(root).resolve()
        folders = {path.parent.parent for path in root.glob("**/results/summary_*.json")}
        own = checkpoint_file(model_path).resolve().parent if model_path else None
        if own and any(own.glob("results/summary_*.json")):
            folders.add(own)
        self.folders = {os.path.relpath(folder, root): folder for folder in sorted(folders)}
        self.names, self._source, self._device, self._open = list(self.folders), source, device, {}

    def open(self, name):
        """The `Evaluated` of a name, opened when it is first asked for. Raises UserError."""
        if name not in self.folders:
            raise UserError("choose an evaluation first" if self.names else "there is no finished evaluation")
        if name not in self._open:
            self._open[name] = Evaluated(self.folders[name], self._source, self._device)
        return self._open[name]
