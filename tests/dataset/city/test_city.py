"""A city from a table and imagery: labels, images, splits and lists, and what stops or continues a build."""

import json

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_bounds
from raw_city import take_apart

from common import geometry
from common.errors import UserError
from dataset.city.__main__ import build_parser, main
from dataset.city.grid import TileGrid, near_test, split_by_blocks
from dataset.city.street_images import turn_to_north
from dataset.images import read_mask, read_panorama, read_satellite
from dataset.index import load_index
from dataset.lists import positions_by_name, satellite_list

pytestmark = pytest.mark.slow
QUICK = ("--requests_per_second", "1000")


@pytest.fixture(scope="session")
def raw(seattle, tmp_path_factory):
    """Its raw materials, with a second table of two lines: one training, one test panorama."""
    folder = tmp_path_factory.mktemp("raw")
    take_apart(seattle, "Seattle", folder)
    lines = (folder / "table.csv").read_text().splitlines()
    write_table(folder, "few.csv", [*lines[:2], lines[-1]])
    return folder


@pytest.fixture(scope="session")
def built(raw, tmp_path_factory):
    """A root with the city built from it. Read only."""
    return build(tmp_path_factory.mktemp("built"), raw, raw / "imagery.mbtiles")


def write_table(folder, name, lines):
    (folder / name).write_text("\n".join(lines) + "\n")


def build(root, raw, imagery, *flags, table="table.csv", city="Own"):
    words = ["--root", root, "--city", city, "--panoramas", raw / table, "--imagery", imagery, *flags]
    main(build_parser().parse_args([str(word) for word in words]))
    return root


def all_of(root, city="Own"):
    """The index of all panoramas of a city, by the lists that cross-area tests read."""
    return load_index(root, "crossarea", "test", cities=(city,))


def manifest(root):
    return json.loads((root / "Own" / "build.json").read_text())


def match(built, seattle):
    """[(row, row)] of the same panorama in two indices; names differ, positions agree."""

    def places(index):
        gps = [name.decode().split(",")[1:3] for name in index.panorama]
        return {tuple(round(float(degrees), 6) for degrees in place): row for row, place in enumerate(gps)}

    first, second = places(built), places(seattle)
    assert first.keys() == second.keys()
    return [(first[place], second[place]) for place in first]


def differences(image, other, shifts):
    """Mean difference of two images as they are, and those with the first image rolled by (shift, axis)."""
    image, other = image.astype(float), other.astype(float)
    rolled = [np.abs(np.roll(image, *shift) - other).mean() for shift in shifts]
    return np.abs(image - other).mean(), min(rolled)


@pytest.mark.parametrize("kind", ["utm.tif", "imagery.mbtiles", "tiles"])
def test_a_city_taken_apart_is_built_again(seattle, raw, kind, server, tmp_path):
    server.serve(raw / "tiles")
    imagery = server.address if kind == "tiles" else raw / kind
    through = all_of(seattle, "Seattle").satellite_gps[0]  # the same grid
    build(tmp_path, raw, imagery, "--through", *through, "--osm", seattle / "osm" / "Seattle.osm.pbf", *QUICK)
    own, original = all_of(tmp_path), all_of(seattle, "Seattle")
    overlaps = []
    for row, other in match(own, original):
        assert own.position[row, 0] == pytest.approx(original.position[other, 0], abs=0.1)
        one, two = own.satellite[row, 0], original.satellite[other, 0]
        assert own.satellite_gps[one] == pytest.approx(original.satellite_gps[two], abs=1e-8)
        pair = [read_satellite(tmp_path / own.satellite_image(one).path, (640, 640))]
        pair.append(read_satellite(seattle / original.satellite_image(two).path, (640, 640)))
        as_is, shifted = differences(*pair, [(1, 0), (1, 1)])
        assert as_is < 3 and as_is < 0.7 * shifted
        pair = [read_panorama(tmp_path / own.panorama_image(row).path, 128, 256)]
        pair.append(read_panorama(seattle / original.panorama_image(other).path, 128, 256))
        as_is, shifted = differences(*pair, [(1, 1), (-1, 1)])
        assert as_is < 8 and as_is < 0.8 * shifted
        mask = read_mask(tmp_path / own.mask_image(one).path, (640, 640)) > 0
        expected = read_mask(seattle / original.mask_image(two).path, (640, 640)) > 0
        overlaps.append((mask & expected).sum() / (mask | expected).sum())
    assert np.mean(overlaps) > 0.97


def test_labels_agree_with_names_and_semi_positives_show_the_panorama(built):
    own = all_of(built)
    names = np.array([name.decode().split(",")[1:3] for name in own.panorama], float)
    assert own.position == pytest.approx(positions_by_name(names, own.satellite_gps[own.satellite]), abs=1e-3)
    assert own.inside.all() and (np.abs(own.position[:, 0] - 320) <= 160).all()
    assert (np.sort(own.satellite, 1)[:, 1:] > np.sort(own.satellite, 1)[:, :-1]).all()
    steps = np.stack(geometry.mercator_px(*own.satellite_gps.T), 1) / 320
    assert steps == pytest.approx(np.rint(steps), abs=1e-4)  # VIGOR's step, the same grid everywhere


def test_the_table_s_split_is_kept_and_reported(seattle, built):
    def latitudes(root, *splits):
        names = [name for split in splits for name in load_index(root, "samearea", split).panorama]
        return {name.decode().split(",")[1][:9] for name in names}

    for splits in (("train", "val"), ("test",)):
        assert latitudes(built, *splits) == latitudes(seattle, *splits)
    report = manifest(built)["report"]
    assert manifest(built)["complete"] and report["train"] == report["test"] == 4
    assert Image.open(built / "Own" / "build.png").size[0] > 300


def test_a_root_of_two_cities_one_of_them_a_box(raw, tmp_path):
    build(tmp_path, raw, raw / "imagery.mbtiles", city="Delft", table="few.csv")
    build(tmp_path, raw, raw / "imagery.mbtiles", "--coverage", "box", city="Leiden", table="few.csv")
    splits = [load_index(tmp_path, "crossarea", split, cities=("Delft",)) for split in ("train", "val")]
    assert sum(map(len, splits)) == len(all_of(tmp_path, "Leiden")) == 2
    names = satellite_list(tmp_path / "splits__corrected" / "Leiden")
    centres = np.array([name.removesuffix(".png").split("_")[1:] for name in names], float)
    cells = np.rint(np.stack(geometry.mercator_px(*centres.T), 1) / 320).astype(int)
    assert len(names) == np.prod(np.ptp(cells, axis=0) + 1)


def test_panoramas_follow_their_line_in_the_table(raw, tmp_path):
    """Another heading turns one panorama again, and only that one, also if its line was absent in between."""
    lines = (raw / "few.csv").read_text().splitlines()
    words = lines[1].split(",")

    def build_with(name, *table):
        write_table(raw, name, [lines[0], *table])
        build(tmp_path, raw, raw / "imagery.mbtiles", table=name)
        files = (tmp_path / "Own/panorama").iterdir()
        return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    def turned(heading):
        return ",".join([*words[:3], str(heading), *words[4:]])

    first = build_with("first.csv", *lines[1:])
    second = build_with("turned.csv", turned(float(words[3]) + 90), lines[2])
    (changed,) = [name for name in first if first[name] != second[name]]
    assert "street-00000" in changed
    build_with("without.csv", lines[2])
    assert build_with("back.csv", turned(10), lines[2])[changed][1] != second[changed][1]


def test_other_imagery_does_not_mix_in(raw, built):
    with pytest.raises(UserError, match=r"Own: .* imagery\.mbtiles, \d+ bytes, not utm\.tif, \d+ bytes"):
        build(built, raw, raw / "utm.tif")


def test_a_missing_tile_is_requested_again_by_the_same_command(raw, server, tmp_path):
    server.serve(raw / "tiles")
    build(tmp_path / "whole", raw, server.address, *QUICK)
    fails, requests = [server.asked[0]], len(server.asked)
    server.serve(raw / "tiles", fails)
    with pytest.raises(UserError, match=r"satellite images around.*404.*same command.*--on_missing skip"):
        build(tmp_path, raw, server.address, *QUICK)
    assert not manifest(tmp_path)["complete"]
    fails.clear()
    server.asked.clear()
    build(tmp_path, raw, server.address, *QUICK)
    assert manifest(tmp_path)["complete"] and len(server.asked) < requests / 2  # the others were in the cache


def test_panoramas_without_imagery_can_be_left_out(raw, server, tmp_path, capsys):
    gone = []
    server.serve(raw / "tiles", gone)
    answer = server.answer

    def lose_first(path):
        gone.extend([] if gone else [path])
        return answer(path)

    server.answer = lose_first
    build(tmp_path, raw, server.address, "--on_missing", "skip", *QUICK)
    report = manifest(tmp_path)["report"]
    assert report["missing"] >= 1 and report["images_missing"] >= 1
    assert len(all_of(tmp_path)) == report["train"] + report["test"] == 8 - report["missing"]
    assert "left out: no imagery" in capsys.readouterr().out


@pytest.mark.parametrize("status", [403, 404])
@pytest.mark.parametrize("on_missing", ["skip", "error"])
def test_no_imagery_at_all(raw, server, tmp_path, status, on_missing):
    server.answer = lambda path: (status, "text/plain", b"", {})
    with pytest.raises(UserError, match=f"{status}"):
        build(tmp_path, raw, server.address, "--on_missing", on_missing, "--workers", "4", *QUICK)
    if status == 403:  # a refusal stops all threads: each had one request on its way at most
        assert 1 <= len(server.asked) <= 4


def test_panoramas_outside_the_imagery_or_the_extract(seattle, raw, tmp_path):
    header, first, *others = (raw / "table.csv").read_text().splitlines()
    file, latitude, longitude, *rest = first.split(",")
    moved = ",".join([file, str(float(latitude) + 0.1), longitude, *rest])
    write_table(raw, "wrong.csv", [header, *others, moved])
    extract = ("--osm", seattle / "osm" / "Seattle.osm.pbf")
    for flags, source in (((), "the imagery"), (extract, r"the extract .*Seattle\.osm\.pbf")):
        with pytest.raises(UserError, match=rf"1 of 8 panoramas lie outside {source}; .* by 10\.\d km$"):
            build(tmp_path, raw, raw / "utm.tif", *flags, table="wrong.csv")
    assert not (tmp_path / "Own").exists()


def test_latitude_and_longitude_swapped_are_recognized(tmp_path):
    """Where both are valid latitudes, only the imagery tells."""
    grid = {"crs": "EPSG:4326", "transform": from_bounds(4.3, 52.0, 4.4, 52.05, 64, 64)}
    shape = {"height": 64, "width": 64, "count": 3, "dtype": "uint8"}
    with rasterio.open(tmp_path / "delft.tif", "w", driver="GTiff", **grid, **shape) as file:
        file.write(np.zeros((3, 64, 64), np.uint8))
    Image.new("RGB", (64, 32)).save(tmp_path / "p.jpg")
    write_table(tmp_path, "table.csv", ["file,latitude,longitude,heading", "p.jpg,4.35,52.01,0"])
    with pytest.raises(UserError, match=r"52\.01 4\.35 lies inside: are latitude and longitude swapped"):
        build(tmp_path / "city", tmp_path, tmp_path / "delft.tif")


def test_a_full_disk(raw, tmp_path, monkeypatch):
    def full(path, data, durable=False):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("dataset.city.writer.write_bytes", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\).*the same command"):
        build(tmp_path, raw, raw / "utm.tif")


@pytest.mark.parametrize("name", ["../x", "New York", "splits"])
def test_a_city_s_name_is_a_folder_s(raw, tmp_path, name):
    with pytest.raises(UserError, match=f"--city {name}"):
        build(tmp_path, raw, raw / "utm.tif", city=name)


def test_masks_of_another_kind_are_refused_before_anything_is_built(seattle, raw, tmp_path):
    osm = ("--osm", seattle / "osm" / "Seattle.osm.pbf")
    build(tmp_path, raw, raw / "imagery.mbtiles", *osm, table="few.csv")
    with pytest.raises(UserError, match=r"holds masks .*not \['paths'\]"):
        build(tmp_path, raw, raw / "imagery.mbtiles", *osm, "--also", "paths", table="few.csv")
    assert manifest(tmp_path)["complete"]


def test_the_grid_s_four_images():
    grid = TileGrid()
    positions = np.random.default_rng(0).uniform(1e8, 1e8 + 5000, (500, 2))
    four = grid.four(positions)
    offsets = positions[:, None] - grid.centre(four.reshape(-1, 2)).reshape(500, 4, 2)
    assert (np.abs(offsets[:, 0]) <= 160).all() and (offsets >= -320).all() and (offsets < 320).all()
    assert all(len({tuple(cell) for cell in cells}) == 4 for cells in four.tolist())
    cells = four.reshape(-1, 2)
    assert (grid.corner(cells) == grid.centre(cells) - 320).all()


def test_a_split_by_blocks_is_by_place_and_stays_as_a_city_grows():
    origin = np.stack(geometry.mercator_px(52.01, 4.36))
    metre = 1 / geometry.metres_per_pixel(52.01)
    positions = origin + np.random.default_rng(1).uniform(0, 4000, (2000, 2)) * metre
    is_test = split_by_blocks(positions, 300, 0.25, seed=0)
    assert 0.15 < is_test.mean() < 0.35
    for position in positions[is_test][:50]:  # most neighbours are in the same block
        neighbours = np.abs(positions - position).max(1) < 20 * metre
        assert is_test[neighbours].mean() > 0.4
    grown = np.concatenate([positions, origin + np.array([[5000, 5000]]) * metre])
    assert (split_by_blocks(grown, 300, 0.25, seed=0)[:-1] == is_test).all()
    assert (is_test != split_by_blocks(positions, 300, 0.25, seed=1)).any()
    close = near_test(positions, is_test, 1 / metre, 35)
    distances = np.linalg.norm(positions[:, None] - positions[None, is_test], axis=-1) / metre
    assert (close == (~is_test & (distances.min(1) < 35))).all()


@pytest.mark.parametrize("heading", [0.0, 90.0, -45.0, 17.3, 179.9])
def test_panoramas_are_turned_to_north(heading):
    """A panorama of any heading shows a bearing where a north-centred one does."""

    def wave(width, heading):
        bearings = geometry.column_to_bearing(np.arange(width) + 0.5, width, heading)
        return 127 + 100 * np.cos(np.radians(bearings - 40))

    image = np.repeat(wave(1000, heading)[None, :, None], 500, 0).repeat(3, 2).astype(np.uint8)
    turned = turn_to_north(image, heading)
    assert turned.shape == (1024, 2048, 3)
    assert np.abs(turned[500, :, 0] - wave(2048, 0.0)).max() < 2
