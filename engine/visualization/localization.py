"""A pair, or two images of the user's own -> the picture of its heat map and a report in words."""

import numpy as np
from torch.utils.data import default_collate

from common.geometry import REFERENCE_PX, THESIS_METRES_PER_PIXEL, position_to_gps
from dataset.images import read_whole
from dataset.vigor import roll_and_crop
from engine.batch import to_device
from engine.evaluation.metrics import heading_errors
from engine.visualization.pictures import kind_of, localization_figure
from engine.visualization.samples import WHOLE_PX


def listed_pair(samples, i, show_mask=False):
    """(figure, report) of pair i of some `Samples`."""
    dataset = samples.dataset
    row, kind = dataset.pairs[i]
    centre = dataset.index.satellite_gps[dataset.index.satellite[row, kind]]
    sample = dataset[i]
    _, (one,) = samples.estimate(to_device(default_collate([sample]), samples.device))
    gps = None if np.isnan(centre).any() else position_to_gps(*one.position, *centre, size_px=dataset.satellite_size)
    title = f"{samples.list_name} {i}"
    mask, views = sample["mask"] if show_mask else None, samples.views(i, sample)
    figure = _figure(views, one, gps, samples.heat_map.name, title, mask=mask)
    head = f"index: {i}\npanorama: {samples.panorama_name(i)}\n"
    return figure, head + _report(one, gps, samples.heat_map.name)


def own_images(found, street, satellite, show_mask=False):
    """(figure, report) of what a `Localizer` has found; street, satellite: paths of its images. Raises UserError."""
    gps = None if found.latitude is None else (found.latitude, found.longitude)
    title = f"{street.name} in {satellite.name}"
    mask, views = found.sample.get("mask") if show_mask else None, own_views(found, street, satellite)
    figure = _figure(views, found.estimate, gps, found.heat_map, title, mask=mask, notes="\n".join(found.notes))
    notes = "".join(f"note: {note}\n" for note in found.notes)
    head = f"{kind_of(found.estimate)}: {street}\nsatellite image: {satellite}\n{notes}"
    head += f"prediction (row, col), px of {satellite.name}: {found.row:.2f} {found.col:.2f}\n"
    head += f"probability that the camera stood there: {found.certainty}\n"
    return figure, head + _report(found.estimate, gps, found.heat_map)


def own_views(found, street, satellite):
    """Street image, a panorama turned and cut as the network saw it, and satellite image of what a `Localizer` has found.

    street, satellite: what it was given, files or arrays. Returns (H, W, 3) uint8 RGB of both, as large as they are. Raises
    UserError.
    """
    image = read_whole(street, WHOLE_PX)
    if "camera" not in found.sample:
        image = roll_and_crop(image, found.turned, found.estimate.camera.span)[0]
    return image, read_whole(satellite, WHOLE_PX)


def _figure(views, one, gps, heat_map_name, title, *, mask, notes=""):
    if one.truth:
        title += f": error {one.error}"
    if gps:
        title += f"\npredicted latitude {gps[0]:.6f}, longitude {gps[1]:.6f}"
    return localization_figure(
        views,
        one,
        mask=None if mask is None else mask[0].numpy(),
        heat_map_name=heat_map_name,
        title=title,
        notes=notes,
    )


def _report(one, gps, heat_map_name):
    """What a picture shows, as text; a square image's positions at the 512 px of the evaluation."""
    height, width = one.probability.shape
    scale, lines = REFERENCE_PX / width, []
    if one.truth:
        lines.append(f"truth (row, col), px at {REFERENCE_PX}: {one.truth[0] * scale:.3f} {one.truth[1] * scale:.3f}")
    if height == width:
        lines.append(f"prediction (row, col), px at {REFERENCE_PX}: {one.position[0] * scale:.3f} {one.position[1] * scale:.3f}")
    if one.metres_per_pixel:
        south, east = ((v - side / 2) * one.metres_per_pixel for v, side in zip(one.position, (height, width), strict=True))
        lines.append(f"prediction from the image's centre: {-south:.2f} m north, {east:.2f} m east")
    if gps:
        lines.append(f"prediction (latitude, longitude): {gps[0]:.7f} {gps[1]:.7f}")
    if one.truth:
        thesis = f"{one.error_px * THESIS_METRES_PER_PIXEL:.3f} m by the thesis's rule"
        lines.append(f"error: {one.error_px:.3f} px at {REFERENCE_PX}, {one.error_m:.3f} m, {thesis}")
    if one.heading is not None:
        text = f"heading: predicted {one.heading:.2f}°"
        if one.true_heading is not None:
            text += f", true {one.true_heading:.2f}°, error {heading_errors(one.heading, one.true_heading):.2f}°"
        lines.append(text)
    lines.append(f"{heat_map_name}: {100 * one.probability.max():.3g} % at the most probable pixel")
    return "\n".join(lines) + "\n"
