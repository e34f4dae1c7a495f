"""The parts that `benchmarks.parts` measures, the table of their errors, and its forest plot."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from common.errors import UserError
from dataset.index import AREAS
from engine.inference.metrics import bootstrap_over_runs

RECIPES = {  # the full set-up of each network, as flags of train_VIGOR.py
    "light": {"learning_rate": 2e-3, "augment": "full", "backbone_weights": "imagenet"},
    "ground_plane": {"learning_rate": 1e-3, "augment": "photometric", "backbone_weights": "none"},
    "published": {"learning_rate": 1e-3, "augment": "photometric", "backbone_weights": "none"},
}
FULL = "full"
PARTS = {  # what each part changes in it
    FULL: {},
    "no_mixstyle": {"use_mixstyle": False},
    "crossdomain": {"mixstyle_mix": "crossdomain"},
    "no_mask": {"use_mask": False},
    "no_circular_padding": {"circular_padding": False},
    "semi_positives": {"pos_only": False},
    "augment_none": {"augment": "none"},
    "augment_photometric": {"augment": "photometric"},
    "augment_full": {"augment": "full"},
    "augment_strong": {"augment": "strong"},
    "no_imagenet": {"backbone_weights": "none"},
    "imagenet": {"backbone_weights": "imagenet"},
    "no_ema": {"ema": 0},
    "loss_cross_entropy": {"loss": "cross_entropy"},
}
TASKS = {  # what changes the task itself
    "fov_180": {"FoV": 180},
    "fov_90": {"FoV": 90},
    "heading_20": {"ori_noise": 20},
    "heading_180": {"ori_noise": 180},
}
CHANGES = PARTS | TASKS
NOT_SIGNIFICANT = "not significant"
COLOURS, OFFSETS = {"samearea": "#0072b2", "crossarea": "#d55e00"}, {"samearea": -0.17, "crossarea": 0.17}
FORMATS = {name: "{:.3f}" for name in ("mean_m", "spread_m", "median_m", "within_1m", "heading_median_deg")}
FORMATS |= {name: "{:+.3f}" for name in ("difference_m", "low_m", "high_m")}


def full_set_up(network):
    """{flag: value} of a network's full set-up."""
    return {"network": network, "warmup": "50steps", "ema": 0.99} | RECIPES[network]


def parts_of(network, names=None):
    """A network's parts in order (default: all for light, three for others), but for those it has anyway."""
    names = names or (CHANGES if network == "light" else (FULL, "no_mixstyle", "no_mask"))
    full = full_set_up(network)
    return [name for name in CHANGES if name in names and (name == FULL or full | CHANGES[name] != full)]


def summarise(data):
    """A DataFrame with a line for each (network, area, part). Raises UserError for unequal pairs.

    data: all predictions, with columns network, area, part, seed, panorama, satellite, error_m and
    heading_error_deg. Errors are means over seeds, in metres, with the standard deviation `spread_m`.
    `difference_m` is to the full set-up in common seeds, with the 95 % interval `low_m` to `high_m`.
    """
    lines = []
    for network, area in [(network, area) for network in RECIPES for area in AREAS]:
        rows = data[(data["network"] == network) & (data["area"] == area)]
        errors = rows.pivot(index=["panorama", "satellite"], columns=["part", "seed"], values="error_m")
        if errors.isna().any(axis=None):
            raise UserError(f"{network} {area}: rows hold different pairs; give each data its --output_dir")
        headings = rows["heading_error_deg"].abs().groupby([rows["part"], rows["seed"]]).median()
        for part in [part for part in CHANGES if part in errors]:
            seeds = errors[part]
            line = {"network": network, "area": area, "part": part}
            line |= {"seeds": len(seeds.columns), "pairs": len(seeds)}
            line |= {"mean_m": seeds.mean().mean(), "spread_m": seeds.mean().std()}
            line |= {"median_m": seeds.median().mean(), "within_1m": (seeds <= 1).mean().mean()}
            line |= {"heading_median_deg": headings[part].mean()}
            compared = part != FULL and FULL in errors
            lines.append(line | compare(seeds, errors[FULL] if compared else seeds[[]]))
    return pd.DataFrame(lines)


def compare(part, full):
    """The paired difference of two frames of errors (pairs, seeds), as columns of the table."""
    difference = (part - full).dropna(axis=1)
    if difference.empty:
        return {"difference_m": np.nan, "low_m": np.nan, "high_m": np.nan, "verdict": ""}
    low, high = bootstrap_over_runs(difference.to_numpy().T)
    verdict = "larger error" if low > 0 else "smaller error" if high < 0 else NOT_SIGNIFICANT
    return {"difference_m": difference.mean().mean(), "low_m": low, "high_m": high, "verdict": verdict}


def markdown(table, settings):
    """The table as Markdown. settings: {flag: value} that all rows share."""
    text = [
        "# What each part gives",
        "A difference is a part's mean error minus the full set-up's; low and high bound its 95 % interval "
        "from a bootstrap over pairs and seeds. Spread is the standard deviation over seeds. With one seed "
        "the interval is over pairs alone: it compares two networks, not two ways to train. One interval in "
        "twenty excludes zero by chance.",
        "All rows share " + ", ".join(f"{name} {value}" for name, value in settings.items()) + ".",
    ]
    for (network, area), rows in table.groupby(["network", "area"], sort=False):
        cells = pd.DataFrame({"part": rows["part"]})
        changes = rows["part"].map(CHANGES.get)
        cells["flag"] = ["".join(f"--{flag} {value}" for flag, value in change.items()) for change in changes]
        for name in table.columns[3:]:
            cells[name] = rows[name].map(FORMATS.get(name, "{}").format).replace(["nan", "+nan"], "")
        lines = [cells.columns, ["---"] * len(cells.columns), *cells.to_numpy().tolist()]
        text.append(f"## {network}, {area}")
        text.append("\n".join("| " + " | ".join(line) + " |" for line in lines))
    return "\n\n".join(text) + "\n"


def draw(table):
    """A forest plot of differences: for each network a panel of its parts and one of other tasks."""
    table = table[table["difference_m"].notna()]
    panels = list(table.groupby(["network", table["part"].isin(TASKS)], sort=False))
    heights = [0.95 + 0.27 * rows["part"].nunique() for _, rows in panels]
    figure = Figure(figsize=(7.5, sum(heights) + 0.5), layout="constrained")
    all_axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
    for axes, ((network, is_task), rows) in zip(all_axes, panels, strict=True):
        labels = rows["part"].unique().tolist()
        for area, of_area in rows.groupby("area", sort=False):
            y = of_area["part"].map(labels.index) + OFFSETS[area]
            axes.hlines(y, of_area["low_m"], of_area["high_m"], COLOURS[area], label=area)
            faces = np.where(of_area["verdict"] == NOT_SIGNIFICANT, "white", COLOURS[area])
            axes.scatter(of_area["difference_m"], y, 30, faces, edgecolors=COLOURS[area], zorder=3)
        axes.axvline(0, color="black", linewidth=1, zorder=0)
        axes.set_yticks(range(len(labels)), labels, fontsize=9)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.set_title(f"{network}, {'other tasks' if is_task else 'one part changed'}", loc="left")
        axes.set_xlabel("mean error minus the full set-up's (m), 95 % interval; hollow: not significant")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
