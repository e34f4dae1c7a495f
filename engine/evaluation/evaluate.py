"""An evaluation from a network to its files: calibrate, predict, measure, write."""

import time
import zlib
from functools import partial

import numpy as np

from common.errors import UserError
from dataset.index import cities_unlike_vigor
from dataset.loader import evaluation_loader
from engine import distributed, run
from engine.evaluation import calibration, gallery, results
from engine.evaluation.conditions import as_taken
from engine.evaluation.prediction import predict, probability_columns
from engine.evaluation.report import compact_report
from engine.evaluation.table import make_table, street_columns


def evaluate(loaded, conditions, source, output, device, *, batch_size, num_workers, limit=None, calibrate=500):
    """Measure a network and write all that is to know of it; returns the text for the terminal, '' but in the first process.

    loaded: a `Loaded` network on its device.
    conditions, source: which pairs, a `Conditions` and a `Source`.
    output: folder of the results.
    limit: only the first so many pairs.
    calibrate: validation pairs to fit the heat map's temperature on, at most `limit`; 0 leaves it as trained.

    Raises UserError, also where that folder holds another evaluation.
    """
    with distributed.first():
        source = source.found()
    dataset = source.open(conditions, loaded.settings)
    in_list, dataset.pairs = len(dataset), dataset.pairs[:limit]
    measured = {name: value for name, value in conditions.plain().items() if name != "seed"}
    measured |= {"limit": limit, "pairs_in_list": in_list}
    if dataset.photographs:  # which are as they are, whatever the flags say of those that are cut out of panoramas
        measured |= as_taken(dataset.index.cameras)
    if cities := cities_unlike_vigor(dataset.index, conditions.area, conditions.split):
        measured["cities_in_list"] = cities
    if distributed.rank() == 0:
        results.keep_other_evaluations(output, measured)
        results.prepare_folder(output)
    predict_all = partial(_predict_all, loaded, device, batch_size, num_workers)
    calibrated, how = _calibrate(loaded, conditions, source, predict_all, limit, calibrate)
    trained = loaded.settings.temperature
    temperatures = {"calibrated": calibrated, "training": trained} | ({"published": 1.0} if loaded.published else {})
    start = time.perf_counter()
    predictions = predict_all(dataset, "evaluating", [street_columns, probability_columns(temperatures)])
    seconds = time.perf_counter() - start
    if distributed.rank() > 0:
        return ""
    table = make_table(dataset, predictions)
    context = {
        "model_path": str(loaded.file),
        "checkpoint_sha256": loaded.sha256,
        "published": loaded.published,
        **measured,
        "seed": conditions.seed,
        "pairs": len(table),
        "pairs_skipped": len(dataset) - len(table),
        "satellite_size": loaded.settings.satellite_size,
        "panorama_size": list(loaded.settings.panorama_size),
        "dataset_root": str(dataset.index.root),
        "temperatures": temperatures,
        "calibration": how,
        "git_revision": run.git_revision(),
        "device": str(device),
        "processes": distributed.world_size(),
        "pairs_per_second": round(len(table) / seconds, 2),
    }
    shown = sorted({int(row) for rows in gallery.choose_cases(table["error_m"]) for row in rows})
    shown = table["index"].iloc[shown]
    pictures = gallery.collect(loaded.model, dataset, shown, device, trained, calibrated, batch_size)
    return compact_report(results.write_results(output, table, context, pictures), context)


def _predict_all(loaded, device, batch_size, num_workers, dataset, description, further):
    """The predictions of all processes for a dataset, in list order, in each of them."""
    part = distributed.rank(), distributed.world_size()
    loader = evaluation_loader(dataset, batch_size, num_workers, device.type == "cuda", part)
    return distributed.gather_table(predict(loaded.model, loader, device, loaded.settings.temperature, description, further))


def _calibrate(loaded, conditions, source, predict_all, limit, calibrate):
    """(temperature that calibrates the heat map, how it was found): the stored fit where it matches, else a new one."""
    trained = loaded.settings.temperature
    if not calibrate:
        return trained, "not calibrated"
    try:
        dataset = source.open(conditions.of_calibration(loaded.area), loaded.settings)
    except UserError as error:
        raise UserError(f"{error}. It was wanted for calibration, which --calibrate 0 leaves out") from None
    names = dataset.index.panorama[dataset.pairs[:, 0]].tolist()
    whole = min(calibrate, len(names))
    pairs = min(whole, limit or whole)
    key = conditions.of_calibration(loaded.area).key | {"validation_list": f"{zlib.crc32(b' '.join(names)):08x}"}
    fit = distributed.broadcast(calibration.find_fit(loaded, key, pairs))
    if not fit:
        dataset.pairs = dataset.pairs[np.linspace(0, len(names) - 1, pairs).astype(int)]
        steps = trained * calibration.STEPS
        nll = predict_all(dataset, "calibrating", [calibration.nll_columns(steps)])["nll"]
        fit = calibration.describe_fit(steps, nll, trained) | {"whole": pairs == whole}
        if distributed.rank() == 0:
            calibration.store_fit(loaded, key, fit)
    return fit["temperature"], calibration.say(fit)
