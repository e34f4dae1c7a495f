"""Imagery of any kind -> satellite images as in VIGOR: 640 x 640 px of the Web Mercator map at zoom 20.

Both sources (`Raster` for files, `Provider` for tiles) have `name`, for the manifest; `read(corner)`, which
returns (640, 640, 3) uint8 RGB, north up, or raises `Missing`; `extent`, (south, west, north, east) in map
pixels or None; and `terms`, a line for the user or None. Corners are north-west, (row, col) on the map.
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
from dataset.city.provider import Missing, Provider
from dataset.decoding import check_file

MERCATOR, _DEGREES = "EPSG:3857", "EPSG:4326"
_TOLERANCE_PX = 0.01  # of GDAL's interpolated projection; GDAL does not accept 0
_COVERED = 0.99  # least share of an image that must have data; nodata values also match single dark pixels
_COLOURS = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


def open_imagery(source, cache, **options):
    """The `Raster` of a file, or the `Provider` of a web address with {z}, {x} and {y}. Raises UserError.

    cache: folder for downloaded tiles · options: of `Provider`.
    """
    is_address = str(source).startswith(("http://", "https://"))
    return Provider(source, cache, **options) if is_address else Raster(source)


class Raster:
    """A file that GDAL opens, in any projection, also /vsicurl/https://... Raises UserError for others."""

    terms = None

    def __init__(self, path):
        self.path, self._local = str(path), threading.local()
        if not (self.path.startswith("/vsi") or Path(path).is_dir()):  # /vsi: GDAL's archives and web files
            expected = "a file that GDAL opens, or an address such as https://host/{z}/{x}/{y}.png"
            check_file(path, f"--imagery takes {expected}")
        file = self._file()
        kinds = list(file.colorinterp)
        if file.crs is None:
            raise UserError(f"{path}: has no projection; gdal_edit.py -a_srs EPSG:<code> adds it")
        if file.dtypes[0] != "uint8":
            raise UserError(f"{path}: {file.dtypes[0]} values; convert it: gdal_translate -ot Byte -scale")
        if ColorInterp.palette in kinds:
            raise UserError(f"{path}: palette colours; convert it: gdal_translate -expand rgb")
        named = [kinds.index(kind) + 1 for kind in _COLOURS if kind in kinds]
        opaque = [band for band, kind in enumerate(kinds, 1) if kind != ColorInterp.alpha]
        self._bands = named if len(named) == 3 else opaque[:3] if len(opaque) >= 3 else opaque[:1] * 3
        self._has_alpha = ColorInterp.alpha in kinds or any(value is not None for value in file.nodatavals)
        west, south, east, north = transform_bounds(file.crs, _DEGREES, *file.bounds, densify_pts=21)
        (bottom, left), (top, right) = geometry.mercator_px(south, west), geometry.mercator_px(north, east)
        self.extent = float(bottom), float(left), float(top), float(right)
        size = f", {Path(path).stat().st_size} bytes" if Path(path).is_file() else ""
        self.name = Path(path).name + size  # the size distinguishes files of the same name

    def _file(self):
        """The open file of this thread: threads must not share GDAL's handles."""
        if not hasattr(self._local, "file"):
            try:
                self._local.file = rasterio.open(self.path)
            except RasterioError as error:
                raise UserError(f"{self.path}: GDAL cannot open it ({_first_line(error)})") from None
        return self._local.file

    def read(self, corner):
        """(640, 640, 3) uint8 RGB at a corner. Raises `Missing` without data there, UserError if damaged."""
        grid = {"transform": map_grid(corner), "width": SATELLITE_PX, "height": SATELLITE_PX, "crs": MERCATOR}
        options = {"resampling": Resampling.cubic, "tolerance": _TOLERANCE_PX}
        try:
            with WarpedVRT(self._file(), **grid, **options, add_alpha=not self._has_alpha) as warped:
                image, covered = warped.read(self._bands), warped.dataset_mask()
        except RasterioError as error:
            reason = _first_line(error)
            raise UserError(f"{self.path}: cannot be read ({reason}); copy or download it again") from None
        if (share := (covered > 0).mean()) < _COVERED:
            raise Missing(f"{self.path}: covers {share:.0%} of it")
        return np.ascontiguousarray(image.transpose(1, 2, 0))


def map_grid(corner):
    """The affine transform from map pixels, counted from a corner, to metres of MERCATOR."""
    (x, y), (right, _) = geometry.web_mercator_m(*corner), geometry.web_mercator_m(corner[0], corner[1] + 1)
    return Affine(right - x, 0, x, 0, x - right, y)


def _first_line(error):
    """The first line of GDAL's message, which rasterio may keep as the cause."""
    return str(error.__cause__ or error).strip().splitlines()[0]
