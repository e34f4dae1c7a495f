"""The picture and the animation of a `Track`."""

import numpy as np

from common.geometry import mercator_px
from engine.figures.tracks import belief_gif, track_figure
from engine.tracking.tracker import LOST
from engine.visualization.search import map_around

_MARGIN_M = 25.0  # around a track
_LARGEST_PX = 1400  # of a map's longer side
_ANIMATED = 120  # frames of an animation at most


def track_map(track, truth=None):
    """The `CityMap` around a `Track` and its truth (T, 2) on the map."""
    tiles, grid = track.city.tiles, track.likelihood.grid
    metres = grid.cell_m / grid.cell_px  # of a map pixel
    known = [one.smoothed.near >= LOST for one in track.tracked]
    places = track.map_px()[known] if any(known) else track.map_px()
    places = np.concatenate([places, *([] if truth is None else [truth])])
    margin = _MARGIN_M / metres
    corner, end = places.min(0) - margin, places.max(0) + margin
    return map_around(tiles, corner, end, _LARGEST_PX)


def track_picture(track, city_map, title="", truth=None):
    """The figure of a `Track` on its `track_map`."""
    poses = [one.smoothed for one in track.tracked]
    seen = [frame.known("latitude", "longitude") for frame in track.frames]
    seen = [place for place in seen if place[0] is not None]
    marks = {"places": track.map_px(), "headings": np.array([pose.heading for pose in poses])}
    marks["covariances"] = [pose.matrix for pose in poses]
    marks |= {"doubted": [one.doubted for one in track.tracked], "truth": truth, "near": track.near}
    marks["gps"] = np.stack(mercator_px(*np.array(seen).T), 1) if seen else None
    return track_figure(city_map, marks, title=title)


def track_animation(track, city_map):
    """The bytes of a GIF of a `Track`'s filtered beliefs, as long as these are on the disk."""
    count = len(track.tracked)
    shown = np.unique(np.linspace(0, count - 1, min(count, _ANIMATED)).astype(int)).tolist()
    places = track.map_px("filtered")
    known = [places[frame] if track.tracked[frame].filtered.near >= LOST else None for frame in shown]
    return belief_gif(city_map, (belief_of(track, frame) for frame in shown), known)


def belief_of(track, frame):
    """(mass (h, w), (row, col) of its corner on the map, side of a cell in map pixels) of a frame's filtered
    belief, as long as it is on the disk."""
    grid, (lattice, p) = track.likelihood.grid, track.beliefs.load(frame).belief
    side = lattice.level.cell_m
    corner = track.likelihood.to_map((lattice.row * side, lattice.col * side))
    return p.sum(0).numpy(), corner, side / grid.cell_m * grid.cell_px


def track_ellipse(matrix):
    """(longer, shorter standard deviation, bearing of the longer axis) of a covariance of (south, east)."""
    values, vectors = np.linalg.eigh(matrix)
    south, east = vectors[:, 1]
    shorter, longer = np.sqrt(np.maximum(values, 0))
    return float(longer), float(shorter), float(np.degrees(np.arctan2(east, -south)))
