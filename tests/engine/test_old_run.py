"""A run folder of before: its checkpoint, calibration and evaluation, all written by the code that this one replaced.

Its weights are drawn numbers, many entries from a few vectors, so that the file stays small.
"""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from children import PROJECT, call

from common.geometry import wrap_degrees
from model.checkpoint import FORMAT, load_model, read_checkpoint

OLD = PROJECT / "tests/data/old_run"
NAMES = {"along_m": "longitudinal_m", "across_m": "lateral_m"}


@pytest.fixture(scope="module")
def evaluated(vigor_root, tmp_path_factory):
    """A copy of the folder, evaluated anew beside its own results."""
    run = shutil.copytree(OLD, tmp_path_factory.mktemp("runs") / "old")
    flags = f"--dataset_root {vigor_root} --num_workers 0 --device cpu --output_dir {run / 'again'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.evaluation.results._draw", lambda *given: None)
        call("eval_VIGOR", f"--model_path {run} {flags}")
    return run


def test_it_evaluates_to_the_same_numbers(evaluated):
    before, after = (pd.read_csv(evaluated / f"{name}/per_image_results_samearea.csv") for name in ("results", "again"))
    before = before.rename(columns=NAMES)
    others = ["seconds", "heading_deg", "heading_error_deg"]
    pd.testing.assert_frame_equal(after.drop(columns=others), before.drop(columns=others), rtol=1e-3, atol=1e-3)
    # Read off a parabola since, where it was an expectation: the same hypotheses, 10 degrees apart, are the best.
    apart = wrap_degrees(after["heading_deg"] - before["heading_deg"]).abs()
    assert apart.max() < 10 and apart.median() < 2


def test_its_calibration_serves(evaluated, vigor_root, capsys):
    flags = f"--dataset_root {vigor_root} --idx 0 --dpi 30 --device cpu"
    call("visualize_loc", f"--model_path {evaluated} {flags}")
    assert "heat map, calibrated (temperature 4.16)" in capsys.readouterr().out


def test_its_evaluation_is_compared_with_new_ones(evaluated, capsys):
    call("eval_VIGOR", f"--compare {evaluated / 'results'} {evaluated / 'again'} --output_dir {evaluated}")
    assert "24 pairs in common" in capsys.readouterr().out
    table = pd.read_csv(evaluated / "comparison_samearea.csv")
    np.testing.assert_allclose(table["mean_difference_m"], 0, atol=1e-3)


def test_names_of_before_become_those_of_today():
    saved = torch.load(OLD / "best.pt", weights_only=True)
    assert saved["format"] == FORMAT and "version" not in saved and "decoder.stages.0.conv.0.weight" in saved["model"]
    renamed, loaded = read_checkpoint(OLD / "best.pt")["model"], load_model(OLD)
    assert list(renamed) == list(loaded.model.state_dict())  # in their order, which an optimizer's state goes by
    for ours, its in (
        ("decoder.stages.2.conv.0.weight", "decoder.stages.0.conv.0.weight"),
        ("decoder.stages.16.up.weight", "decoder.stages.9.up.weight"),
        ("matching.adapt_panorama.32.weight", "matching.adapt_panorama.16.weight"),
        ("matching.radial_weight.4", "matching.radial_weight.2"),
        ("fusion.panorama_skip", "fusion.ground_skip"),
        ("fusion.layers.0.satellite_to_panorama.query.weight", "fusion.layers.0.satellite_to_ground.query.weight"),
        ("fusion.layers.0.panorama_mlp.0.weight", "fusion.layers.0.ground_mlp.0.weight"),
    ):
        assert torch.equal(renamed[ours], saved["model"][its])
    assert (loaded.area, loaded.settings.ori_noise, loaded.settings.network) == ("samearea", 180, "ground_plane")
