"""What a network looked at: Grad-CAM, cross-attention, ground-plane matching; and their figures."""

from typing import NamedTuple

import numpy as np
import torch

from common.geometry import wrap_degrees
from dataset.augment import cut
from engine.figures.attention import ground_plane_figure, layers_figure, overview_figure
from engine.inference.predictor import make_inputs
from model.matching.ground_plane import FINEST, sample_view, seen_below, template_cells

_REACH = 150  # cells to each side of the picture of the ground


def attention_figures(samples, i, heads=()):
    """{name: figure} of pair i of `Samples`. heads: attention heads to draw on separate sheets."""
    checkpoint, view = samples.checkpoint, samples.predictor.view
    network, settings = checkpoint.network, checkpoint.settings
    sample = samples.dataset[i]
    prediction, (one,) = samples.estimates([sample], return_attention=True)
    batch = cut(samples.batch([sample]), view)
    inputs, views = make_inputs(batch, view), samples.views(i, sample)
    branches = network.backbones
    cams = [grad_cam(network, inputs, branch.last_layer, one.position) for branch in branches]
    height = inputs.query.shape[-2]
    top = network.rows_cut(inputs.camera, height)  # which the branch does not see
    cams[0] = np.pad(cams[0], ((round(len(cams[0]) * top / (height - top)), 0), (0, 0)))
    title = f"{samples.list_name} {i}" + (f": error {one.error}" if one.truth else "")
    figures = {}
    if prediction.attention is None:
        says = "no cross-attention; what it compares is in the picture of the ground"
        words = f"{title}\n{settings.network} network: {says}"
        figures["overview"] = overview_figure(views, one, cams, None, title=words)
    else:
        anchors = settings.vert_anchors, settings.horz_anchors
        assumed = " (assumed)" if "num_heads" in checkpoint.assumed else ""
        sheets = [("layers", None, f"mean over {settings.num_heads} heads{assumed}")]
        sheets += [(f"layers_head{head:02d}", head, f"head {head}") for head in heads]
        for name, head, words in sheets:
            how = anchors, one.position, settings.satellite_size, head
            layers = [attention_maps(layer, *how) for layer in prediction.attention]
            if head is None:
                last = f"{title}\nattention of the last of {len(layers)} layers, {words}"
                figures["overview"] = overview_figure(views, one, cams, layers[-1], title=last)
            figures[name] = layers_figure(views, one, layers, title=f"{title}\nattention, {words}")
    if prediction.templates is not None:
        laid_out, template, maps = ground_plane_panels(network.matching, prediction, batch, one)
        how = {"radius": settings.matching_radius, "title": title}
        figures["ground_plane"] = ground_plane_figure(laid_out, views[1], template, maps, one, **how)
    return figures


def grad_cam(network, inputs, layer, position):
    """Grad-CAM: how much each cell of a layer's features supports the predicted pixel, (h, w), at least 0.

    inputs: one sample.
    layer: a module of the network whose output is (1, C, h, w).
    position: (row, col) of the pixel whose logit is explained, in pixels of the satellite tensor.

    Selvaraju et al., Grad-CAM, ICCV 2017, by captum.
    """
    from captum.attr import LayerGradCam

    def logits(query, satellite):
        return network(inputs._replace(query=query, satellite=satellite)).logits.flatten(1)

    size = inputs.satellite.shape[-2:]
    row, col = _cell(position, size, size)
    images, target = (inputs.query, inputs.satellite), row * size[1] + col
    relevance = LayerGradCam(logits, layer).attribute(images, target=target, relu_attributions=True)
    return relevance[0, 0].detach().cpu().numpy()


def _cell(position, size, grid):
    """The cell (row, col) of a grid (rows, columns) over an image of a size that contains a position."""
    places = zip(position, size, grid, strict=True)
    return tuple(min(max(int(value / side * cells), 0), cells - 1) for value, side, cells in places)


class AttentionMaps(NamedTuple):
    """The attention of one fusion layer. Maps are (rows, columns) on the anchors' grid and sum to 1."""

    satellite_token: tuple  # (row, col) in the grid of the token at the prediction
    panorama_token: tuple  # of the token that it reads most
    panorama: np.ndarray  # what the satellite token reads of the panorama
    satellite: np.ndarray  # what the panorama token reads of the satellite image
    mean_panorama: np.ndarray  # the same, averaged over all queries
    mean_satellite: np.ndarray


def attention_maps(attention, anchors, position, size, head=None):
    """The `AttentionMaps` of a layer's weights, a `LayerAttention` of (1, heads, N, N).

    anchors: (rows, columns) of the N tokens.
    position: (row, col), in pixels of a satellite image `size` on a side.
    head: one head, counted from 0, or None for the mean of all.
    """

    def weights(name):
        heads = getattr(attention, name)[0].float().cpu().numpy()  # (heads, N, N)
        return heads.mean(0) if head is None else heads[head]

    to_panorama, to_satellite = weights("satellite_to_panorama"), weights("panorama_to_satellite")
    token = _cell(position, (size, size), anchors)
    from_prediction = to_panorama[token[0] * anchors[1] + token[1]]
    strongest = int(from_prediction.argmax())
    maps = from_prediction, to_satellite[strongest], to_panorama.mean(0), to_satellite.mean(0)
    return AttentionMaps(token, divmod(strongest, anchors[1]), *(part.reshape(anchors) for part in maps))


def ground_plane_panels(matching, prediction, batch, one):
    """One sample's `ground_plane_figure` arguments: (street image on the ground, template, {stride: map}).

    They follow from the network's matching, its `Prediction`, a batch whose query image is cut as the
    network sees it, and the `Estimate`.
    """
    metres, camera = batch["metres_per_pixel"], one.camera.to(batch["query"].device)
    heading = one.heading if one.heading is not None else one.true_heading or 0.0
    height = prediction.heights[len(prediction.heights) // 2]  # of the template that stands for all
    distance, bearing = template_cells(metres * 0 + matching.radii[FINEST] / _REACH, _REACH)
    laid_out = on_the_ground(batch["query"], distance, bearing, height, camera, heading)

    template = prediction.templates[FINEST][0].float().cpu().numpy()  # (C, n, n)
    distance, bearing, shift = matching.cells(FINEST, metres)
    laid_along = float(prediction.headings[0] + camera.heading[0])
    seen = _project(camera, distance, bearing, height, laid_along)[2][0, 0]
    shown = ((distance[0] <= matching.radii[FINEST]) & seen).cpu().numpy()
    cell, reach = float(metres[0]) * FINEST, template.shape[-1] // 2
    west, east = (-reach - 0.5 + shift) * cell, (reach + 0.5 + shift) * cell
    panel = {"colours": feature_colours(template, shown), "extent": (west, east, -east, -west)}
    panel |= {"rotation": heading - laid_along, "view": (heading, float(camera.hfov))}
    maps = {stride: prediction.maps[stride][0, 0].float().cpu().numpy() for stride in sorted(prediction.maps)}
    return laid_out, panel, maps


def feature_colours(template, shown):
    """Features (C, n, n) as colours (n, n, 4) in [0, 1]: their three principal components as R, G and B.

    shown: (n, n) booleans; other cells do not count and are transparent.
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
def on_the_ground(street, distance, bearing, height, camera, heading):
    """A street image (1, 3, H, W) projected onto the ground around its camera, north up: (n, n, 4) uint8.

    distance, bearing: (1, n, n), of the cells on the ground, see `template_cells`.
    height: the camera's, a batch of one, in metres above the ground.
    heading: the bearing of the image's centre, degrees.

    Transparent where the camera does not see the ground.
    """
    x, y, seen = _project(camera, distance, bearing, height, heading)
    image = sample_view(street.float(), x, y, street.shape[-2:], wraps=camera.wraps)[0, :, 0]
    radius = distance[0, 0].min()  # of the circle inside the square of cells
    seen = (distance[0] <= radius) & seen[0, 0]
    return torch.cat([image, 255.0 * seen[None]]).permute(1, 2, 0).round().to(torch.uint8).cpu().numpy()


def _project(camera, distance, bearing, height, heading):
    """Image positions of ground cells for a camera at a height in metres and a heading: (1, 1, n, n) each."""
    depression = seen_below(distance, torch.as_tensor(height).to(distance))
    return camera.project(wrap_degrees(bearing - heading)[:, None], depression[:, None])
