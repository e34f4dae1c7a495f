"""The temperature at which a heat map means what it says: fitted on held-out pairs, kept beside the checkpoint.

The file, calibration.json in the run folder, holds a list of fits. Each belongs to one checkpoint, by its hash, and to the
conditions that it was made under.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

from engine.checkpoint import replacing
from engine.run import RunError

STEPS = 2.0 ** (np.arange(-20, 29) / 4)  # of the training temperature: from a thirtieth to a hundredfold
FILE = "calibration.json"


def checkpoint_hash(path):
    """SHA-256 of a file, as hexadecimal digits."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def nll_columns(temperatures):
    """What `engine.prediction.predict` takes to add `nll`: (G,) for each sample, in nats.

    It is minus the log-probability of the pixel that holds the truth, at each of the temperatures (G,).
    """
    from engine.prediction import truth_pixel

    def columns(logits, batch, position):
        import torch

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

    Raises RunError where the network's numbers are not finite.
    """
    if not np.isfinite(nll).all():
        raise RunError("the network gives numbers that are not finite on the validation pairs; its training went wrong")
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


def find_fit(checkpoint, digest, conditions, pairs=0):
    """The stored fit for a checkpoint file under these conditions, made on at least so many pairs; else None.

    conditions: a flat dict; what it leaves out does not matter. An unreadable calibration.json counts as none.
    """
    try:
        fits = json.loads((Path(checkpoint).parent / FILE).read_text())["fits"]
        wanted = {"sha256": digest, **conditions}.items()
        fits = [fit for fit in fits if fit.items() >= wanted and fit["pairs"] >= pairs]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return max(fits, key=lambda fit: fit["pairs"], default=None)


def store_fit(checkpoint, digest, conditions, fit):
    """Add a fit, a flat dict, to calibration.json beside a checkpoint file; fits of files that were replaced go.

    Where that folder cannot be written, the next evaluation fits again.
    """
    checkpoint = Path(checkpoint)
    path = checkpoint.parent / FILE
    try:
        fits = [old for old in json.loads(path.read_text())["fits"] if isinstance(old, dict)]
    except (OSError, ValueError, KeyError, TypeError):
        fits = []
    key = {"checkpoint": checkpoint.name, "sha256": digest, **conditions}
    kept = [old for old in fits if not old.items() >= key.items()]
    kept = [old for old in kept if old.get("checkpoint") != checkpoint.name or old.get("sha256") == digest]
    try:
        with replacing(path) as beside:
            beside.write_text(json.dumps({"fits": [*kept, {**key, **fit}]}, indent=2) + "\n")
    except OSError as error:
        print(f"{path}: cannot be written ({error.strerror}), so the next evaluation will calibrate again", file=sys.stderr)
