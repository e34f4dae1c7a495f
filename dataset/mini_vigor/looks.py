"""How images are taken and developed, drawn anew for each: sensors, exposures, tones, compression; a camera's height and tilt."""

from dataclasses import dataclass

import cv2
import numpy as np

from common import geometry


@dataclass(frozen=True)
class Look:
    """What stands between a scene and its file."""

    gains: tuple  # of R, G, B
    gamma: float
    contrast: float  # about the middle grey
    black: float  # added, of 255
    grey: float  # share of colour that is lost
    haze: float  # share of light grey
    detail: float  # pixels of the image to one of the sensor, 1 or more
    blur: float  # pixels, sigma
    sharpen: float
    noise: float
    grain: float  # pixels, size of the noise's spots, 1 or more
    quality: int  # of a JPEG in between; 100: none


@dataclass(frozen=True)
class Camera:
    """A panorama's: metres above the street, degrees by which its axis leans towards a bearing, the day, and blemishes."""

    height_m: float = 2.5
    tilt_deg: float = 0.0
    towards_deg: float = 0.0
    nadir_deg: float = 0.0  # radius of the covered patch
    nadir_kind: int = 0  # 0: blurred, 1: a disc in one colour, 2: mirrored
    seams: tuple = ()  # columns, as shares of the width, where exposure jumps
    glare: float = 0.0
    cloud: float = 0.0  # share of the sky that is grey
    shade: float | None = None  # light left in a shadow on its day; None: as in the satellite's image
    road: float = 1.0  # brightness of the carriageway, once it has aged or was laid anew
    wet: float = 0.0  # how much the ground mirrors the sky
    leaves: tuple = (1.0, 1.0, 1.0)  # of another season: gain of R, G, B


def draw_satellite_look(rng):
    """Of a provider's imagery."""
    return _draw_look(
        rng, exposure=-0.05, gamma=(0.05, 0.3), contrast=(0.05, 0.25), black=10, grey=0.6, haze=0.1, detail=0.5, blur=1.0,
        sharpen=(0, 0.6), noise=5, grain=2.5, quality=45,
    )  # fmt: skip


def draw_panorama_look(rng):
    """Of a street camera."""
    return _draw_look(
        rng, exposure=0.0, gamma=(0, 0.25), contrast=(0, 0.2), black=8, grey=0.55, haze=0.06, detail=0.3, blur=0.6,
        sharpen=(0.2, 0.5), noise=6, grain=2, quality=50,
    )  # fmt: skip


def _draw_look(rng, *, exposure, gamma, contrast, black, grey, haze, detail, blur, sharpen, noise, grain, quality):
    """A `Look`: pairs are mean and spread, other numbers a spread, or the far end of what is drawn evenly."""
    return Look(
        gains=_gains(rng, exposure),
        gamma=float(np.exp(rng.normal(*gamma))),
        contrast=float(np.exp(rng.normal(*contrast))),
        black=float(rng.normal(0, black)),
        grey=float(rng.uniform(0, grey)),
        haze=float(max(0, rng.normal(0, haze))),
        detail=float(np.exp(abs(rng.normal(0, detail)))),
        blur=float(abs(rng.normal(0, blur))),
        sharpen=float(max(0, rng.normal(*sharpen))),
        noise=float(rng.uniform(0, noise)),
        grain=float(rng.uniform(1, grain)),
        quality=int(rng.integers(quality, 101)),
    )


def _gains(rng, exposure):
    """Exposure, and a cast that runs from blue to yellow more than from green to purple."""
    warm, green = rng.normal(0, 0.07), rng.normal(0, 0.02)
    return tuple(np.exp(np.array([warm, green, -warm]) + rng.normal(exposure, 0.2)).tolist())


def draw_camera(rng, heights=None):
    """Of a panorama: most stand on a car's roof, others are held; or heights from one to another, metres, by their logarithm."""
    if heights is not None:
        height = np.exp(rng.uniform(*np.log(heights)))
    else:
        height = np.clip(rng.normal(2.5, 0.25), 1.6, 3.0) if rng.random() < 0.7 else rng.uniform(1.6, 3.0)
    return Camera(
        height_m=float(height),
        tilt_deg=float(abs(rng.normal(0, 1.2)) % 3.0),
        towards_deg=float(rng.uniform(0, 360)),
        nadir_deg=float(rng.uniform(8, 32) if rng.random() < 0.5 else 0.0),
        nadir_kind=int(rng.integers(3)),
        seams=tuple(rng.uniform(0, 1, 4).tolist()) if rng.random() < 0.3 else (),
        glare=float(rng.uniform(0, 1) if rng.random() < 0.3 else 0.0),
        cloud=(cloud := float(rng.uniform(0, 1) if rng.random() < 0.5 else 0.0)),
        shade=float(rng.uniform(0.35, 0.75) + 0.25 * cloud),
        road=float(np.exp(rng.normal(0, 0.2))),
        wet=float(rng.uniform(0, 1) if rng.random() < 0.15 else 0.0),
        leaves=tuple((np.exp(rng.normal(0, 0.15)) * np.exp(rng.normal(0, 0.1, 3))).tolist()),
    )


def develop(image, look, rng):
    """An image (H, W, 3) uint8 RGB as a `Look` has it."""
    height, width = image.shape[:2]
    if look.blur > 0.3:
        image = cv2.GaussianBlur(image, (0, 0), look.blur)
    if look.detail > 1.1:
        small = max(16, round(width / look.detail)), max(16, round(height / look.detail))
        image = cv2.resize(cv2.resize(image, small, interpolation=cv2.INTER_AREA), (width, height), interpolation=cv2.INTER_CUBIC)
    if look.sharpen > 0.05:
        image = cv2.addWeighted(image, 1 + look.sharpen, cv2.GaussianBlur(image, (0, 0), 1.5), -look.sharpen, 0)
    image = cv2.transform(image, np.eye(3) * (1 - look.grey) + look.grey / 3)
    tone = np.clip(np.linspace(0, 1, 256)[:, None] * look.gains, 0, 1) ** look.gamma
    tone = (tone - 0.45) * look.contrast + 0.45 + look.black / 255
    tone += (0.82 - tone) * look.haze
    image = cv2.LUT(image, np.rint(255 * np.clip(tone, 0, 1)).astype(np.uint8)[None])
    small = round(width / look.grain), round(height / look.grain)
    noise = cv2.resize(rng.standard_normal(small[::-1], np.float32) * np.float32(look.noise), (width, height))
    image = cv2.add(image, cv2.merge([np.rint(noise).astype(np.int16)] * 3), dtype=cv2.CV_8U)
    if look.quality < 100:
        _, data = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, look.quality))
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return image


def tilt(panorama, camera):
    """An upright panorama (H, W, 3) as a camera sees it whose axis leans."""
    if camera.tilt_deg == 0:
        return panorama
    height, width = panorama.shape[:2]
    elevation = np.radians(geometry.row_to_elevation(np.arange(height) + 0.5, height))[:, None]
    bearing = np.radians(geometry.column_to_bearing(np.arange(width) + 0.5, width))[None]
    north, east, up = np.cos(elevation) * np.cos(bearing), np.cos(elevation) * np.sin(bearing), np.sin(elevation) + 0 * bearing
    # The camera's frame turned about a level axis: its top moves towards a bearing.
    lean, towards = np.radians(camera.tilt_deg), np.radians(camera.towards_deg)
    ahead, across = north * np.cos(towards) + east * np.sin(towards), east * np.cos(towards) - north * np.sin(towards)
    ahead, up = ahead * np.cos(lean) + up * np.sin(lean), up * np.cos(lean) - ahead * np.sin(lean)
    north, east = ahead * np.cos(towards) - across * np.sin(towards), ahead * np.sin(towards) + across * np.cos(towards)
    row = geometry.elevation_to_row(np.degrees(np.arcsin(np.clip(up, -1, 1))), height)
    col = geometry.bearing_to_column(np.degrees(np.arctan2(east, north)), width)
    wide = np.concatenate([panorama[:, -2:], panorama, panorama[:, :2]], 1)
    maps = (col + 2 - 0.5).astype(np.float32), (row - 0.5).astype(np.float32)
    return cv2.remap(wide, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def cover(panorama, camera, rng):
    """Glare about the sun's height, seams of exposure, and what covers the nadir, drawn into a panorama (H, W, 3) uint8."""
    height, width = panorama.shape[:2]
    x = panorama.astype(np.float32)
    if camera.glare:
        row, col = rng.uniform(0.2, 0.45) * height, rng.uniform(0, width)
        rows, cols = np.arange(height)[:, None] - row, (np.arange(width)[None] - col + width / 2) % width - width / 2
        x += (255 - x) * (camera.glare * np.exp(-np.hypot(rows, cols) / (0.12 * height)))[..., None]
    if camera.seams:
        edges = np.sort(np.array(camera.seams)) * width
        part = np.searchsorted(edges, np.arange(width)) % len(edges)
        x *= (np.exp(rng.normal(0, 0.1, len(edges))).astype(np.float32)[part])[None, :, None]
    if camera.nadir_deg:
        first = height - int(camera.nadir_deg / 180 * height)
        if camera.nadir_kind == 0:
            x[first:] = cv2.blur(x[first:], (width // 4 * 2 + 1, 5), borderType=cv2.BORDER_REPLICATE)
        elif camera.nadir_kind == 1:
            x[first:] = rng.uniform(20, 210)
        else:
            x[first:] = x[first - (height - first) : first][::-1]
    return np.clip(x, 0, 255).astype(np.uint8)
