"""A city out of a table and imagery: labels, images, splits and lists, and what stops it half-way."""

import json

import numpy as np
import pytest
from PIL import Image

from benchmarks.raw_city import take_apart
from common import geometry
from common.errors import UserError
from dataset.city.__main__ import build_parser, main
from dataset.city.grid import TileGrid, near_test, split_by_blocks
from dataset.city.panorama import turn_to_north
from dataset.images import read_mask, read_panorama, read_satellite
from dataset.index import VigorIndex, load_index
from dataset.lists import positions_by_name, satellite_list
from dataset.mini_vigor import writer


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """A mini-VIGOR of one small city."""
    folder = tmp_path_factory.mktemp("drawn") / "mini"
    return writer.make(folder, cities=("Seattle",), panoramas=8, panorama_width=256, seed=3, workers=1, progress=False)


@pytest.fixture(scope="session")
def raw(drawn, tmp_path_factory):
    """Its raw materials."""
    folder = tmp_path_factory.mktemp("raw")
    take_apart(drawn, "Seattle", folder)
    lines = (folder / "table.csv").read_text().splitlines()
    (folder / "few.csv").write_text("\n".join([*lines[:2], lines[-1]]) + "\n")  # one that trains, one that tests
    return folder


@pytest.fixture(scope="session")
def built(raw, tmp_path_factory):
    """A root with the city built of it, on the grid of everywhere. Read only."""
    return build(tmp_path_factory.mktemp("built"), raw, raw / "imagery.mbtiles")


def all_of(root, city):
    """Every panorama of a city, `VigorIndex`, by the lists that cross-area tests read."""
    return load_index(root, "crossarea", "test", cities=(city,))


def through(drawn):
    """The centre of one of mini-VIGOR's satellite images, for the same grid."""
    return [str(degrees) for degrees in all_of(drawn, "Seattle").satellite_gps[0]]


def build(root, raw, imagery, *flags, table="table.csv", city="Own"):
    words = ["--root", root, "--city", city, "--panoramas", raw / table, "--imagery", imagery, "--workers", "2", *flags]
    main(build_parser().parse_args([str(word) for word in words]))
    return root


def match(built: VigorIndex, drawn: VigorIndex):
    """[(row, row)] of the same panorama, which are called otherwise, by where they stand."""

    def place(name):
        return tuple(round(float(degrees), 6) for degrees in name.decode().split(",")[1:3])

    places = [{place(name): row for row, name in enumerate(one.panorama)} for one in (built, drawn)]
    assert places[0].keys() == places[1].keys()
    return [(places[0][place], places[1][place]) for place in places[0]]


@pytest.fixture(params=["utm.tif", "imagery.mbtiles", "tiles"])
def source(request, raw, server):
    """Each kind of imagery."""
    if request.param != "tiles":
        return raw / request.param

    def answer(path):
        file = raw / "tiles" / path.lstrip("/")
        return (200, "image/png", file.read_bytes(), {}) if file.exists() else (404, "text/plain", b"", {})

    server.answer = answer
    return server.address


def test_what_is_built_is_what_was_taken_apart(drawn, raw, source, tmp_path):
    osm = drawn / "osm" / "Seattle.osm.pbf"
    build(tmp_path, raw, source, "--through", *through(drawn), "--osm", osm, "--requests_per_second", "1e6")
    own, there = all_of(tmp_path, "Own"), all_of(drawn, "Seattle")
    masks = 0
    for row, other in match(own, there):
        assert own.position[row, 0] == pytest.approx(there.position[other, 0], abs=0.1)
        one, two = own.satellite[row, 0], there.satellite[other, 0]
        assert own.satellite_gps[one] == pytest.approx(there.satellite_gps[two], abs=1e-8)
        image = read_satellite(tmp_path / own.satellite_path(one), (640, 640)).astype(float)
        drawing = read_satellite(drawn / there.satellite_path(two), (640, 640)).astype(float)
        away = np.abs(image - drawing).mean()
        assert away < 3 and all(away < 0.7 * np.abs(np.roll(image, 1, axis) - drawing).mean() for axis in (0, 1))
        street = read_panorama(tmp_path / own.panorama_path(row), 128, 256).astype(float)
        seen = read_panorama(drawn / there.panorama_path(other), 128, 256).astype(float)
        away = np.abs(street - seen).mean()
        assert away < 8 and all(away < 0.8 * np.abs(np.roll(street, shift, 1) - seen).mean() for shift in (-1, 1))
        mask = read_mask(tmp_path / own.mask_path(one), (640, 640)) > 0
        mapped = read_mask(drawn / there.mask_path(two), (640, 640)) > 0
        masks += (mask & mapped).sum() / (mask | mapped).sum()
    assert masks / len(own) > 0.97


def test_labels_agree_with_names_and_semi_positives_hold_the_panorama(built):
    own = all_of(built, "Own")
    names = np.array([name.decode().split(",")[1:3] for name in own.panorama], float)
    by_name = positions_by_name(names, own.satellite_gps[own.satellite])
    assert own.position == pytest.approx(by_name, abs=1e-3)
    assert own.inside.all() and (np.abs(own.position[:, 0] - 320) <= 160).all()
    assert (np.sort(own.satellite, 1)[:, 1:] > np.sort(own.satellite, 1)[:, :-1]).all()
    steps = np.stack(geometry.mercator_px(*own.satellite_gps.T), 1) / 320
    assert steps == pytest.approx(np.rint(steps), abs=1e-4)  # VIGOR's step, the same grid everywhere


def test_the_table_s_split_is_kept_and_told(drawn, built):
    places = [
        {name.decode().split(",")[1][:9] for split in splits for name in load_index(root, "samearea", split).panorama}
        for root in (built, drawn)
        for splits in (("train", "val"), ("test",))
    ]
    assert places[:2] == places[2:]
    report = json.loads((built / "Own" / "build.json").read_text())
    assert report["complete"] and report["report"]["train"] == report["report"]["test"] == 4
    assert Image.open(built / "Own" / "build.png").size[0] > 300


def test_a_root_of_two_cities(raw, tmp_path):
    for city in ("Delft", "Leiden"):
        build(tmp_path, raw, raw / "imagery.mbtiles", city=city, table="few.csv")
    assert len(load_index(tmp_path, "crossarea", "train", cities=("Delft",))) + len(
        load_index(tmp_path, "crossarea", "val", cities=("Delft",))
    ) == len(load_index(tmp_path, "crossarea", "test", cities=("Leiden",)))


def test_box_fills_the_grid(raw, tmp_path):
    build(tmp_path, raw, raw / "imagery.mbtiles", "--coverage", "box", table="few.csv")
    names = satellite_list(tmp_path / "splits__corrected" / "Own")
    centres = np.array([name.removesuffix(".png").split("_")[1:] for name in names], float)
    cells = np.rint(np.stack(geometry.mercator_px(*centres.T), 1) / 320).astype(int)
    assert len(names) == np.prod(np.ptp(cells, axis=0) + 1)


def test_another_heading_in_the_table_turns_that_panorama_again(raw, tmp_path):
    lines = (raw / "few.csv").read_text().splitlines()
    build(tmp_path / "city", raw, raw / "imagery.mbtiles", table="few.csv")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "city/Own/panorama").iterdir()}
    words = lines[1].split(",")
    lines[1] = ",".join([*words[:3], str(float(words[3]) + 90), *words[4:]])
    (raw / "turned.csv").write_text("\n".join(lines) + "\n")
    build(tmp_path / "city", raw, raw / "imagery.mbtiles", table="turned.csv")
    changed = [path.name for path in (tmp_path / "city/Own/panorama").iterdir() if path.stat().st_mtime_ns != before[path.name]]
    assert len(changed) == 1 and "street-00000" in changed[0]


def test_other_imagery_does_not_mix_in(raw, built):
    with pytest.raises(UserError, match=r"holds a city of .* of imagery imagery\.mbtiles, \d+ bytes, not utm\.tif, \d+ bytes"):
        build(built, raw, raw / "utm.tif")


def test_a_tile_that_fails_is_tried_again_by_the_same_command(raw, server, tmp_path):
    fails = []

    def answer(path):
        file = raw / "tiles" / path.lstrip("/")
        if not fails or path in fails[:1]:
            fails.append(path)
            return 404, "text/plain", b"", {}
        return (200, "image/png", file.read_bytes(), {}) if file.exists() else (404, "text/plain", b"", {})

    server.answer = answer
    quick = ("--requests_per_second", "1e6")
    with pytest.raises(UserError, match=r"satellite images that panoramas need cannot be had.*404.*tries them again"):
        build(tmp_path, raw, server.address, *quick)
    assert not json.loads((tmp_path / "Own" / "build.json").read_text())["complete"]
    fails[0], asked = "no longer", len(server.asked)
    build(tmp_path, raw, server.address, *quick)
    assert len(server.asked) - asked < asked / 2  # what was there was not asked for again
    assert json.loads((tmp_path / "Own" / "build.json").read_text())["complete"]


def test_panoramas_without_imagery_can_be_left_out(raw, server, tmp_path, capsys):
    gone = []

    def answer(path):
        file = raw / "tiles" / path.lstrip("/")
        gone.extend([] if gone else [path])
        there = file.exists() and path != gone[0]
        return (200, "image/png", file.read_bytes(), {}) if there else (404, "text/plain", b"", {})

    server.answer = answer
    build(tmp_path, raw, server.address, "--on_missing", "skip", "--requests_per_second", "1e6")
    report = json.loads((tmp_path / "Own" / "build.json").read_text())["report"]
    assert report["missing"] >= 1 and report["images_missing"] >= 1
    assert len(all_of(tmp_path, "Own")) == report["train"] + report["test"] == 8 - report["missing"]
    assert "left out: no imagery" in capsys.readouterr().out


def test_a_refusal_stops_at_once(raw, server, tmp_path):
    server.answer = lambda path: (403, "text/plain", b"", {})
    with pytest.raises(UserError, match=r"the provider refuses \(status 403"):
        build(tmp_path, raw, server.address, "--requests_per_second", "1e6", "--workers", "1")
    assert len(server.asked) <= 2  # the next one may have been on its way


def test_panoramas_outside_the_imagery_or_the_extract(drawn, raw, tmp_path):
    lines = (raw / "table.csv").read_text().splitlines()

    def refused(changed):
        (raw / "wrong.csv").write_text("\n".join([lines[0], *changed]) + "\n")
        with pytest.raises(UserError) as error:
            build(tmp_path, raw, raw / "utm.tif", table="wrong.csv")
        assert not (tmp_path / "Own").exists() and "\n" not in str(error.value)
        return str(error.value)

    file, latitude, longitude, *rest = lines[1].split(",")
    north = refused([*lines[2:], ",".join([file, str(float(latitude) + 0.1), longitude, *rest])])
    extract = drawn / "osm" / "Seattle.osm.pbf"
    with pytest.raises(UserError, match=r"1 of 8 panoramas lie outside the extract .*Seattle\.osm\.pbf; the furthest"):
        build(tmp_path, raw, raw / "utm.tif", "--osm", extract, table="wrong.csv")
    assert "1 of 8 panoramas lie outside the imagery; the furthest" in north and "by 10." in north and "swapped" not in north


def test_latitude_and_longitude_swapped_are_recognized(tmp_path, server):
    """Where both are latitudes, only the imagery tells."""
    import rasterio
    from rasterio.transform import from_bounds

    with rasterio.open(
        tmp_path / "delft.tif", "w", driver="GTiff", crs="EPSG:4326", transform=from_bounds(4.3, 52.0, 4.4, 52.05, 64, 64),
        height=64, width=64, count=3, dtype="uint8",
    ) as file:  # fmt: skip
        file.write(np.zeros((3, 64, 64), np.uint8))
    Image.new("RGB", (64, 32)).save(tmp_path / "p.jpg")
    (tmp_path / "table.csv").write_text("file,latitude,longitude,heading\np.jpg,4.35,52.01,0\n")
    with pytest.raises(UserError, match=r"52\.01 4\.35 lies inside: are latitude and longitude swapped in the table\?"):
        build(tmp_path / "city", tmp_path, tmp_path / "delft.tif")


def test_a_full_disk(raw, tmp_path, monkeypatch):
    def full(path, data, durable=False):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("dataset.city.writer.write_bytes", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\).*the same command goes on"):
        build(tmp_path, raw, raw / "utm.tif")


def test_a_city_s_name_is_a_folder_s(raw, tmp_path):
    for name in ("../x", "New York", "splits"):
        with pytest.raises(UserError, match=rf"--city {name}: letters, digits"):
            build(tmp_path, raw, raw / "utm.tif", city=name)


def test_the_grid_s_four_images():
    grid = TileGrid()
    positions = np.random.default_rng(0).uniform(1e8, 1e8 + 5000, (500, 2))
    four = grid.four(positions)
    away = positions[:, None] - grid.centre(four.reshape(-1, 2)).reshape(500, 4, 2)
    assert (np.abs(away[:, 0]) <= 160).all() and (away >= -320).all() and (away < 320).all()
    assert all(len({tuple(cell) for cell in cells}) == 4 for cells in four.tolist())
    assert (grid.corner(four.reshape(-1, 2)) == grid.centre(four.reshape(-1, 2)) - 320).all()


def test_a_split_by_blocks_is_by_place_and_stays_as_a_city_grows():
    origin = np.stack(geometry.mercator_px(52.01, 4.36))
    metre = 1 / geometry.metres_per_pixel(52.01)
    positions = origin + np.random.default_rng(1).uniform(0, 4000, (2000, 2)) * metre
    is_test = split_by_blocks(positions, 300, 0.25, seed=0)
    assert 0.15 < is_test.mean() < 0.35
    for place in positions[is_test][:50]:  # nearly all of whatever lies beside it is in its block
        beside = np.abs(positions - place).max(1) < 20 * metre
        assert is_test[beside].mean() > 0.4
    grown = np.concatenate([positions, origin + np.array([[5000, 5000]]) * metre])
    assert (split_by_blocks(grown, 300, 0.25, seed=0)[:-1] == is_test).all()
    assert (is_test != split_by_blocks(positions, 300, 0.25, seed=1)).any()
    close = near_test(positions, is_test, 1 / metre, 35)
    least = np.min(np.linalg.norm(positions[:, None] - positions[None, is_test], axis=-1), 1) / metre
    assert (close == (~is_test & (least < 35))).all()


def test_a_line_that_comes_back_with_another_heading_is_turned_anew(raw, tmp_path):
    lines = (raw / "few.csv").read_text().splitlines()
    words = lines[1].split(",")
    tables = {"with": lines, "without": lines[::2], "back": [lines[0], ",".join([*words[:3], "10", *words[4:]]), lines[2]]}
    seen = []
    for name, text in tables.items():
        (raw / f"{name}.csv").write_text("\n".join(text) + "\n")
        build(tmp_path, raw, raw / "imagery.mbtiles", table=f"{name}.csv")
        seen.append((tmp_path / "Own/panorama" / all_of(tmp_path, "Own").panorama[0].decode()).read_bytes())
    assert seen[0] != seen[2]


def test_no_imagery_at_all(raw, server, tmp_path):
    server.answer = lambda path: (404, "text/plain", b"", {})
    for how in ("skip", "error"):
        with pytest.raises(UserError, match=r"404"):
            build(tmp_path, raw, server.address, "--on_missing", how, "--requests_per_second", "1e6")


def test_masks_of_another_kind_are_found_before_anything_is_built(drawn, raw, tmp_path):
    osm = ("--osm", drawn / "osm" / "Seattle.osm.pbf")
    build(tmp_path, raw, raw / "imagery.mbtiles", *osm, table="few.csv")
    with pytest.raises(UserError, match=r"holds masks .*not \['paths'\]"):
        build(tmp_path, raw, raw / "imagery.mbtiles", *osm, "--also", "paths", table="few.csv")
    assert json.loads((tmp_path / "Own" / "build.json").read_text())["complete"]


@pytest.mark.parametrize("heading", [0.0, 90.0, -45.0, 17.3, 179.9])
def test_panoramas_are_turned_to_north(heading):
    """A bearing drawn into a panorama of any heading is seen where a north-centred one shows it."""
    width = 1000
    bearings = geometry.column_to_bearing(np.arange(width) + 0.5, width, heading)
    image = np.repeat(127 + 100 * np.cos(np.radians(bearings - 40))[None, :, None], width // 2, 0).repeat(3, 2).astype(np.uint8)
    turned = turn_to_north(image, heading)
    assert turned.shape == (1024, 2048, 3)
    seen = 127 + 100 * np.cos(np.radians(geometry.column_to_bearing(np.arange(2048) + 0.5, 2048) - 40))
    assert np.abs(turned[500, :, 0] - seen).max() < 2
