"""What training minimises: a network's result and a batch -> named losses."""

import torch.nn.functional as F

from loss.heading import heading_place_loss
from loss.heatmap import LOSSES, gaussian_target

TILT_WEIGHT = 1.0  # of an error of a degree
CELLS = 0.7  # sigma of the target on a coarse grid
_RULED_OUT = -1e4  # a score of what does not exist; not infinite, which times a target of zero would be no number


class Criterion:
    """The loss of a name in LOSSES over the heat map and, where the network tells headings, that of heading and place.

    temperature: what the network's logits are divided by.
    search_stride: of the map that whole cities are searched by, which then, where panoramas are compared with several images, has
    a loss of its own; None: of no map.
    estimates_tilt: whether the network estimates how photographs were tilted.
    """

    def __init__(self, name, temperature, search_stride=None, estimates_tilt=False):
        self.location_loss, self.temperature, self.search_stride = LOSSES[name], temperature, search_stride
        self.estimates_tilt = estimates_tilt

    def __call__(self, result, batch, missing=None):
        """{'loss': what to minimise, and its parts by name}: scalar tensors.

        result: has `logits` (B, S, S), `heading_scores` (B, K, h, w) or None, and their `headings` (K,) in degrees, as the
        network's `MatchResult` · batch: has `position` (B, 2) in pixels of the satellite tensor, `heading` (B,) in degrees,
        and of photographs `camera` (B, 12), whose told heading the network's are relative to, and `tilt` (B, 2), in degrees.
        missing: (B, N) bool, where each panorama was compared with N satellite images, its own the first, and the result has B N
        entries: which of them stand for none. Every softmax then runs over the pixels of all N.
        """
        position, size = batch["position"], result.logits.shape[-1]

        def together(x, ruled_out=_RULED_OUT):  # (B N, ...) -> (B, N, ...)
            x = x.unflatten(0, (len(position), -1))
            return x if missing is None else x.masked_fill(missing.view(*missing.shape, *[1] * (x.dim() - 2)), ruled_out)

        def own(target, maps):  # the images that do not hold the place have no target
            return F.pad(target[:, None], (0, 0, 0, 0, 0, maps.shape[1] - 1))

        logits = together(result.logits)
        target = own(gaussian_target(position, size), logits)
        losses = {"location_loss": self.location_loss(logits, target, self.temperature)}
        if missing is not None and self.search_stride:
            found = together(result.maps[self.search_stride][:, 0])
            h = found.shape[-1]
            target = own(gaussian_target(position * (h / size), h, sigma=CELLS), found)
            losses["search_loss"] = LOSSES["cross_entropy"](found, target, self.temperature)
        if result.heading_scores is not None:
            scores = together(result.heading_scores)
            heading = batch["heading"] - batch["camera"][:, 0] if "camera" in batch else batch["heading"]
            losses["heading_loss"] = heading_place_loss(scores, result.headings, position, heading, size)
        if self.estimates_tilt:
            told = result.camera.unflatten(0, (len(position), -1))[:, 0, 1:3]
            losses["tilt_loss"] = TILT_WEIGHT * F.smooth_l1_loss(told, batch["tilt"].to(told))
        return {"loss": sum(losses.values()), **losses}
