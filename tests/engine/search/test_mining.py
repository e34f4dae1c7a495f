"""Hard negatives: places that a search takes for the true one, found the same by whoever resumes."""

import os
import signal
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from children import SMALL, SMALL_VIEW, differences, make_network, run_folder, run_script

from common.geometry import SATELLITE_PX, mercator_px
from dataset.index import load_index
from dataset.negatives import NONE
from dataset.vigor import VigorDataset
from engine.search.mining import mine, new_table, read_mined, write_mined
from engine.training import trainer
from model.checkpoint import save_checkpoint

LINE = f"{SMALL} --network light --negatives 1 --hard_negatives 2 --mine_every 1"
LINE += " --epochs 2 --max_steps 2 --save_every 1"
PHOTO = replace(SMALL_VIEW, camera="photo", ori_noise=20.0)


def open_dataset(root, view):
    index = load_index(root, split="train")
    return VigorDataset(index, view=view, use_mask=False, training=True, mined=new_table(len(index), 2))


@pytest.mark.parametrize("view", [SMALL_VIEW, PHOTO], ids=["panoramas", "photographs"])
def test_mined_images_do_not_hold_the_place_and_are_the_same_each_time(view, vigor_root, tmp_path):
    network, dataset = make_network(view, network="light", use_mask=False), open_dataset(vigor_root, view)
    mine(network, dataset, torch.device("cpu"), tmp_path / "mining", seed=0)
    first, index = dataset.mined.clone(), dataset.index
    assert (first != NONE).all() and not (tmp_path / "mining").exists()
    for i, (row, _) in enumerate(dataset.pairs):
        sample = dataset[i]
        place = sample["corner"].numpy() + sample["position"].numpy() * SATELLITE_PX / 64
        centres = np.stack(mercator_px(*index.satellite_gps[first[i].numpy()].T), -1)
        assert (abs(centres - place) > SATELLITE_PX / 2).any(1).all()
        own = index.satellite_city[first[i].numpy()] == index.city[row]
        outside = ~index.inside[row]  # of its own city's four images
        assert own.sum() == min(2, outside.sum()) or not own.all()
    dataset.mined[:] = NONE
    mine(network, dataset, torch.device("cpu"), tmp_path / "mining", seed=0)
    assert torch.equal(dataset.mined, first)


def test_a_kept_table_is_that_of_its_epoch(tmp_path, capsys):
    file, table = tmp_path / "t.npz", np.arange(6, dtype=np.int32).reshape(3, 2)
    write_mined(file, 4, table)
    np.testing.assert_array_equal(read_mined(file, 4, (3, 2)), table)
    assert read_mined(file, 5, (3, 2)) is None and read_mined(file, 4, (3, 3)) is None
    file.write_bytes(b"half")
    assert read_mined(file, 4, (3, 2)) is None and read_mined(tmp_path / "none.npz", 4, (3, 2)) is None
    (tmp_path / "file").touch()
    write_mined(tmp_path / "file/t.npz", 4, table)
    assert f"{tmp_path / 'file/t.npz'} cannot be written" in capsys.readouterr().err


def die_after_a_step_with_mined_images():
    def save_and_die(path, content):
        save_checkpoint(path, content)
        progress = content.get("progress", {})
        if (progress.get("epoch"), progress.get("step")) == (1, 1):
            os.kill(os.getpid(), signal.SIGKILL)

    trainer.save_checkpoint = save_and_die


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_with_the_same_images(vigor_root, tmp_path):
    out, line = tmp_path / "out", f"{LINE} --dataset_root {vigor_root} --runs_root {tmp_path}"
    said = run_script(out, "train_VIGOR", f"{line}/whole")
    assert said.count("hard negatives searched for") == 1
    whole = run_folder(tmp_path / "whole")
    log = pd.read_csv(whole / "training_log.csv")
    assert (log[["search_loss", "location_loss"]] > 0).all(axis=None) and not (whole / "mining").exists()
    run_script(out, "train_VIGOR", f"{line}/cut", die_after_a_step_with_mined_images, -signal.SIGKILL)
    cut = run_folder(tmp_path / "cut")
    said = run_script(out, "train_VIGOR", f"--resume {cut}")
    assert "hard negatives" not in said, "they were kept"
    assert differences(cut / "latest.pt", whole / "latest.pt") == []
