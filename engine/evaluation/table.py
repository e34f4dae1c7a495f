"""The table of an evaluation: one row for each pair."""

import numpy as np
import pandas as pd
import torch

from common import geometry
from common.geometry import REFERENCE_PX
from dataset.index import KINDS
from engine.inference.metrics import TILTS, distances, heading_errors, longitudinal_lateral


def make_table(dataset, predictions):
    """The table of a `VigorDataset`'s pairs and a `Predictor.table`, in list order; pixels are at 512 px."""
    index = dataset.index
    rows, kinds = dataset.pairs[predictions["index"]].T
    satellites = index.satellite[rows, kinds]
    to_reference = REFERENCE_PX / dataset.satellite_size
    table = pd.DataFrame({"index": predictions["index"], "city": [index.cities[i] for i in index.city[rows]]})
    table["panorama"] = [name.decode() for name in index.panorama[rows]]
    table["satellite"] = [name.decode() for name in index.satellite_name[satellites]]
    table["kind"] = [KINDS[kind] for kind in kinds]
    for name in ("true_row", "true_col", "row", "col"):
        table[f"{name}_px"] = predictions[name].astype(float) * to_reference
    positions = [table[name] for name in ("row_px", "col_px", "true_row_px", "true_col_px")]
    gps = geometry.position_to_gps(*positions[:2], *index.satellite_gps[satellites].T, size_px=REFERENCE_PX)
    table["latitude"], table["longitude"] = gps
    metres = table["metres_per_pixel"] = index.metres_per_pixel(satellites, REFERENCE_PX)
    table["error_px"] = distances(*positions)
    table["error_m"] = table["error_px"] * metres
    table["error_thesis_m"] = table["error_px"] * geometry.THESIS_METRES_PER_PIXEL
    centre = np.full(len(table), REFERENCE_PX / 2)
    table["centre_guess_m"] = distances(centre, centre, *positions[2:]) * metres
    if "street_row" in predictions:
        street = [predictions[name].astype(float) * to_reference for name in ("street_row", "street_col")]
        table["street_guess_m"] = distances(*street, *positions[2:]) * metres
    north, east = longitudinal_lateral(*positions, 0.0)
    table["east_m"], table["north_m"] = east * metres, north * metres
    longitudinal, lateral = longitudinal_lateral(*positions, predictions["true_heading"])
    table["longitudinal_m"], table["lateral_m"] = longitudinal * metres, lateral * metres
    table["true_heading_deg"] = predictions["true_heading"]
    if "heading" in predictions:
        table["heading_deg"] = predictions["heading"]
        table["heading_error_deg"] = heading_errors(predictions["heading"], predictions["true_heading"])
    if "camera_height" in predictions:
        table["camera_height_m"] = predictions["camera_height"]
    for name in TILTS if "pitch" in predictions else ():
        table[f"{name}_error_deg"] = predictions[name] - predictions[f"true_{name}"]
        table[f"prior_{name}_error_deg"] = predictions[f"prior_{name}"] - predictions[f"true_{name}"]
    of_heat_map = [name for name in predictions if name.startswith(("density_", "mass_", "region_"))]
    return table.assign(**{name: predictions[name] for name in of_heat_map}, seconds=predictions["seconds"])


def random_foreground(mask, index):
    """Positions (B, 2) drawn evenly from the foreground of masks (B, 1, S, S) uint8, seeded by `index` (B,).

    A baseline: knowledge of the streets alone. An empty mask gives its centre.
    """
    S = mask.shape[-1]
    draw = [torch.rand(3, generator=torch.Generator().manual_seed(int(i))) for i in index]
    draw = torch.stack(draw).to(mask.device)
    cumulative = mask.flatten(1).long().cumsum(1).double()  # whole numbers add up to the same in any order
    pixel = torch.searchsorted(cumulative, draw[:, :1].double() * cumulative[:, -1:], right=True)
    pixel = pixel.clamp_max(S * S - 1)
    position = torch.cat((pixel // S, pixel % S), 1) + draw[:, 1:]
    return torch.where(cumulative[:, -1:] > 0, position, S / 2)


def street_columns(found, batch, position):
    """Columns for `Predictor.table`: `street_row`, `street_col`, a `random_foreground` of masks."""
    if "mask" not in batch:
        return {}
    row, col = random_foreground(batch["mask"], batch["index"]).unbind(1)
    return {"street_row": row, "street_col": col}
