"""What was built, as numbers for `build.json` and as a map: panoramas by their part over the satellite images."""

import cv2
import numpy as np
from matplotlib.figure import Figure

from common import geometry
from common.geometry import SATELLITE_PX
from dataset.city.grid import STEP_PX
from dataset.images import read_satellite

_PARTS = {"train": "#56b4e9", "test": "#e69f00", "gap": "#bbbbbb", "missing": "#d55e00"}  # of Okabe and Ito's palette
_SHOWN = {"gap": "gap between both", "missing": "left out: no imagery"}
_LARGEST_PX = 2400  # of the map's longer side
_USUAL_HEIGHT_M = 2.5  # what networks take a camera's height for where nobody tells
_AMISS = 0.1  # of the share of test panoramas, from where on it is told
_LISTED = 20  # lines on missing images


def summary(built, imagery):
    """The report as a dict of plain values."""
    counts = {part: int((built.parts == part).sum()) for part in _PARTS}
    heights = [one.camera_height_m for one in built.panoramas if one.camera_height_m]
    latitude = float(np.mean([one.latitude for one in built.panoramas]))
    return {
        "panoramas": len(built.panoramas), **counts, "satellite_images": len(built.satellites),
        "metres_per_pixel": round(float(geometry.metres_per_pixel(latitude)), 6),
        "square_km": round(len(built.satellites) * (STEP_PX * float(geometry.metres_per_pixel(latitude))) ** 2 / 1e6, 3),
        "camera_height_m": round(float(np.median(heights)), 2) if heights else None,
        "layout": built.layout.plain(), "terms": imagery.terms,
        "images_missing": len(built.missing), "first_missing": built.missing[:_LISTED],
    }  # fmt: skip


def lines(city, report, what="panoramas"):
    """The report for the terminal; what: its street images are called."""
    parts = ", ".join(f"{report[part]} {_SHOWN.get(part, part)}" for part in _PARTS if report[part])
    yield f"{city}: {report['panoramas']} {what} ({parts}), {report['satellite_images']} satellite images"
    layout, share = report["layout"], report["test"] / report["panoramas"]
    if layout["split"] != "table" and abs(share - layout["test_share"]) > _AMISS:
        remedy = "another --seed or a smaller --block may come nearer" if layout["split"] == "blocks" else "another --seed may do"
        yield f"{city}: {share:.0%} test where --test_share asks for {layout['test_share']:.0%}; {remedy}"
    for part, does in (("train", "trains: give a --test_share below 1"), ("test", "tests: evaluation will find nothing")):
        if not report[part]:
            yield f"{city}: none of the {what} {does}"
    if report["images_missing"]:
        yield f"{city}: {report['images_missing']} images could not be had, the first: {report['first_missing'][0]}"
    height = report["camera_height_m"]
    if height and abs(height - _USUAL_HEIGHT_M) > 0.2:
        yield f"{city}: cameras stand {height:g} m high; train with --camera_height {height:g}"


def draw_map(built):
    """A `Figure`: north up, axes in metres from the south-west corner."""
    cells = np.array(sorted(built.satellites))
    corners = built.grid.corner(cells)
    start, stop = corners.min(0), corners.max(0) + SATELLITE_PX
    scale = min(1.0, _LARGEST_PX / (stop - start).max())
    canvas = np.full((*np.ceil((stop - start) * scale).astype(int), 3), 235, np.uint8)
    side = max(1, round(SATELLITE_PX * scale))
    for cell, corner in zip(map(tuple, cells.tolist()), corners, strict=True):
        image = read_satellite(built.folder / "satellite" / built.satellites[cell][0], (SATELLITE_PX,) * 2)
        row, col = np.floor((corner - start) * scale).astype(int)
        there = canvas[row : row + side, col : col + side]
        there[:] = cv2.resize(image, there.shape[1::-1], interpolation=cv2.INTER_AREA)
    metres = float(geometry.metres_per_pixel(geometry.latitude_longitude(*((start + stop) / 2))[0]))
    height, width = (stop - start) * metres
    larger = max(height, width)
    figure = Figure(figsize=(2 + 8 * width / larger, 1 + 8 * height / larger), layout="constrained")
    axes = figure.subplots()
    axes.imshow(canvas, extent=(0, width, 0, height), interpolation="antialiased")
    for part, colour in _PARTS.items():
        rows, cols = ((built.positions - start) * metres)[built.parts == part].T
        if len(rows):
            style = {"s": 26, "color": colour, "edgecolors": "black", "linewidths": 0.6}
            axes.scatter(cols, height - rows, label=f"{_SHOWN.get(part, part)}: {len(rows)}", **style)
    axes.set(
        xlabel="metres to the east", ylabel="metres to the north", title=f"{built.folder.name}: {built.what} and their parts"
    )
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return figure
