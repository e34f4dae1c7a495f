"""Where a GeoTIFF lies: its centre and its resolution, by the georeference in the file."""

from typing import NamedTuple

import numpy as np

from common import geometry
from common.errors import UserError

_NORTH_DEG, _SQUARE = 1.0, 0.02  # by which an image may be turned, and its pixels differ in shape


class Georeference(NamedTuple):
    """Of an image that is north up."""

    centre: tuple  # (latitude, longitude)
    metres_per_pixel: float


def read_georeference(path):
    """The `Georeference` of a TIFF, or None where it has none. Raises UserError unless it is north up."""
    import rasterio  # GDAL takes half a second, for this kind of file alone
    from rasterio.errors import RasterioError
    from rasterio.warp import transform

    try:
        with rasterio.open(path) as file:
            if file.crs is None or file.transform.is_identity:
                return None
            middle = np.array([file.width / 2, file.height / 2])
            places = [file.transform @ tuple(middle + move) for move in ((0, 0), (10, 0), (0, 10))]
            longitudes, latitudes = transform(file.crs, "EPSG:4326", *zip(*places, strict=True))
    except RasterioError:
        return None  # an image like any other
    rows, cols = geometry.mercator_px(np.array(latitudes), np.array(longitudes))
    metres = float(geometry.metres_per_pixel(latitudes[0]))
    right, down = ((rows[k] - rows[0], cols[k] - cols[0]) for k in (1, 2))
    turned = geometry.wrap_degrees(geometry.bearing_to(0, 0, *right) - 90)
    wide, high = (float(np.hypot(*side)) * metres / 10 for side in (right, down))
    if abs(turned) > _NORTH_DEG or down[0] < 0:
        raise UserError(f"{path}: turned by {turned:.0f}° from north up; gdalwarp -t_srs EPSG:3857 turns it")
    if abs(wide / high - 1) > _SQUARE:
        says = f"pixels of {wide:.3f} x {high:.3f} m; gdalwarp -t_srs EPSG:3857 makes them square"
        raise UserError(f"{path}: {says}")
    return Georeference((latitudes[0], longitudes[0]), (wide * high) ** 0.5)
