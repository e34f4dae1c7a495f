"""Drives through mini-VIGOR: sensors fit the truth, images look ahead, an unfinished set goes on."""

import csv

import cv2
import numpy as np
import pytest
from children import refusal

from common import geometry
from common.errors import UserError
from common.geometry import wrap_degrees
from dataset.mini_vigor import writer
from dataset.mini_vigor.city import generator
from dataset.mini_vigor.drives import Drives, make_drives, sense

METRES = 0.1


def test_odometry_leads_from_the_frame_before_in_its_axes():
    """East, then 3 m to its right, then back: forward, left and clockwise as defined."""
    map_px = np.array([(2000.0, 3000.0), (2000.0, 3040.0), (2030.0, 3040.0), (2030.0, 3040.0)])
    headings = np.array([90.0, 90.0, 180.0, -170.0])
    rows = [
        sense(map_px, headings, METRES, lambda part, frame, seed=seed: generator(seed, part, frame))
        for seed in range(200)
    ]
    assert all(row[0][3:6] == ["", "", ""] for row in rows)
    numbers = np.array([[row[3:6] for row in one[1:]] for one in rows], float)
    assert numbers.mean(0) == pytest.approx(np.array([(4, 0, 0), (0, -3, 90), (0, 0, 10)]), abs=0.3)
    assert numbers.std(0)[:, :2] == pytest.approx(np.array([(0.08, 0.08), (0.06, 0.06), (0, 0)]), abs=0.02)
    assert numbers.std(0)[:, 2] == pytest.approx(np.ones(3), abs=0.2)
    compass = np.array([[row[6] for row in one] for one in rows], float)
    assert abs(wrap_degrees(compass - headings)).max() <= 3 and compass.std(0).min() > 1


def test_gps_has_outliers():
    map_px = np.full((4000, 2), 1e8)
    rows = sense(map_px, np.zeros(4000), METRES, lambda part, frame: generator(1, part, frame))
    gps = np.array([row[:2] for row in rows], float)
    away = np.hypot(*(np.stack(geometry.mercator_px(*gps.T), 1) - map_px).T) * METRES
    assert np.median(away) == pytest.approx(4.2, abs=0.4)
    assert 0.02 < (away > 20).mean() < 0.06


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """(root, drawing, drives) of a small city with a drive."""
    root = tmp_path_factory.mktemp("drives") / "world"
    sizes = {"panoramas": 12, "panorama_width": 128, "seed": 4, "styles": "varied"}
    writer.make(root, cities=("Chicago",), workers=1, progress=False, **sizes)
    drawing, drives = writer.Drawing(**sizes), Drives(drives=1, frames=8)
    make_drives(root, drawing, drives, cities=("Chicago",), workers=1, progress=False)
    return root, drawing, drives


@pytest.mark.slow
def test_a_drive_keeps_its_spacing_and_looks_along_its_way(drawn):
    root, *_ = drawn
    rows = list(csv.DictReader((root / "Chicago/drives.csv").read_text().splitlines()))
    assert [row["file"] for row in rows] == [f"drives/000/{frame:05d}.jpg" for frame in range(8)]
    gps = np.array([(row["true_latitude"], row["true_longitude"]) for row in rows], float)
    places = np.stack(geometry.mercator_px(*gps.T), 1)
    south, east = np.diff(places, axis=0).T * geometry.metres_per_pixel(gps[0, 0])
    assert np.hypot(south, east) == pytest.approx(4, abs=0.3)
    headings = np.array([row["true_heading"] for row in rows], float)
    assert abs(wrap_degrees(np.degrees(np.arctan2(east, -south)) - headings[:-1])).max() < 25
    assert cv2.imread(str(root / "Chicago" / rows[0]["file"])).shape == (64, 128, 3)


@pytest.mark.slow
def test_an_unfinished_set_goes_on_and_other_drives_are_refused(drawn):
    root, drawing, drives = drawn
    table, image = root / "Chicago/drives.csv", root / "Chicago/drives/000/00003.jpg"
    before = table.read_bytes(), image.read_bytes()
    table.unlink()
    image.unlink()
    manifest = root / "drives.json"
    manifest.write_text(manifest.read_text().replace('"complete": true', '"complete": false'))
    make_drives(root, drawing, drives, cities=("Chicago",), workers=1, progress=False)
    assert (table.read_bytes(), image.read_bytes()) == before
    with pytest.raises(UserError, match="frames 8, not 9"):
        make_drives(root, drawing, Drives(drives=1, frames=9), cities=("Chicago",), workers=1)


@pytest.mark.slow
def test_a_way_that_is_too_long_is_refused(tmp_path, capsys):
    small = f"--root {tmp_path}/w --cities Seattle --panoramas 2 --panorama_width 64 --workers 1 --drives 1"
    assert "--frames" in refusal("dataset.mini_vigor", f"{small} --frames 500", capsys)


@pytest.mark.slow
def test_a_drive_has_the_camera_and_the_look_of_its_style(tmp_path):
    """The ground at the feet of a low camera is coarser than at those of a high one."""
    images = []
    for height in (1.5, 4.2):
        root = tmp_path / f"{height}"
        (root / "Chicago").mkdir(parents=True)
        sizes = {"panoramas": 12, "panorama_width": 128, "seed": 4, "styles": "varied"}
        drawing = writer.Drawing(**sizes, camera_heights=(height, height))
        make_drives(root, drawing, Drives(drives=1, frames=2), cities=("Chicago",), workers=1, progress=False)
        images.append(cv2.imread(str(root / "Chicago/drives/000/00000.jpg")).astype(float))
    assert abs(images[0] - images[1]).mean() > 2
