"""Cameras and image processing: sensor, exposure, tones, compression; height and tilt of a camera."""

from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np

from common import geometry
from dataset.mini_vigor.city import TABLES, uniform


@dataclass(frozen=True)
class Appearance:
    """The processing from a scene to its file."""

    gains: tuple  # of R, G, B
    gamma: float
    contrast: float  # about the middle grey
    black: float  # added, of 255
    grey: float  # share of colour that is lost
    haze: float  # share of light grey
    detail: float  # pixels of the image for each pixel of the sensor, 1 or more
    blur: float  # pixels, sigma
    sharpen: float
    noise: float
    grain: float  # size of the spots of noise in pixels, 1 or more
    quality: int  # of an intermediate JPEG; 100: none


@dataclass(frozen=True)
class DrawnCamera:
    """A panorama's camera, the day on which it takes the panorama, and blemishes."""

    height_m: float = 2.5  # above the street
    tilt_deg: float = 0.0  # by which the camera's axis leans
    towards_deg: float = 0.0  # bearing of that lean
    nadir_deg: float = 0.0  # radius of the covered patch
    nadir_kind: int = 0  # 0: blurred, 1: a disc in one colour, 2: mirrored
    shown_deg: tuple = (90.0, 90.0)  # above and below the horizon; the rest is black
    seams: tuple = ()  # columns, as shares of the width, where exposure jumps
    glare: float = 0.0
    cloud: float = 0.0  # share of the sky that is grey
    shade: float | None = None  # light left in a shadow; None: as in the satellite image
    road: float = 1.0  # brightness of the carriageway, which ages and is resurfaced
    wet: float = 0.0  # how much the ground mirrors the sky
    leaves: tuple = (1.0, 1.0, 1.0)  # gain of R, G, B in this season


def _draw_appearance(spread, rng):
    """Draw an `Appearance` from the ranges in styles.yaml."""
    warm, green = rng.normal(0, (0.07, 0.02))  # casts run from blue to yellow more than from green to purple
    exposure = rng.normal(spread["exposure"], 0.2)
    return Appearance(
        gains=np.exp(np.array([warm, green, -warm]) + exposure),
        gamma=np.exp(rng.normal(*spread["gamma"])),
        contrast=np.exp(rng.normal(*spread["contrast"])),
        black=rng.normal(0, spread["black"]),
        grey=rng.uniform(0, spread["grey"]),
        haze=max(0, rng.normal(0, spread["haze"])),
        detail=np.exp(abs(rng.normal(0, spread["detail"]))),
        blur=abs(rng.normal(0, spread["blur"])),
        sharpen=max(0, rng.normal(*spread["sharpen"])),
        noise=rng.uniform(0, spread["noise"]),
        grain=rng.uniform(1, spread["grain"]),
        quality=int(rng.integers(spread["quality"], 101)),
    )


draw_satellite_look = partial(_draw_appearance, TABLES["appearances"]["satellite"])
draw_panorama_look = partial(_draw_appearance, TABLES["appearances"]["panorama"])


def draw_camera(rng, heights=None, hard=False):
    """Draw a panorama's `DrawnCamera`. Most are on the roof of a car, others in a hand.

    Given (lowest, highest) in metres, the logarithm of the height is uniform between them. Hard ones lean by
    up to 6 degrees, and a third of them is cropped.
    """
    if heights is not None:
        height = np.exp(rng.uniform(*np.log(heights)))
    else:
        height = np.clip(rng.normal(2.5, 0.25), 1.6, 3.0) if rng.random() < 0.7 else rng.uniform(1.6, 3.0)
    camera = DrawnCamera(
        height_m=float(height),
        tilt_deg=abs(rng.normal(0, 1.2)) % 3.0,
        towards_deg=rng.uniform(0, 360),
        nadir_deg=uniform(rng, 8, 32, share=0.5),
        nadir_kind=int(rng.integers(3)),
        seams=tuple(rng.uniform(0, 1, 4).tolist()) if rng.random() < 0.3 else (),
        glare=uniform(rng, 0, 1, share=0.3),
        cloud=(cloud := uniform(rng, 0, 1, share=0.5)),
        shade=rng.uniform(0.35, 0.75) + 0.25 * cloud,
        road=float(np.exp(rng.normal(0, 0.2))),
        wet=uniform(rng, 0, 1, share=0.15),
        leaves=tuple((np.exp(rng.normal(0, 0.15)) * np.exp(rng.normal(0, 0.1, 3))).tolist()),
    )
    if not hard:
        return camera
    cropped = rng.random() < 1 / 3
    shown = (rng.uniform(25, 60), rng.uniform(22, 62)) if cropped else camera.shown_deg
    return replace(camera, tilt_deg=rng.uniform(0, 6), shown_deg=shown)


def develop(image, look, rng):
    """Apply an `Appearance` to an image (H, W, 3) uint8 RGB."""
    size = image.shape[1::-1]
    if look.blur > 0.3:
        image = cv2.GaussianBlur(image, (0, 0), look.blur)
    if look.detail > 1.1:
        small = [max(16, round(side / look.detail)) for side in size]
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        image = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
    if look.sharpen > 0.05:
        soft = cv2.GaussianBlur(image, (0, 0), 1.5)
        image = cv2.addWeighted(image, 1 + look.sharpen, soft, -look.sharpen, 0)
    image = cv2.transform(image, np.eye(3) * (1 - look.grey) + look.grey / 3)
    tone = np.clip(np.linspace(0, 1, 256)[:, None] * look.gains, 0, 1) ** look.gamma
    tone = (tone - 0.45) * look.contrast + 0.45 + look.black / 255
    tone += (0.82 - tone) * look.haze
    image = cv2.LUT(image, np.rint(255 * np.clip(tone, 0, 1)).astype(np.uint8)[None])
    image = add_noise(image, look.noise, rng, look.grain)
    if look.quality < 100:
        _, data = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, look.quality))
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return image


def add_noise(image, sigma, rng, grain=1.0):
    """Add grey noise to an image (H, W, 3) uint8; `grain` is the size of its spots in pixels."""
    height, width = image.shape[:2]
    spots = round(height / grain), round(width / grain)
    noise = cv2.resize(rng.standard_normal(spots, np.float32) * np.float32(sigma), (width, height))
    return cv2.add(image, cv2.merge([np.rint(noise).astype(np.int16)] * 3), dtype=cv2.CV_8U)


def tilt(panorama, camera):
    """Turn an upright panorama (H, W, 3) into that of a tilted camera."""
    if camera.tilt_deg == 0:
        return panorama
    height, width = panorama.shape[:2]
    elevation = np.radians(geometry.row_to_elevation(np.arange(height) + 0.5, height))[:, None]
    bearing = np.radians(geometry.column_to_bearing(np.arange(width) + 0.5, width))[None]
    north, east = np.cos(elevation) * np.cos(bearing), np.cos(elevation) * np.sin(bearing)
    rays = np.stack(np.broadcast_arrays(north, east, np.sin(elevation)), -1)
    # The camera's frame turns about a level axis, and its top moves towards a bearing.
    towards = np.radians(camera.towards_deg)
    axis = np.array([-np.sin(towards), np.cos(towards), 0.0])
    north, east, up = np.moveaxis(rays @ cv2.Rodrigues(axis * np.radians(camera.tilt_deg))[0].T, -1, 0)
    row = geometry.elevation_to_row(np.degrees(np.arcsin(np.clip(up, -1, 1))), height)
    col = geometry.bearing_to_column(np.degrees(np.arctan2(east, north)), width)
    wide = np.concatenate([panorama[:, -2:], panorama, panorama[:, :2]], 1)
    maps = (col + 2 - 0.5).astype(np.float32), (row - 0.5).astype(np.float32)
    return cv2.remap(wide, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def cover(panorama, camera, rng):
    """Draw glare, seams of exposure and the cover of the nadir into a panorama (H, W, 3) uint8."""
    height, width = panorama.shape[:2]
    x = panorama.astype(np.float32)
    if camera.glare:
        down = np.arange(height)[:, None] - rng.uniform(0.2, 0.45) * height
        right = (np.arange(width) - rng.uniform(0, width) + width / 2) % width - width / 2
        x += (255 - x) * (camera.glare * np.exp(-np.hypot(down, right) / (0.12 * height)))[..., None]
    if camera.seams:
        edges = np.sort(camera.seams) * width
        part = np.searchsorted(edges, np.arange(width)) % len(edges)
        x *= np.exp(rng.normal(0, 0.1, len(edges))).astype(np.float32)[part, None]
    if camera.nadir_deg:
        first = height - int(camera.nadir_deg / 180 * height)
        if camera.nadir_kind == 0:
            x[first:] = cv2.blur(x[first:], (width // 4 * 2 + 1, 5), borderType=cv2.BORDER_REPLICATE)
        elif camera.nadir_kind == 1:
            x[first:] = rng.uniform(20, 210)
        else:
            x[first:] = x[2 * first - height : first][::-1]
    above, below = (round((90 - shown) / 180 * height) for shown in camera.shown_deg)
    x[:above], x[height - below :] = 0, 0
    return np.clip(x, 0, 255).astype(np.uint8)
