"""A city from photographs: cameras from the table and the files, upright copies, and what is refused."""

import json

import numpy as np
import pytest
import rasterio
from children import make_exif
from PIL import Image
from rasterio.transform import from_bounds

from common import geometry
from common.camera import pinhole
from common.errors import UserError
from dataset.cameras import NAMES, read_cameras
from dataset.check import check_folder
from dataset.city.__main__ import build_parser, main
from dataset.city.table import read_table
from dataset.images import read_photograph
from dataset.index import load_index

LATITUDE, LONGITUDE = 52.01, 4.36
HEADER = "file,latitude,longitude,heading,split,hfov,pitch,roll,fx,fy,cx,cy,k1,k2,p1,p2,k3,accuracy"
LINES = (
    f"plain.jpg,{LATITUDE},{LONGITUDE},30,train,70,-2,1,,,,,,,,,,4.5",
    "phone.jpg,,,,test,,,,,,,,,,,,",
    f"lossless.png,{LATITUDE},{LONGITUDE + 0.0003},-100,train,,,,50,51,30,25,0.1,-0.02,0.003,0.004,0.001",
)
PLACE = {1: "N", 2: (52.0, 0.0, 36.0), 3: "E", 4: (4.0, 21.0, 36.0), 16: "T"}  # GPS of EXIF


def write_photograph(path, size=(64, 48), seed=0, orientation=None, focal=None, direction=None, **options):
    """A photograph of noise with EXIF. orientation: the tag; pixels stay as they are."""
    exif = make_exif(orientation, focal, None if direction is None else PLACE | {17: direction})
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1] // 4, size[0] // 4, 3), np.uint8)
    Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST).save(path, exif=exif, **options)


@pytest.fixture(scope="module")
def imagery(tmp_path_factory):
    """Imagery of a few hundred metres."""
    path = tmp_path_factory.mktemp("imagery") / "delft.tif"
    box = from_bounds(LONGITUDE - 0.004, LATITUDE - 0.004, LONGITUDE + 0.004, LATITUDE + 0.004, 64, 64)
    options = {"driver": "GTiff", "crs": "EPSG:4326", "transform": box, "dtype": "uint8"}
    with rasterio.open(path, "w", height=64, width=64, count=3, **options) as file:
        file.write(np.random.default_rng(0).integers(0, 256, (3, 64, 64), np.uint8))
    return path


@pytest.fixture
def folder(tmp_path):
    """Three photographs: an upright JPEG, one of a phone held upright, a PNG."""
    write_photograph(tmp_path / "plain.jpg", seed=1, quality=90)
    write_photograph(tmp_path / "phone.jpg", seed=2, orientation=6, focal=26, direction=75.0, quality=90)
    write_photograph(tmp_path / "lossless.png", seed=3)
    return tmp_path


def write_table(folder, *lines):
    (folder / "photos.csv").write_text("\n".join([HEADER, *lines]) + "\n")
    return folder / "photos.csv"


def read(folder, *lines):
    return read_table(write_table(folder, *lines), photographs=True)


def build(folder, imagery, *lines, flag="--photos"):
    table = write_table(folder, *lines)
    words = ["--root", folder / "city", "--city", "Own", flag, table, "--imagery", imagery]
    main(build_parser().parse_args([str(word) for word in words]))
    return folder / "city"


def test_cameras_come_from_the_table_or_the_file(folder):
    cameras = [row.camera.values.tolist() for row in read(folder, *LINES)]
    plain, phone, lossless = (dict(zip(NAMES, numbers, strict=True)) for numbers in cameras)
    focal = 1 / (2 * np.tan(np.radians(35)))
    assert [plain[name] for name in NAMES[:7]] == pytest.approx([30, -2, 1, focal, focal * 64 / 48, 0.5, 0.5])
    across = np.hypot(36, 24) * 48 / 80  # millimetres of film: the upright image is 48 px wide and 64 high
    assert (phone["heading"], phone["fx"]) == pytest.approx((75, 26 / across), rel=1e-6)
    assert phone["fy"] == pytest.approx(phone["fx"] * 48 / 64)
    shares = [50 / 64, 51 / 48, 30 / 64, 25 / 48]
    assert list(lossless.values())[3:] == pytest.approx([*shares, 0.1, -0.02, 0.003, 0.004, 0.001])


def test_a_city_of_photographs(folder, imagery, capsys):
    root = build(folder, imagery, *LINES)
    output = capsys.readouterr().out
    assert "3 photographs (2 train, 1 test)" in output and "shows its photographs" in output
    index = load_index(root, "crossarea", "test", cities=["Own"])
    rows = {row.file.stem: row for row in read(folder, *LINES)}
    assert index.inside.all() and len(index) == 3
    for i in range(3):
        path = root / index.panorama_image(i).path
        row = rows[path.name.partition(",")[0].split("-")[0]]
        copy = read_photograph(path)
        np.testing.assert_array_equal(copy, read_photograph(row.file))
        np.testing.assert_array_equal(index.cameras[i].values, row.camera.values)
        np.testing.assert_equal(index.accuracy[i], 4.5 if row.file.stem == "plain" else np.nan)
        assert Image.open(path).getexif().get(0x0112, 1) == 1 and Image.open(path).size == copy.shape[1::-1]
        position = index.corner(index.satellite[i, 0]) + index.position[i, 0]
        np.testing.assert_allclose(position, geometry.mercator_px(row.latitude, row.longitude), atol=1e-2)
    (plain,) = (root / "Own/panorama").glob("plain*")
    assert plain.read_bytes() == (folder / "plain.jpg").read_bytes()
    assert check_folder(root, use_mask=False, decode=True)[0] == []


def test_a_phone_s_trailer_behind_the_image_does_not_turn_it(folder):
    """Some phones write more behind a JPEG's end, which needs another decoder."""
    image = read_photograph(folder / "phone.jpg")
    (folder / "trailer.jpg").write_bytes((folder / "phone.jpg").read_bytes() + b"SEFT" * 8)
    other = read_photograph(folder / "trailer.jpg")
    assert image.shape == other.shape == (64, 48, 3) and abs(image.astype(int) - other).mean() < 1


def test_the_same_command_continues_and_updates_a_camera(folder, imagery):
    root = build(folder, imagery, *LINES)
    manifest = json.loads((root / "Own/build.json").read_text())
    (root / "Own/build.json").write_text(json.dumps(manifest | {"complete": False}))
    (gone,) = (root / "Own/panorama").glob("phone*")
    gone.unlink()
    (root / "Own/cameras.csv").unlink()
    build(folder, imagery, LINES[0].replace(",70,", ",80,"), *LINES[1:])
    assert gone.is_file() and json.loads((root / "Own/build.json").read_text())["complete"]
    cameras = read_cameras(root / "Own/cameras.csv")
    (changed,) = [camera for name, camera in cameras.items() if name.startswith("plain")]
    np.testing.assert_array_equal(changed, pinhole(64, 48, hfov=80, heading=30, pitch=-2, roll=1).values)


def test_photographs_and_panoramas_do_not_mix_in_a_city(folder, imagery):
    root = build(folder, imagery, *LINES)
    write_photograph(folder / "whole.jpg", size=(64, 32), seed=9)
    whole = f"whole.jpg,{LATITUDE},{LONGITUDE},0,train" + "," * 12
    with pytest.raises(UserError, match=r"Own: holds a city of photographs; give --photos"):
        build(folder, imagery, whole, flag="--panoramas")
    assert load_index(root, "crossarea", "test", cities=["Own"]).photographs
    other = folder / "other"
    other.mkdir()
    for name in ("whole.jpg", "plain.jpg"):
        (folder / name).rename(other / name)
    build(other, imagery, whole, flag="--panoramas")
    with pytest.raises(UserError, match=r"Own: holds a city of panoramas; give --panoramas"):
        build(other, imagery, LINES[0])


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("pano.jpg,1,2,3,,,,,,,,,,,,,", "pano.jpg: .*GPano.*--panoramas"),
        ("wide.jpg,1,2,3,,,,,,,,,,,,,", "wide.jpg: 64 x 32 px.*--panoramas"),
        ("plain.jpg,1,2,3,,,,,,,,,,,,,", "plain.jpg: EXIF has no focal length.*hfov"),
        ("plain.jpg,1,2,3,,170,,,,,,,,,,,", "line 2: hfov 170"),
        ("plain.jpg,1,2,3,,70,,,50,,,,,,,,", "line 2: a camera: give either"),
        ("plain.jpg,1,2,3,,70,up,,,,,,,,,,", "line 2: .*pitch.*'up' is not a number"),
        ("plain.jpg,1,2,,,70,,,,,,,,,,,", "plain.jpg: no heading"),
        ("", "names no photograph"),
    ],
)
def test_lines_without_a_photograph_or_its_camera_are_refused(folder, line, says):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description GPano:ProjectionType="fisheye"/></x:xmpmeta>'
    write_photograph(folder / "pano.jpg", size=(64, 32), seed=4, xmp=xmp)
    write_photograph(folder / "wide.jpg", size=(64, 32), seed=5, focal=26)
    with pytest.raises(UserError, match=says) as error:
        read(folder, line)
    assert "\n" not in str(error.value)


def test_hfov_tells_a_wide_photograph_from_a_panorama(folder):
    write_photograph(folder / "wide.jpg", size=(64, 32), seed=5, focal=26)
    (row,) = read(folder, "wide.jpg,1,2,3,train,100" + "," * 11)
    assert float(row.camera.fx) == pytest.approx(0.5 / np.tan(np.radians(50)))
    with pytest.raises(UserError, match=r"plain\.jpg: 64 x 48 px.*--photos"):
        read_table(write_table(folder, "plain.jpg,1,2,3" + "," * 13))


def test_one_of_both_tables_is_needed(capsys):
    words = ["--root", "x", "--city", "Own", "--imagery", "y"]
    for more in ([], ["--panoramas", "a.csv", "--photos", "b.csv"]):
        with pytest.raises(SystemExit):
            build_parser().parse_args([*words, *more])
        assert "--photos" in capsys.readouterr().err
