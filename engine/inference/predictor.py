"""A network and a `View` -> predictions, from which all numbers and pictures are made."""

import time
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from common.camera import Camera
from common.geometry import REFERENCE_PX, wrap_degrees
from common.view import FORMS
from dataset.augment import cut
from efficientnet_pytorch.utils import normalise
from engine.inference import decode
from engine.inference.forms import EightForms
from engine.inference.metrics import MASS_DISTANCES_M, TILTS, distances
from model.interface import Inputs
from model.matching.ground_plane import FINEST


def to_device(batch, device):
    """The batch's tensors and cameras on a device; copies from pinned memory are asynchronous."""
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}


def make_inputs(batch, view, return_attention=False):
    """The `Inputs` of a batch on its device, whose query images are cut as the `View` says."""
    return Inputs(
        query=normalise(batch["query"]),
        camera=batch["camera"],
        satellite=normalise(batch["satellite"]),
        metres_per_pixel=batch["metres_per_pixel"],
        mask=batch["mask"].float() / 255 if "mask" in batch else None,
        city=batch.get("city"),
        heading_noise=view.ori_noise,
        camera_height=view.camera_height,
        usual_height=view.usual_height,
        return_attention=return_attention,
    )


class Estimate(NamedTuple):
    """A network's answer for a pair; None: unknown. Positions: (row, col), satellite tensor pixels."""

    probability: np.ndarray  # (H, W), summing to 1
    position: tuple
    truth: tuple | None
    metres_per_pixel: float | None
    heading: float | None  # predicted, degrees
    true_heading: float | None
    error_px: float | None  # at 512
    error_m: float | None
    camera: Camera  # of the query image, a batch of one, with the estimated tilt if there is one
    camera_height: float | None = None  # estimated, metres above the street
    tilt_estimated: bool = False  # whether the camera's tilt is estimated; else it is the prior

    @property
    def error(self):
        """The error in words: pixels at 512 and, where the resolution is known, metres."""
        metres = "" if self.error_m is None else f", {self.error_m:.2f} m"
        return f"{self.error_px:.2f} px at {REFERENCE_PX}{metres}"


_KNOWN = ("metres_per_pixel", "heading", "true_heading", "camera_height")  # columns that an `Estimate` holds


class Predictor:
    """A network on its device, used under the conditions of a `View`."""

    def __init__(self, network, view, device):
        self.settings, self.view, self.device = network.settings, view, device
        self.network = EightForms(network) if view.tta == FORMS else network

    def __call__(self, batch, pairs=None, return_attention=False):
        """The `Prediction` for a batch of `VigorDataset` on the device."""
        return self.network(make_inputs(cut(batch, self.view), self.view, return_attention), pairs)

    # Makes results independent of the batch's size.
    @torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
    @torch.inference_mode()
    def columns(self, batch, further=(), **options):
        """(`Prediction`, columns of the table as NumPy arrays) for a batch on the device.

        further: functions of (`Prediction`, batch, position) that return more columns, as tensors.
        """
        found = self(batch, **options)
        position = decode.locate(found.logits, self.settings.temperature)
        (row, col), (true_row, true_col) = position.unbind(1), batch["position"].unbind(1)
        columns = {"index": batch["index"], "row": row, "col": col}
        columns |= {"true_row": true_row, "true_col": true_col}
        columns |= {"metres_per_pixel": batch["metres_per_pixel"], "true_heading": batch["heading"]}
        if (scores := found.heading_scores) is not None:
            heading = decode.read_heading(scores, found.headings, position, covered(scores))
            columns["heading"] = wrap_degrees(heading + found.camera.heading)
        if (scores := found.height_scores) is not None:
            columns["camera_height"] = decode.read_height(scores, found.heights, position, covered(scores))
        if self.settings.estimate_tilt and "tilt" in batch:
            for name, true in zip(TILTS, batch["tilt"].unbind(1), strict=True):
                columns |= {f"true_{name}": true, f"prior_{name}": getattr(batch["camera"], name)}
                columns[name] = getattr(found.camera, name)
        for give in further:
            columns |= give(found, batch, position)
        return found, {name: value.cpu().numpy() for name, value in columns.items()}

    def table(self, loader, description="predicting", further=()):
        """Predictions for all samples of a loader, in its order, as a dict of arrays; {} for an empty one.

        Pixels are those of the satellite tensor. `seconds` is a sample's share of its batch's time.
        """
        tables, was_training = [], self.network.training
        self.network.eval()
        # Without `disable` set, tqdm is silent unless stderr is a terminal.
        for batch in tqdm(loader, desc=description, unit="batch", leave=False, disable=None):
            start = time.perf_counter()
            _, columns = self.columns(to_device(batch, self.device), further)
            count = len(columns["index"])
            columns["seconds"] = np.full(count, (time.perf_counter() - start) / count)
            tables.append(columns)
        self.network.train(was_training)
        names = tables[0] if tables else ()
        return {name: np.concatenate([table[name] for table in tables]) for name in names}

    def estimates(self, batch, heat_map, **options):
        """(`Prediction`, an `Estimate` of each pair) for a batch, whose unknown truths are NaN.

        heat_map: how logits become probabilities, a `HeatMap`.
        """
        found, columns = self.columns(batch, **options)
        probability = heat_map.probability(found, batch["metres_per_pixel"]).cpu().numpy()
        cameras, (height, size) = found.camera.to("cpu"), probability.shape[-2:]
        estimates = []
        for k in range(len(probability)):
            row = {name: float(column[k]) for name, column in columns.items()}
            row = {name: None if np.isnan(value) else value for name, value in row.items()}
            position, truth = (row["row"], row["col"]), (row["true_row"], row["true_col"])
            errors, metres = (None, None), row["metres_per_pixel"]
            if None in truth or not (0 <= min(truth) and truth[0] < height and truth[1] < size):
                truth = None
            else:
                error = float(distances(*position, *truth))
                errors = error * REFERENCE_PX / size, None if metres is None else error * metres
            values = dict(zip(("error_px", "error_m"), errors, strict=True), camera=cameras[k : k + 1])
            values["tilt_estimated"] = self.settings.estimate_tilt
            values |= {name: row.get(name) for name in _KNOWN}
            estimates.append(Estimate(probability[k], position, truth, **values))
        return found, estimates


def probability_columns(heat_maps):
    """A function for `Predictor.columns` that adds `region_<name>` for each of {name: `HeatMap`}.

    It is the `truth_region`. The name 'calibrated' also adds the density at the truth and the mass around the
    prediction.
    """

    def columns(found, batch, position):
        metres_per_pixel = batch["metres_per_pixel"]
        pixel, given = decode.truth_pixel(found.logits.shape[-1], batch["position"]), {}
        for name, heat_map in heat_maps.items():
            probability = heat_map.probability(found, metres_per_pixel)
            given[f"region_{name}"] = decode.truth_region(probability, pixel)
            if name == "calibrated":
                there = probability.flatten(1).gather(1, pixel[:, None])[:, 0]
                given["density_at_truth_per_m2"] = there / metres_per_pixel**2
                for metres in MASS_DISTANCES_M:
                    reach = metres / metres_per_pixel
                    given[f"mass_within_{metres}m"] = decode.mass_within(probability, position, reach)
        return given

    return columns


def covered(scores):
    """(height, width) covered by a grid of scores (P, K, h, w), in pixels of the satellite tensor."""
    return [FINEST * side for side in scores.shape[-2:]]
