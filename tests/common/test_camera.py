"""Cameras: OpenCV's projection, a photograph's ground against its panorama's, and what a mirror and a turn do to both."""

import math

import cv2
import numpy as np
import pytest
import torch

from common.camera import (
    NAMES,
    CameraRange,
    Equirectangular,
    Pinhole,
    cut_photographs,
    hfov_of_35mm,
    mirrored,
    pinhole,
    turned,
)
from common.errors import UserError
from common.geometry import wrap_degrees
from model.matching.ground_plane import sample_view, template_cells

BENT = (-0.25, 0.08, 0.002, -0.003, -0.01)
TILTED = {"hfov": 80.0, "heading": 40.0, "pitch": 7.0, "roll": -11.0}


@pytest.fixture(scope="module")
def panorama():
    """(1, 3, 512, 1024), smooth and nowhere alike: waves over the directions of the sphere."""
    elevation, bearing = torch.meshgrid(
        (0.5 - (torch.arange(512) + 0.5) / 512) * math.pi, torch.arange(1024) + 0.5, indexing="ij"
    )
    bearing = (bearing / 1024 - 0.5) * 2 * math.pi
    rays = torch.stack((elevation.cos() * bearing.cos(), elevation.cos() * bearing.sin(), elevation.sin()))
    waves = torch.randn(3, 8, 3, generator=torch.Generator().manual_seed(1)) * 5
    phases = torch.tensordot(waves, rays, 1) + torch.arange(8.0)[:, None, None]
    return (127 + 45 * phases.sin().mean(1) * 8**0.5)[None].clamp(0, 255)


@pytest.mark.parametrize("distortion", [(), BENT])
@pytest.mark.parametrize(("pitch", "roll"), [(0, 0), (12, 0), (0, -20), (-8, 15)])
def test_a_ray_is_seen_where_opencv_projects_it(pitch, roll, distortion):
    width, height, lens = 640, 480, {"fx": 500.0, "fy": 480.0, "cx": 300.0, "cy": 260.0}
    camera = Pinhole(pinhole(width, height, **lens, pitch=pitch, roll=roll, distortion=distortion)[None])
    bearing, depression = torch.meshgrid(torch.linspace(-25, 25, 11), torch.linspace(-15, 20, 11), indexing="ij")
    x, y, seen = camera.project(bearing[None], depression[None])
    b, d = (np.radians(angle.numpy().ravel().astype(float)) for angle in (bearing, depression))
    points = np.stack([np.cos(d) * np.sin(b), np.sin(d), np.cos(d) * np.cos(b)], 1)  # right, down, ahead
    # Looking up brings what lies ahead further down in the image; a turn clockwise brings what lies right further up.
    tilt = cv2.Rodrigues(np.radians([-pitch, 0.0, 0.0]))[0]
    turn = cv2.Rodrigues(np.radians([0.0, 0.0, -roll]))[0]
    matrix = np.array([[lens["fx"], 0, lens["cx"]], [0, lens["fy"], lens["cy"]], [0, 0, 1]])
    k1, k2, p1, p2, k3 = [*distortion, *[0.0] * (5 - len(distortion))]
    expected = cv2.projectPoints(points, cv2.Rodrigues(turn @ tilt)[0], np.zeros(3), matrix, np.array([k1, k2, p1, p2, k3]))[0]
    found = np.stack([x[0].numpy().ravel() * width, y[0].numpy().ravel() * height], 1)
    np.testing.assert_allclose(found, expected[:, 0], atol=2e-3)
    inside = ((found >= 0) & (found <= (width, height))).all(1)
    np.testing.assert_array_equal(seen[0].numpy().ravel(), inside)
    back = camera.rays(x, y)
    shown = seen[0]
    np.testing.assert_allclose(back[0][0][shown], bearing[shown], atol=2e-3)
    np.testing.assert_allclose(back[1][0][shown], depression[shown], atol=2e-3)


def test_what_pitch_and_roll_mean():
    def horizon(**pose):
        x, y, _ = Pinhole(pinhole(400, 300, hfov=90, **pose)[None]).project(torch.tensor([[-20.0, 0.0, 20.0]]), torch.zeros(1, 3))
        return x[0].tolist(), y[0].tolist()

    x, y = horizon()
    assert x[0] < x[1] < x[2] and y == pytest.approx([0.5] * 3)  # clockwise is to the right
    assert horizon(pitch=10)[1][1] > 0.5  # looking up: the horizon lies low
    rolled = horizon(roll=10)[1]
    assert rolled[0] > 0.5 > rolled[2]  # turned clockwise: it falls to the left
    assert horizon(heading=70) == (pytest.approx(x), pytest.approx(y))  # bearings are relative to the heading


def laid_on_the_ground(image, camera, heading):
    """((3, n, n), (n, n) seen): what a camera shows of the ground within 12 m, north up."""
    _, bearing, depression = template_cells(torch.tensor([0.25]), 48, 1.7)
    x, y, seen = camera.project(wrap_degrees(bearing - heading)[:, None], depression[:, None])
    whole = isinstance(camera, Equirectangular)
    return sample_view(image, x, y, wraps=whole)[0, :, 0], seen[0, 0] & (x > 0.01)[0, 0] & (x < 0.99)[0, 0]


FLIPS = [{name: -1} for name in ("heading", "pitch", "roll")] + [{"cx": 0}, {"cy": 0}, {"swap": 1}]


@pytest.mark.parametrize("flip", [None, *FLIPS], ids=str)
def test_a_photograph_and_its_panorama_lie_alike_on_the_ground(panorama, flip):
    numbers = pinhole(640, 480, **TILTED)
    numbers[NAMES.index("cx")], numbers[NAMES.index("cy")] = 0.47, 0.4
    photograph = cut_photographs(panorama, numbers[None], (480, 640))
    told = numbers.clone()
    for name, sign in (flip or {}).items():
        if name == "swap":
            told[NAMES.index("cx")], told[NAMES.index("cy")] = numbers[NAMES.index("cy")], numbers[NAMES.index("cx")]
        elif sign:
            told[NAMES.index(name)] *= sign
        else:
            told[NAMES.index(name)] = 1 - told[NAMES.index(name)]
    ground, seen = laid_on_the_ground(photograph, Pinhole(told[None]), float(told[0]))
    whole, _ = laid_on_the_ground(panorama, Equirectangular(), 0.0)
    apart = (ground - whole)[:, seen].abs()
    assert seen.sum() > 500
    if flip is None:
        assert apart.max() < 1.5 and apart.mean() < 0.3  # of 255
    else:
        assert apart.mean() > 3


def test_half_a_pixel_is_noticed(panorama):
    """The centre of pixel i lies at i + 0.5 in photographs as well."""
    size = 48, 64  # large pixels
    numbers = pinhole(*size[::-1], hfov=90.0)[None]
    photograph = cut_photographs(panorama, numbers, size)
    ground, seen = laid_on_the_ground(photograph, Pinhole(numbers), 0.0)
    whole, _ = laid_on_the_ground(panorama, Equirectangular(), 0.0)
    moved = numbers.clone()
    moved[0, NAMES.index("cx")] += 0.5 / size[1]
    other, there = laid_on_the_ground(photograph, Pinhole(moved), 0.0)
    right, wrong = (ground - whole)[:, seen].abs().mean(), (other - whole)[:, there].abs().mean()
    assert right < 1.5 and wrong > 1.8 * right


def test_a_mirror_and_a_turn_change_photograph_and_camera_alike(panorama):
    numbers = pinhole(160, 128, **TILTED, distortion=BENT)[None]
    numbers[0, NAMES.index("cx")] = 0.44
    photograph = cut_photographs(panorama, numbers, (128, 160))
    in_mirror = cut_photographs(panorama.flip(-1), mirrored(numbers), (128, 160))
    assert (in_mirror - photograph.flip(-1)).abs().max() < 0.05
    after_turn = cut_photographs(panorama.roll(1024 // 8, -1), turned(numbers, 45), (128, 160))
    assert (after_turn - photograph).abs().max() < 0.05
    assert float(turned(numbers, 330)[0, 0]) == pytest.approx(10, abs=1e-4)


def test_what_a_bent_lens_folds_back_is_not_seen():
    camera = Pinhole(pinhole(400, 300, hfov=60.0, distortion=(-0.4,))[None])
    bearing = torch.linspace(-89, 89, 179)[None]
    x, _, seen = camera.project(bearing, torch.zeros_like(bearing))
    shown = x[seen]
    assert (shown.diff() > 0).all() and not seen[0, [0, -1]].any()


def test_cameras_are_drawn_within_their_range():
    cameras = CameraRange((60.0, 100.0), 5.0, 2.0, 3.0, 10.0, (96, 128), 4 / 3)
    shares = torch.rand(500, CameraRange.DRAWS, generator=torch.Generator().manual_seed(0))
    taken, told = (Pinhole(numbers) for numbers in cameras.draw(shares))
    assert 60 <= taken.hfov.min() < 62 and 98 < taken.hfov.max() <= 100.001
    assert told.pitch.abs().max() <= 5 and told.roll.abs().max() <= 2
    for name, reach in (("heading", 10), ("pitch", 3), ("roll", 3)):
        apart = wrap_degrees(getattr(taken, name) - getattr(told, name)).abs()
        assert 0.9 * reach < apart.max() <= reach + 1e-3
    assert taken.heading.min() < -170 and taken.heading.max() > 170
    torch.testing.assert_close(taken.fx * 128, taken.fy * 96)  # of pixels that are square
    torch.testing.assert_close(taken.numbers[:, 3:], told.numbers[:, 3:])


def test_a_phone_s_field_of_view():
    assert hfov_of_35mm(26, 4000, 3000) == pytest.approx(67.3, abs=0.1)
    assert hfov_of_35mm(26, 3000, 4000) == pytest.approx(53.1, abs=0.1)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "either its horizontal field of view or its focal length"),
        ({"hfov": 60.0, "fx": 300.0}, "either its horizontal field of view or its focal length"),
        ({"hfov": 170.0}, "hfov 170: a photograph is more than 0 and up to 150 degrees wide"),
        ({"fx": -3.0}, "focal length -3 px"),
        ({"hfov": 60.0, "distortion": [0.1] * 8}, "8 numbers; expected up to five"),
    ],
)
def test_what_is_no_camera(given, says):
    with pytest.raises(UserError, match=says):
        pinhole(400, 300, **given)
