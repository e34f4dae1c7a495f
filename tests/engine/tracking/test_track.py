"""Drives as a user follows them, by the repository's networks, through a small drawn city."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from children import call, refusal
from PIL import Image

from common import geometry
from common.geometry import wrap_degrees
from dataset.mini_vigor import writer
from dataset.mini_vigor.drives import Drives, make_drives
from dataset.protocol import Source
from engine.inference.asked import asked_protocol
from engine.search.setup import open_search
from engine.tracking.drive import DriveTracker
from engine.tracking.lattice import uniform, window
from engine.tracking.motion import MotionNoise
from engine.tracking.table import read_frames
from model.checkpoint import load_model

pytestmark = pytest.mark.slow
FRAMES = 12


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A small city with two drives."""
    root = tmp_path_factory.mktemp("driven") / "world"
    sizes = {"panoramas": 16, "panorama_width": 256, "seed": 11}
    writer.make(root, cities=("Seattle",), workers=1, progress=False, **sizes)
    driven = Drives(drives=2, frames=FRAMES)
    make_drives(root, writer.Drawing(**sizes), driven, cities=("Seattle",), workers=1, progress=False)
    return root


@pytest.fixture(scope="module")
def line(root, tmp_path_factory):
    """Flags of every command."""
    folder = tmp_path_factory.mktemp("tracks")
    return (
        f"--city Seattle --dataset_root {root} --index_root {folder}/index --output_dir {folder}/out --dpi 40"
    )


def table_of(root):
    return pd.read_csv(root / "Seattle/drives.csv", dtype={"drive": str})


def errors(found, truth):
    places, true = (
        np.stack(geometry.mercator_px(one[f"{p}latitude"], one[f"{p}longitude"]), 1)
        for one, p in ((found, ""), (truth, "true_"))
    )
    metres = geometry.metres_per_pixel(truth["true_latitude"].iloc[0])
    return np.hypot(*(places - true).T) * metres


def test_a_drive_is_followed(root, line, capsys):
    table = table_of(root).query("drive == '000'").reset_index()
    near = "--near {:.6f} {:.6f} --radius 60".format(*table[["true_latitude", "true_longitude"]].iloc[5])
    files = f"--frames {root}/Seattle/drives.csv --drive 000 --use odometry compass"
    call("track_VIGOR", f"{line} {files} {near}")
    said = capsys.readouterr().out
    folder = re.search(r"picture: (.*)/drives_000.png", said)[1]
    found = pd.read_csv(f"{folder}/drives_000.csv")
    away = errors(found, table)
    assert np.median(away[4:]) < 1 and away[4:].max() < 3
    assert abs(wrap_degrees(found["heading"] - table["true_heading"]))[4:].max() < 5
    assert found["probability_5m"].iloc[-1] > 0.8 and not found["lost"].iloc[-1]
    content = json.loads(open(f"{folder}/drives_000.geojson").read())
    longitude, latitude = content["features"][0]["geometry"]["coordinates"][0]
    assert longitude == pytest.approx(found["longitude"][0]) and latitude == pytest.approx(
        found["latitude"][0]
    )
    assert open(f"{folder}/drives_000.gpx").read().count('<trkpt lat="47.') == FRAMES
    assert Image.open(f"{folder}/drives_000.gif").n_frames == FRAMES
    assert Image.open(f"{folder}/drives_000.png").size[0] > 300


def test_drives_are_measured(root, line, capsys):
    call("track_VIGOR", f"{line} --evaluate --use odometry compass --start_radius 50 --single --replace 6 2")
    folder = re.search(r"results are in (.*)", capsys.readouterr().out)[1]
    summary = json.loads(open(f"{folder}/track_summary_50m_replaced_odometry_compass.json").read())["summary"]
    last = f"after {10}"
    assert {"filter", "smoother", "single frame", "found"} <= summary.keys()
    assert summary["smoother"][last]["recall"]["3_m"] >= 0.5
    assert summary["smoother"]["all frames"]["median_error_m"] < 2
    results = pd.read_csv(f"{folder}/track_results_50m_replaced_odometry_compass.csv")
    assert len(results) == 2 * FRAMES and results["doubted"][results["frame"].isin([6, 7])].any()


@pytest.mark.parametrize("word", ["pretrained", "pretrained_any_heading"])
def test_likelihoods_peak_where_the_camera_stood(root, line, word, tmp_path):
    """In both levels of detail, and at the true heading where the network looks for it."""
    checkpoint = load_model(word)
    protocol, source = asked_protocol(checkpoint, {}), Source(dataset_root=str(root))
    opening = source, ["Seattle"], torch.device("cpu"), tmp_path
    searcher, _ = open_search(checkpoint, checkpoint.view, protocol, *opening)
    tracker = DriveTracker(checkpoint, checkpoint.view, searcher, searcher.cities[0], MotionNoise())
    frames = read_frames(root / "Seattle/drives.csv")["000"][::3]
    likelihood = tracker.likelihood([frame.file for frame in frames])
    fine, coarse, *_ = likelihood.levels
    away, turned = {fine: [], coarse: []}, []
    for number, frame in enumerate(frames):
        truth = np.array(likelihood.from_gps(*frame.known("true_latitude", "true_longitude")))
        heading = frame.numbers["true_heading"]
        for level, reach in ((coarse, 50.0), (fine, 10.0)):
            span = 1.0 if likelihood.knows_heading else 360.0 if level == coarse else 50.0
            lattice = window(level, truth + (3, -2), reach, heading, span)
            log = likelihood(number, uniform(lattice)).expand(lattice.shape)
            k, i, j = np.unravel_index(int(log.argmax()), lattice.shape)
            headings, south, east = lattice.centres()
            away[level].append(np.hypot(float(south[i]) - truth[0], float(east[j]) - truth[1]))
            if level == fine and not likelihood.knows_heading:
                turned.append(abs(wrap_degrees(float(headings[k]) - heading)))
    for level in (fine, coarse):  # no satellite image lies there
        outside = uniform(window(level, truth + (5000, 0), 5.0, heading, 1.0))
        assert float(likelihood(0, outside).max()) < -50
    assert np.median(away[fine]) < 1 and np.median(away[coarse]) < 2.5
    assert not turned or np.median(turned) < 5


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--frames nowhere.csv", "nowhere.csv"),
        ("", "--frames"),
        ("--frames x.csv --radius 5", "--radius"),
        ("--frames x.csv --start_radius 5", "--start_radius"),
        ("--evaluate --near 47.6 -122.3", "--near"),
        ("--frames {root}/Seattle/drives.csv --drive 7", "--drive 7"),
        ("--frames {root}/Seattle/drives.csv --near 40.7 -74", "nearest"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(root, line, capsys, flags, says):
    assert says in refusal("track_VIGOR", f"{line} {flags.format(root=root)}", capsys)


def test_swapped_gps_far_from_the_city_is_named(root, line, capsys, tmp_path):
    (tmp_path / "1.jpg").write_bytes((root / "Seattle/drives/000/00000.jpg").read_bytes())
    (tmp_path / "drive.csv").write_text("file,latitude,longitude,heading\n1.jpg,40.7,-74,0\n")
    assert "far from Seattle" in refusal("track_VIGOR", f"{line} --frames {tmp_path}/drive.csv", capsys)
