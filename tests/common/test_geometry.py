"""Conventions, worked out by hand: a flipped sign, half a pixel or a swapped row and column fails a test."""

import numpy as np
import pytest
from children import bearing_and_distance

from common import geometry

METRES_PER_DEGREE = 2 * np.pi * 6_378_137.0 / 360


def test_ground_resolution():
    for latitude, expected in ((40.65, 0.11327), (47.6, 0.10067), (0.0, 0.149291)):
        assert geometry.metres_per_pixel(latitude) == pytest.approx(expected, abs=2e-5)
        assert geometry.metres_per_pixel(latitude, 512) == pytest.approx(expected * 640 / 512, abs=3e-5)


def test_offsets_count_rows_down_and_columns_left_and_angles_wrap():
    assert geometry.offsets_to_position(-71.0, -141.0) == (249.0, 461.0)
    assert geometry.offsets_to_position(-71.0, -141.0, size_px=512) == pytest.approx((199.2, 368.8))
    wrapped = {180: -180, 190: -170, -190: 170, 540: -180, 359: -1}
    assert {angle: geometry.wrap_degrees(angle) for angle in wrapped} == wrapped


def test_ten_metres_north_east_of_the_centre_and_back():
    latitude, longitude = 40.7, -74.0
    north, east = 10 * np.cos(np.pi / 4), 10 * np.sin(np.pi / 4)
    east_deg = east / (METRES_PER_DEGREE * np.cos(np.radians(latitude)))
    there = latitude + north / METRES_PER_DEGREE, longitude + east_deg
    row, col = geometry.gps_to_position(*there, latitude, longitude)
    pixels = 7.0711 / (0.149291 * np.cos(np.radians(40.7)))  # 62.48
    assert (row, col) == (pytest.approx(320 - pixels, abs=0.01), pytest.approx(320 + pixels, abs=0.01))
    row, col = geometry.gps_to_position(*there, latitude, longitude, size_px=128)
    assert (row, col) == (pytest.approx(64 - pixels / 5, abs=0.01), pytest.approx(64 + pixels / 5, abs=0.01))
    assert geometry.position_to_gps(row, col, latitude, longitude, size_px=128) == pytest.approx(there)


def test_a_real_label_agrees_with_its_names():
    """Offsets of the corrected Chicago list against the coordinates in the same line's names."""
    for satellite, offsets in (
        ((41.8543505796211, -87.68282621216503), (-71.0, -141.0)),
        ((41.8543505796211, -87.68238562277327), (-74.0, 188.0)),
        ((41.85467865207374, -87.68282621216503), (256.0, -138.0)),
    ):
        by_name = geometry.gps_to_position(41.854423, -87.682638, *satellite)
        by_list = geometry.offsets_to_position(*offsets)
        assert by_list == pytest.approx(by_name, abs=5.6)  # the lists' worst disagreement


def test_bearings_are_clockwise_from_north():
    for to, bearing in (((0, 5), 0), ((5, 10), 90), ((10, 5), -180), ((5, 0), -90), ((0, 10), 45)):
        assert bearing_and_distance(5, 5, *to)[0] == pytest.approx(bearing)
        assert geometry.move(5, 5, bearing, np.hypot(to[0] - 5, to[1] - 5)) == pytest.approx(to, abs=1e-9)
        assert float(geometry.bearing_to(5.0, 5.0, *to)) == pytest.approx(bearing)


@pytest.mark.parametrize(
    ("bearing", "heading", "column"),
    [(0, 0, 320), (90, 0, 480), (-90, 0, 160), (180, 0, 0), (90, 90, 320), (0, 90, 160)],
)
def test_panorama_columns(bearing, heading, column):
    assert geometry.bearing_to_column(bearing, 640, heading) == pytest.approx(column)
    back = geometry.column_to_bearing(column, 640, heading)
    assert geometry.wrap_degrees(back - bearing) == pytest.approx(0)


def test_panorama_rows_views_and_rolls():
    shift = geometry.heading_to_shift(90, 640)
    assert np.roll(np.arange(640), -shift)[320] == geometry.bearing_to_column(90, 640)
    assert geometry.view_columns(360, 640) == (0, 640) and geometry.view_columns(90, 640) == (240, 400)
    assert geometry.elevation_to_row(0, 320) == 160
    assert geometry.elevation_to_row(90, 320) == 0
    assert geometry.elevation_to_row(-45, 320) == 240
    assert geometry.row_to_elevation(240, 320) == -45
