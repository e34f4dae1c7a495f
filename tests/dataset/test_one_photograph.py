"""Photographs: cut from panoramas, of one world with the satellite image; and a user's own."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from children import SMALL_VIEW, make_exif
from PIL import ExifTags, Image
from test_augment import H, S, W, colourful, numbers, on_the_ground, painted_pair, seen_from_above

from common.camera import Panorama
from common.errors import UserError
from common.geometry import wrap_degrees
from common.view import View
from dataset import augment as A
from dataset.loader import collate
from dataset.photograph import own_photograph
from dataset.protocol import Protocol, Source, open_data
from dataset.vigor import VigorDataset

TILTS = {"hfov": (80.0, 100.0), "pitch": 6.0, "roll": 8.0}
VIEW = View(satellite_size=S, panorama_size=(H, W), camera="photo", photo_width=160, **TILTS)


def mark_in_photograph(image, camera):
    """Bearing and distance of the mark; None where it is not seen or cut by the rim."""
    rows, cols = ((torch.arange(side) + 0.5) / side for side in image.shape[1:])
    y, x = torch.meshgrid(rows, cols, indexing="ij")
    bearing, depression = (part[0].numpy() for part in camera.rays(x[None], y[None]))
    weight = colourful(image) * (depression > 8)
    if weight.max() > 0 == weight[:, [0, 1, -2, -1]].max() == weight[[0, 1, -2, -1]].max():
        return on_the_ground(weight, bearing + float(camera.heading), depression)


def assert_one_world(batch, least):
    """Mark and mark agree wherever a photograph shows it whole; so it does in at least so many."""
    seen = 0
    for i, image in enumerate(batch["query"]):
        if (found := mark_in_photograph(image, batch["camera"][i : i + 1])) is None:
            continue
        seen, scale = seen + 1, float(batch["metres_per_pixel"][i])
        there = seen_from_above(colourful(batch["satellite"][i]), batch["position"][i].numpy(), scale)
        assert abs(wrap_degrees(found[0] - there[0])) < 2.5, (found, there)
        assert abs(found[1] - there[1]) < scale, (found, there)
    assert seen >= least


@pytest.fixture(scope="module")
def pairs():
    """48 pairs with a painted mark, their panoramas whole."""
    rng = np.random.default_rng(3)
    return collate([painted_pair(rng) for _ in range(48)])


def true_minus_prior(batch):
    return wrap_degrees(batch["heading"] - batch["camera"].heading)


def test_training_photographs_show_the_world_of_the_satellite_image(pairs):
    torch.manual_seed(0)
    taken = A.augment(pairs, "none", VIEW)
    assert taken["query"].shape == (48, 3, 128, 160)
    assert taken["camera"].kind == "photo" and "taken" not in taken
    # Colours that move would hide the mark; the pairs are moved first.
    moved = A.augment(A.change_pair(pairs, A.draw_pair_change(48, S, W)), "none", VIEW)
    for seen in (taken, moved):
        torch.testing.assert_close(true_minus_prior(seen), torch.zeros(48), atol=1e-3, rtol=0)
        assert_one_world(seen, 5)


def test_photographs_themselves_are_mirrored_and_turned_with_their_cameras(pairs):
    torch.manual_seed(1)
    taken, change = A.augment(pairs, "none", VIEW), A.draw_pair_change(48, S, A.PHOTO_COLUMNS)
    moved = A.change_pair(taken, change)
    assert change.mirror.any() and not change.mirror.all()
    torch.testing.assert_close(true_minus_prior(moved), torch.zeros(48), atol=1e-2, rtol=0)
    assert_one_world(moved, 5)


def test_each_batch_has_photographs_of_its_own(pairs):
    torch.manual_seed(2)
    first, second = (A.augment(pairs, "none", VIEW) for _ in range(2))
    assert not first["camera"].values.equal(second["camera"].values)
    torch.manual_seed(2)
    again = A.augment(pairs, "none", VIEW)
    assert all(numbers(first[name]).equal(numbers(again[name])) for name in ("camera", "query"))
    noisy = A.augment(pairs, "none", replace(VIEW, ori_noise=10.0))
    assert 5 < true_minus_prior(noisy).abs().max() <= 10


def test_evaluation_draws_by_seed_and_name(vigor_root):
    view = replace(SMALL_VIEW, camera="photo", ori_noise=10.0, tilt_noise=2.0)
    source = Source(dataset_root=str(vigor_root))
    once, again, other = (open_data(source, Protocol(seed=seed), view, use_mask=False) for seed in (0, 0, 1))
    for i in (0, 5):
        sample = once[i]
        for name in ("query", "camera", "taken", "heading", "tilt"):
            assert numbers(sample[name]).equal(numbers(again[i][name]))
        assert not sample["camera"].values.equal(other[i]["camera"].values)
        assert 0 < abs(true_minus_prior(sample)) <= 10
        taken = sample["taken"]
        assert sample["heading"] == taken.heading and sample["tilt"].tolist() == [taken.pitch, taken.roll]
    few = VigorDataset(once.index.select(np.array([5])), view=view, use_mask=False, seed=0)
    assert few[0]["camera"].values.equal(once[5]["camera"].values)


def test_photographs_of_evaluation_are_cut_where_their_camera_looks(pairs):
    torch.manual_seed(4)
    taken, prior = VIEW.draw_cameras(torch.rand(48, VIEW.CAMERA_DRAWS))
    centre = pairs["heading"]
    found = A.cut(pairs | {"taken": taken, "camera": prior.turned(centre)}, VIEW)
    assert found["query"].shape == (48, 3, 128, 160) and "taken" not in found
    assert_one_world(found, 5)
    assert A.cut(found, VIEW)["query"] is found["query"]
    assert isinstance(A.cut(pairs, replace(VIEW, camera="panorama"))["camera"], Panorama)


def save(path, size=(400, 300), focal=None, orientation=None, taken=None, direction=None, xmp=None):
    """A photograph, red in its upper left corner, with what a camera writes beside it."""
    image = np.full((size[1], size[0], 3), 90, np.uint8)
    image[: size[1] // 4, : size[0] // 4] = (250, 20, 20)
    exif = make_exif(orientation, focal, None if direction is None else {16: "T", 17: direction})
    if taken:
        about = exif.get_ifd(ExifTags.IFD.Exif)
        about[ExifTags.Base.ExifImageWidth], about[ExifTags.Base.ExifImageHeight] = taken
    extra = {"xmp": xmp} if xmp else {}
    Image.fromarray(image).save(path, exif=exif.tobytes(), quality=95, **extra)
    return path


@pytest.mark.parametrize(("name", "orientation"), [("a.jpg", None), ("a.jpg", 6), ("a.heic", 6)])
def test_the_file_tells_its_field_of_view_and_how_it_is_turned(tmp_path, name, orientation):
    pytest.importorskip("pillow_heif").register_heif_opener()
    file = save(tmp_path / name, focal=26, orientation=orientation)
    image, camera, notes = own_photograph(file, VIEW)
    height, width = image.shape[:2]
    assert height % 32 == width % 32 == 0 and "--hfov" in " ".join(notes) and "--pitch" in " ".join(notes)
    corner, other, hfov, ratio = (3, 3), (3, -4), 67.3, 4 / 3
    if orientation:  # rows of the file are columns from the right
        corner, other, hfov, ratio = (3, -4), (3, 3), 53.1, 3 / 4
    assert image[corner][0] > 200 > image[other][0] and float(camera.hfov) == pytest.approx(hfov, abs=0.1)
    assert float(camera.fy / camera.fx) == pytest.approx(ratio)  # pixels of the file are square
    assert f"{hfov:.0f}°" in " ".join(notes)


def test_what_is_given_wins_over_the_file_and_says_so(tmp_path):
    file = save(tmp_path / "a.jpg", focal=26, direction=123)
    _, camera, notes = own_photograph(file, VIEW, hfov=95.0, pitch=-4.0, roll=2.0)
    assert [float(x) for x in (camera.hfov, camera.pitch, camera.roll)] == pytest.approx([95, -4, 2])
    assert any("95°" in note and "67° (EXIF)" in note for note in notes)
    assert any("--heading 123" in note for note in notes)
    lens = {"intrinsics": (300.0, 310.0, 190.0, 160.0), "distortion": (0.1, -0.2)}
    _, camera, notes = own_photograph(file, VIEW, **lens, heading=123.0)
    expected = 300 / 400, 310 / 300, 190 / 400, 160 / 300, 0.1, -0.2
    assert camera.values[3:9].tolist() == pytest.approx(expected)
    assert not any("--heading" in note for note in notes)
    _, _, notes = own_photograph(save(tmp_path / "b.jpg"), VIEW, hfov=30.0, pitch=0.0)
    assert len(notes) == 1 and "80 to 100°" in notes[0]


@pytest.mark.parametrize(
    ("file", "given", "says"),
    [
        ({}, {}, "give --hfov"),
        ({"size": (400, 200)}, {}, "400 x 200 px.*--panorama"),
        ({"focal": 26, "taken": (400, 400)}, {}, "400 x 300 px.*400 x 400.*--hfov"),
        ({"xmp": b'<x GPano:ProjectionType="equirectangular"/>'}, {"hfov": 60.0}, "GPano.*--panorama"),
        ({}, {"hfov": 60.0, "intrinsics": (1.0, 1.0, 0.0, 0.0)}, "--hfov or --intrinsics"),
        ({}, {"hfov": 175.0}, "hfov 175"),
        ({}, {"intrinsics": (0.0, 1.0, 0.0, 0.0)}, "focal length 0 px"),
    ],
)
def test_what_has_no_camera_is_refused_in_one_line(tmp_path, file, given, says):
    with pytest.raises(UserError, match=says) as refused:
        own_photograph(save(tmp_path / "photo.jpg", **file), VIEW, **given)
    assert "\n" not in str(refused.value)
