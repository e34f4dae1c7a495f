"""What matching on the ground compares, as plain arrays: the panorama on the ground, its template, the matching maps."""

import numpy as np
import torch

from common.geometry import wrap_degrees
from model.matching.ground_plane import FINEST, sample_panorama, template_cells

_REACH = 150  # cells to each side of the picture of the ground


def ground_plane_panels(model, result, batch, one):
    """What `ground_plane_figure` takes of the first sample: (panorama on the ground, template, {stride: matching map}).

    model: a network whose matching lays templates out · result: its `MatchResult` of a batch · one: the sample's `Estimate`.
    """
    matching, metres = model.matching, batch["metres_per_pixel"]
    heading, span = one.heading or 0.0, matching.span
    cells = template_cells(metres * 0 + matching.radius / _REACH, _REACH, matching.camera_height)
    laid_out = on_the_ground(batch["panorama"], cells, heading=heading, span=span)

    template = result.templates[FINEST][0].float().cpu().numpy()  # (C, n, n)
    cells, shift = matching.cells(FINEST, metres)
    distance, bearing, _ = (x[0].cpu().numpy() for x in cells)
    first, reach = float(result.headings[0]), template.shape[-1] // 2
    shown = (distance <= matching.radius) & (np.abs(wrap_degrees(bearing - first)) <= span / 2)
    cell = float(metres[0]) * FINEST
    west, east = (-reach - 0.5 + shift) * cell, (reach + 0.5 + shift) * cell
    panel = {
        "colours": feature_colours(template, shown),
        "extent": (west, east, -east, -west),
        "rotation": heading - first,
        "view": (heading, span),
    }
    return laid_out, panel, {stride: result.maps[stride][0, 0].float().cpu().numpy() for stride in sorted(result.maps)}


def feature_colours(template, shown):
    """The three directions in which features differ most, as red, green and blue: (n, n, 4) within [0, 1].

    template: (C, n, n) features · shown: (n, n) booleans, the cells that count; the others are transparent.
    """
    cells = template[:, shown].T.astype(np.float64)  # (cells, C)
    cells -= cells.mean(0)
    directions = np.linalg.svd(cells, full_matrices=False)[2][:3]
    parts = cells @ directions.T
    low, high = np.percentile(parts, (2, 98), axis=0)
    colours = np.zeros((*shown.shape, 4))
    colours[shown, :3] = np.clip((parts - low) / np.maximum(high - low, 1e-12), 0, 1)
    colours[shown, 3] = 1
    return colours


@torch.inference_mode()
def on_the_ground(panorama, cells, *, heading, span):
    """A panorama laid out on the ground around its camera, north up: (n, n, 4), uint8, transparent where it does not see.

    panorama: (1, 3, H, W) uint8 · cells: as of `template_cells` · heading: bearing of the panorama's centre · span: degrees that
    it is wide.
    """
    distance, bearing, depression = cells
    relative = wrap_degrees(bearing - heading)
    image = sample_panorama(panorama.float(), relative[:, None], depression, span)[0, :, 0]
    radius = distance[0, 0].min()  # of the circle that the square of cells holds
    seen = (distance[0] <= radius) & (relative[0].abs() <= span / 2)
    return torch.cat([image, 255.0 * seen[None]]).permute(1, 2, 0).round().to(torch.uint8).cpu().numpy()
