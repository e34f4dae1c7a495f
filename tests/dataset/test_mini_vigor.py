"""mini-VIGOR: what is painted into the world is seen where geometry says; the folder is VIGOR's, whole, the same every time."""

import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
from children import bearing_and_distance

from common import flags, geometry
from common.errors import UserError
from dataset.mini_vigor import __main__ as command
from dataset.mini_vigor import looks, render, writer
from dataset.mini_vigor.city import MARGIN_PX, QUARTER_M, STYLES
from dataset.mini_vigor.plan import build
from dataset.mini_vigor.street import draw_street

SMALL = {"panoramas": 6, "panorama_width": 128, "seed": 3, "cities": ("Seattle", "Chicago"), "progress": False}
CAMERA = np.array([MARGIN_PX + 250.37, MARGIN_PX + 310.81])  # row, col
MAGENTA = (255, 0, 255)
PLAIN_LOOK = looks.Appearance(
    gains=(1, 1, 1), gamma=1, contrast=1, black=0, grey=0, haze=0, detail=1, blur=0, sharpen=0, noise=0, grain=1, quality=100
)


@pytest.fixture(scope="module")
def empty_world():
    """A world that was built as usual, then cleared to a grey plain without cars."""
    city = build("Seattle", 0, (2, 2))
    for layer in (city.height, city.canopy, city.leaf, city.wall):
        layer[:] = 0
    city.cars = {time: (np.zeros((0, 3, 4, 2)), np.zeros((0, 3), int)) for time in city.cars}
    city.colour[:] = 128
    return city


@pytest.fixture
def plain(empty_world):
    """`empty_world`, cleared again after the test."""
    yield empty_world
    for layer, value in ((empty_world.colour, 128), (empty_world.height, 0), (empty_world.canopy, 0), (empty_world.leaf, 0)):
        layer[:] = value


def beyond(bearing_deg, distance_m):
    """(row, col) in the world of what lies at a bearing and distance from the camera."""
    scale = geometry.metres_per_pixel(STYLES["Seattle"].latitude)
    north, east = distance_m * np.cos(np.radians(bearing_deg)), distance_m * np.sin(np.radians(bearing_deg))
    return CAMERA + np.array([-north, east]) / scale


def disc(city, centre, radius_m):
    """The pixels of the world whose centres lie in a disc."""
    row, col = np.ogrid[: city.height.shape[0], : city.height.shape[1]]
    return np.hypot(row + 0.5 - centre[0], col + 0.5 - centre[1]) < radius_m / city.metres_per_pixel


def centroid(image):
    """(row, col) of the magenta in an image, pixel centres at + 0.5."""
    excess = np.clip(np.minimum(image[..., 0], image[..., 2]).astype(float) - image[..., 1] - 25, 0, None)
    row, col = np.indices(excess.shape) + 0.5
    return np.array([(excess * row).sum(), (excess * col).sum()]) / excess.sum()


@pytest.mark.parametrize(("bearing", "distance"), [(0, 6), (37, 4), (90, 9), (-120, 3), (163, 14), (-45, 20)])
def test_a_mark_is_seen_by_both_cameras_where_geometry_says(plain, bearing, distance):
    painted = disc(plain, beyond(bearing, distance), 0.05 * distance)
    plain.colour[painted] = MAGENTA
    mark = np.argwhere(painted).mean(0) + 0.5
    bearing, distance_px = bearing_and_distance(*CAMERA, *mark)
    distance = distance_px * geometry.metres_per_pixel(STYLES["Seattle"].latitude)

    width = 2048
    panorama = render.panorama(plain, *CAMERA, width, np.random.default_rng(0))
    row = geometry.elevation_to_row(-np.degrees(np.arctan2(2.5, distance)), width // 2)
    np.testing.assert_allclose(centroid(panorama), (row, geometry.bearing_to_column(bearing, width)), atol=0.5)

    centre = MARGIN_PX + 320, MARGIN_PX + 320
    tile = render.satellite(render.aerial(plain), *centre, np.random.default_rng(0))
    gps = [geometry.latitude_longitude(*np.add(plain.origin, place)) for place in (mark, centre)]
    np.testing.assert_allclose(centroid(tile), geometry.gps_to_position(*gps[0], *gps[1]), atol=0.15)


def seen_at(mark, camera):
    """(bearing, elevation), degrees, at which a tilted camera sees what lies on the ground at a mark (row, col)."""
    bearing, distance_px = bearing_and_distance(*CAMERA, *mark)
    distance_m = distance_px * geometry.metres_per_pixel(STYLES["Seattle"].latitude)
    north, east = distance_m * np.cos(np.radians(bearing)), distance_m * np.sin(np.radians(bearing))
    ray = np.array([north, east, -camera.height_m]) / np.hypot(distance_m, camera.height_m)
    towards = np.radians(camera.towards_deg)
    # The camera's top moves towards that bearing: a turn about the level axis to its right, seen from the camera the other way.
    axis = np.array([-np.sin(towards), np.cos(towards), 0]) * np.radians(camera.tilt_deg)
    up = cv2.Rodrigues(axis)[0] @ (0, 0, 1)
    assert up @ (np.cos(towards), np.sin(towards), 0) == pytest.approx(np.sin(np.radians(camera.tilt_deg)))
    north, east, up = cv2.Rodrigues(axis)[0].T @ ray
    return np.degrees(np.arctan2(east, north)), np.degrees(np.arcsin(up))


@pytest.mark.parametrize(("height", "tilt", "towards"), [(1.6, 0, 0), (4.2, 0, 0), (2.0, 3, 40), (2.5, 3, 130), (2.8, 2, -75)])
def test_a_mark_is_where_a_camera_of_another_height_or_tilt_sees_it(plain, height, tilt, towards):
    painted = disc(plain, beyond(40.0, 6.0), 0.5)
    plain.colour[painted] = MAGENTA
    camera, width = looks.Camera(height_m=height, tilt_deg=tilt, towards_deg=towards), 2048
    panorama = render.panorama(plain, *CAMERA, width, np.random.default_rng(0), camera, PLAIN_LOOK)
    bearing, elevation = seen_at(np.argwhere(painted).mean(0) + 0.5, camera)
    expected = geometry.elevation_to_row(elevation, width // 2), geometry.bearing_to_column(bearing, width)
    np.testing.assert_allclose(centroid(panorama), expected, atol=1.0)


@pytest.mark.parametrize("towards", [0, 90, 200])
def test_a_view_that_leans_moves_what_stands_up_and_leaves_the_ground(plain, towards):
    """By its height times the tangent, towards the bearing."""
    style = plain.style
    plain.style = replace(style, lean_deg=(12.0, towards), shade=1.0)
    ground, roof = disc(plain, beyond(200.0, 8.0), 1.0), disc(plain, beyond(20.0, 14.0), 3.0)
    plain.colour[ground] = MAGENTA
    flat = centroid(render.aerial(plain))
    plain.colour[ground], plain.colour[roof], plain.height[roof] = 128, MAGENTA, int(10 / QUARTER_M)
    view = render.aerial(plain)
    plain.style = style
    np.testing.assert_allclose(flat, np.argwhere(ground).mean(0) + 0.5, atol=0.1)
    moved = 10 * np.tan(np.radians(12)) / plain.metres_per_pixel
    expected = np.argwhere(roof).mean(0) + 0.5 + moved * np.array([-np.cos(np.radians(towards)), np.sin(np.radians(towards))])
    bright = view[..., 0].astype(int) - view[..., 1] > 200  # its sides are darker
    np.testing.assert_allclose(np.argwhere(bright).mean(0) + 0.5, expected, atol=2.1)


def test_the_mark_is_also_found_in_small_panoramas(plain):
    plain.colour[disc(plain, beyond(100.0, 5.0), 0.8)] = MAGENTA
    panorama = render.panorama(plain, *CAMERA, 256, np.random.default_rng(0))
    expected = geometry.elevation_to_row(-np.degrees(np.arctan2(2.5, 5.0)), 128), geometry.bearing_to_column(100.0, 256)
    np.testing.assert_allclose(centroid(panorama), expected, atol=0.35)


def test_what_stands_up_hides_what_lies_behind(plain):
    pillar = disc(plain, beyond(60.0, 10.0), 1.0)
    plain.colour[disc(plain, beyond(60.0, 15.0), 0.5)] = (0, 255, 0)
    plain.colour[pillar], plain.height[pillar] = MAGENTA, int(5.0 / QUARTER_M)
    width = 1024
    panorama = render.panorama(plain, *CAMERA, width, np.random.default_rng(0)).astype(int)
    column = panorama[:, int(geometry.bearing_to_column(60.0, width))]
    magenta = np.flatnonzero(column[:, 0] - column[:, 1] > 60)
    for edge, height_m in ((magenta[0], 5.0), (magenta[-1] + 1, 0.0)):  # the pillar's near face is 9 m away
        assert edge == pytest.approx(geometry.elevation_to_row(np.degrees(np.arctan2(height_m - 2.5, 9.0)), width // 2), abs=1.5)
    assert not (panorama[..., 1] - panorama[..., 0] > 60).any()


def test_one_looks_below_a_tree_crown(plain):
    crown = disc(plain, beyond(-90.0, 8.0), 1.5)
    plain.canopy[crown], plain.leaf[crown] = int(6.0 / QUARTER_M), 128
    plain.colour[disc(plain, beyond(-90.0, 13.0), 0.8)] = MAGENTA
    panorama = render.panorama(plain, *CAMERA, 1024, np.random.default_rng(0))
    found = centroid(panorama[256:]) + (256, 0)
    assert found == pytest.approx((geometry.elevation_to_row(-np.degrees(np.arctan2(2.5, 13.0)), 512), 256), abs=0.7)
    green = panorama[200, 256].astype(int)  # 20 degrees up
    assert green[1] > green[2] + 20


def test_views_are_taken_at_different_times_of_one_world():
    city = build("NewYork", 0, (2, 2))
    seen = {time: city.at(time) for time in ("satellite", "panorama")}
    changed = (seen["satellite"].height != seen["panorama"].height) & (city.height == 0)
    assert 0.001 < changed.mean() < 0.1
    assert (seen["satellite"].height[city.wall > 0] == seen["panorama"].height[city.wall > 0]).all()


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    """A small finished set of two cities. Read only."""
    return writer.make(tmp_path_factory.mktemp("mini") / "set", workers=1, **SMALL)


def labels(root, city, name="pano_label_balanced__corrected"):
    """[(panorama, (its latitude, longitude), [(satellite, (latitude, longitude), (row offset, col offset)), ...]), ...]"""
    result = []
    for line in (root / "splits__corrected" / city / f"{name}.txt").read_text().splitlines():
        words = line.split(" ")
        assert len(words) == 13
        satellites = []
        for name, row, col in zip(words[1::3], words[2::3], words[3::3], strict=True):
            latitude, longitude = name.removesuffix(".png").split("_")[1:]
            satellites.append((name, (float(latitude), float(longitude)), (float(row), float(col))))
        identifier, latitude, longitude, rest = words[0].split(",")
        assert len(identifier) == 22 and rest == ".jpg"
        result.append((words[0], (float(latitude), float(longitude)), satellites))
    return result


@pytest.mark.parametrize("city", SMALL["cities"])
def test_layout_and_lists(small_set, city):
    everything = labels(small_set, city)
    train, test = (labels(small_set, city, f"same_area_balanced_{part}__corrected") for part in ("train", "test"))
    assert len(everything) == 6 and len(train) == len(test) == 3
    assert sorted(name for name, *_ in train + test) == sorted(name for name, *_ in everything)
    assert {path.name for path in (small_set / city / "panorama").iterdir()} == {name for name, *_ in everything}

    listed = (small_set / "splits__corrected" / city / "satellite_list.txt").read_text().split()
    assert {name for *_, satellites in everything for name, *_ in satellites} == set(listed)
    assert {path.name for path in (small_set / city / "satellite").iterdir()} == set(listed)
    masks = {path.name for path in (small_set / city / "point_prompt_mask").iterdir()}
    assert masks == {name.removesuffix(".png") + "_mask.tif" for name in listed}

    panorama = cv2.imread(str(small_set / city / "panorama" / everything[0][0]))
    satellite = cv2.imread(str(small_set / city / "satellite" / listed[0]))
    assert panorama.shape == (64, 128, 3) and satellite.shape == (640, 640, 3)


def read_mask(root, city, name):
    return cv2.imread(str(root / city / "point_prompt_mask" / (name.removesuffix(".png") + "_mask.tif")), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize("city", SMALL["cities"])
def test_names_offsets_and_pixels_agree(small_set, city):
    for _, gps, satellites in labels(small_set, city):
        assert len({name for name, *_ in satellites}) == 4
        first, first_gps, _ = satellites[0]
        first_mask = read_mask(small_set, city, first)
        assert first_mask.shape == (640, 640) and set(np.unique(first_mask)) == {0, 255}
        for number, (name, satellite_gps, offsets) in enumerate(satellites):
            position = geometry.offsets_to_position(*offsets)
            assert position == pytest.approx(geometry.gps_to_position(*gps, *satellite_gps), abs=0.05)
            assert number > 0 or np.abs(offsets).max() <= 160  # the central quarter of the positive
            mask = read_mask(small_set, city, name)
            if max(position) < 640 and min(position) >= 0:
                assert mask[int(position[0]), int(position[1])] == 255
            # both images show the same ground where their names say that they overlap
            down, right = np.subtract(geometry.gps_to_position(*satellite_gps, *first_gps), 320)
            assert down == pytest.approx(round(down), abs=0.01) and right == pytest.approx(round(right), abs=0.01)
            down, right = round(down), round(right)
            here, there = (slice(max(n, 0), 640 + min(n, 0)) for n in (down, right))
            np.testing.assert_array_equal(first_mask[here, there], mask[shift(down), shift(right)])


def shift(n):
    return slice(max(-n, 0), 640 - max(n, 0))


def test_some_semi_positives_leave_the_panorama_outside():
    rng = np.random.default_rng(0)
    outside = {name: 0 for name in STYLES}
    for name, style in STYLES.items():
        for _ in range(1500):
            row, col = np.array(writer.tile_centre((4, 7))) + rng.uniform(-160, 160, 2)
            tiles = writer.tiles_around((4, 7), row, col, style.outside, rng)
            assert tiles[0] == (4, 7) and len(set(tiles)) == 4
            away = np.abs(np.subtract([writer.tile_centre(tile) for tile in tiles], (row, col))).max(1)
            outside[name] += (away[1:] >= 320).mean() / 1500
    assert outside == pytest.approx({"NewYork": 0.02, "Seattle": 0.28, "SanFrancisco": 0.04, "Chicago": 0.07}, abs=0.02)


def test_same_seed_same_bytes_whatever_the_workers(small_set, tmp_path):
    again = writer.make(tmp_path / "again", workers=2, **SMALL)
    assert contents(again) == contents(small_set)


def test_varied_worlds_differ_and_are_the_same_every_time(tmp_path, monkeypatch):
    monkeypatch.setitem(writer._DISTRICT, "varied", 3)
    varied = {**SMALL, "cities": ("Seattle",), "styles": "varied"}
    first, second = (writer.make(tmp_path / name, workers=n, **varied) for name, n in (("first", 1), ("second", 2)))
    assert contents(first) == contents(second)
    styles = [build("Seattle", 3, (1, 1), district, "varied").style for district in range(2)]
    assert styles[0].asphalt != styles[1].asphalt and styles[0].latitude == styles[1].latitude
    assert json.loads((first / "mini_vigor.json").read_text())["styles"] == "varied"
    for _, gps, satellites in labels(first, "Seattle"):
        name, satellite_gps, _ = satellites[0]
        row, col = geometry.gps_to_position(*gps, *satellite_gps)
        assert read_mask(first, "Seattle", name)[int(row), int(col)] == 255  # a camera stands on a carriageway


def test_a_world_without_room_gives_way_to_another_in_its_place(tmp_path, monkeypatch):
    drawing = writer.Drawing(panoramas=3, seed=3, styles="varied")
    (district,) = writer.districts_of(tmp_path, "Seattle", drawing)
    usual, places = writer.lay_out(district)
    assert len(places) == 3 and (usual.drivable == build("Seattle", 3, (2, 3), 0, "varied").drivable).all()
    given, tried, crowded = writer.camera_places, [], 1

    def crowd(city, *more):
        tried.append(city)
        return list(given(city, *more))[: 2 if len(tried) <= crowded else None]

    monkeypatch.setattr(writer, "camera_places", crowd)
    world, places = writer.lay_out(district)
    assert len(tried) == 2 and len(places) == 3 and world.origin == usual.origin
    assert (tried[0].drivable == usual.drivable).all() and (world.drivable != usual.drivable).any()
    crowded = 99
    with pytest.raises(UserError, match="Seattle: no world of 5 has room for 3 panoramas, at most 2; try another --seed"):
        writer.lay_out(district)


def test_heights_of_cameras_can_be_told(tmp_path):
    """Worlds stay what they are, panoramas do not; the folder says so, and is not mixed with another one."""
    varied = {**SMALL, "panoramas": 2, "cities": ("Seattle",), "styles": "varied"}
    usual, high = writer.make(tmp_path / "usual", **varied), writer.make(tmp_path / "high", **varied, camera_heights=(3.5, 4))
    one, other = contents(usual), contents(high)
    assert one.keys() == other.keys()
    changed = {name for name in one if one[name] != other[name]}
    assert {name[name.rindex(".") :] for name in changed} == {".jpg", ".json"} and len(changed) == 3
    assert json.loads((high / "mini_vigor.json").read_text())["camera_heights"] == [3.5, 4]
    assert "camera_heights" not in json.loads((usual / "mini_vigor.json").read_text())
    assert writer.make(high, **varied, camera_heights=(3.5, 4)) == high
    with pytest.raises(UserError, match=r"of camera_heights \[3.5, 4\], not as usual; name another folder"):
        writer.make(high, **varied)
    with pytest.raises(UserError, match="of styles varied, not as usual; name another folder"):
        writer.make(usual, **{**varied, "styles": "default"})
    rng = np.random.default_rng(0)
    drawn = np.array([looks.draw_camera(rng, (1.6, 4.2)).height_m for _ in range(400)])
    assert 1.6 <= drawn.min() < 1.7 and 4.0 < drawn.max() <= 4.2
    assert np.median(drawn) == pytest.approx(np.sqrt(1.6 * 4.2), rel=0.08)


def test_an_interrupted_set_is_completed(small_set, tmp_path):
    root = tmp_path / "cut"
    shutil.copytree(small_set, root)
    files = sorted(path for path in (root / "Seattle").rglob("*") if path.is_file())
    for path in files[::2]:
        path.unlink()
    files[0].with_name("." + files[0].name + ".1.1.tmp").write_bytes(b"half of an image")
    shutil.rmtree(root / "splits__corrected")
    settings = json.loads((root / "mini_vigor.json").read_text())
    (root / "mini_vigor.json").write_text(json.dumps({**settings, "complete": False}))
    writer.make(root, workers=1, **SMALL)
    assert contents(root) == contents(small_set)


def test_a_finished_set_is_left_alone(small_set, monkeypatch, capsys):
    monkeypatch.setattr(writer, "build", None)  # drawing anything would fail
    assert writer.make(small_set, **{**SMALL, "progress": True}) == small_set
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="this folder holds something else than a mini-VIGOR; name an empty or a new one"):
        writer.make(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_other_settings_than_the_folders_are_refused(small_set):
    with pytest.raises(UserError, match="holds a mini-VIGOR of panorama_width 128, not 256; name another folder"):
        writer.make(small_set, **{**SMALL, "panorama_width": 256})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--panoramas 0", "argument --panoramas: '0' is not a whole number from 2"),
        ("--panorama_width 129", "argument --panorama_width: '129' is not a multiple of 4 from 64 up to 4096"),
        ("--workers 0", "argument --workers: '0' is not a whole number from 1"),
        ("--seed -1", "argument --seed: '-1' is not a whole number from 0"),
        ("--cities Boston", "argument --cities: invalid choice: 'Boston' (choose from 'NewYork', 'Seattle'"),
        (
            "--cities Chicago Chicago",
            "cities Chicago Chicago: expected one or more of NewYork, Seattle, SanFrancisco, Chicago, each",
        ),
    ],
)
def test_bad_flags_are_refused(words, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        flags.run_script(command.main, command.build_parser(), ["--root", str(tmp_path / "new"), *words.split()])
    assert stop.value.code == 2 and message in capsys.readouterr().err.strip().split("\n")[-1]
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"panoramas": 0}, "panoramas 0: expected a whole number from 2"),
        ({"panorama_width": 129}, "panorama_width 129: expected a multiple of 4 from 64 up to 4096"),
        ({"seed": -1}, "seed -1: expected a whole number from 0"),
        ({"camera_heights": (2, 3)}, "camera_heights 2 3: cameras of --styles default all stand 2.5 m high"),
        ({"camera_heights": (3, 2), "styles": "varied"}, "camera_heights 3 2: expected the lower one first"),
        ({"cities": ["Boston"]}, "cities Boston: expected one or more of NewYork, Seattle"),
    ],
)
def test_bad_values_are_refused(changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        writer.make(tmp_path / "new", **{**SMALL, **changes})
    assert not (tmp_path / "new").exists()


def test_a_street_of_its_own(tmp_path):
    panorama, satellite, centre = draw_street(tmp_path / "street", 7)
    assert cv2.imread(str(panorama)).shape == (512, 1024, 3) and cv2.imread(str(satellite)).shape == (640, 640, 3)
    assert satellite.name == f"satellite_{centre[0]:.10f}_{centre[1]:.10f}.png"
    place = geometry.gps_to_position(*map(float, panorama.name.split(",")[1:3]), *centre)
    assert all(160 <= at < 480 for at in place)  # a positive: the panorama stands in its middle
