"""One query image searched for: what scripts and pages draw and write of it."""

from typing import NamedTuple

import numpy as np

from common.geometry import latitude_longitude
from engine.search.report import geojson, map_link, results_in_words
from engine.search.searcher import POOL, truth_px


class Searched(NamedTuple):
    """The outcome of a search."""

    sample: dict  # the query image's
    scored: dict  # as a `Searcher` gives it, like the places
    places: list
    truth: np.ndarray | None  # (row, col) on the map
    near: tuple | None  # (latitude, longitude, radius in metres) of the prior
    notes: tuple  # lines on what was assumed
    report: str
    geojson: str  # the results as points for any map

    def links(self):
        """The results as Markdown, with links to a map."""
        links = (map_link(result.latitude, result.longitude) for result in self.places)
        return " · ".join(f"{rank}: {link}" for rank, link in enumerate(links, 1))


def search_for(searcher, sample, near=None, top=5, pool=POOL, notes=()):
    """The `Searched` of a sample of a dataset, or like it, with notes for the report. Raises UserError.

    Of processes that search together only the first gets it, the others None.
    """
    scored = searcher.scan(sample, near=near)
    results, scored = searcher.places(sample, scored, top, pool), searcher.whole(scored)
    if not results:
        return None
    truth = truth_px(sample, searcher.view.satellite_size) if "corner" in sample else None
    true_heading = float(sample["heading"]) if searcher.view.ori_noise and truth is not None else None
    text = results_in_words(results, searcher.temperatures, truth, true_heading, notes)
    points = geojson(results, None if truth is None else latitude_longitude(*truth), near)
    return Searched(sample, scored, results, truth, near, tuple(notes), text, points)
