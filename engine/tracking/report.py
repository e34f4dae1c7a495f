"""A track -> a table, GeoJSON and GPX, which any map opens, and a few words."""

import json
from datetime import UTC, datetime
from xml.sax.saxutils import escape

import numpy as np
import pandas as pd

from engine.inference.decode import NEAR_M
from engine.search.report import feature, gpx

_EPOCH_S = 1e8  # times beyond it count from 1970


def as_table(track, drive=""):
    """A `pandas.DataFrame` with a line for each frame of a `Track`.

    Standard deviations are in metres to the north and to the east, `north_east_m2` is their covariance.
    `filter_latitude` and `filter_longitude` are the place given the frames up to each.
    """
    rows, gps, before = [], track.gps(), track.gps("filtered")
    for number, (frame, one) in enumerate(zip(track.frames, track.tracked, strict=True)):
        south, mixed, east = one.smoothed.covariance
        row = {"drive": drive, "frame": number, "file": frame.name, "time": frame.numbers.get("time", np.nan)}
        row |= {"latitude": gps[number, 0], "longitude": gps[number, 1]}
        row |= {"heading": one.smoothed.heading % 360, "std_north_m": south**0.5}
        row |= {"std_east_m": east**0.5, "north_east_m2": -mixed}
        row |= {"std_heading": one.smoothed.heading_std, "probability_5m": one.smoothed.near}
        row |= {"doubt": one.doubt, "doubted": one.doubted, "lost": one.lost}
        row |= {"filter_latitude": before[number, 0], "filter_longitude": before[number, 1]}
        rows.append(row | {"filter_probability_5m": one.filtered.near})
    return pd.DataFrame(rows)


def in_words(track, temperatures=""):
    """What happened on a drive: how sure its frames are, which were doubted, where it was lost."""
    near = np.array([one.smoothed.near for one in track.tracked])
    spread = [sum(one.smoothed.covariance[::2]) ** 0.5 for one in track.tracked]
    lines = [f"{len(near)} frames; probability within {NEAR_M:g} m: median {100 * np.median(near):.0f} %"]
    lines[0] += f", least {100 * near.min():.0f} %; standard deviation: median {np.median(spread):.2f} m"
    doubted = _ranges([one.doubted for one in track.tracked])
    lost = _ranges([one.lost for one in track.tracked])
    if doubted:
        lines.append(f"images that fit nothing, carried by the motion: frames {doubted}")
    if lost:
        lines.append(f"lost, less than half of the probability within {NEAR_M:g} m: frames {lost}")
    return "\n".join([*lines, *([temperatures] if temperatures else [])]) + "\n"


def _ranges(flags):
    """'3, 7-9' for the places of a list that are true."""
    numbers, parts = [i for i, flag in enumerate(flags) if flag], []
    for i in numbers:
        if parts and parts[-1][1] == i - 1:
            parts[-1][1] = i
        else:
            parts.append([i, i])
    return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in parts)


def as_geojson(table, near=None):
    """GeoJSON of a track's table: its line, a point for each frame, the circle in which it began."""
    places = table[["longitude", "latitude"]].round(8).to_numpy().tolist()  # GeoJSON has the longitude first
    features = [feature("LineString", places, kind="track", drive=str(table["drive"].iloc[0]))]
    names = ["frame", "file", "heading", "std_north_m", "std_east_m", "probability_5m", "doubted", "lost"]
    for place, row in zip(places, json.loads(table[names].round(4).to_json(orient="records")), strict=True):
        features.append(feature("Point", place, **row))
    if near is not None:
        features.append(feature("Point", [near[1], near[0]], kind="begin", radius_m=near[2]))
    return json.dumps({"type": "FeatureCollection", "features": features}, indent=1) + "\n"


def as_gpx(table, name):
    """GPX of a track's table; times are kept where they count from 1970."""
    points = []
    for row in table.itertuples():
        time = ""
        if row.time > _EPOCH_S:
            stamp = datetime.fromtimestamp(row.time, UTC).isoformat(timespec="milliseconds")
            time = f"<time>{stamp.replace('+00:00', 'Z')}</time>"
        points.append(f'   <trkpt lat="{row.latitude:.8f}" lon="{row.longitude:.8f}">{time}</trkpt>')
    lines = [f" <trk><name>{escape(name)}</name>", "  <trkseg>", *points, "  </trkseg>", " </trk>", ""]
    return gpx([], "\n".join(lines))
