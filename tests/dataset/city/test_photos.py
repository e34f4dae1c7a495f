"""A city out of photographs: their cameras by what table and file tell, upright copies, and what is refused."""

import json

import numpy as np
import pytest
import rasterio
from PIL import ExifTags, Image
from rasterio.transform import from_bounds

from common import geometry
from common.camera import NAMES, pinhole
from common.errors import UserError
from dataset.city.__main__ import build_parser, main
from dataset.city.table import read_table
from dataset.cameras import read_cameras
from dataset.check import check_folder
from dataset.images import read_photograph
from dataset.index import load_index

LATITUDE, LONGITUDE = 52.01, 4.36
HEADER = "file,latitude,longitude,heading,split,hfov,pitch,roll,fx,fy,cx,cy,k1,k2,p1,p2,k3"


def write_photograph(path, size=(64, 48), seed=0, orientation=None, focal=None, direction=None, **options):
    """A photograph of noise with what its EXIF tells; orientation is of the file, whose pixels stay as they are."""
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    if focal:
        exif.get_ifd(ExifTags.IFD.Exif)[0xA405] = focal
    if direction is not None:
        exif.get_ifd(ExifTags.IFD.GPSInfo).update(
            {1: "N", 2: (52.0, 0.0, 36.0), 3: "E", 4: (4.0, 21.0, 36.0), 16: "T", 17: direction}
        )
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1] // 4, size[0] // 4, 3), np.uint8)
    Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST).save(path, exif=exif, **options)


@pytest.fixture(scope="module")
def imagery(tmp_path_factory):
    """Imagery of a few hundred metres."""
    path = tmp_path_factory.mktemp("imagery") / "delft.tif"
    box = from_bounds(LONGITUDE - 0.004, LATITUDE - 0.004, LONGITUDE + 0.004, LATITUDE + 0.004, 64, 64)
    with rasterio.open(
        path, "w", driver="GTiff", crs="EPSG:4326", transform=box, height=64, width=64, count=3, dtype="uint8"
    ) as file:
        file.write(np.random.default_rng(0).integers(0, 256, (3, 64, 64), np.uint8))
    return path


@pytest.fixture
def folder(tmp_path):
    """Three photographs: a JPEG that stands upright, one that a phone held upright wrote, a PNG."""
    write_photograph(tmp_path / "plain.jpg", seed=1, quality=90)
    write_photograph(tmp_path / "phone.jpg", seed=2, orientation=6, focal=26, direction=75.0, quality=90)
    write_photograph(tmp_path / "lossless.png", seed=3)
    return tmp_path


LINES = (
    f"plain.jpg,{LATITUDE},{LONGITUDE},30,train,70,-2,1,,,,,,,,,",
    "phone.jpg,,,,test,,,,,,,,,,,,",
    f"lossless.png,{LATITUDE},{LONGITUDE + 0.0003},-100,train,,,,50,51,30,25,0.1,-0.02,0.003,0.004,0.001",
)


def read(folder, *lines, header=HEADER):
    (folder / "photos.csv").write_text("\n".join([header, *lines]) + "\n")
    return read_table(folder / "photos.csv", photographs=True)


def refused(folder, *lines, **options):
    with pytest.raises(UserError) as error:
        read(folder, *lines, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def build(folder, imagery, *lines, flag="--photos"):
    (folder / "photos.csv").write_text("\n".join([HEADER, *lines]) + "\n")
    words = ["--root", folder / "city", "--city", "Own", flag, folder / "photos.csv", "--imagery", imagery, "--workers", "2"]
    main(build_parser().parse_args([str(word) for word in words]))
    return folder / "city"


def test_cameras_are_told_by_table_or_file(folder):
    plain, phone, lossless = (dict(zip(NAMES, one.camera, strict=True)) for one in read(folder, *LINES))
    focal = 1 / (2 * np.tan(np.radians(35)))
    assert [plain[name] for name in NAMES[:7]] == pytest.approx([30, -2, 1, focal, focal * 64 / 48, 0.5, 0.5])
    across = np.hypot(36, 24) * 48 / 80  # millimetres of film: the phone's image stands upright, 48 px wide and 64 high
    assert (phone["heading"], phone["fx"]) == pytest.approx((75, 26 / across), rel=1e-6)
    assert phone["fy"] == pytest.approx(phone["fx"] * 48 / 64)
    assert list(lossless.values())[3:] == pytest.approx([50 / 64, 51 / 48, 30 / 64, 25 / 48, 0.1, -0.02, 0.003, 0.004, 0.001])


def test_a_city_of_photographs(folder, imagery, capsys):
    root = build(folder, imagery, *LINES)
    assert "3 photographs (2 train, 1 test)" in (said := capsys.readouterr().out) and "shows its photographs" in said
    index = load_index(root, "crossarea", "test", cities=["Own"])
    tables = {one.file.name: one for one in read_table(folder / "photos.csv", photographs=True)}
    assert index.inside.all() and len(index) == 3
    for row in range(3):
        path = root / index.panorama_path(row)
        one = tables[next(name for name in tables if path.name.startswith(name.split(".")[0]))]
        np.testing.assert_array_equal(read_photograph(path), read_photograph(one.file))
        np.testing.assert_array_equal(index.cameras[row], np.float32(one.camera))
        assert Image.open(path).getexif().get(0x0112, 1) == 1 and Image.open(path).size == read_photograph(path).shape[1::-1]
        place = geometry.mercator_px(one.latitude, one.longitude)
        np.testing.assert_allclose(index.corner(index.satellite[row, 0]) + index.position[row, 0], place, atol=1e-2)
    plain = next(path for path in (root / "Own/panorama").iterdir() if path.name.startswith("plain"))
    assert plain.read_bytes() == (folder / "plain.jpg").read_bytes()
    assert check_folder(root, use_mask=False, decode=True)[0] == []


def test_a_phone_s_trailer_behind_the_image_does_not_turn_it(folder):
    """Some phones write more behind a JPEG's end; that goes by way of another decoder."""
    image = read_photograph(folder / "phone.jpg")
    (folder / "trailer.jpg").write_bytes((folder / "phone.jpg").read_bytes() + b"SEFT" * 8)
    other = read_photograph(folder / "trailer.jpg")
    assert image.shape == other.shape == (64, 48, 3) and abs(image.astype(int) - other).mean() < 1


def test_the_same_command_goes_on_and_takes_another_camera_over(folder, imagery):
    root = build(folder, imagery, *LINES)
    manifest = json.loads((root / "Own/build.json").read_text())
    (root / "Own/build.json").write_text(json.dumps(manifest | {"complete": False}))
    gone = next((root / "Own/panorama").glob("phone*"))
    gone.unlink()
    (root / "Own/cameras.csv").unlink()
    build(folder, imagery, LINES[0].replace(",70,", ",80,"), *LINES[1:])
    assert gone.is_file() and json.loads((root / "Own/build.json").read_text())["complete"]
    cameras = read_cameras(root / "Own/cameras.csv")
    changed = next(camera for name, camera in cameras.items() if name.startswith("plain"))
    np.testing.assert_array_equal(changed, pinhole(64, 48, hfov=80, heading=30, pitch=-2, roll=1))


def test_photographs_and_panoramas_do_not_mix_in_a_city(folder, imagery):
    root = build(folder, imagery, *LINES)
    write_photograph(folder / "whole.jpg", size=(64, 32), seed=9)
    whole = f"whole.jpg,{LATITUDE},{LONGITUDE},0,train" + "," * 12
    with pytest.raises(UserError, match=r"Own: holds a city of photographs; give --photos, or another --city"):
        build(folder, imagery, whole, flag="--panoramas")
    other = folder / "other"
    other.mkdir()
    (folder / "whole.jpg").rename(other / "whole.jpg")
    build(other, imagery, whole, flag="--panoramas")
    write_photograph(other / "plain.jpg", seed=1)
    with pytest.raises(UserError, match=r"Own: holds a city of panoramas; give --panoramas, or another --city"):
        build(other, imagery, LINES[0])
    assert load_index(root, "crossarea", "test", cities=["Own"]).cameras is not None


def test_what_is_no_photograph_is_refused(folder):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description GPano:ProjectionType="equirectangular"/></x:xmpmeta>'
    write_photograph(folder / "pano.jpg", size=(64, 32), seed=4, xmp=xmp)
    write_photograph(folder / "wide.jpg", size=(64, 32), seed=5, focal=26)
    line = ",1,2,3" + "," * 13
    assert "pano.jpg: says that it is a panorama (GPano), not a photograph; give its table as --panoramas" in refused(
        folder, "pano.jpg" + line
    )
    assert "wide.jpg: 64 x 32 px, as whole panoramas are; give its table as --panoramas or" in refused(folder, "wide.jpg" + line)
    assert read(folder, "wide.jpg,1,2,3,train,100" + "," * 11)[0].camera[3] == pytest.approx(0.5 / np.tan(np.radians(50)))
    with pytest.raises(
        UserError, match=r"plain\.jpg: 64 x 48 px, but a whole panorama .*; a table of photographs is given as --photos"
    ):
        (folder / "photos.csv").write_text(f"{HEADER}\nplain.jpg{line}\n")
        read_table(folder / "photos.csv")


def test_what_does_not_tell_a_camera_is_refused(folder):
    lines = {
        "plain.jpg,1,2,3,,,,,,,,,,,,,": "plain.jpg: tells no focal length (EXIF); give its hfov in degrees, or fx in pixels, in",
        "plain.jpg,1,2,3,,170,,,,,,,,,,,": "line 2: hfov 170: a photograph is more than 0 and up to 150 degrees wide",
        "plain.jpg,1,2,3,,70,,,50,,,,,,,,": "line 2: a camera: give either its horizontal field of view or its focal length",
        "plain.jpg,1,2,3,,70,up,,,,,,,,,,": "line 2: pitch 'up' is not a number",
        "plain.jpg,1,2,,,70,,,,,,,,,,,": "plain.jpg: no heading: neither",
    }
    for line, fault in lines.items():
        assert fault in refused(folder, line)
    assert "names no photograph" in refused(folder)


def test_one_of_both_tables_is_needed(folder, capsys):
    words = ["--root", "x", "--city", "Own", "--imagery", "y"]
    for more in ([], ["--panoramas", "a.csv", "--photos", "b.csv"]):
        with pytest.raises(SystemExit):
            build_parser().parse_args([*words, *more])
        assert "--photos" in capsys.readouterr().err
