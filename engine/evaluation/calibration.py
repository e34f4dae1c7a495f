"""The temperature at which a heat map means what it says: fitted on held-out pairs, kept beside the checkpoint.

The file, calibration.json in the run folder, holds a list of fits. Each belongs to one checkpoint, by its hash, and to the
conditions that it was made under. One that --limit cut short serves the next evaluation alone.
"""

import json
import sys
from typing import NamedTuple

import numpy as np
import torch

from common.errors import UserError
from common.files import replacing
from engine.evaluation.prediction import truth_pixel

STEPS = 2.0 ** (np.arange(-20, 29) / 4)  # of the training temperature: from a thirtieth to a hundredfold
FILE = "calibration.json"


class HeatMap(NamedTuple):
    """How heat maps are shown: the temperature of their softmax, and what to call them."""

    temperature: float
    name: str


def nll_columns(temperatures):
    """What `engine.evaluation.prediction.predict` takes to add `nll`: (G,) for each sample, in nats.

    It is minus the log-probability of the pixel that holds the truth, at each of the temperatures (G,).
    """

    def columns(logits, batch, position):
        pixel = truth_pixel(logits.shape[-1], batch["position"])
        logits = logits.flatten(1).float()
        there = logits.gather(1, pixel[:, None])[:, 0]
        return {"nll": torch.stack([(logits / t).logsumexp(1) - there / t for t in temperatures], 1)}

    return columns


def best_temperature(temperatures, nll):
    """Where the mean negative log-likelihood is lowest: (temperature, its value there, whether it lies within the range).

    temperatures: (G,), evenly spaced in the logarithm · nll: (N, G). Between the grid's points the curve is a parabola in the
    logarithm of the temperature. At an end of the range the map says nothing (or everything), and the end is returned.
    """
    mean, place = np.mean(nll, 0, dtype=np.float64), np.log(temperatures)
    i = int(mean.argmin())
    if i in (0, len(mean) - 1):
        return float(temperatures[i]), float(mean[i]), False
    before, here, after = mean[i - 1 : i + 2]
    shift = 0.5 * (before - after) / (before - 2 * here + after)
    lowest = here - 0.25 * (before - after) * shift
    return float(np.exp(place[i] + shift * (place[1] - place[0]))), float(lowest), True


def describe_fit(temperatures, nll, trained):
    """A fit as a flat dict. temperatures: (G,), the training temperature `trained` among them · nll: (N, G) in nats.

    Raises UserError where the network's numbers are not finite.
    """
    if not np.isfinite(nll).all():
        raise UserError("the network gives numbers that are not finite on the validation pairs; its training went wrong")
    temperature, lowest, inside = best_temperature(temperatures, nll)
    return {
        "temperature": temperature,
        "within_range": inside,
        "pairs": len(nll),
        "nll": lowest,
        "training_temperature": trained,
        "nll_at_training_temperature": float(np.mean(nll[:, np.argmin(np.abs(temperatures - trained))], dtype=np.float64)),
    }


def say(fit):
    """Where a fit's temperature comes from, for reports."""
    end = "" if fit["within_range"] else ", where its range ends"
    return f"fitted on {fit['pairs']} validation pairs{end}"


def find_heat_map(loaded, key):
    """How to show the heat maps of a `Loaded` network under conditions: by the fit of an evaluation, else as trained.

    key: as `Conditions.key`. A line on stderr says where there are fits, but none for these conditions.
    """
    fits = _read_fits(loaded)
    if fit := _best(fit for fit in fits if _agree(fit, key) and fit.get("whole", True)):
        return HeatMap(fit["temperature"], f"heat map, calibrated (temperature {fit['temperature']:.3g})")
    if fits:
        wanted = ", ".join(f"{name} {value}" for name, value in key.items())
        print(f"note: {loaded.folder / FILE} has no fit of a whole validation list for {wanted}", file=sys.stderr)
    trained = loaded.settings.temperature
    return HeatMap(trained, f"heat map as trained (temperature {trained:g}), not calibrated")


def find_fit(loaded, key, pairs):
    """The stored fit of a `Loaded` network for conditions, made on at least so many pairs; else None."""
    return _best(fit for fit in _read_fits(loaded) if _agree(fit, key) and fit["pairs"] >= pairs)


def store_fit(loaded, key, fit):
    """Add a fit, a flat dict, to calibration.json beside a checkpoint; fits of files that were replaced go.

    Where that folder cannot be written, the next evaluation fits again.
    """
    path = loaded.folder / FILE
    key = {"checkpoint": loaded.file.name, "sha256": loaded.sha256, **key}
    kept = [old for old in _read_file(path) if not _agree(old, key)]
    kept = [old for old in kept if old.get("checkpoint") != loaded.file.name or old.get("sha256") == loaded.sha256]
    try:
        with replacing(path) as beside:
            beside.write_text(json.dumps({"fits": [*kept, {**key, **fit}]}, indent=2) + "\n")
    except OSError as error:
        print(f"{path}: cannot be written ({error.strerror}), so the next evaluation will calibrate again", file=sys.stderr)


def _agree(fit, key):
    """Whether a fit is of a key's conditions; what neither says is as it was before there was a choice."""
    before = {"tta": 1, "train_cities": None}
    return (before | fit).items() >= (before | key).items()


def _best(fits):
    return max(fits, key=lambda fit: fit["pairs"], default=None)


def _read_fits(loaded):
    """The fits of a network, as dicts."""
    fits = _read_file(loaded.folder / FILE)
    return [fit for fit in fits if fit.get("sha256") == loaded.sha256 and {"pairs", "temperature"} <= fit.keys()] if fits else []


def _read_file(path):
    """Every fit of a file; none where it cannot be read."""
    try:
        return [fit for fit in json.loads(path.read_text())["fits"] if isinstance(fit, dict)]
    except (OSError, ValueError, KeyError, TypeError):
        return []
