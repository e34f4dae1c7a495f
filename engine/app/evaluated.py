"""Finished evaluations on the page: pairs by error, on maps of their cities, with their pictures."""

import os
import sys
from pathlib import Path

import cv2
import numpy as np

from common.errors import UserError
from common.geometry import REFERENCE_PX
from engine.app.scene import OTHER, city_scene, layer, mark, pair_scene
from engine.evaluation.comparison import compare, results_folder
from engine.evaluation.report import describe_conditions
from engine.evaluation.results import read_results
from engine.figures.curves import ced_figure
from engine.figures.street import centre_bearing
from engine.run import made_folder, network_of
from engine.search.tiles import Tiles
from engine.visualization.explain import attention_figures
from engine.visualization.localization import listed_pair, semi_positives
from engine.visualization.samples import open_samples
from engine.visualization.search import whole_map

ANY = "any"
_LEAST_M, _MOST_M = 0.1, 10.0  # errors beyond have the colour of these


class Evaluated:
    """A finished evaluation, of a run folder or a checkpoint, with the pairs of a `Source`.

    `table` has a row for each pair, the worst first; `samples` are its `Samples`; `cities` and `kinds` list
    those of its pairs. Raises UserError if there is none, or if it measured another network or other pairs.
    """

    def __init__(self, run, source, device, name=""):
        self.name = name
        self.run, (table, _, self.context) = run, read_results(results_folder(run))
        self.table = table.sort_values("error_m", ascending=False, kind="stable", ignore_index=True)
        self.samples = open_samples(run, device, source, {}, [], worst=sys.maxsize)
        self.cities, self.kinds = sorted(table["city"].unique()), sorted(table["kind"].unique())
        self._places_px, self._maps = self.samples.places_px(), {}

    def pairs(self, city=None, kind=None, least=None, most=None):
        """Rows of the table, the worst first, of a city, a kind (None, ANY: all) and a range of errors."""
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

    def scene(self, city, pairs, chosen=None, kept=False):
        """A city with a dot for each of the given rows, the largest error in front.

        chosen: `index` of the pair to mark; kept: see `city_scene`.
        """
        city_map, dots = self.map_of(city), []
        ordered = pairs.sort_values("error_m", kind="stable")
        for index, colour in zip(ordered["index"].tolist(), _colours(ordered["error_m"]), strict=True):
            about = {"id": index, "chosen": index == chosen, "radius": 9 if index == chosen else 6}
            dots.append(mark(city_map.place(self._places_px[index]), "dot", colour=colour, **about))
        words = f"Error of {self.name}: dark {_LEAST_M:g} m, bright {_MOST_M:g} m and more"
        return city_scene(city_map, [layer(words, colour="#cc4778", marks=dots)], kept)

    def detail(self, index, other=None):
        """The scene of a pair. other: another `Evaluated`, whose prediction is marked too."""
        sample = self.samples.dataset[index]
        _, (one,) = self.samples.estimates([sample])
        views, more = self.samples.views(index, sample), []
        if other is not None:
            same = other.same(self.rows(index))
            places = same[["row_px", "col_px"]].to_numpy() * (len(views[1]) / REFERENCE_PX)
            marks = [mark(place, radius=12) for place in places]
            more = [layer(f"Prediction of {other.name}", colour=OTHER, marks=marks)]
        return pair_scene(views, one, one.camera, centre_bearing(one) or 0.0, more=more)

    def rows(self, index):
        """The row of a pair by its `index`, as a table; none if it is not in this evaluation."""
        return self.table[self.table["index"] == index]

    def same(self, pairs):
        """This table's rows of the same images as some rows of another `Evaluated`'s."""
        names = ["panorama", "satellite"]
        return self.table.merge(pairs[names], on=names)

    def nearest(self, city, pairs, x, y):
        """The `index` of the pair nearest to a position (x, y) of the city's scene. Raises UserError."""
        _check_some(pairs)
        away = np.hypot(*(self._places_px[pairs["index"]] - self.map_of(city).map_px((y, x))).T)
        return int(pairs["index"].iloc[away.argmin()])

    def worst(self, pairs, most=200):
        """[(caption, index), ...] of the first of some rows."""
        rows = zip(pairs["error_m"], pairs["panorama"], pairs["index"].tolist(), strict=True)
        return [(f"{k}: {m:.2f} m, {name}", index) for k, (m, name, index) in enumerate(rows, 1) if k <= most]

    def step(self, pairs, index, by):
        """The `index` of the pair `by` rows further, cyclically; the first if `index` is not among them."""
        _check_some(pairs)
        order = pairs["index"].tolist()
        return order[(order.index(index) + by) % len(order) if index in order else 0]

    def listed(self, index):
        """The index of a pair, as the browser sends it. Raises UserError unless it is in the table."""
        if self.rows(index).empty:
            raise UserError(f"pair {index}: it is not in this evaluation")
        return int(index)

    def words(self, index):
        """(one line with a pair's error, its names and numbers)."""
        row = self.rows(index).iloc[0]
        rank = int((self.table["error_m"] > row["error_m"]).sum()) + 1
        lines = f"index: {index}\npanorama: {row['panorama']}\nsatellite image: {row['satellite']}\n"
        lines += f"error: {row['error_px']:.3f} px at {REFERENCE_PX}, {row['error_m']:.3f} m\n"
        return f"{row['error_m']:.2f} m off, number {rank} of {len(self.table)} from the worst", lines

    def picture(self, index):
        """The figure of `visualize_loc.py` for a pair."""
        return listed_pair(self.samples, index)[0]

    def sheets(self, index):
        """Further figures of a pair: its semi-positives, and what the network looked at."""
        yield semi_positives(self.samples, index)[0]
        yield from attention_figures(self.samples, index).values()

    def curves(self, pairs, other=None):
        """A figure of cumulative errors: some and all pairs, or those shared with another `Evaluated`."""
        if other is not None:
            runs = [self.run, other.run]
            _, errors, notes, context = compare(runs, self.context["area"], self.context["split"])
            return ced_figure(errors, f"{describe_conditions(context)}\n{'; '.join(notes)}")
        errors = {"all": self.table["error_m"]}
        if 0 < len(pairs) < len(self.table):
            errors["shown"] = pairs["error_m"]
        return ced_figure(errors, describe_conditions(self.context))


def _colours(errors_m):
    """Colours of errors, such as '#f0f921', on a logarithmic scale."""
    if errors_m.empty:
        return []  # OpenCV gives nothing
    share = np.log(np.clip(errors_m, _LEAST_M, _MOST_M) / _LEAST_M) / np.log(_MOST_M / _LEAST_M)
    levels = np.rint(255 * share.to_numpy()).astype(np.uint8)[:, None]
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_PLASMA)[:, 0]
    return ["#{2:02x}{1:02x}{0:02x}".format(*bgr) for bgr in colours]


def _check_some(pairs):
    if not len(pairs):
        raise UserError("there is no such pair; other filters may leave some")


class Evaluations:
    """Finished evaluations: all below a root folder, and that of model_path, if given.

    `folders`: {path below the root: the run's folder}; source and device: see `Evaluated`.
    """

    def __init__(self, root, model_path, source, device):
        root = Path(root).resolve()
        if root.exists() and not root.is_dir():
            raise UserError(f"--runs_root {root}: a file, not a folder")
        folders = {path.parent.parent for path in root.glob("**/results/summary_*.json")}
        own = made_folder(model_path).resolve() if model_path else None
        if own and any(own.glob("results/summary_*.json")):
            folders.add(own)
        self.folders = {os.path.relpath(folder, root): folder for folder in sorted(folders)}
        self._source, self._device, self._open = source, device, {}

    def open(self, name):
        """The `Evaluated` of a name, opened at first use. Raises UserError."""
        if name not in self.folders:
            says = "choose an evaluation first" if self.folders else "there is no finished evaluation"
            raise UserError(says)
        if name not in self._open:
            self._open[name] = Evaluated(network_of(self.folders[name]), self._source, self._device, name)
        return self._open[name]
