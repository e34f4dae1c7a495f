"""The table of parts: which flags a row changes, which rows are made, what the numbers mean."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from children import call, refusal

import eval_VIGOR
import train_VIGOR
from benchmarks.parts import PREDICTIONS, Row, epochs_of, make_rows, read_rows, run
from benchmarks.parts_table import CHANGES, FULL, full_set_up, markdown, parts_of, summarise
from common.errors import UserError
from common.files import locked
from engine.inference.metrics import bootstrap_over_runs

TRAINING = {"epochs": 3, "max_steps": 100, "val_every": 3, "batch_size": 4}
ROWS = [Row("light", "samearea", part, 0) for part in (FULL, "no_mask", "no_ema")]


def test_a_part_trains_with_the_full_set_up_but_for_its_own_flag():
    parsed = {}
    for part, change in CHANGES.items():
        main = partial(parsed.__setitem__, part)
        run(SimpleNamespace(build_parser=train_VIGOR.build_parser, main=main), full_set_up("light") | change)
        assert vars(parsed[part]) == vars(parsed[FULL]) | change
    assert parts_of("light") == [part for part in CHANGES if part not in ("augment_full", "imagenet")]
    assert parts_of("published") == [FULL, "no_mixstyle", "no_mask"]
    large = parts_of("ground_plane", CHANGES)
    assert "augment_full" in large and not {"augment_photometric", "no_imagenet"} & set(large)


def test_every_row_has_the_same_number_of_steps():
    assert epochs_of(300, 119) == 3 and epochs_of(90, 119) == 1
    with pytest.raises(UserError, match=r"--steps 401.* 400"):
        epochs_of(401, 119)


def write_predictions(path, errors, **columns):
    names = [f"panorama_{i}" for i in range(len(errors))]
    table = pd.DataFrame({"panorama": names, "satellite": "s", "error_m": np.array(errors, float), **columns})
    path.parent.mkdir(parents=True, exist_ok=True)
    table[::-1].to_csv(path, index=False)


def write_row(output, part, seed, errors, **columns):
    write_predictions(Row("light", "samearea", part, seed).folder(output) / PREDICTIONS, errors, **columns)


def test_the_numbers_of_a_table_made_by_hand(tmp_path):
    """Three seeds of 40 pairs: one part is half a metre worse everywhere, one alternates, one is a task."""
    base = np.linspace(0.1, 2, 40)
    turns = np.where(np.arange(40) % 2, 0.3, -0.3)
    for seed, shift in enumerate((0.0, 0.1, 0.2)):
        write_row(tmp_path, "full", seed, base + shift)
        write_row(tmp_path, "no_mask", seed, base + shift + 0.5)
        write_row(tmp_path, "no_ema", seed, base + shift + turns * (seed - 1))
    write_row(tmp_path, "heading_20", 1, base - 0.05, heading_error_deg=-4.0)
    table = summarise(read_rows(tmp_path))
    assert table["part"].tolist() == ["full", "no_mask", "no_ema", "heading_20"]
    full, no_mask, no_ema, heading = table.to_dict("records")
    assert full["mean_m"] == pytest.approx(base.mean() + 0.1) and full["spread_m"] == pytest.approx(0.1)
    assert full["median_m"] == pytest.approx(1.05 + 0.1) and np.isnan(full["difference_m"])
    assert (no_mask["difference_m"], no_mask["low_m"], no_mask["high_m"]) == pytest.approx((0.5, 0.5, 0.5))
    assert no_ema["difference_m"] == pytest.approx(0) and no_ema["low_m"] < 0 < no_ema["high_m"]
    assert (no_mask["verdict"], no_ema["verdict"]) == ("larger error", "not significant")
    assert (heading["seeds"], heading["difference_m"]) == (1, pytest.approx(-0.15))
    assert heading["heading_median_deg"] == 4 and np.isnan(heading["spread_m"])
    text = markdown(table, TRAINING)
    assert "max_steps 100" in text and "--use_mask False" in text
    assert "| +0.500 | +0.500 | +0.500 | larger error |" in text and "nan" not in text


def test_other_pairs_are_not_compared(tmp_path):
    write_row(tmp_path, FULL, 0, [1, 2, 3])
    write_row(tmp_path, "no_mask", 0, [1, 2])
    with pytest.raises(UserError, match=r"light samearea: .*--output_dir"):
        summarise(read_rows(tmp_path))


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Three runs differ more by their seeds than by their pairs; the plain bootstrap would reach 74 %."""
    rng = np.random.default_rng(0)
    held = 0
    for i in range(300):
        differences = rng.normal(0, 1, (3, 1)) + rng.normal(0, 0.5, (3, 50))
        low, high = bootstrap_over_runs(differences, seed=i, resamples=200)
        held += low <= 0 <= high
    assert 0.9 < held / 300 < 0.995
    one = rng.normal(0.2, 1, (1, 400))  # of a single run: mean and standard error of its pairs
    error = 1.96 * one.std() / 20
    assert bootstrap_over_runs(one) == pytest.approx((one.mean() - error, one.mean() + error), abs=0.01)


@pytest.fixture
def trainings(monkeypatch):
    """The parts that were trained. Training leaves a run folder, evaluation two pairs; no_ema fails once."""
    parts = []

    def train(args):
        folder = Path(args.runs_root)
        assert not [path for path in folder.iterdir() if path.is_dir()], "not started anew"
        parts.append(folder.parent.name)
        (folder / "run").mkdir()
        if parts.count("no_ema") == 1 and parts[-1] == "no_ema":
            raise UserError("the training went wrong")

    def evaluate(args):
        write_predictions(Path(args.output_dir, "per_image_results_samearea.csv"), [1, 2])

    monkeypatch.setattr(train_VIGOR, "main", train)
    monkeypatch.setattr(eval_VIGOR, "main", evaluate)
    return parts


def test_a_failed_row_stops_no_other_and_only_unfinished_rows_are_made_again(trainings, tmp_path, capsys):
    half = ROWS[1].folder(tmp_path)
    (half / "interrupted_run").mkdir(parents=True)
    with pytest.raises(UserError, match=r"1 of 3 rows failed.*went wrong"):
        make_rows(ROWS, tmp_path, TRAINING, {})
    assert trainings == [FULL, "no_mask", "no_ema"]
    assert "light samearea no_mask 0: mean 1.50 m" in capsys.readouterr().out
    (half / PREDICTIONS).unlink()
    make_rows(ROWS, tmp_path, TRAINING, {})
    assert trainings[3:] == ["no_mask", "no_ema"]
    make_rows(ROWS, tmp_path, TRAINING, {})
    assert len(trainings) == 5


def test_processes_share_the_rows(trainings, tmp_path):
    with locked(ROWS[1].folder(tmp_path), "is making a row in"):
        make_rows(ROWS[:2], tmp_path, TRAINING, {})
    assert trainings == [FULL]
    make_rows(ROWS[:2], tmp_path, TRAINING, {})
    assert trainings == [FULL, "no_mask"]


@pytest.mark.slow
def test_rows_are_trained_and_measured_by_the_scripts(vigor_root, tmp_path, capsys):
    small = f"--dataset_root {vigor_root} --satellite_size 64 --panorama_size 64 128 --device cpu"
    small += f" --output_dir {tmp_path}/parts --parts full no_mask --areas samearea --seeds 1"
    call("benchmarks.parts", f"{small} --steps 2")
    assert "2 of 2: light samearea no_mask 0: mean" in capsys.readouterr().out
    for row in ROWS[:2]:
        args = next(row.folder(tmp_path / "parts").glob("*/args.yaml")).read_text()
        assert f"use_mask: {str(row.part == FULL).lower()}\n" in args and "max_steps: 2\n" in args
    assert len(pd.read_csv(tmp_path / "parts/parts.csv")) == 2
    assert (tmp_path / "parts/parts.png").stat().st_size > 10_000
    (ROWS[0].folder(tmp_path / "parts") / PREDICTIONS).write_text("something else\n1\n")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/notes.txt").write_text("mine")
    for line, message in (
        (f"{small} --steps 4", "max_steps 2, not 4"),
        (f"--summarise --output_dir {tmp_path}/parts", PREDICTIONS),
        (f"--summarise --output_dir {tmp_path}/none", f"{tmp_path}/none"),
        (f"{small} --steps 2 --output_dir {tmp_path}/foreign", f"{tmp_path}/foreign"),
    ):
        assert message in refusal("benchmarks.parts", line, capsys)
