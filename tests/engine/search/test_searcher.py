"""Searches as a user runs them, by pretrained networks: results, reports, GeoJSON, measures, refusals."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from children import call, make_exif, make_network, refusal, run_group, save_network, script
from PIL import Image

from common import geometry
from common.errors import UserError
from common.geometry import SATELLITE_PX, wrap_degrees
from dataset.index import load_index
from dataset.mini_vigor import writer
from dataset.protocol import Source
from engine.inference.asked import asked_protocol
from engine.inference.decode import NEAR_M
from engine.search.searcher import SearchTemperatures, distance_m, truth_px
from engine.search.setup import calibrate, open_search
from model.checkpoint import PRETRAINED, load_model

pytestmark = pytest.mark.slow
WHERE = "Seattle", "Chicago"
CPU = torch.device("cpu")
SMALL = {"seed": 5, "panorama_width": 256, "progress": False, "workers": 1}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two small cities, drawn as no training has seen them."""
    return writer.make(tmp_path_factory.mktemp("cities"), cities=WHERE, panoramas=8, **SMALL)


@pytest.fixture(scope="module")
def line(root, tmp_path_factory):
    """Flags of every search, with a copy of a pretrained network, beside which calibrations are kept."""
    folder = tmp_path_factory.mktemp("run")
    shutil.copy(PRETRAINED["pretrained"], folder / "best.pt")
    return f"--model_path {folder} --dataset_root {root} --index_root {folder / 'known'} --dpi 40 --pool 4"


def open_cities(word, root, cities, folder, **view):
    """(searcher over cities, dataset) with a pretrained network. view: what to change of its `View`."""
    checkpoint = load_model(word)
    protocol, source = asked_protocol(checkpoint, {}), Source(dataset_root=str(root))
    return open_search(checkpoint, replace(checkpoint.view, **view), protocol, source, cities, CPU, folder)


@pytest.fixture(scope="module")
def known(root, line):
    """(searcher over two cities, dataset) for known headings."""
    return open_cities("pretrained", root, WHERE, Path(line.split()[5]))


def test_places_are_found_in_the_right_city(known):
    searcher, dataset = known
    errors, cities = [], []
    for i, (row, _) in enumerate(dataset.pairs):
        sample, truth = dataset[i], truth_px(dataset[i], dataset.satellite_size)
        best, *others = results = searcher.places(sample, searcher.scan(sample), most=3, pool=6)
        errors.append(distance_m(best, truth))
        cities.append(best.city.number == dataset.index.city[row])
        gps = map(float, dataset.index.panorama[row].decode().split(",")[1:3])  # of six digits
        assert geometry.mercator_px(*gps) == pytest.approx(tuple(truth), abs=1.5)
        assert geometry.mercator_px(best.latitude, best.longitude) == pytest.approx(best.map_px, abs=0.01)
        probabilities = [result.probability for result in results]
        assert probabilities == sorted(probabilities, reverse=True) and 0 < sum(probabilities) <= 1
        assert all(distance_m(other, best.map_px) > NEAR_M for other in others)
        inside = np.array(best.estimate.position) * SATELLITE_PX / 128 + best.corner
        assert tuple(inside) == pytest.approx(best.map_px)
    assert np.median(errors) < 1 and np.mean(np.array(errors) < 5) >= 0.75 and np.mean(cities) >= 0.75


def test_softer_probabilities_are_less_sure(known, monkeypatch):
    searcher, dataset = known
    sample, seen = dataset[0], {}
    scored = searcher.scan(sample)
    for name in ("cells", "places"):
        shares = []
        for temperature in (0.5, 1.0, 4.0):
            monkeypatch.setattr(searcher, "temperatures", SearchTemperatures(**{name: temperature}))
            shares.append(searcher.places(sample, scored, seen=seen)[0].probability)
        assert shares[0] > shares[1] > shares[2], name


def test_a_circle_holds_its_places_and_a_far_guess_none(known):
    searcher, dataset = known
    sample, truth = dataset[0], truth_px(dataset[0], dataset.satellite_size)
    latitude, longitude = geometry.latitude_longitude(truth[0] + 100, truth[1] - 150)
    scored = searcher.scan(sample, near=(latitude, longitude, 40.0))
    assert sum(bool(blocks) for blocks in scored.values()) == 1
    centre = geometry.mercator_px(latitude, longitude)
    assert all(distance_m(one, centre) < 40 + 64 / 2 * 1.5 for one in searcher.places(sample, scored))
    with pytest.raises(UserError, match="of Seattle, Chicago lies within 40 m of 10 20"):
        searcher.scan(sample, near=(10.0, 20.0, 40.0))


def test_headings_come_out_with_their_sign(root, tmp_path):
    searcher, dataset = open_cities("pretrained_any_heading", root, ["Seattle"], tmp_path)
    turned, headings = [], set()
    for i in range(len(dataset)):
        sample = dataset[i]
        true = float(sample["heading"])
        best = searcher.places(sample, searcher.scan(sample), most=1, pool=3)[0]
        headings.add(round(abs(true)))
        if distance_m(best, truth_px(sample, 128)) < 5:
            turned.append((best.heading - true, best.candidate.heading - true))
    assert len(turned) >= 2 and len(headings) > 2
    refined, coarse = np.abs(wrap_degrees(np.array(turned))).T
    assert np.median(refined) < 5 and np.median(coarse) < 12


def test_photographs_are_searched_for_with_their_cameras(tmp_path):
    """Headings are tried about the prior of the photograph's own camera, and found in its range."""
    root = writer.make(tmp_path / "city", cities=("Seattle",), panoramas=24, **SMALL)
    searcher, dataset = open_cities("pretrained_photo", root, ["Seattle"], tmp_path, ori_noise=20.0)
    errors = []
    for i in range(len(dataset)):
        sample = dataset[i]
        true, prior = float(sample["heading"]), float(sample["camera"].heading)
        scored = searcher.scan(sample)
        (blocks,) = scored.values()
        headings = torch.cat([block.heading[torch.isfinite(block.score)] for block in blocks]).unique()
        assert (wrap_degrees(headings - prior).abs() < 20 + 1e-3).all() and len(headings) > 2
        best = searcher.places(sample, scored, most=1)[0]
        assert best.estimate.camera.kind == "photo"
        assert abs(wrap_degrees(best.heading - prior)) < 20 + 1e-3
        if distance_m(best, truth_px(sample, 128)) < 5:
            errors.append(abs(wrap_degrees(best.heading - true)))
    assert len(errors) >= 2 and np.median(errors) < 5


def test_temperatures_are_kept_by_network_and_view(root, tmp_path):
    shutil.copy(PRETRAINED["pretrained"], tmp_path / "best.pt")
    checkpoint = load_model(tmp_path)
    protocol, source = asked_protocol(checkpoint, {}), Source(dataset_root=str(root))
    args = protocol, source, ["Seattle"], CPU
    searcher, _ = open_search(checkpoint, checkpoint.view, *args)
    assert searcher.temperatures == SearchTemperatures()
    calibrate(searcher, checkpoint, protocol, source, pool=4, most=2)
    assert searcher.temperatures.name == "calibrated on 2 validation panoramas"
    assert open_search(checkpoint, checkpoint.view, *args)[0].temperatures == searcher.temperatures
    other = open_search(checkpoint, replace(checkpoint.view, FoV=90.0), *args)[0]
    assert other.temperatures == SearchTemperatures()


def test_the_script_prints_draws_and_writes_geojson(root, line, tmp_path, capsys):
    call("search_VIGOR", f"{line} --top 3 --city Seattle --idx 1-2 --output_dir {tmp_path}")
    printed = capsys.readouterr().out
    test = load_index(root, split="test")
    name = test.panorama[test.city == test.cities.index("Seattle")][1].decode()
    assert f"samearea_test_Seattle 1, {name}" in printed
    stem = tmp_path / "samearea_test_Seattle_000001"
    report, _, about = stem.with_suffix(".txt").read_text().partition("\ngit_revision: ")
    assert report in printed and "\ncheckpoint_sha256: " in about and "\nlabels: corrected\n" in about
    row = r"^ (\d)  Seattle +([\d.]+) +(-[\d.]+) +([\d.]+)° +([\d.]+) % +([\d.]+) m$"
    rows = re.findall(row, printed, re.M)
    assert [row[0] for row in rows][:3] == ["1", "2", "3"] and len(rows) >= 5
    content = json.loads(stem.with_suffix(".geojson").read_text())
    assert f"data_fingerprint: {content['provenance']['data_fingerprint']}\n" in about
    found = content["features"]
    assert len(found) == 4 and found[3]["properties"] == {"kind": "truth"}
    longitude, latitude = found[0]["geometry"]["coordinates"]
    assert (latitude, longitude) == pytest.approx((float(rows[0][1]), float(rows[0][2])), abs=1e-6)
    _, latitude, longitude, _ = name.split(",")
    assert found[3]["geometry"]["coordinates"] == pytest.approx([float(longitude), float(latitude)], abs=2e-6)
    spread = {"along_m", "across_m", "along_deg"}
    assert found[0]["properties"].keys() == {"rank", "city", "heading_deg", "probability", *spread}
    assert found[0]["properties"]["along_m"] >= found[0]["properties"]["across_m"] > 0
    assert min(Image.open(stem.with_suffix(".png")).size) > 250


@pytest.mark.parametrize("vertical", [(90, 90), (40, 50)])
def test_the_script_takes_the_user_s_panorama_whole_or_cropped(root, line, tmp_path, vertical):
    """Its centre looks east; a guess limits the search."""
    test = load_index(root, split="test")
    row = int(np.flatnonzero(test.city == test.cities.index("Chicago"))[0])
    _, latitude, longitude, _ = test.panorama[row].decode().split(",")
    turned = np.roll(np.asarray(Image.open(root / test.panorama_image(row).path)), -64, 1)
    top, bottom = (round((90 + part) * len(turned) / 180) for part in (-vertical[0], vertical[1]))
    Image.fromarray(turned[top:bottom]).save(tmp_path / "street.png")
    near = f"--near {latitude} {longitude} --radius 60 --heading 90 --vertical {vertical[0]} {vertical[1]}"
    flags = f"--city Chicago --panorama {tmp_path}/street.png --output_dir {tmp_path}"
    call("search_VIGOR", f"{line} {flags} {near}")
    features = json.loads((tmp_path / "own_street.geojson").read_text())["features"]
    assert features[-1]["properties"] == {"kind": "guess", "radius_m": 60.0}
    assert features[0]["properties"]["heading_deg"] == 90
    found = features[0]["geometry"]["coordinates"][::-1]
    place = geometry.gps_to_position(*found, float(latitude), float(longitude))
    assert np.hypot(*np.subtract(place, 320)) * 0.11 < 3


def test_the_position_in_a_file_is_a_prior_where_it_can_be_right(known, root, line, tmp_path, capsys):
    """A phone's EXIF limits the search to its surroundings; 0 0 and other countries are not believed."""
    searcher, dataset = known
    latitude, longitude = searcher.cities[0].tiles.gps[0].tolist()
    assert searcher.prior_of(None, 200.0) == (None, None)
    for place, says in (
        ((0.0, 0.0), "0.00000"),
        ((91.0, 5.0), "91.00000"),
        ((latitude + 1, longitude), " km from"),
    ):
        near, note = searcher.prior_of(place, 200.0)
        assert near is None and says in note and "not used" in note
    gps = {1: "N", 2: (latitude, 0.0, 0.0), 3: "W", 4: (-longitude, 0.0, 0.0)}
    image = Image.open(root / dataset.index.panorama_image(0).path)
    image.save(tmp_path / "street.jpg", exif=make_exif(gps=gps))
    flags = f"--city Seattle Seattle --panorama {tmp_path}/street.jpg --heading 0 --output_dir {tmp_path}"
    call("search_VIGOR", f"{line} {flags} --radius 70")
    features = json.loads((tmp_path / "own_street.geojson").read_text())["features"]
    assert features[-1]["properties"] == {"kind": "guess", "radius_m": 70.0}
    assert features[-1]["geometry"]["coordinates"] == pytest.approx([longitude, latitude], abs=1e-5)
    said = capsys.readouterr().out
    assert "EXIF" in said and "--near" in said
    assert "checkpoint_sha256: " in (tmp_path / "own_street.txt").read_text()


def test_evaluation_measures_what_single_searches_find(known, line, tmp_path, capsys):
    flags = f"--city {' '.join(WHERE)} --evaluate --calibrate 2 --limit 6 --output_dir {tmp_path}"
    call("search_VIGOR", f"{line} {flags}")
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
    assert table["index"].unique().tolist() == [0, 1, 2, 4, 5, 7], "evenly spread"
    tiles = sum(len(city.tiles.names) for city in searcher.cities)
    for i in (0, 5):
        best = searcher.places(dataset[i], searcher.scan(dataset[i]), pool=4)[0]
        (row,) = table[(table["index"] == i) & (table["scope"] == "all cities")].to_dict("records")
        assert row["error_m"] == pytest.approx(distance_m(best, truth_px(dataset[i], 128)), abs=1e-3)
        assert row["panorama"] == dataset.index.panorama[dataset.pairs[i][0]].decode()
        assert row["tile_holds"] == (row["error_m"] < 30) and row["tiles"] == tiles
    found = table[(table["scope"] == "city") & (table["error_m"] < 5)]
    assert (found["tile_rank"] == 0).mean() > 0.8
    assert (tmp_path / "search_recall_samearea.txt").read_text() in printed and "R@1%" in printed
    assert (tmp_path / "search_CED_samearea.png").exists()
    assert "calibrated on 2 validation panoramas" in printed


def test_two_processes_measure_the_same(line, tmp_path):
    rest = f"{line} --city Seattle --evaluate --calibrate 0 --limit 3"
    call("search_VIGOR", f"{rest} --output_dir {tmp_path / 'one'}")
    run_group(tmp_path / "log", 2, script, "search_VIGOR", f"{rest} --output_dir {tmp_path / 'two'}")
    one, two = (pd.read_csv(tmp_path / name / "search_results_samearea.csv") for name in ("one", "two"))
    pd.testing.assert_frame_equal(one.drop(columns="seconds"), two.drop(columns="seconds"), rtol=1e-4)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--idx 0 --radius 50", "--radius needs --near"),
        ("--idx 0 --heading 50", "--heading "),
        ("--idx 0 --limit 5", "--limit needs --evaluate"),
        ("--panorama x.jpg --hfov 70", "--hfov "),
        ("--photo x.jpg --vertical 40 30", "--vertical "),
        ("--evaluate --near 40 -74", "--near "),
        ("--idx 0 --hfov 70", "--hfov 70"),
        ("--city Seattle --idx 99", "--idx 99: "),
        ("--city Seattle --panorama none.jpg", "none.jpg: no such file"),
    ],
)
def test_a_flag_that_does_not_apply_is_refused(line, flags, message, capsys):
    assert message in refusal("search_VIGOR", f"{line} {flags}", capsys)


def test_bad_requests_get_one_line(root, line, tmp_path, capsys, vigor_root):
    seattle = f"{line} --city Seattle --idx 0"
    error = refusal("search_VIGOR", f"{seattle} --near 47.61 -122.3", capsys)
    words = r"of Seattle lies within 200 m of 47.61 -122.3; .* is (\S+) km away, at (\S+) (\S+)$"
    km, *place = map(float, re.search(words, error).groups())
    index = load_index(root)
    gps = index.satellite_gps[index.satellite_city == index.cities.index("Seattle")]
    metres = np.hypot(*((gps - [47.61, -122.3]) * 111_320 * [1, np.cos(np.radians(47.61))]).T)
    assert km == pytest.approx(metres.min() / 1000, abs=0.06)
    assert place == pytest.approx(gps[metres.argmin()], abs=1e-5)
    # none of its panoramas is for validation
    few = f"--dataset_root {vigor_root} --train_cities SanFrancisco --city SanFrancisco"
    error = refusal("search_VIGOR", f"{line} --evaluate {few} --index_root {tmp_path / 'index'}", capsys)
    assert "--calibrate 0" in error and "--val_on" not in error
    save_network(tmp_path, make_network())
    error = refusal("search_VIGOR", f"--model_path {tmp_path} --dataset_root {root} --idx 0", capsys)
    assert f"{tmp_path / 'best.pt'}: a published network has no templates" in error
