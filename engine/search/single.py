"""One query image searched for: what scripts and pages draw and write of it."""

from typing import NamedTuple

import numpy as np

from common.geometry import latitude_longitude
from engine.search.report import geojson, map_link, results_in_words
from engine.search.searcher import POOL, truth_px


class Searched(NamedTuple):
    """The outcome of a search.

    sample: the query image.
    scored, places: as a `Searcher` gives them.
    truth: (row, col) on the map, or None.
    near: (latitude, longitude, radius in metres) of the prior, or None.
    notes: lines on what was assumed.
    report: all in words.
    geojson: the results as points for any map.
    """

    sample: dict
    scored: dict
    places: list
    truth: np.ndarray | None
    near: tuple | None
    notes: tuple
    report: str
    geojson: str

    def links(self):
        """The results as Markdown, with links to a map."""
        links = (map_link(result.latitude, result.longitude) for result in self.places)
        return " · ".join(f"{rank}: {link}" for rank, link in enumerate(links, 1))


def search_for(searcher, sample, near=None, top=5, pool=POOL, notes=()):
    """What a `Searcher` finds for a sample of a dataset, or like it, a `Searched`.

    near, top, pool: as `Searcher.scan` and `Searcher.places` take them.
    notes: lines for the report.

    Raises UserError.
    """
    scored = searcher.scan(sample, near=near)
    results = searcher.places(sample, scored, top, pool)
    truth = truth_px(sample, searcher.view.satellite_size) if "corner" in sample else None
    true_heading = float(sample["heading"]) if searcher.view.ori_noise and truth is not None else None
    text = results_in_words(results, searcher.temperatures, truth, true_heading, notes)
    with_truth = None if truth is None else latitude_longitude(*truth)
    return Searched(
        sample, scored, results, truth, near, tuple(notes), text, geojson(results, with_truth, near)
    )
