"""What a network looked at, as plain arrays: Grad-CAM and cross-attention."""

from typing import NamedTuple

import numpy as np

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

    attention: its weights both ways, `panorama_to_satellite` and `satellite_to_panorama`, each (1, heads, N, N) · anchors: (rows,
    columns) of the N tokens · position: (row, col), in pixels of a satellite image `size` on a side · head: one head, counted
    from 0, or None for the mean of all.
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
