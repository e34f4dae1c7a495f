"""The table of parts -> a forest plot: a line for each part, its difference to the full set-up with its 95 % interval."""

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks.parts.catalogue import FULL, TASK
from benchmarks.parts.table import NOT_TOLD

COLOURS = {"samearea": "#0072b2", "crossarea": "#d55e00"}  # Okabe and Ito's
MARKERS = {"samearea": "o", "crossarea": "s"}
NAMES = {"samearea": "same-area", "crossarea": "cross-area"}
_OFFSET = {"samearea": -0.17, "crossarea": 0.17}  # lines, downwards
_LINE, _BETWEEN = 0.27, 0.95  # inches: of a line, of a panel's title and axis


def draw(table):
    """A figure with two panels for each network of `benchmarks.parts.table.summarise`: its parts, and other tasks."""
    panels = []
    for network, of_network in table.groupby("network", sort=False):
        compared = of_network[of_network["difference_m"].notna()]
        panels.append((_title(network, of_network), compared[compared["group"] != TASK]))
        if (compared["group"] == TASK).any():
            panels.append((f"{network}: another task, and what it costs", compared[compared["group"] == TASK]))
    heights = [_BETWEEN + _LINE * max(1, _count_lines(part)) for _, part in panels]
    figure = Figure(figsize=(7.5, sum(heights) + 0.6), layout="constrained")
    for axes, (title, part) in zip(
        figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0], panels, strict=True
    ):
        _draw_panel(axes, title, part)
    shown = [area for area in COLOURS if (table["area"] == area).any()]
    keys = [Line2D([], [], color=COLOURS[area], marker=MARKERS[area], label=NAMES[area]) for area in shown]
    keys.append(Line2D([], [], color="0.4", marker="o", markerfacecolor="white", label=f"hollow: {NOT_TOLD}"))
    figure.legend(handles=keys, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return figure


def _title(network, table):
    full = table[table["part"] == FULL.name]
    means = ", ".join(f"{NAMES[row['area']]} {row['mean_m']:.2f} m" for row in full.to_dict("records"))
    seeds = ", ".join(str(seeds) for seeds in full["seeds"])
    return f"{network}: what a changed part costs" + (f"\nfull set-up, mean error: {means} (seeds: {seeds})" if means else "")


def _count_lines(table):
    return table["part"].nunique() + table["group"].nunique()


def _draw_panel(axes, title, table):
    labels, bold = [], []
    for group, of_group in table.groupby("group", sort=False):
        if group != TASK:
            bold.append(len(labels))
            labels.append(group)
        for _, of_part in of_group.groupby("part", sort=False):
            for row in of_part.to_dict("records"):
                _draw_interval(axes, len(labels) + _OFFSET[row["area"]], row)
            labels.append(of_part["says"].iloc[0])
    axes.axvline(0, color="black", linewidth=1, zorder=0)
    axes.set_yticks(range(len(labels)), labels, fontsize=9)
    for i in bold:
        axes.get_yticklabels()[i].set_fontweight("bold")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(max(1, len(labels)) - 0.4, -0.6)
    axes.set_xlabel("mean error minus the full set-up's (m), 95 % interval", fontsize=9)
    axes.set_title(title, fontsize=10, loc="left")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _draw_interval(axes, y, row):
    colour = COLOURS[row["area"]]
    axes.plot([row["low_m"], row["high_m"]], [y, y], color=colour, linewidth=1.6, solid_capstyle="butt")
    face = "white" if row["verdict"] == NOT_TOLD else colour
    axes.plot(row["difference_m"], y, MARKERS[row["area"]], color=colour, markerfacecolor=face, markersize=5.5)
