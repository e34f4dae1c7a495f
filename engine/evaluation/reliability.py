"""Fits the reliability of heat maps on pairs that are harder than those of training."""

import numpy as np
import torch
from tqdm import tqdm

from common.errors import UserError
from dataset.augment import augment
from dataset.loader import collate
from dataset.protocol import open_data
from engine.inference.decode import NEAR_M, locate, truth_pixel
from engine.inference.predictor import Predictor, to_device
from engine.inference.reliability import fit_reliability, signs
from engine.inference.temperatures import RELIABILITY, conditions_key, fit_files, store_fit
from engine.run import seed_step

HARDER = ("strong", "textures")  # how harder copies are changed, in turns
# Of these copies: metres per pixel are wrong by up to a factor, headings by up to so many degrees, and a
# share of the batches of panoramas is cropped above and below.
ERRORS = (1.12, 3.0, 0.5)
LEAST = 50  # pairs of a fit


def calibrate(checkpoint, view, protocol, source, device, batch_size, copies, limit):
    """Fit the reliability of a `Checkpoint`'s heat maps, and store the fit.

    It uses each pair of the protocol's list, at most `limit`, as it is and in `copies` harder forms. Returns
    the number of fitted pairs, and the share of those within 5 m. Raises UserError for too few pairs.
    """
    dataset = open_data(source.found(), protocol, view, checkpoint.settings.use_mask)
    chosen = np.linspace(0, len(dataset) - 1, min(len(dataset), limit or len(dataset))).astype(int)
    if (count := len(chosen) * (1 + copies)) < LEAST:
        raise UserError(f"{source.dataset_root}: {count} pairs, but a fit needs {LEAST}; draw more")
    errors = ERRORS[:2] if view.photographs else ERRORS
    predictor, parts = Predictor(checkpoint.network, view, device), []
    starts = range(0, len(chosen), batch_size)
    bar = tqdm(total=len(starts) * (1 + copies), desc="predicting", unit="batch", leave=False, disable=None)
    for copy in range(1 + copies):
        for start in starts:
            batch = collate([dataset[int(i)] for i in chosen[start : start + batch_size]])
            seed_step(protocol.seed, copy, start, 0)
            if copy:
                batch = augment(batch, HARDER[copy % len(HARDER)], view, *errors)
            parts.append(_seen(predictor, to_device(batch, device)))
            bar.update()
    bar.close()
    given, logits, pixel, near = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
    trained = checkpoint.settings.temperature
    fit = fit_reliability(given, logits, pixel, trained)
    key = conditions_key(checkpoint, protocol.of_validation(checkpoint.data["area"]), view)
    content = {"pairs": len(pixel), "training_temperature": trained, "reliability": fit.plain()}
    store_fit(fit_files(checkpoint), {"of": RELIABILITY} | key, content, checkpoint)
    return len(pixel), float(near.float().mean())


@torch.inference_mode()
def _seen(predictor, batch):
    """For a batch on the device: signs, logits (P, pixels), true pixels, whether errors are within 5 m."""
    trained = predictor.settings.temperature
    found = predictor(batch)
    pixel = truth_pixel(found.logits.shape[-1], batch["position"])
    error = (locate(found.logits, trained) - batch["position"]).norm(dim=1) * batch["metres_per_pixel"]
    return signs(found, batch["metres_per_pixel"], trained), found.logits.flatten(1), pixel, error <= NEAR_M
