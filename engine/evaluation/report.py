"""A table of errors -> every statistic, and reports in words."""

from common.geometry import REFERENCE_PX
from engine.evaluation import metrics

GUESSES = {"centre_guess_m": "the centre", "street_guess_m": "a random street pixel of the mask"}  # what needs no network
UNITS = {"error_px": f"px at {REFERENCE_PX}", "error_m": "m", "error_thesis_m": "m, thesis rule"}


def summarise(table):
    """Every statistic as a nested dict: over all pairs, for each city and, where there are several, for each kind of pair."""
    parts = {"all": table, **dict(list(table.groupby("city", sort=False)))}
    if table["kind"].nunique() > 1:
        parts |= dict(list(table.groupby("kind", sort=True)))
    return {name: _summarise_part(part) for name, part in parts.items()}


def _summarise_part(part):
    summary = {"pairs": len(part)}
    intervals = metrics.bootstrap(part[list(UNITS)].to_numpy().T)
    for i, name in enumerate(UNITS):
        summary[name] = metrics.describe(part[name])
        summary[name] |= {f"{of}_95": [float(end) for end in intervals[of][i]] for of in ("mean", "median")}
    summary["recall"] = {f"{d}_m": metrics.recall(part["error_m"], d) for d in metrics.RECALL_DISTANCES_M}
    for name in ("longitudinal_m", "lateral_m"):
        summary[f"abs_{name}"] = metrics.describe(part[name].abs())
    if "heading_error_deg" in part:
        errors = part["heading_error_deg"].abs()
        shares = {f"within_{d}_deg": metrics.recall(errors, d) for d in metrics.RECALL_HEADINGS_DEG}
        summary["abs_heading_error_deg"] = metrics.describe(errors) | shares
    for name in metrics.TILTS:
        for column in (f"{name}_error_deg", f"told_{name}_error_deg"):
            if column in part:
                summary[f"abs_{column}"] = metrics.describe(part[column].abs())
    summary["guesses"] = {name: metrics.describe(part[column]) for column, name in GUESSES.items() if column in part}
    regions = [name for name in part if name.startswith("region_")]
    summary["calibration"] = {
        name.removeprefix("region_"): {
            "expected_calibration_error": metrics.expected_calibration_error(part[name]),
            "coverage": {
                f"{p:.1f}": float(c) for p, c in zip(metrics.REGION_LEVELS, metrics.region_coverage(part[name]), strict=True)
            },
        }
        for name in regions
    }
    summary["mean_mass_within"] = {f"{d}_m": float(part[f"mass_within_{d}m"].mean()) for d in metrics.MASS_DISTANCES_M}
    summary["mean_density_at_truth_per_m2"] = float(part["density_at_truth_per_m2"].mean())
    return summary


def describe_conditions(context):
    """What was measured, in one line; every figure and text carries it."""
    noise = context.get("orientation_file") or f"within ±{context['ori_noise_deg']:g}°"
    pairs = f"{context['pairs']} of {context['pairs_in_list']} pairs" if context["limit"] else f"{context['pairs']} pairs"
    kinds = "positives" if context["pos_only"] else "positives and semi-positives"
    labels = "" if context["labels"] == "corrected" else f", labels {context['labels']}"
    forms = "" if context.get("tta", 1) == 1 else f", mean of {context['tta']} forms"
    seen = f"headings {noise}, FoV {context['FoV_deg']:g}°" if "hfov_deg" not in context else _describe_photographs(context)
    high = f", cameras {context['camera_height_m']:g} m high" if "camera_height_m" in context else ""
    cities = f" of {', '.join(context['cities_in_list'])}" if context.get("cities_in_list") else ""
    return f"{context['area']} {context['split']}{cities}, {pairs} ({kinds}), {seen}{high}{labels}{forms}"


def _describe_photographs(context):
    """How wide photographs are, and how well their cameras are known."""
    least, most = context["hfov_deg"]
    wide = f"{least:g}°" if least == most else f"{least:g} to {most:g}°"
    tilt = f"pitch within ±{context['pitch_deg']:g}°, roll within ±{context['roll_deg']:g}°"
    wrong = f", told to ±{context['tilt_noise_deg']:g}°" if context["tilt_noise_deg"] else ""
    return f"photographs {wide} wide, {tilt}{wrong}, headings told to ±{context['ori_noise_deg']:g}°"


def describe_calibration(summary, context):
    """One line for each temperature of the heat map: where it comes from and how well it is calibrated."""
    meaning = {
        "calibrated": context["calibration"],
        "training": "as trained",
        "published": "as the published code shows its map",
    }
    return [
        f"heat map at temperature {context['temperatures'][name]:.4g} ({meaning[name]}): "
        f"expected calibration error {100 * part['expected_calibration_error']:.1f} %"
        for name, part in summary["all"]["calibration"].items()
    ]


def compact_report(summary, context):
    """The main numbers as a table that fits a terminal."""
    head = "".join(f"{f'<= {d} m':>8}" for d in metrics.RECALL_DISTANCES_M)
    lines = [
        describe_conditions(context),
        "",
        f"{'':16}{'pairs':>7}{'mean m':>9}{'median m':>10}{'mean px':>9}{'median px':>11}{'thesis m':>10}{head}",
    ]
    for name, part in summary.items():
        shares = "".join(f"{100 * part['recall'][f'{d}_m']:>6.1f} %" for d in metrics.RECALL_DISTANCES_M)
        lines.append(
            f"{name:16}{part['pairs']:>7}{part['error_m']['mean']:>9.2f}{part['error_m']['median']:>10.2f}"
            f"{part['error_px']['mean']:>9.2f}{part['error_px']['median']:>11.2f}{part['error_thesis_m']['mean']:>10.2f}{shares}"
        )
    whole = summary["all"]
    (low, high), (low_median, high_median) = whole["error_m"]["mean_95"], whole["error_m"]["median_95"]
    lines += [
        "",
        f"95 % intervals: mean {low:.2f} to {high:.2f} m, median {low_median:.2f} to {high_median:.2f} m",
        f"mean longitudinal error {whole['abs_longitudinal_m']['mean']:.2f} m, lateral {whole['abs_lateral_m']['mean']:.2f} m",
    ]
    if "abs_heading_error_deg" in whole:
        lines.append(_heading_line(whole["abs_heading_error_deg"]))
    if "abs_pitch_error_deg" in whole:
        lines.append(_tilt_line(whole))
    guesses = [f"{name}: mean {n['mean']:.2f} m, median {n['median']:.2f} m" for name, n in whole["guesses"].items()]
    lines.append("guessing " + "; ".join(guesses))
    return "\n".join(lines + describe_calibration(summary, context)) + "\n"


def _heading_line(heading):
    shares = ", ".join(f"{100 * heading[f'within_{d}_deg']:.1f} % within {d}°" for d in metrics.RECALL_HEADINGS_DEG)
    return f"heading error: mean {heading['mean']:.2f}°, median {heading['median']:.2f}°, {shares}"


def _tilt_line(part):
    """How well pitch and roll were estimated, beside how well they were told."""
    median = {name: [part[f"abs_{of}{name}_error_deg"]["median"] for of in ("", "told_")] for name in metrics.TILTS}
    found = ", ".join(f"{name} {found:.2f}° (as told {told:.2f}°)" for name, (found, told) in median.items())
    return f"median tilt error: {found}"


def full_report(summary, context):
    """Everything as text, for people."""
    settings = {name: value for name, value in context.items() if not isinstance(value, dict)}
    lines = [describe_conditions(context), *describe_calibration(summary, context), ""]
    lines += [f"{name}: {value}" for name, value in settings.items()]
    for name, part in summary.items():
        lines += ["", f"{name}: {part['pairs']} pairs"]
        rows = {unit: part[column] for column, unit in UNITS.items()}
        rows |= {"m longitudinal": part["abs_longitudinal_m"], "m lateral": part["abs_lateral_m"]}
        if "abs_heading_error_deg" in part:
            rows["° of heading"] = part["abs_heading_error_deg"]
        for unit, n in rows.items():
            lines.append(
                f"  mean {n['mean']:8.3f}  median {n['median']:8.3f}  std {n['std']:8.3f}"
                f"  quartiles {n['q25']:.3f} {n['q75']:.3f}  min {n['min']:.3f}  max {n['max']:.3f}  {unit}"
            )
        for column in ("error_px", "error_m"):
            (low, high), (low_median, high_median) = part[column]["mean_95"], part[column]["median_95"]
            intervals = f"mean {low:.3f} to {high:.3f}, median {low_median:.3f} to {high_median:.3f}"
            lines.append(f"  95 % bootstrap intervals: {intervals} {UNITS[column]}")
        lines.append("  " + "  ".join(f"within {d} m {100 * part['recall'][f'{d}_m']:.1f} %" for d in metrics.RECALL_DISTANCES_M))
        if "abs_heading_error_deg" in part:
            lines.append("  " + _heading_line(part["abs_heading_error_deg"]))
        if "abs_pitch_error_deg" in part:
            lines.append("  " + _tilt_line(part))
        masses = "  ".join(f"{d} m {100 * part['mean_mass_within'][f'{d}_m']:.1f} %" for d in metrics.MASS_DISTANCES_M)
        lines.append(f"  mean probability within {masses} of the prediction")
    return "\n".join(lines) + "\n"
