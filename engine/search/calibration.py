"""The temperatures at which a search's probabilities are calibrated, fitted on held-out query images."""

from itertools import chain

import numpy as np
from tqdm import tqdm

from common.words import counted
from engine import distributed
from engine.inference.decode import NEAR_M
from engine.search.query import log_mass, restrict
from engine.search.searcher import SearchTemperatures, distance_m, truth_px

STEPS = 2.0 ** (np.arange(-8, 25) / 4)  # temperatures that are tried


def spread(count, most):
    """Up to `most` of the numbers below `count`, evenly spread; None: all."""
    return np.linspace(0, count - 1, min(most or count, count)).astype(int).tolist()


def of_process(numbers, description):
    """This process's part of some numbers, under a progress bar."""
    mine = numbers[distributed.rank() :: distributed.world_size()]
    return tqdm(mine, desc=description, unit="image", leave=False, disable=None)


def fit_temperatures(searcher, dataset, pool, most):
    """A fit of a `Searcher`'s temperatures, a flat dict, the same in every process.

    Up to `most` of a dataset's held-out query images, evenly spread, are searched for in their own city. Both
    temperatures maximise a likelihood: of the cells within 5 m of the truth, and of the right result.
    """
    cells, places = [], []
    for i in of_process(spread(len(dataset), most), "calibrating"):
        sample = dataset[i]
        city = searcher.city_of(dataset.index.city[dataset.pairs[i][0]])
        grid, truth = city.index.grid, truth_px(sample, dataset.satellite_size)
        scored = searcher.scan(sample, [city])
        near = [restrict(block, [grid.to_cells(truth)], NEAR_M / grid.cell_m) for block in scored[city]]
        cells.append([log_mass(scored[city], t) - log_mass(near, t) for t in STEPS])
        results = searcher.places(sample, scored, pool, pool)
        right = [distance_m(result, truth) <= NEAR_M for result in results]
        if any(right):
            evidence = np.array([result.log_evidence for result in results])[:, None] / STEPS
            places.append(np.logaddexp.reduce(evidence) - evidence[right.index(True)])
    cells, places = (np.array(list(chain(*distributed.gather(part)))) for part in (cells, places))
    best = [float(STEPS[part.mean(0).argmin()]) if len(part) else 1.0 for part in (cells, places)]
    return {"cells": best[0], "places": best[1], "pairs": len(cells)}


def as_temperatures(fit):
    """The `SearchTemperatures` of a fit; None: as trained."""
    if fit is None:
        return SearchTemperatures()
    name = f"calibrated on {counted(fit['pairs'], 'validation panorama')}"
    return SearchTemperatures(fit["cells"], fit["places"], name)
