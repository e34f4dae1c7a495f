"""The temperatures at which a search's probabilities mean what they say: fitted on held-out panoramas, kept on the disk."""

import json
import sys
from itertools import chain

import numpy as np
from tqdm import tqdm

from common.files import replacing
from engine import distributed
from engine.search.query import log_mass, restrict
from engine.search.searcher import NEAR_M, Softness, distance_m, truth_px

STEPS = 2.0 ** (np.arange(-8, 25) / 4)  # temperatures that are tried
FILE = "calibration.json"


def share_out(numbers, description):
    """This process's share of some numbers, under a progress bar."""
    mine = list(numbers)[distributed.rank() :: distributed.world_size()]
    return tqdm(mine, desc=description, unit="panorama", leave=False, disable=None)


def calibrate(searcher, dataset, pool, panoramas):
    """The `Softness` at which a search over a panorama's own city means what it says, the same in every process.

    dataset: of held-out panoramas, of which so many, evenly spread, are searched for. Both temperatures are those of the highest
    likelihood: of the cells within 5 m of the truth, and of the right one among the places.
    """
    numbers = np.linspace(0, len(dataset) - 1, min(panoramas, len(dataset))).astype(int).tolist()
    cells, places = [], []
    for i in share_out(numbers, "calibrating"):
        sample = dataset[i]
        own = searcher.city_of(dataset.index.city[dataset.pairs[i][0]])
        truth = truth_px(sample, dataset.satellite_size)
        scored = searcher.scan(sample, [own])
        near = [restrict(block, [own.index.grid.to_cells(truth)], NEAR_M / own.index.grid.cell_m) for block in scored[own]]
        cells.append([log_mass(scored[own], t) - log_mass(near, t) for t in STEPS])
        found = searcher.places(sample, scored, pool, pool)
        right = [distance_m(place, truth) <= NEAR_M for place in found]
        if any(right):
            evidence = np.array([place.log_evidence for place in found])[:, None] / STEPS
            places.append(np.logaddexp.reduce(evidence) - evidence[right.index(True)])
    cells, places = (np.array(list(chain.from_iterable(distributed.gather(part)))) for part in (cells, places))
    best = [float(STEPS[part.mean(0).argmin()]) if len(part) else 1.0 for part in (cells, places)]
    return Softness(*best, f"calibrated on {len(cells)} validation panoramas")


def store(folder, key, softness):
    """Keep a fit in a folder, by the network and the conditions that it was made for, a flat dict `key`."""
    kept = [fit for fit in _read(folder) if not _agree(fit, key)]
    try:
        with replacing(folder / FILE) as beside:
            beside.write_text(json.dumps({"fits": [*kept, {**key, **softness._asdict()}]}, indent=2) + "\n")
    except OSError as error:
        print(f"{folder / FILE}: cannot be written ({error.strerror}), so the next evaluation fits again", file=sys.stderr)


def find(folder, key):
    """The fit of a folder for a network and conditions, else None."""
    for fit in _read(folder):
        if _agree(fit, key):
            return Softness(fit["cells"], fit["places"], fit["name"])
    return None


def _agree(fit, key):
    """Whether a fit is of a key's conditions; without named cities it is of what their lists gave."""
    return fit.items() >= key.items() and fit.get("train_cities") == key.get("train_cities")


def _read(folder):
    """Every fit of a folder; none where there is no file that can be read."""
    try:
        fits = json.loads((folder / FILE).read_text())["fits"]
        return [fit for fit in fits if set(Softness._fields) <= fit.keys()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
