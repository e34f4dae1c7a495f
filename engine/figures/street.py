"""Street images with compass bearings: panoramas, whole, cut or cropped, and photographs."""

import numpy as np
import torch
from matplotlib import patheffects

OUTLINE = [patheffects.withStroke(linewidth=4, foreground="black")]
_COMPASS = {0: "N", 45: "NE", 90: "E", 135: "SE", 180: "S", 225: "SW", 270: "W", 315: "NW"}


def kind_of(one):
    """'photograph' or 'panorama': the kind of an `Estimate`'s street image, in words."""
    return "photograph" if one.camera.kind == "photo" else "panorama"


def centre_bearing(one):
    """The bearing of a street image's centre: the true one, else the predicted one, else None."""
    return one.heading if one.true_heading is None else one.true_heading


def draw_street(axes, image, one):
    """The street image (H, W, 3) of an `Estimate` with compass bearings, if its own is known or predicted.

    A panorama has them along its lower edge, a photograph along the horizon. The axes count widths of the
    image from its upper left corner.
    """
    camera, height = one.camera, image.shape[0] / image.shape[1]
    photograph, degrees = camera.kind == "photo", float(camera.hfov)
    axes.imshow(image, extent=(0, 1, height, 0), aspect="equal")
    axes.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(height, 0))
    words = "panorama"
    if photograph:
        origin = "estimated" if one.tilt_estimated else "assumed"
        words = f"photograph, {degrees:.0f}° wide, dashed: the horizon {origin}"
        line = _on_horizon(camera, np.linspace(-89, 89, 357))
        axes.plot(line[0], line[1] * height, "--", color="white", linewidth=1.2, path_effects=OUTLINE)
    if (centre := centre_bearing(one)) is None:
        axes.set_title(words)
        return
    words += ("\naxis" if photograph else ", centre") + f" at bearing {centre % 360:.0f}°"
    if one.true_heading is None:
        words += " as predicted"
    elif one.heading is not None:
        words += f", predicted {one.heading % 360:.0f}°"
    axes.set_title(words)
    step = (15 if degrees < 100 else 30) if photograph else (45 if degrees > 100 else 30)
    bearings = np.arange(np.ceil((centre - 180) / step), np.floor((centre + 180) / step) + 1) * step
    x, y = _on_horizon(camera, bearings - centre)
    names = np.array([_COMPASS.get(int(bearing) % 360, f"{int(bearing) % 360}°") for bearing in bearings])
    if not photograph:
        seen = np.isfinite(x)
        axes.set_xticks(x[seen], names[seen])
        return
    for name, right, down in zip(names, x, y * height, strict=True):
        if 0.02 < right < 0.98 and 0 < down < height:
            axes.plot(right, down, "|", color="white", markersize=10, path_effects=OUTLINE)
            how = {"ha": "center", "color": "white", "path_effects": OUTLINE}
            axes.annotate(name, (right, down), (0, 7), textcoords="offset points", **how)


def _on_horizon(camera, bearings):
    """(x, y), shares of the image, of the horizon at bearings (n,) from its centre; NaN where not seen."""
    places = camera.project(torch.tensor(bearings, dtype=torch.float32)[None], torch.zeros(1, 1))
    x, y, seen = (part[0].numpy() for part in places)
    return np.where(seen, x, np.nan), np.where(seen, y, np.nan)
