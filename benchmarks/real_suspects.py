"""Which image sets and places of a table of real pairs a network contradicts: metres per pixel and labels.

A label of a real place is a pixel of its satellite image, which is right at any scale. So the network is
asked at several scales, and the one at which the labels are most probable is the set's. That takes cameras of
a known height: one that stands higher in a world that is as much larger sees the same. An image set is the
places of a city for whose images the table states the same metres per pixel.
"""

import numpy as np
import pandas as pd

from common.geometry import offset_in_words
from engine.inference.temperatures import best_temperature

CAMERA_HEIGHT = 2.5  # metres, of most cars that take panoramas
SCALES = 1.12 ** np.arange(-4, 5)  # of the stated metres per pixel
LEAST_MASS = 1e-3  # of a label; one that is less probable counts as this
_RESAMPLES = 200


def set_of(place, metres_per_pixel):
    """The name of a place's image set: 'canberra 0.2297' of 'canberra_02'."""
    return f"{place.rpartition('_')[0] or place} {metres_per_pixel:g}"


def find_suspects(tables):
    """(table of image sets, table of places), the most suspect first, of a table of `benchmarks.real.measure`
    at each of `SCALES`.

    scale: true metres per pixel over the stated, with its 95 % interval over the set's places; gain: nats of
    probability that it adds to a label. doubt: how many nats likelier a network holds its own place than the
    label's, a mean over the windows at that scale; east_m, north_m: from the label to its places, medians.
    """
    plain = tables[0]
    nats = np.log(np.stack([table["mass_at_truth"] for table in tables], 1).clip(LEAST_MASS))
    names = np.array([set_of(*pair) for pair in plain[["place", "metres_per_pixel"]].itertuples(index=False)])
    sets, places = [], []
    for name in dict.fromkeys(names):
        here = names == name
        of_place = plain["place"][here].to_numpy()
        groups = np.array([nats[here][of_place == place].mean(0) for place in dict.fromkeys(of_place)])
        row, best = _scale_of(groups)
        stated = float(plain["metres_per_pixel"][here].iloc[0])
        sets.append({"set": name, "places": len(groups), "metres_per_pixel": stated * row["scale"]} | row)
        for place, rows in tables[best][here].groupby("place", sort=False):
            own, label = rows["probability"] + LEAST_MASS, rows["mass_at_truth"] + LEAST_MASS
            row = {"place": place, "doubt": float(np.log(own / label).clip(lower=0).mean())}
            row |= {of: float(rows[of].median()) * SCALES[best] for of in ("east_m", "north_m")}
            row |= {"heading_error_deg": float(rows["heading_error_deg"].median())}
            places.append(row | {"probability": float(rows["probability"].mean())})
    by_gain = pd.DataFrame(sets).sort_values("gain", ascending=False, kind="stable", ignore_index=True)
    return by_gain, pd.DataFrame(places).sort_values(
        "doubt", ascending=False, kind="stable", ignore_index=True
    )


def _scale_of(groups):
    """(columns of the table of image sets, number of the nearest of `SCALES`) by nats (places, scales)."""
    rng = np.random.default_rng(0)
    groups = groups - 1e-6 * np.log(SCALES) ** 2  # so that the stated scale wins where nothing tells
    scale, lowest, inside = best_temperature(SCALES, -groups)  # the same search: evenly spaced logarithms
    drawn = rng.integers(len(groups), size=(_RESAMPLES, len(groups)))
    ends = np.percentile([best_temperature(SCALES, -groups[rows])[0] for rows in drawn], (2.5, 97.5))
    gain = -lowest - groups[:, len(SCALES) // 2].mean()
    row = {"scale": scale, "scale_low": ends[0], "scale_high": ends[1], "gain": gain, "within_range": inside}
    return row, int(np.abs(np.log(SCALES / scale)).argmin())


def report(sets, places):
    """Both tables as a text."""
    lines = [f"{'image set':20}{'places':>7}{'gain':>7}{'scale (95 %)':>22}  metres per pixel"]
    for row in sets.to_dict("records"):
        scale = f"{row['scale']:.2f} ({row['scale_low']:.2f} to {row['scale_high']:.2f})"
        end = f"{row['metres_per_pixel']:.4g}{'' if row['within_range'] else ', where the tried scales end'}"
        lines.append(f"{row['set']:20}{row['places']:>7}{row['gain']:>7.2f}{scale:>22}  {end}")
    lines += ["", f"{'place':14}{'doubt':>6}{'found from the label':>22}{'heading':>9}{'sure':>7}"]
    for row in places.to_dict("records"):
        place = offset_in_words(row["east_m"], row["north_m"])
        heading = f"{row['heading_error_deg']:+.0f}°"
        sure = f"{100 * row['probability']:.0f} %"
        lines.append(f"{row['place']:14}{row['doubt']:>6.1f}{place:>22}{heading:>9}{sure:>7}")
    return "\n".join(lines)
