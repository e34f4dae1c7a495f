"""The worst and the median cases of an evaluation, as small images that fit one file."""

import numpy as np

CASES = 16  # of each kind
SATELLITE_PX, PANORAMA_PX = 192, (96, 192)


def choose_cases(errors):
    """(rows of the worst errors, worst first; rows about the median, in rising order): 16 each, or all that there are."""
    order = np.argsort(np.asarray(errors), kind="stable")
    start = max(0, (len(order) - CASES) // 2)
    return order[::-1][:CASES], order[start : start + CASES]


def collect(model, dataset, indices, device, temperature, calibrated):
    """Images and heat maps of the samples `indices` of a dataset, as a dict of arrays.

    temperature: for the positions · calibrated: that of the heat map. Returns `index` (N,), `satellite` and `panorama`
    (N, H, W, 3) uint8, `probability` (N, h, w) float32.
    """
    import torch.nn.functional as F
    from torch.utils.data import default_collate

    from engine.batch import to_device
    from engine.prediction import predict_batch, probability_map

    rows = []
    for i in indices:
        batch = to_device(default_collate([dataset[int(i)]]), device)
        result, _ = predict_batch(model, batch, temperature)
        probability = probability_map(result.logits, calibrated)
        height, width = batch["panorama"].shape[-2:]
        view = PANORAMA_PX[0], max(1, round(PANORAMA_PX[0] * width / height))
        small = {
            "satellite": F.interpolate(batch["satellite"].float(), (SATELLITE_PX, SATELLITE_PX), mode="area"),
            "panorama": F.interpolate(batch["panorama"].float(), view, mode="area"),
        }
        images = {name: image[0].permute(1, 2, 0).round().byte().cpu().numpy() for name, image in small.items()}
        side = min(SATELLITE_PX, probability.shape[-1])
        rows.append({**images, "probability": F.adaptive_avg_pool2d(probability[:, None], side)[0, 0].cpu().numpy()})
    return {"index": np.array(indices), **{name: np.stack([row[name] for row in rows]) for name in rows[0]}}
