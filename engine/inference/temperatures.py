"""Temperature scaling of heat maps (Guo et al., 2017): fitting on held-out pairs, and a file of fits.

A file of fits, calibration.json beside a checkpoint or in its search folder, holds a list of flat dicts. Each
belongs to one checkpoint, by its hash, and to the conditions under which it was made. The file beside the
repository's networks is only read; new fits go to `engine.run.made_folder`.
"""

import json
import math
import sys

import numpy as np
import torch

from common.errors import UserError
from common.files import Unwritable, read_json, write_bytes, writing
from common.words import counted
from dataset.protocol import open_data
from engine.inference.decode import truth_pixel
from engine.inference.reliability import HeatMap, Reliability, as_trained
from engine.run import made_folder

STEPS = 2.0 ** (np.arange(-20, 29) / 4)  # times the training temperature: from a thirtieth to a hundredfold
FILE = "calibration.json"
RELIABILITY, SEARCH = "reliability", "search"  # kinds of fits; fits without a kind are of one temperature
# Entries of each kind of fits, numbers above 0.
_POSITIVE = {None: ("temperature",), SEARCH: ("cells", "places"), RELIABILITY: ("training_temperature",)}


def conditions_key(checkpoint, protocol, view):
    """All conditions that a calibration depends on, as a dict. protocol: of the fit's pairs."""
    pairs = {name: protocol.plain()[name] for name in ("area", "labels", "pos_only", "train_cities")}
    asked = {name: value for name, value in view.conditions.items() if name != "camera_height"}
    return {"sha256": checkpoint.sha256} | pairs | asked


def open_held_out(checkpoint, protocol, view, source):
    """(`Protocol`, `VigorDataset`) of the validation part of a checkpoint's area. Raises UserError."""
    protocol = protocol.of_validation(checkpoint.data["area"])
    try:
        return protocol, open_data(source, protocol, view, checkpoint.settings.use_mask)
    except UserError as error:
        raise UserError(f"{error}. It is needed for calibration, which --calibrate 0 leaves out") from None


def nll_columns(temperatures):
    """A function for `Predictor.columns` that adds `nll`, (G,) for each sample: nats of the truth's pixel."""

    def columns(found, batch, position):
        pixel = truth_pixel(found.logits.shape[-1], batch["position"])
        logits = found.logits.flatten(1).float()
        there = logits.gather(1, pixel[:, None])[:, 0]
        return {"nll": torch.stack([(logits / t).logsumexp(1) - there / t for t in temperatures], 1)}

    return columns


def best_temperature(temperatures, nll):
    """The minimum of the mean of nll (N, G): (temperature, value there, whether inside the range).

    Between the temperatures (G,), which are evenly spaced in the logarithm, a parabola interpolates.
    """
    mean, place = np.mean(nll, 0, dtype=np.float64), np.log(temperatures)
    i = int(mean.argmin())
    if i in (0, len(mean) - 1):
        return float(temperatures[i]), float(mean[i]), False
    before, here, after = mean[i - 1 : i + 2]
    shift = 0.5 * (before - after) / (before - 2 * here + after)
    lowest = here - 0.25 * (before - after) * shift
    return float(np.exp(place[i] + shift * (place[1] - place[0]))), float(lowest), True


def make_fit(temperatures, nll, trained):
    """A fit from nll (N, G) at temperatures (G,), `trained` among them; UserError if not finite."""
    if not np.isfinite(nll).all():
        says = "the network gives numbers that are not finite on the validation pairs"
        raise UserError(f"{says}; its training went wrong")
    temperature, lowest, inside = best_temperature(temperatures, nll)
    at_trained = np.mean(nll[:, np.argmin(np.abs(temperatures - trained))], dtype=np.float64)
    fit = {"temperature": temperature, "within_range": inside, "pairs": len(nll), "nll": lowest}
    return fit | {"training_temperature": trained, "nll_at_training_temperature": float(at_trained)}


def fit_in_words(fit):
    """The origin of a fit's temperature, for reports."""
    end = "" if fit.get("within_range", True) else ", where its range ends"
    return f"fitted on {counted(fit['pairs'], 'validation pair')}{end}"


def find_heat_map(checkpoint, key):
    """The `HeatMap` of a `Checkpoint` with the fit for a `conditions_key`, else as trained, with a note."""
    paths = fit_files(checkpoint)
    if fit := find_fit(paths, key | {"of": RELIABILITY}):
        return as_heat_map(fit)
    if fit := find_fit(paths, key, whole=True):
        return calibrated(fit["temperature"])
    if find_fit(paths, {"sha256": checkpoint.sha256}):
        wanted = ", ".join(f"{name} {value}" for name, value in key.items() if name != "sha256")
        print(f"note: {paths[-1]} has no fit of a whole validation list for {wanted}", file=sys.stderr)
    trained = as_trained(checkpoint.settings)
    return trained._replace(name=f"{trained.name}, not calibrated")


def find_temperature(checkpoint, key):
    """One temperature for all pairs: that of the fit for a `conditions_key`, else that of training."""
    fit = find_fit(fit_files(checkpoint), key, whole=True)
    return fit["temperature"] if fit else checkpoint.settings.temperature


def calibrated(temperature):
    """The `HeatMap` of one fitted temperature for all pairs."""
    return HeatMap(temperature, f"heat map, calibrated (temperature {temperature:.3g})")


def as_heat_map(fit):
    """The `HeatMap` of a stored fit of the reliability."""
    name = f"heat map, calibrated for each pair (fitted on {fit['pairs']})"
    return HeatMap(fit["training_temperature"], name, Reliability.read(fit["reliability"]))


def fit_files(checkpoint, within=""):
    """The files of a `Checkpoint`'s fits; new ones go to the last. within: a folder beside the checkpoint."""
    folders = dict.fromkeys((checkpoint.folder, made_folder(checkpoint.file)))
    return [folder / within / FILE for folder in folders]


def find_fit(paths, key, least=0, whole=False):
    """The fit for a key on most pairs, `least` or more, or on a `whole` list, of some files; else None."""
    fits = [fit for fit in read_fits(paths) if fit.items() >= key.items() and fit["pairs"] >= least]
    fits = [fit for fit in fits if fit.get("of") == key.get("of") and (fit.get("whole", True) or not whole)]
    return max(fits, key=lambda fit: fit["pairs"], default=None)


def store_fit(paths, key, fit, checkpoint):
    """Add a fit to those of some files and write all to the last file, if possible.

    Older fits for the same key and fits of replaced checkpoints are dropped.
    """
    name, path = checkpoint.file.name, paths[-1]
    key = {"checkpoint": name, **key}
    kept = [
        old for old in read_fits(paths) if old.get("of") != key.get("of") or not old.items() >= key.items()
    ]
    kept = [old for old in kept if old.get("checkpoint") != name or old["sha256"] == checkpoint.sha256]
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps({"fits": [*kept, {**key, **fit}]}, indent=2) + "\n"
            write_bytes(path, text.encode(), durable=True)
    except Unwritable as error:
        says = f"cannot be written ({error.reason}), so the next evaluation will calibrate again"
        print(f"{path}: {says}", file=sys.stderr)


def read_fits(paths):
    """All fits in the existing ones of some files, without repetition. Raises UserError for invalid ones."""
    fits = []
    for path in paths:
        try:
            held = read_json(path)["fits"]
            for number, fit in enumerate(held, 1):
                _check_fit(number, fit)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            way_out = "correct it, or remove it: then the next evaluation fits again"
            raise UserError(f"{path}: no file of fits ({error}); {way_out}") from None
        fits += [fit for fit in held if fit not in fits]
    return fits


def _check_fit(number, fit):
    """Raises ValueError, or KeyError or TypeError, for an entry that is no fit."""
    names = _POSITIVE[fit.get("of")] if isinstance(fit, dict) else None
    if names is None or not isinstance(fit["sha256"], str):
        raise ValueError(f"fit {number}: expected a fit of a network")
    if type(pairs := fit["pairs"]) is not int or pairs < 0:
        raise ValueError(f"fit {number}: pairs {pairs!r}: expected a whole number")
    for name in names:
        if type(value := fit[name]) not in (int, float) or not 0 < value < math.inf:
            raise ValueError(f"fit {number}: {name} {value!r}: expected a number above 0")
    if fit.get("of") == RELIABILITY:
        Reliability.read(fit["reliability"])
