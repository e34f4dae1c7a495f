"""Hard negatives: satellite images at the best wrong places of a search for the training panoramas over their own cities."""

import copy
import shutil
import sys
import zipfile

import numpy as np
import torch
from tqdm import tqdm

from common.errors import UserError
from common.files import replacing
from dataset.negatives import NONE
from efficientnet_pytorch.utils import normalise
from engine import distributed
from engine.search.index import open_index
from engine.search.query import best_cells, make_templates, scan
from engine.search.searcher import truth_px
from engine.search.tiles import Tiles

_POOL = 16  # places that are looked at for each image that is wanted
_APART_M = 20.0


def new_table(pairs, count):
    """A table for `VigorDataset.mined` that loader processes share: (pairs, count), of no images yet."""
    return torch.full((pairs, count), NONE, dtype=torch.int32).share_memory_()


@torch.inference_mode()
def mine(model, dataset, device, folder, seed):
    """Fill `dataset.mined` in place, the same in every process.

    model: in evaluation mode on its device · dataset: a `VigorDataset` for training · folder: for the indexes, which go again ·
    seed: of the images that stand where a search finds too few.
    """
    part, parts = distributed.rank(), distributed.world_size()
    plain = copy.copy(dataset)
    plain.training, plain.mined = False, None
    index, count = dataset.index, dataset.mined.shape[1]
    cities = list(index.listed.values())
    tiles = {city: Tiles.of_city(index, city, dataset.images) for city in cities}

    with distributed.first():
        if part == 0:
            shutil.rmtree(folder, ignore_errors=True)  # of other weights, where a process was killed

    def open_city(city):
        return open_index(folder / index.cities[city], model, "in training", index.cities[city], tiles[city], device)

    for city in cities[part::parts]:
        open_city(city)
    distributed.gather(None)  # until all indexes are there
    indexes = {city: open_city(city) for city in cities}
    rows = range(part, len(dataset), parts)
    found = np.full((len(rows), count), NONE, np.int32)
    bar = tqdm(rows, desc="searching for hard negatives", unit="panorama", leave=False, disable=None)
    for k, i in enumerate(bar):
        row = dataset.pairs[i][0]
        city = int(index.city[row])
        sample = plain[i]
        templates = make_templates(model, normalise(sample["panorama"][None].to(device)), indexes[city].grid)
        holding = tiles[city].holding(truth_px(sample, dataset.satellite_size))
        rng, own = np.random.default_rng([seed, i]), np.flatnonzero(index.satellite_city == city)
        wrong = _wrong_images(indexes[city], templates, tiles[city], holding, count)
        far = np.setdiff1d(own[~holding], own[wrong])
        elsewhere = far if len(far) else np.flatnonzero(index.satellite_city != city)
        if len(wrong) < count and not len(elsewhere):
            name = index.panorama[row].decode()
            raise UserError(
                f"--hard_negatives {count}: too few images of {index.cities[city]} do not hold {name}; give a smaller number"
            )
        found[k] = [*own[wrong], *rng.choice(elsewhere, count - len(wrong))] if len(wrong) < count else own[wrong]
    for k, of_process in enumerate(distributed.gather(found)):
        dataset.mined[k::parts] = torch.from_numpy(of_process)
    if part == 0:
        shutil.rmtree(folder, ignore_errors=True)


def _wrong_images(index, templates, tiles, holding, count):
    """Numbers, up to `count`, of a city's images around the best places, but for those that hold the true one, `holding` (M,)."""
    chosen = []
    for one in best_cells(scan(index, templates), _POOL * count, _APART_M / index.grid.cell_m):
        nearest = tiles.nearest(index.grid.to_map((one.row, one.col)))
        if nearest not in chosen and not holding[nearest]:
            chosen.append(nearest)
        if len(chosen) == count:
            break
    return chosen


def write_mined(path, epoch, table):
    """Keep a table that was mined before an epoch; a line on stderr says so where that fails, and a resumed run mines again."""
    try:
        with replacing(path) as beside, open(beside, "wb") as file:
            np.savez_compressed(file, epoch=epoch, table=table)
    except OSError as error:
        print(f"{path} cannot be written: {error.strerror}; a resumed run will search again", file=sys.stderr, flush=True)


def read_mined(path, epoch, shape):
    """The table that was mined before an epoch, or None where it was not kept."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            return kept["table"] if int(kept["epoch"]) == epoch and kept["table"].shape == tuple(shape) else None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
