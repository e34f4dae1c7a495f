"""mini-VIGOR: both cameras see a mark where geometry says; folders have VIGOR's layout and stay the same."""

import copy
import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
from children import PLAIN_LOOK, bearing_and_distance, contents, refusal

from common import geometry
from common.errors import UserError
from dataset.mini_vigor import looks, render, writer
from dataset.mini_vigor.city import MARGIN_PX, QUARTER_M, STYLES
from dataset.mini_vigor.plan import build
from dataset.mini_vigor.street import draw_street

pytestmark = pytest.mark.slow
SIZES = {"panoramas": 6, "panorama_width": 128, "seed": 3}
SMALL = {**SIZES, "cities": ("Seattle", "Chicago"), "progress": False}
VARIED = {**SMALL, "panoramas": 2, "cities": ("Seattle",), "styles": "varied"}
CAMERA = np.array([MARGIN_PX + 250.37, MARGIN_PX + 310.81])  # row, col
SCALE = geometry.metres_per_pixel(STYLES["Seattle"].latitude)
MAGENTA = (255, 0, 255)


@pytest.fixture(scope="module")
def usual():
    """A small world. Read only."""
    return build("Seattle", 0, (2, 2))


@pytest.fixture(scope="module")
def empty_world(usual):
    """Its copy without cars, whose layers the tests clear."""
    city = copy.deepcopy(usual)
    city.wall[:] = 0
    city.cars = {time: (np.zeros((0, 3, 4, 2)), np.zeros((0, 3), int)) for time in city.cars}
    return city


@pytest.fixture
def plain(empty_world):
    """A grey plain."""
    for layer, value in (("colour", 128), ("height", 0), ("canopy", 0), ("leaf", 0)):
        getattr(empty_world, layer)[:] = value
    return empty_world


def disc(city, bearing_deg, distance_m, radius_m):
    """Pixels of the world whose centres lie in a disc, which the camera sees at a bearing and distance."""
    centre = geometry.move(*CAMERA, bearing_deg, distance_m / SCALE)
    row, col = np.ogrid[: city.height.shape[0], : city.height.shape[1]]
    return np.hypot(row + 0.5 - centre[0], col + 0.5 - centre[1]) < radius_m / SCALE


def middle(pixels):
    """(row, col) of the centroid of a mask."""
    return np.argwhere(pixels).mean(0) + 0.5


def centroid(image):
    """(row, col) of the magenta in an image, pixel centres at + 0.5."""
    excess = np.minimum(image[..., 0], image[..., 2]).astype(float) - image[..., 1] - 25
    row, col = np.indices(excess.shape) + 0.5
    return np.average([row, col], axis=(1, 2), weights=[np.clip(excess, 0, None)] * 2)


def look_around(city, width, *taken):
    return render.panorama(city, *CAMERA, width, np.random.default_rng(0), *taken)


def seen_at(bearing, elevation, width):
    """(row, col) of a panorama."""
    return geometry.elevation_to_row(elevation, width // 2), geometry.bearing_to_column(bearing, width)


# Bearing and distance of the mark; height, tilt and the tilt's bearing of the camera; width of the panorama.
UPRIGHT, TILTED = (2.5, 0, 0), ((4.2, 0, 0), (2, 3, 40), (2.8, 2, -75))
MARKS = [(at, UPRIGHT, 2048) for at in ((37, 4), (-120, 3), (-45, 20))]
MARKS += [((40, 6), camera, 2048) for camera in TILTED] + [((100, 5), UPRIGHT, 256)]


@pytest.mark.parametrize(("at", "camera", "width"), MARKS)
def test_both_cameras_see_a_mark_where_geometry_says(plain, at, camera, width):
    painted, camera = disc(plain, *at, 0.06 * at[1]), looks.DrawnCamera(*camera)
    plain.colour[painted] = MAGENTA
    mark = middle(painted)
    panorama = look_around(plain, width, camera, PLAIN_LOOK)
    expected = seen_at(*turned_ray(mark, camera), width)
    np.testing.assert_allclose(centroid(panorama), expected, atol=0.5 if width == 2048 else 0.35)
    if camera.tilt_deg == 0 and camera.height_m == 2.5:  # of sets without varied looks
        np.testing.assert_allclose(centroid(look_around(plain, width)), expected, atol=0.5)
    centre = MARGIN_PX + 320, MARGIN_PX + 320
    tile = render.satellite(render.aerial(plain), *centre, np.random.default_rng(0))
    gps = [geometry.latitude_longitude(*np.add(plain.origin, place)) for place in (mark, centre)]
    np.testing.assert_allclose(centroid(tile), geometry.gps_to_position(*gps[0], *gps[1]), atol=0.15)


def turned_ray(mark, camera):
    """(bearing, elevation), degrees, at which a tilted camera sees a mark (row, col) on the ground."""
    bearing, distance_px = bearing_and_distance(*CAMERA, *mark)
    south, east = geometry.move(0, 0, bearing, distance_px * SCALE)
    ray = np.array([-south, east, -camera.height_m])
    towards = np.radians(camera.towards_deg)
    # The camera's top moves towards that bearing, so a ray turns the other way in the camera's frame.
    turn = cv2.Rodrigues(np.array([-np.sin(towards), np.cos(towards), 0]) * np.radians(camera.tilt_deg))[0]
    lean = np.sin(np.radians(camera.tilt_deg))
    assert turn @ (0, 0, 1) @ (np.cos(towards), np.sin(towards), 0) == pytest.approx(lean)
    north, east, up = turn.T @ ray / np.linalg.norm(ray)
    return np.degrees(np.arctan2(east, north)), np.degrees(np.arcsin(up))


@pytest.mark.parametrize("towards", [0, 90, 200])
def test_a_leaning_view_moves_tall_objects_and_leaves_the_ground(plain, towards):
    """The shift is the height times the tangent of the lean, towards the bearing."""
    ground, roof = disc(plain, 200.0, 8.0, 1.0), disc(plain, 20.0, 14.0, 3.0)
    world = replace(plain, style=replace(plain.style, lean_deg=(12.0, towards), shade=1.0))
    world.colour[ground] = MAGENTA
    np.testing.assert_allclose(centroid(render.aerial(world)), middle(ground), atol=0.1)
    world.colour[ground], world.colour[roof], world.height[roof] = 128, MAGENTA, int(10 / QUARTER_M)
    view = render.aerial(world)
    expected = geometry.move(*middle(roof), towards, 10 * np.tan(np.radians(12)) / SCALE)
    bright = view[..., 0].astype(int) - view[..., 1] > 200  # the sides are darker
    np.testing.assert_allclose(middle(bright), expected, atol=2.1)


def test_a_pillar_hides_what_lies_behind(plain):
    pillar, width = disc(plain, 60.0, 10.0, 1.0), 1024
    plain.colour[disc(plain, 60.0, 15.0, 0.5)] = (0, 255, 0)
    plain.colour[pillar], plain.height[pillar] = MAGENTA, int(5.0 / QUARTER_M)
    panorama = look_around(plain, width).astype(int)
    column = panorama[:, int(geometry.bearing_to_column(60.0, width))]
    magenta = np.flatnonzero(column[:, 0] - column[:, 1] > 60)
    for edge, height_m in ((magenta[0], 5.0), (magenta[-1] + 1, 0.0)):  # the pillar's near face is 9 m away
        expected, _ = seen_at(0, np.degrees(np.arctan2(height_m - 2.5, 9.0)), width)
        assert edge == pytest.approx(expected, abs=1.5)
    assert not (panorama[..., 1] - panorama[..., 0] > 60).any()


def test_one_looks_below_a_tree_crown(plain):
    crown, width = disc(plain, -90.0, 8.0, 1.5), 1024
    plain.canopy[crown], plain.leaf[crown] = int(6.0 / QUARTER_M), 128
    plain.colour[disc(plain, -90.0, 13.0, 0.8)] = MAGENTA
    panorama = look_around(plain, width)
    expected = seen_at(-90.0, -np.degrees(np.arctan2(2.5, 13.0)), width)
    np.testing.assert_allclose(centroid(panorama[256:]) + (256, 0), expected, atol=0.7)
    leaf = panorama[200, 256].astype(int)  # 20 degrees up
    assert leaf[1] > leaf[2] + 20


def test_views_are_taken_at_different_times_of_one_world(usual):
    above, around = (usual.at(time).height for time in ("satellite", "panorama"))
    assert 0.001 < ((above != around) & (usual.height == 0)).mean() < 0.1  # cars come and go
    assert (above == around)[usual.wall > 0].all()


def test_some_semi_positives_leave_the_panorama_outside():
    """As many as in VIGOR's cities."""
    rng, outside = np.random.default_rng(0), {}
    for name, style in STYLES.items():
        shares = []
        for place in np.add(writer.tile_centre((4, 7)), rng.uniform(-160, 160, (1500, 2))):
            tiles = writer.tiles_around((4, 7), *place, style.outside, rng)
            assert tiles[0] == (4, 7) and len(set(tiles)) == 4
            away = np.abs([np.subtract(writer.tile_centre(tile), place) for tile in tiles]).max(1)
            shares.append((away[1:] >= 320).mean())
        outside[name] = np.mean(shares)
    vigor = {"NewYork": 0.02, "Seattle": 0.28, "SanFrancisco": 0.04, "Chicago": 0.07}
    assert outside == pytest.approx(vigor, abs=0.02)


def test_districts_of_a_varied_world_differ():
    first, second = (build("Seattle", 3, (1, 1), district, "varied") for district in range(2))
    assert first.style.asphalt != second.style.asphalt and first.style.latitude == second.style.latitude
    assert (first.drivable != second.drivable).mean() > 0.1


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    """A small finished set of two cities. Read only."""
    return writer.make(tmp_path_factory.mktemp("mini") / "set", workers=1, **SMALL)


@pytest.fixture(scope="module")
def varied_set(tmp_path_factory):
    """A varied world with two panoramas. Read only."""
    return writer.make(tmp_path_factory.mktemp("varied") / "set", workers=1, **VARIED)


def labels(root, city, name="pano_label_balanced"):
    """[(panorama, (latitude, longitude), [(satellite, (latitude, longitude), offsets), ...]), ...]"""
    result = []
    for line in (root / "splits__corrected" / city / f"{name}__corrected.txt").read_text().splitlines():
        panorama, *words = line.split(" ")
        identifier, latitude, longitude, rest = panorama.split(",")
        assert len(words) == 12 and len(identifier) == 22 and rest == ".jpg"
        satellites = []
        for satellite, row, col in zip(words[::3], words[1::3], words[2::3], strict=True):
            gps = tuple(map(float, satellite.removesuffix(".png").split("_")[1:]))
            satellites.append((satellite, gps, (float(row), float(col))))
        result.append((panorama, (float(latitude), float(longitude)), satellites))
    return result


@pytest.mark.parametrize("city", SMALL["cities"])
def test_layout_and_lists(small_set, city):
    everything = labels(small_set, city)
    train, test = (labels(small_set, city, f"same_area_balanced_{part}") for part in ("train", "test"))
    assert len(everything) == 6 and len(train) == len(test) == 3
    panoramas = sorted(name for name, *_ in everything)
    assert sorted(name for name, *_ in train + test) == panoramas
    listed = (small_set / "splits__corrected" / city / "satellite_list.txt").read_text().split()
    assert {name for *_, satellites in everything for name, *_ in satellites} == set(listed)
    masks = [name.removesuffix(".png") + "_mask.tif" for name in listed]
    for folder, names in (("panorama", panoramas), ("satellite", listed), ("point_prompt_mask", masks)):
        assert {path.name for path in (small_set / city / folder).iterdir()} == set(names)
    for name, size in ((f"panorama/{panoramas[0]}", (64, 128, 3)), (f"satellite/{listed[0]}", (640, 640, 3))):
        assert cv2.imread(str(small_set / city / name)).shape == size


def read_mask(root, city, satellite):
    name = satellite.removesuffix(".png") + "_mask.tif"
    return cv2.imread(str(root / city / "point_prompt_mask" / name), cv2.IMREAD_UNCHANGED)


def window(down, right):
    """The part of an image that another one shows, which lies so many pixels down and to the right."""
    return tuple(slice(max(n, 0), 640 + min(n, 0)) for n in (down, right))


@pytest.mark.parametrize("where", ["small_set Seattle", "small_set Chicago", "varied_set Seattle"])
def test_names_offsets_and_pixels_agree(request, where):
    fixture, city = where.split()
    root = request.getfixturevalue(fixture)
    for _, gps, satellites in labels(root, city):
        assert len({name for name, *_ in satellites}) == 4
        first, first_gps, first_offsets = satellites[0]
        assert np.abs(first_offsets).max() <= 160  # the central quarter of the positive
        first_mask = read_mask(root, city, first)
        assert first_mask.shape == (640, 640) and set(np.unique(first_mask)) == {0, 255}
        for name, satellite_gps, offsets in satellites:
            position = geometry.offsets_to_position(*offsets)
            assert position == pytest.approx(geometry.gps_to_position(*gps, *satellite_gps), abs=0.05)
            mask = read_mask(root, city, name)
            if max(position) < 640 and min(position) >= 0:
                assert mask[int(position[0]), int(position[1])] == 255  # a camera stands on a carriageway
            # Both images show the same ground where their names say that they overlap.
            exact = np.subtract(geometry.gps_to_position(*satellite_gps, *first_gps), 320)
            down, right = np.rint(exact).astype(int)
            np.testing.assert_allclose(exact, (down, right), atol=0.01)
            np.testing.assert_array_equal(first_mask[window(down, right)], mask[window(-down, -right)])


def test_another_world_replaces_one_without_room(tmp_path, monkeypatch):
    drawing = writer.Drawing(panoramas=2, seed=3, styles="varied")
    (district,) = writer.districts_of(tmp_path, "Seattle", drawing)
    room = iter([1, 2, 0, 1, 0, 0, 0])
    monkeypatch.setattr(writer, "build", lambda *arguments: arguments)
    monkeypatch.setattr(writer, "camera_places", lambda *_: ["a place"] * next(room))
    (*_, attempt), places = writer.lay_out(district)
    assert attempt == 1 and len(places) == 2
    with pytest.raises(UserError, match=r"Seattle: .* room for 2 panoramas, at most 1; .* --seed"):
        writer.lay_out(district)


def test_camera_heights_change_panoramas_alone(varied_set, tmp_path):
    high = writer.make(tmp_path / "high", **VARIED, camera_heights=(3.5, 4))
    one, other = contents(varied_set), contents(high)
    assert one.keys() == other.keys()
    changed = [name for name in one if one[name] != other[name]]
    assert sorted(name.rpartition(".")[2] for name in changed) == ["jpg", "jpg", "json"]
    manifests = [json.loads((root / writer.MANIFEST).read_text()) for root in (varied_set, high)]
    assert [manifest.get("camera_heights") for manifest in manifests] == [None, [3.5, 4]]
    assert writer.make(high, **VARIED, camera_heights=(3.5, 4)) == high
    with pytest.raises(UserError, match=rf"{high}.*camera_heights"):
        writer.make(high, **VARIED)
    with pytest.raises(UserError, match=rf"{varied_set}.*styles"):
        writer.make(varied_set, **{**VARIED, "styles": "default"})


def test_an_interrupted_set_is_completed_with_the_same_bytes_whatever_the_workers(varied_set, tmp_path):
    root = shutil.copytree(varied_set, tmp_path / "cut")
    files = sorted(path for path in (root / "Seattle").rglob("*") if path.is_file())
    for path in files[2:]:
        path.unlink()
    files[1].write_bytes(b"")  # as a power cut may leave it
    files[0].with_name("." + files[0].name + ".1.1.tmp").write_bytes(b"half of an image")
    shutil.rmtree(root / "splits__corrected")
    settings = json.loads((root / writer.MANIFEST).read_text())
    (root / writer.MANIFEST).write_text(json.dumps({**settings, "complete": False}))
    writer.make(root, workers=2, **VARIED)
    assert contents(root) == contents(varied_set)


def test_a_finished_set_stays_unchanged_and_other_folders_and_settings_are_refused(small_set, tmp_path):
    times = {path: path.stat().st_mtime_ns for path in small_set.rglob("*")}
    assert writer.make(small_set, **SMALL) == small_set
    with pytest.raises(UserError, match=rf"{small_set}.* panorama_width 128, not 256"):
        writer.make(small_set, **{**SMALL, "panorama_width": 256})
    assert {path: path.stat().st_mtime_ns for path in small_set.rglob("*")} == times
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match=str(tmp_path)):
        writer.make(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    "words",
    ["--panoramas 0", "--panorama_width 129", "--workers 0", "--seed -1", "--cities Boston"]
    + ["--camera_heights 2 3", "--camera_heights 3 2 --styles varied"],
)
def test_bad_flags_are_refused(words, tmp_path, capsys):
    line = refusal("dataset.mini_vigor", f"--root {tmp_path / 'new'} {words}", capsys)
    flag, value = words.split(" --")[0].split(" ", 1)
    assert flag.strip("-") in line and value in line
    assert not (tmp_path / "new").exists()


def test_a_single_street(tmp_path):
    panorama, satellite, centre, truth = draw_street(tmp_path / "street", 7)
    assert cv2.imread(str(panorama)).shape == (512, 1024, 3)
    assert cv2.imread(str(satellite)).shape == (640, 640, 3)
    assert satellite.name == f"satellite_{centre[0]:.10f}_{centre[1]:.10f}.png"
    place = geometry.gps_to_position(*truth, *centre)
    assert all(160 <= at < 480 for at in place)  # a positive: the panorama stands in its central quarter
