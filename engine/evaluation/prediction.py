"""A network over a loader -> one table of predictions; every number and every picture comes from here."""

import time
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from common.camera import Equirectangular, Pinhole
from common.geometry import REFERENCE_PX, wrap_degrees
from engine.batch import to_device
from engine.evaluation.metrics import MASS_DISTANCES_M, TILTS, distances
from engine.evaluation.tta import answer
from model.matching.ground_plane import FINEST


def locate(logits, temperature):
    """The predicted position: the expectation over a small window around the maximum.

    logits: (B, H, W) · temperature: what the logits are divided by. Returns (B, 2) float32 rows and columns in pixels,
    pixel centres at + 0.5. The window reaches a 64th of the longer side (two sigmas of the published target) to each side; at
    the image's edge it is cut so that it stays symmetric, or the edge itself would push the estimate inwards.
    """
    B, H, W = logits.shape
    reach, last = max(1, max(H, W) // 64), torch.tensor([H - 1, W - 1], device=logits.device)
    peak = logits.flatten(1).argmax(1)
    peak = torch.stack((peak // W, peak % W), 1)  # (B, 2)
    steps = torch.arange(-reach, reach + 1, device=logits.device)
    window = peak[:, :, None] + steps  # (B, 2, w)
    room = torch.minimum(peak, last - peak)  # pixels between the peak and the nearest edge
    inside = steps.abs() <= room[:, :, None]
    window = torch.minimum(window.clamp_min(0), last[:, None])
    batch = torch.arange(B, device=logits.device)[:, None, None]
    values = logits[batch, window[:, 0, :, None], window[:, 1, None, :]].float() / temperature  # (B, w, w)
    values = values.masked_fill(~(inside[:, 0, :, None] & inside[:, 1, None, :]), -torch.inf)
    weights = values.flatten(1).softmax(1).reshape_as(values)
    offset = torch.stack(((weights.sum(2) * steps).sum(1), (weights.sum(1) * steps).sum(1)), 1)
    return peak + 0.5 + offset


def read_heading(scores, headings, position, size):
    """The predicted heading in degrees, (B,), as `_read_hypotheses` reads it; on a full circle the ends are neighbours."""
    step = headings[1] - headings[0]
    return wrap_degrees(_read_hypotheses(scores, headings, position, size, circular=len(headings) * step > 359))


def read_height(scores, heights, position, size):
    """The predicted height of the camera in metres, (B,), as `_read_hypotheses` reads its logarithm."""
    return _read_hypotheses(scores, heights.log(), position, size).exp()


def _read_hypotheses(scores, values, position, size, circular=False):
    """The value, (B,), that is likeliest at the predicted place, refined between evenly spaced hypotheses.

    scores: (B, K, h, w) log-likelihoods of values (K,) on a coarser grid · position: (B, 2) rows and columns in pixels of the
    satellite image · size: (height, width) of what the grid covers, in the same pixels, from the image's corner on. The estimate
    is where a parabola through the best hypothesis and its two neighbours is highest; at an end of their range, where there is
    one neighbour, the expectation over both.
    """
    height_width = torch.tensor(size, dtype=position.dtype, device=position.device)
    grid = (position * (2 / height_width) - 1).flip(1)[:, None, None].to(scores.dtype)
    there = F.grid_sample(scores, grid, padding_mode="border", align_corners=False)[:, :, 0, 0]  # (B, K)
    step = values[1] - values[0]
    best = there.argmax(1)
    neighbours = best[:, None] + torch.arange(-1, 2, device=best.device)
    outside = ((neighbours < 0) | (neighbours >= len(values))) & ~torch.as_tensor(circular)
    found = there.gather(1, neighbours % len(values))
    before, here, after = found.unbind(1)
    parabola = 0.5 * (before - after) / (before - 2 * here + after).clamp_max(-1e-6)
    weights = found.masked_fill(outside, -torch.inf).softmax(1)
    offset = torch.where(outside.any(1), weights[:, 2] - weights[:, 0], parabola.clamp(-0.5, 0.5))
    return values[best] + step * offset


def probability_map(logits, temperature):
    """Softmax over all pixels of each sample: (B, H, W), each summing to 1."""
    return (logits.float().flatten(1) / temperature).softmax(1).reshape_as(logits)


def truth_pixel(size, true_position):
    """The flat index, (B,), of the pixel of a map `size` on a side that holds a position (B, 2); the nearest one from outside."""
    cell = true_position.floor().long().clamp(0, size - 1)
    return cell[:, 0] * size + cell[:, 1]


def truth_region(probability, pixel):
    """The share of the probability that lies where the map is higher than at the truth, (B,).

    probability: (B, S, S) · pixel: (B,) from `truth_pixel`. Pixels as probable as the truth's, itself among them, count half:
    a flat map gives one half.
    """
    probability = probability.flatten(1)
    there = probability.gather(1, pixel[:, None])
    return (probability * ((probability > there) + 0.5 * (probability == there))).sum(1)


def mass_within(probability, position, radius):
    """The share of the probability within a circle, (B,).

    probability: (B, H, W) · position: (B, 2), the circle's middle · radius: (B,), all in pixels. A pixel that the rim cuts
    counts in part, by the distance of its centre.
    """
    rows, cols = (torch.arange(side, device=probability.device) + 0.5 for side in probability.shape[-2:])
    distance = torch.hypot(rows[:, None] - position[:, :1, None], cols - position[:, 1:, None])
    return (probability * (radius[:, None, None] - distance + 0.5).clamp(0, 1)).sum((1, 2))


def other_places(probability, position, radius, least=0.1, most=3):
    """Where else a camera may have stood: [((row, col), share of the probability within `radius`), ...], the best first.

    probability: (H, W) · position: (row, col), the answer itself, which is left out · radius: pixels. Places are two radii apart
    and hold at least a share `least`.
    """
    left, places = probability.clone(), []
    steps, k = [torch.arange(side) + 0.5 for side in left.shape], max(1, round(radius / 2)) * 2 + 1

    def clear(place, reach):
        left[torch.hypot(steps[0][:, None] - place[0], steps[1] - place[1]) < reach] = 0

    clear(position, 2 * radius)
    while len(places) < most:
        around = F.avg_pool2d(left[None, None], k, 1, k // 2)[0, 0]
        row, col = divmod(int(around.argmax()), left.shape[1])
        place = row + 0.5, col + 0.5
        share = float(mass_within(left[None], torch.tensor([place]), torch.tensor([float(radius)])))
        if share < least:
            break
        places.append((place, share))
        clear(place, 2 * radius)
    return places


def probability_columns(temperatures):
    """What `predict` takes to add columns about the heat map.

    temperatures: {name: temperature}, 'calibrated' among them. Gives `region_<name>`, the `truth_region` of each, and from the
    calibrated map the probability density at the truth per square metre and the mass within 1, 3 and 5 m of the prediction.
    """

    def columns(logits, batch, position):
        metres_per_pixel = batch["metres_per_pixel"]
        pixel, found = truth_pixel(logits.shape[-1], batch["position"]), {}
        for name, temperature in temperatures.items():
            probability = probability_map(logits, temperature)
            found[f"region_{name}"] = truth_region(probability, pixel)
            if name == "calibrated":
                there = probability.flatten(1).gather(1, pixel[:, None])[:, 0]
                found["density_at_truth_per_m2"] = there / metres_per_pixel**2
                for metres in MASS_DISTANCES_M:
                    found[f"mass_within_{metres}m"] = mass_within(probability, position, metres / metres_per_pixel)
        return found

    return columns


@torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)  # the batch's size must not show in the numbers
@torch.inference_mode()
def predict_batch(model, batch, temperature, further=(), **options):
    """Predictions for a batch on the network's device: the network's result, and columns of the table as NumPy arrays.

    further: functions of (logits, batch, position) that give more columns as tensors · options: go to the network's forward.
    """
    result = answer(model, batch, **options)
    position = locate(result.logits, temperature)
    columns = {
        "index": batch["index"],
        "row": position[:, 0],
        "col": position[:, 1],
        "true_row": batch["position"][:, 0],
        "true_col": batch["position"][:, 1],
        "metres_per_pixel": batch["metres_per_pixel"],
        "true_heading": batch["heading"],
    }
    if result.heading_scores is not None:
        heading = read_heading(result.heading_scores, result.headings, position, _covered(result.heading_scores))
        columns["heading"] = wrap_degrees(heading + batch["camera"][:, 0]) if "camera" in batch else heading
    if result.height_scores is not None:
        columns["camera_height"] = read_height(result.height_scores, result.heights, position, _covered(result.height_scores))
    if model.settings.estimate_tilt and "tilt" in batch:
        for k, name in enumerate(TILTS):
            columns |= {f"true_{name}": batch["tilt"][:, k], f"told_{name}": batch["camera"][:, 1 + k]}
            columns[name] = result.camera[:, 1 + k]
    for give in further:
        columns |= give(result.logits, batch, position)
    return result, {name: value.cpu().numpy() for name, value in columns.items()}


def _covered(scores):
    """(height, width) of what a grid of scores (B, K, h, w) covers, in pixels of the satellite tensor."""
    return [FINEST * side for side in scores.shape[-2:]]


def predict(model, loader, device, temperature, description="predicting", further=()):
    """Predictions for every sample of a loader, in its order, as a dict of arrays; pixels are those of the satellite tensor.

    `seconds` is the time of a sample's batch, loading left out, divided by the batch's size. `further` as in
    `predict_batch`. An empty loader gives {}.
    """
    tables = []
    was_training = model.training
    model.eval()
    for batch in tqdm(loader, desc=description, unit="batch", leave=False, disable=None):  # silent where it is no terminal
        start = time.perf_counter()
        _, columns = predict_batch(model, to_device(batch, device), temperature, further)
        columns["seconds"] = np.full(len(columns["index"]), (time.perf_counter() - start) / len(columns["index"]))
        tables.append(columns)
    model.train(was_training)
    return {name: np.concatenate([table[name] for table in tables]) for name in (tables[0] if tables else {})}


class Estimate(NamedTuple):
    """What the network says about a pair. Positions: (row, col) in pixels of the satellite tensor; None: not known."""

    probability: np.ndarray  # (H, W), summing to 1
    position: tuple
    truth: tuple | None
    metres_per_pixel: float | None
    heading: float | None  # predicted, degrees
    true_heading: float | None
    error_px: float | None  # at 512
    error_m: float | None
    camera_height: float | None = None  # estimated, metres above the street
    camera: Equirectangular | Pinhole = Equirectangular()  # of the street image; its tilt as estimated where the network does

    @property
    def error(self):
        """The error in words: pixels at 512 and, where the resolution is known, metres."""
        metres = "" if self.error_m is None else f", {self.error_m:.2f} m"
        return f"{self.error_px:.2f} px at {REFERENCE_PX}{metres}"


def estimate(model, batch, temperature, heat_map, **options):
    """The network's result for a batch on its device, and an `Estimate` of each pair.

    All come from `predict_batch`, as the evaluation's do. temperature: of the positions · heat_map: a `HeatMap`, for the
    probabilities · options: go to the network's forward. A truth or a resolution that is not known is NaN in the batch.
    """
    result, columns = predict_batch(model, batch, temperature, **options)
    probability = probability_map(result.logits, heat_map.temperature).cpu().numpy()
    cameras = None if result.camera is None else result.camera.cpu()
    height, size = probability.shape[-2:]
    estimates = []
    for k in range(len(probability)):
        values = {name: _known(column[k]) for name, column in columns.items()}
        position = values["row"], values["col"]
        truth = None if values["true_row"] is None else (values["true_row"], values["true_col"])
        metres = values["metres_per_pixel"]
        inside = truth is not None and 0 <= min(truth) and truth[0] < height and truth[1] < size
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
                camera_height=values.get("camera_height"),
                camera=Equirectangular(model.settings.FoV) if cameras is None else Pinhole(cameras[k : k + 1]),
            )
        )
    return result, estimates


def _known(value):
    return None if np.isnan(value) else float(value)
