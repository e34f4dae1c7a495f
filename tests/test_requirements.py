"""A package of a group that is not installed: one line with the command that installs the group."""

import os
import subprocess
import sys

import pytest
from children import PROJECT

from common.errors import missing_package
from common.flags import fault


@pytest.mark.parametrize(
    ("module", "group"),
    [("gradio", "page"), ("rasterio.enums", "city"), ("timm", "backbones"), ("pillow_heif", "base")],
)
def test_a_missing_package_names_the_command_for_its_group(module, group):
    line = fault(ModuleNotFoundError(f"No module named {module!r}", name=module))
    name = module.partition(".")[0]
    assert line.startswith(f"the package {name} is not installed")
    path = line.rpartition(" -r ")[2]
    assert os.path.samefile(path, PROJECT / f"requirements/{group}.txt")


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'gradio_client'", name="gradio_client"),
        ModuleNotFoundError("No module named 'dataset.mistake'", name="dataset.mistake"),
        ImportError("cannot import name"),
        ValueError("gradio"),
    ],
)
def test_other_errors_keep_their_traceback(error):
    assert missing_package(error) is None


@pytest.mark.slow
def test_a_command_without_its_package_ends_in_a_line(tmp_path):
    (tmp_path / "rasterio.py").write_text("raise ModuleNotFoundError(name='rasterio')\n", "utf-8")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    words = [sys.executable, "-m", "dataset.city", "--help"]
    done = subprocess.run(words, cwd=PROJECT, env=environment, capture_output=True, text=True)
    (line,) = done.stderr.splitlines()
    assert done.returncode and line.endswith("-m pip install -r requirements/city.txt")
