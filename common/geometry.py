"""Pixels, metres, degrees and north: every convention of this project, stated once.

Position    (row, col), floats, in pixels of the satellite tensor at hand. Pixel i covers [i, i + 1); its
            centre is i + 0.5. Row grows to the south, col to the east: satellite images are north up.
Bearing     degrees clockwise from north.
Panorama    an unrolled panorama turns clockwise to the right. Its centre column looks along `heading`, a true
            bearing: 0 in VIGOR's own images, which have north in the centre.
Resolution  metres per pixel of Web Mercator at zoom 20, from the satellite image's own latitude and the size
            of the tensor.

Functions take floats, NumPy arrays or (where they only do arithmetic) torch tensors, and broadcast.
"""

import numpy as np

SATELLITE_PX = 640  # side of VIGOR's satellite images
REFERENCE_PX = 512  # errors in pixels are those of a satellite image of this side, whatever the network's
THESIS_METRES_PER_PIXEL = 72.96 / REFERENCE_PX  # the published system's fixed rule, for every city

_WORLD_PX = 256 * 2**20  # side of the whole Web Mercator map at zoom 20
_EQUATOR_M = 2 * np.pi * 6_378_137.0  # WGS 84


def metres_per_pixel(latitude, size_px=SATELLITE_PX):
    """Ground resolution of a VIGOR satellite image that was resized to `size_px` pixels on a side.

    At 640 px this is 0.14929 * cos(latitude) m/px, about 0.113 in New York and 0.101 in Seattle.
    """
    return _EQUATOR_M / _WORLD_PX * np.cos(np.radians(latitude)) * (SATELLITE_PX / size_px)


def mercator_px(latitude, longitude):
    """(row, col) on the whole Web Mercator map at zoom 20, in pixels from its north-west corner."""
    sine = np.sin(np.radians(latitude))
    row = (0.5 - np.arctanh(sine) / (2 * np.pi)) * _WORLD_PX
    col = (np.asarray(longitude) / 360.0 + 0.5) * _WORLD_PX
    return row, col


def latitude_longitude(row, col):
    """Inverse of `mercator_px`, in degrees."""
    latitude = np.degrees(np.arcsin(np.tanh(2 * np.pi * (0.5 - np.asarray(row) / _WORLD_PX))))
    return latitude, (np.asarray(col) / _WORLD_PX - 0.5) * 360.0


def web_mercator_m(row, col):
    """(x, y) in metres of EPSG:3857, as in geographic files, of a place on the map in pixels at zoom 20."""
    return (col / _WORLD_PX - 0.5) * _EQUATOR_M, (0.5 - row / _WORLD_PX) * _EQUATOR_M


def outside_box(row, col, box):
    """How many pixels places lie outside a box (south, west, north, east) of the map or an image, or 0."""
    south, west, north, east = box
    down, right = np.maximum(north - row, row - south), np.maximum(west - col, col - east)
    return np.hypot(np.maximum(down, 0), np.maximum(right, 0))


def distance_in_words(metres):
    """A distance for a line to a user, such as '85 m' or '1.2 km'."""
    return f"{metres / 1000:.1f} km" if metres >= 1000 else f"{metres:.0f} m"


def offset_in_words(east_m, north_m):
    """An offset on the ground as its length and bearing, such as '1.2 m at 45°'."""
    bearing = bearing_to(0, 0, -north_m, east_m) % 360
    return f"{np.hypot(east_m, north_m):.1f} m at {bearing:.0f}°"


def gps_to_position(latitude, longitude, satellite_latitude, satellite_longitude, size_px=SATELLITE_PX):
    """(row, col) at `size_px` of (latitude, longitude) in the satellite image centred at the other pair."""
    row, col = mercator_px(latitude, longitude)
    centre_row, centre_col = mercator_px(satellite_latitude, satellite_longitude)
    scale = size_px / SATELLITE_PX
    return (row - centre_row) * scale + size_px / 2, (col - centre_col) * scale + size_px / 2


def position_to_gps(row, col, satellite_latitude, satellite_longitude, size_px=SATELLITE_PX):
    """Inverse of `gps_to_position`: the latitude and longitude of a position."""
    centre_row, centre_col = mercator_px(satellite_latitude, satellite_longitude)
    down, right = ((x - size_px / 2) * (SATELLITE_PX / size_px) for x in (row, col))
    return latitude_longitude(centre_row + down, centre_col + right)


def image_corner(gps):
    """(row, col) (..., 2) on the map of north-west corners of satellite images centred at `gps` (..., 2)."""
    return np.stack(mercator_px(*np.moveaxis(np.asarray(gps), -1, 0)), -1) - SATELLITE_PX / 2


def position_to_map(corner, position, size_px=SATELLITE_PX):
    """(row, col) on the map of a position at `size_px` in an image whose north-west corner is at `corner`."""
    return corner + position * (SATELLITE_PX / size_px)


def offsets_to_position(row_offset, col_offset, size_px=SATELLITE_PX):
    """The position of a label: VIGOR counts rows downwards but columns leftwards from the centre."""
    scale = size_px / SATELLITE_PX
    return (SATELLITE_PX / 2 + row_offset) * scale, (SATELLITE_PX / 2 - col_offset) * scale


def position_to_offsets(row, col, size_px=SATELLITE_PX):
    """Inverse of `offsets_to_position`: (row offset, column offset) of a label."""
    scale = SATELLITE_PX / size_px
    return row * scale - SATELLITE_PX / 2, SATELLITE_PX / 2 - col * scale


def inside(position, size_px=SATELLITE_PX):
    """Whether positions (..., 2) lie in a satellite image."""
    return ((position >= 0) & (position < size_px)).all(-1)


def wrap_degrees(angle):
    """An angle or a difference of bearings, brought into [-180, 180)."""
    return (angle + 180.0) % 360.0 - 180.0


def move(row, col, bearing_deg, distance):
    """The (row, col) at a `distance` in pixels from a position along a bearing in degrees."""
    angle = np.radians(bearing_deg)
    return row - distance * np.cos(angle), col + distance * np.sin(angle)


def bearing_to(row, col, to_row, to_col):
    """The bearing, in [-180, 180), from a position to another, in the convention of `move`."""
    return wrap_degrees(np.degrees(np.arctan2(to_col - col, row - to_row)))


def bearing_to_column(bearing_deg, width_px, heading_deg=0.0):
    """Column (float, pixel centres at + 0.5) at which a full panorama `width_px` wide shows a bearing."""
    return ((bearing_deg - heading_deg) / 360.0 + 0.5) % 1.0 * width_px


def column_to_bearing(col, width_px, heading_deg=0.0):
    """Inverse of `bearing_to_column`, in [-180, 180)."""
    return wrap_degrees((col / width_px - 0.5) * 360.0 + heading_deg)


def elevation_to_row(elevation_deg, height_px):
    """Row (float) at which a panorama of the whole sphere, zenith on top, shows an elevation."""
    return (0.5 - elevation_deg / 180.0) * height_px


def row_to_elevation(row, height_px):
    """Inverse of `elevation_to_row`: degrees above the horizon."""
    return (0.5 - row / height_px) * 180.0


def heading_to_shift(heading_deg, width_px):
    """Whole columns by which a north-centred panorama is rolled so that its centre looks along a heading.

    The roll is `np.roll(panorama, -shift)`; `shift * 360 / width_px` is the exact heading that results.
    """
    return np.rint(np.asarray(heading_deg) / 360.0 * width_px).astype(int)


def view_columns(FoV_deg, width_px, span_deg=360.0):
    """(start, stop) of the columns that a view FoV_deg wide keeps about the centre of span_deg degrees."""
    half = max(1, round(width_px * FoV_deg / (2 * span_deg)))
    return width_px // 2 - half, width_px // 2 + half
