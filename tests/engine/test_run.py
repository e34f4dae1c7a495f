"""Run folders and random numbers."""

import torch
import yaml

from engine import run
from model.settings import NetworkSettings


def test_a_run_folder_is_new_and_holds_its_settings(tmp_path):
    folders = {run.create_folder(tmp_path, "samearea") for _ in range(5)}
    assert len(folders) == 5, "also within one second"
    settings = {"pos_only": False, "learning_rate": 8e-5, "panorama_size": [320, 640]}
    run.write_args(tmp_path, settings)
    written = yaml.safe_load((tmp_path / "args.yaml").read_text())
    assert written.items() >= settings.items()
    assert written["torch_version"] == str(torch.__version__) and written["git_revision"]


def test_the_published_network_s_runs_have_its_names():
    name = run.run_name("samearea", NetworkSettings(), 2e-3)
    assert name == "samearea_nL2_T0.1_wd0.002_useMaskTrue_useMixStyleTrue_mix_random"


def test_step_seeds_differ_and_repeat():
    def draw(*key):
        run.seed_step(*key)
        return torch.rand(1).item()

    assert draw(0, 3, 5) == draw(0, 3, 5)
    assert len({draw(0, 3, 5), draw(0, 3, 6), draw(0, 4, 5), draw(1, 3, 5), draw(0, 3, 5, 1)}) == 5
