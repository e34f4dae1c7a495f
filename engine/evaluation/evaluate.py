"""An evaluation: calibrate, predict, measure, write files."""

import time
import zlib
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

from common.errors import UserError
from dataset.index import cities_unlike_vigor
from dataset.loader import evaluation_loader
from dataset.protocol import open_data
from dataset.sets import read_index
from engine import distributed
from engine.evaluation import gallery, results
from engine.evaluation.report import compact_report
from engine.evaluation.table import make_table, street_columns
from engine.inference import temperatures
from engine.inference.predictor import Predictor, probability_columns
from engine.inference.reliability import HeatMap, as_trained

_OF_CUTS = ("hfov", "pitch", "roll")  # settings of photographs that are cut out of panoramas


def evaluate(checkpoint, view, protocol, source, output, device, batch_size, num_workers, limit, calibrate):
    """Evaluate a `Checkpoint` on its device and write all results; returns a text, '' except in rank 0.

    view, protocol, source: conditions of the network, list of pairs, and where their data are.
    output: folder of the results; limit: only this many pairs, from the first on.
    calibrate: validation pairs to fit the heat map's temperature on, at most `limit`; 0 leaves it as trained.

    Raises UserError, also if that folder has another evaluation.
    """
    with distributed.first():
        source = source.found()
    settings = checkpoint.settings
    dataset = open_data(source, protocol, view, settings.use_mask)
    in_list, dataset.pairs = len(dataset), dataset.pairs[:limit]
    measured = {name: value for name, value in protocol.plain().items() if name != "seed"}
    measured |= view.conditions | {"limit": limit, "pairs_in_list": in_list}
    if dataset.index.photographs:
        measured |= _of_cameras(dataset.index, view, checkpoint.view)
    if cities := cities_unlike_vigor(dataset.index, protocol.area, protocol.split):
        measured["cities_in_list"] = cities
    if distributed.rank() == 0:
        results.keep_other_evaluations(output, measured)
        results.prepare_folder(output)
    predictor = Predictor(checkpoint.network, view, device)
    ask = partial(predict_all, predictor, batch_size, num_workers)
    calibrated, how = _calibrate(checkpoint, view, protocol, source, ask, limit, calibrate)
    heat_maps = {"calibrated": calibrated} | ({"training": as_trained(settings)} if calibrate else {})
    if checkpoint.published:
        heat_maps["published"] = HeatMap(1.0, "heat map as the published code shows it")
    start = time.perf_counter()
    predictions = ask(dataset, "evaluating", [street_columns, probability_columns(heat_maps)])
    seconds = time.perf_counter() - start
    if distributed.rank() > 0:
        return ""
    table = make_table(dataset, predictions)
    further = {"seed": protocol.seed, "pairs_skipped": len(dataset) - len(table)}
    further |= {"satellite_size": view.satellite_size, "panorama_size": list(view.panorama_size)}
    further |= {"calibration": how, "pairs_seen_in_training": count_seen(checkpoint, dataset, protocol)}
    further["temperatures"] = {name: heat_map.temperature for name, heat_map in heat_maps.items()}
    further |= {"pairs_per_second": round(len(table) / seconds, 2)}
    context = results.make_context(checkpoint, measured, table, dataset, device, **further)
    shown = sorted({int(row) for rows in gallery.choose_cases(table["error_m"]) for row in rows})
    pictures = gallery.collect(predictor, dataset, table["index"].iloc[shown], calibrated, batch_size)
    return compact_report(results.write_results(output, table, context, pictures), context)


def count_seen(checkpoint, dataset, protocol):
    """Number of pairs of a test list whose panoramas are in the network's training list, in this root.

    None if it was trained on other data, or its lists are missing.
    """
    root, own = dataset.index.root, checkpoint.data
    if protocol.split != "test":
        return None
    parts = {}
    for part in ("train", "val"):  # of a training list; a short one has nothing for validation
        with suppress(UserError):
            parts[part] = read_index(root, own["area"], part, own["labels"], own["train_cities"])
    if "train" not in parts:
        return None
    if checkpoint.fingerprint:
        same = checkpoint.fingerprint == parts["train"].fingerprint
    else:  # a published file names a root at most, and all of them were trained on VIGOR
        named = checkpoint.root and Path(checkpoint.root).resolve() == root.resolve()
        same = checkpoint.published or named
    trained = np.concatenate([part.panorama for part in parts.values()])
    return int(np.isin(dataset.index.panorama[dataset.pairs[:, 0]], trained).sum()) if same else None


def _of_cameras(index, view, trained):
    """A list's cameras as settings of a `View`; UserError if the view needs other cameras."""
    for name in _OF_CUTS:
        if (value := getattr(view, name)) != getattr(trained, name):
            says = "describes photographs that are cut out of panoramas; these have their own cameras"
            raise UserError(f"--{name} {value}: {says} ({index.root})")
    cameras = index.cameras
    hfov, pitch, roll = (x.numpy().round(1) for x in (cameras.hfov, cameras.pitch.abs(), cameras.roll.abs()))
    hfov = [float(hfov.min()), float(hfov.max())]
    return {"hfov": hfov, "pitch": float(pitch.max()), "roll": float(roll.max())}


def predict_all(predictor, batch_size, num_workers, dataset, description, further):
    """The predictions for a dataset of all processes, in list order, returned in each process."""
    part = distributed.rank(), distributed.world_size()
    loader = evaluation_loader(dataset, batch_size, num_workers, predictor.device.type == "cuda", part)
    return distributed.gather_table(predictor.table(loader, description, further))


def _calibrate(checkpoint, view, protocol, source, ask, limit, calibrate):
    """(`HeatMap`, its origin in words): from the stored fit if it matches, else from a new one."""
    trained = checkpoint.settings.temperature
    if not calibrate:
        return as_trained(checkpoint.settings), "not calibrated"
    paths, of_fit = temperatures.fit_files(checkpoint), protocol.of_validation(checkpoint.data["area"])
    key = temperatures.conditions_key(checkpoint, of_fit, view)
    if fit := temperatures.find_fit(paths, key | {"of": temperatures.RELIABILITY}):
        return temperatures.as_heat_map(fit), f"for each pair, fitted on {fit['pairs']}"
    protocol, dataset = temperatures.open_held_out(checkpoint, protocol, view, source)
    names = dataset.index.panorama[dataset.pairs[:, 0]].tolist()
    whole = min(calibrate, len(names))
    pairs = min(whole, limit or whole)
    key = temperatures.conditions_key(checkpoint, protocol, view)
    key["validation_list"] = f"{zlib.crc32(b' '.join(names)):08x}"
    fit = distributed.broadcast(temperatures.find_fit(paths, key, pairs))
    if not fit:
        dataset.pairs = dataset.pairs[np.linspace(0, len(names) - 1, pairs).astype(int)]
        steps = trained * temperatures.STEPS
        nll = ask(dataset, "calibrating", [temperatures.nll_columns(steps)])["nll"]
        fit = temperatures.make_fit(steps, nll, trained) | {"whole": pairs == whole}
        if distributed.rank() == 0:
            temperatures.store_fit(paths, key, fit, checkpoint)
    return temperatures.calibrated(fit["temperature"]), temperatures.fit_in_words(fit)
