"""What a network looked at: Grad-CAM, cross-attention, and the panorama's features on the ground, as plain arrays."""

from typing import NamedTuple

import numpy as np
import torch

from engine.batch import forward


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

    panorama: what the satellite token at the prediction reads of the panorama, summing to 1 · satellite: what the ground token
    that it reads most reads of the satellite image · mean_panorama, mean_satellite: the same, averaged over all queries.
    """

    satellite_token: tuple
    ground_token: tuple
    panorama: np.ndarray
    satellite: np.ndarray
    mean_panorama: np.ndarray
    mean_satellite: np.ndarray


def look(attention, anchors, position, size, head=None):
    """The `Look` of a layer.

    attention: its weights both ways, `ground_to_satellite` and `satellite_to_ground`, each (1, heads, N, N) · anchors: (rows,
    columns) of the N tokens · position: (row, col), in pixels of a satellite image `size` on a side · head: one head, counted
    from 0, or None for the mean of all.
    """

    def weights(name):
        heads = getattr(attention, name)[0].float().cpu().numpy()  # (heads, N, N)
        return heads.mean(0) if head is None else heads[head]

    to_ground, to_satellite = weights("satellite_to_ground"), weights("ground_to_satellite")
    token = tuple(min(max(int(value / size * n), 0), n - 1) for value, n in zip(position, anchors, strict=True))
    from_prediction = to_ground[token[0] * anchors[1] + token[1]]
    strongest = int(from_prediction.argmax())
    return Look(
        satellite_token=token,
        ground_token=divmod(strongest, anchors[1]),
        panorama=from_prediction.reshape(anchors),
        satellite=to_satellite[strongest].reshape(anchors),
        mean_panorama=to_ground.mean(0).reshape(anchors),
        mean_satellite=to_satellite.mean(0).reshape(anchors),
    )


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
def on_the_ground(panorama, cells, sample_panorama, *, heading, span):
    """A panorama laid out on the ground around its camera, north up: (n, n, 4), uint8, transparent where it does not see.

    panorama: (1, 3, H, W) uint8 · cells, sample_panorama: `template_cells(...)` and the function of `model.ground_plane` ·
    heading: bearing of the panorama's centre · span: degrees that it is wide.
    """
    distance, bearing, depression = cells
    relative = (bearing - heading + 180) % 360 - 180
    image = sample_panorama(panorama.float(), relative[:, None], depression, span)[0, :, 0]
    radius = distance[0, 0].min()  # of the circle that the square of cells holds
    seen = (distance[0] <= radius) & (relative[0].abs() <= span / 2)
    return torch.cat([image, 255.0 * seen[None]]).permute(1, 2, 0).round().to(torch.uint8).cpu().numpy()
