"""A track over a city: its frames with their ellipses, and the belief of each frame as an animation."""

import io
import math
from itertools import pairwise

import cv2
import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from PIL import Image

from engine.figures import pictures
from engine.figures.search import draw_prior

SIGMAS_95 = math.sqrt(-2 * math.log(0.05))  # half axes of the ellipse with 95 % of a plane's Gaussian
_DOUBTED_COLOUR = "#d55e00"
_ANIMATED_PX, _FRAME_MS = 420, 150  # longer side of an animation; time of its frames


def track_figure(city_map, marks, *, title="", notes=""):
    """The picture of a track on a `CityMap`.

    marks: {'places': (T, 2) on the map, 'covariances': (T, 2, 2) in square metres of (south, east),
    'headings': (T,) degrees, 'doubted': (T,) bool, and, or None: 'truth' (T, 2), 'gps' (N, 2), 'near'
    (latitude, longitude, radius in metres)}.
    """
    height, width = city_map.image.shape[:2]
    figure = Figure(figsize=(9, 1.4 + 8.4 * np.clip(height / width, 0.35, 1.4)), layout="constrained")
    axes = figure.subplots()
    pictures.draw_satellite(axes, pictures.dim(city_map.image), city_map.metres)
    rows, cols = np.array([city_map.place(place) for place in marks["places"]]).T
    if marks.get("gps") is not None and len(marks["gps"]):
        place = np.array([city_map.place(place) for place in marks["gps"]]).T
        axes.plot(place[1], place[0], ".", color="#e69f00", markersize=4, label="GPS")
    if marks.get("truth") is not None:
        place = np.array([city_map.place(place) for place in marks["truth"]]).T
        style = {"color": pictures.TRUTH_COLOUR, "linewidth": 2.5, "path_effects": pictures.OUTLINE}
        axes.plot(place[1], place[0], "-", label="truth", **style)
    axes.plot(cols, rows, "-", color=pictures.PREDICTION_COLOUR, linewidth=1.2, label="track")
    for row, col, covariance in zip(rows, cols, marks["covariances"], strict=True):
        axes.add_patch(_ellipse(row, col, covariance, city_map.metres))
    doubted = np.asarray(marks["doubted"], bool)
    axes.plot(cols[~doubted], rows[~doubted], ".", color=pictures.PREDICTION_COLOUR, markersize=5)
    if doubted.any():
        style = {"color": _DOUBTED_COLOUR, "markersize": 7, "markeredgewidth": 2}
        axes.plot(cols[doubted], rows[doubted], "x", label="image fits nothing", **style)
    angle = np.radians(marks["headings"])
    arrows = {"color": pictures.PREDICTION_COLOUR, "width": 0.0015, "scale": 45}
    axes.quiver(cols, rows, np.sin(angle), np.cos(angle), **arrows)
    axes.annotate("begin", (cols[0], rows[0]), color="white", fontsize=8, path_effects=pictures.OUTLINE)
    draw_prior(axes, city_map, marks.get("near"))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_title("north up; ellipses hold 95 %, arrows show headings")
    pictures.add_title(figure, title)
    if notes:
        figure.supxlabel(notes, fontsize=8)
    return figure


def _ellipse(row, col, covariance, metres):
    """The 95 % ellipse of a covariance (2, 2) of (south, east), square metres, on a map."""
    values, vectors = np.linalg.eigh(covariance)
    south, east = vectors[:, 1]
    minor, major = 2 * SIGMAS_95 * np.sqrt(np.maximum(values, 0)) / metres
    style = {"fill": False, "edgecolor": pictures.PREDICTION_COLOUR, "linewidth": 0.7}
    return Ellipse((col, row), major, minor, angle=np.degrees(np.arctan2(south, east)), **style)


def belief_gif(city_map, beliefs, places):
    """The bytes of a GIF of beliefs over a `CityMap`, a picture for each.

    beliefs: (mass (h, w), map position (row, col) of its north-west corner, its cells' side in map pixels) of
    each frame; places: (T, 2) estimates on the map, or None where there is none.
    """
    scale = min(1.0, _ANIMATED_PX / max(city_map.image.shape[:2]))
    size = tuple(max(1, round(side * scale)) for side in city_map.image.shape[1::-1])
    ground = cv2.resize(pictures.dim(city_map.image), size, interpolation=cv2.INTER_AREA)
    colours, shown, done = colormaps[pictures.HEAT_COLOURS], [], []
    for (mass, corner, cell_px), place in zip(beliefs, places, strict=True):
        row, col = (np.array(city_map.place(corner))) * scale
        side = cell_px / city_map.pixel * scale
        move = np.float64([[side, 0, col + side / 2 - 0.5], [0, side, row + side / 2 - 0.5]])
        mass = np.ascontiguousarray(mass / mass.max(), np.float32)
        if side < 1:  # or cells would fall between pixels
            mass = cv2.dilate(mass, np.ones((2 * round(1 / side) + 1,) * 2, np.uint8))
        heat = np.sqrt(np.clip(cv2.warpAffine(mass, move, size, flags=cv2.INTER_LINEAR), 0, 1))
        picture = (
            ground * (1 - 0.85 * heat[..., None]) + 255 * colours(heat)[..., :3] * 0.85 * heat[..., None]
        )
        picture = np.clip(picture, 0, 255).astype(np.uint8)
        if place is not None:
            done.append(tuple(np.rint(np.array(city_map.place(place))[::-1] * scale).astype(int).tolist()))
        for start, end in pairwise(done):
            cv2.line(picture, start, end, (86, 180, 233), 1, cv2.LINE_AA)
        if place is not None:
            cv2.circle(picture, done[-1], 4, (86, 180, 233), 1, cv2.LINE_AA)
        shown.append(Image.fromarray(picture).quantize(128))
    file = io.BytesIO()
    shown[0].save(file, "GIF", save_all=True, append_images=shown[1:], duration=_FRAME_MS, loop=0)
    return file.getvalue()


def recall_figure(shares, title):
    """Recall within 1 m by number of frames: {name: (numbers of frames, shares)}."""
    figure = Figure(figsize=(5.5, 3.9), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    for (name, (numbers, values)), marker in zip(shares.items(), "osD", strict=False):
        axes.plot(numbers, 100 * values, marker=marker, markersize=3, linewidth=1.2, label=name)
    axes.set(xlabel="frames", ylabel="drives within 1 m (%)", ylim=(0, 102))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure
