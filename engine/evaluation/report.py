"""Texts of summaries: conditions, main numbers, all numbers."""

from common.geometry import REFERENCE_PX
from common.view import WHOLE_DEG
from common.words import counted
from engine.inference import metrics

UNITS = {"error_px": f"px at {REFERENCE_PX}", "error_m": "m", "error_thesis_m": "m, thesis rule"}


def describe_conditions(context):
    """The conditions of an evaluation or a search, from its context, in one line for figures and texts."""
    pairs = counted(context["pairs"], "pair")
    if context["limit"]:
        pairs = f"{context['pairs']} of {counted(context['pairs_in_list'], 'pair')}"
    kinds = "positives" if context["pos_only"] else "positives and semi-positives"
    cities = f" of {', '.join(context['cities_in_list'])}" if context.get("cities_in_list") else ""
    seen = _describe_photographs(context) if context["camera"] == "photo" else _describe_panoramas(context)
    height = "" if context["camera_height"] is None else f", cameras {context['camera_height']:g} m high"
    labels = "" if context["labels"] == "corrected" else f", labels {context['labels']}"
    forms = "" if context["tta"] == 1 else f", mean of {context['tta']} forms"
    what = f"{context['area']} {context['split']}{cities}, {pairs} ({kinds})"
    return f"{what}, {seen}{height}{labels}{forms}"


def _warnings(context):
    """A line if the network saw panoramas of the test list in training."""
    seen = context.get("pairs_seen_in_training")
    says = "are of panoramas of the list that this network was trained on: errors are too small"
    return [f"{seen} of {counted(context['pairs'], 'pair')} {says}"] if seen else []


def _describe_panoramas(context):
    noise = context["orientation_file"] or f"within ±{context['ori_noise']:g}°"
    top, bottom = context["vertical"]
    cropped = "" if (top, bottom) == WHOLE_DEG else f", {top:g}° above and {bottom:g}° below the horizon"
    return f"headings {noise}, FoV {context['FoV']:g}°{cropped}"


def _describe_photographs(context):
    least, most = context["hfov"]
    wide = f"{least:g}°" if least == most else f"{least:g} to {most:g}°"
    tilt = f"pitch within ±{context['pitch']:g}°, roll within ±{context['roll']:g}°"
    noise = f", known to ±{context['tilt_noise']:g}°" if context["tilt_noise"] else ""
    return f"photographs {wide} wide, {tilt}{noise}, headings known to ±{context['ori_noise']:g}°"


def describe_calibration(summary, context):
    """A line for each temperature of the heat map: where it comes from and how well it is calibrated."""
    meaning = {"calibrated": context["calibration"], "training": "as trained"}
    meaning["published"] = "as the published code shows its map"
    lines = []
    for name, part in summary["all"]["calibration"].items():
        error = f"expected calibration error {100 * part['expected_calibration_error']:.1f} %"
        temperature = context["temperatures"][name]
        lines.append(f"heat map at temperature {temperature:.4g} ({meaning[name]}): {error}")
    return lines


def compact_report(summary, context):
    """The main numbers as a table for a terminal."""
    columns = f"{'pairs':>7}{'mean m':>9}{'median m':>10}{'mean px':>9}{'median px':>11}{'thesis m':>10}"
    lines = [
        describe_conditions(context),
        *_warnings(context),
        "",
        f"{'':16}{columns}{recall_head(metrics.RECALL_DISTANCES_M)}",
    ]
    for name, part in summary.items():
        metres, pixels, thesis = part["error_m"], part["error_px"], part["error_thesis_m"]["mean"]
        line = f"{name:16}{part['pairs']:>7}{metres['mean']:>9.2f}{metres['median']:>10.2f}"
        line += f"{pixels['mean']:>9.2f}{pixels['median']:>11.2f}{thesis:>10.2f}"
        lines.append(line + recall_row(part["recall"].values()))
    whole = summary["all"]
    longitudinal, lateral = (whole[f"abs_{name}_m"]["mean"] for name in ("longitudinal", "lateral"))
    lines += ["", f"95 % intervals: {_intervals(whole['error_m'], '.2f')} m"]
    lines += [f"mean longitudinal error {longitudinal:.2f} m, lateral {lateral:.2f} m", *_angle_lines(whole)]
    lines += [f"{_offset(part)}: {name}" for name, part in summary.items() if "east_m" in part]
    guesses = whole["guesses"].items()
    guesses = [f"{name}: mean {n['mean']:.2f} m, median {n['median']:.2f} m" for name, n in guesses]
    lines.append("guessing " + "; ".join(guesses))
    return "\n".join(lines + describe_calibration(summary, context)) + "\n"


def recall_head(distances, width=8):
    """Headers of `recall_row`'s columns."""
    return "".join(f"{f'<= {d} m':>{width}}" for d in distances)


def recall_row(shares, width=8):
    """Shares as columns of percent."""
    return "".join(f"{100 * share:>{width - 2}.1f} %" for share in shares)


def _intervals(statistics, digits):
    ends = {of: [format(end, digits) for end in statistics[f"{of}_95"]] for of in ("mean", "median")}
    return ", ".join(f"{of} {low} to {high}" for of, (low, high) in ends.items())


def _offset(part):
    """Mean offset from labels to predictions; it reveals images or labels that are shifted as a whole."""
    words = []
    for name in ("east", "north"):
        low, high = part[f"{name}_m"]["mean_95"]
        words.append(f"{name} {part[f'{name}_m']['mean']:.2f} ({low:.2f} to {high:.2f})")
    return f"mean offset from the labels, m: {', '.join(words)}"


def _angle_lines(part):
    """How well headings, pitch and roll were estimated, if they were."""
    lines = []
    if heading := part.get("abs_heading_error_deg"):
        shares = [(heading[f"within_{d}_deg"], d) for d in metrics.RECALL_HEADINGS_DEG]
        words = ", ".join(f"{100 * share:.1f} % within {d}°" for share, d in shares)
        lines.append(f"heading error: mean {heading['mean']:.2f}°, median {heading['median']:.2f}°, {words}")
    if "abs_pitch_error_deg" in part:
        words = []
        for name in metrics.TILTS:
            found, prior = (part[f"abs_{of}{name}_error_deg"]["median"] for of in ("", "prior_"))
            words.append(f"{name} {found:.2f}° (prior {prior:.2f}°)")
        lines.append(f"median tilt error: {', '.join(words)}")
    return lines


def full_report(summary, context):
    """All numbers as a text."""
    lines = [describe_conditions(context), *_warnings(context), *describe_calibration(summary, context), ""]
    lines += [f"{name}: {value}" for name, value in context.items() if not isinstance(value, dict)]
    names = UNITS | {"abs_longitudinal_m": "m longitudinal", "abs_lateral_m": "m lateral"}
    names |= {"abs_heading_error_deg": "° of heading"}
    for name, part in summary.items():
        lines += ["", f"{name}: {part['pairs']} pairs"]
        for n, unit in ((part[column], unit) for column, unit in names.items() if column in part):
            spread = f"std {n['std']:8.3f}  quartiles {n['q25']:.3f} {n['q75']:.3f}"
            line = f"  mean {n['mean']:8.3f}  median {n['median']:8.3f}  {spread}"
            lines.append(f"{line}  min {n['min']:.3f}  max {n['max']:.3f}  {unit}")
        for column in ("error_px", "error_m"):
            lines.append(f"  95 % bootstrap intervals: {_intervals(part[column], '.3f')} {UNITS[column]}")
        shares = zip(metrics.RECALL_DISTANCES_M, part["recall"].values(), strict=True)
        lines.append("  " + "  ".join(f"within {d} m {100 * share:.1f} %" for d, share in shares))
        lines += [f"  {_offset(part)}", *(f"  {line}" for line in _angle_lines(part))]
        masses = [(d, part["mean_mass_within"][f"{d}_m"]) for d in metrics.MASS_DISTANCES_M]
        masses = "  ".join(f"{d} m {100 * mass:.1f} %" for d, mass in masses)
        lines.append(f"  mean probability within {masses} of the prediction")
    return "\n".join(lines) + "\n"
