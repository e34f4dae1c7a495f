"""The check of a folder finds and names every fault; its exit status tells whether training would break."""

import csv
import os
import shutil

import pytest
from children import crop_panoramas, make_exif
from PIL import Image

from common import flags
from common.errors import UserError
from dataset import check
from dataset.index import load_index


def run(root, tmp_path, capsys, words=""):
    """(exit status, stdout, findings of the CSV as (kind, path, line))."""
    output = tmp_path / "findings.csv"
    arguments = f"--dataset_root {root} --workers 2 --output {output} {words}".split()
    status = 0
    try:
        flags.run_script(check.main, check.build_parser(), arguments)
    except SystemExit as stop:
        status = stop.code
    with open(output, newline="") as file:
        rows = [(row["kind"], row["path"], int(row["line"])) for row in csv.DictReader(file)]
    return status, capsys.readouterr().out, rows


def replace(path, data):
    path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize("words", ["", "--decode"])
def test_a_whole_folder(root, tmp_path, capsys, words):
    status, out, rows = run(root, tmp_path, capsys, words)
    assert (status, rows) == (0, []) and "80 images named by its lists, 0 findings" in out


def test_a_folder_of_custom_cities(own_root, tmp_path, capsys):
    status, out, rows = run(shutil.copytree(own_root, tmp_path / "own"), tmp_path, capsys)
    assert (status, rows) == (0, []) and "40 images named by its lists, 0 findings" in out
    (tmp_path / "own/splits__corrected/Delft/satellite_list.txt").unlink()
    status, _, rows = run(tmp_path / "own", tmp_path, capsys)
    expected = ("list that cannot be read", "splits__corrected/Delft/satellite_list.txt", 0)
    assert (status, rows) == (1, [expected])


def _directory(path):
    path.unlink()
    path.mkdir()


def _image(size, form):
    def write(path):
        path.unlink()
        Image.new("L", size).save(path, format=form)

    return write


def _tag(form):
    """Rewrites an image with the tag of one that lies on its side."""

    def write(path):
        image = Image.open(path).copy()
        path.unlink()
        image.save(path, form, exif=make_exif(orientation=6))

    return write


ORIENTATION = "orientation tag"
IMAGE_FAULTS = {
    "gone": ("panorama", os.unlink, "missing image"),
    "mask gone": ("mask", os.unlink, "missing mask"),
    "cut JPEG": ("panorama", lambda p: replace(p, p.read_bytes()[:-200]), "truncated image"),
    "cut PNG": ("satellite", lambda p: replace(p, p.read_bytes()[:-2000]), "truncated image"),
    "empty": ("satellite", lambda p: replace(p, b""), "unreadable image"),
    "of three bytes": ("panorama", lambda p: replace(p, b"\xff\xd8\xff"), "unreadable image"),
    "text": ("mask", lambda p: replace(p, b"<html>not found</html>"), "unreadable image"),
    "directory": ("panorama", _directory, "unreadable image"),
    "small satellite": ("satellite", _image((512, 512), "PNG"), "image of another size"),
    "small mask": ("mask", _image((64, 64), "TIFF"), "image of another size"),
    "narrow panorama": ("panorama", _image((300, 200), "JPEG"), "image of another size"),
    "turned JPEG": ("panorama", _tag("JPEG"), ORIENTATION),
    "turned PNG": ("satellite", _tag("PNG"), ORIENTATION),
    "turned TIFF": ("mask", _tag("TIFF"), ORIENTATION),
}


@pytest.mark.parametrize("name", IMAGE_FAULTS)
def test_a_bad_image(root, tmp_path, capsys, name):
    which, fault, kind = IMAGE_FAULTS[name]
    index = load_index(root, split="test")
    satellite = index.satellite[0, 0]
    path = getattr(index, f"{which}_image")(0 if which == "panorama" else satellite).path
    fault(root / path)
    status, out, rows = run(root, tmp_path, capsys)
    assert (status, rows) == (1, [(kind, path, 0)])
    assert f"1  {kind} (breaks training), the first: {path}" in out


def test_only_decoding_finds_a_hole(root, tmp_path, capsys):
    index = load_index(root, split="test")
    path = index.satellite_image(index.satellite[0, 0]).path
    data = (root / path).read_bytes()
    middle = len(data) // 2
    replace(root / path, data[:middle] + bytes(400) + data[middle + 400 :])
    assert run(root, tmp_path, capsys)[0] == 0
    assert run(root, tmp_path, capsys, "--decode")[::2] == (1, [("unreadable image", path, 0)])


def test_decoding_finds_a_jpeg_that_decodes_with_a_warning(root, tmp_path, capsys):
    """The decoder fills up the hole, and says so on stderr alone."""
    path = load_index(root, split="test").panorama_image(0).path
    data = (root / path).read_bytes()
    replace(root / path, data[:-400] + data[-2:])
    assert run(root, tmp_path, capsys)[0] == 0
    assert run(root, tmp_path, capsys, "--decode")[::2] == (1, [("garbled JPEG", path, 0)])


def test_a_trailer_of_a_whole_image_is_no_finding(root, tmp_path, capsys):
    path = root / load_index(root, split="test").panorama_image(0).path
    replace(path, path.read_bytes() + b"trailer")
    assert run(root, tmp_path, capsys)[::2] == (0, [])


def test_masks_that_are_not_used(root, tmp_path, capsys):
    shutil.rmtree(root / "Chicago/point_prompt_mask")
    status, out, rows = run(root, tmp_path, capsys)
    assert status == 1 and "4  missing mask (breaks training)" in out and len(rows) == 4
    assert run(root, tmp_path, capsys, "--use_mask False")[::2] == (0, [])


LIST = "splits__corrected/NewYork/same_area_balanced_test__corrected.txt"
PARSE, FAR = "label line that does not parse", "offset far from the name's position"


def _shift(text, px):
    words = text.split(" ")
    words[2] = f"{float(words[2]) + px:.2f}"
    return " ".join(words)


def _double(text):
    return text + text.split("\n")[0] + "\n"


OUTSIDE, TWICE = "label outside its image", "line of the same image twice"
LIST_FAULTS = {
    "outside": (lambda t: _shift(t, 700), 1, [(FAR, LIST, 1), (OUTSIDE, LIST, 1)]),
    "listed twice": (_double, 1, [(TWICE, LIST, 7)]),
    "empty": (lambda t: "", 1, [("empty list", LIST, 0)]),
    "cut short": (lambda t: t[: t.index("\n") - 30] + t[t.index("\n") :], 1, [(PARSE, LIST, 1)]),
    "unknown satellite": (lambda t: "\n" + t.replace("satellite_4", "satellite_5", 1), 1, [(PARSE, LIST, 2)]),
    "two at once": (lambda t: t.replace(" -", " x") + "garbage\n", 1, None),
    "far": (lambda t: _shift(t, 10.5), 0, [(FAR, LIST, 1)]),
    "near": (lambda t: _shift(t, 9.5), 0, []),
    "windows": (lambda t: t.replace("\n", "\r\n"), 0, []),
}


@pytest.mark.parametrize("name", LIST_FAULTS)
def test_a_bad_list(root, tmp_path, capsys, name):
    change, status, expected = LIST_FAULTS[name]
    text = (root / LIST).read_text()
    replace(root / LIST, change(text).encode())
    found_status, out, rows = run(root, tmp_path, capsys)
    rows = [row for row in rows if not row[0].startswith("missing")]
    assert found_status == status
    if expected is None:
        assert len(rows) > 2 and {row[0] for row in rows} == {PARSE}  # every line, not only the first
    else:
        assert rows == expected
    if name == "far":
        assert f"1  {FAR} (worth a look), the first: {LIST}, line 1" in out


@pytest.mark.parametrize("shared", [1, 6])
def test_panoramas_of_training_and_test(root, tmp_path, capsys, shared):
    """A test list that repeats the training list measures nothing, so nothing is trained or measured."""
    train = (root / LIST.replace("_test_", "_train_")).read_text().split("\n")
    replace(root / LIST, "\n".join([*train[:shared], ""]).encode())
    status, out, rows = run(root, tmp_path, capsys)
    expected = [("panorama of training and test", LIST, number + 1) for number in range(shared)]
    assert (status, rows) == (1, expected) and f"{shared}  panorama of training and test" in out
    for split in ("train", "test"):
        with pytest.raises(UserError, match=rf"NewYork: all {shared} panoramas of the test list"):
            load_index(root, split=split)


def test_labels_outside_their_images_are_not_counted(root):
    text = (root / LIST).read_text()
    replace(root / LIST, _shift(text, 700).encode())
    with pytest.raises(UserError, match=f"{LIST}: .*{text.split(' ')[0]}.* column"):
        load_index(root, split="test")


def test_a_satellite_image_that_is_listed_twice(root, tmp_path, capsys):
    path = root / "splits__corrected/NewYork/satellite_list.txt"
    replace(path, _double(path.read_text()).encode())
    assert run(root, tmp_path, capsys)[::2] == (1, [(TWICE, str(path.relative_to(root)), 5)])


def test_lists_that_cannot_be_read(root, tmp_path, capsys):
    replace(root / LIST, b"\xff\xfe")
    (root / "splits__corrected/Seattle/satellite_list.txt").unlink()
    replace(root / "splits__corrected/Chicago/satellite_list.txt", b"satellite_x_y.png\n")
    status, _, rows = run(root, tmp_path, capsys)
    assert status == 1
    unreadable = "list that cannot be read"
    expected = {(unreadable, LIST), (unreadable, "splits__corrected/Seattle/satellite_list.txt")}
    expected.add(("name without coordinates", "splits__corrected/Chicago/satellite_list.txt"))
    assert expected <= {(kind, path) for kind, path, _ in rows}


def test_findings_lie_beside_the_data(root, tmp_path, monkeypatch, capsys):
    """Never in the working directory. An output that cannot be written is refused before the check."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    words = ["--dataset_root", str(root), "--workers", "1"]
    flags.run_script(check.main, check.build_parser(), words)
    assert (root / "findings.csv").read_text().startswith("kind,path,line") and not os.listdir()
    assert f"findings are in {root / 'findings.csv'}" in capsys.readouterr().out

    (root / "findings.csv").unlink()
    (root / "findings.csv").mkdir()
    monkeypatch.setattr(check, "check_folder", None)
    with pytest.raises(SystemExit):
        flags.run_script(check.main, check.build_parser(), words)
    line = capsys.readouterr().err.strip()
    assert f"{root / 'findings.csv'}: cannot be written (Is a dir" in line and "--output" in line


def test_cropped_panoramas_are_checked_as_such(root, tmp_path, capsys):
    crop_panoramas(root)
    assert run(root, tmp_path, capsys, "--decode --vertical 45 45")[::2] == (0, [])
    status, _, rows = run(root, tmp_path, capsys)
    assert status == 1 and {kind for kind, *_ in rows} == {"image of another size"}
