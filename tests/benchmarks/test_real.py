"""Real pairs: where cameras lie in windows and photographs, the measures by hand, and the download."""

import hashlib
import json
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from children import call, centre_of_mass, refusal
from PIL import Image

from benchmarks import real, real_pairs, real_suspects
from common.errors import UserError
from engine.localizer import Localizer

VERTICAL = (38.57, 26.88)  # of CVUSA's panoramas, 1232 x 224 px


def place_of(image):
    """(row, col) of the light in an image (H, W, 3)."""
    return centre_of_mass(image[..., 0].astype(float))


def blob(height, width, row, col, sigma=3.0):
    """(height, width, 3) uint8 with a soft light whose centre of mass is at (row, col)."""
    rows, cols = (np.arange(side) + 0.5 for side in (height, width))
    light = np.exp(-((rows[:, None] - row) ** 2 + (cols - col) ** 2) / (2 * sigma**2))
    return np.rint(255 * light)[..., None].repeat(3, 2).astype(np.uint8)


@pytest.mark.parametrize(("metres", "side"), [(0.2, 320), (0.05, 450)])  # 64 m, or three quarters of 600 px
def test_the_camera_lies_off_the_centre_of_each_window_where_the_mark_is(metres, side):
    row, col = 310.25, 285.5
    found = real.windows(blob(600, 600, row, col), metres, row, col)
    assert len(found) == 4
    for (window, place), (down, right) in zip(found, [(-1, -1), (-1, 1), (1, -1), (1, 1)], strict=True):
        assert window.shape == (side, side, 3)
        np.testing.assert_allclose(place_of(window), place, atol=0.05)
        off = (np.array(place) / side - 0.5) * (down, right)
        if metres == 0.2:
            np.testing.assert_allclose(off, 0.28, atol=1 / side)
        assert (off > 0).all()


def test_a_cropped_panorama_has_its_horizon_in_the_middle_of_the_whole_one():
    cropped = np.zeros((224, 1232, 3), np.uint8)
    cropped[132] = 255  # 38.57 degrees, 132 px, below its upper edge
    whole = real.whole_panorama(cropped, VERTICAL)
    assert whole.shape == (616, 1232, 3) and np.flatnonzero(whole.any((1, 2))).tolist() == [308]
    full = np.full((616, 1232, 3), 7, np.uint8)
    assert np.array_equal(real.whole_panorama(full, (90.0, 90.0)), full)


def test_a_photograph_shows_a_place_where_a_pinhole_camera_sees_it():
    """A light 30 degrees right of the panorama's centre and 10 degrees below the horizon."""
    panorama = blob(1024, 2048, 512 + 10 / 180 * 1024, 1024 + 30 / 360 * 2048)
    for bearing in (30.0, 0.0, 50.0):
        photo = real.cut_photograph(panorama, bearing, 90.0)
        off = np.radians(30 - bearing)
        row, col = 240 + 320 * np.tan(np.radians(10)) / np.cos(off), 320 + 320 * np.tan(off)
        np.testing.assert_allclose(place_of(photo), (row, col), atol=0.25)
    across_the_seam = np.roll(blob(1024, 2048, 512, 1028), 1024, axis=1)
    behind = real.cut_photograph(across_the_seam, 180.0, 90.0)
    np.testing.assert_allclose(place_of(behind), (240, 320 + 320 * np.tan(np.radians(0.703))), atol=0.25)


def pair(**changes):
    (first, *_), size = real_pairs.read_pairs(), {"camera_row": 128.0, "camera_col": 128.0}
    return first._replace(metres_per_pixel=0.25, **size)._replace(**changes)


def test_known_headings_put_north_in_the_centre_and_unknown_ones_leave_the_panorama():
    east = pair(heading=90.0)  # its centre looks east, and north lies a quarter to the left
    panorama = blob(256, 512, 128, 128)
    query, heading = real.ask(east, panorama, 0.0, False, None)
    assert place_of(query["panorama"])[1] == pytest.approx(256) and heading == query["heading"] == 0
    assert query["vertical"] == (90, 90)
    query, heading = real.ask(east, panorama, 0.0, True, None)
    assert np.array_equal(query["panorama"], panorama) and (heading, query["heading"]) == (90, None)
    for unknown in (False, True):
        query, heading = real.ask(east, panorama, 270.0, unknown, 90.0)  # which looks north
        assert place_of(query["photo"])[1] == pytest.approx(320, abs=1) and query["hfov"] == 90
        assert heading == 0 and query["heading"] == (None if unknown else 0)


class Guesser:
    """A `Localizer` that errs by 4 px to the south and 3 px to the west, and by 7 degrees clockwise."""

    def __init__(self):
        self.probability = iter((0.9, 0.9, 0.4, 0.1))

    def locate(self, panorama, satellite, metres_per_pixel, vertical, heading):
        row, col = place_of(satellite)
        near = lambda r, c, metres: float(metres == 5) * float(np.hypot(r - row, c - col) < 0.1) * 0.5  # noqa: E731
        found = {"row": row + 4, "col": col - 3, "heading": heading + 7, "probability_near": near}
        return SimpleNamespace(**found, probability=next(self.probability), camera_height=None)


def test_errors_are_metres_from_the_label(tmp_path):
    place = pair(metres_per_pixel=1.25, panorama="a/street.png", satellite="a/above.png")
    place.file(tmp_path, "panorama").parent.mkdir()
    Image.fromarray(blob(64, 128, 32, 64)).save(place.file(tmp_path, "panorama"))
    Image.fromarray(blob(256, 256, 128, 128)).save(place.file(tmp_path, "satellite"))
    table = real.measure(Guesser(), [place], tmp_path)
    np.testing.assert_allclose(table["error_m"], 6.25, atol=0.01)
    np.testing.assert_allclose(table["centre_guess_m"], 1.25 * 14.5 * 2**0.5, atol=0.01)  # of 51 px
    np.testing.assert_allclose(table["mass_at_truth"], 0.5)
    np.testing.assert_allclose(table[["east_m", "north_m"]], [[-3.75, -5]] * 4, atol=0.01)
    np.testing.assert_allclose(table["heading_error_deg"], 7)


def test_the_summary_by_hand():
    table = pd.DataFrame(
        {
            "place": list("aabbc"),
            "kind": ["park", "park", "park", "park", "alley"],
            "error_m": [0.5, 4.0, 6.0, 20.0, 5.0],
            "centre_guess_m": [10.0, 10.0, 10.0, 30.0, 2.0],
            "probability": [0.9, 0.95, 0.5, 0.3, 0.2],
            "mass_at_truth": [np.exp(-1), np.exp(-2), np.exp(-3), 0.0, 1.0],
            "heading_error_deg": [-4.0, 5.0, 6.0, -170.0, 0.0],
        }
    )
    summary = real.summarise(table)
    assert list(summary) == ["alley", "park", "all"]
    park = summary["park"]
    assert (park["windows"], park["error_m"]["median"], park["error_m"]["mean"]) == (4, 5.0, 7.625)
    assert park["recall"] == {"1_m": 0.25, "3_m": 0.25, "5_m": 0.5, "10_m": 0.75}
    assert park["sure"] == 0.75 and park["right_of_sure"] == pytest.approx(2 / 3)
    assert park["log_score"] == pytest.approx((-6 + np.log(1e-6)) / 4)
    # of bins a fifth wide: 0.9 and 0.95, both right; 0.5 wrong; 0.3 wrong
    assert park["reliability_gap"] == pytest.approx(0.5 * 0.075 + 0.25 * 0.5 + 0.25 * 0.3)
    assert park["heading_within_5_deg"] == 0.5 and park["centre_guess_m"] == 15
    assert summary["alley"]["right_of_sure"] is None
    lines = real.report(summary).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["alley", "park", "all"]


def test_the_table_names_every_image_once_by_commit_and_hash():
    pairs = real_pairs.read_pairs()
    assert len({pair.name for pair in pairs}) == len(pairs) == 24
    assert len({pair.sha256(image) for pair in pairs for image in real_pairs.IMAGES}) == 48
    for place in pairs:
        assert re.fullmatch(r"[0-9a-f]{40}", place.commit) and re.fullmatch(
            r"[\w-]+/[\w-]+", place.repository
        )
        for image in real_pairs.IMAGES:
            assert re.fullmatch(r"[0-9a-f]{64}", place.sha256(image))
        assert 0 < place.metres_per_pixel < 0.5 and min(place.camera_row, place.camera_col) > 0
        turn = 1232 / 224 * (place.top_deg + place.bottom_deg)
        assert (place.top_deg, place.bottom_deg) == (90, 90) or turn == pytest.approx(360, abs=1)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("0.2297", "wide"), "line 2"),
        (("metres_per_pixel", "scale"), "metres_per_pixel"),
        (None, "no such file"),
    ],
)
def test_a_table_that_cannot_be_read(tmp_path, capsys, change, says):
    table = tmp_path / "pairs.csv"
    if change:
        table.write_text(real_pairs.TABLE.read_text().replace(*change))
    line = refusal("benchmarks.real", f"--suspects --root {tmp_path} --table {table}", capsys)
    assert str(table) in line and says in line


def test_suspects_by_hand():
    """A set whose labels are likeliest at 1.12 times the stated scale, with one label that is wrong; and one
    with nothing wrong."""
    middle = len(real_suspects.SCALES) // 2
    tables = []
    for number in range(len(real_suspects.SCALES)):
        right = {"a": middle + 1, "b": middle}
        rows = []
        for place in ("a_1", "a_2", "a_3", "b_1"):
            near = 0.8 * np.exp(-abs(number - right[place[0]])) if place != "a_2" else 1e-4
            rows += [{"place": place, "mass_at_truth": near, "probability": 0.9}] * 4
        rows = pd.DataFrame(rows).assign(east_m=1.0, north_m=0.0, heading_error_deg=2.0, metres_per_pixel=0.2)
        tables.append(rows)
    sets, places = real_suspects.find_suspects(tables)
    assert sets["set"].tolist() == ["a 0.2", "b 0.2"] and sets["places"].tolist() == [3, 1]
    assert sets["scale"].tolist() == pytest.approx([1.12, 1.0]) and sets["within_range"].all()
    assert 1 <= sets["scale_low"][0] < 1.12, "a label that no scale helps counts for the stated one"
    assert sets["metres_per_pixel"].tolist() == pytest.approx([0.224, 0.2])
    assert sets["gain"].tolist() == pytest.approx([2 / 3, 0])
    assert places["place"][0] == "a_2" and places["doubt"][0] == pytest.approx(np.log(0.901 / 0.0011))
    assert places["east_m"][0] == pytest.approx(1.12), "in metres by the scale that was found"
    text = real_suspects.report(sets, places).splitlines()
    assert text[1].startswith("a 0.2") and "0.224" in text[1] and text[5].startswith("a_2")


@pytest.fixture
def published(tmp_path):
    """Two pairs, and the folder that a server of their repositories answers from."""
    rng, folder, pairs = np.random.default_rng(0), tmp_path / "server", []
    for name, suffix in (("first", "png"), ("second", "jpg")):
        hashes = {}
        for image, size in (("panorama", (128, 256)), ("satellite", (256, 256))):
            path = folder / f"someone/streets/{'c' * 40}/{name}/{image} 1.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(path)
            hashes[image] = f"{name}/{image} 1.{suffix}"
            hashes[f"{image}_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        pairs.append(pair(name=name, repository="someone/streets", commit="c" * 40, **hashes))
    return folder, pairs


def serve(server, folder):
    """Answer from a folder whose names have spaces; returns the address."""
    server.serve(folder)
    answer = server.answer
    server.answer = lambda path: answer(path.replace("%20", " "))
    return server.url + "/{repository}/{commit}/{path}"


def test_the_download_resumes_and_keeps_what_is_whole(published, server, tmp_path):
    (folder, pairs), root = published, tmp_path / "root"
    address = serve(server, folder)
    real_pairs.download(root, pairs, address)
    assert len(server.asked) == 4 and "CVM-VIGOR" in server.agents.pop()
    assert pairs[0].file(root, "panorama") == root / "first/panorama.png"
    assert pairs[1].file(root, "satellite") == root / "second/satellite.jpg"
    assert real_pairs.other_files(root, pairs) == []
    broken = pairs[1].file(root, "satellite")
    broken.write_bytes(broken.read_bytes()[:-5])
    pairs[0].file(root, "satellite").unlink()
    server.asked.clear()
    real_pairs.download(root, pairs, address)
    assert [path.rpartition("/")[2] for path in server.asked] == ["satellite%201.png", "satellite%201.jpg"]
    assert real_pairs.other_files(root, pairs) == []
    assert {path.name for path in root.rglob("*.*")} == {
        f"{i}.{s}" for i in real_pairs.IMAGES for s in ("png", "jpg")
    }


def test_a_missing_file_and_one_of_another_hash_are_named_after_the_others(published, server, tmp_path):
    (folder, pairs), root = published, tmp_path / "root"
    address = serve(server, folder)
    next(folder.rglob("first/panorama*")).unlink()
    next(folder.rglob("first/satellite*")).write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(UserError, match=r"2 of 4 images .*first/panorama%201\.png: status 404") as error:
        real_pairs.download(root, pairs, address)
    assert "\n" not in str(error.value)
    assert [one.whole(root) for one in pairs] == [False, True]
    assert not list((root / "first").glob("*"))


@pytest.mark.parametrize(("status", "times"), [(401, 1), (403, 1), (429, 6)])
def test_a_server_that_refuses_ends_the_download(published, server, tmp_path, status, times, monkeypatch):
    """One that is asked too often may change its mind five times."""
    monkeypatch.setattr("urllib3.util.retry.Retry.sleep", lambda *_: None)
    server.answer = lambda path: (status, "text/plain", b"", {})
    with pytest.raises(UserError, match=rf"panorama%201\.png: .*status {status}"):
        real_pairs.download(tmp_path / "root", published[1], server.url + "/{repository}/{commit}/{path}")
    assert len(server.asked) == times


def test_a_busy_server_is_asked_again(published, server, tmp_path):
    (folder, pairs), root = published, tmp_path / "root"
    address, busy = serve(server, folder), [503]
    answer = server.answer
    server.answer = lambda path: (busy.pop(), "text/plain", b"", {}) if busy else answer(path)
    real_pairs.download(root, pairs, address)
    assert len(server.asked) == 5 and all(one.whole(root) for one in pairs)


def test_a_server_out_of_reach_ends_the_download(published, server, tmp_path):
    server.close()
    with pytest.raises(UserError, match=r"panorama%201\.png: cannot be reached"):
        real_pairs.download(tmp_path / "root", published[1], server.url + "/{repository}/{commit}/{path}")


def test_no_images_and_a_wrong_address_are_refused(tmp_path, capsys):
    assert "--download" in refusal("benchmarks.real", f"--root {tmp_path}", capsys)
    assert "--camera_height 2" in refusal("benchmarks.real", f"--root {tmp_path} --camera_height 2", capsys)
    line = refusal("benchmarks.real", f"--root {tmp_path} --address https://host/{{path}}", capsys)
    assert "--address" in line and "{commit}" in line


@pytest.mark.slow
def test_the_command_downloads_measures_and_writes(published, server, tmp_path, capsys, monkeypatch):
    (folder, pairs), root, output = published, tmp_path / "root", tmp_path / "out"
    monkeypatch.setattr(real, "read_pairs", lambda table: pairs)
    words = f"--root {root} --output_dir {output}"
    call("benchmarks.real", f"{words} --download --address {serve(server, folder)} --tta 1 --each")
    said = capsys.readouterr().out
    assert "hashes" not in said and said.count(" m (") == 8
    table = pd.read_csv(output / "real.csv")
    record = json.loads((output / "real.json").read_text())
    assert record["summary"]["all"]["error_m"]["mean"] == pytest.approx(table["error_m"].mean())
    assert record["context"]["tta"] == 1 and record["context"]["places"] == ["first", "second"]
    found = Localizer(tta=1).locate(
        pairs[0].file(root, "panorama"),
        real.windows(np.asarray(Image.open(pairs[0].file(root, "satellite"))), 0.25, 128, 128)[0][0],
        metres_per_pixel=0.25,
        heading=0,
    )
    assert table["probability"][0] == pytest.approx(found.probability, rel=1e-5)
    pairs[0].file(root, "satellite").unlink()
    Image.fromarray(np.zeros((256, 256, 3), np.uint8)).save(pairs[1].file(root, "satellite"))
    call("benchmarks.real", f"{words} --photo 60 --unknown_heading")
    said = capsys.readouterr().out
    assert "without first" in said and "1 images are not those" in said
    table = pd.read_csv(output / "real_photo_60_unknown_heading.csv")
    assert len(table) == 4 and table["error_m"].notna().all()
