"""One panorama against its four satellite images, and what their heat maps say together -> figure and report."""

import numpy as np
import torch
from torch.utils.data import default_collate

from common.geometry import REFERENCE_PX, SATELLITE_PX, latitude_longitude
from dataset.index import KINDS
from engine.batch import to_device
from engine.evaluation.metrics import distances
from engine.evaluation.prediction import Estimate
from engine.search.fusion import fuse, mosaic
from engine.visualization.pictures import semi_positive_figure


def semi_positives(samples, i):
    """(figure, report) of the panorama of pair i of some `Samples`."""
    dataset = samples.dataset
    batch, estimates = _estimate_tiles(samples, i)
    fused, together = _fuse_tiles(dataset, i, estimates)
    each = [{name: values[k] for name, values in batch.items()} for k in range(len(KINDS))]
    views = [samples.views(i, sample, kind) for kind, sample in enumerate(each)]
    street, images = views[0][0], [satellite for _, satellite in views]
    finer = len(images[0]) / dataset.satellite_size
    whole = mosaic(images, finer * fused.corners, [round(finer * side) for side in fused.probability.shape])
    tiles = [
        (image, one, f"{kind}\n" + (one.error if one.truth else "the panorama lies outside this image"))
        for kind, image, one in zip(KINDS, images, estimates, strict=True)
    ]
    figure = semi_positive_figure(
        street,
        tiles,
        (whole, together, f"all four together: {together.error}"),
        fused.corners,
        title=f"{samples.list_name} {i}: {samples.heat_map.name}",
    )
    lines = [f"index: {i}", f"panorama: {samples.panorama_name(i)}", samples.heat_map.name]
    for kind, one in zip(KINDS, estimates, strict=True):
        found = "the panorama lies outside"
        if one.truth:
            found = f"error {one.error_px:.3f} px at {REFERENCE_PX}, {one.error_m:.3f} m"
        lines.append(f"{kind}: {found}")
    scale = SATELLITE_PX / dataset.satellite_size
    lines.append(f"all four together: error {together.error_px:.3f} px at {REFERENCE_PX}, {together.error_m:.3f} m")
    if np.isfinite(dataset.index.satellite_gps[dataset.index.satellite[dataset.pairs[i][0]]]).all():
        latitude, longitude = latitude_longitude(*(scale * (fused.position + fused.origin)))
        lines.append(f"prediction (latitude, longitude): {latitude:.7f} {longitude:.7f}")
    return figure, "\n".join(lines) + "\n"


def _estimate_tiles(samples, i):
    """(batch of the panorama of pair i with each of its four satellite images, their `Estimate`s)."""
    dataset, row = samples.dataset, samples.dataset.pairs[i][0]
    heading = float(dataset[i]["heading"])
    batch = default_collate([dataset.pair(row, kind, heading) | {"index": torch.tensor(i)} for kind in range(len(KINDS))])
    return batch, samples.estimate(to_device(batch, samples.device))[1]


def _fuse_tiles(dataset, i, estimates):
    """The `FusedMap` of the four heat maps of pair i, and what it says as an `Estimate` on its grid."""
    index, row, size = dataset.index, dataset.pairs[i][0], dataset.satellite_size
    corners = index.corner(index.satellite[row]) * (size / SATELLITE_PX)  # (4, 2)
    fused, metres = fuse(np.stack([one.probability for one in estimates]), corners), estimates[0].metres_per_pixel
    truth = fused.corners[0] + index.position[row, 0] * (size / SATELLITE_PX)  # by the positive's label
    error = float(distances(*fused.position, *truth))
    errors = {"error_px": error * REFERENCE_PX / size, "error_m": error * metres}
    together = Estimate(fused.probability, fused.position, tuple(truth), metres, None, None, **errors, camera=estimates[0].camera)
    return fused, together
