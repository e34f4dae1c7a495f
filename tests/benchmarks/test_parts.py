"""The table of parts: which flags a row changes, which rows are made, what the numbers mean."""

import shutil
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import numpy as np
import pandas as pd
import pytest
import torch
from children import PROJECT, call, refusal

import train_VIGOR
from benchmarks.parts.__main__ import make_rows, write_table
from benchmarks.parts.catalogue import NAMED, parts_of
from benchmarks.parts.rows import LOG, PREDICTIONS, Length, Row, Work, time_left
from benchmarks.parts.table import markdown, read_rows, summarise
from common.errors import UserError
from engine.evaluation.conditions import Source
from engine.evaluation.metrics import bootstrap_over_runs
from engine.training.flags import TrainingSettings

CHANGES = {  # of the light network, setting by setting
    "full": {},
    "no_mixstyle": {"use_mixstyle": False},
    "crossdomain": {"mixstyle_mix": "crossdomain"},
    "no_mask": {"use_mask": False},
    "no_circular_padding": {"circular_padding": False},
    "semi_positives": {"pos_only": False},
    "augment_none": {"augment": "none"},
    "augment_photometric": {"augment": "photometric"},
    "augment_strong": {"augment": "strong"},
    "no_imagenet": {"backbone_weights": "none"},
    "no_ema": {"ema": 0},
    "loss_cross_entropy": {"loss": "cross_entropy"},
    "loss_focal": {"loss": "focal"},
    "fov_180": {"FoV": 180},
    "fov_90": {"FoV": 90},
    "heading_20": {"ori_noise": 20},
    "heading_180": {"ori_noise": 180},
}
SIZES = {"satellite_size": 128, "panorama_size": (128, 256)}


def work(output):
    source = Source(dataset_root="/data/city", cache_root=str(output / "cache"))
    return Work(output / "parts", source, SIZES, Length.of(400, 119), torch.device("cpu"), 0)


def settings_of(work, row):
    """Every setting of a row's training, as train_VIGOR.py reads its command."""
    return TrainingSettings.start(vars(train_VIGOR.build_parser().parse_args(work.command(row)))).plain()


def test_a_part_differs_from_the_full_set_up_in_what_its_name_says_alone(tmp_path):
    made = work(tmp_path)
    full = settings_of(made, Row("light", "crossarea", "full", 2))
    for name in (part.name for part in parts_of("light")):
        settings = settings_of(made, Row("light", "crossarea", name, 2))
        folder = settings.pop("runs_root")
        assert {key: value for key, value in settings.items() if value != full[key]} == CHANGES.pop(name)
        assert folder.endswith(f"light/crossarea/{name}/seed2")
    assert not CHANGES
    plain = TrainingSettings.start({"network": "light"}).plain()  # the full set-up is the recommended one, but for its length
    own = {"area", "seed", "satellite_size", "panorama_size", "vert_anchors", "horz_anchors", "batch_size", "epochs", "max_steps"}
    own |= {"val_every", "dataset_root", "cache_root", "runs_root", "num_workers", "device"}
    assert {name for name, value in full.items() if value != plain[name]} <= own
    assert (full["epochs"], full["max_steps"], full["val_every"]) == (4, 100, 4)


@pytest.mark.parametrize("network", ["ground_plane", "published"])
def test_large_networks_start_from_none_and_do_three_parts(network, tmp_path):
    assert [part.name for part in parts_of(network)] == ["full", "no_mixstyle", "no_mask"]
    full = settings_of(work(tmp_path), Row(network, "samearea", "full", 0))
    recipe = full["backbone_weights"], full["learning_rate"], full["augment"], full["ema"], full["warmup"]
    assert recipe == ("none", 1e-3, "photometric", 0.99, "50steps")
    assert {"augment_full", "imagenet"} < {part.name for part in parts_of(network, list(NAMED))}  # for whoever asks


def test_every_row_has_the_very_same_number_of_steps():
    assert Length.of(400, 119) == Length(4, 100) and Length.of(90, 119) == Length(1, 90)
    with pytest.raises(UserError, match=r"--steps 401: .* take 400"):
        Length.of(401, 119)


def table_of(errors, **columns):
    names = [f"panorama_{i}" for i in range(len(errors))]
    return pd.DataFrame({"panorama": names, "satellite": "s", "error_m": np.asarray(errors, float), **columns})


def write_row(output, row, errors, backwards=False, **columns):
    folder = row.folder(output)
    folder.mkdir(parents=True)
    table_of(errors, **columns)[:: -1 if backwards else 1].to_csv(folder / PREDICTIONS, index=False)


def test_the_numbers_of_a_table_made_by_hand(tmp_path):
    """Three seeds of 40 pairs: a part that is half a metre worse everywhere, and one that is worse and better by turns."""
    base = np.linspace(0.1, 2, 40)
    turns = np.where(np.arange(40) % 2, 0.3, -0.3)
    for seed, shift in enumerate((0.0, 0.1, 0.2)):
        write_row(tmp_path, Row("light", "samearea", "full", seed), base + shift)
        write_row(tmp_path, Row("light", "samearea", "no_mask", seed), base + shift + 0.5, backwards=True)
        write_row(tmp_path, Row("light", "samearea", "no_ema", seed), base + shift + turns * (seed - 1))
    write_row(tmp_path, Row("light", "samearea", "heading_20", 1), base - 0.05, heading_error_deg=-4.0)
    table = summarise(read_rows(tmp_path))
    assert table["part"].tolist() == ["full", "no_mask", "no_ema", "heading_20"]
    full, no_mask, no_ema, heading = table.to_dict("records")
    assert full["mean_m"] == pytest.approx(base.mean() + 0.1) and full["spread_m"] == pytest.approx(0.1)
    assert full["median_m"] == pytest.approx(1.05 + 0.1) and np.isnan(full["difference_m"])
    assert (no_mask["difference_m"], no_mask["low_m"], no_mask["high_m"]) == pytest.approx((0.5, 0.5, 0.5))
    assert no_mask["verdict"] == "larger error"
    assert no_ema["difference_m"] == pytest.approx(0) and no_ema["low_m"] < 0 < no_ema["high_m"]
    assert no_ema["verdict"] == "not told apart from zero"
    assert (heading["seeds"], heading["difference_m"]) == (1, pytest.approx(-0.15)) and heading["heading_median_deg"] == 4
    assert np.isnan(heading["spread_m"])
    held = {"steps": 400, "batch_size": 4, "satellite_size": "128", "panorama_size": "128 256"}
    text = markdown(table, {"light": held})
    assert (
        "| inputs: without mask (`--use_mask False`) | 3 | 1.650 | 0.100 |" in text
        and "+0.500 (+0.500 to +0.500) | larger error |" in text
    )
    assert "not told apart from zero" in text and "| heading within ±20° (`--ori_noise 20`) | 1 |" in text and "| 4.00° |" in text


def test_other_pairs_are_not_compared(tmp_path):
    write_row(tmp_path, Row("light", "samearea", "full", 0), [1, 2, 3])
    write_row(tmp_path, Row("light", "samearea", "no_mask", 0), [1, 2])
    with pytest.raises(UserError, match="light samearea no_mask: not the same pairs"):
        summarise(read_rows(tmp_path))


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Three runs that differ more by their seeds than by their pairs: without the stretch it were 74 %."""
    rng = np.random.default_rng(0)
    held = 0
    for i in range(300):
        low, high = bootstrap_over_runs(rng.normal(0, 1, (3, 1)) + rng.normal(0, 0.5, (3, 50)), seed=i, resamples=200)
        held += low <= 0 <= high
    assert 0.9 < held / 300 < 0.995
    differences = rng.normal(0.2, 1, (1, 400))  # of one run: mean and standard error of its pairs
    low, high = bootstrap_over_runs(differences)
    error = differences.std() / 20
    assert [low, high] == pytest.approx([differences.mean() - 1.96 * error, differences.mean() + 1.96 * error], abs=0.01)
    assert bootstrap_over_runs(differences) == (low, high)


ROWS = [Row("light", "samearea", name, 0) for name in ("full", "no_mask", "no_ema")]


@pytest.fixture
def trainings(tmp_path, monkeypatch):
    """The rows that were trained, by folder; a training leaves a run folder and evaluation two pairs."""
    calls = []

    def train(args):
        folder = Path(args.runs_root)
        assert [path.name for path in folder.iterdir() if not path.name.startswith(".")] == [LOG], "not started anew"
        calls.append(folder.parent.name)
        run = folder / "run"
        run.mkdir()
        for name in ("best.pt", "latest.pt"):
            (run / name).write_bytes(b"weights")

    monkeypatch.setattr(train_VIGOR, "main", train)
    monkeypatch.setattr(Work, "evaluate", lambda work, run_folder: table_of([1, 2]))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/manifest.json").write_text('{"files_sha256": "0123456789abcdef"}')
    return calls


def test_a_complete_row_is_not_made_again_and_a_half_written_one_is(trainings, tmp_path, capsys):
    made = work(tmp_path)
    half = ROWS[1].folder(made.output)
    (half / "interrupted_run").mkdir(parents=True)
    (half / f".{PREDICTIONS}.1.2.tmp").write_text("panorama,sat")
    assert time_left(ROWS, made.output) is None
    make_rows(made, ROWS)
    assert trainings == ["full", "no_mask", "no_ema"]
    assert "2 of 3: light samearea no_mask seed 0: mean 1.50 m" in capsys.readouterr().out
    assert sorted(path.name for path in half.iterdir()) == [LOG, PREDICTIONS, "row.json", "run"]
    assert [path.name for path in (half / "run").iterdir()] == ["best.pt"]  # latest.pt is of no use any more
    make_rows(made, ROWS)
    assert len(trainings) == 3 and time_left(ROWS, made.output) == 0
    (half / PREDICTIONS).unlink()
    make_rows(made, ROWS)
    assert trainings[3:] == ["no_mask"]
    made.hold("light")
    assert write_table(made.output) and {"parts.csv", "parts.md"} < {path.name for path in made.output.iterdir()}
    assert (made.output / "parts.png").stat().st_size > 10_000


def test_other_settings_in_the_same_folder_are_refused(trainings, tmp_path):
    made = work(tmp_path)
    made.hold("light")
    made.hold("light")
    other = Work(made.output, made.source, SIZES, Length(8, 100), made.device, 0)
    with pytest.raises(UserError, match="holds rows of steps 400, not 800; epochs 4, not 8; choose another --output_dir"):
        other.hold("light")
    (tmp_path / "cache/manifest.json").write_text('{"files_sha256": "another"}')
    with pytest.raises(UserError, match="data 0123456789ab, not another"):
        made.hold("light")


def test_a_row_that_fails_does_not_keep_the_others_from_being_made(trainings, tmp_path, monkeypatch):
    def evaluate(work, run_folder):
        if "no_mask" in str(run_folder):
            raise UserError("the training went wrong")
        return table_of([1, 2])

    monkeypatch.setattr(Work, "evaluate", evaluate)
    made = work(tmp_path)
    with pytest.raises(UserError, match="1 rows failed; the first: the training went wrong"):
        make_rows(made, ROWS)
    assert [row.is_complete(made.output) for row in ROWS] == [True, False, True]


HOLD = """
import sys
from common.files import locked
with locked(sys.argv[1], "is making a row in"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes_share_the_rows_and_a_dead_one_keeps_none(trainings, tmp_path, capsys):
    made = work(tmp_path)
    folder = ROWS[1].folder(made.output)
    with subprocess.Popen([sys.executable, "-c", HOLD, folder], cwd=PROJECT, stdin=PIPE, stdout=PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        make_rows(made, ROWS)
        assert trainings == ["full", "no_ema"] and "1 rows were with other processes" in capsys.readouterr().out
        other.kill()
    make_rows(made, ROWS)
    assert trainings == ["full", "no_ema", "no_mask"]


def test_one_row_is_trained_and_measured_as_the_scripts_do(vigor_root, tmp_path, capsys):
    small = f"--dataset_root {vigor_root} --cache_root {tmp_path}/cache --satellite_size 64 --panorama_size 64 128 --device cpu"
    call("benchmarks.parts", f"{small} --output_dir {tmp_path}/parts --parts full --areas samearea --seeds 1 --steps 2")
    assert "1 of 1: light samearea full seed 0: mean" in capsys.readouterr().out
    (best,) = (tmp_path / "parts").glob("light/samearea/full/seed0/*/best.pt")
    data = f"--dataset_root {vigor_root} --cache_root {tmp_path}/cache"
    call("eval_VIGOR", f"--model_path {best} {data} --num_workers 0 --calibrate 0 --device cpu")
    theirs = pd.read_csv(best.parent / "results/per_image_results_samearea.csv")
    ours = pd.read_csv(best.parent.parent / PREDICTIONS)
    pd.testing.assert_series_equal(ours["error_m"], theirs["error_m"])
    again = f"{small} --output_dir {tmp_path}/parts --parts full --areas samearea --seeds 1"
    assert "holds rows of steps 2, not 4" in refusal("benchmarks.parts", f"{again} --steps 4", capsys)
    shutil.rmtree(tmp_path / "parts/light")
    assert "no complete row is here" in refusal("benchmarks.parts", f"--summarise --output_dir {tmp_path}/parts", capsys)
