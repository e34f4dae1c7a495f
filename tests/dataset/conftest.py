"""Folders of data that a test may change."""

import os
import shutil
from pathlib import Path

import pytest


@pytest.fixture
def root(vigor_root, tmp_path):
    """A copy of a small VIGOR as hard links: replace files, never write into them."""
    return Path(shutil.copytree(vigor_root, tmp_path / "v", copy_function=os.link))


@pytest.fixture
def copy(root, tmp_path):
    """A copy of the `root` of a test's file."""
    return shutil.copytree(root, tmp_path / "copy")
