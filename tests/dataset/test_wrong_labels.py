"""Labels as phones give them: drawn beside the true ones, with headings and accuracies, or not read."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from children import SMALL_VIEW, refusal

from common import geometry
from common.camera import Panorama
from common.errors import UserError
from dataset.lists import LABEL_TABLE, label_line, lists_of, satellite_at, write_label_table, write_lists
from dataset.mini_vigor.labels import LabelNoise, write_wrong_labels
from dataset.sets import read_index
from dataset.vigor import VigorDataset

ORIGIN = np.array(geometry.mercator_px(41.8, -87.6))
SCALE = float(geometry.metres_per_pixel(41.8))


@pytest.fixture
def root(tmp_path):
    """The lists of a city of 600 panoramas within four satellite images, without images."""
    rng, lines = np.random.default_rng(0), []
    satellites = [satellite_at(ORIGIN + at, 10) for at in ((0, 0), (0, 320), (320, 0), (320, 320))]
    for number, place in enumerate(ORIGIN + rng.uniform(0, 320, (600, 2))):
        gps = [f"{degrees:.8f}" for degrees in geometry.latitude_longitude(*place)]
        apart = [abs(place - geometry.mercator_px(*map(float, at))).max() for _, at in satellites]
        ordered = [satellites[i] for i in np.argsort(apart)]
        lines.append(label_line(f"p{number},{gps[0]},{gps[1]},.jpg", gps, ordered))
    folder = lists_of(tmp_path, "Chicago")
    folder.mkdir(parents=True)
    write_lists(folder, [name for name, _ in satellites], lines, range(500), range(500, 600))
    return tmp_path


def places(root, labels):
    """(n, 2) metres south and east of all panoramas by a kind of labels, and their index."""
    index = read_index(root, "crossarea", "test", labels, ["Chicago"])
    on_map = geometry.position_to_map(index.corner(index.satellite[:, 0]), index.position[:, 0], 640)
    assert index.inside[:, 0].all()
    return (on_map - ORIGIN) * SCALE, index


def test_errors_are_as_large_as_said_and_go_together_nearby(root):
    before = {path.name: path.read_bytes() for path in lists_of(root, "Chicago").iterdir()}
    write_wrong_labels(root, ["Chicago"], LabelNoise(label_noise=4.0, heading_noise=10.0), 0)
    (true, _), (wrong, index) = (places(root, labels) for labels in ("corrected", "original"))
    error = wrong - true
    assert error.std(0) == pytest.approx(4, rel=0.3) and abs(error).max() < 18
    apart = np.hypot(*(true[:, None] - true).transpose(2, 0, 1)) + np.eye(600) * 99
    nearby = np.stack([error, error[apart.argmin(1)]])
    assert 0.3 < np.corrcoef(nearby[0].ravel(), nearby[1].ravel())[0, 1] < 0.7
    headings = index.cameras.heading.numpy()
    assert 9 < abs(headings).max() <= 10 and abs(headings.mean()) < 1
    assert index.accuracy == pytest.approx(4 * 2**0.5, abs=0.01)  # holds 63 % of the true places
    assert np.mean(np.hypot(*error.T) < index.accuracy) == pytest.approx(0.63, abs=0.08)
    assert {path.name: path.read_bytes() for path in lists_of(root, "Chicago").iterdir()} == before
    assert places(root, "corrected")[1].accuracy is None


def test_outliers_and_the_same_again(root):
    noise = LabelNoise(outliers=0.1)
    write_wrong_labels(root, ["Chicago"], noise, 0)
    (true, _), (wrong, _) = (places(root, labels) for labels in ("corrected", "original"))
    error = np.hypot(*(wrong - true).T)
    assert np.mean(error > 29) == pytest.approx(0.1, abs=0.04)
    assert (error[error > 0.1] == pytest.approx(30, abs=0.1)) and np.median(error) < 0.1
    folder = lists_of(root, "Chicago", "original")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    write_wrong_labels(root, ["Chicago"], noise, 0)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    write_wrong_labels(root, ["Chicago"], noise, 1)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} != before


@pytest.mark.parametrize("words", ("--label_noise 0", "--heading_noise 181", "--outliers 1.5"))
def test_bad_noise_is_refused(words, tmp_path, capsys):
    line = refusal("dataset.mini_vigor", f"--root {tmp_path / 'new'} {words}", capsys)
    assert all(word in line for word in words.strip("-").split())


def test_a_labelled_heading_turns_the_panorama(vigor_root):
    """An image whose centre is said to look east is turned by a quarter, to what is said to be north."""
    index = read_index(vigor_root, split="test")
    east = replace(index, cameras=Panorama(torch.full((len(index), 1), 90.0)))
    north, turned = (VigorDataset(part, view=SMALL_VIEW, use_mask=False)[0] for part in (index, east))
    width = north["query"].shape[-1]
    assert torch.equal(turned["query"][..., width // 2], north["query"][..., width // 4])
    assert torch.equal(turned["query"], north["query"].roll(width // 4, -1)) and turned["heading"] == 0
    view = replace(SMALL_VIEW, camera="photo")
    north, turned = (VigorDataset(part, view=view, use_mask=False)[0] for part in (index, east))
    for camera in ("heading", "camera"):
        before, after = (getattr(sample[camera], "heading", sample[camera]) for sample in (north, turned))
        assert geometry.wrap_degrees(float(after - before)) == pytest.approx(90, abs=1e-3)


def test_a_table_of_labels(root):
    folder, names = lists_of(root, "Chicago"), places(root, "corrected")[1].panorama
    write_label_table(folder, [(names[3].decode(), 12.5, 6.25), (names[4].decode(), -170, None)])
    _, index = places(root, "corrected")
    assert index.cameras.heading[2:6].tolist() == [0, 12.5, -170, 0]
    np.testing.assert_array_equal(index.accuracy[2:6], [np.nan, 6.25, np.nan, np.nan])
    text = (folder / LABEL_TABLE).read_text()
    (folder / LABEL_TABLE).write_text(text.replace("6.25", "-1"))
    with pytest.raises(UserError, match=f"{LABEL_TABLE}, line 2: .*-1"):
        places(root, "corrected")


def test_without_labels_no_position_is_known(root, vigor_root):
    _, index = places(root, "none")
    assert (index.position == 320).all() and (index.satellite == places(root, "corrected")[1].satellite).all()
