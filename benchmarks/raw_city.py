"""Take a city of mini-VIGOR apart into what one has of a city of one's own, to build it again by python -m dataset.city.

    python -m benchmarks.raw_city --dataset_root data/mini_vigor --city Seattle --output /tmp/seattle
    python -m dataset.city --root /tmp/own --city Own --panoramas /tmp/seattle/table.csv --imagery /tmp/seattle/utm.tif

Of its first district, writes panoramas under other names, of other headings and sizes, with their table; and its world from above
as a GeoTIFF in UTM (utm.tif), as MBTiles (imagery.mbtiles) and as tiles for a web server (tiles/{z}/{x}/{y}.png).
"""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import rasterio
from rasterio.transform import Affine, array_bounds
from rasterio.warp import Resampling, reproject, transform_bounds

from common import flags, geometry
from common.errors import UserError
from common.files import write_bytes
from dataset.city.imagery import MERCATOR, map_grid
from dataset.images import encode, read_panorama, stored_size
from dataset.index import find_root, load_index
from dataset.manifest import read_manifest
from dataset.mini_vigor.render import aerial
from dataset.mini_vigor.writer import MANIFEST, WHAT, Drawing, districts_of, lay_out
from dataset.vigor import roll_and_crop

ZOOM, _TILE_PX = 20, 256
_FINER = 0.8  # pixels of the GeoTIFF to one of the map
_WIDTHS = (1.0, 1.5, 0.75)  # of panoramas, in turn, to what they are


def take_apart(root, city, output):
    """Write the raw materials of a city's first district into a folder. Returns how many panoramas there are.

    root: a mini-VIGOR. Raises UserError for another folder.
    """
    root, output = Path(root), Path(output)
    drawn = read_manifest(root / MANIFEST, WHAT)
    if drawn is None or city not in drawn["cities"]:
        raise UserError(f"{root}: no mini-VIGOR with a city {city}; python -m dataset.mini_vigor draws one")
    world, _ = lay_out(districts_of(root, city, Drawing.pick(drawn))[0])
    corner = np.array(world.origin, int)
    rows = []
    for split in ("train", "val", "test"):
        index = load_index(root, "samearea", split, cities=(city,))
        centres = np.stack(geometry.mercator_px(*index.satellite_gps[index.satellite[:, 0]].T), 1) - corner
        inside = np.flatnonzero(((centres > 0) & (centres < world.height.shape)).all(1))
        rows += [_write_panorama(index, row, output, split, len(rows) + i) for i, row in enumerate(inside.tolist())]
    write_bytes(output / "table.csv", pd.DataFrame(rows).to_csv(index=False).encode())
    _write_geotiff(output / "utm.tif", view := aerial(world), corner)
    _write_mbtiles(output / "imagery.mbtiles", view, corner)
    _write_tiles(output / "tiles", view, corner)
    return len(rows)


def _write_panorama(index, row, output, split, number):
    """Write one panorama with another heading and size; returns its line of the table."""
    source = index.root / index.panorama_path(row)
    width, height = stored_size(source)
    heading = np.random.default_rng([0, number]).uniform(-180, 180)
    view, heading = roll_and_crop(read_panorama(source, height, width), heading, 360.0)
    size = round(height * _WIDTHS[number % len(_WIDTHS)])
    _, latitude, longitude, *_ = index.panorama[row].decode().split(",")
    file = f"panoramas/street {number:05d}.jpg"
    (output / "panoramas").mkdir(parents=True, exist_ok=True)
    resized = cv2.resize(view, (2 * size, size), interpolation=cv2.INTER_CUBIC)
    write_bytes(output / file, encode(resized, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 97))
    part = "test" if split == "test" else "train"
    return {"file": file, "latitude": latitude, "longitude": longitude, "heading": f"{heading:.6f}", "split": part}


def _write_geotiff(path, view, corner):
    """In its UTM zone, a little finer than the map; black and see-through beyond the map's edges."""
    height, width = view.shape[:2]
    latitude, longitude = geometry.latitude_longitude(*(corner + (height / 2, width / 2)))
    zone = f"EPSG:{(32600 if latitude >= 0 else 32700) + int((longitude + 180) // 6) + 1}"
    left, bottom, right, top = transform_bounds(MERCATOR, zone, *array_bounds(height, width, map_grid(corner)))
    step = float(geometry.metres_per_pixel(latitude)) * _FINER
    grid = Affine(step, 0, left, 0, -step, top)
    warped = np.zeros((4, int((top - bottom) / step), int((right - left) / step)), np.uint8)
    frames = {"src_transform": map_grid(corner), "src_crs": MERCATOR, "dst_transform": grid, "dst_crs": zone}
    solid = np.full((1, height, width), 255, np.uint8)
    reproject(np.concatenate([view.transpose(2, 0, 1), solid]), warped, **frames, resampling=Resampling.cubic)
    profile = {"driver": "GTiff", "count": 4, "dtype": "uint8", "crs": zone, "transform": grid, "compress": "deflate"}
    profile |= {"height": warped.shape[1], "width": warped.shape[2], "tiled": True, "photometric": "rgb", "alpha": "yes"}
    with rasterio.open(path, "w", **profile) as file:
        file.write(warped)


def _write_mbtiles(path, view, corner):
    path.unlink(missing_ok=True)
    profile = {"driver": "MBTiles", "count": 3, "dtype": "uint8", "crs": MERCATOR, "transform": map_grid(corner)}
    with rasterio.open(path, "w", height=view.shape[0], width=view.shape[1], tile_format="PNG", **profile) as file:
        file.write(view.transpose(2, 0, 1))


def _write_tiles(folder, view, corner):
    """XYZ tiles of 256 px; only those that lie inside the world as a whole."""
    first, last = -(-corner // _TILE_PX), (corner + view.shape[:2]) // _TILE_PX
    for row in range(first[0], last[0]):
        for col in range(first[1], last[1]):
            top, left = np.array([row, col]) * _TILE_PX - corner
            path = folder / str(ZOOM) / str(col) / f"{row}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, encode(view[top : top + _TILE_PX, left : left + _TILE_PX], ".png"))


def build_parser():
    """The command line."""
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("which city")
    flags.add_dataset_root(group)
    group.add_argument("--city", required=True, metavar="NAME", help="of the folder")
    group.add_argument("--output", required=True, metavar="DIR", help="where its raw materials go")
    return parser


def main(args):
    """Run the command."""
    count = take_apart(find_root(args.dataset_root), args.city, args.output)
    print(f"{args.output}: {count} panoramas with their table, and imagery as utm.tif, imagery.mbtiles and tiles/")


if __name__ == "__main__":
    flags.run_script(main, build_parser())
