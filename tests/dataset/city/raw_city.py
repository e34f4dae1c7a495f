"""Takes a city of mini-VIGOR apart into panoramas, a table and imagery, for dataset.city.

Of the city's first district: panoramas with other names, headings and sizes, their table, and the world from
above as a GeoTIFF in UTM (utm.tif), as MBTiles (imagery.mbtiles) and as tiles (tiles/{z}/{x}/{y}.png).
"""


import cv2
import numpy as np
import pandas as pd
import rasterio
from rasterio.transform import Affine, array_bounds
from rasterio.warp import Resampling, reproject, transform_bounds

from common import geometry
from common.files import write_bytes
from dataset.city.imagery import MERCATOR, map_grid
from dataset.decoding import encode, shown_size
from dataset.images import read_panorama
from dataset.index import load_index
from dataset.manifest import read_manifest
from dataset.mini_vigor.render import aerial
from dataset.mini_vigor.writer import MANIFEST, WHAT, Drawing, districts_of, lay_out
from dataset.vigor import roll_panorama

ZOOM, TILE_PX = 20, 256
FINER = 0.8  # pixel of the GeoTIFF, in pixels of the map
SCALES = (1.0, 1.5, 0.75)  # of the panoramas' sizes, in turn


def take_apart(root, city, output):
    """Write the raw materials of a city's first district into a folder. root: a mini-VIGOR."""
    drawn = read_manifest(root / MANIFEST, WHAT)
    world, _ = lay_out(districts_of(root, city, Drawing.pick(drawn))[0])
    corner, view = np.array(world.origin, int), aerial(world)
    (output / "panoramas").mkdir(parents=True, exist_ok=True)
    lines = []
    for split in ("train", "val", "test"):
        index = load_index(root, "samearea", split, cities=(city,))
        centres = np.stack(geometry.mercator_px(*index.satellite_gps[index.satellite[:, 0]].T), 1) - corner
        for row in np.flatnonzero(((centres > 0) & (centres < view.shape[:2])).all(1)).tolist():
            line = write_panorama(index, row, output, len(lines))
            lines.append(line | {"split": "test" if split == "test" else "train"})
    pd.DataFrame(lines).to_csv(output / "table.csv", index=False)
    write_geotiff(output / "utm.tif", view, corner)
    profile = {"driver": "MBTiles", "crs": MERCATOR, "transform": map_grid(corner), "tile_format": "PNG"}
    write_raster(output / "imagery.mbtiles", view.transpose(2, 0, 1), profile)
    write_tiles(output / "tiles", view, corner)


def write_panorama(index, row, output, number):
    """Write one panorama with another heading and size. Returns its line of the table, a dict."""
    source = index.root / index.panorama_image(row).path
    width, height = shown_size(source)
    heading = np.random.default_rng([0, number]).uniform(-180, 180)
    view, heading = roll_panorama(read_panorama(source, height, width), heading)
    size = round(height * SCALES[number % len(SCALES)])
    file = f"panoramas/street {number:05d}.jpg"
    resized = cv2.resize(view, (2 * size, size), interpolation=cv2.INTER_CUBIC)
    write_bytes(output / file, encode(resized, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 97))
    _, latitude, longitude, *_ = index.panorama[row].decode().split(",")
    return {"file": file, "latitude": latitude, "longitude": longitude, "heading": f"{heading:.6f}"}


def write_geotiff(path, view, corner):
    """Write the aerial image in its UTM zone, a little finer than the map, transparent beyond its edges."""
    height, width = view.shape[:2]
    latitude, longitude = geometry.latitude_longitude(*(corner + (height / 2, width / 2)))
    zone = f"EPSG:{(32600 if latitude >= 0 else 32700) + int((longitude + 180) // 6) + 1}"
    bounds = array_bounds(height, width, map_grid(corner))
    left, bottom, right, top = transform_bounds(MERCATOR, zone, *bounds)
    step = float(geometry.metres_per_pixel(latitude)) * FINER
    profile = {"driver": "GTiff", "crs": zone, "transform": Affine(step, 0, left, 0, -step, top)}
    warped = np.zeros((4, int((top - bottom) / step), int((right - left) / step)), np.uint8)
    opaque = np.concatenate([view.transpose(2, 0, 1), np.full((1, height, width), 255, np.uint8)])
    grids = {"src_transform": map_grid(corner), "src_crs": MERCATOR, "dst_crs": zone}
    reproject(opaque, warped, **grids, dst_transform=profile["transform"], resampling=Resampling.cubic)
    write_raster(path, warped, profile | {"compress": "deflate", "photometric": "rgb", "alpha": "yes"})


def write_raster(path, bands, profile):
    """Write bands (C, H, W) of uint8 by rasterio, in place of an older file."""
    path.unlink(missing_ok=True)
    count, height, width = bands.shape
    with rasterio.open(path, "w", count=count, height=height, width=width, dtype="uint8", **profile) as file:
        file.write(bands)


def write_tiles(folder, view, corner):
    """Write the XYZ tiles of 256 px that the aerial image covers completely."""
    first, last = -(-corner // TILE_PX), (corner + view.shape[:2]) // TILE_PX
    for row, col in np.ndindex(*(last - first)):
        top, left = np.array([row, col]) * TILE_PX + first * TILE_PX - corner
        path = folder / str(ZOOM) / str(first[1] + col) / f"{first[0] + row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, encode(view[top : top + TILE_PX, left : left + TILE_PX], ".png"))
