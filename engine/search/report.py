"""Results of a search -> words, and GeoJSON that any map opens."""

import json
from xml.sax.saxutils import escape

import torch

from common.geometry import wrap_degrees
from engine.inference.decode import NEAR_M, spread
from engine.search.searcher import distance_m


def results_in_words(results, temperatures, truth=None, true_heading=None, notes=()):
    """A text with a line for each `SearchResult`, best first; `truth` is (row, col) on the map, or None."""
    columns = f"{'':4}{'city':15}{'latitude':>12}{'longitude':>13}{'heading':>10}{'probability':>14}"
    lines = [*(f"note: {note}" for note in notes), columns + (f"{'error':>11}" if truth is not None else "")]
    for rank, result in enumerate(results, 1):
        error = f"{error_in_words(distance_m(result, truth)):>11}" if truth is not None else ""
        where = f"{result.city.name:15}{result.latitude:>12.6f}{result.longitude:>13.6f}"
        numbers = f"{result.heading % 360:>9.1f}°{100 * result.probability:>12.1f} %"
        lines.append(f"{rank:>2}  {where}{numbers}{error}")
    if truth is not None and true_heading is not None:
        error = wrap_degrees(results[0].heading - true_heading)
        lines.append(f"true heading {true_heading % 360:.1f}°, error of the best place's {error:+.1f}°")
    lines.append(f"probability: that the camera stood within {NEAR_M:g} m; {temperatures.name}")
    return "\n".join(lines) + "\n"


def error_in_words(metres):
    """An error in metres with as many digits as matter: 0.24 m, 866 m, 3866 km."""
    if metres < 10_000:
        return f"{metres:.{0 if metres >= 100 else 2}f} m"
    return f"{metres / 1000:.0f} km"


def map_link(latitude, longitude):
    """A place in degrees as Markdown, with a link to OpenStreetMap; only following it contacts the site."""
    where = f"?mlat={latitude:.7f}&mlon={longitude:.7f}#map=19/{latitude:.7f}/{longitude:.7f}"
    return f"[{latitude:.6f}, {longitude:.6f}](https://www.openstreetmap.org/{where})"


def geojson(results, truth=None, near=None):
    """GeoJSON of `SearchResult`s, truth (latitude, longitude) and prior (latitude, longitude, metres)."""
    features = features_of(results)
    if truth is not None:
        features.append(_point(*truth, kind="truth"))
    if near is not None:
        features.append(_point(*near[:2], kind="guess", radius_m=near[2]))
    return json.dumps({"type": "FeatureCollection", "features": features}, indent=2) + "\n"


def features_of(results):
    """Features of GeoJSON of `SearchResult`s, best first.

    A result says how the heat map of its satellite image is spread: along_m and across_m, the standard
    deviations along and across the bearing along_deg.
    """
    features = []
    for rank, one in enumerate(results, 1):
        about = {"rank": rank, "city": one.city.name, "heading_deg": round(one.heading % 360, 2)}
        along, across, bearing = spread(torch.from_numpy(one.estimate.probability))
        metres = one.estimate.metres_per_pixel
        about |= {"along_m": round(along * metres, 2), "across_m": round(across * metres, 2)}
        about["along_deg"] = round(bearing, 1)
        features.append(_point(one.latitude, one.longitude, **about, probability=round(one.probability, 6)))
    return features


def gpx(places, body=""):
    """GPX of waypoints (latitude, longitude, name), and of a body, further lines such as a track."""
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<gpx version="1.1" creator="CVM-VIGOR" '
    head += 'xmlns="http://www.topografix.com/GPX/1/1">\n'
    points = "".join(
        f' <wpt lat="{latitude:.8f}" lon="{longitude:.8f}"><name>{escape(name)}</name></wpt>\n'
        for latitude, longitude, name in places
    )
    return f"{head}{points}{body}</gpx>\n"


def _point(latitude, longitude, **properties):
    place = [round(float(longitude), 8), round(float(latitude), 8)]  # GeoJSON has the longitude first
    return feature("Point", place, **properties)


def feature(shape, coordinates, **properties):
    """A GeoJSON feature of a shape, 'Point' or 'LineString'; coordinates have the longitude first."""
    geometry = {"type": shape, "coordinates": coordinates}
    return {"type": "Feature", "geometry": geometry, "properties": properties}
