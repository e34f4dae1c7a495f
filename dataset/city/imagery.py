"""Imagery of any kind -> satellite images of VIGOR's: 640 x 640 px of the Web Mercator map at zoom 20, north up.

Both sources have `name`, for the manifest; `read(corner)`, (640, 640, 3) uint8 RGB, which raises `Missing`; `extent`, (south,
west, north, east) in pixels of the map, or None where it is not known; and `terms`, a line for the user or None. A corner is the
north-west one, (row, col) on the map.
"""

import threading
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds

from common import geometry
from common.errors import UserError
from common.geometry import SATELLITE_PX
from dataset.city.provider import Missing, Provider, is_address

MERCATOR, _DEGREES = "EPSG:3857", "EPSG:4326"
_EXACT_PX = 0.01  # that GDAL may be off where it interpolates the projection; none at all it does not take
_COVERED = 0.99  # share of an image that imagery has to show; nodata values also hit single dark pixels


def open_imagery(source, cache, **options):
    """A `Raster`, or a `Provider` where the source is an address with {z}, {x} and {y}. Raises UserError.

    cache: folder for what is fetched · options: of `Provider`.
    """
    return Provider(source, cache, **options) if is_address(source) else Raster(source)


class Raster:
    """A file that GDAL opens: GeoTIFF, COG, VRT, MBTiles and others, in any projection; also /vsicurl/https://... and the like.

    Raises UserError.
    """

    terms = None

    def __init__(self, path):
        self.path, self._local = str(path), threading.local()
        if not (self.path.startswith("/vsi") or Path(path).exists()):  # GDAL's own names, of archives and of the web
            what = "--imagery takes a file that GDAL opens, or an address such as https://host/{z}/{x}/{y}.png"
            raise UserError(f"{path}: no such file; {what}")
        file = self._file()
        if file.crs is None:
            raise UserError(f"{path}: tells no projection; gdal_edit.py -a_srs EPSG:<code> adds it")
        if file.dtypes[0] != "uint8":
            raise UserError(f"{path}: {file.dtypes[0]} values; gdal_translate -ot Byte -scale makes bytes of them")
        if ColorInterp.palette in file.colorinterp:
            raise UserError(f"{path}: colours by palette; gdal_translate -expand rgb makes three bands of them")
        kinds = list(file.colorinterp)
        named = [kinds.index(kind) + 1 for kind in (ColorInterp.red, ColorInterp.green, ColorInterp.blue) if kind in kinds]
        colours = [band for band, kind in enumerate(kinds, 1) if kind != ColorInterp.alpha]
        self._bands = named if len(named) == 3 else colours[:3] if len(colours) >= 3 else colours[:1] * 3
        self._alpha = ColorInterp.alpha in kinds or any(value is not None for value in file.nodatavals)
        west, south, east, north = transform_bounds(file.crs, _DEGREES, *file.bounds, densify_pts=21)
        (bottom, left), (top, right) = geometry.mercator_px(south, west), geometry.mercator_px(north, east)
        size = f", {Path(path).stat().st_size} bytes" if Path(path).is_file() else ""
        self.name = Path(path).name + size  # for the manifest: another file of that name is another source
        self.extent = float(bottom), float(left), float(top), float(right)

    def _file(self):
        """The file as this thread has it open: GDAL's handles are not for two."""
        if not hasattr(self._local, "file"):
            try:
                self._local.file = rasterio.open(self.path)
            except RasterioError as error:
                raise UserError(f"{self.path}: GDAL cannot open it ({_first_line(error)})") from None
        return self._local.file

    def read(self, corner):
        """(640, 640, 3) uint8 RGB of the map from a corner on. `Missing` where it is not covered, UserError for a broken file."""
        options = {"resampling": Resampling.cubic, "tolerance": _EXACT_PX, "add_alpha": not self._alpha}
        try:
            with WarpedVRT(
                self._file(), crs=MERCATOR, transform=map_grid(corner), width=SATELLITE_PX, height=SATELLITE_PX, **options
            ) as there:
                image, covered = there.read(self._bands), there.dataset_mask()
        except RasterioError as error:
            raise UserError(f"{self.path}: cannot be read ({_first_line(error)}); copy or download it again") from None
        if (share := (covered > 0).mean()) < _COVERED:
            raise Missing(f"{self.path}: covers {share:.0%} of it")
        return np.ascontiguousarray(image.transpose(1, 2, 0))


def map_grid(corner):
    """The transform of the map's pixels, from a corner on, to metres of MERCATOR."""
    (x, y), (right, _) = geometry.web_mercator_m(*corner), geometry.web_mercator_m(corner[0], corner[1] + 1)
    return Affine(right - x, 0, x, 0, x - right, y)


def _first_line(error):
    """What GDAL said, which rasterio may keep as the cause."""
    return str(error.__cause__ or error).strip().splitlines()[0]
