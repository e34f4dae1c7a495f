"""Summaries of tables of errors (evaluations and searches): nested dicts of numbers, shares 0 to 1."""

from engine.inference import metrics

GUESSES = {"centre_guess_m": "the centre", "street_guess_m": "a random street pixel of the mask"}
ERRORS = ("error_px", "error_m", "error_thesis_m")
# Of predictions from labels; their means show images or labels that are shifted as a whole.
OFFSETS = ("east_m", "north_m")


def summarise(table):
    """Every statistic of an evaluation's table: over all pairs, by city and by kind of pair."""
    parts = by_city(table, _summarise_part)
    if table["kind"].nunique() > 1:
        parts |= {kind: _summarise_part(part) for kind, part in table.groupby("kind", sort=True)}
    return parts


def by_city(table, summarise_part):
    """{'all' or a city: result of a function on its rows of a table}."""
    parts = {"all": table, **dict(list(table.groupby("city", sort=False)))}
    return {name: summarise_part(part) for name, part in parts.items()}


def recalls(errors, distances=metrics.RECALL_DISTANCES_M, unit="m"):
    """{'5_m': share of errors of at most 5, ...}."""
    return {f"{d}_{unit}": metrics.recall(errors, d) for d in distances}


def intervals(columns, of=("mean", "median")):
    """95 % bootstrap intervals for each column of errors: [{'mean_95': [low, high], ...}, ...]."""
    found = metrics.bootstrap(columns)
    return [{f"{name}_95": found[name][i].tolist() for name in of} for i in range(len(columns))]


def _summarise_part(part):
    summary = {"pairs": len(part)}
    columns = [*ERRORS, *OFFSETS]
    for name, ends in zip(columns, intervals(part[columns].to_numpy().T), strict=True):
        summary[name] = metrics.describe(part[name]) | ends
    summary["recall"] = recalls(part["error_m"])
    angles = [f"{of}{name}_error_deg" for name in metrics.TILTS for of in ("", "prior_")]
    for name in ("longitudinal_m", "lateral_m", "heading_error_deg", *angles):
        if name in part:
            summary[f"abs_{name}"] = metrics.describe(part[name].abs())
    if "heading_error_deg" in part:
        shares = recalls(part["heading_error_deg"].abs(), metrics.RECALL_HEADINGS_DEG, "deg")
        summary["abs_heading_error_deg"] |= {f"within_{name}": share for name, share in shares.items()}
    guesses = {name: column for column, name in GUESSES.items() if column in part}
    summary["guesses"] = {name: metrics.describe(part[column]) for name, column in guesses.items()}
    regions = {name.removeprefix("region_"): part[name] for name in part if name.startswith("region_")}
    summary["calibration"] = {name: _summarise_calibration(column) for name, column in regions.items()}
    masses = {f"{d}_m": part[f"mass_within_{d}m"].mean() for d in metrics.MASS_DISTANCES_M}
    summary["mean_mass_within"] = {name: float(mass) for name, mass in masses.items()}
    summary["mean_density_at_truth_per_m2"] = float(part["density_at_truth_per_m2"].mean())
    return summary


def _summarise_calibration(regions):
    coverage = zip(metrics.REGION_LEVELS, metrics.region_coverage(regions), strict=True)
    coverage = {f"{level:.1f}": float(share) for level, share in coverage}
    error = metrics.expected_calibration_error(regions)
    return {"expected_calibration_error": error, "coverage": coverage}
