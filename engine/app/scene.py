"""Scenes: what the page's map and street view (scene.js) show, as numbers and images in `data:` URLs.

A scene is {'map', 'street', 'place', 'layers', ...}. Positions are (x, y) = (col, row) in pixels of the
satellite image as given; headings are degrees clockwise from north.
"""

import base64

import cv2
import numpy as np
import torch

from common.geometry import mercator_px, wrap_degrees
from engine.figures.pictures import PREDICTION_COLOUR, TRUTH_COLOUR
from engine.figures.tracks import SIGMAS_95
from engine.inference.decode import spread

PREDICTION, TRUTH, OTHER = PREDICTION_COLOUR, TRUTH_COLOUR, "#e69f00"  # the last of the same palette
HEAT, GROUND, WHERE, ELLIPSE = "Heat map", "Ground in the street image", "Prediction", "Ellipse, 95 %"
KEPT = "kept"  # a scene's map that is the one before
_GROUND_M, _GROUND_PX = 16.0, 512  # to each side of the camera; of the picture
_HEIGHT_M = 2.5  # of a camera above the street, where no network says it


def data_url(image, quality=85):
    """An image (H, W, 3) RGB as a JPEG, or (H, W, 4) as a PNG, in a `data:` URL."""
    if image.shape[2] == 4:
        data, kind = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA))[1], "png"
    else:
        options = [cv2.IMWRITE_JPEG_QUALITY, quality]
        data, kind = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1], "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def map_of(image, size=None, metres=None):
    """The map of a scene: a satellite image (h, w, 3), its size (height, width) as given, its resolution."""
    height, width = size or image.shape[:2]
    return {"image": data_url(image), "width": width, "height": height, "metres": metres}


def street_of(image, camera, heading):
    """A scene's street view: image (H, W, 3), `Camera` (a batch of one), true bearing of its centre."""
    seen = {"image": data_url(image), "kind": camera.kind, "heading": float(heading)}
    if camera.kind == "photo":
        names = ("fx", "fy", "cx", "cy", "pitch", "roll", "hfov")
        return seen | {name: float(getattr(camera, name)) for name in names}
    return seen | dict(zip(("span", "top", "bottom"), map(float, camera.extent), strict=True))


def heat_image(probability, gain=0.5):
    """A heat map (H, W) as an RGBA image (H, W, 4): higher probability is lighter and more opaque."""
    share = np.clip(probability / max(float(probability.max()), 1e-30), 0, 1) ** gain
    level = np.rint(255 * share).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(level, cv2.COLORMAP_MAGMA), cv2.COLOR_BGR2RGB)
    opaque = np.clip(2.2 * share, 0, 1)
    return np.dstack([colours, np.rint(255 * opaque).astype(np.uint8)])


def ground_image(street, camera, heading, height_m=None):
    """A street image (H, W, 3) projected onto flat ground, seen from above: (P, P, 4), north up.

    It reaches `_GROUND_M` to each side of the camera, which stands `height_m` above the ground.
    """
    offsets = ((torch.arange(_GROUND_PX) + 0.5) / _GROUND_PX * 2 - 1) * _GROUND_M
    south, east = torch.meshgrid(offsets, offsets, indexing="ij")
    distance = torch.hypot(south, east)
    bearing = wrap_degrees(torch.rad2deg(torch.atan2(east, -south)) - heading)
    depression = torch.rad2deg(torch.atan2(torch.tensor(height_m or _HEIGHT_M), distance))
    x, y, seen = (part[0].numpy() for part in camera.project(bearing[None], depression[None]))
    height, width = street.shape[:2]
    col, row = (x * width - 0.5).astype(np.float32), (y * height - 0.5).astype(np.float32)
    border = cv2.BORDER_WRAP if camera.wraps else cv2.BORDER_REPLICATE
    ground = cv2.remap(street, col, np.clip(row, 0, height - 1), cv2.INTER_LINEAR, borderMode=border)
    opaque = seen * np.clip(4 * (1 - distance.numpy() / _GROUND_M), 0, 1)
    return np.dstack([ground, np.rint(255 * opaque).astype(np.uint8)])


def layer(name, **parts):
    """A layer: 'image' over a 'box' (x, y, width, height), or 'marks' and 'shapes' of a 'colour'."""
    return {"name": name, **parts}


def mark(position, kind="cross", **about):
    """A mark at (row, col): a 'cross', a 'ring' or a 'dot', with a 'label', a 'colour', an 'id'."""
    return {"x": float(position[1]), "y": float(position[0]), "kind": kind, **about}


def ellipse(position, along, across, bearing, **about):
    """An ellipse at (row, col) with half axes in pixels, the longer one along a bearing."""
    shape = {"x": float(position[1]), "y": float(position[0]), "bearing": float(bearing)}
    return shape | {"along": float(along), "across": float(across)} | about


def circle(city_map, near):
    """The shape of a prior, (latitude, longitude, radius in metres), on a `CityMap`."""
    radius = near[2] / city_map.metres
    return ellipse(city_map.place(mercator_px(*near[:2])), radius, radius, 0, dashed=True)


def city_scene(city_map, layers, kept=False, **about):
    """The scene of a `CityMap`; clicks are events. kept: the browser has its image already."""
    there = KEPT if kept else map_of(city_map.image, metres=city_map.metres)
    return {"map": there, "layers": layers, "picks": True, **about}


def pair_scene(views, one, camera, heading, *, size=None, height_m=None, more=(), **about):
    """The scene of a pair.

    views: street and satellite image, (H, W, 3) uint8 of any resolution; one: the pair's `Estimate`.
    camera: the street image's; `heading` is the true bearing of its centre.
    size: (height, width) of the satellite image as given; positions are in its pixels.
    more: further layers.
    """
    street, satellite = views
    size, (height, width) = size or satellite.shape[:2], one.probability.shape
    scale = size[0] / height, size[1] / width
    row, col = (np.array(one.position) * scale).tolist()
    metres = one.metres_per_pixel and one.metres_per_pixel / scale[1]
    along, across, bearing = spread(torch.from_numpy(one.probability))
    box = 0, 0, size[1], size[0]
    layers = []
    if metres:
        ground, half = ground_image(street, camera, heading, height_m), _GROUND_M / metres
        place = col - half, row - half, 2 * half, 2 * half
        layers.append(layer(GROUND, image=data_url(ground), box=place, shown=False))
    layers.append(layer(HEAT, image=data_url(heat_image(one.probability)), box=box, opacity=0.7))
    size_px = SIGMAS_95 * along * scale[1], SIGMAS_95 * across * scale[1]
    layers.append(layer(ELLIPSE, colour=PREDICTION, shapes=[ellipse((row, col), *size_px, bearing)]))
    layers.append(layer(WHERE, colour=PREDICTION, marks=[mark((row, col), radius=12)]))
    if one.truth is not None:
        truth = mark(np.array(one.truth) * scale, "ring", radius=9)
        layers.append(layer("Truth", colour=TRUTH, marks=[truth]))
    layers += more
    scene = {"map": map_of(satellite, size, metres), "street": street_of(street, camera, heading)}
    return scene | {"place": [col, row], "layers": layers, **about}
