"""Tables of frames: what is read, and one clear line for each that cannot be."""

import pytest

from common.errors import UserError
from engine.tracking.maps import PlacedMap, follow_maps
from engine.tracking.table import read_frames

HEAD = "drive,file,time,latitude,longitude,accuracy,forward,left,turn,heading"
GOOD = ["a,1.jpg,0,47.6,-122.3,5,,,,10", "a,2.jpg,0.5,47.6,-122.3,,4,-0.1,-3,", "b,1.jpg,0,,,,,,,"]


def write(folder, lines, head=HEAD):
    for name in ("1.jpg", "2.jpg"):
        (folder / name).touch()
    path = folder / "drive.csv"
    path.write_text("\n".join([head, *lines]) + "\n")
    return path


def test_numbers_are_read_by_name_and_drive(tmp_path):
    drives = read_frames(write(tmp_path, GOOD))
    assert list(drives) == ["a", "b"] and len(drives["a"]) == 2
    second = drives["a"][1]
    assert second.file == tmp_path / "2.jpg"
    assert second.known("forward", "left", "turn", "heading") == (4, -0.1, -3, None)
    used = read_frames(write(tmp_path, GOOD), use=("compass",))["a"]
    assert used[0].numbers == {"heading": 10} and used[1].numbers == {}


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["a,3.jpg,0,,,,,,,"], "3.jpg: no such file"),
        (["a,,0,,,,,,,"], "no file"),
        ([GOOD[0], "a,2.jpg,-1,,,,,,,"], "line 3: time -1 after 0"),
        (["a,1.jpg,nan,,,,,,,"], "line 2: time 'nan'"),
        ([GOOD[0], "a,2.jpg,1,,,,inf,,,"], "line 3: forward 'inf'"),
        (["a,1.jpg,0,-122.3,47.6,,,,,"], "latitude comes first: 47.6 -122.3"),
        (["a,1.jpg,0,47.6,,,,,,"], "latitude"),
        (["a,1.jpg,0,,,,4,0,0,"], "line 2: forward 4 in the first frame"),
        (["a,1.jpg,0"], "line 2: expected 10 cells"),
        ([], "no frames"),
    ],
)
def test_a_table_that_cannot_be_is_refused(tmp_path, lines, says):
    with pytest.raises(UserError) as refused:
        read_frames(write(tmp_path, lines))
    assert says in str(refused.value) and "drive.csv" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_columns_have_their_names(tmp_path):
    for head, says in (("time,heading", "`file`"), ("file,speed", "speed"), ("file,File", "two columns")):
        with pytest.raises(UserError, match=says):
            read_frames(write(tmp_path, ["1.jpg,1"], head))
    with pytest.raises(UserError, match=r"none\.csv"):
        read_frames(tmp_path / "none.csv")


@pytest.mark.parametrize("motion", [[], [(4, 0, 0)] * 2, [(4, float("nan"), 0)], [(4, 0)]])
def test_motions_are_one_less_than_frames_and_finite(motion):
    maps = [PlacedMap(None, (41.8, -87.6), 0.5)] * 2
    with pytest.raises(UserError, match="motion"):
        follow_maps(maps, motion)
