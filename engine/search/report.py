"""Places that a search has found -> words, and GeoJSON that any map opens."""

import json

from common.geometry import wrap_degrees
from engine.search.searcher import distance_m


def describe(places, softness, truth=None, true_heading=None, notes=()):
    """A text, a line for each place, the best first.

    softness: the search's `Softness` · truth: (row, col) on the map, where it is known · true_heading: degrees.
    """
    known = truth is not None
    lines = [f"note: {note}" for note in notes]
    lines.append(
        f"{'':4}{'city':15}{'latitude':>12}{'longitude':>13}{'heading':>10}{'probability':>14}"
        + (f"{'error':>11}" if known else "")
    )
    for number, place in enumerate(places, 1):
        error = f"{distance_m(place, truth):>9.2f} m" if known else ""
        lines.append(
            f"{number:>2}  {place.city.name:15}{place.latitude:>12.6f}{place.longitude:>13.6f}{place.heading % 360:>9.1f}°"
            f"{100 * place.probability:>12.1f} %{error}"
        )
    if known and true_heading is not None:
        turned = wrap_degrees(places[0].heading - true_heading)
        lines.append(f"true heading {true_heading % 360:.1f}°, error of the best place's {turned:+.1f}°")
    lines.append(f"probability: that the camera stood within 5 m; {softness.name}")
    return "\n".join(lines) + "\n"


def map_link(latitude, longitude):
    """A place in degrees as Markdown, with a link to OpenStreetMap, which is asked only when somebody follows it."""
    where = f"?mlat={latitude:.7f}&mlon={longitude:.7f}#map=19/{latitude:.7f}/{longitude:.7f}"
    return f"[{latitude:.6f}, {longitude:.6f}](https://www.openstreetmap.org/{where})"


def geojson(places, truth=None, guess=None):
    """The places as points of a GeoJSON text; truth: (latitude, longitude), guess: (latitude, longitude, radius in metres)."""
    features = [
        _point(
            place.latitude,
            place.longitude,
            rank=rank,
            city=place.city.name,
            heading_deg=round(place.heading % 360, 2),
            probability=round(place.probability, 6),
        )
        for rank, place in enumerate(places, 1)
    ]
    if truth is not None:
        features.append(_point(*truth, kind="truth"))
    if guess is not None:
        features.append(_point(*guess[:2], kind="guess", radius_m=guess[2]))
    return json.dumps({"type": "FeatureCollection", "features": features}, indent=2) + "\n"


def _point(latitude, longitude, **properties):
    place = [round(float(longitude), 8), round(float(latitude), 8)]  # GeoJSON has the longitude first
    return {"type": "Feature", "geometry": {"type": "Point", "coordinates": place}, "properties": properties}
