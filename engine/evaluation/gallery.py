"""The worst and the median cases of an evaluation, as small images for one file."""

import numpy as np
import torch.nn.functional as F

from dataset.augment import cut
from dataset.loader import collate
from engine.inference.predictor import to_device

CASES = 16  # of each kind
SATELLITE_HEIGHT, QUERY_HEIGHT = 192, 96  # of the images, pixels


def choose_cases(errors):
    """(rows of the largest errors, largest first; rows around the median, ascending), up to `CASES` each."""
    order = np.argsort(np.asarray(errors), kind="stable")
    start = max(0, (len(order) - CASES) // 2)
    return order[::-1][:CASES], order[start : start + CASES]


def collect(predictor, dataset, indices, heat_map, batch_size):
    """Some samples of a dataset, as a dict: `index` (N,), `satellite` and `query` (N, H, W, 3) uint8,
    `probability` (N, h, w) float32 of a `HeatMap`."""
    indices, parts = np.array(indices), []
    for start in range(0, len(indices), batch_size):
        samples = [dataset[int(i)] for i in indices[start : start + batch_size]]
        batch = to_device(collate(samples), predictor.device)
        prediction, _ = predictor.columns(batch)
        probability = heat_map.probability(prediction, batch["metres_per_pixel"])
        query = cut(batch, predictor.view)["query"]
        height, width = query.shape[-2:]
        query_px = QUERY_HEIGHT, max(1, round(QUERY_HEIGHT * width / height))
        satellite = F.interpolate(batch["satellite"].float(), (SATELLITE_HEIGHT,) * 2, mode="area")
        small = {"satellite": satellite, "query": F.interpolate(query.float(), query_px, mode="area")}
        part = {name: image.permute(0, 2, 3, 1).round().byte() for name, image in small.items()}
        side = min(SATELLITE_HEIGHT, probability.shape[-1])
        part["probability"] = F.adaptive_avg_pool2d(probability[:, None], side)[:, 0]
        parts.append({name: value.cpu().numpy() for name, value in part.items()})
    return {"index": indices, **{name: np.concatenate([part[name] for part in parts]) for name in parts[0]}}
