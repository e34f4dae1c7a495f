"""A `Searcher` of a checkpoint's network over the cities of a list, and its calibration."""

from dataclasses import replace

import numpy as np

from common.errors import UserError
from dataset.protocol import open_data
from engine import distributed
from engine.inference import temperatures
from engine.run import made_folder
from engine.search.calibration import as_temperatures, fit_temperatures
from engine.search.coarse_fit import fit_coarse
from engine.search.searcher import Searcher, open_cities

FOLDER, INDEX = "search", "index"  # beside the checkpoint, and the indexes within it


def open_search(checkpoint, view, protocol, source, cities, device, index_root=None, **how):
    """(`Searcher` of some or all cities of a list, `VigorDataset` of its query images in them).

    view, protocol, source: how the network is asked, which list, and where it comes from.
    index_root: folder or address of the indexes, by default beside the checkpoint.
    how: rebuild and streets, as of `open_cities`.

    The processes of torchrun call this together and share the building of indexes.

    Probabilities are as an evaluation under the same conditions has calibrated them. Raises UserError.
    """
    if not checkpoint.network.matching.has_templates:
        says = f"a {checkpoint.settings.network} network has no templates to search a city with"
        way_out = "train one with --network light or --network ground_plane"
        raise UserError(f"{checkpoint.file}: {says}; {way_out}")
    dataset = open_data(source, protocol, view, checkpoint.settings.use_mask)
    listed = dataset.index.listed
    if absent := [name for name in cities or () if name not in listed]:
        has = f"the {protocol.area} {protocol.split} list has panoramas of {', '.join(listed)}"
        raise UserError(f"--city {absent[0]}: {has}")
    numbers = [listed[name] for name in cities or listed]
    dataset.pairs = dataset.pairs[np.isin(dataset.index.city[dataset.pairs[:, 0]], numbers)]
    opened = _open_cities(checkpoint, source, dataset, numbers, device, index_root, **how)
    fit = temperatures.find_fit(*_place_of_fits(checkpoint, view, protocol))
    return Searcher(checkpoint.network, view, device, opened, as_temperatures(fit)), dataset


def fit_descriptors(checkpoint, view, protocol, source, cities, device, index_root=None, **how):
    """Fit descriptors on the training list, keep them, and return what to print. Arguments: `open_search`."""
    if distributed.world_size() > 1:
        raise UserError("--fit_coarse runs in one process; leave torchrun out")
    view = replace(view, ori_noise=0.0)
    opening = source, cities, device, index_root
    searcher, dataset = open_search(checkpoint, view, replace(protocol, split="train"), *opening, **how)
    held_out = open_data(source, replace(protocol, split="val"), view, checkpoint.settings.use_mask)
    numbers = [city.number for city in searcher.cities]
    held_out.pairs = held_out.pairs[np.isin(held_out.index.city[held_out.pairs[:, 0]], numbers)]
    return fit_coarse(searcher, checkpoint, dataset, held_out)


def calibrate(searcher, checkpoint, protocol, source, pool, most, index_root=None):
    """Fit a `Searcher`'s temperatures on its network's validation part, and keep the fit.

    If no query image is of its cities, as in cross-area tests, they are searched for in their own.
    """
    protocol, dataset = temperatures.open_held_out(checkpoint, protocol, searcher.view, source)
    known = np.isin(dataset.index.city[dataset.pairs[:, 0]], [city.number for city in searcher.cities])
    measured = searcher
    if known.any():
        dataset.pairs = dataset.pairs[known]
    else:
        numbers = list(dataset.index.listed.values())
        cities = _open_cities(checkpoint, source, dataset, numbers, searcher.device, index_root)
        measured = Searcher(searcher.network, searcher.view, searcher.device, cities)
    fit = fit_temperatures(measured, dataset, pool, most)
    searcher.temperatures = as_temperatures(fit)
    if distributed.rank() == 0:
        temperatures.store_fit(*_place_of_fits(checkpoint, searcher.view, protocol), fit, checkpoint)


def _open_cities(checkpoint, source, dataset, numbers, device, index_root, **how):
    root = index_root or made_folder(checkpoint.file) / FOLDER / INDEX / checkpoint.file.stem
    images, skip = (dataset.index, dataset.images), source.on_bad_image == "skip"
    of_network = checkpoint.network, checkpoint.sha256
    return open_cities(*of_network, *images, numbers, device, root, skip=skip, **how)


def _place_of_fits(checkpoint, view, protocol):
    """(files, key) of a search's fits, which serve every area and list of the network."""
    key = temperatures.conditions_key(checkpoint, protocol, view)
    for name in ("area", "labels", "pos_only", "tta"):
        del key[name]
    return temperatures.fit_files(checkpoint, FOLDER), {"of": temperatures.SEARCH} | key
