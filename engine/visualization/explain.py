"""What a network looked at, as plain arrays: Grad-CAM, cross-attention, and what matching on the ground compares."""

from typing import NamedTuple

import numpy as np
import torch

from common.camera import Pinhole
from common.geometry import wrap_degrees
from engine.batch import forward
from model.matching.ground_plane import FINEST, sample_view, template_cells

_REACH = 150  # cells to each side of the picture of the ground


def grad_cam(model, batch, layer, position):
    """How much each place of a layer's feature map speaks for the predicted pixel: (h, w), 0 where it does not.

    batch: of one sample, on the network's device · layer: a module whose output is (1, C, h, w) · position: (row, col) in
    pixels of the satellite tensor; the logit of its pixel is explained. Selvaraju et al., Grad-CAM, ICCV 2017, by captum.
    """
    from captum.attr import LayerGradCam

    def logits(panorama, satellite):
        return forward(model, {**batch, "panorama": panorama, "satellite": satellite}).logits.flatten(1)

    size = batch["satellite"].shape[-1]
    row, col = (min(max(int(value), 0), size - 1) for value in position)
    views = batch["panorama"].float(), batch["satellite"].float()
    relevance = LayerGradCam(logits, layer).attribute(views, target=row * size + col, relu_attributions=True)
    return relevance[0, 0].detach().cpu().numpy()


class Look(NamedTuple):
    """Where one fusion layer looks; maps are (rows, columns) of the anchors' grid. Tokens are (row, col) there.

    panorama: what the satellite token at the prediction reads of the panorama, summing to 1 · satellite: what the panorama token
    that it reads most reads of the satellite image · mean_panorama, mean_satellite: the same, averaged over all queries.
    """

    satellite_token: tuple
    panorama_token: tuple
    panorama: np.ndarray
    satellite: np.ndarray
    mean_panorama: np.ndarray
    mean_satellite: np.ndarray


def look(attention, anchors, position, size, head=None):
    """The `Look` of a layer.

    attention: its weights both ways, `panorama_to_satellite` and `satellite_to_panorama`, each (1, heads, N, N).
    anchors: (rows, columns) of the N tokens.
    position: (row, col), in pixels of a satellite image `size` on a side.
    head: one head, counted from 0, or None for the mean of all.
    """

    def weights(name):
        heads = getattr(attention, name)[0].float().cpu().numpy()  # (heads, N, N)
        return heads.mean(0) if head is None else heads[head]

    to_panorama, to_satellite = weights("satellite_to_panorama"), weights("panorama_to_satellite")
    token = tuple(min(max(int(value / size * n), 0), n - 1) for value, n in zip(position, anchors, strict=True))
    from_prediction = to_panorama[token[0] * anchors[1] + token[1]]
    strongest = int(from_prediction.argmax())
    return Look(
        satellite_token=token,
        panorama_token=divmod(strongest, anchors[1]),
        panorama=from_prediction.reshape(anchors),
        satellite=to_satellite[strongest].reshape(anchors),
        mean_panorama=to_panorama.mean(0).reshape(anchors),
        mean_satellite=to_satellite.mean(0).reshape(anchors),
    )


def ground_plane_panels(model, result, batch, one):
    """What `ground_plane_figure` takes of the first sample: (panorama on the ground, template, {stride: matching map}).

    model: a network whose matching lays templates out · result: its `MatchResult` of a batch · one: the sample's `Estimate`.
    """
    matching, metres = model.matching, batch["metres_per_pixel"]
    heading = one.heading if one.heading is not None else one.true_heading or 0.0
    cells = template_cells(metres * 0 + matching.radii[FINEST] / _REACH, _REACH, matching.camera_height)
    laid_out = on_the_ground(batch["panorama"][:1], cells, one.camera, heading)

    template = result.templates[FINEST][0].float().cpu().numpy()  # (C, n, n)
    cells, shift = matching.cells(FINEST, metres)
    distance = cells[0][0].cpu().numpy()
    first, reach = float(result.headings[0]), template.shape[-1] // 2
    if isinstance(one.camera, Pinhole):
        first += float(one.camera.heading)
    seen = _project(one.camera, cells, first)[2][0, 0].cpu().numpy()
    shown = (distance <= matching.radii[FINEST]) & seen
    cell = float(metres[0]) * FINEST
    west, east = (-reach - 0.5 + shift) * cell, (reach + 0.5 + shift) * cell
    panel = {
        "colours": feature_colours(template, shown),
        "extent": (west, east, -east, -west),
        "rotation": heading - first,
        "view": (heading, float(one.camera.hfov)),
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
def on_the_ground(street, cells, camera, heading):
    """A street image laid out on the ground around its camera, north up: (n, n, 4), uint8, transparent where it does not see.

    street: (1, 3, H, W) uint8.
    cells: as of `template_cells`.
    camera: the image's, as of an `Estimate`.
    heading: the bearing of its centre, degrees.
    """
    x, y, seen = _project(camera, cells, heading)
    image = sample_view(street.float(), x, y, wraps=camera.wraps)[0, :, 0]
    distance = cells[0]
    radius = distance[0, 0].min()  # of the circle that the square of cells holds
    seen = (distance[0] <= radius) & seen[0, 0]
    return torch.cat([image, 255.0 * seen[None]]).permute(1, 2, 0).round().to(torch.uint8).cpu().numpy()


def _project(camera, cells, heading):
    """Where an `Estimate`'s camera sees cells, of `template_cells`, when it looks along a heading: (1, 1, n, n) each."""
    _, bearing, depression = cells
    return camera.to(bearing.device).project(wrap_degrees(bearing - heading)[:, None], depression[:, None])
