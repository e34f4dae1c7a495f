"""What training minimises: a network's prediction and a batch -> named losses and their weighted sum."""

import torch
import torch.nn.functional as F

from common.geometry import wrap_degrees
from loss.heatmap import LOSSES, gaussian_target

WEIGHTS = {"location_loss": 1.0, "search_loss": 1.0, "heading_loss": 1.0, "tilt_loss": 1.0}  # tilt in degrees
CELLS = 0.7  # sigma of targets on a coarse grid
_EXCLUDED = -1e4  # score of an image that does not exist; finite, since infinity times a zero target is NaN


class Criterion:
    """The loss of a name in `LOSSES` over the heat map, and those of what else a network predicts.

    Logits are divided by `temperature`. Where queries are compared with several images, the map of
    `search_stride`, by which whole cities are searched, gets a loss of its own; None: no map does.
    `estimates_tilt`: whether the network estimates how photographs were tilted.
    """

    def __init__(self, name, temperature, search_stride=None, estimates_tilt=False):
        self.location_loss, self.temperature = LOSSES[name], temperature
        self.search_stride, self.estimates_tilt = search_stride, estimates_tilt

    def __call__(self, found, batch, missing=None):
        """{'loss': what to minimise, and its parts by name}: scalar tensors.

        found: a `Prediction` of B or B N pairs.
        batch: has `position` (B, 2) in pixels of the satellite tensor, `heading` (B,) in degrees, `camera`,
        whose prior heading the network's headings are relative to, and photographs' `tilt` (B, 2) in degrees.
        missing: (B, N) bool, where each query was compared with N satellite images, its own the first: which
        of them do not exist. Every softmax then runs over the pixels of all N.
        """
        position, size = batch["position"], found.logits.shape[-1]

        def together(x):  # (B N, ...) -> (B, N, ...)
            x = x.unflatten(0, (len(position), -1))
            if missing is None:
                return x
            return x.masked_fill(missing.view(*missing.shape, *[1] * (x.dim() - 2)), _EXCLUDED)

        def own(target, maps):  # images that do not hold the place have no target
            return F.pad(target[:, None], (0, 0, 0, 0, 0, maps.shape[1] - 1))

        logits = together(found.logits)
        target = own(gaussian_target(position, size), logits)
        losses = {"location_loss": self.location_loss(logits, target, self.temperature)}
        if missing is not None and self.search_stride:
            maps = together(found.maps[self.search_stride][:, 0])
            h = maps.shape[-1]
            target = own(gaussian_target(position * (h / size), h, sigma=CELLS), maps)
            losses["search_loss"] = LOSSES["cross_entropy"](maps, target, self.temperature)
        if found.heading_scores is not None:
            scores = together(found.heading_scores)
            heading = batch["heading"] - batch["camera"].heading
            losses["heading_loss"] = heading_place_loss(scores, found.headings, position, heading, size)
        if self.estimates_tilt:
            camera = found.camera
            tilt = torch.stack((camera.pitch, camera.roll), 1).unflatten(0, (len(position), -1))[:, 0]
            losses["tilt_loss"] = F.smooth_l1_loss(tilt, batch["tilt"].to(tilt))
        return {"loss": sum(WEIGHTS[name] * value for name, value in losses.items()), **losses}


def heading_place_loss(scores, headings, position, heading, size):
    """Joint cross entropy over heading and place, on the grid of the scores.

    scores: (B, N, K, h, w) log-likelihoods of each query's N satellite images; the first holds the place.
    headings: (K,) degrees, evenly spaced; heading: (B,), the true ones, relative to the same bearing.
    position: (B, 2), row and col in pixels of the satellite image, `size` on a side.

    The target shares each sample between the two nearest headings and is a Gaussian of 0.7 cells in place.
    """
    h = scores.shape[-1]
    apart = wrap_degrees(heading[:, None] - headings)
    turn = (1 - apart.abs() / (headings[1] - headings[0])).clamp_min(0)  # (B, K)
    place = gaussian_target(position * (h / size), h, sigma=CELLS)
    target = (turn[:, :, None, None] * place[:, None]).flatten(1)
    log_probability = F.log_softmax(scores.float().flatten(1), dim=1)[:, : target.shape[1]]
    return -((target * log_probability).sum(1) / target.sum(1)).mean()
