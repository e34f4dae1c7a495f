"""What results stand on: the data's fingerprint, and whether training has seen what is measured."""

import shutil

import pytest
from children import make_network, open_pairs, save_network

from dataset.protocol import Protocol
from dataset.sets import read_index
from engine.evaluation.evaluate import count_seen
from engine.run import provenance
from model.checkpoint import load_model


def replace_line(root, change):
    path = root / "splits__corrected/Seattle/same_area_balanced_test__corrected.txt"
    text = path.read_text()
    path.unlink()
    path.write_text(change(text))


def larger_image(root):
    path = max((root / "Chicago/panorama").iterdir())
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data + b"more")


CHANGES = {
    "moved": (lambda root: None, True),
    "a label": (lambda root: replace_line(root, lambda text: text.replace(" -", " ", 1)), False),
    "an order": (lambda root: replace_line(root, lambda t: "\n".join(t.strip().split("\n")[::-1])), False),
    "an image": (larger_image, False),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_fingerprint_is_of_the_data_alone(vigor_root, tmp_path, name):
    change, same = CHANGES[name]
    root = shutil.copytree(vigor_root, tmp_path / "copy")
    change(root)
    found = [read_index(folder, "samearea", "test").fingerprint for folder in (vigor_root, root)]
    assert (found[0] == found[1]) is same


@pytest.mark.parametrize(
    ("trained", "measured", "where", "seen"),
    [
        ("samearea", "crossarea", "here", 12),  # half of the 24 panoramas of the two test cities
        ("samearea", "samearea", "here", 0),
        ("crossarea", "crossarea", "here", 0),
        ("crossarea", "samearea", "here", 12),
        ("samearea", "crossarea", "elsewhere", None),
        ("samearea", "crossarea", "moved", 12),
    ],
)
def test_pairs_that_training_has_seen_are_counted(vigor_root, tmp_path, trained, measured, where, seen):
    root = str(vigor_root) if where == "here" else "/elsewhere"
    more = {"args": {"area": trained, "dataset_root": root}}
    if where == "moved":
        more["provenance"] = provenance(index=read_index(vigor_root, trained))
    checkpoint = load_model(save_network(tmp_path, make_network(), **more))
    dataset = open_pairs(vigor_root, measured)
    assert count_seen(checkpoint, dataset, Protocol(area=measured)) == seen
