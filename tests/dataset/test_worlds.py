"""mini-VIGOR's styles: the first two stay, both images show one ground, districts take styles in turn."""

import json
from dataclasses import replace
from hashlib import sha256

import cv2
import numpy as np
import pytest
from children import PLAIN_LOOK, contents

from common import geometry
from common.errors import UserError
from dataset.layout import STEP_PX
from dataset.mini_vigor import country, looks, overhead, render, writer
from dataset.mini_vigor.__main__ import build_parser
from dataset.mini_vigor.city import MARGIN_PX, QUARTER_M, generator
from dataset.mini_vigor.land import lay_land
from dataset.mini_vigor.plan import build

pytestmark = pytest.mark.slow
NEW = ("rural", "downtown")
TINY = {"panoramas": 2, "panorama_width": 128, "seed": 3, "cities": ("Chicago",), "progress": False}
NO_CARS = {time: (np.zeros((0, 3, 4, 2)), np.zeros((0, 3), int)) for time in ("satellite", "panorama")}
# Of the worlds of seed 11, as they were before there were other styles than these two.
RASTERS = {"default": "9a5c3c9431449b76", "varied": "6551d1d7f040cee2"}


@pytest.fixture(scope="module")
def worlds():
    """A small world of each new style, without cars and shadows, seen from straight above. Read only."""
    cities = {}
    for name in NEW:
        city = build("Chicago", 3, (2, 3), styles=name)
        style = replace(city.style, shade=1.0, lean_deg=(0.0, 0.0))
        cities[name] = replace(city, style=style, cars=NO_CARS)
    return cities


@pytest.mark.parametrize("styles", RASTERS)
def test_what_was_drawn_before_stays(styles):
    city = build("SanFrancisco", 11, (1, 1), 1, styles)
    layers = ("colour", "height", "canopy", "leaf", "wall", "drivable")
    digest = sha256(b"".join(getattr(city, layer).tobytes() for layer in layers))
    digest.update(b"".join(city.cars[time][0].round(3).tobytes() for time in city.cars))
    assert digest.hexdigest()[:16] == RASTERS[styles]


def look_around(city, row, col, width=1024):
    return render.panorama(city, row, col, width, np.random.default_rng(0), looks.DrawnCamera(), PLAIN_LOOK)


@pytest.mark.parametrize("name", NEW)
def test_both_images_show_the_ground_of_the_world(worlds, name):
    """The colours along bearings are those of the raster there, not of turned or mirrored bearings."""
    city = worlds[name]
    (_, gps), *_ = writer.camera_places(city, (2, 3), 1, np.random.default_rng(0))
    camera = writer.raster_px(city, gps)
    panorama, above = look_around(city, *camera).astype(float), render.aerial(city).astype(float)
    bearing, away_m = (
        part.ravel() for part in np.meshgrid(np.arange(0, 360, 7.0), [3.0, 4.5, 6.0, 8.0, 10.0])
    )
    row = geometry.elevation_to_row(-np.degrees(np.arctan2(2.5, away_m)), 512).astype(int)
    seen = panorama[row, (geometry.bearing_to_column(bearing, 1024) % 1024).astype(int)]

    def difference(bearings, image):
        place = geometry.move(*camera, bearings, away_m / city.metres_per_pixel)
        at = tuple(np.asarray(side).astype(int) for side in place)
        flat = (city.height[at] == 0) & (city.canopy[at] == 0)
        if city.deck is not None:
            flat &= city.deck[at] == 0
        assert flat.sum() > 50
        return np.median(np.abs(image[at] - seen)[flat])

    for image in (cv2.blur(city.colour.astype(float), (5, 5)), cv2.blur(above, (5, 5))):
        right = difference(bearing, image)
        assert right < 8
        assert right < 0.7 * min(difference(bearing + turn, image) for turn in (90, 180, 270))
        assert right < 0.7 * difference(-bearing, image)


def test_a_slab_hangs_above_the_street(worlds):
    """Its underside, its near side and what lies below it are seen where geometry says."""
    city = worlds["downtown"]
    blank = {layer: np.zeros_like(city.height) for layer in ("height", "canopy", "wall", "deck", "deck_tone")}
    city = replace(city, colour=np.full_like(city.colour, 128), **blank)
    camera, scale = (MARGIN_PX + 250.4, MARGIN_PX + 310.8), city.metres_per_pixel
    centre = geometry.move(*camera, 60.0, 12 / scale)
    rows, cols = np.ogrid[: city.height.shape[0], : city.height.shape[1]]
    away_m = np.hypot(rows + 0.5 - centre[0], cols + 0.5 - centre[1]) * scale
    city.colour[away_m < 0.6] = (255, 0, 255)
    clear = look_around(city, *camera).astype(int)
    city.deck[away_m < 3] = int(8 / QUARTER_M)
    covered = look_around(city, *camera).astype(int)
    column = int(geometry.bearing_to_column(60.0, 1024))
    changed = np.flatnonzero(np.abs(covered - clear)[:256, column].sum(1) > 60)
    # The far edge of the underside is 15 m away, the upper edge of the near side 9 m.
    edges = np.degrees(np.arctan2(np.array([8, 8 - overhead.SLAB_M]) - 2.5, [9, 15]))
    expected = geometry.elevation_to_row(edges, 512)
    np.testing.assert_allclose((changed[0], changed[-1] + 1), expected, atol=1.5)
    assert len(changed) == changed[-1] - changed[0] + 1
    np.testing.assert_array_equal(covered[256:, column], clear[256:, column])
    assert (np.abs(covered - clear).sum((0, 2)) > 0)[column - 20 : column + 20].all()
    at = tuple(np.array(centre).astype(int))
    np.testing.assert_array_equal(render.aerial(city)[at], overhead.TONES[0])


def test_a_road_leads_through_every_rural_district():
    for district in range(3):
        city = build("Seattle", 5, (2, 3), district, "rural")
        middle = city.drivable[MARGIN_PX : MARGIN_PX + 2 * STEP_PX, MARGIN_PX : MARGIN_PX + 3 * STEP_PX]
        assert 0.02 < (middle > 0).mean() < 0.5
        assert city.style.clear < min(city.style.streets) / 2  # there is room for a camera


def test_roads_side_by_side_have_no_land_between_them():
    city = build("Chicago", 3, (1, 1), styles="rural")
    city = replace(city, style=replace(city.style, pavement=8.0, fields=0.5, woods=0.2, farms=0.0))
    lines = np.array([[-60.0, 6.0], [0.0, 6.0], [9.0, 6.0], [80.0, 6.0]])
    for seed in range(5):
        lay_land(city, np.random.default_rng(seed), [lines, lines])


def test_a_main_road_is_open_all_along(worlds):
    city = worlds["rural"]
    closing = replace(city, style=replace(city.style, closed=1.0, twins=1.0))
    lines = [np.stack([np.arange(-600.0, 601, 200), np.full(7, 6.0)], 1) for _ in range(2)]
    roads, closed = country.plan_roads(closing, generator(0, "roads"), lines)
    (axis,) = [axis for axis in (0, 1) if len(roads[axis]) == 8]
    open_roads = ~(closed[1] if axis == 0 else closed[0].T)
    assert sorted(open_roads.all(1))[-3:] == [False, True, True]
    gap = np.diff(roads[axis][open_roads.all(1), 0])
    assert 11 <= gap[0] < 28  # a median of 5 to 22 m
    assert np.abs(roads[axis][open_roads.all(1), 0]).min() < 60


def test_traffic_changes_between_the_images():
    city = build("Seattle", 4, (1, 1), 0, "downtown")
    above, around = (city.at(time).height for time in ("satellite", "panorama"))
    assert ((above != around) & (city.height == 0)).mean() > 0.003


def test_districts_take_styles_in_turn(tmp_path):
    words = ["--styles", "varied", "varied", "rural", "--panoramas", "200"]
    args = vars(build_parser().parse_args(words))
    drawing = writer.Drawing(panoramas=args["panoramas"], styles=args["styles"])
    districts = writer.districts_of(tmp_path, "Seattle", drawing)
    assert [district.style for district in districts] == ["varied", "varied", "rural", "varied", "varied"]
    assert sum(district.panoramas for district in districts) == 200
    hard = writer.districts_of(tmp_path, "Seattle", replace(drawing, styles=("hard",)))
    assert [district.style for district in hard] == ["downtown", "varied", "rural", "varied", "downtown"]
    cameras = [hard[0].draw_camera(np.random.default_rng(seed)) for seed in range(60)]
    assert {camera.shown_deg == (90, 90) for camera in cameras} == {False, True}
    assert max(camera.tilt_deg for camera in cameras) > 4 and max(camera.height_m for camera in cameras) > 3.5
    plain = districts[0].draw_camera(np.random.default_rng(3))
    assert plain == looks.draw_camera(np.random.default_rng(3)) and plain.shown_deg == (90, 90)


def test_a_cropped_panorama_is_black_beyond_its_edges():
    camera = looks.DrawnCamera(shown_deg=(45.0, 30.0))
    image = looks.cover(np.full((180, 360, 3), 200, np.uint8), camera, np.random.default_rng(0))
    assert (image[45:120] == 200).all() and not image[:45].any() and not image[120:].any()


def test_same_seed_same_bytes_and_the_folder_knows_its_styles(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    alone = writer.make("alone", workers=1, styles="rural", **TINY)
    mixed = writer.make(tmp_path / "mixed", workers=2, styles=NEW, **TINY)
    manifests = [json.loads((root / writer.MANIFEST).read_text())["styles"] for root in (alone, mixed)]
    assert manifests == ["rural", list(NEW)]
    one, other = contents(alone), contents(mixed)
    assert one.pop(writer.MANIFEST) != other.pop(writer.MANIFEST)
    assert one == other  # the first district of both is rural
    assert writer.make(mixed, styles=NEW, **TINY) == mixed
    with pytest.raises(UserError, match=rf"{mixed}.*styles .*rural.*downtown"):
        writer.make(mixed, styles=NEW[::-1], **TINY)


@pytest.mark.parametrize("styles", [(), ("rural", "desert")])
def test_wrong_styles_are_refused(styles, tmp_path):
    with pytest.raises(UserError, match="styles"):
        writer.make(tmp_path / "new", styles=styles, **TINY)


def test_cameras_of_default_districts_keep_their_height(tmp_path):
    with pytest.raises(UserError, match=r"--camera_heights 2 3.*default"):
        writer.make(tmp_path / "new", styles=("rural", "default"), camera_heights=(2, 3), **TINY)
