"""Hard negatives: satellite images around the best wrong cells of a search for each training pair."""

import copy
import shutil
import sys
import zipfile

import numpy as np
import torch
from tqdm import tqdm

from common.errors import UserError
from common.files import Unwritable, replacing
from dataset.negatives import NONE
from engine import distributed
from engine.search.query import best_cells
from engine.search.searcher import Searcher, open_cities, truth_px

_POOL = 16  # cells that are looked at for each image that is wanted
_APART_M = 20.0


def new_table(pairs, count):
    """A table for `VigorDataset.mined` that loader processes share: (pairs, count), of no images yet."""
    return torch.full((pairs, count), NONE, dtype=torch.int32).share_memory_()


def mine(network, dataset, device, folder, seed):
    """Fill the `mined` of a `VigorDataset` for training in place, the same in every process.

    network: in evaluation mode on its device; folder: for the indexes, which are removed at the end; seed: of
    the random images that fill up where a search finds too few.
    """
    part, parts = distributed.rank(), distributed.world_size()
    plain = copy.copy(dataset)
    plain.training, plain.mined = False, None
    index, count = dataset.index, dataset.mined.shape[1]
    numbers = list(index.listed.values())
    with distributed.first():
        if part == 0:
            shutil.rmtree(folder, ignore_errors=True)  # of other weights, where a process was killed
    cities = open_cities(network, "in training", index, dataset.images, numbers, device, folder)
    searcher = Searcher(network, dataset.view, device, cities)
    rows = range(part, len(dataset), parts)
    mined = np.full((len(rows), count), NONE, np.int32)
    bar = tqdm(rows, desc="searching for hard negatives", unit="pair", leave=False, disable=None)
    for k, i in enumerate(bar):
        row, sample = dataset.pairs[i][0], plain[i]
        city = searcher.city_of(index.city[row])
        of_city = np.flatnonzero(index.satellite_city == city.number)
        holding = city.tiles.holding(truth_px(sample, dataset.satellite_size))
        wrong = _wrong_images(city, searcher.scan(sample, [city])[city], holding, count)
        far = np.setdiff1d(of_city[~holding], of_city[wrong])
        others = far if len(far) else np.flatnonzero(index.satellite_city != city.number)
        missing = count - len(wrong)
        if missing and not len(others):
            says = f"too few images of {city.name} do not hold {index.panorama[row].decode()}"
            raise UserError(f"--hard_negatives {count}: {says}; give a smaller number")
        rng = np.random.default_rng([seed, i])
        mined[k] = [*of_city[wrong], *(rng.choice(others, missing) if missing else ())]
    for k, of_process in enumerate(distributed.gather(mined)):
        dataset.mined[k::parts] = torch.from_numpy(of_process)
    if part == 0:
        shutil.rmtree(folder, ignore_errors=True)


def _wrong_images(city, scored, holding, count):
    """Numbers, up to `count`, of a city's images around the best cells, except those `holding` the truth."""
    grid, chosen = city.index.grid, []
    for cell in best_cells(scored, _POOL * count, _APART_M / grid.cell_m):
        nearest = city.tiles.nearest(grid.to_map((cell.row, cell.col)))
        if nearest not in chosen and not holding[nearest]:
            chosen.append(nearest)
        if len(chosen) == count:
            break
    return chosen


def write_mined(path, epoch, table):
    """Keep a table that was mined before an epoch; if that fails, a resumed run mines again."""
    try:
        with replacing(path) as beside, open(beside, "wb") as file:
            np.savez_compressed(file, epoch=epoch, table=table)
    except Unwritable as error:
        says = f"{error.reason}; a resumed run will search again"
        print(f"{path} cannot be written: {says}", file=sys.stderr, flush=True)


def read_mined(path, epoch, shape):
    """The table that was mined before an epoch, or None where it was not kept."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            same = int(kept["epoch"]) == epoch and kept["table"].shape == tuple(shape)
            return kept["table"] if same else None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
