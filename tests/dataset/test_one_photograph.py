"""Photographs: cut from panoramas in training and evaluation, of one world with the satellite image; and one's own."""

import zlib

import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin
from test_augment import CAMERA_M, colourful, painted_pair, seen_from_above

from common.camera import CameraRange, Pinhole
from common.errors import UserError
from common.geometry import wrap_degrees
from dataset import augment as A
from dataset.photograph import own_photograph
from dataset.vigor import open_split

CAMERAS = CameraRange((80.0, 100.0), 6.0, 8.0, 0.0, 0.0, (128, 160), 4 / 3)


def mark_in_photograph(image, numbers):
    """Bearing in degrees and distance in metres of the painted mark, by its pixels' rays where they meet the ground."""
    camera, (height, width) = Pinhole(numbers[None]), image.shape[1:]
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
    bearing, depression = (part[0].numpy() for part in camera.rays(x[None], y[None]))
    weight = colourful(image) * (depression > 8)
    away = CAMERA_M / np.tan(np.radians(np.clip(depression, 8, 89)))
    weight = weight * away / np.sin(np.radians(np.clip(depression, 8, 89))) ** 2
    if weight.max() == 0 or (weight[:, [0, 1, -2, -1]] > 0).any() or (weight[[0, 1, -2, -1]] > 0).any():
        return None  # not seen, or cut by the rim
    bearing = np.radians(bearing + float(camera.heading))
    north, east = ((weight * away * f(bearing)).sum() / weight.sum() for f in (np.cos, np.sin))
    return np.degrees(np.arctan2(east, north)), np.hypot(north, east)


def assert_one_world(batch, least):
    """Mark and mark agree wherever a photograph shows it whole; so it does in at least so many."""
    seen = 0
    for image, satellite, position, numbers, scale in zip(
        *(batch[name] for name in ("panorama", "satellite", "position", "camera", "metres_per_pixel")), strict=True
    ):
        if (found := mark_in_photograph(image, numbers)) is None:
            continue
        seen += 1
        there = seen_from_above(colourful(satellite), position.numpy(), float(scale))
        assert abs(wrap_degrees(found[0] - there[0])) < 2.5, (found, there)
        assert abs(found[1] - there[1]) < float(scale), (found, there)
    assert seen >= least


@pytest.fixture(scope="module")
def pairs():
    """48 pairs with a painted mark, their panoramas whole."""
    rng = np.random.default_rng(3)
    return torch.utils.data.default_collate([painted_pair(rng) for _ in range(48)])


@pytest.mark.parametrize("mode", ["none", "full"])
def test_training_photographs_show_the_world_of_the_satellite_image(pairs, mode):
    torch.manual_seed(0)
    moved = A.augment(pairs, mode, cameras=CAMERAS) if mode == "none" else None
    if moved is None:  # without the colours, which would hide the mark
        change = A.draw_pair_change(48, pairs["satellite"].shape[-1], pairs["panorama"].shape[-1])
        moved = A.photograph(A.change_pair(pairs, change), CAMERAS)
    assert moved["panorama"].shape == (48, 3, 128, 160)
    torch.testing.assert_close(wrap_degrees(moved["heading"] - moved["camera"][:, 0]), torch.zeros(48), atol=1e-3, rtol=0)
    assert_one_world(moved, 5)


def test_photographs_themselves_are_mirrored_and_turned_with_their_cameras(pairs):
    torch.manual_seed(1)
    taken = A.photograph(pairs, CAMERAS)
    change = A.draw_pair_change(48, pairs["satellite"].shape[-1], A.PHOTO_COLUMNS)
    moved = A.change_pair(taken, change)
    assert change.mirror.any() and not change.mirror.all()
    torch.testing.assert_close(wrap_degrees(moved["heading"] - moved["camera"][:, 0]), torch.zeros(48), atol=1e-2, rtol=0)
    assert_one_world(moved, 5)


def test_each_batch_has_photographs_of_its_own(pairs):
    torch.manual_seed(2)
    first, second = (A.augment(pairs, "none", cameras=CAMERAS) for _ in range(2))
    assert not torch.equal(first["camera"], second["camera"])
    torch.manual_seed(2)
    again = A.augment(pairs, "none", cameras=CAMERAS)
    assert torch.equal(first["camera"], again["camera"]) and torch.equal(first["panorama"], again["panorama"])
    noisy = A.augment(pairs, "none", cameras=CAMERAS._replace(ori_noise=10.0))
    apart = wrap_degrees(noisy["heading"] - noisy["camera"][:, 0]).abs()
    assert 5 < apart.max() <= 10


def test_evaluation_draws_by_seed_and_name(vigor_root):
    sizes = {"satellite_size": 64, "panorama_size": (64, 128), "use_mask": False}
    cameras = CAMERAS._replace(size=(32, 64), ori_noise=0.0)

    def opened(seed=0, **options):
        return open_split(vigor_root, "samearea", "test", cameras=cameras, seed=seed, **sizes, **options)

    dataset, other = opened(ori_noise=10.0), opened(seed=1, ori_noise=10.0)
    sample = dataset[0]
    assert sample["panorama"].shape == (3, 32, 64) and sample["camera"].shape == (12,)
    assert all(torch.equal(sample[name], opened(ori_noise=10.0)[0][name]) for name in ("panorama", "camera", "heading"))
    assert not torch.equal(sample["camera"], other[0]["camera"])
    assert 0 < abs(wrap_degrees(float(sample["heading"] - sample["camera"][0]))) <= 10
    generator = np.random.default_rng([0, zlib.crc32(dataset.index.panorama[0])])
    taken, told = cameras._replace(ori_noise=10.0).draw(torch.from_numpy(generator.random((1, CameraRange.DRAWS))))
    torch.testing.assert_close(sample["camera"], told[0])
    assert float(sample["heading"]) == pytest.approx(float(taken[0, 0]))


def test_an_orientation_file_is_of_panoramas(vigor_root, tmp_path):
    count = len(open_split(vigor_root, "samearea", "test", satellite_size=64, panorama_size=(64, 128), use_mask=False))
    np.save(tmp_path / "angles.npy", np.zeros(count))
    with pytest.raises(UserError, match="--orientation_file fixes headings of panoramas"):
        open_split(
            vigor_root,
            "samearea",
            "test",
            orientation_file=tmp_path / "angles.npy",
            cameras=CAMERAS,
            satellite_size=64,
            panorama_size=(64, 128),
            use_mask=False,
        )


def save(path, size=(400, 300), focal=None, orientation=None, taken=None, direction=None, xmp=None):
    """A photograph, red in its upper left corner, with what a camera writes beside it."""
    image = np.full((size[1], size[0], 3), 90, np.uint8)
    image[: size[1] // 4, : size[0] // 4] = (250, 20, 20)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    about = exif.get_ifd(0x8769)
    if focal:
        about[0xA405] = focal
    if taken:
        about[0xA002], about[0xA003] = taken
    if direction is not None:
        gps = exif.get_ifd(0x8825)
        gps[16], gps[17] = "T", TiffImagePlugin.IFDRational(direction, 1)
    extra = {"xmp": xmp} if xmp else {}
    Image.fromarray(image).save(path, exif=exif, quality=95, **extra)
    return path


def test_the_file_tells_its_field_of_view(tmp_path):
    view, camera, notes = own_photograph(save(tmp_path / "a.jpg", focal=26), CAMERAS)
    assert float(Pinhole(camera[None]).hfov) == pytest.approx(67.3, abs=0.1)
    assert view.shape[0] % 32 == 0 and view.shape[1] % 32 == 0
    assert any("field of view of 67°" in note for note in notes) and any("no --pitch" in note for note in notes)
    assert float(camera[4] / camera[3]) == pytest.approx(4 / 3)  # pixels of the file are square


def test_an_upright_photograph_is_turned_as_its_tag_says(tmp_path):
    file = save(tmp_path / "upright.jpg", focal=26, orientation=6)  # rows of the file are columns from the right
    view, camera, _ = own_photograph(file, CAMERAS)
    assert view.shape[0] > view.shape[1]
    assert float(Pinhole(camera[None]).hfov) == pytest.approx(53.1, abs=0.1)
    assert view[3, -4, 0] > 200 > view[3, 3, 0]  # the stored upper left corner is now upper right


def test_what_is_told_wins_over_the_file_and_says_so(tmp_path):
    file = save(tmp_path / "a.jpg", focal=26, direction=123)
    _, camera, notes = own_photograph(file, CAMERAS, hfov=95.0, pitch=-4.0, roll=2.0)
    assert float(Pinhole(camera[None]).hfov) == pytest.approx(95) and camera[1:3].tolist() == [-4, 2]
    assert any("95° was given, but the file tells 67° (EXIF)" in note for note in notes)
    assert any("--heading 123 would use that" in note for note in notes)
    _, camera, notes = own_photograph(
        file, CAMERAS, intrinsics=(300.0, 310.0, 190.0, 160.0), distortion=(0.1, -0.2), heading=123.0
    )
    assert camera[3:9].tolist() == pytest.approx([300 / 400, 310 / 300, 190 / 400, 160 / 300, 0.1, -0.2])
    assert not any("--heading" in note for note in notes)


def test_a_view_unlike_those_of_training_is_noted(tmp_path):
    _, _, notes = own_photograph(save(tmp_path / "a.jpg"), CAMERAS, hfov=30.0, pitch=0.0)
    assert notes == ["30° wide; this network learned photographs of 80 to 100°, expect worse results"]


@pytest.mark.parametrize(
    ("file", "told", "says"),
    [
        ({}, {}, "tells no focal length (EXIF); give --hfov in degrees: a phone's main camera sees about 67 degrees"),
        ({"size": (400, 200)}, {}, "400 x 200 px, as whole panoramas are; give it as --panorama"),
        ({"focal": 26, "taken": (400, 400)}, {}, "400 x 300 px, but its EXIF speaks of 400 x 400: it was cut"),
        ({"xmp": b'<x GPano:ProjectionType="equirectangular"/>'}, {"hfov": 60.0}, "says that it is a panorama (GPano)"),
        ({}, {"hfov": 60.0, "intrinsics": (1.0, 1.0, 0.0, 0.0)}, "give either --hfov or --intrinsics"),
        ({}, {"hfov": 175.0}, "hfov 175: a photograph is more than 0 and up to 150 degrees wide"),
        ({}, {"intrinsics": (0.0, 1.0, 0.0, 0.0)}, "focal length 0 px"),
    ],
)
def test_what_tells_no_camera_is_refused_in_one_line(tmp_path, file, told, says):
    with pytest.raises(UserError) as refused:
        own_photograph(save(tmp_path / "photo.jpg", **file), CAMERAS, **told)
    assert says in str(refused.value) and "\n" not in str(refused.value)
