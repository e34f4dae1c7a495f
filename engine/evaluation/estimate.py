"""What a network says about single pairs, in plain numbers: for pictures, reports and the Localizer."""

from typing import NamedTuple

import numpy as np

from common.geometry import REFERENCE_PX
from engine.evaluation.metrics import distances
from engine.evaluation.prediction import predict_batch, probability_map


class Estimate(NamedTuple):
    """What the network says about a pair. Positions: (row, col) in pixels of the satellite tensor; None: not known."""

    probability: np.ndarray  # (S, S), summing to 1
    position: tuple
    truth: tuple | None
    metres_per_pixel: float | None
    heading: float | None  # predicted, degrees
    true_heading: float | None
    error_px: float | None  # at 512
    error_m: float | None

    @property
    def error(self):
        """The error in words: pixels at 512 and, where the resolution is known, metres."""
        metres = "" if self.error_m is None else f", {self.error_m:.2f} m"
        return f"{self.error_px:.2f} px at {REFERENCE_PX}{metres}"


def estimate(model, batch, temperature, heat_map):
    """The network's result for a batch on its device, and an `Estimate` of each pair.

    All come from `predict_batch`, as the evaluation's do. temperature: of the positions · heat_map: a `HeatMap`, for the
    probabilities. A truth or a resolution that is not known is NaN in the batch.
    """
    result, columns = predict_batch(model, batch, temperature)
    probability = probability_map(result.logits, heat_map.temperature).cpu().numpy()
    size = probability.shape[-1]
    estimates = []
    for k in range(len(probability)):
        values = {name: _known(column[k]) for name, column in columns.items()}
        position = values["row"], values["col"]
        truth = None if values["true_row"] is None else (values["true_row"], values["true_col"])
        metres = values["metres_per_pixel"]
        inside = truth is not None and 0 <= min(truth) and max(truth) < size
        error = float(distances(*position, *truth)) if inside else None
        estimates.append(
            Estimate(
                probability=probability[k],
                position=position,
                truth=truth if inside else None,
                metres_per_pixel=metres,
                heading=values.get("heading"),
                true_heading=values["true_heading"],
                error_px=None if error is None else error * REFERENCE_PX / size,
                error_m=None if error is None or metres is None else error * metres,
            )
        )
    return result, estimates


def _known(value):
    return None if np.isnan(value) else float(value)
