"""The training loss: a network's prediction and a batch -> named losses and their weighted sum."""

import torch
import torch.nn.functional as F

from common.geometry import REFERENCE_PX, wrap_degrees
from loss.heatmap import LOSSES, SIGMA_PX, cross_entropy, gaussian_target, inexact_label

WEIGHTS = {"location_loss": 1.0, "search_loss": 1.0, "heading_loss": 1.0, "tilt_loss": 1.0}  # tilt in degrees
CELLS = 0.7  # sigma of targets on a coarse grid
_EXCLUDED = -1e4  # score of an image that does not exist; finite, since infinity times a zero target is NaN


class Criterion:
    """The heat map's loss, by its name in `LOSSES`, and the losses of headings and tilts.

    Logits are divided by `temperature`. With negatives, the map of `search_stride`, which city searches use,
    gets a separate loss, unless that is None. `estimates_tilt`: whether the network estimates the tilt of
    photographs.

    label_tolerance: metres, the radius that contains about two thirds of the true positions around their
    labels, as phones state accuracy; None: the batch's `accuracy` (B,), if any. heading_tolerance: degrees
    within which the true headings lie. If either is not 0, `inexact_label` replaces the named loss.
    """

    def __init__(
        self,
        name,
        temperature,
        search_stride=None,
        estimates_tilt=False,
        label_tolerance=None,
        heading_tolerance=0.0,
    ):
        self.location_loss, self.temperature = LOSSES[name], temperature
        self.search_stride, self.estimates_tilt = search_stride, estimates_tilt
        self.label_tolerance, self.heading_tolerance = label_tolerance, heading_tolerance

    def __call__(self, found, batch, missing=None):
        """{'loss': the weighted sum, and its parts by name}: scalar tensors.

        found: a `Prediction` of B or B N pairs.
        batch: has `position` (B, 2) in pixels of the satellite tensor, `heading` (B,) in degrees, `camera`,
        whose prior heading the network's headings are relative to, and photographs' `tilt` (B, 2) in degrees.
        missing: (B, N) bool, if each query was compared with N satellite images, its own first: which of them
        do not exist. Every softmax then runs over the pixels of all N.
        """
        position, size = batch["position"], found.logits.shape[-1]

        def together(x):  # (B N, ...) -> (B, N, ...)
            x = x.unflatten(0, (len(position), -1))
            if missing is None:
                return x
            return x.masked_fill(missing.view(*missing.shape, *[1] * (x.dim() - 2)), _EXCLUDED)

        tolerance_px = self.tolerance_px(batch)  # of the satellite tensor

        def place_loss(loss, maps, sigma):  # sigma: of an exact label's target, pixels of the maps
            h = maps.shape[-1]
            if tolerance_px is not None:
                target = _near(position, tolerance_px, size, h, sigma)
                return inexact_label(maps, target, self.temperature)
            target = gaussian_target(position * (h / size), h, sigma)
            # Images that do not hold the place have no target.
            return loss(maps, F.pad(target[:, None], (0, 0, 0, 0, 0, maps.shape[1] - 1)), self.temperature)

        logits = together(found.logits)
        losses = {"location_loss": place_loss(self.location_loss, logits, SIGMA_PX * size / REFERENCE_PX)}
        if missing is not None and self.search_stride:
            maps = together(found.maps[self.search_stride][:, 0])
            losses["search_loss"] = place_loss(cross_entropy, maps, CELLS)
        if found.heading_scores is not None:
            scores = together(found.heading_scores)
            heading = batch["heading"] - batch["camera"].heading
            pose = found.headings, position, heading, size
            tolerances = tolerance_px, self.heading_tolerance
            losses["heading_loss"] = heading_place_loss(scores, *pose, *tolerances)
        if self.estimates_tilt:
            camera = found.camera
            tilt = torch.stack((camera.pitch, camera.roll), 1).unflatten(0, (len(position), -1))[:, 0]
            losses["tilt_loss"] = F.smooth_l1_loss(tilt, batch["tilt"].to(tilt))
        return {"loss": sum(WEIGHTS[name] * value for name, value in losses.items()), **losses}

    def tolerance_px(self, batch):
        """The tolerance of each label (B,) in pixels of the satellite tensor; None: all labels are exact.

        Images of unknown accuracy, NaN, count as exact.
        """
        metres = self.label_tolerance
        if metres is None and "accuracy" in batch:
            metres = batch["accuracy"].nan_to_num(0.0)
        if metres is None or (not torch.is_tensor(metres) and metres == 0):
            return None
        return metres / batch["metres_per_pixel"]


def _near(position, tolerance_px, size, h, sigma):
    """(B, h, h): the likelihood of labels at `position` for each true place, on maps of `h` cells per side.

    A Gaussian: exp(-distance² / tolerance²), widened by `sigma`, that of an exact label in pixels of the map.
    """
    spread = tolerance_px * (h / size)
    return gaussian_target(position * (h / size), h, (spread.square() / 2 + sigma**2).sqrt())


def heading_place_loss(scores, headings, position, heading, size, tolerance_px=None, heading_tolerance=0.0):
    """Joint cross entropy over heading and place, on the grid of the scores.

    scores: (B, N, K, h, w) log-likelihoods of each query's N satellite images; the first contains the place.
    headings: (K,) degrees, evenly spaced; heading: (B,), the true ones, relative to the same bearing.
    position: (B, 2), row and col in pixels of the satellite image, `size` on a side.

    The target shares each sample between the two nearest headings and is a Gaussian of 0.7 cells in place.
    With a `tolerance_px` (B,) or a `heading_tolerance` in degrees, the loss is `inexact_label`, which sums
    over all headings and places within them.
    """
    h = scores.shape[-1]
    apart = wrap_degrees(heading[:, None] - headings).abs() - heading_tolerance
    turn = (1 - apart.clamp_min(0) / (headings[1] - headings[0])).clamp_min(0)  # (B, K)
    if tolerance_px is not None or heading_tolerance:
        tolerance_px = torch.zeros_like(heading) if tolerance_px is None else tolerance_px
        place = _near(position, tolerance_px, size, h, CELLS)
        return inexact_label(scores, turn[:, :, None, None] * place[:, None], 1.0)
    place = gaussian_target(position * (h / size), h, sigma=CELLS)
    target = (turn[:, :, None, None] * place[:, None]).flatten(1)
    log_probability = F.log_softmax(scores.float().flatten(1), dim=1)[:, : target.shape[1]]
    return -((target * log_probability).sum(1) / target.sum(1)).mean()
