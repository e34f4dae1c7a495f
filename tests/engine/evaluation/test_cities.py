"""Other cities than VIGOR's, or some of these, from training to pictures: named once, then followed."""

import json
from dataclasses import replace

import pandas as pd
import pytest
import yaml
from children import SMALL, call, refusal, run_folder, run_script

from dataset.mini_vigor import writer
from engine.inference import temperatures
from engine.inference.asked import asked_protocol
from model.checkpoint import load_model

LIGHT = f"{SMALL} --network light --epochs 1 --max_steps 1"
NAMED = "--area crossarea --train_cities Delft --test_cities Leiden"


@pytest.fixture(scope="module")
def trained(own_root, tmp_path_factory):
    """(a run that trained in Delft to be tested in Leiden, what it said)."""
    folder = tmp_path_factory.mktemp("trained")
    line = f"{LIGHT} {NAMED} --dataset_root {own_root} --runs_root {folder / 'runs'}"
    said = run_script(folder / "out", "train_VIGOR", line)
    return run_folder(folder / "runs"), said


@pytest.fixture(scope="module")
def evaluated(trained, own_root):
    """That run, evaluated without a word of cities."""
    call("eval_VIGOR", f"--model_path {trained[0]} --dataset_root {own_root} --num_workers 0")
    return trained[0]


def test_a_run_says_and_keeps_its_cities(trained, own_root, tmp_path, capsys):
    run, said = trained
    assert "training pairs are of Delft\nvalidation pairs are of Delft\n" in said
    kept = yaml.safe_load((run / "args.yaml").read_text())
    assert (kept["train_cities"], kept["test_cities"]) == (["Delft"], ["Leiden"])
    assert "--train_cities ['Leiden'] differs from the run's ['Delft']" in refusal(
        "train_VIGOR", f"--resume {run} --train_cities Leiden", capsys
    )
    assert "resumed at epoch 2" in run_script(
        tmp_path / "out", "train_VIGOR", f"--resume {run} --train_cities Delft"
    )


@pytest.mark.parametrize(
    ("cities", "city"),
    [("--train_cities Delft --test_cities Leiden Delft", "Delft"), ("--train_cities Chicago", "Chicago")],
)
def test_no_city_trains_and_tests_in_crossarea(own_root, tmp_path, capsys, cities, city):
    line = refusal(
        "train_VIGOR",
        f"{LIGHT} --area crossarea {cities} --dataset_root {own_root} --runs_root {tmp_path}",
        capsys,
    )
    assert f"--area crossarea: {city} would train and test" in line


def test_evaluation_and_pictures_follow_the_run(evaluated, own_root, tmp_path, capsys):
    table = pd.read_csv(evaluated / "results/per_image_results_crossarea.csv")
    assert table["city"].tolist() == ["Leiden"] * 12
    report = (evaluated / "results/localization_errors_crossarea.txt").read_text()
    assert report.startswith("crossarea test of Leiden, 12 pairs (positives), ")
    (fit,) = json.loads((evaluated / "calibration.json").read_text())["fits"]
    assert fit["train_cities"] == ["Delft"] and "test_cities" not in fit
    common = (
        f"--model_path {evaluated} --dataset_root {own_root} --dpi 30 --device cpu --output_dir {tmp_path}"
    )
    call("visualize_loc", f"{common} --idx 3")
    said = capsys.readouterr().out
    assert table["panorama"][3] in said and "heat map, calibrated" in said
    call("visualize_loc", f"{common} --worst 1")
    assert table["panorama"][table["error_m"].idxmax()] in capsys.readouterr().out
    assert "--test_cities ['Delft']: the evaluation that --worst reads had ['Leiden']" in refusal(
        "visualize_loc", f"{common} --worst 1 --test_cities Delft", capsys
    )


def test_an_evaluation_of_other_cities_is_not_written_over(evaluated, own_root, tmp_path, capsys):
    line = f"--model_path {evaluated} --dataset_root {own_root} --num_workers 0 --test_cities Delft"
    assert "is of crossarea test of Leiden, 12 pairs" in refusal("eval_VIGOR", line, capsys)
    call("eval_VIGOR", f"{line} --output_dir {tmp_path}")
    assert set(pd.read_csv(tmp_path / "per_image_results_crossarea.csv")["city"]) == {"Delft"}
    capsys.readouterr()
    error = refusal("eval_VIGOR", f"--compare {evaluated} {tmp_path}", capsys)
    assert "these evaluations have no pair in common" in error


def test_a_network_goes_to_another_folder(trained, vigor_root, tmp_path, capsys):
    """Its own cities are not there, which one line says; cities on the command line stand in for them."""
    line = f"--model_path {trained[0]} --dataset_root {vigor_root} --num_workers 0 --output_dir {tmp_path}"
    there = "has lists of NewYork, Seattle, SanFrancisco, Chicago; choose of these with"
    error = refusal("eval_VIGOR", line, capsys)
    assert "--test_cities Leiden: " in error and f"{there} --test_cities" in error
    error = refusal("eval_VIGOR", f"{line} --test_cities Chicago", capsys)
    assert f"{there} --train_cities. It is needed for calibration, which --calibrate 0 leaves out" in error
    call("eval_VIGOR", f"{line} --train_cities Seattle --test_cities Chicago SanFrancisco --pos_only True")
    assert "crossarea test, 24 pairs" in capsys.readouterr().out  # VIGOR's rule, named
    assert set(pd.read_csv(tmp_path / "per_image_results_crossarea.csv")["city"]) == {
        "SanFrancisco",
        "Chicago",
    }


def test_a_search_looks_in_the_cities_of_the_list(trained, own_root, tmp_path, capsys):
    common = f"--model_path {trained[0]} --dataset_root {own_root} --dpi 30 --pool 2 --output_dir {tmp_path}"
    call("search_VIGOR", f"{common} --evaluate --limit 1 --calibrate 1")
    assert "search over Leiden, 4 satellite images; crossarea test, 1 of 12 pairs" in capsys.readouterr().out
    call("search_VIGOR", f"{common} --test_cities Delft --city Delft --idx 0")
    said = capsys.readouterr().out
    assert " 1  Delft " in said and "calibrated on 1 validation panoramas" in said
    error = refusal("search_VIGOR", f"{common} --city Delft --idx 0", capsys)
    assert error.endswith("--city Delft: the crossarea test list has panoramas of Leiden")


def test_a_calibration_is_of_the_cities_that_train(trained):
    """Fits of other training cities, or of none named, are others."""
    checkpoint = load_model(trained[0])
    cities = None, ("Leiden",), ("Delft",)
    protocols = [replace(asked_protocol(checkpoint, {}), train_cities=named) for named in cities]
    keys = [temperatures.conditions_key(checkpoint, protocol, checkpoint.view) for protocol in protocols]
    path = trained[0] / "fits.json"
    for pairs, key in enumerate(keys, 1):
        temperatures.store_fit(path, key, {"temperature": 0.1, "pairs": pairs}, checkpoint)
    assert [temperatures.find_fit(path, key)["pairs"] for key in keys] == [1, 2, 3]


def test_one_city_of_mini_vigor_serves_every_command(tmp_path, capsys):
    root = writer.make(
        tmp_path / "mini",
        cities=["Seattle"],
        seed=3,
        panoramas=8,
        panorama_width=64,
        progress=False,
        workers=1,
    )
    mined = "--hard_negatives 1 --mine_every 1 --epochs 2"
    line = f"{LIGHT} {mined} --dataset_root {root} --runs_root {tmp_path / 'runs'}"
    said = run_script(tmp_path / "out", "train_VIGOR", line)
    assert "3 training and 1 validation pairs" in said and "training pairs are of Seattle" in said
    common = f"--model_path {run_folder(tmp_path / 'runs')} --dataset_root {root}"
    call("eval_VIGOR", f"{common} --num_workers 0")
    assert capsys.readouterr().out.startswith("samearea test of Seattle, 4 pairs")
    call("search_VIGOR", f"{common} --idx 0 --dpi 30 --top 1 --pool 2")
    assert " 1  Seattle " in capsys.readouterr().out
    for script in ("visualize_loc", "visualize_attention", "visualize_semi_positive"):
        call(script, f"{common} --idx 0 --dpi 30 --device cpu")
        assert "picture: " in capsys.readouterr().out
