"""Run folders and random numbers."""

import torch
import yaml

from engine import run


def test_two_runs_of_one_second_get_two_folders(tmp_path):
    folders = {run.create_folder(tmp_path, "samearea") for _ in range(5)}
    assert len(folders) == 5


def test_args_are_written_as_they_are(tmp_path):
    run.write_args(tmp_path, {"pos_only": False, "learning_rate": 8e-5, "panorama_size": [320, 640]})
    written = yaml.safe_load((tmp_path / "args.yaml").read_text())
    assert written["pos_only"] is False and written["learning_rate"] == 8e-5 and written["panorama_size"] == [320, 640]
    assert written["torch_version"] == str(torch.__version__) and written["git_revision"]


def test_step_seeds_differ_and_repeat():
    def draw(*key):
        run.seed_step(*key)
        return torch.rand(1).item()

    assert draw(0, 3, 5) == draw(0, 3, 5)
    assert len({draw(0, 3, 5), draw(0, 3, 6), draw(0, 4, 5), draw(1, 3, 5), draw(0, 3, 5, 1)}) == 5
