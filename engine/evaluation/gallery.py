"""The worst and the median cases of an evaluation, as small images that fit one file."""

import numpy as np
import torch.nn.functional as F
from torch.utils.data import default_collate

from engine.batch import to_device
from engine.evaluation.prediction import predict_batch, probability_map

CASES = 16  # of each kind
SATELLITE_PX, PANORAMA_PX = 192, 96  # heights of the images


def choose_cases(errors):
    """(rows of the worst errors, worst first; rows about the median, in rising order): 16 each, or all that there are."""
    order = np.argsort(np.asarray(errors), kind="stable")
    start = max(0, (len(order) - CASES) // 2)
    return order[::-1][:CASES], order[start : start + CASES]


def collect(model, dataset, indices, device, temperature, calibrated, batch_size):
    """Images and heat maps of the samples `indices` of a dataset, as a dict of arrays.

    temperature: for the positions · calibrated: that of the heat map. Returns `index` (N,), `satellite` and `panorama`
    (N, H, W, 3) uint8, `probability` (N, h, w) float32.
    """
    indices, parts = np.array(indices), []
    for start in range(0, len(indices), batch_size):
        samples = [dataset[int(i)] for i in indices[start : start + batch_size]]
        batch = to_device(default_collate(samples), device)
        result, _ = predict_batch(model, batch, temperature)
        probability = probability_map(result.logits, calibrated)
        height, width = batch["panorama"].shape[-2:]
        view = PANORAMA_PX, max(1, round(PANORAMA_PX * width / height))
        small = {
            "satellite": F.interpolate(batch["satellite"].float(), (SATELLITE_PX, SATELLITE_PX), mode="area"),
            "panorama": F.interpolate(batch["panorama"].float(), view, mode="area"),
        }
        part = {name: image.permute(0, 2, 3, 1).round().byte() for name, image in small.items()}
        side = min(SATELLITE_PX, probability.shape[-1])
        part["probability"] = F.adaptive_avg_pool2d(probability[:, None], side)[:, 0]
        parts.append({name: value.cpu().numpy() for name, value in part.items()})
    return {"index": indices, **{name: np.concatenate([part[name] for part in parts]) for name in parts[0]}}
