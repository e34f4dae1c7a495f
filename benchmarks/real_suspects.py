"""Which cities and places of a table of real pairs a network contradicts: metres per pixel and labels.

A label of a real place is a pixel of its satellite image, which is right at any scale. So the network is
asked at several scales, and the one at which the labels are most probable is the city's.
"""

import numpy as np
import pandas as pd

from common.geometry import bearing_to
from engine.inference.temperatures import best_temperature

SCALES = 1.12 ** np.arange(-4, 5)  # of the stated metres per pixel
LEAST_MASS = 1e-3  # of a label; one that is less probable counts as this
_RESAMPLES = 200


def city_of(place):
    """The city of a place, the first part of its name: 'canberra' of 'canberra_02'."""
    return place.rpartition("_")[0] or place


def find_suspects(tables):
    """(table of cities, table of places), the most suspect first, of a table of `benchmarks.real.measure` at
    each of `SCALES`.

    scale: true metres per pixel over the stated, with its 95 % interval over the city's places; gain: nats of
    probability that it adds to a label. doubt: how many nats likelier a network holds its own place than the
    label's, a mean over the windows at that scale; east_m, north_m: from the label to its places, medians.
    """
    plain, nats = (
        tables[0],
        np.log(np.stack([table["mass_at_truth"] for table in tables], 1).clip(LEAST_MASS)),
    )
    of_city = plain["place"].map(city_of)
    cities, places = [], []
    for city in of_city.unique():
        here = (of_city == city).to_numpy()
        groups = [nats[here & (plain["place"] == place)].mean(0) for place in plain["place"][here].unique()]
        row, best = _scale_of(np.array(groups))
        cities.append({"city": city, "places": len(groups)} | row)
        for place, rows in tables[best][here].groupby("place", sort=False):
            own, label = rows["probability"] + LEAST_MASS, rows["mass_at_truth"] + LEAST_MASS
            doubt = float(np.log(own / label).clip(lower=0).mean())
            shift = rows[["east_m", "north_m", "heading_error_deg"]].median() * (
                SCALES[best],
                SCALES[best],
                1,
            )
            places.append(
                {"place": place, "doubt": doubt, **shift, "probability": rows["probability"].mean()}
            )
    by_gain = pd.DataFrame(cities).sort_values("gain", ascending=False, kind="stable", ignore_index=True)
    return by_gain, pd.DataFrame(places).sort_values(
        "doubt", ascending=False, kind="stable", ignore_index=True
    )


def _scale_of(groups):
    """(columns of the table of cities, number of the nearest of `SCALES`) by nats (places, scales)."""
    rng = np.random.default_rng(0)
    scale, lowest, inside = best_temperature(SCALES, -groups)  # the same search: evenly spaced logarithms
    drawn = rng.integers(len(groups), size=(_RESAMPLES, len(groups)))
    ends = np.percentile([best_temperature(SCALES, -groups[rows])[0] for rows in drawn], (2.5, 97.5))
    gain = -lowest - groups[:, len(SCALES) // 2].mean()
    row = {"scale": scale, "scale_low": ends[0], "scale_high": ends[1], "gain": gain, "within_range": inside}
    return row, int(np.abs(np.log(SCALES / scale)).argmin())


def report(cities, places, stated):
    """Both tables as a text. stated: {city: metres per pixel by its table, (least, most)}."""
    lines = [
        f"{'city':12}{'places':>7}{'gain':>7}{'scale (95 %)':>22}  metres per pixel: stated, by the scale"
    ]
    for row in cities.to_dict("records"):
        scale = f"{row['scale']:.2f} ({row['scale_low']:.2f} to {row['scale_high']:.2f})"
        values = [
            " to ".join(f"{x * by:.4g}" for x in dict.fromkeys(stated[row["city"]]))
            for by in (1, row["scale"])
        ]
        end = "" if row["within_range"] else ", where the tried scales end"
        lines.append(
            f"{row['city']:12}{row['places']:>7}{row['gain']:>7.2f}{scale:>22}  {', '.join(values)}{end}"
        )
    lines += ["", f"{'place':14}{'doubt':>6}{'found from the label':>22}{'heading':>9}{'sure':>7}"]
    for row in places.to_dict("records"):
        north, east = row["north_m"], row["east_m"]
        place = f"{np.hypot(north, east):.1f} m at {bearing_to(0, 0, -north, east) % 360:.0f}°"
        heading = f"{row['heading_error_deg']:+.0f}°"
        sure = f"{100 * row['probability']:.0f} %"
        lines.append(f"{row['place']:14}{row['doubt']:>6.1f}{place:>22}{heading:>9}{sure:>7}")
    return "\n".join(lines)
