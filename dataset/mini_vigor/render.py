"""The two cameras of mini-VIGOR: a satellite above the world and a panorama camera in its streets.

The panorama casts one ray per column over the height field. The steepest slope so far decides what is hidden.
It grows monotonically with distance, so a binary search for the slope of a pixel's row finds its surface.
"""

from dataclasses import replace
from functools import partial

import cv2
import numpy as np

from common import geometry
from dataset.mini_vigor import looks, overhead
from dataset.mini_vigor.city import MARGIN_PX, QUARTER_M, bands

_SUBROWS = 4  # samples of the ground per row: rows near the horizon cover metres of it
_HAZE = np.array([196.0, 204.0, 212.0], np.float32)
_GRAIN = np.random.default_rng(0).normal(0, 1, (256, 256)).astype(np.float32)


def aerial(city):
    """The world from above at the satellite's time, without noise: (H, W, 3) uint8 RGB."""
    scene, style = city.at("satellite"), city.style
    surface = _surface(scene)
    light = _sunlight(scene, *style.sun_deg, surface)
    if style.soft:
        light = cv2.GaussianBlur(light, (0, 0), 0.1 + style.soft / (2 * scene.metres_per_pixel))
    leaves, tones, cast = _ramp(*style.leaves), _ramp(*overhead.TONES), np.array(style.satellite_cast)
    shade = style.shade * np.array([1 - style.blue, 1, 1 + style.blue])
    gains = _ramp(128 * shade * cast, 128 * cast)[None]  # 128 times that of R, G, B
    image = scene.colour
    for rows in bands(len(image)):
        crowned = scene.canopy[rows] > 0
        image[rows][crowned] = leaves[scene.leaf[rows][crowned]]
        if scene.deck is not None:
            decked = scene.deck[rows] > np.maximum(scene.height[rows], scene.canopy[rows])
            image[rows][decked] = tones[scene.deck_tone[rows][decked]]
        lit = cv2.resize(light[rows.start // 2 : rows.stop // 2], image[rows].shape[1::-1])
        image[rows] = cv2.multiply(image[rows], cv2.LUT(cv2.merge([lit] * 3), gains), scale=1 / 128)
    return _leaning(scene, image, surface) if style.lean_deg[0] else image


def _surface(scene):
    """The height of the surface seen from above, in quarter metres: (H, W) uint8."""
    surface = np.maximum(scene.height, scene.canopy)
    return surface if scene.deck is None else np.maximum(surface, scene.deck)


def _leaning(scene, image, surface):
    """The view from above off the vertical: objects move in proportion to their height and show a side."""
    # A pixel sees the highest surface on its line of sight. The search for it goes up from the ground, which
    # stays where it is, by two pixels of shift at a time.
    lean, towards = np.radians(scene.style.lean_deg)
    step_m = 2 * scene.metres_per_pixel / np.tan(lean)  # of height
    steps = np.arange(256)  # above the ground
    down_right = np.rint(np.stack([-np.cos(towards), np.sin(towards)])[:, None] * 2 * steps).astype(np.int32)
    quarters = np.ceil(steps * step_m / QUARTER_M).clip(1).astype(np.int32)  # least height seen at a step
    seen = np.zeros_like(surface)
    for step in range(1, min(int(surface.max() * QUARTER_M / step_m), 255) + 1):
        tall = cv2.compare(surface, int(quarters[step]), cv2.CMP_GE)
        seen = cv2.max(seen, _moved(cv2.min(tall, step), *down_right[:, step]))
    down, right = down_right.astype(np.float32)
    next_step = np.append(quarters[1:], 2**15).astype(np.uint16)
    facade = np.rint(scene.facades["colour"]).astype(np.uint8)
    done = np.empty_like(image)
    rows, cols = (np.arange(side, dtype=np.float32) for side in surface.shape)
    for band in bands(len(rows)):
        row, col = rows[band, None] - cv2.LUT(seen[band], down), cols - cv2.LUT(seen[band], right)
        view = cv2.remap(image, col, row, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
        top = cv2.remap(surface, col, row, cv2.INTER_NEAREST)
        side = top >= cv2.LUT(seen[band], next_step)  # the surface continues above the point that is seen
        wall = scene.wall[row[side].astype(int), col[side].astype(int)]
        fronts = np.where((wall > 0)[:, None], facade[wall], view[side])
        view[side] = (fronts * np.float32(0.68)).astype(np.uint8)
        done[band] = view
    return done


def _moved(image, down, right):
    """An image (H, W) shifted by whole pixels and filled with zeros."""
    (height, width), border = image.shape, max(abs(down), abs(right))
    wide = cv2.copyMakeBorder(image, *[border] * 4, cv2.BORDER_CONSTANT, value=0)
    return wide[border - down : border - down + height, border - right : border - right + width]


def satellite(view, row, col, rng, look=None):
    """The satellite image (640, 640, 3) uint8 RGB centred at (row, col) of an `aerial` view.

    It has a `looks.Appearance` or, without one, only sensor noise.
    """
    half = geometry.SATELLITE_PX // 2
    view = view[row - half : row + half, col - half : col + half]
    return looks.develop(view, look, rng) if look else looks.add_noise(view, 1.5, rng)


def panorama(city, row, col, width, rng, camera=looks.DrawnCamera(), look=None):  # noqa: B008, a frozen one
    """The panorama (width / 2, width, 3) uint8 RGB that a `looks.DrawnCamera` takes above (row, col).

    It is equirectangular, with north in the centre column and east to its right; a width is a multiple of 4.
    (row, col) are floats in pixels of the city's rasters, at least MARGIN_PX from their border. It has a
    `looks.Appearance` or, without one, the city's colour cast and sensor noise.
    """
    scene = _on_the_day(city.at("panorama", row, col), camera)
    place = np.array([row, col]) - np.floor((row, col)) + MARGIN_PX
    sun_deg, elevation_deg = rng.uniform(0, 360), rng.uniform(25, 60)
    light = _sunlight(scene, sun_deg, elevation_deg, scene.height)
    bearings = np.radians(geometry.column_to_bearing(np.arange(width) + 0.5, width))
    image = _sky(width, rng)
    image += (image.mean(2, keepdims=True) - image) * np.float32(camera.cloud)
    horizon = width // 4
    image[horizon:] = _ground(scene, place, camera, bearings, light, image[horizon:])
    _obstacles(scene, place, camera.height_m, bearings, light, np.radians(sun_deg), image)
    if look:
        image = looks.cover(looks.tilt(np.clip(image, 0, 255).astype(np.uint8), camera), camera, rng)
        return looks.develop(image, look, rng)
    cast = np.array(city.style.panorama_cast) * rng.uniform(0.94, 1.06) * rng.uniform(0.98, 1.02, 3)
    image = np.clip(image * cast.astype(np.float32), 0, 255).astype(np.uint8)
    return looks.add_noise(image, 2.5, rng)


def _sunlight(scene, sun_deg, elevation_deg, receiver):
    """Direct sunlight on `receiver` heights: (H / 2, W / 2) uint8, 255 in the sun."""
    # A place is in shadow up to the greatest (height towards the sun - drop of its ray down to here).
    # Steps of 1, 2, 4, ... pixels find it for all distances.
    shadow = _surface(scene)[::2, ::2]
    drop = 2 * scene.metres_per_pixel * np.tan(np.radians(elevation_deg)) / QUARTER_M
    towards = np.array([-np.cos(np.radians(sun_deg)), np.sin(np.radians(sun_deg))])
    ahead = 1
    while ahead * drop < 255:
        caster = _moved(shadow, *np.rint(-towards * ahead).astype(int))
        shadow = cv2.max(shadow, cv2.subtract(caster, (round(ahead * drop), 0, 0, 0)))
        ahead *= 2
    return cv2.compare(shadow, np.ascontiguousarray(receiver[::2, ::2]), cv2.CMP_LE)


def _ramp(first, last):
    """A colour ramp between two colours: (256, 3) uint8."""
    return np.rint(np.linspace(first, last, 256)).astype(np.uint8)


def _tangents(rows, height):
    """Slope of the line of sight through each row (float) of a panorama."""
    return np.tan(np.radians(geometry.row_to_elevation(rows, height))).astype(np.float32)


def _sight(scene, place, bearings, distance_m):
    """Raster (row, col), float32, of the places at distances (n, 1) or (n, W) along the bearings (W,)."""
    away = (distance_m / scene.metres_per_pixel).astype(np.float32)
    north, east = np.cos(bearings).astype(np.float32), np.sin(bearings).astype(np.float32)
    return np.float32(place[0]) - away * north, np.float32(place[1]) + away * east


def _reach_m(scene):
    return (MARGIN_PX - 4) * scene.metres_per_pixel


def _sky(width, rng):
    """(width / 2, width, 3) float32: a gradient with a few soft clouds; haze from the horizon downwards."""
    height = width // 2
    elevation_deg = geometry.row_to_elevation(np.arange(height) + 0.5, height)
    rise = np.clip(elevation_deg / 90, 0, 1)[:, None, None] ** 0.6
    zenith = np.array([92, 138, 198]) + rng.uniform(-14, 14, 3)
    knots = rng.uniform(0, 1, (16, 16)).astype(np.float32)
    knots = np.concatenate([knots, knots[:, :1]], 1)
    clouds = cv2.resize(knots, (width, height), interpolation=cv2.INTER_CUBIC)
    clouds = np.clip(clouds[..., None] - 0.6, 0, 0.4) * rise * 70
    return (_HAZE + (zenith - _HAZE) * rise + clouds).astype(np.float32)


def _on_the_day(scene, camera):
    """The scene on the panorama's day: shadows, leaves, carriageways."""
    leaves = np.clip(np.multiply(scene.style.leaves, camera.leaves), 0, 255)
    shade = scene.style.shade if camera.shade is None else camera.shade
    if camera.road != 1:
        brightness = np.clip(np.arange(256) * camera.road, 0, 255).astype(np.uint8)
        cv2.copyTo(cv2.LUT(scene.colour, brightness), scene.drivable, scene.colour)
    return replace(scene, style=replace(scene.style, shade=shade, leaves=leaves))


def _ground(scene, place, camera, bearings, light, haze):
    """The lower half of a panorama of empty ground, which fades to `haze` far away."""
    half, width = haze.shape[:2]
    rows = half + (np.arange(half * _SUBROWS) + 0.5) / _SUBROWS
    distance_m = (camera.height_m / -_tangents(rows, 2 * half))[:, None]
    row, col = _sight(scene, place, bearings, np.minimum(distance_m, _reach_m(scene)))
    colour = cv2.remap(scene.colour, col - 0.5, row - 0.5, cv2.INTER_LINEAR)
    lit = cv2.remap(light, col / 2 - 0.5, row / 2 - 0.5, cv2.INTER_LINEAR)
    colour = cv2.multiply(colour, cv2.merge([_shaded(scene, lit)] * 3), scale=1 / 255)
    ground = cv2.resize(colour, (width, half), interpolation=cv2.INTER_AREA).astype(np.float32)
    distance_m = distance_m[_SUBROWS // 2 :: _SUBROWS]
    if camera.wet:  # a mirror at grazing angles, dark from above
        grazing = (1 - np.sin(np.arctan(camera.height_m / distance_m))) ** 3
        ground *= np.float32(1 - 0.3 * camera.wet)
        ground += (haze - ground) * (0.6 * camera.wet * grazing.astype(np.float32))[..., None]
    fog = np.clip(distance_m / _reach_m(scene), 0, 1)[..., None] ** 2
    return ground + (haze - ground) * fog


def _shaded(scene, lit):
    """Brightness (0 to 255) under an amount of sunlight (0 to 255)."""
    shade = np.float32(scene.style.shade)
    return (255 * shade + (1 - shade) * lit).astype(np.uint8)


def _obstacles(scene, place, height_m, bearings, light, sun, image):
    """Draw everything above the ground into `image`."""
    height, width = image.shape[:2]
    tangents = _tangents(np.arange(height) + 0.5, height)
    distance_m, hit = _first_hits(scene, place, height_m, bearings, tangents)
    rows, cols = np.nonzero(hit >= 0)
    distance = distance_m[hit[rows, cols]]
    z = height_m + distance * tangents[rows]
    row, col = _sight(scene, place, bearings[cols], distance)
    at = row.astype(int), col.astype(int)
    top = scene.height[at] * QUARTER_M
    crown = (top < z) & (scene.canopy[at] > 0)
    wall = (scene.wall[at] > 0) & ~crown

    # Objects in their own colour, such as cars and hedges: their sides are darker than their tops.
    lit = _shaded(scene, light[at[0] // 2, at[1] // 2]).astype(np.float32) / 255
    side = np.where(z < top - 0.2, 0.72, 1.0) * lit
    colour = scene.colour[at] * side[:, None].astype(np.float32)
    colour[crown] = _crowns(scene, at[0][crown], at[1][crown], z[crown], height_m)
    footprint = distance * (2 * np.pi / width)
    colour[wall] = _walls(scene, place, row[wall], col[wall], z[wall], footprint[wall], sun)
    fog = np.clip(distance / _reach_m(scene), 0, 1)[:, None] ** 2 * 0.6
    image[rows, cols] = colour + (_HAZE - colour) * fog
    if scene.deck is not None and scene.deck.any():
        reached = np.where(hit >= 0, distance_m[hit], _reach_m(scene))
        _overhead(scene, partial(_sight, scene, place, bearings), height_m, tangents, reached, image)


def _overhead(scene, sight, height_m, tangents, reached, image):
    """Draw overhead structures nearer than the distances `reached` (H, W), in metres."""
    upper = tangents > 0
    distance, tone = overhead.hits(scene, sight, height_m, tangents[upper])
    near = distance < reached[upper]
    colour = _ramp(*overhead.TONES)[tone[near].astype(int)]
    fog = np.clip(distance[near] / _reach_m(scene), 0, 1)[:, None] ** 2 * 0.6
    image[: len(near)][near] = colour + (_HAZE - colour) * fog


def _first_hits(scene, place, height_m, bearings, tangents):
    """Distances (n,) of the steps of a ray, and the step (H, W) where each pixel meets an obstacle, or -1."""
    fine = 2 * np.pi / len(bearings)  # a pixel's width in radians: steps are as long as a pixel is wide
    far = int(np.log(_reach_m(scene) / 8) / np.log1p(fine))
    distance_m = np.append(np.arange(0.6, 8, 8 * fine), 8 * (1 + fine) ** np.arange(far)).astype(np.float32)
    row, col = (side.astype(np.int32) for side in _sight(scene, place, bearings, distance_m[:, None]))
    solid = scene.height[row, col]
    crowned = np.maximum(solid, scene.canopy[row, col])  # crowns begin at the height of the camera
    hit = np.empty((len(bearings), len(tangents)), int)
    horizon = len(tangents) // 2
    for rows, heights in ((slice(0, horizon), crowned), (slice(horizon, None), solid)):
        slopes = (heights * np.float32(QUARTER_M) - height_m) / distance_m[:, None]
        slopes = np.ascontiguousarray(np.maximum.accumulate(slopes, 0).T)
        for column, slope in enumerate(slopes):
            hit[column, rows] = np.searchsorted(slope, tangents[rows])
    hit = np.ascontiguousarray(hit.T)
    hit[hit == len(distance_m)] = -1
    ground_m = np.where(tangents < 0, height_m / -tangents, np.inf)
    hit[distance_m[hit] >= ground_m[:, None]] = -1
    return distance_m, hit


def _grid_frame(scene, x, y, sense=1):
    """Transform a vector (east, south) into the frame (u, v) of the street grid; `sense` -1: back."""
    turn = sense * np.radians(scene.style.turn_deg)
    return np.stack([x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)])


def _crowns(scene, row, col, z, height_m):
    """Colours of pixels that show a tree crown at (row, col), z metres up: mottled, lighter at the top."""
    rise = (z - height_m) / (scene.canopy[row, col] * QUARTER_M - height_m + 0.1)
    mottle = _GRAIN[(z * 5).astype(int) % 256, (row + col) // 3 % 256]
    light = 0.72 + 0.35 * rise + 0.13 * mottle
    return _ramp(*scene.style.leaves)[scene.leaf[row, col]] * light[:, None]


def _walls(scene, place, row, col, z, footprint, sun):
    """Colours of pixels, `footprint` metres wide, that show a facade at (row, col), z metres up."""
    facade = scene.wall[row.astype(int), col.astype(int)]
    kind = {name: values[facade] for name, values in scene.facades.items()}
    u, v = _grid_frame(scene, col - place[1], row - place[0]) * scene.metres_per_pixel
    # A facade looks along u if the house ends half a metre back along u and a little deeper inside along v.
    back_u, back_v = -np.sign(u), -np.sign(v)
    east, south = _grid_frame(scene, 0.5 * back_u, -0.3 * back_v, -1) / scene.metres_per_pixel
    along_u = scene.wall[(row + south).astype(int), (col + east).astype(int)] == facade
    along = np.where(along_u, u, v)
    sun_u, sun_v = _grid_frame(scene, np.sin(sun), -np.cos(sun))
    facing = np.clip(np.where(along_u, back_v * sun_v, back_u * sun_u), 0, 1)

    storey, height = np.divmod(z, kind["storey_m"])
    height /= kind["storey_m"]
    across = along / kind["pitch_m"] % 1.0
    shop = (storey == 0) & (facade % 3 == 0)
    window = np.abs(across - 0.5) < np.where(shop, 0.44, kind["window"] / 2)
    window &= np.abs(height - 0.55) < 0.29
    window &= z < scene.height[row.astype(int), col.astype(int)] * QUARTER_M - 0.5
    mean = kind["window"] * 0.56
    sharp = np.clip(1.6 - 3 * footprint / kind["pitch_m"], 0, 1)
    glass = (mean + (window - mean) * sharp)[:, None]
    grain = _GRAIN[(z * 3).astype(int) % 256, (along * 3).astype(int) % 256]
    colour = kind["colour"] * (1 + 0.05 * grain)[:, None]
    colour[shop & (height > 0.86)] = kind["shop"][shop & (height > 0.86)]
    colour[z < 0.5] *= 0.7
    lights = 0.8 + 0.4 * ((storey * 7 + along // kind["pitch_m"] * 13) % 5 == 0)
    return (colour + (kind["glass"] * lights[:, None] - colour) * glass) * (0.66 + 0.4 * facing)[:, None]
