"""Other cities than VIGOR's, or some of these, from training to pictures: named once, then followed."""

import json

import pandas as pd
import pytest
import yaml
from children import SMALL, call, refusal, run_folder, run_script

pytestmark = pytest.mark.slow
LIGHT = f"{SMALL} --network light --epochs 1 --max_steps 1"
CROSSAREA = f"{LIGHT} --area crossarea"


@pytest.fixture(scope="module")
def trained(own_root, tmp_path_factory):
    """(a run that trained in Delft to be tested in Leiden, what it printed)."""
    folder = tmp_path_factory.mktemp("trained")
    line = f"{CROSSAREA} --train_cities Delft --test_cities Leiden --dataset_root {own_root}"
    said = run_script(folder / "out", "train_VIGOR", f"{line} --runs_root {folder / 'runs'}")
    return run_folder(folder / "runs"), said


@pytest.fixture(scope="module")
def evaluated(trained, own_root):
    """That run, evaluated without naming cities."""
    call("eval_VIGOR", f"--model_path {trained[0]} --dataset_root {own_root} --num_workers 0")
    return trained[0]


def test_a_run_keeps_its_cities(trained, capsys):
    run, said = trained
    assert "training pairs are of Delft\nvalidation pairs are of Delft\n" in said
    kept = yaml.safe_load((run / "args.yaml").read_text())
    assert (kept["train_cities"], kept["test_cities"]) == (["Delft"], ["Leiden"])
    error = refusal("train_VIGOR", f"--resume {run} --train_cities Leiden", capsys)
    assert "--train_cities ['Leiden'] differs from the run's ['Delft']" in error
    call("train_VIGOR", f"--resume {run} --train_cities Delft")
    assert "resumed at epoch 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("cities", "city"),
    [("--train_cities Delft --test_cities Leiden Delft", "Delft"), ("--train_cities Chicago", "Chicago")],
)
def test_no_city_trains_and_tests_in_crossarea(own_root, tmp_path, capsys, cities, city):
    line = f"{CROSSAREA} {cities} --dataset_root {own_root} --runs_root {tmp_path}"
    assert f"--area crossarea: {city} would train and test" in refusal("train_VIGOR", line, capsys)


def test_evaluation_and_pictures_follow_the_run(evaluated, own_root, tmp_path, capsys):
    table = pd.read_csv(evaluated / "results/per_image_results_crossarea.csv")
    assert table["city"].tolist() == ["Leiden"] * 12
    report = (evaluated / "results/localization_errors_crossarea.txt").read_text()
    assert report.startswith("crossarea test of Leiden, 12 pairs (positives), ")
    (fit,) = json.loads((evaluated / "calibration.json").read_text())["fits"]
    assert fit["train_cities"] == ["Delft"] and "test_cities" not in fit
    line = f"--model_path {evaluated} --dataset_root {own_root} --dpi 30 --device cpu --output_dir {tmp_path}"
    for flags, row in (("--idx 3", 3), ("--worst 1", table["error_m"].idxmax())):
        call("visualize_loc", f"{line} {flags}")
        said = capsys.readouterr().out
        assert table["panorama"][row] in said and "heat map, calibrated" in said
    error = refusal("visualize_loc", f"{line} --worst 1 --test_cities Delft", capsys)
    assert "--test_cities ['Delft']: " in error and "['Leiden']" in error


def test_an_evaluation_of_other_cities_is_not_written_over(evaluated, own_root, tmp_path, capsys):
    line = f"--model_path {evaluated} --dataset_root {own_root} --num_workers 0 --test_cities Delft"
    assert "is of crossarea test of Leiden, 12 pairs" in refusal("eval_VIGOR", line, capsys)
    call("eval_VIGOR", f"{line} --output_dir {tmp_path}")
    assert set(pd.read_csv(tmp_path / "per_image_results_crossarea.csv")["city"]) == {"Delft"}
    error = refusal("eval_VIGOR", f"--compare {evaluated} {tmp_path}", capsys)
    assert "these evaluations have no pair in common" in error


def test_a_network_goes_to_another_folder(trained, vigor_root, tmp_path, capsys):
    """Where its own cities are missing, a refusal lists those that the folder has."""
    line = f"--model_path {trained[0]} --dataset_root {vigor_root} --num_workers 0 --output_dir {tmp_path}"
    choice = "has lists of NewYork, Seattle, SanFrancisco, Chicago; choose of these with"
    error = refusal("eval_VIGOR", line, capsys)
    assert "--test_cities Leiden: " in error and f"{choice} --test_cities" in error
    error = refusal("eval_VIGOR", f"{line} --test_cities Chicago", capsys)
    assert f"{choice} --train_cities" in error and "--calibrate 0" in error
    call("eval_VIGOR", f"{line} --train_cities Seattle --test_cities Chicago SanFrancisco --pos_only True")
    assert "crossarea test, 24 pairs" in capsys.readouterr().out  # VIGOR's rule, named
    table = pd.read_csv(tmp_path / "per_image_results_crossarea.csv")
    assert set(table["city"]) == {"SanFrancisco", "Chicago"}


def test_a_search_looks_in_the_cities_of_the_list(trained, own_root, tmp_path, capsys):
    line = f"--model_path {trained[0]} --dataset_root {own_root} --dpi 30 --pool 2 --output_dir {tmp_path}"
    call("search_VIGOR", f"{line} --evaluate --limit 1 --calibrate 1")
    assert "search over Leiden, 4 satellite images; crossarea test, 1 of 12 pairs" in capsys.readouterr().out
    searched = trained[0] / "search/index/best"  # calibrated in the city of training
    assert {path.name.partition("_")[0] for path in searched.iterdir()} == {"Leiden", "Delft"}
    call("search_VIGOR", f"{line} --test_cities Delft --city Delft --idx 0")
    said = capsys.readouterr().out
    assert " 1  Delft " in said and "calibrated on 1 validation panorama" in said
    error = refusal("search_VIGOR", f"{line} --city Delft --idx 0", capsys)
    assert error.endswith("--city Delft: the crossarea test list has panoramas of Leiden")


def test_one_city_of_mini_vigor_serves_every_command(seattle, tmp_path, capsys):
    flags = f"--hard_negatives 1 --mine_every 1 --epochs 2 --runs_root {tmp_path / 'runs'}"
    said = run_script(tmp_path / "out", "train_VIGOR", f"{LIGHT} {flags} --dataset_root {seattle}")
    assert "3 training pairs and 1 validation pair" in said and "training pairs are of Seattle" in said
    data = f"--model_path {run_folder(tmp_path / 'runs')} --dataset_root {seattle}"
    pictures = "visualize_loc", "visualize_attention", "visualize_semi_positive"
    for script, flags, expected in (
        ("eval_VIGOR", "--num_workers 0", "samearea test of Seattle, 4 pairs"),
        ("search_VIGOR", "--idx 0 --dpi 30 --top 1 --pool 2", " 1  Seattle "),
        *((script, "--idx 0 --dpi 30 --device cpu", "picture: ") for script in pictures),
    ):
        call(script, f"{data} {flags}")
        assert expected in capsys.readouterr().out
