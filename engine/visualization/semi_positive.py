"""One panorama against its four satellite images, and their heat maps fused -> figure and report."""

import numpy as np
import torch

from common.geometry import REFERENCE_PX, SATELLITE_PX, latitude_longitude
from dataset.index import KINDS
from engine.figures.pictures import semi_positive_figure
from engine.inference.metrics import distances
from engine.search.fusion import fuse, mosaic


def semi_positives(samples, i):
    """(figure, report) of the panorama of pair i of `Samples`."""
    dataset, row = samples.dataset, samples.dataset.pairs[i][0]
    heading, numbered = float(dataset[i]["heading"]), {"index": torch.tensor(i)}
    tiles = [dataset.pair(row, kind, heading) | numbered for kind in range(len(KINDS))]
    _, estimates = samples.estimates(tiles)
    fused, together = _fuse_tiles(dataset, row, estimates)
    views = [samples.views(i, tile, kind) for kind, tile in enumerate(tiles)]
    street, images = views[0][0], [satellite for _, satellite in views]
    finer = len(images[0]) / dataset.satellite_size
    whole = mosaic(images, finer * fused.corners, [round(finer * side) for side in fused.probability.shape])
    shown, lines = [], [f"index: {i}", f"panorama: {samples.panorama_name(i)}", samples.heat_map.name]
    named = zip((*KINDS, "all four together"), (*images, whole), (*estimates, together), strict=True)
    for kind, image, one in named:
        error = one.truth and f"error {one.error_px:.3f} px at {REFERENCE_PX}, {one.error_m:.3f} m"
        lines.append(f"{kind}: {error or 'the panorama lies outside'}")
        between = ": " if image is whole else "\n"
        words = one.error if one.truth else "the panorama lies outside this image"
        shown.append((image, one, f"{kind}{between}{words}"))
    title = f"{samples.list_name} {i}: {samples.heat_map.name}"
    figure = semi_positive_figure(street, shown[:-1], shown[-1], fused.corners, title=title)
    if np.isfinite(dataset.index.satellite_gps[dataset.index.satellite[row]]).all():
        scale = SATELLITE_PX / dataset.satellite_size
        latitude, longitude = latitude_longitude(*(scale * (fused.position + fused.origin)))
        lines.append(f"prediction (latitude, longitude): {latitude:.7f} {longitude:.7f}")
    return figure, "\n".join(lines) + "\n"


def _fuse_tiles(dataset, row, estimates):
    """The `FusedMap` of the heat maps of a row's four images, and its `Estimate` on the common grid."""
    index, size, first = dataset.index, dataset.satellite_size, estimates[0]
    corners = index.corner(index.satellite[row]) * (size / SATELLITE_PX)  # (4, 2)
    fused = fuse(np.stack([one.probability for one in estimates]), corners)
    truth = fused.corners[0] + index.position[row, 0] * (size / SATELLITE_PX)  # by the positive's label
    error = float(distances(*fused.position, *truth))
    errors = {"error_px": error * REFERENCE_PX / size, "error_m": error * first.metres_per_pixel}
    places = {"position": fused.position, "truth": tuple(truth), "heading": None, "true_heading": None}
    return fused, first._replace(probability=fused.probability, **places, **errors)
