"""One panorama searched for: what the script and the page draw and write of it."""

from typing import NamedTuple

import numpy as np

from common.geometry import latitude_longitude
from dataset.own import own_street
from engine.search.report import describe, geojson, map_link
from engine.search.searcher import POOL, truth_px


class Searched(NamedTuple):
    """What was found.

    sample: the panorama · scored, places: as a `Searcher` gives them · truth: (row, col) on the map, where it is known · near:
    (latitude, longitude, radius in metres) of the guess, or None · notes: lines on what was assumed · report: all in words ·
    geojson: the places as points for any map.
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
        """The places as Markdown, with links to a map."""
        return " · ".join(f"{rank}: {map_link(place.latitude, place.longitude)}" for rank, place in enumerate(self.places, 1))


def search_for(searcher, dataset, sample, near=None, top=5, pool=POOL, notes=()):
    """What a `Searcher` finds for a sample of its cities' dataset, or like one, a `Searched`.

    near, top, pool: as `Searcher.scan` and `Searcher.places` take them · notes: lines for the report. Raises UserError.
    """
    scored = searcher.scan(sample, near=near)
    places = searcher.places(sample, scored, top, pool)
    truth = truth_px(sample, dataset.satellite_size) if "corner" in sample else None
    true_heading = float(sample["heading"]) if dataset.ori_noise and truth is not None else None
    text = describe(places, searcher.softness, truth, true_heading, notes)
    with_truth = None if truth is None else latitude_longitude(*truth)
    return Searched(sample, scored, places, truth, near, tuple(notes), text, geojson(places, with_truth, near))


def own_query(panorama, photo, settings, heading=None, **lens):
    """(sample, notes) of a panorama or a photograph of the user's own, one of the two, as a search takes it.

    panorama, photo: a file, or None · settings: the network's · heading: true bearing of its centre, degrees, None: not known ·
    lens: of a photograph, as `dataset.photograph.own_photograph` takes it. The notes are lines on what had to be assumed. Raises
    UserError.
    """
    how = {name: getattr(settings, name) for name in ("panorama_size", "FoV", "cameras", "ori_noise")}
    return own_street(panorama, photo, heading=heading, **how, **lens)
