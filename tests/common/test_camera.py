"""Cameras: OpenCV's projection, the ground that images show, batches, mirrors and turns."""

import copy
import math

import cv2
import numpy as np
import pytest
import torch

from common.camera import Camera, Panorama, cut_photographs, panorama, pinhole
from common.errors import UserError
from common.geometry import wrap_degrees
from model.matching.ground_plane import sample_view, seen_below, template_cells

BENT = (-0.25, 0.08, 0.002, -0.003, -0.01)
TILTED = {"hfov": 80.0, "heading": 40.0, "pitch": 7.0, "roll": -11.0}
NORTH = Panorama(torch.zeros(1, 1))


@pytest.fixture(scope="module")
def world():
    """A panorama (1, 3, 512, 1024), smooth and nowhere alike: waves over the directions of the sphere."""
    rows, cols = torch.arange(512) + 0.5, torch.arange(1024) + 0.5
    angles = (0.5 - rows / 512) * math.pi, (cols / 512 - 1) * math.pi
    elevation, bearing = torch.meshgrid(*angles, indexing="ij")
    rays = torch.stack((elevation.cos() * bearing.cos(), elevation.cos() * bearing.sin(), elevation.sin()))
    waves = torch.randn(3, 8, 3, generator=torch.Generator().manual_seed(1)) * 5
    phases = torch.tensordot(waves, rays, 1) + torch.arange(8.0)[:, None, None]
    return (127 + 45 * phases.sin().mean(1) * 8**0.5)[None].clamp(0, 255)


CROPPED = panorama(30.0, span=180.0, top=40.0, bottom=30.0)


@pytest.mark.parametrize("single", [CROPPED, pinhole(64, 48, **TILTED)])
def test_cameras_are_handled_like_a_tensor(single):
    other, heading = single.replace(heading=torch.tensor(-170.0)), float(single.heading)
    cameras = Camera.stack([single, other, single])
    assert len(cameras) == 3 and cameras.extent == single.extent and cameras.kind == single.kind
    assert cameras.heading.tolist() == pytest.approx([heading, -170, heading])
    assert cameras[1].values.equal(other.values) and len(cameras[1:]) == 2
    assert cameras[torch.tensor([1, 1, 0])].heading.tolist() == pytest.approx([-170, -170, heading])
    moved = copy.deepcopy(cameras).to("cpu")
    assert type(moved) is type(single) and moved.values.equal(cameras.values)
    assert moved.hfov.equal(cameras.hfov) and cameras.turned(-20).heading[1] == 170
    for misfit in (panorama(), pinhole(64, 48, hfov=60.0), panorama(top=38.6, bottom=26.9)):
        with pytest.raises(ValueError, match="a batch of cameras"):
            Camera.stack([panorama(span=180.0), misfit])


EXTENTS = {}, {"span": 120.0}, {"top": 38.6, "bottom": 26.9}, {"span": 90.0, "top": 20.0}


@pytest.mark.parametrize("extent", EXTENTS)
def test_a_panorama_s_places_and_directions_are_inverse(extent):
    camera = panorama(77.0, **extent)[None]
    y, x = torch.meshgrid(torch.linspace(0.02, 0.98, 7), torch.linspace(0.02, 0.98, 9), indexing="ij")
    bearing, depression = camera.rays(x[None], y[None])
    back_x, back_y, seen = camera.project(bearing, depression)
    torch.testing.assert_close(back_x[0], x)
    torch.testing.assert_close(back_y[0], y)
    assert seen.all()


def test_what_a_cropped_panorama_shows():
    """60 degrees about its centre, from 40 above to 20 below the horizon: worked out by hand."""
    camera = panorama(span=60.0, top=40.0, bottom=20.0)[None]
    bearing = torch.tensor([[0.0, -30.0, 15.0, 0.0, 0.0, 31.0]])
    depression = torch.tensor([[0.0, -40.0, 20.0, 21.0, -41.0, 0.0]])
    x, y, seen = camera.project(bearing, depression)
    assert x[0, :3].tolist() == pytest.approx([0.5, 0, 0.75])
    assert y[0, :3].tolist() == pytest.approx([2 / 3, 0, 1])
    assert seen[0].tolist() == [True, True, True, False, False, False]
    assert not camera.wraps and panorama(top=40.0).wraps and camera.hfov.tolist() == [60]
    assert camera.rows_above(10.0, 120) == pytest.approx(60) and camera.rows_above(45.0, 120) == 0
    assert NORTH.rows_above(45.0, 128) == 32


@pytest.mark.parametrize("distortion", [(), BENT])
@pytest.mark.parametrize(("pitch", "roll"), [(0, 0), (12, 0), (0, -20), (-8, 15)])
def test_a_ray_is_seen_where_opencv_projects_it(pitch, roll, distortion):
    width, height, lens = 640, 480, {"fx": 500.0, "fy": 480.0, "cx": 300.0, "cy": 260.0}
    camera = pinhole(width, height, **lens, pitch=pitch, roll=roll, distortion=distortion)[None]
    angles = torch.linspace(-25, 25, 11), torch.linspace(-15, 20, 11)
    bearing, depression = torch.meshgrid(*angles, indexing="ij")
    x, y, seen = camera.project(bearing[None], depression[None])
    b, d = (np.radians(angle.numpy().ravel().astype(float)) for angle in (bearing, depression))
    points = np.stack([np.cos(d) * np.sin(b), np.sin(d), np.cos(d) * np.cos(b)], 1)  # right, down, ahead
    # Looking up moves what lies ahead down in the image; a turn clockwise moves what lies right up.
    tilt, turn = (cv2.Rodrigues(np.radians(axis))[0] for axis in ([-pitch, 0.0, 0.0], [0.0, 0.0, -roll]))
    matrix = np.array([[lens["fx"], 0, lens["cx"]], [0, lens["fy"], lens["cy"]], [0, 0, 1]])
    bent = np.array([*distortion, *[0.0] * (5 - len(distortion))])
    expected = cv2.projectPoints(points, cv2.Rodrigues(turn @ tilt)[0], np.zeros(3), matrix, bent)[0]
    found = np.stack([x[0].numpy().ravel() * width, y[0].numpy().ravel() * height], 1)
    np.testing.assert_allclose(found, expected[:, 0], atol=2e-3)
    shown = seen[0]
    np.testing.assert_array_equal(shown.numpy().ravel(), ((found >= 0) & (found <= (width, height))).all(1))
    for back, angle in zip(camera.rays(x, y), (bearing, depression), strict=True):
        np.testing.assert_allclose(back[0][shown], angle[shown], atol=2e-3)


def test_what_pitch_and_roll_mean():
    def horizon(**pose):
        camera = pinhole(400, 300, hfov=90, **pose)[None]
        x, y, _ = camera.project(torch.tensor([[-20.0, 0.0, 20.0]]), torch.zeros(1, 3))
        return x[0].tolist(), y[0].tolist()

    x, y = horizon()
    assert x[0] < x[1] < x[2] and y == pytest.approx([0.5] * 3)  # clockwise is to the right
    assert horizon(pitch=10)[1][1] > 0.5  # looking up: the horizon lies low
    rolled = horizon(roll=10)[1]
    assert rolled[0] > 0.5 > rolled[2]  # turned clockwise: it falls to the left
    assert horizon(heading=70) == (pytest.approx(x), pytest.approx(y))  # bearings are relative to the heading


def laid_on_the_ground(image, camera):
    """((3, n, n), (n, n) seen): what a camera, a batch of one, shows of the ground within 12 m, north up."""
    distance, bearing = template_cells(torch.tensor([0.25]), 48)
    bearing, depression = wrap_degrees(bearing - camera.heading), seen_below(distance, torch.tensor(1.7))
    x, y, seen = camera.project(bearing[:, None], depression[:, None])
    whole = torch.tensor(camera.wraps) | ((x > 0.01) & (x < 0.99))
    ground = sample_view(image, x, y, image.shape[-2:], wraps=camera.wraps)
    return ground[0, :, 0], (seen & whole)[0, 0]


def difference(image, camera, world):
    """(how a camera's ground differs from that of the whole panorama, in grey levels (3, N); N)."""
    (ground, seen), (whole, _) = (laid_on_the_ground(*view) for view in ((image, camera), (world, NORTH)))
    return (ground - whole)[:, seen].abs(), int(seen.sum())


@pytest.mark.parametrize("flip", [None, "heading", "pitch", "roll", "cx", "cy", "swap"])
def test_a_photograph_and_its_panorama_lie_alike_on_the_ground(world, flip):
    taken = pinhole(640, 480, **TILTED).replace(cx=torch.tensor(0.47), cy=torch.tensor(0.4))
    photograph = cut_photographs(world, taken[None], (480, 640))
    wrong = {name: -getattr(taken, name) for name in ("heading", "pitch", "roll")}
    wrong |= {"cx": 1 - taken.cx, "cy": 1 - taken.cy}
    changed = {"cx": taken.cy, "cy": taken.cx} if flip == "swap" else {flip: wrong[flip]} if flip else {}
    apart, seen = difference(photograph, taken.replace(**changed)[None], world)
    assert seen > 500
    if flip is None:
        assert apart.max() < 1.5 and apart.mean() < 0.3  # of 255
    else:
        assert apart.mean() > 3


# Rows of 180 / 512 degrees: from 38.7 above to 27.1 below the horizon, and 180 degrees about the centre.
TOP, BOTTOM = (256 - 146) * 180 / 512, (333 - 256) * 180 / 512


WRONG = {"top": BOTTOM, "bottom": TOP}, {"top": TOP + 4}, {"bottom": BOTTOM + 4}, {"span": 170.0}


def test_a_cropped_panorama_and_the_whole_one_lie_alike_on_the_ground(world):
    part, extent = world[..., 146:333, 256:768], {"span": 180.0, "top": TOP, "bottom": BOTTOM}
    apart, seen = difference(part, panorama(**extent)[None], world)
    assert 500 < seen < 97 * 97 / 2 and apart.max() < 2.5 and apart.mean() < 0.05
    assert difference(part.flip(-2), panorama(**extent)[None], world)[0].mean() > 2
    for wrong in WRONG:
        assert difference(part, panorama(**extent | wrong)[None], world)[0].mean() > 2


def test_half_a_pixel_is_noticed(world):
    camera, size = pinhole(64, 48, hfov=90.0)[None], (48, 64)  # large pixels
    photograph = cut_photographs(world, camera, size)
    right = difference(photograph, camera, world)[0].mean()
    wrong = difference(photograph, camera.replace(cx=camera.cx + 0.5 / 64), world)[0].mean()
    assert right < 1.5 and wrong > 1.8 * right


def test_a_mirror_and_a_turn_change_photograph_and_camera_alike(world):
    camera = pinhole(160, 128, **TILTED, distortion=BENT).replace(cx=torch.tensor(0.44))[None]
    photograph = cut_photographs(world, camera, (128, 160))
    in_mirror = cut_photographs(world.flip(-1), camera.mirrored(), (128, 160))
    assert (in_mirror - photograph.flip(-1)).abs().max() < 0.05
    after_turn = cut_photographs(world.roll(1024 // 8, -1), camera.turned(45), (128, 160))
    assert (after_turn - photograph).abs().max() < 0.05
    assert float(camera.turned(330).heading) == pytest.approx(10, abs=1e-4)
    assert panorama(-180.0).mirrored().heading == -180 and panorama(30.0).mirrored().heading == -30


def test_what_a_bent_lens_folds_back_is_not_seen():
    camera = pinhole(400, 300, hfov=60.0, distortion=(-0.4,))[None]
    bearing = torch.linspace(-89, 89, 179)[None]
    x, _, seen = camera.project(bearing, torch.zeros_like(bearing))
    assert (x[seen].diff() > 0).all() and not seen[0, [0, -1]].any()


NO_CAMERA = [
    ({}, "horizontal field of view or its focal length"),
    ({"hfov": 60.0, "fx": 300.0}, "horizontal field of view or its focal length"),
    ({"hfov": 170.0}, "hfov 170"),
    ({"fx": -3.0}, "focal length -3 px"),
    ({"hfov": 60.0, "distortion": [0.1] * 8}, "distortion: 8 numbers"),
]


@pytest.mark.parametrize(("given", "says"), NO_CAMERA)
def test_what_is_no_camera(given, says):
    with pytest.raises(UserError, match=says):
        pinhole(400, 300, **given)
