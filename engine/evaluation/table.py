"""Predictions -> the CSV's table: one row a pair."""

import numpy as np
import pandas as pd

from common import geometry
from common.geometry import REFERENCE_PX
from dataset.index import CITIES, KINDS
from engine.evaluation.metrics import distances, heading_errors, longitudinal_lateral


def make_table(dataset, predictions):
    """One row a pair, in list order: names, truth and prediction at 512 px, predicted coordinates, errors, probabilities.

    dataset: the `VigorDataset` · predictions: a dict of arrays as `engine.evaluation.prediction.predict` gives them.
    """
    index = dataset.index
    rows, kinds = dataset.pairs[predictions["index"]].T
    satellites = index.satellite[rows, kinds]
    to_reference = REFERENCE_PX / dataset.satellite_size
    table = pd.DataFrame(
        {
            "index": predictions["index"],
            "city": [CITIES[i] for i in index.city[rows]],
            "panorama": [name.decode() for name in index.panorama[rows]],
            "satellite": [name.decode() for name in index.satellite_name[satellites]],
            "kind": [KINDS[kind] for kind in kinds],
        }
    )
    for name in ("true_row", "true_col", "row", "col"):
        table[f"{name}_px"] = predictions[name].astype(float) * to_reference
    positions = [table[name] for name in ("row_px", "col_px", "true_row_px", "true_col_px")]
    gps = index.satellite_gps[satellites].T
    table["latitude"], table["longitude"] = geometry.position_to_gps(*positions[:2], *gps, size_px=REFERENCE_PX)
    table["metres_per_pixel"] = geometry.metres_per_pixel(gps[0], REFERENCE_PX)
    table["error_px"] = distances(*positions)
    table["error_m"] = table["error_px"] * table["metres_per_pixel"]
    table["error_thesis_m"] = table["error_px"] * geometry.THESIS_METRES_PER_PIXEL
    centre = np.full(len(table), REFERENCE_PX / 2)
    table["centre_guess_m"] = distances(centre, centre, *positions[2:]) * table["metres_per_pixel"]
    if "street_row" in predictions:
        street = [predictions[name].astype(float) * to_reference for name in ("street_row", "street_col")]
        table["street_guess_m"] = distances(*street, *positions[2:]) * table["metres_per_pixel"]
    longitudinal, lateral = longitudinal_lateral(*positions, predictions["true_heading"])
    table["longitudinal_m"], table["lateral_m"] = (part * table["metres_per_pixel"] for part in (longitudinal, lateral))
    table["true_heading_deg"] = predictions["true_heading"]
    if "heading" in predictions:
        table["heading_deg"] = predictions["heading"]
        table["heading_error_deg"] = heading_errors(predictions["heading"], predictions["true_heading"])
    about_the_map = [name for name in predictions if name.startswith(("density_", "mass_", "region_"))]
    return table.assign(**{name: predictions[name] for name in about_the_map}, seconds=predictions["seconds"])
