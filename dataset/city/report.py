"""The report of a built city: numbers for `build.json`, lines for the terminal, and a map."""

import cv2
import numpy as np
from matplotlib.figure import Figure

from common import geometry
from common.geometry import SATELLITE_PX
from dataset.images import read_satellite
from dataset.layout import STEP_PX

# Okabe and Ito's palette
_COLOURS = {"train": "#56b4e9", "test": "#e69f00", "gap": "#bbbbbb", "missing": "#d55e00"}
_LABELS = {"train": "train", "test": "test", "gap": "gap between both", "missing": "left out: no imagery"}
_LARGEST_PX = 2400  # longer side of the map
_DEFAULT_HEIGHT_M = 2.5  # the camera height that networks assume by default
_SHARE_TOLERANCE = 0.1  # a share of test panoramas further from --test_share is reported
_LISTED = 20  # lines about missing images in the report


def summary(built, imagery):
    """The report as a dict of plain values."""
    heights = [panorama.camera_height_m for panorama in built.panoramas if panorama.camera_height_m]
    latitude = float(np.mean([panorama.latitude for panorama in built.panoramas]))
    metres_per_pixel = float(geometry.metres_per_pixel(latitude))
    return {
        "panoramas": len(built.panoramas),
        **{part: int((built.parts == part).sum()) for part in _LABELS},
        "satellite_images": len(built.satellites),
        "metres_per_pixel": round(metres_per_pixel, 6),
        "square_km": round(len(built.satellites) * (STEP_PX * metres_per_pixel) ** 2 / 1e6, 3),
        "camera_height_m": round(float(np.median(heights)), 2) if heights else None,
        "layout": built.layout.plain(),
        "terms": imagery.terms,
        "images_missing": len(built.missing),
        "first_missing": built.missing[:_LISTED],
    }


def lines(city, report, what):
    """The report for the terminal. what: the kind of its street images."""
    parts = ", ".join(f"{report[part]} {label}" for part, label in _LABELS.items() if report[part])
    yield f"{city}: {report['panoramas']} {what} ({parts}), {report['satellite_images']} satellite images"
    layout, share = report["layout"], report["test"] / report["panoramas"]
    if layout["split"] != "table" and abs(share - layout["test_share"]) > _SHARE_TOLERANCE:
        remedy = "try another --seed" + (" or a smaller --block" if layout["split"] == "blocks" else "")
        yield f"{city}: {share:.0%} test, --test_share is {layout['test_share']:.0%}; {remedy}"
    if not report["train"]:
        yield f"{city}: no {what} for training; set --test_share below 1"
    if not report["test"]:
        yield f"{city}: no {what} for testing; evaluation needs some"
    if report["images_missing"]:
        first = report["first_missing"][0]
        yield f"{city}: {report['images_missing']} images are not available, the first: {first}"
    height = report["camera_height_m"]
    if height and abs(height - _DEFAULT_HEIGHT_M) > 0.2:
        yield f"{city}: the cameras are {height:g} m above the ground; train with --camera_height {height:g}"


def draw_map(built):
    """A `Figure`: street images by part over the satellite images, in metres from the south-west corner."""
    cells = np.array(sorted(built.satellites))
    corners = built.grid.corner(cells)
    start, stop = corners.min(0), corners.max(0) + SATELLITE_PX
    scale = min(1.0, _LARGEST_PX / (stop - start).max())
    canvas = np.full((*np.ceil((stop - start) * scale).astype(int), 3), 235, np.uint8)
    side = max(1, round(SATELLITE_PX * scale))
    for cell, corner in zip(map(tuple, cells.tolist()), corners, strict=True):
        image = read_satellite(built.folder / "satellite" / built.satellites[cell][0], (SATELLITE_PX,) * 2)
        row, col = np.floor((corner - start) * scale).astype(int)
        target = canvas[row : row + side, col : col + side]
        target[:] = cv2.resize(image, target.shape[1::-1], interpolation=cv2.INTER_AREA)
    metres = float(geometry.metres_per_pixel(geometry.latitude_longitude(*((start + stop) / 2))[0]))
    height, width = (stop - start) * metres
    larger = max(height, width)
    figure = Figure(figsize=(2 + 8 * width / larger, 1 + 8 * height / larger), layout="constrained")
    axes = figure.subplots()
    axes.imshow(canvas, extent=(0, width, 0, height), interpolation="antialiased")
    for part, colour in _COLOURS.items():
        rows, cols = ((built.positions - start) * metres)[built.parts == part].T
        if len(rows):
            style = {"s": 26, "color": colour, "edgecolors": "black", "linewidths": 0.6}
            axes.scatter(cols, height - rows, label=f"{_LABELS[part]}: {len(rows)}", **style)
    axes.set(xlabel="metres to the east", ylabel="metres to the north")
    axes.set_title(f"{built.folder.name}: {built.kind} and their parts")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return figure
