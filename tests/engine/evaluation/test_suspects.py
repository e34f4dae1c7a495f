"""Labels that a network contradicts: districts, how they are corrected, and a drawn city with faults."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from children import SMALL_VIEW, call, make_network, refusal, save_network
from damaged import damage

from common import geometry
from dataset.index import load_index
from dataset.mini_vigor import writer
from engine.evaluation import suspects


def at(city_gps, north_m, east_m):
    """(N, 2) latitudes and longitudes so many metres from a place."""
    metres = geometry.metres_per_pixel(city_gps[0])
    row, col = geometry.mercator_px(*city_gps)
    return np.stack(geometry.latitude_longitude(row - north_m / metres, col + east_m / metres), -1)


def test_districts_are_ground_that_hangs_together(vigor_root):
    """Two neighbourhoods 600 m apart, a strip of 2.5 km in another city, and images of unknown degrees."""
    near, strip = np.arange(5) * 50.0, np.arange(0, 2500, 50.0)
    gps = [
        at((40.0, -74.0), near, near),
        at((40.0, -74.0), near + 800, near),
        at((41.9, -87.7), 0 * strip, strip),
    ]
    gps = np.concatenate([*gps, np.full((3, 2), np.nan)])
    city = np.repeat([0, 1, 2], [10, 50, 3])
    index = replace(load_index(vigor_root), satellite_city=city, satellite_gps=gps, cities=("A", "B", "C"))
    names = suspects.districts(index)
    assert len({*names[:5]}) == len({*names[5:10]}) == 1 and {*names[:10]} == {"A 1", "A 2"}
    assert {*names[10:60]} == {"B 1", "B 2", "B 3"} and {*names[60:]} == {"C"}
    assert pd.Series(names[10:60]).value_counts().min() >= 15, "a wide district is cut into equal parts"


def test_a_corrected_index_says_where_the_network_finds_panoramas(vigor_root):
    """Labels 10 m east are seen at 10 / 0.8 + 3 m, where metres per pixel are 0.8 of the stated."""
    index = load_index(vigor_root)
    metres = index.metres_per_pixel(index.satellite[:, 0])
    position = np.full_like(index.position, 320.0)
    position[:, 0, 1] += 10 / metres
    index = replace(index, position=position)
    names = np.where(index.satellite_city == 0, "wrong", "right")
    fixed = suspects.corrected(index, names, {"wrong": np.array([3.0, -2.0, 0.0, np.log(0.8), np.nan])})
    wrong = index.city == 0
    east, south = (fixed.position[:, 0, axis] - 320 for axis in (1, 0))
    np.testing.assert_allclose((east * metres)[wrong], 10 / 0.8 + 3, rtol=1e-4)
    np.testing.assert_allclose((south * metres)[wrong], 2, rtol=1e-4)
    stated = fixed.metres_per_pixel(fixed.satellite[:, 0]) / metres
    np.testing.assert_allclose(stated, np.where(wrong, 0.8, 1))
    assert np.array_equal(fixed.position[~wrong], index.position[~wrong])


def test_the_command_writes_both_tables(vigor_root, tmp_path, capsys):
    view = replace(SMALL_VIEW, ori_noise=180.0)
    network = make_network(view, network="light", matching_channels=8, heading_bins=8)
    folder = save_network(tmp_path, network, view)
    call("eval_VIGOR", f"--model_path {folder} --dataset_root {vigor_root} --num_workers 0 --suspects")
    said = capsys.readouterr().out
    table = pd.read_csv(folder / "results/suspects_samearea.csv")
    assert len(table) == 24 and (table["doubt"].diff()[1:] <= 0).all() and (table["doubt"] >= 0).all()
    assert table["heading_error_deg"].abs().max() <= 180 and table["panorama"][0] in said
    assert list(pd.read_csv(folder / "results/suspect_districts_samearea.csv").columns[:3]) == [
        "district",
        "pairs",
        "least_moved_m",
    ]
    for words in ("--redraw", "--reliability", "--limit 3"):
        line = f"--model_path {folder} --dataset_root {vigor_root} --suspects {words}"
        assert "--suspects" in refusal("eval_VIGOR", line, capsys)


@pytest.mark.slow
def test_a_drawn_city_with_faults(tmp_path, capsys):
    """Two labels moved by 15 m in one of two districts; the images of the other are enlarged by 1.25."""
    drawn = {"cities": ("Chicago",), "panoramas": 48, "panorama_width": 256, "seed": 5, "styles": "varied"}
    root = writer.make(tmp_path / "city", progress=False, workers=1, **drawn)
    moved = damage(root, "Chicago", moved=2, turned=0, district="Chicago 2")
    line = f"--model_path pretrained --dataset_root {root} --area crossarea --test_cities Chicago --suspects"
    call("eval_VIGOR", f"{line} --num_workers 0 --output_dir {tmp_path / 'found'}")
    districts = pd.read_csv(tmp_path / "found/suspect_districts_crossarea.csv")
    assert districts["district"][0] == "Chicago 2" and districts["scale"][0] == pytest.approx(0.8, rel=0.05)
    table = pd.read_csv(tmp_path / "found/suspects_crossarea.csv")
    assert {*moved} <= {*table["panorama"][:6]}
