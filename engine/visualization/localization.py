"""Figures of heat maps and text reports of a pair, a panorama's four satellite images, or a user's images."""

import numpy as np
import torch

from common import geometry
from common.geometry import REFERENCE_PX, SATELLITE_PX, THESIS_METRES_PER_PIXEL
from common.view import View
from dataset.images import read_whole
from dataset.index import KINDS
from engine.figures.pictures import localization_figure, semi_positive_figure
from engine.figures.street import kind_of
from engine.inference.metrics import distances, heading_errors
from engine.search.fusion import fuse, mosaic
from engine.visualization.samples import WHOLE_PX, as_seen


def listed_pair(samples, i, show_mask=False):
    """(figure, report) of pair i of `Samples`."""
    dataset, sample = samples.dataset, samples.dataset[i]
    _, (one,) = samples.estimates([sample])
    centre = dataset.index.satellite_gps[dataset.index.satellite[tuple(dataset.pairs[i])]]
    known = not np.isnan(centre).any()
    gps = geometry.position_to_gps(*one.position, *centre, size_px=dataset.satellite_size) if known else None
    mask, views = sample["mask"] if show_mask else None, samples.views(i, sample)
    figure = _figure(views, one, gps, samples.heat_map.name, f"{samples.list_name} {i}", mask)
    head = f"index: {i}\npanorama: {samples.panorama_name(i)}\nnetwork: {samples.checkpoint.name}\n"
    return figure, head + _report(one, gps, samples.heat_map.name)


def own_images(located, street, satellite, show_mask=False):
    """(figure, report) of a user's two images: a `Located` and their paths. Raises UserError."""
    gps = None if located.latitude is None else (located.latitude, located.longitude)
    one, title, notes = located.estimate, f"{street.name} in {satellite.name}", located.notes
    mask, views = located.sample["mask"] if show_mask else None, own_views(located, street, satellite)
    figure = _figure(views, one, gps, located.heat_map, title, mask, "\n".join(notes))
    head = f"{kind_of(one)}: {street}\nsatellite image: {satellite}\n"
    head += f"network: {located.network}\n" + "".join(f"note: {note}\n" for note in notes)
    head += f"prediction (row, col), px of {satellite.name}: {located.row:.2f} {located.col:.2f}\n"
    head += f"probability that the camera stood there: {located.certainty}\n"
    return figure, head + _report(one, gps, located.heat_map)


def own_views(located, street, satellite):
    """Street image, as the network saw it, and satellite image of a `Located`, (H, W, 3) uint8 RGB each.

    The images are files or arrays, as for the `Localizer`, and keep their sizes. Raises UserError.
    """
    view = View(FoV=float(located.estimate.camera.hfov))
    seen = as_seen(read_whole(street, WHOLE_PX), located.sample, view, located.turned)
    return seen, read_whole(satellite, WHOLE_PX)


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
        latitude, longitude = geometry.latitude_longitude(*(scale * (fused.position + fused.origin)))
        lines.append(f"prediction (latitude, longitude): {latitude:.7f} {longitude:.7f}")
    return figure, "\n".join(lines) + "\n"


def _figure(views, one, gps, heat_map_name, title, mask, notes=""):
    if one.truth:
        title += f": error {one.error}"
    if gps:
        title += f"\npredicted latitude {gps[0]:.6f}, longitude {gps[1]:.6f}"
    mask = None if mask is None else mask[0].numpy()
    return localization_figure(views, one, mask=mask, heat_map_name=heat_map_name, title=title, notes=notes)


def _report(one, gps, heat_map_name):
    """The text of a picture; positions in square images are in pixels at 512 px, as in evaluations."""
    (height, width), (row, col), lines = one.probability.shape, one.position, []
    scale, unit = REFERENCE_PX / width, f"px at {REFERENCE_PX}"
    if one.truth:
        lines.append(f"truth (row, col), {unit}: {one.truth[0] * scale:.3f} {one.truth[1] * scale:.3f}")
    if height == width:
        lines.append(f"prediction (row, col), {unit}: {row * scale:.3f} {col * scale:.3f}")
    if one.metres_per_pixel:
        north, east = (height / 2 - row) * one.metres_per_pixel, (col - width / 2) * one.metres_per_pixel
        lines.append(f"prediction from the image's centre: {north:.2f} m north, {east:.2f} m east")
    if gps:
        lines.append(f"prediction (latitude, longitude): {gps[0]:.7f} {gps[1]:.7f}")
    if one.truth:
        thesis = f"{one.error_px * THESIS_METRES_PER_PIXEL:.3f} m by the thesis's rule"
        lines.append(f"error: {one.error_px:.3f} {unit}, {one.error_m:.3f} m, {thesis}")
    if one.heading is not None:
        text = f"heading: predicted {one.heading:.2f}°"
        if one.true_heading is not None:
            error = heading_errors(one.heading, one.true_heading)
            text += f", true {one.true_heading:.2f}°, error {error:.2f}°"
        lines.append(text)
    lines.append(f"{heat_map_name}: {100 * one.probability.max():.3g} % at the most probable pixel")
    return "\n".join(lines) + "\n"


def _fuse_tiles(dataset, row, estimates):
    """The `FusedMap` of the heat maps of a row's four images, and the `Estimate` on its grid."""
    index, size, first = dataset.index, dataset.satellite_size, estimates[0]
    corners = index.corner(index.satellite[row]) * (size / SATELLITE_PX)  # (4, 2)
    fused = fuse(np.stack([one.probability for one in estimates]), corners)
    truth = fused.corners[0] + index.position[row, 0] * (size / SATELLITE_PX)  # by the positive's label
    error = float(distances(*fused.position, *truth))
    errors = {"error_px": error * REFERENCE_PX / size, "error_m": error * first.metres_per_pixel}
    places = {"position": fused.position, "truth": tuple(truth), "heading": None, "true_heading": None}
    return fused, first._replace(probability=fused.probability, **places, **errors)
