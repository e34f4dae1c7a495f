"""The table of panoramas, and what files say of themselves where it says nothing."""

import re

import numpy as np
import pytest
from PIL import ExifTags, Image

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
    exif = Image.Exif()
    place = {1: north, 2: (52.0, 0.0, 41.04), 3: east, 4: (4.0, 21.0, 30.24)}
    exif[ExifTags.IFD.GPSInfo] = place | ({} if direction is None else {16: reference, 17: direction})
    return exif


def gpano(**entries):
    words = " ".join(f'GPano:{name}="{value}"' for name, value in entries.items())
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description {words}/></x:xmpmeta>'.encode()


def read(folder, *lines, header=HEADER):
    (folder / "table.csv").write_text("\n".join([header, *lines]) + "\n")
    return read_table(folder / "table.csv")


def refused(folder, *lines, header=HEADER):
    """The one line that a table is refused with."""
    with pytest.raises(UserError) as error:
        read(folder, *lines, header=header)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_table_is_read_in_its_order(folder):
    header = f"{HEADER}, camera_height, sequence, split"
    first, second = read(folder, "p1.jpg, 52.5, 4.5, 90, 1.8, walk, test", "p0.jpg,-33.25,151.125,-10.5,,,", header=header)
    assert first.file == folder / "p1.jpg" and first.name == "p1,52.50000000,4.50000000,.jpg"
    assert first[2:5] == (52.5, 4.5, 90.0) and (first.camera_height_m, first.sequence, first.split) == (1.8, "walk", "test")
    assert second[2:5] == (-33.25, 151.125, -10.5) and second[-3:] == (None, None, None)


def test_exif_and_xmp_fill_what_is_empty(folder):
    write_image(folder / "a.jpg", exif=gps_exif(direction=123.5), seed=10)
    write_image(folder / "b.jpg", exif=gps_exif("S", "W", direction=1), xmp=gpano(PoseHeadingDegrees=271.25), seed=11)
    a, b = read(folder, "a.jpg,,,", "b.jpg,,,")
    assert a[2:5] == pytest.approx((52.0114, 4.3584, 123.5))
    assert b[2:5] == pytest.approx((-52.0114, -4.3584, 271.25))  # where XMP and EXIF both tell, the panorama's own counts
    (told,) = read(folder, "b.jpg,1,2,3")  # and the table before both
    assert told[2:5] == (1, 2, 3)


def test_a_part_of_a_sphere_is_put_in_its_place(folder):
    whole = dict(FullPanoWidthPixels=64, FullPanoHeightPixels=32, CroppedAreaLeftPixels=0, CroppedAreaTopPixels=6)
    write_image(folder / "part.jpg", size=(64, 20), xmp=gpano(**whole))
    assert read(folder, "part.jpg,1,2,3")[0].crop == Crop(64, 32, 0, 6)
    assert read(folder, "p0.jpg,1,2,3")[0].crop is None
    write_image(folder / "outside.jpg", size=(64, 20), xmp=gpano(**{**whole, "CroppedAreaTopPixels": 20}))
    assert "outside.jpg: its GPano places 64 x 20 px at 0, 20" in refused(folder, "outside.jpg,1,2,3")
    write_image(folder / "fish.jpg", xmp=gpano(ProjectionType="fisheye"))
    assert "ProjectionType is fisheye" in refused(folder, "fish.jpg,1,2,3")


def test_what_a_table_lacks(folder):
    assert "no column 'heading' among file, lat, latitude, longitude" in refused(
        folder, "p0.jpg,1,2,3", header="file,lat,latitude,longitude"
    )
    assert re.search("p0.jpg: no GPS: neither .*table.csv, line 2 nor", refused(folder, "p0.jpg,,,3"))
    assert "p0.jpg: no heading: neither" in refused(folder, "p0.jpg,1,2,")
    write_image(folder / "magnetic.jpg", exif=gps_exif(direction=5, reference="M"))
    assert "magnetic.jpg: no heading" in refused(folder, "magnetic.jpg,1,2,")
    assert "names no panorama" in refused(folder)
    assert "absent.jpg: no such file" in refused(folder, "absent.jpg,1,2,3")
    with pytest.raises(UserError, match=r"nowhere\.csv: No such file"):
        read_table(folder / "nowhere.csv")


def test_values_that_cannot_be(folder):
    assert "line 3: 'east' is not a number" in refused(folder, "p0.jpg,1,2,3", "p1.jpg,1,2,east")
    assert "latitude comes first: 4.3 151?" in refused(folder, "p0.jpg,151,4.3,0")
    assert "'0' is not a number above 0" in refused(folder, "p0.jpg,1,2,3,0", header=f"{HEADER},camera_height")
    assert "split 'val' is neither train nor test" in refused(folder, "p0.jpg,1,2,3,val", header=f"{HEADER},split")


def test_tables_as_programs_write_them(folder):
    """Windows line ends, a mark in front, blank lines; words that others take for nothing; other letters."""
    write_image(folder / "写真.jpg", seed=5)
    text = f"\ufeff{HEADER},sequence\r\n\r\np0.jpg,1,2,3,NA\r\n写真.jpg,1,2,3,null\r\n"
    (folder / "table.csv").write_bytes(text.encode())
    first, second = read_table(folder / "table.csv")
    assert first.sequence == "NA" and second.sequence == "null" and second.name.startswith("写真,")
    assert "line 4: 'x' is not a number" in refused(folder, "", "p0.jpg,1,2,3", "p1.jpg,1,2,x")
    assert "two columns are called 'heading'" in refused(folder, "p0.jpg,1,2,3,4", header=f"{HEADER},Heading")
    assert "with commas between" in refused(folder, "p0.jpg;1;2;3", header=HEADER.replace(",", ";"))
    (folder / "table.csv").write_bytes(f"{HEADER}\n".encode("utf-16"))
    with pytest.raises(UserError, match="not a table in CSV, UTF-8"):
        read_table(folder / "table.csv")


def test_images_that_are_no_panorama(folder):
    write_image(folder / "photo.jpg", size=(64, 48))
    assert "photo.jpg: 64 x 48 px, but a whole panorama is twice as wide as high" in refused(folder, "photo.jpg,1,2,3")
    (folder / "text.jpg").write_text("no image")
    assert "text.jpg: cannot be read as an image" in refused(folder, "text.jpg,1,2,3")


def test_the_same_panorama_twice(folder):
    assert "lines 2 and 4: the same panorama twice" in refused(folder, "p0.jpg,1,2,3", "p1.jpg,1,2,3", "./p0.jpg,4,5,6")
    (folder / "copy.jpg").write_bytes((folder / "p1.jpg").read_bytes())
    assert "lines 2 and 3: the same panorama twice" in refused(folder, "p1.jpg,1,2,3", "copy.jpg,1,2,3")
    write_image(folder / "p 0.jpg", seed=7)
    write_image(folder / "p,0.jpg", seed=8)
    assert "both would be called p-0; rename one file" in refused(folder, "p 0.jpg,1,2,3", '"p,0.jpg",1,2,3')
