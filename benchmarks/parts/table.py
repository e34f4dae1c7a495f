"""Complete rows -> the table: errors over seeds, and each part's paired difference to the full set-up."""

import numpy as np
import pandas as pd

from benchmarks.parts.catalogue import FULL, NAMED, PARTS, TASK
from benchmarks.parts.rows import PREDICTIONS
from common.errors import UserError
from dataset.index import AREAS
from engine.evaluation.metrics import bootstrap_over_runs, recall
from model.settings import NETWORKS

PAIR = ["panorama", "satellite"]
NOT_TOLD = "not told apart from zero"


def read_rows(output):
    """{(network, area, part): {seed: a row's predictions by pair}} of every complete row in the table's folder."""
    rows = {}
    for path in sorted(output.glob(f"*/*/*/seed*/{PREDICTIONS}")):
        network, area, part, seed = path.parts[-5:-1]
        if network in NETWORKS and area in AREAS and part in NAMED:
            table = pd.read_csv(path, usecols=lambda name: name in (*PAIR, "error_m", "heading_error_deg"))
            rows.setdefault((network, area, part), {})[int(seed.removeprefix("seed"))] = table.set_index(PAIR).sort_index()
    return rows


def summarise(rows):
    """The table, a data frame with a line for each (network, area, part) of `read_rows`, in the order of PARTS.

    Errors are metres, means over seeds; `spread_m` is the standard deviation of the seeds' means, NaN for one. `difference_m` is
    a part's error minus the full set-up's, over the pairs and the seeds that both have, `low_m` and `high_m` its 95 % interval
    over pairs and seeds; `verdict` says in words whether it is told apart from zero. Raises UserError where pairs differ.
    """
    order = [part.name for part in PARTS]
    keys = sorted(rows, key=lambda key: (NETWORKS[::-1].index(key[0]), AREAS.index(key[1]), order.index(key[2])))
    lines = []
    for key in keys:
        network, area, name = key
        part, seeds = NAMED[name], list(rows[key].values())
        means = [table["error_m"].mean() for table in seeds]
        line = {"network": network, "area": area, "group": part.group, "part": name, "says": part.says}
        line |= {"seeds": len(seeds), "pairs": len(seeds[0]), "mean_m": np.mean(means)}
        line["median_m"] = np.mean([table["error_m"].median() for table in seeds])
        line["spread_m"] = np.std(means, ddof=1) if len(means) > 1 else np.nan
        line["within_1m"] = np.mean([recall(table["error_m"], 1) for table in seeds])
        if all("heading_error_deg" in table for table in seeds):
            line["heading_median_deg"] = np.mean([table["heading_error_deg"].abs().median() for table in seeds])
        full = rows.get((network, area, FULL.name))
        lines.append(line | (_difference(key, rows[key], full) if full and part is not FULL else {}))
    columns = ["network", "area", "group", "part", "says", "seeds", "pairs", "mean_m", "median_m", "spread_m", "within_1m"]
    columns += ["heading_median_deg", "paired_seeds", "difference_m", "low_m", "high_m", "verdict"]
    return pd.DataFrame(lines, columns=columns)


def _difference(key, part, full):
    seeds = sorted(set(part) & set(full))
    if not seeds:
        return {}
    pairs = full[seeds[0]].index
    if any(not table.index.equals(pairs) for seed in seeds for table in (part[seed], full[seed])):
        raise UserError(f"{' '.join(key)}: not the same pairs as the full set-up's; rows of other data lie in this folder")
    difference = np.stack([(part[seed]["error_m"] - full[seed]["error_m"]).to_numpy() for seed in seeds])
    low, high = bootstrap_over_runs(difference)
    verdict = NOT_TOLD if low <= 0 <= high else "larger error" if low > 0 else "smaller error"
    return {
        "paired_seeds": len(seeds),
        "difference_m": difference.mean(),
        "low_m": low,
        "high_m": high,
        "verdict": verdict,
    }


def markdown(table, shared):
    """The table as Markdown. shared: {network: what its rows have in common}, of `Work.shared`."""
    text = ["# What each part gives", ""]
    for network, of_network in table.groupby("network", sort=False):
        held = shared[network]
        text += [f"## {network}", ""]
        sizes = f"satellite images of {held['satellite_size']} px, panoramas of {held['panorama_size'].replace(' ', ' x ')}"
        text.append(
            f"{held['steps']} updates of {held['batch_size']} pairs in every row, {sizes}. Differences are a part's mean error "
            "minus the full set-up's, pair by pair and seed by seed, with 95 % intervals of a bootstrap over pairs and seeds, "
            "which allows for the few seeds as Student's t does. Spread is the standard deviation of the seeds' means."
        )
        compared = of_network["difference_m"].notna().sum()
        if compared:
            text.append(f"Of these {compared} intervals, {compared / 20:.1f} would leave out zero by chance alone.")
        if (of_network["paired_seeds"] == 1).any():
            text.append("Of one seed the interval is over pairs alone: it tells two trained networks apart, not what made them.")
        for area, of_area in of_network.groupby("area", sort=False):
            text += ["", f"### {network}, {area}", "", *_lines(of_area[of_area["group"] != TASK], "difference (m)")]
            tasks = of_area[of_area["group"] == TASK]
            if len(tasks):
                text += ["", "Another task, and what it costs:", "", *_lines(tasks, "cost of the task (m)", heading=True)]
        text.append("")
    return "\n".join(text)


def _lines(table, difference, heading=False):
    columns = ["part", "seeds", "mean (m)", "spread", "median (m)", "within 1 m"]
    columns += ["heading, median", difference, ""] if heading else [difference, ""]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in table.to_dict("records"):
        name = f"{row['group']}: {row['says']}" if row["group"] not in ("", TASK) else row["says"]
        changed = " ".join(f"--{flag} {value}" for flag, value in NAMED[row["part"]].changes.items())
        words = [
            f"{name} (`{changed}`)" if changed else name,
            str(row["seeds"]),
            f"{row['mean_m']:.3f}",
            _number(row["spread_m"], ".3f"),
        ]
        words += [f"{row['median_m']:.3f}", f"{100 * row['within_1m']:.1f} %"]
        words += [_number(row["heading_median_deg"], ".2f", "°")] if heading else []
        interval = f" ({row['low_m']:+.3f} to {row['high_m']:+.3f})"
        known = pd.notna(row["difference_m"])
        words += [f"{row['difference_m']:+.3f}{interval}" if known else "", row["verdict"] if known else ""]
        lines.append("| " + " | ".join(words) + " |")
    return lines


def _number(value, form, unit=""):
    return f"{value:{form}}{unit}" if pd.notna(value) else ""
