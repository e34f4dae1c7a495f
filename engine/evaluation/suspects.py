"""Labels that a network contradicts: districts as a whole, and panoramas one by one.

First, errors common to all pairs of a district are fitted (`engine.evaluation.bias`). Districts with large
errors are then evaluated again with corrected labels and metres per pixel, so that a panorama is suspect only
if it differs from its district.
"""

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from scipy import ndimage

from common.errors import UserError
from common.geometry import (
    REFERENCE_PX,
    SATELLITE_PX,
    mercator_px,
    metres_per_pixel,
    offset_in_words,
    wrap_degrees,
)
from dataset.protocol import open_data
from engine import distributed
from engine.evaluation import bias, results
from engine.evaluation.evaluate import predict_all
from engine.evaluation.table import make_table
from engine.inference import decode, temperatures
from engine.inference.predictor import Predictor, covered

GAP_M, DISTRICT_M = 150, 1000  # ground without panoramas that divides districts, and the most of one's side
AGAIN_M = 0.5  # districts where at least so much is wrong, by `bias.moved_m`, are asked again
NEAR_DEG = 10.0  # headings that differ less are the same
LEAST_MASS = 1e-4  # a probability below it counts as this
SHOWN = 20  # panoramas in the text
_OF_CSV = ("city", "panorama", "satellite", "district", "doubt", "east_m", "north_m", "heading_error_deg")


def find_suspects(checkpoint, view, protocol, source, output, device, batch_size, num_workers, limit):
    """Write the tables of suspect districts and panoramas; returns them as a text, '' except in rank 0.

    Arguments: see `engine.evaluation.evaluate.evaluate`. Raises UserError.
    """
    with distributed.first():
        source = source.found()
    dataset = open_data(source, protocol, view, checkpoint.settings.use_mask)
    dataset.pairs = dataset.pairs[:limit]
    if not view.photographs and dataset.orientations is None:
        dataset.orientations = np.zeros(len(dataset.index))  # headings as they are labelled
    if len(dataset) < bias.LEAST:
        raise UserError(f"{source.dataset_root}: {len(dataset)} pairs, but --suspects needs {bias.LEAST}")
    if distributed.rank() == 0:
        results.prepare_folder(output)
    key = temperatures.conditions_key(checkpoint, protocol.of_validation(checkpoint.data["area"]), view)
    heat_map = temperatures.find_heat_map(checkpoint, key)
    predictor = Predictor(checkpoint.network, view, device)
    ask = partial(_ask, partial(predict_all, predictor, batch_size, num_workers), heat_map)
    names = districts(dataset.index)
    table = ask(dataset, names, np.zeros(len(dataset)))
    fits = _fits(table, "district")
    if table["district"].nunique() > 1:
        fits |= _fits(table, "city")
    counts = {**table["city"].value_counts(), **table["district"].value_counts()}
    fits, table = _ask_again(ask, dataset, names, table, fits)
    if distributed.rank() > 0:
        return ""
    of_districts = bias.district_table(fits, counts)
    table = table.sort_values("doubt", ascending=False, kind="stable", ignore_index=True)
    name = results.tag(protocol.plain())
    columns = [column for column in _OF_CSV if column in table]
    files = {f"suspect_districts_{name}.csv": results.as_csv(of_districts)}
    files[f"suspects_{name}.csv"] = results.as_csv(table[columns])
    results.write_files(output, files)
    return f"{bias.describe_districts(of_districts)}\n\n{describe_suspects(table)}\n"


def districts(index):
    """(M,) names of the districts of a `VigorIndex`'s satellite images.

    A district is a connected area, `GAP_M` or more from others; one wider than `DISTRICT_M` is cut into
    rectangles. All images of a city without known coordinates form one district.
    """
    names = np.array([index.cities[number] for number in index.satellite_city], object)
    for number in np.unique(index.satellite_city[np.isfinite(index.satellite_gps).all(1)]):
        here = np.flatnonzero((index.satellite_city == number) & np.isfinite(index.satellite_gps).all(1))
        latitude = index.satellite_gps[here, 0].mean()
        place = np.stack(mercator_px(*index.satellite_gps[here].T), 1) * metres_per_pixel(latitude)
        cell = ((place - place.min(0)) / GAP_M).astype(int)
        taken = np.zeros(cell.max(0) + 1, bool)
        taken[tuple(cell.T)] = True
        ground = ndimage.label(taken, np.ones((3, 3)))[0][tuple(cell.T)]
        part = np.zeros((len(here), 2), int)
        for one in np.unique(ground):
            of_ground = place[ground == one] - place[ground == one].min(0)
            sides = np.maximum(1, np.ceil(of_ground.max(0) / DISTRICT_M))
            part[ground == one] = of_ground / (of_ground.max(0) + 1) * sides
        _, numbered = np.unique(np.column_stack((ground, part)), axis=0, return_inverse=True)
        if numbered.max():
            names[here] = [f"{index.cities[number]} {one + 1}" for one in numbered.ravel()]
    return names


def _fits(table, column):
    """{district: its `bias.fit_district`} of the districts in a column with at least `bias.LEAST` rows."""
    parts = {name: rows for name, rows in table.groupby(column, sort=False) if len(rows) >= bias.LEAST}
    return {name: bias.fit_district(rows) for name, rows in parts.items()}


def _ask(ask, heat_map, dataset, names, turns):
    """The table of a dataset's pairs, with labels, districts and doubts.

    names: districts of its satellite images; turns: (pairs,) degrees by which headings are wrong.
    """
    predictions = ask(dataset, "asking", [doubt_columns(heat_map, torch.from_numpy(turns))])
    table, rows = make_table(dataset, predictions), dataset.pairs[predictions["index"]]
    table["district"] = names[dataset.index.satellite[rows[:, 0], rows[:, 1]]]
    metres = table["metres_per_pixel"]
    table["label_east_m"] = (table["true_col_px"] - REFERENCE_PX / 2) * metres
    table["label_north_m"] = (REFERENCE_PX / 2 - table["true_row_px"]) * metres
    if "heading_error_deg" in table:
        table["heading_error_deg"] = wrap_degrees(table["heading_error_deg"] - turns[predictions["index"]])
    return table.assign(doubt=predictions["doubt"])


def doubt_columns(heat_map, turns):
    """A function for `Predictor.columns` that adds `doubt`: nats by which the predicted place and heading
    are likelier than the label's. turns: (pairs,) degrees by which labelled headings are wrong."""

    def columns(found, batch, position):
        metres = batch["metres_per_pixel"]
        probability, radius = heat_map.probability(found, metres), decode.NEAR_M / metres
        own, labelled = (decode.mass_within(probability, at, radius) for at in (position, batch["position"]))
        doubt = ((own + LEAST_MASS) / (labelled + LEAST_MASS)).log().clamp_min(0)
        if (scores := found.heading_scores) is not None:
            turn = turns.to(doubt)[batch["index"]]
            heading = wrap_degrees(batch["heading"] + turn - found.camera.heading)
            at = position, covered(scores), heading
            doubt = doubt + decode.heading_doubt(scores, found.headings, *at, NEAR_DEG)
        return {"doubt": doubt}

    return columns


def _ask_again(ask, dataset, names, table, fits):
    """(fits, table) after evaluating districts with large errors again, with corrected labels."""
    wrong = [
        name for name in table["district"].unique() if name in fits and bias.moved_m(fits[name][1]) > AGAIN_M
    ]
    chosen = table["district"].isin(wrong).to_numpy()
    if not chosen.any():
        return fits, table
    again = copy.copy(dataset)
    again.index = corrected(dataset.index, names, {name: fits[name][0] for name in wrong})
    again.pairs = dataset.pairs[table["index"][chosen]]
    turns = table["district"][chosen].map({name: fits[name][0][2] for name in wrong}).to_numpy(np.float64)
    second = ask(again, names, np.nan_to_num(turns))
    for name, (values, ends) in _fits(second, "district").items():
        before = np.array([*fits[name][0][:4], 0])
        fits[name] = values + before, ends + before
    second["index"] = table["index"][chosen].to_numpy()[second["index"]]
    return fits, pd.concat([table[~chosen], second], ignore_index=True)


def corrected(index, names, fits):
    """A `VigorIndex` with metres per pixel and labels corrected by fits {district: values}."""
    resolution = index.metres_per_pixel(np.arange(len(index.satellite_gps)))
    move = np.zeros((len(names), 3)) + (0, 0, 1)  # rows and columns at 640 px, and the factor
    for name, (east, north, _, scale, _) in fits.items():
        here = names == name
        east, north, scale = np.nan_to_num((east, north, scale))
        move[here] = np.stack((-north / resolution[here], east / resolution[here], 0 * resolution[here]), 1)
        move[here, 2] = np.exp(-scale)
        resolution[here] *= np.exp(scale)
    centre, move = SATELLITE_PX / 2, move[index.satellite]
    position = centre + (index.position - centre) * move[..., 2:] + move[..., :2]
    return replace(index, resolution=resolution, position=position.astype(np.float32))


def describe_suspects(table):
    """The first rows of a table, sorted by doubt, as lines."""
    lines = [f"{'doubt':>7}{'found from the label':>22}{'heading':>10}  panorama"]
    for row in table.head(SHOWN).to_dict("records"):
        turn = row.get("heading_error_deg", np.nan)
        turn = "-" if np.isnan(turn) else f"{turn:+.0f}°"
        place = offset_in_words(row["east_m"], row["north_m"])
        lines.append(f"{row['doubt']:>7.1f}{place:>22}{turn:>10}  {row['district']} {row['panorama']}")
    return "\n".join(lines)
