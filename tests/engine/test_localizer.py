"""The Localizer: what the evaluation says of a pair, for any two images, from Python."""

import re
import textwrap

import numpy as np
import pandas as pd
import pytest
import torch
from children import PROJECT
from PIL import Image

from common.errors import UserError
from common.geometry import gps_to_position, wrap_degrees
from dataset.index import load_index
from engine.localizer import Localizer

OLD = PROJECT / "tests/data/old_run"  # any heading, 180 degrees of view, with masks


@pytest.fixture(scope="module")
def localizer():
    return Localizer(OLD, device="cpu")


@pytest.fixture(scope="module")
def pair(vigor_root):
    """Pair 3 of the test list: paths of its images and mask, its centre, and its row of the evaluation."""
    index = load_index(vigor_root, "samearea", "test")
    satellite = index.satellite[3, 0]
    files = {
        "panorama": vigor_root / index.panorama_path(3),
        "satellite": vigor_root / index.satellite_path(satellite),
        "mask": vigor_root / index.mask_path(satellite),
    }
    row = pd.read_csv(OLD / "results/per_image_results_samearea.csv").iloc[3]
    return files, tuple(index.satellite_gps[satellite].tolist()), row


def test_a_place_is_that_of_the_evaluation(localizer, pair):
    """The evaluation saw the panorama rolled to a heading; row and column are pixels of the file, 640 on a side."""
    files, centre, row = pair
    turned = np.asarray(Image.open(files["panorama"]))
    turned = np.roll(turned, -round(row["true_heading_deg"] / 360 * turned.shape[1]), 1)
    found = localizer.locate(turned, files["satellite"], mask=files["mask"], centre=centre, heading=row["true_heading_deg"])
    assert (found.row, found.col) == pytest.approx((row["row_px"] * 1.25, row["col_px"] * 1.25), abs=0.5)
    assert (found.latitude, found.longitude) == pytest.approx((row["latitude"], row["longitude"]), abs=2e-6)
    assert gps_to_position(found.latitude, found.longitude, *centre) == pytest.approx((found.row, found.col), abs=0.01)
    assert abs(wrap_degrees(found.heading - row["heading_deg"])) < 1
    assert 0 <= found.probability <= 1 and found.heat_map == "heat map, calibrated (temperature 4.16)"
    assert found.notes == ["no --metres_per_pixel: the satellite image is taken to span 72.4 m, as VIGOR's do at that latitude"]


def test_paths_and_arrays_any_size_and_many_at_once(localizer, pair):
    files, centre, _ = pair
    half = np.asarray(Image.open(files["satellite"]).resize((320, 320), Image.Resampling.BOX))
    known = {"metres_per_pixel": 0.2, "mask": files["mask"]}
    one = localizer.locate(str(files["panorama"]), half, **known)
    pairs = [{"panorama": files["panorama"], "satellite": half, **known}, {**files, "centre": centre}]
    many = localizer.locate_many(pairs * 3, batch_size=4)
    assert len(many) == 6 and one.latitude is None and many[1].latitude is not None
    for found in many[::2]:
        assert (found.row, found.col, found.heading) == pytest.approx((one.row, one.col, one.heading), abs=1e-2)
    whole = localizer.locate(files["panorama"], files["satellite"], metres_per_pixel=0.1, mask=files["mask"])
    assert (whole.row, whole.col) == pytest.approx((2 * one.row, 2 * one.col), abs=1.0)


def test_the_heading_is_that_of_the_panorama_as_it_was_given(localizer, pair, tmp_path):
    """A network for headings within 20 degrees sees a panorama that looks elsewhere rolled to north."""
    saved = torch.load(OLD / "best.pt", weights_only=True)
    saved["settings"] |= {"ori_noise": 20.0}
    torch.save(saved, tmp_path / "best.pt")
    narrow = Localizer(tmp_path / "best.pt", device="cpu")
    files, _, _ = pair
    north = np.asarray(Image.open(files["panorama"]))
    east = np.roll(north, -north.shape[1] // 4, 1)  # its centre looks east
    known = {"metres_per_pixel": 0.113, "mask": files["mask"]}
    first = narrow.locate(north, files["satellite"], heading=0.0, **known)
    second = narrow.locate(east, files["satellite"], heading=90.0, **known)
    assert (second.row, second.col) == pytest.approx((first.row, first.col))
    assert wrap_degrees(second.heading - first.heading) == pytest.approx(90, abs=1e-3)
    assert "panorama rolled by 90°, so that its centre looks north" in second.notes


@pytest.mark.parametrize(
    ("known", "says"),
    [
        ({}, "needs its resolution; give --metres_per_pixel"),
        ({"metres_per_pixel": 0.0}, "metres_per_pixel 0.0 is not a number above 0"),
        ({"metres_per_pixel": 0.1, "heading": float("nan")}, "heading nan is not a number from -360 up to 360"),
        ({"centre": (-122.3, 47.57)}, "centre -122.3 is not a number from -85 up to 85; latitude comes first: 47.57 -122.3?"),
        ({"metres_per_pixel": 0.1, "panorama": np.zeros((64, 128, 3))}, r"given as float64 \(64, 128, 3\): expected uint8"),
        (
            {"metres_per_pixel": 0.1, "panorama": np.zeros((64, 64, 3), np.uint8)},
            "the image given: 64 x 64 px, but a whole panorama",
        ),
        ({"metres_per_pixel": 0.1, "satellite": np.zeros((64, 32, 3), np.uint8)}, "the image given: 32 x 64 px, but a satellite"),
        ({"metres_per_pixel": 0.1, "satellite": "nowhere.png"}, "nowhere.png: no such file"),
    ],
)
def test_what_cannot_be_located(localizer, pair, known, says):
    files, _, _ = pair
    with pytest.raises(UserError, match=says):
        localizer.locate_many([{"panorama": files["panorama"], "satellite": files["satellite"], **known}])


def test_the_lines_of_the_readme(pair, tmp_path, monkeypatch):
    """The block below 'From Python', in a folder that holds what it names."""
    section = (PROJECT / "README.md").read_text("utf-8").partition("## From Python")[2].partition("\n## ")[0]
    (block,) = re.findall(r"(?:^    .*\n)+", section, flags=re.M)
    files, _, _ = pair
    (tmp_path / "street.jpg").symlink_to(files["panorama"])
    (tmp_path / "above.png").symlink_to(files["satellite"])
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(textwrap.dedent(block).replace("runs/VIGOR/<run>", str(OLD)), names)
    assert 0 <= names["found"].row < 640 and abs(names["found"].latitude - 41.85) < 1e-3
