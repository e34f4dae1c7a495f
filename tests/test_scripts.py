"""Every script once, as a user runs it, for two steps."""

import csv
import importlib
from contextlib import redirect_stdout
from io import StringIO

import pandas as pd
import pytest
import torch
from children import call, refusal, thin_network

SMALL = (
    "--satellite_size 64 --panorama_size 64 128 --backbone_weights none --batch_size 4 --epochs 1 --max_steps 2 --num_workers 0"
)


@pytest.fixture(scope="module", autouse=True)
def thin():
    with pytest.MonkeyPatch.context() as patch:
        thin_network(patch.setattr)
        yield


def script(line):
    """Run a script in this process; returns what it printed on stdout. `test_docs` runs each in a process of its own."""
    name, _, words = line.partition(".py ")
    with redirect_stdout(StringIO()) as said:
        call(name, words)
    return said.getvalue()


@pytest.fixture(scope="module")
def trained(vigor_root, tmp_path_factory):
    """A run folder of two training steps."""
    runs = tmp_path_factory.mktemp("runs")
    out = script(f"train_VIGOR.py --dataset_root {vigor_root} --runs_root {runs} {SMALL}")
    (folder,) = runs.iterdir()
    assert f"python eval_VIGOR.py --model_path {folder / 'best.pt'}" in out
    return folder


def test_training_leaves_a_run_folder(trained):
    assert trained.name.endswith("_samearea_nL2_T0.1_wd0.002_useMaskTrue_useMixStyleTrue_mix_random")
    assert {"args.yaml", "best.pt", "latest.pt", "training_log.csv"} <= {path.name for path in trained.iterdir()}
    (row,) = csv.DictReader(open(trained / "training_log.csv"))
    assert float(row["loss"]) > 0 and float(row["val_mean_m"]) > 0
    best = torch.load(trained / "best.pt", weights_only=True)
    assert best["settings"]["satellite_size"] == 64 and best["args"]["area"] == "samearea"


def test_picture_and_evaluation_agree(trained, vigor_root):
    script(f"eval_VIGOR.py --model_path {trained} --dataset_root {vigor_root} --num_workers 0 --output_dir {trained}/again")
    out = script(f"visualize_loc.py --model_path {trained / 'best.pt'} --dataset_root {vigor_root} --idx 5 --show_mask")
    row = pd.read_csv(trained / "again/per_image_results_samearea.csv").iloc[5]
    assert f"error: {row['error_px']:.3f} px at 512, {row['error_m']:.3f} m" in out
    assert row["panorama"] in out
    assert (trained / "visualizations_loc/samearea_test_000005.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--pos_only maybe", "argument --pos_only: 'maybe' is not True or False"),
        ("--area suburbs", "invalid choice: 'suburbs' (choose from"),
        ("--mixstyle_mix swap", "invalid choice: 'swap' (choose from"),
        ("--satellite_size 100", "'100' is not a multiple of 32 from 32"),
        ("--epochs 0", "'0' is not a whole number from 1"),
        ("--FoV 400", "'400' is not a number above 0 up to 360"),
        ("--learning_rate nan", "'nan' is not a number above 0"),
        ("--warmup 3days", "'3days' is not a number of epochs, or of steps"),
        ("--device tpu", "--device tpu cannot be used here"),
        ("--mixstyle_mix crossdomain --batch_size 1", "--batch_size 1 leaves nothing to mix"),
        ("--accumulate 99", "--accumulate 99: an epoch has only"),
        ("--backbone_weights nowhere.pth", "nowhere.pth"),
        ("--d_model 100", "d_model 100: expected a multiple of num_heads"),
        ("--resume nowhere", "nowhere: no such checkpoint"),
        ("--dataset_root nowhere", "nowhere: no such folder; pass VIGOR's with --dataset_root or VIGOR_ROOT"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(vigor_root, tmp_path, capsys, line, message):
    root = "" if "dataset_root" in line else f"--dataset_root {vigor_root}"
    assert message in refusal("train_VIGOR", f"{SMALL} {root} --runs_root {tmp_path} {line}", capsys)
    assert not list(tmp_path.iterdir())  # no run folder for a run that never began


def test_the_published_command_is_taken():
    """Every flag of the published commands, in both spellings."""
    build_parser = importlib.import_module("train_VIGOR").build_parser
    published = (
        "--area samearea --batch_size 10 --learning_rate 8e-5 --epochs 120 --d_model 320 --n_layer 2 --use_mask True "
        "--use_mixstyle True --mixstyle_mix random --pos_only False --ori_noise 180 --FoV 360 "
        "--vert_anchors 16 --horz_anchors 16 --num_heads 8 --block_exp 4 --patience 7 --min_delta 0.01 "
        "--temperature 0.1 --weight_decay 2e-3 --dropout_rate 0.3 --mixstyle_p 0.3 --mixstyle_alpha 0.1 --dataset_root /VIGOR"
    )
    args = build_parser().parse_args(published.split())
    assert args.pos_only is False and args.use_mask is True and args.learning_rate == 8e-5 and not hasattr(args, "augment")
    short = build_parser().parse_args("-l 1e-4 -b 4 -f 180".split())
    assert (short.learning_rate, short.batch_size, short.FoV) == (1e-4, 4, 180)


def test_an_index_beyond_the_list(trained, vigor_root, capsys):
    error = refusal("visualize_loc", f"--model_path {trained} --dataset_root {vigor_root} --idx 24", capsys)
    assert "--idx 24: the samearea test list has 24 pairs, 0 to 23" in error


@pytest.mark.parametrize("name", ["train_VIGOR", "eval_VIGOR", "visualize_loc"])
def test_help_shows_defaults_and_an_example(name):
    out = importlib.import_module(name).build_parser().format_help()
    assert "examples:" in out and f"python {name}.py" in out and "(default:" in out
