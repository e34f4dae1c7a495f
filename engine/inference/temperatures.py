"""Temperature scaling of heat maps (Guo et al., 2017): fitting on held-out pairs, and a file of fits.

A file of fits, calibration.json beside a checkpoint or in its search folder, holds a list of flat dicts. Each
belongs to one checkpoint, by its hash, and to the conditions under which it was made.
"""

import json
import sys

import numpy as np
import torch

from common.errors import UserError
from common.files import replacing
from engine.inference.decode import truth_pixel
from engine.inference.reliability import HeatMap, Reliability, as_trained

STEPS = 2.0 ** (np.arange(-20, 29) / 4)  # of the training temperature: from a thirtieth to a hundredfold
FILE = "calibration.json"
RELIABILITY = "reliability"  # what such fits are marked as


def conditions_key(checkpoint, protocol, view):
    """Everything that changes what a heat map looks like, as a dict. The `Protocol` is of a fit's pairs."""
    pairs = {name: protocol.plain()[name] for name in ("area", "labels", "pos_only", "train_cities")}
    asked = {name: value for name, value in view.conditions.items() if name != "camera_height"}
    return {"sha256": checkpoint.sha256} | pairs | asked


def nll_columns(temperatures):
    """What `Predictor.columns` takes to add `nll`, (G,) for each sample: nats of the truth's pixel."""

    def columns(found, batch, position):
        pixel = truth_pixel(found.logits.shape[-1], batch["position"])
        logits = found.logits.flatten(1).float()
        there = logits.gather(1, pixel[:, None])[:, 0]
        return {"nll": torch.stack([(logits / t).logsumexp(1) - there / t for t in temperatures], 1)}

    return columns


def best_temperature(temperatures, nll):
    """Where the mean of nll (N, G) is lowest: (temperature, value there, whether inside the range).

    Between the temperatures (G,), evenly spaced in the logarithm, the curve is taken as a parabola.
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
    """Where a fit's temperature comes from, for reports."""
    end = "" if fit["within_range"] else ", where its range ends"
    return f"fitted on {fit['pairs']} validation pairs{end}"


def find_heat_map(checkpoint, key):
    """The `HeatMap` of a `Checkpoint` by the fit for a `conditions_key`, else as trained, with a note."""
    path = checkpoint.folder / FILE
    if fit := find_fit(path, key | {"of": RELIABILITY}):
        return as_heat_map(fit)
    if fit := find_fit(path, key, whole=True):
        return HeatMap(fit["temperature"], f"heat map, calibrated (temperature {fit['temperature']:.3g})")
    if find_fit(path, {"sha256": checkpoint.sha256}):
        wanted = ", ".join(f"{name} {value}" for name, value in key.items() if name != "sha256")
        print(f"note: {path} has no fit of a whole validation list for {wanted}", file=sys.stderr)
    trained = as_trained(checkpoint.settings)
    return trained._replace(name=f"{trained.name}, not calibrated")


def as_heat_map(fit):
    """The `HeatMap` of a stored fit of the reliability. Raises UserError for one that was changed by hand."""
    try:
        reliability = Reliability.read(fit["reliability"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{FILE}: a fit of the reliability cannot be read ({error}); fit it again") from None
    name = f"heat map, calibrated for each pair (fitted on {fit['pairs']})"
    return HeatMap(fit["training_temperature"], name, reliability)


def find_fit(path, key, least=0, whole=False):
    """The stored fit for a key on most pairs, `least` or more, or on a `whole` list; else None."""
    fits = [fit for fit in read_fits(path) if fit.items() >= key.items() and fit["pairs"] >= least]
    fits = [fit for fit in fits if fit.get("of") == key.get("of") and (fit.get("whole", True) or not whole)]
    return max(fits, key=lambda fit: fit["pairs"], default=None)


def store_fit(path, key, fit, checkpoint):
    """Add a fit to a file of fits, if it can be written; older ones for the key and of replaced files go."""
    name = checkpoint.file.name
    key = {"checkpoint": name, **key}
    kept = [old for old in read_fits(path) if not old.items() >= key.items()]
    kept = [old for old in kept if old.get("checkpoint") != name or old["sha256"] == checkpoint.sha256]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as beside:
            beside.write_text(json.dumps({"fits": [*kept, {**key, **fit}]}, indent=2) + "\n", "utf-8")
    except OSError as error:
        says = f"cannot be written ({error.strerror}), so the next evaluation will calibrate again"
        print(f"{path}: {says}", file=sys.stderr)


def read_fits(path):
    """Every fit of a file; none where it cannot be read."""
    try:
        fits = json.loads(path.read_text("utf-8"))["fits"]
        return [fit for fit in fits if isinstance(fit, dict) and {"pairs", "sha256"} <= fit.keys()]
    except (OSError, ValueError, KeyError, TypeError):
        return []
