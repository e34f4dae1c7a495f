"""The table of panoramas, and the tags of files that complete it."""

import numpy as np
import pytest
from children import make_exif
from PIL import Image

from common.errors import UserError
from dataset.city.table import Crop, read_table

HEADER = "file,latitude,longitude,heading"


@pytest.fixture
def folder(tmp_path):
    """A folder with three panoramas."""
    for number in range(3):
        write_image(tmp_path / f"p{number}.jpg", seed=number)
    return tmp_path


def write_image(path, size=(64, 32), seed=0, exif=None, xmp=None):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path, **({"exif": exif} if exif else {}), **({"xmp": xmp} if xmp else {}))


def gps_exif(north="N", east="E", direction=None, reference="T"):
    place = {1: north, 2: (52.0, 0.0, 41.04), 3: east, 4: (4.0, 21.0, 30.24)}
    return make_exif(gps=place | ({} if direction is None else {16: reference, 17: direction}))


def gpano(**entries):
    words = " ".join(f'GPano:{name}="{value}"' for name, value in entries.items())
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description {words}/></x:xmpmeta>'.encode()


def read(folder, *lines, header=HEADER):
    (folder / "table.csv").write_text("\n".join([header, *lines]) + "\n")
    return read_table(folder / "table.csv")


def test_a_table_is_read_in_its_order(folder):
    header = f"{HEADER}, accuracy, camera_height, sequence, split"
    lines = ("p1.jpg, 52.5, 4.5, 90, 6.5, 1.8, walk, test", "p0.jpg,-33.25,151.125,-10.5,,,,")
    first, second = read(folder, *lines, header=header)
    assert first.file == folder / "p1.jpg" and first.name == "p1,52.50000000,4.50000000,.jpg"
    assert first[2:5] == (52.5, 4.5, 90.0) and first[-4:] == (6.5, 1.8, "walk", "test")
    assert second[2:5] == (-33.25, 151.125, -10.5) and second[-4:] == (None,) * 4


def test_exif_and_xmp_replace_empty_values(folder):
    write_image(folder / "a.jpg", exif=gps_exif(direction=123.5), seed=10)
    heading = gpano(PoseHeadingDegrees=271.25)
    write_image(folder / "b.jpg", exif=gps_exif("S", "W", direction=1), xmp=heading, seed=11)
    a, b = read(folder, "a.jpg,,,", "b.jpg,,,")
    assert a[2:5] == pytest.approx((52.0114, 4.3584, 123.5))
    assert b[2:5] == pytest.approx((-52.0114, -4.3584, 271.25))  # XMP goes before EXIF
    (given,) = read(folder, "b.jpg,1,2,3")
    assert given[2:5] == (1, 2, 3)  # and the table before both


def test_a_part_of_a_sphere_has_a_crop(folder):
    names = ("FullPanoWidthPixels", "FullPanoHeightPixels", "CroppedAreaLeftPixels", "CroppedAreaTopPixels")
    for file, top in (("part.jpg", 6), ("outside.jpg", 20)):
        xmp = gpano(**dict(zip(names, (64, 32, 0, top), strict=True)))
        write_image(folder / file, size=(64, 20), xmp=xmp)
    assert read(folder, "part.jpg,1,2,3")[0].crop == Crop(64, 32, 0, 6)
    assert read(folder, "p0.jpg,1,2,3")[0].crop is None
    with pytest.raises(UserError, match=r"outside\.jpg: .* 64 x 20 px at 0, 20"):
        read(folder, "outside.jpg,1,2,3")


FAULTS = [
    (["p0.jpg,,,3"], "p0.jpg: no GPS: neither .*table.csv, line 2"),
    (["p0.jpg,1,2,"], "p0.jpg: no heading: neither .*table.csv, line 2"),
    (["magnetic.jpg,1,2,"], "magnetic.jpg: no heading"),
    ([], "names no panorama"),
    (["absent.jpg,1,2,3"], "absent.jpg: no such file"),
    (["p0.jpg,1,2,3", "p1.jpg,1,2,east"], "line 3: 'east' is not a number"),
    (["", "p0.jpg,1,2,3", "p1.jpg,1,2,x"], "line 4: 'x' is not a number"),  # blank lines count
    (["p0.jpg,151,4.3,0"], r"latitude comes first: 4.3 151\?"),
    (["photo.jpg,1,2,3"], "photo.jpg: 64 x 48 px, but a whole panorama"),
    (["text.jpg,1,2,3"], "text.jpg: a text"),
    (["fish.jpg,1,2,3"], "fish.jpg: .*ProjectionType is fisheye"),
    (["p0.jpg,1,2,3", "p1.jpg,1,2,3", "./p0.jpg,4,5,6"], "lines 2 and 4: the same panorama twice"),
    (["p1.jpg,1,2,3", "copy.jpg,1,2,3"], "lines 2 and 3: the same panorama twice"),
    (["p 0.jpg,1,2,3", '"p,0.jpg",1,2,3'], "lines 2 and 3: both .* p-0"),
]


@pytest.mark.parametrize(("lines", "says"), FAULTS)
def test_lines_that_cannot_be_used(folder, lines, says):
    write_image(folder / "magnetic.jpg", exif=gps_exif(direction=5, reference="M"))
    write_image(folder / "photo.jpg", size=(64, 48))
    (folder / "text.jpg").write_text("no image")
    write_image(folder / "fish.jpg", xmp=gpano(ProjectionType="fisheye"))
    (folder / "copy.jpg").write_bytes((folder / "p1.jpg").read_bytes())
    for seed, name in enumerate(("p 0.jpg", "p,0.jpg"), 7):
        write_image(folder / name, seed=seed)
    with pytest.raises(UserError, match=says) as error:
        read(folder, *lines)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("header", "line", "says"),
    [
        ("file,lat,latitude,longitude", "p0.jpg,1,2,3", "no column 'heading' among file, lat"),
        (f"{HEADER},camera_height", "p0.jpg,1,2,3,0", "'0' is not a number above 0"),
        (f"{HEADER},split", "p0.jpg,1,2,3,val", "split 'val' is neither train nor test"),
        (f"{HEADER},Heading", "p0.jpg,1,2,3,4", "two columns are called 'heading'"),
        (HEADER, "p,0.jpg,1,2,3", "line 2: expected 4 cells, as the first line has, not 5; quote"),
        (HEADER, '"p0.jpg,1,2,3', "not a table in CSV"),
        (HEADER.replace(",", ";"), "p0.jpg;1;2;3", "with commas between"),
    ],
)
def test_columns_that_cannot_be_used(folder, header, line, says):
    with pytest.raises(UserError, match=says):
        read(folder, line, header=header)


def test_tables_as_programs_write_them(folder):
    """Windows line ends, a byte order mark, blank lines, words that mean nothing elsewhere, other letters."""
    write_image(folder / "写真.jpg", seed=5)
    text = f"\ufeff{HEADER},sequence\r\n\r\np0.jpg,1,2,3,NA\r\n写真.jpg,1,2,3,null\r\n"
    (folder / "table.csv").write_bytes(text.encode())
    first, second = read_table(folder / "table.csv")
    assert first.sequence == "NA" and second.sequence == "null" and second.name.startswith("写真,")
    (folder / "table.csv").write_bytes(f"{HEADER}\n".encode("utf-16"))
    for name, says in (("table.csv", "not a table in CSV, UTF-8"), ("nowhere.csv", "no such file")):
        with pytest.raises(UserError, match=says):
            read_table(folder / name)
