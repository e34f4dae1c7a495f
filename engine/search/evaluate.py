"""A search measured: for each panorama of a list, how near the best place is, around guesses, over its city and over all."""

import json
import sys
import time
import zlib

import numpy as np
import pandas as pd
from tqdm import tqdm

from common.errors import UserError
from common.geometry import SATELLITE_PX, metres_per_pixel
from engine import distributed, run
from engine.evaluation import curves
from engine.evaluation.metrics import bootstrap, describe, heading_errors, recall
from engine.evaluation.report import describe_conditions
from engine.evaluation.results import DPI, new_files, prepare_folder, tag
from engine.search.calibration import share_out
from engine.search.query import as_map, extent, restrict
from engine.search.searcher import distance_m, truth_px

RADII_M = (50, 100, 200, 500)
DISTANCES_M = (1, 3, 5, 10, 25)
FOUND_M = 5.0  # a place that near is found
CITY, ALL = "city", "all cities"


def evaluate_search(searcher, dataset, conditions, output, *, pool, limit=None):
    """Search for every panorama of a dataset and write all that is to know of it; returns the text for the terminal.

    searcher: a `Searcher` of the cities · dataset: a `VigorDataset`, whose pairs are positives of those cities · conditions:
    their `Conditions` · output: the folder · pool: cells that are looked at in detail · limit: only so many, evenly spread.

    The processes of torchrun share the panoramas; all but the first get ''. Raises UserError.
    """
    numbers = np.linspace(0, len(dataset) - 1, min(limit or len(dataset), len(dataset))).astype(int).tolist()
    if distributed.rank() == 0:
        prepare_folder(output)
    start, rows = time.perf_counter(), []
    for i in share_out(numbers, "searching"):
        try:
            rows += _search_one(searcher, dataset, i, conditions.seed, pool)
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
    context = {
        "model_path": str(searcher.loaded.file),
        "checkpoint_sha256": searcher.loaded.sha256,
        **{name: value for name, value in conditions.plain().items() if name not in ("tta", "pos_only", "seed")},
        "pos_only": True,
        "seed": conditions.seed,
        "cities": [city.name for city in searcher.cities],
        "images": sum(len(city.tiles.names) for city in searcher.cities),
        "pairs": table["index"].nunique(),
        "pairs_skipped": len(numbers) - table["index"].nunique(),
        "pairs_in_list": len(dataset),
        "limit": limit,
        "pool": pool,
        "probabilities": searcher.softness.name,
        "dataset_root": str(dataset.index.root),
        "git_revision": run.git_revision(),
        "device": str(searcher.device),
        "processes": distributed.world_size(),
        "seconds": round(seconds, 1),
    }
    summary = summarise(table)
    text = report(summary, context)
    name = tag(context["area"], context["split"])
    with new_files(output, last=f"search_summary_{name}.json") as new:
        table.to_csv(new / f"search_results_{name}.csv", index=False, float_format="%.8g")
        (new / f"search_recall_{name}.txt").write_text(text)
        (new / f"search_summary_{name}.json").write_text(json.dumps({"context": context, "summary": summary}, indent=2) + "\n")
        errors = {scope: part["error_m"] for scope, part in table.groupby("scope", sort=False)}
        figure = curves.ced_figure(errors, f"search, {describe_conditions(context)}", _say_found)
        figure.savefig(new / f"search_CED_{name}.png", dpi=DPI)
    return text


def _say_found(errors):
    return ", ".join(f"{100 * recall(errors, distance):.1f} % within {distance} m" for distance in (1, 5, 25))


def draw_offset(seed, panorama):
    """(south, east) of a guess, in radii of the search: evenly within half of one, from the seed and the panorama's name."""
    rng = np.random.default_rng([seed, zlib.crc32(panorama), 1])
    angle, reach = rng.uniform(0, 2 * np.pi), 0.5 * np.sqrt(rng.uniform())
    return reach * np.sin(angle), reach * np.cos(angle)


def _search_one(searcher, dataset, i, seed, pool):
    """A row for each scope of the search for one panorama."""
    start = time.perf_counter()
    sample, number = dataset[i], dataset.pairs[i][0]
    name = dataset.index.panorama[number]
    own = searcher.city_of(dataset.index.city[number])
    truth = truth_px(sample, dataset.satellite_size)
    scored, seen = searcher.scan(sample), {}
    offset, grid = draw_offset(seed, name), own.index.grid
    scopes = {}
    for radius in RADII_M:
        middle = grid.to_cells(truth) + np.array(offset) * radius / grid.cell_m
        scopes[f"{radius} m"] = {own: [restrict(block, [middle], radius / grid.cell_m) for block in scored[own]]}
    scopes[CITY] = {own: scored[own]}
    if len(searcher.cities) > 1:
        scopes[ALL] = scored
    for scope, blocks in scopes.items():
        places = searcher.places(sample, blocks, pool, pool, seen)
        best = places[0]
        error = distance_m(best, truth)
        coarse = best.city.index.grid.to_map(_best_cell(blocks))
        row = {
            "index": i,
            "city": own.name,
            "panorama": name.decode(),
            "scope": scope,
            "found_in": best.city.name,
            "latitude": best.latitude,
            "longitude": best.longitude,
            "heading_deg": best.heading,
            "true_heading_deg": float(sample["heading"]),
            "error_m": error,
            "nearest_place_m": min(distance_m(place, truth) for place in places),
            "best_cell_error_m": float(np.hypot(*(coarse - truth)) * metres_per_pixel(best.latitude)),
            "probability": best.probability,
        }
        if scope in (CITY, ALL):
            row |= _tile_rank(blocks, places, own, truth)
        yield row | {"seconds": time.perf_counter() - start}


def _best_cell(scored):
    """(row, col), in cells of its city, of the highest score of all."""
    blocks = [block for blocks in scored.values() for block in blocks]
    block = max(blocks, key=lambda block: float(block.score.max()))
    row, col = divmod(int(block.score.argmax()), block.score.shape[1])
    return block.row + row + 0.5, block.col + col + 0.5


def _tile_rank(scored, places, own, truth):
    """What retrieval counts: how many images come before the right one (0: none), of how many, and whether the first holds it.

    Images come in the order of the places in whose middle they lie, those without a place by the best score in their middle half.
    """
    right = own.tiles.nearest(truth)
    ordered = list(dict.fromkeys((place.city.number, place.city.tiles.nearest(place.map_px)) for place in places))
    holds = ordered[0][0] == own.number and bool(own.tiles.holding(truth)[ordered[0][1]])
    images = sum(len(city.tiles.names) for city in scored)
    if (own.number, right) in ordered:
        return {"tile_rank": ordered.index((own.number, right)), "tiles": images, "tile_holds": holds}
    best = {city.number: _tile_scores(city, blocks) for city, blocks in scored.items()}
    before = sum(int((scores > best[own.number][right]).sum()) for scores in best.values())
    before += sum(best[number][tile] <= best[own.number][right] for number, tile in ordered)
    return {"tile_rank": before, "tiles": images, "tile_holds": holds}


def _tile_scores(city, blocks):
    """The best score within the middle half of each image of a city, (M,); -inf where no cell of it was scored."""
    first, end = extent(blocks)
    whole, half = as_map(blocks, first, end).numpy(), SATELLITE_PX / 4
    corners = np.rint(city.index.grid.to_cells(city.tiles.centres_px - half)).astype(int) - first
    side = round(2 * half / city.index.grid.cell_px)
    scores = [whole[max(0, r) : max(0, r + side), max(0, c) : max(0, c + side)] for r, c in corners]
    return np.array([part.max() if part.size else -np.inf for part in scores])


def summarise(table):
    """{scope: {'all' or a city: numbers}}, all shares 0 to 1."""
    summary = {}
    for scope, rows in table.groupby("scope", sort=False):
        parts = {"all": rows, **dict(list(rows.groupby("city", sort=False)))}
        summary[scope] = {name: _summarise_part(part) for name, part in parts.items()}
    return summary


def _summarise_part(part):
    errors = part["error_m"].to_numpy()
    found = errors <= FOUND_M
    numbers = {
        "panoramas": len(part),
        "recall": {f"{d}_m": recall(errors, d) for d in DISTANCES_M},
        "recall_5_m_95": [float(end) for end in bootstrap(found[None].astype(float))["mean"][0]],
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
        numbers["tiles"] = {
            "R@1": float((rank < 1).mean()),
            "R@5": float((rank < 5).mean()),
            "R@1%": float((rank < one_percent).mean()),
            "hit_rate": float(part["tile_holds"].mean()),
        }
    return numbers


def report(summary, context):
    """The main numbers as a text."""
    many = len(context["cities"]) > 1
    cities = ", ".join(context["cities"])
    lines = [
        f"search over {cities}, {context['images']} satellite images; {describe_conditions(context)}",
        f"around guesses that are off by up to half a radius, over {'each city' if many else 'the city'}"
        + (", and over all together" if many else ""),
        "",
        f"{'':26}{'panoramas':>10}{'median m':>10}" + "".join(f"{f'<= {d} m':>9}" for d in DISTANCES_M),
    ]
    for scope, parts in summary.items():
        for name, part in parts.items():
            if name != "all" and (len(parts) == 2 or scope not in (CITY, ALL)):
                continue
            label = scope if name == "all" else f"  of {name}"
            median = part["error_m_where_found"]["median"] if part["error_m_where_found"] else float("nan")
            shares = "".join(f"{100 * share:>7.1f} %" for share in part["recall"].values())
            lines.append(f"{label:26}{part['panoramas']:>10}{median:>10.2f}{shares}")
    lines += ["", f"median m: of what is found within {FOUND_M:g} m"]
    for scope in (CITY, ALL):
        if scope in summary:
            tiles, whole = summary[scope]["all"]["tiles"], summary[scope]["all"]
            words = ", ".join(f"{name} {100 * share:.1f} %" for name, share in tiles.items())
            lines.append(f"{scope}, the right satellite image: {words.replace('hit_rate', 'hit rate')}")
            lines.append(
                f"{scope}, within {FOUND_M:g} m: the best cell {100 * whole['recall_5_m_of_best_cells']:.1f} %, the best place "
                f"{100 * whole['recall']['5_m']:.1f} %, any place {100 * whole['recall_5_m_of_any_place']:.1f} %; "
                f"mean probability {100 * whole['mean_probability']:.1f} % ({context['probabilities']})"
            )
    if "abs_heading_error_deg_where_found" in summary[CITY]["all"] and context["ori_noise_deg"]:
        heading = summary[CITY]["all"]["abs_heading_error_deg_where_found"]
        lines.append(f"heading where found: median {heading['median']:.2f}°, mean {heading['mean']:.2f}°")
    lines.append(f"{context['seconds']:g} s for {context['pairs']} panoramas, {context['processes']} process(es)")
    return "\n".join(lines) + "\n"
