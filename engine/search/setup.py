"""From what a script was told to a `Searcher` and the panoramas to search for."""

from pathlib import Path

import numpy as np

from common.errors import UserError
from engine import distributed
from engine.search import calibration
from engine.search.searcher import Searcher

FOLDER, INDEX = "search", "index"  # beside the checkpoint, and the indexes within it


def open_search(loaded, conditions, source, cities, device, index_root=None, rebuild=False):
    """(`Searcher`, `VigorDataset` of the list's panoramas in its cities).

    loaded: a `Loaded` network · conditions, source: which panoramas, a `Conditions` and a `Source` · cities: names, None: all of
    the list · index_root: where indexes lie, by default beside the checkpoint · rebuild: make them anew.

    Probabilities are as an evaluation under the same conditions has calibrated them. Raises UserError.
    """
    dataset = source.open(conditions, loaded.settings)
    listed = dataset.index.listed
    if absent := [name for name in cities or () if name not in listed]:
        has = f"the {conditions.area} {conditions.split} list has panoramas of {', '.join(listed)}"
        raise UserError(f"--city {absent[0]}: {has}")
    numbers = [listed[name] for name in cities or listed]
    dataset.pairs = dataset.pairs[np.isin(dataset.index.city[dataset.pairs[:, 0]], numbers)]
    folder = Path(index_root or loaded.folder / FOLDER / INDEX / loaded.file.stem)
    softness = calibration.find(loaded.folder / FOLDER, _key(loaded, conditions))
    skip = source.on_bad_image == "skip"
    return Searcher(loaded, dataset.index, dataset.images, numbers, device, folder, softness, rebuild, skip), dataset


def calibrate(searcher, conditions, source, pool, panoramas):
    """Fit the `Softness` of a `Searcher` on the validation part of its network's area, and keep it beside the checkpoint.

    Where none of these panoramas is of its cities, as in cross-area tests, they are searched for in their own.
    """
    loaded = searcher.loaded
    dataset = source.open(conditions.of_calibration(loaded.area), loaded.settings)
    city = dataset.index.city[dataset.pairs[:, 0]]
    known, asked = np.isin(city, [one.number for one in searcher.cities]), searcher
    if known.any():
        dataset.pairs = dataset.pairs[known]
    else:
        with distributed.first():
            numbers, images = list(dataset.index.listed.values()), dataset.images
            asked = Searcher(loaded, dataset.index, images, numbers, searcher.device, searcher.folder, skip=searcher.skip)
    searcher.softness = calibration.calibrate(asked, dataset, pool, panoramas)
    calibration.store(loaded.folder / FOLDER, _key(loaded, conditions), searcher.softness)


def _key(loaded, conditions):
    """What a calibration has to agree in."""
    of_pairs = "area", "labels", "pos_only", "tta"
    key = {name: value for name, value in conditions.key.items() if name not in of_pairs}
    return {"sha256": loaded.sha256} | key
