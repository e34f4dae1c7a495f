"""Searches as a user runs them: places, reports, GeoJSON, pictures, measures and refusals, with the network of the repository."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from children import call, refusal, run_group
from PIL import Image

from common import geometry
from common.geometry import SATELLITE_PX, wrap_degrees
from dataset.index import load_index
from dataset.lists import VIGOR_CITIES
from dataset.mini_vigor import writer
from dataset.vigor import VigorDataset
from engine.search import calibration
from engine.search.searcher import NEAR_M, Searcher, Softness, distance_m, truth_px
from model.build import build_model
from model.checkpoint import PRETRAINED, load_model, save_checkpoint
from model.settings import ModelSettings

WHERE = "Seattle", "Chicago"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two small cities, drawn as no training has seen them."""
    folder = tmp_path_factory.mktemp("cities")
    return writer.make(folder, cities=VIGOR_CITIES, seed=5, panoramas=8, panorama_width=256, progress=False, workers=1)


@pytest.fixture(scope="module")
def indexes(tmp_path_factory):
    return tmp_path_factory.mktemp("indexes")


def open_dataset(root, loaded, ori_noise=0.0, split="test"):
    return VigorDataset(load_index(root, split=split), ori_noise=ori_noise, **loaded.settings.images)


@pytest.fixture(scope="module")
def known(root, indexes):
    """(searcher over two cities, dataset) for known headings."""
    loaded = load_model("pretrained")
    dataset = open_dataset(root, loaded)
    return Searcher(
        loaded, dataset.index, dataset.images, [VIGOR_CITIES.index(name) for name in WHERE], "cpu", indexes / "known"
    ), dataset


def rows_of(dataset, searcher):
    return [i for i in range(len(dataset)) if dataset.index.city[i] in [city.number for city in searcher.cities]]


def test_places_are_found_in_the_right_city(known):
    searcher, dataset = known
    errors, cities = [], []
    for i in rows_of(dataset, searcher):
        scored = searcher.scan(dataset[i])
        places = searcher.places(dataset[i], scored, most=3, pool=6)
        truth = truth_px(dataset[i], dataset.satellite_size)
        errors.append(distance_m(places[0], truth))
        cities.append(places[0].city.number == dataset.index.city[i])
        gps = dataset.index.panorama[i].decode().split(",")[1:3]
        assert geometry.mercator_px(*map(float, gps)) == pytest.approx(tuple(truth), abs=1.5), "names have six digits"
        best = places[0]
        assert geometry.mercator_px(best.latitude, best.longitude) == pytest.approx(best.map_px, abs=0.01)
        probabilities = [place.probability for place in places]
        assert probabilities == sorted(probabilities, reverse=True) and 0 < sum(probabilities) <= 1
        assert all(distance_m(a, b.map_px) > NEAR_M for a in places for b in places if a is not b)
        inside = np.array(best.estimate.position) * SATELLITE_PX / 128 + best.corner
        assert tuple(inside) == pytest.approx(best.map_px)
    assert np.median(errors) < 1 and np.mean(np.array(errors) < 5) >= 0.75 and np.mean(cities) >= 0.75


def test_a_circle_holds_its_places_and_a_far_guess_none(known):
    searcher, dataset = known
    i = rows_of(dataset, searcher)[0]
    sample, truth = dataset[i], truth_px(dataset[i], dataset.satellite_size)
    latitude, longitude = geometry.latitude_longitude(truth[0] + 100, truth[1] - 150)
    scored = searcher.scan(sample, near=(latitude, longitude, 40.0))
    assert sum(bool(blocks) for blocks in scored.values()) == 1
    for place in searcher.places(sample, scored):
        middle = geometry.mercator_px(latitude, longitude)
        assert distance_m(place, middle) < 40 + 64 / 2 * 1.5
    with pytest.raises(Exception, match="no satellite image of Seattle, Chicago lies within 40 m of 10 20"):
        searcher.scan(sample, near=(10.0, 20.0, 40.0))


def test_headings_come_out_with_their_sign(root, indexes):
    loaded = load_model("pretrained_any_heading")
    dataset = open_dataset(root, loaded, ori_noise=180.0)
    searcher = Searcher(loaded, dataset.index, dataset.images, [VIGOR_CITIES.index("Seattle")], "cpu", indexes / "any")
    turned = []
    for i in rows_of(dataset, searcher):
        sample = dataset[i]
        place = searcher.places(sample, searcher.scan(sample), most=1, pool=3)[0]
        if distance_m(place, truth_px(sample, 128)) < 5:
            turned.append(
                (wrap_degrees(place.heading - float(sample["heading"])), place.candidate.heading - float(sample["heading"]))
            )
    assert len(turned) >= 2
    refined, coarse = np.abs(wrap_degrees(np.array(turned))).T
    assert np.median(refined) < 5 and np.median(coarse) < 12
    assert len({round(abs(float(dataset[i]["heading"]))) for i in rows_of(dataset, searcher)}) > 2, "headings differ"


def test_softness_is_kept_by_network_and_conditions(tmp_path):
    key = {"sha256": "a", "ori_noise_deg": 0.0, "FoV_deg": 360.0}
    assert calibration.find(tmp_path, key) is None
    calibration.store(tmp_path, key, Softness(0.5, 2.0, "calibrated on 3"))
    calibration.store(tmp_path, key | {"sha256": "b"}, Softness(0.7, 3.0, "calibrated on 4"))
    calibration.store(tmp_path, key, Softness(0.6, 2.5, "calibrated on 5"))
    assert calibration.find(tmp_path, key) == (0.6, 2.5, "calibrated on 5")
    assert calibration.find(tmp_path, key | {"sha256": "b"}).cells == 0.7
    assert calibration.find(tmp_path, key | {"FoV_deg": 90.0}) is None
    (tmp_path / "calibration.json").write_text("no JSON")
    assert calibration.find(tmp_path, key) is None


def test_softer_probabilities_are_less_sure(known):
    searcher, dataset = known
    i = rows_of(dataset, searcher)[0]
    scored, seen = searcher.scan(dataset[i]), {}
    shares = []
    for softness in (0.5, 1.0, 4.0):
        searcher.softness = Softness(softness, softness)
        shares.append(searcher.places(dataset[i], scored, seen=seen)[0].probability)
    searcher.softness = Softness()
    assert shares[0] > shares[1] > shares[2] and len(seen) > 5


@pytest.fixture(scope="module")
def line(root, indexes, tmp_path_factory):
    """Flags of every search, by a copy of the repository's network: a calibration is kept beside the checkpoint."""
    copy = tmp_path_factory.mktemp("run") / "best.pt"
    shutil.copy(PRETRAINED["pretrained"], copy)
    return f"--model_path {copy} --dataset_root {root} --index_root {indexes / 'known'} --dpi 40 --top 3 --pool 4"


def test_the_script_prints_draws_and_writes_geojson(root, line, tmp_path, capsys):
    call("search_VIGOR", f"{line} --city Seattle --idx 1-2 --output_dir {tmp_path}")
    printed = capsys.readouterr().out
    index = load_index(root)  # the lists of all cities; the second panorama of Seattle's test list:
    test = load_index(root, split="test")
    name = test.panorama[test.city == VIGOR_CITIES.index("Seattle")][1].decode()
    assert f"samearea_test_Seattle 1, {name}" in printed and len(index)
    stem = tmp_path / "samearea_test_Seattle_000001"
    assert stem.with_suffix(".txt").read_text() in printed
    rows = re.findall(r"^ (\d)  Seattle +([\d.]+) +(-[\d.]+) +([\d.]+)° +([\d.]+) % +([\d.]+) m$", printed, re.M)
    assert [row[0] for row in rows][:3] == ["1", "2", "3"] and len(rows) >= 5
    found = json.loads(stem.with_suffix(".geojson").read_text())["features"]
    assert len(found) == 4 and found[3]["properties"] == {"kind": "truth"}
    longitude, latitude = found[0]["geometry"]["coordinates"]
    assert (latitude, longitude) == pytest.approx((float(rows[0][1]), float(rows[0][2])), abs=1e-6)
    _, latitude, longitude, _ = name.split(",")
    assert found[3]["geometry"]["coordinates"] == pytest.approx([float(longitude), float(latitude)], abs=2e-6)
    assert found[0]["properties"].keys() == {"rank", "city", "heading_deg", "probability"}
    assert min(Image.open(stem.with_suffix(".png")).size) > 250


def test_the_script_takes_a_panorama_of_one_s_own_and_a_guess(root, line, tmp_path, capsys):
    test = load_index(root, split="test")
    row = int(np.flatnonzero(test.city == VIGOR_CITIES.index("Chicago"))[0])
    name = test.panorama[row].decode()
    _, latitude, longitude, _ = name.split(",")
    turned = np.roll(np.asarray(Image.open(root / test.panorama_path(row))), -64, 1)  # its centre looks east
    Image.fromarray(turned).save(tmp_path / "street.png")
    near = f"--near {latitude} {longitude} --radius 60 --heading 90"
    call("search_VIGOR", f"{line} --city Chicago --panorama {tmp_path}/street.png {near} --output_dir {tmp_path}")
    printed = capsys.readouterr().out
    assert "note: panorama rolled by 90°" in printed and "error" not in printed
    found = json.loads((tmp_path / "own_street.geojson").read_text())["features"]
    assert found[-1]["properties"] == {"kind": "guess", "radius_m": 60.0}
    place = geometry.gps_to_position(*found[0]["geometry"]["coordinates"][::-1], float(latitude), float(longitude))
    assert np.hypot(*np.subtract(place, 320)) * 0.11 < 3


def test_evaluation_measures_what_single_searches_find(known, root, line, tmp_path, capsys):
    call("search_VIGOR", f"{line} --city {' '.join(WHERE)} --evaluate --calibrate 2 --limit 6 --output_dir {tmp_path}")
    printed = capsys.readouterr().out
    table = pd.read_csv(tmp_path / "search_results_samearea.csv")
    assert table["scope"].unique().tolist() == ["50 m", "100 m", "200 m", "500 m", "city", "all cities"]
    assert (table.groupby("index").size() == 6).all() and table["index"].nunique() == 6
    summary = json.loads((tmp_path / "search_summary_samearea.json").read_text())
    assert summary["context"]["cities"] == list(WHERE) and summary["context"]["pairs"] == 6
    for scope, rows in table.groupby("scope"):
        numbers = summary["summary"][scope]["all"]
        assert numbers["recall"]["5_m"] == pytest.approx((rows["error_m"] <= 5).mean())
        assert (rows["nearest_place_m"] <= rows["error_m"] + 1e-6).all()
    searcher, dataset = known
    chosen = rows_of(dataset, searcher)
    assert table["index"].unique().tolist() == [0, 1, 2, 4, 5, 7], "evenly spread"
    for i in (0, 5):
        sample = dataset[chosen[i]]
        best = searcher.places(sample, searcher.scan(sample), pool=4)[0]
        (row,) = table[(table["index"] == i) & (table["scope"] == "all cities")].to_dict("records")
        assert row["error_m"] == pytest.approx(distance_m(best, truth_px(sample, 128)), abs=1e-3)
        assert row["panorama"] == dataset.index.panorama[chosen[i]].decode()
        assert row["tile_holds"] == (row["error_m"] < 30) and row["tiles"] == sum(len(c.tiles.names) for c in searcher.cities)
    found = table[(table["scope"] == "city") & (table["error_m"] < 5)]
    assert (found["tile_rank"] == 0).mean() > 0.8
    assert (tmp_path / "search_recall_samearea.txt").read_text() in printed and "R@1%" in printed
    assert (tmp_path / "search_CED_samearea.png").exists()
    assert "calibrated on 2 validation panoramas" in printed


def test_a_cross_area_search_is_calibrated_in_the_cities_of_training(root, indexes, tmp_path, capsys):
    loaded = torch.load(PRETRAINED["pretrained"], weights_only=True)
    loaded["args"]["area"] = "crossarea"
    save_checkpoint(tmp_path / "best.pt", loaded)
    call("search_VIGOR", f"--model_path {tmp_path} --dataset_root {root} --city Chicago --evaluate --calibrate 1 --limit 1")
    assert "calibrated on 1 validation panoramas" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "search/index/best").iterdir()} == {"Chicago", "NewYork", "Seattle"}


def evaluate_alone(line):
    call("search_VIGOR", line)


def test_two_processes_measure_the_same(known, line, tmp_path):
    rest = f"{line} --city Seattle --evaluate --calibrate 0 --limit 3"
    call("search_VIGOR", f"{rest} --output_dir {tmp_path / 'one'}")
    run_group(tmp_path / "log", 2, evaluate_alone, f"{rest} --output_dir {tmp_path / 'two'}")
    one, two = (pd.read_csv(tmp_path / name / "search_results_samearea.csv").drop(columns="seconds") for name in ("one", "two"))
    pd.testing.assert_frame_equal(one, two, rtol=1e-4)


def test_bad_requests_get_one_line(root, line, tmp_path, capsys, vigor_root):
    def error(rest):
        return refusal("search_VIGOR", f"{line} {rest}", capsys)

    assert error("--idx 0 --radius 50").endswith("error: --radius needs --near")
    assert error("--idx 0 --heading 50").endswith("error: --heading needs --panorama")
    assert error("--evaluate --near 40 -74").endswith("draws guesses of its own")
    assert error("--city Seattle --idx 99").endswith("there are 4 panoramas of these cities, 0 to 3")
    assert error("--area crossarea --city Seattle --idx 0").endswith(
        "the crossarea test list has panoramas of SanFrancisco, Chicago"
    )
    said = error("--city Seattle --idx 0 --near 47.61 -122.3")
    told = re.search(
        r"of Seattle lies within 200 m of 47.61 -122.3; the nearest one's centre is (\S+) km away, at (\S+) (\S+)$", said
    )
    index = load_index(root)
    places = index.satellite_gps[index.satellite_city == index.cities.index("Seattle")]
    metres = np.hypot(*((places - [47.61, -122.3]) * 111_320 * [1, np.cos(np.radians(47.61))]).T)
    assert float(told[1]) == pytest.approx(metres.min() / 1000, abs=0.06)
    assert [float(told[2]), float(told[3])] == pytest.approx(places[metres.argmin()], abs=1e-5)
    assert "no such file" in error(f"--city Seattle --panorama {tmp_path}/none.jpg")
    assert error(f"--dataset_root {vigor_root} --city Seattle --idx 0").count("made with images") == 1
    torch.manual_seed(0)
    small = ModelSettings(satellite_size=64, panorama_size=(64, 128), d_model=16, num_heads=2, n_layer=1)
    save_checkpoint(tmp_path / "best.pt", {"settings": small.plain(), "model": build_model(small).state_dict()})
    published = error(f"--model_path {tmp_path} --idx 0")
    assert "a published network has no templates to search a city with; train one with --network light" in published
