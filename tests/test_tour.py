"""docs/tour.ipynb: the outputs that it keeps, and a shortened run."""

import re

import nbformat
import pytest
from children import PROJECT
from nbclient import NotebookClient

TOUR = PROJECT / "docs/tour.ipynb"
SIZES = re.compile(r"PANORAMAS, FRAMES, EPOCHS = .*")


def outputs(notebook):
    """(its cell's source, the output) of every output."""
    return [(cell.source, one) for cell in notebook.cells for one in cell.get("outputs", ())]


def test_the_tour_keeps_its_outputs_and_is_small():
    assert TOUR.stat().st_size < 1_000_000
    kept = outputs(nbformat.read(TOUR, 4))
    assert [one for _, one in kept if one.output_type == "error" or one.get("name") == "stderr"] == []
    assert not re.search(r"/(?:root|home|tmp|work)/", str(kept)), "a path of the machine that ran it"
    shown = sum("image/jpeg" in one.get("data", {}) for _, one in kept)
    assert shown == sum(
        len(re.findall(r"^show\(", cell.source, re.M)) for cell in nbformat.read(TOUR, 4).cells
    )


@pytest.mark.slow
def test_the_tour_runs(tmp_path):
    (tmp_path / "docs").mkdir()  # where Jupyter starts; what the notebook writes goes to data/ beside it
    for path in PROJECT.iterdir():
        if path.name not in ("data", "docs") and not path.name.startswith("."):
            (tmp_path / path.name).symlink_to(path)
    notebook = nbformat.read(TOUR, 4)
    setup = next(cell for cell in notebook.cells if SIZES.search(cell.source))
    setup.source = SIZES.sub("PANORAMAS, FRAMES, EPOCHS = 12, 3, 1", setup.source)
    where = {"metadata": {"path": str(tmp_path / "docs")}}
    NotebookClient(notebook, timeout=600, resources=where).execute()
    assert [one for _, one in outputs(notebook) if one.output_type == "error"] == []
    said = "".join(one.get("text", "") for _, one in outputs(notebook))
    assert re.search(r"right heading +error", said) and said.count("<= 10 m") == 2  # two evaluations
