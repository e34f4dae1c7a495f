"""Searches measured: the error of the best result around a prior, in the query's city, in all cities."""

import math
import sys
import time
import zlib

import numpy as np
import pandas as pd
from tqdm import tqdm

from common.errors import UserError
from common.geometry import SATELLITE_PX, metres_per_pixel
from common.words import counted
from engine import distributed
from engine.evaluation import results
from engine.evaluation.report import describe_conditions, recall_head, recall_row
from engine.evaluation.summary import by_city, intervals, recalls
from engine.figures import curves
from engine.inference.metrics import describe, heading_errors, recall
from engine.search.calibration import of_process, spread
from engine.search.query import as_map, best_cells, extent, restrict
from engine.search.searcher import distance_m, truth_px

RADII_M = (50, 100, 200, 500)
DISTANCES_M = (1, 3, 5, 10, 25)
FOUND_M = 5.0  # a result that near is right
CITY, ALL, COARSE = "city", "all cities", "coarse"


def evaluate_search(searcher, checkpoint, dataset, protocol, output, *, pool, limit=None):
    """Search for the query images of a dataset and write all results; returns the text for the terminal.

    searcher, checkpoint: a `Searcher` of the cities, and its network's `Checkpoint`.
    dataset, protocol: a `VigorDataset` whose pairs are positives of those cities, and its `Protocol`.
    output: the folder; pool: cells that are matched in detail; limit: query images, evenly spread.

    The processes of torchrun share the query images; all but the first get ''. Raises UserError.
    """
    numbers = spread(len(dataset), limit)
    if distributed.rank() == 0:
        results.prepare_folder(output)
    start, rows = time.perf_counter(), []
    for i in of_process(numbers, "searching"):
        try:
            rows += _search_one(searcher, dataset, i, protocol.seed, pool)
        except UserError as error:
            if dataset.on_bad_image == "error":
                raise
            tqdm.write(f"skipped: {error}", file=sys.stderr)
    seconds = time.perf_counter() - start
    rows = [row for part in distributed.gather(rows) for row in part]
    if distributed.rank() > 0:
        return ""
    if not rows:
        raise UserError(f"not one of {len(numbers)} panoramas can be read")
    table = pd.DataFrame(rows).sort_values("index", kind="stable")
    cities, skipped = searcher.cities, len(numbers) - table["index"].nunique()
    images = sum(len(city.tiles.names) for city in cities)
    further = {"cities": [city.name for city in cities], "images": images, "pairs_skipped": skipped}
    further |= {"pairs_in_list": len(dataset), "limit": limit, "pool": pool}
    further |= {"probabilities": searcher.temperatures.name, "seconds": round(seconds, 1)}
    conditions = protocol.plain() | searcher.view.conditions
    context = results.make_context(checkpoint, conditions, table, dataset, searcher.device, **further)
    summary = summarise(table)
    if searcher.coarse:
        context["coarse"] = _compare_coarse(table) | {"squares": searcher.coarse.most}
        context["coarse"]["of"] = sum(len(each.corners) for each in searcher.coarse.squares.values())
    text, name = report(summary, context), results.tag(context)
    errors = {scope: part["error_m"] for scope, part in table.groupby("scope", sort=False)}
    figure = curves.ced_figure(errors, f"search, {describe_conditions(context)}", _recalls_in_words)
    files = {
        f"search_results_{name}.csv": results.as_csv(table, "%.8g"),
        f"search_recall_{name}.txt": text,
        f"search_summary_{name}.json": results.as_json(context, summary),
        f"search_CED_{name}.png": figure,
    }
    results.write_files(output, files, last=f"search_summary_{name}.json")
    return text


def _recalls_in_words(errors):
    return ", ".join(f"{100 * recall(errors, distance):.1f} % within {distance} m" for distance in (1, 5, 25))


def _draw_offset(seed, panorama):
    """(south, east) of a prior's error in radii of the search: evenly within a half, by seed and name."""
    rng = np.random.default_rng([seed, zlib.crc32(panorama), 1])
    angle, reach = rng.uniform(0, 2 * np.pi), 0.5 * np.sqrt(rng.uniform())
    return np.array((reach * np.sin(angle), reach * np.cos(angle)))


def _search_one(searcher, dataset, i, seed, pool):
    """A row for each scope of the search for one query image."""
    start = time.perf_counter()
    sample, number = dataset[i], dataset.pairs[i][0]
    name = dataset.index.panorama[number]
    own = searcher.city_of(dataset.index.city[number])
    truth = truth_px(sample, dataset.satellite_size)
    scans, seen, begun = {}, {}, time.perf_counter()
    scored = searcher.scan(sample, exhaustive=True)
    scans[ALL] = scans[CITY] = time.perf_counter() - begun
    offset, grid, scopes = _draw_offset(seed, name), own.index.grid, {}
    for radius in RADII_M:
        centre, reach = grid.to_cells(truth) + offset * radius / grid.cell_m, radius / grid.cell_m
        scopes[f"{radius} m"] = {own: [restrict(block, [centre], reach) for block in scored[own]]}
    scopes[CITY] = {own: scored[own]}
    if len(searcher.cities) > 1:
        scopes[ALL] = scored
    if searcher.coarse:
        begun = time.perf_counter()
        scopes[COARSE] = searcher.scan(sample)
        scans[COARSE] = time.perf_counter() - begun
    for scope, blocks in scopes.items():
        found = searcher.places(sample, blocks, pool, pool, seen)
        best = found[0]
        nearest = min(distance_m(result, truth) for result in found)
        best_cell_m = math.dist(_best_cell_px(blocks), truth) * float(metres_per_pixel(best.latitude))
        row = {"index": i, "city": own.name, "panorama": name.decode(), "scope": scope}
        row |= {"found_in": best.city.name, "latitude": best.latitude, "longitude": best.longitude}
        row |= {"heading_deg": best.heading, "true_heading_deg": float(sample["heading"])}
        row |= {"error_m": distance_m(best, truth), "nearest_place_m": nearest}
        row |= {"best_cell_error_m": best_cell_m, "probability": best.probability}
        if searcher.coarse:
            row["scan_seconds"] = scans.get(scope)
        if scope in (CITY, ALL):
            row |= _tile_rank(blocks, found, own, truth)
        yield row | {"seconds": time.perf_counter() - start}


def _best_cell_px(scored):
    """(row, col) on the map of the cell with the highest score of all."""
    best = [(city, cell) for city, blocks in scored.items() for cell in best_cells(blocks, 1, 0)]
    city, cell = max(best, key=lambda pair: pair[1].score)
    return city.index.grid.to_map((cell.row, cell.col))


def _tile_rank(scored, found, own, truth):
    """Retrieval: the rank of the right image, the number of images, whether the first one holds the truth.

    Images come in the order of the results nearest to them, then by the best score in their middle half.
    """
    right = own.tiles.nearest(truth)
    ordered = list(dict.fromkeys((one.city.number, one.city.tiles.nearest(one.map_px)) for one in found))
    holds = ordered[0][0] == own.number and bool(own.tiles.holding(truth)[ordered[0][1]])
    images = sum(len(city.tiles.names) for city in scored)
    if (own.number, right) in ordered:
        return {"tile_rank": ordered.index((own.number, right)), "tiles": images, "tile_holds": holds}
    best = {city.number: _tile_scores(city, blocks) for city, blocks in scored.items()}
    before = sum(int((scores > best[own.number][right]).sum()) for scores in best.values())
    before += sum(best[number][tile] <= best[own.number][right] for number, tile in ordered)
    return {"tile_rank": before, "tiles": images, "tile_holds": holds}


def _tile_scores(city, blocks):
    """The best score within the middle half of each image of a city, (M,); -inf where it has none."""
    first, end = extent(blocks)
    whole, half = as_map(blocks, first, end).numpy(), SATELLITE_PX / 4
    corners = np.rint(city.index.grid.to_cells(city.tiles.centres_px - half)).astype(int) - first
    side = round(2 * half / city.index.grid.cell_px)
    scores = [whole[max(0, r) : max(0, r + side), max(0, c) : max(0, c + side)] for r, c in corners]
    return np.array([part.max() if part.size else -np.inf for part in scores])


def summarise(table):
    """{scope: {'all' or a city: numbers}}, all shares 0 to 1."""
    return {scope: by_city(rows, _summarise_part) for scope, rows in table.groupby("scope", sort=False)}


def _compare_coarse(table):
    """What a search by descriptors finds of what the exhaustive one finds, and its share of the time."""
    scopes = dict(list(table.set_index("index").groupby("scope")))
    whole = scopes.get(ALL, scopes[CITY])
    found = whole[whole["error_m"] <= FOUND_M].index
    again = scopes[COARSE].loc[found, "error_m"] <= FOUND_M
    seconds = scopes[COARSE]["scan_seconds"].median() / whole["scan_seconds"].median()
    return {"recall_of_found": float(again.mean()), "share_of_time": float(seconds)}


def _summarise_part(part):
    errors = part["error_m"].to_numpy()
    found = errors <= FOUND_M
    numbers = {
        "panoramas": len(part),
        "recall": recalls(errors, DISTANCES_M),
        "recall_5_m_95": intervals(found[None].astype(float))[0]["mean_95"],
        "recall_5_m_of_best_cells": recall(part["best_cell_error_m"], FOUND_M),
        "recall_5_m_of_any_place": recall(part["nearest_place_m"], FOUND_M),
        "error_m_where_found": describe(errors[found]) if found.any() else None,
        "mean_probability": float(part["probability"].mean()),
    }
    if found.any():
        turned = heading_errors(part["heading_deg"], part["true_heading_deg"])[found]
        numbers["abs_heading_error_deg_where_found"] = describe(abs(turned))
    if part["tile_rank"].notna().all():
        rank, one_percent = part["tile_rank"], np.ceil(part["tiles"] / 100)
        shares = {"R@1": rank < 1, "R@5": rank < 5, "R@1%": rank < one_percent}
        shares |= {"hit_rate": part["tile_holds"]}
        numbers["tiles"] = {name: float(share.mean()) for name, share in shares.items()}
    return numbers


def report(summary, context):
    """The main numbers as a text."""
    cities, images = context["cities"], context["images"]
    wider = "over each city, and over all together" if len(cities) > 1 else "over the city"
    where = f"search over {', '.join(cities)}, {counted(images, 'satellite image')}"
    lines = [
        f"{where}; {describe_conditions(context)}",
        f"around guesses that are off by up to half a radius, {wider}",
        "",
        f"{'':26}{'panoramas':>10}{'median m':>10}{recall_head(DISTANCES_M, 9)}",
    ]
    for scope, parts in summary.items():
        for name, part in parts.items():
            if name != "all" and (len(parts) == 2 or scope not in (CITY, ALL)):
                continue
            label = scope if name == "all" else f"  of {name}"
            median = part["error_m_where_found"]["median"] if part["error_m_where_found"] else math.nan
            shares = recall_row(part["recall"].values(), 9)
            lines.append(f"{label:26}{part['panoramas']:>10}{median:>10.2f}{shares}")
    lines += ["", f"median m: of results within {FOUND_M:g} m"]
    for scope in (CITY, ALL):
        if scope in summary:
            whole = summary[scope]["all"]
            tiles = _in_words(whole["tiles"]).replace("hit_rate", "hit rate")
            lines.append(f"{scope}, the right satellite image: {tiles}")
            shares = {"the best cell": whole["recall_5_m_of_best_cells"]}
            shares["the best place"] = whole["recall"]["5_m"]
            shares["any place"] = whole["recall_5_m_of_any_place"]
            mean = f"mean probability {100 * whole['mean_probability']:.1f} % ({context['probabilities']})"
            lines.append(f"{scope}, within {FOUND_M:g} m: {_in_words(shares)}; {mean}")
    if coarse := context.get("coarse"):
        looked = f"{coarse['squares']} of {coarse['of']} squares"
        finds = f"{100 * coarse['recall_of_found']:.1f} % of what the whole search finds"
        lines.append(f"coarse, {looked}: {finds}, in {100 * coarse['share_of_time']:.0f} % of its time")
    heading = summary[CITY]["all"].get("abs_heading_error_deg_where_found")
    if heading and context["ori_noise"]:
        lines.append(f"heading where found: median {heading['median']:.2f}°, mean {heading['mean']:.2f}°")
    speed = f"{context['seconds']:g} s for {counted(context['pairs'], 'panorama')}"
    processes = context["processes"]
    lines.append(f"{speed}, {processes} process{'' if processes == 1 else 'es'}")
    return "\n".join(lines) + "\n"


def _in_words(shares):
    return ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items())
