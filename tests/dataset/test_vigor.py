"""Lists, splits and samples, on folders in VIGOR's exact layout."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from children import SMALL_VIEW
from conftest import REAL_LINE
from PIL import Image

from common.errors import UserError
from dataset.index import load_index
from dataset.lists import VIGOR_CITIES, label_cities, listed_images
from dataset.loader import evaluation_loader
from dataset.mini_vigor.writer import make
from dataset.protocol import Protocol, Source, open_data, read_orientations
from dataset.vigor import VigorDataset, roll_panorama

ANY_HEADING = replace(SMALL_VIEW, ori_noise=180.0)


def samples(index, view=SMALL_VIEW, use_mask=True, **options):
    return VigorDataset(index, view=view, use_mask=use_mask, **options)


def opened(root, view=SMALL_VIEW, **protocol):
    return open_data(Source(dataset_root=str(root)), Protocol(**protocol), view, use_mask=True)


def test_split_sizes(vigor_root):
    sizes = {
        (area, split): len(load_index(vigor_root, area, split))
        for area in ("samearea", "crossarea")
        for split in ("train", "val", "test")
    }
    assert sizes["samearea", "test"] == 24
    assert sizes["samearea", "train"] + sizes["samearea", "val"] == 24
    assert sizes["crossarea", "test"] == 24  # all panoramas of two cities
    assert sizes["crossarea", "train"] + sizes["crossarea", "val"] == 24
    assert 0 < sizes["samearea", "val"] < 12


def test_the_parts_share_no_panorama_and_no_city_across_areas(vigor_root):
    parts = [set(load_index(vigor_root, "samearea", split).panorama.tolist()) for split in ("train", "val", "test")]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    cities = [{VIGOR_CITIES[i] for i in load_index(vigor_root, "crossarea", split).city} for split in ("train", "test")]
    assert cities == [{"NewYork", "Seattle"}, {"SanFrancisco", "Chicago"}]


def test_the_validation_part_does_not_depend_on_the_rest_of_the_list(vigor_root, tmp_path):
    whole = set(load_index(vigor_root, split="val").panorama.tolist())
    shutil.copytree(vigor_root, tmp_path / "v")
    for city in VIGOR_CITIES:
        path = tmp_path / "v/splits__corrected" / city / "same_area_balanced_train__corrected.txt"
        path.write_text("\n".join(reversed(path.read_text().split("\n")[1:])))
    part = load_index(tmp_path / "v", split="val")
    assert set(part.panorama.tolist()) <= whole
    assert len(part) + len(load_index(tmp_path / "v", split="train")) == 20


def test_a_real_line(tmp_path):
    for city in VIGOR_CITIES:
        folder = tmp_path / "splits__corrected" / city
        folder.mkdir(parents=True)
        line = REAL_LINE if city == "Chicago" else ""
        (folder / "satellite_list.txt").write_bytes("\r\n".join(line.split()[1::3]).encode())  # Windows line ends
        (folder / "same_area_balanced_test__corrected.txt").write_bytes(line.encode() + b"\r\n")
    index = load_index(tmp_path, split="test")
    assert index.panorama_path(0).as_posix() == "Chicago/panorama/KcuqJn_PuuZq3GERzhqG5Q,41.854423,-87.682638,.jpg"
    assert index.satellite_path(index.satellite[0, 2]).name == "satellite_41.85467865207374_-87.68282621216503.png"
    assert index.mask_path(index.satellite[0, 0]).name == "satellite_41.8543505796211_-87.68282621216503_mask.tif"
    np.testing.assert_allclose(index.position[0], [[249, 461], [246, 132], [576, 458], [574, 130]])
    assert index.inside.all()
    by_name = load_index(tmp_path, split="test", labels="gps")
    np.testing.assert_allclose(by_name.position, index.position, atol=5.6)
    assert abs(by_name.position - index.position).max() > 0.1


def test_positions_by_name_agree_with_the_lists(tmp_path):
    root = make(tmp_path / "mini", panoramas=2, panorama_width=64, workers=1, cities=["Chicago"], progress=False)
    for city in VIGOR_CITIES[:3]:
        shutil.copytree(root / "splits__corrected/Chicago", root / "splits__corrected" / city)
    lists, names = (load_index(root, "crossarea", "test", labels) for labels in ("corrected", "gps"))
    np.testing.assert_allclose(names.position, lists.position, atol=0.5)
    assert names.position.dtype == np.float32 and abs(names.position % 1).max() > 0.1  # sub-pixel


def test_the_table_holds_arrays_and_no_objects(vigor_root):
    index = load_index(vigor_root, split="train")
    arrays = {name: value for name, value in vars(index).items() if isinstance(value, np.ndarray)}
    assert len(arrays) == 7 and not any(array.dtype.hasobject for array in arrays.values())
    assert index.cameras.kind == "panorama" and len(index.cameras) == len(index)
    per_panorama = sum(arrays[name].nbytes for name in ("city", "panorama", "satellite", "position")) / len(index)
    assert per_panorama < 120


def test_blank_lines_windows_ends_and_a_byte_order_mark_do_no_harm(vigor_root, tmp_path):
    shutil.copytree(vigor_root / "splits__corrected", tmp_path / "splits__corrected")
    for path in tmp_path.glob("*/*/*.txt"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n\r\n"))
    index, changed = (load_index(root, split="test") for root in (vigor_root, tmp_path))
    for name in ("panorama", "satellite", "position", "satellite_name"):
        np.testing.assert_array_equal(getattr(index, name), getattr(changed, name))


def test_the_original_lists(vigor_root, tmp_path):
    shutil.copytree(vigor_root / "splits__corrected", tmp_path / "splits")
    for path in (tmp_path / "splits").glob("*/*__corrected.txt"):
        path.rename(path.with_name(path.name.replace("__corrected", "")))
    assert len(load_index(tmp_path, split="test", labels="original")) == 24
    with pytest.raises(UserError, match="splits__corrected: no such folder; --labels original would read splits"):
        load_index(tmp_path, split="test")


def read_from(index):
    """The cities of an index's panoramas, in the order of its rows, by the folders of their paths."""
    return list(dict.fromkeys(index.panorama_path(row).parts[0] for row in range(len(index))))


def test_cities_are_those_of_the_folder(own_root, vigor_root, tmp_path):
    assert read_from(load_index(own_root, split="test")) == ["Delft", "Leiden"]
    for city in ("Delft", "Leiden"):
        assert f"{city}/satellite" in {image.path.rpartition("/")[0] for image in listed_images(own_root)}
    for root in (own_root, vigor_root):
        shutil.copytree(root / "splits__corrected", tmp_path / "splits__corrected", dirs_exist_ok=True)
    (tmp_path / "splits__corrected/notes").mkdir()  # which holds no list
    expected = (*VIGOR_CITIES, "Delft", "Leiden")
    assert label_cities(tmp_path / "splits__corrected", "__corrected") == expected
    assert read_from(load_index(tmp_path, split="test")) == list(expected)
    assert read_from(load_index(tmp_path, "crossarea", "test")) == ["SanFrancisco", "Chicago"]  # VIGOR's rule stays


def test_named_cities_come_in_the_folder_s_order_and_keep_their_numbers(vigor_root):
    whole = load_index(vigor_root, split="test")
    named = load_index(vigor_root, split="test", cities=("Chicago", "Seattle", "Chicago"))
    assert read_from(named) == ["Seattle", "Chicago"] and named.listed == {"Seattle": 1, "Chicago": 3}
    rows = np.isin(whole.city, [1, 3])
    np.testing.assert_array_equal(named.panorama, whole.panorama[rows])
    np.testing.assert_array_equal(named.position, whole.position[rows])
    assert named.cities == whole.cities == load_index(vigor_root, "crossarea", "train").cities
    assert {image.path.split("/")[0] for image in named.images()} == {"Seattle", "Chicago"}


def test_crossarea_parts_other_cities_as_they_are_named(own_root):
    train, val = (load_index(own_root, "crossarea", split, cities=["Delft"]) for split in ("train", "val"))
    test = load_index(own_root, "crossarea", "test", cities=["Leiden"])
    assert len(train) + len(val) == len(test) == 12  # all panoramas of a city
    assert [read_from(index) for index in (train, val, test)] == [["Delft"], ["Delft"], ["Leiden"]]
    way_out = "has lists of Delft, Leiden, and crossarea .* with --train_cities and --test_cities"
    with pytest.raises(UserError, match=way_out):
        load_index(own_root, "crossarea", "train")
    with pytest.raises(
        UserError, match=r"--test_cities Gouda: .* has lists of Delft, Leiden; choose of these with --test_cities"
    ):
        load_index(own_root, split="test", cities=["Leiden", "Gouda"])


def test_a_folder_with_some_of_vigor_s_cities(vigor_root, tmp_path):
    shutil.copytree(vigor_root / "splits__corrected", tmp_path / "splits__corrected")
    shutil.rmtree(tmp_path / "splits__corrected/Chicago")
    assert read_from(load_index(tmp_path, split="test")) == ["NewYork", "Seattle", "SanFrancisco"]
    for split in ("train", "test"):
        with pytest.raises(UserError, match="has lists of NewYork, Seattle, SanFrancisco, and crossarea parts VIGOR's four"):
            load_index(tmp_path, "crossarea", split)


def test_a_list_too_short_for_a_validation_part(vigor_root):
    with pytest.raises(UserError, match=r"none of 6 panoramas for samearea training is left to val .*--val_on test"):
        load_index(vigor_root, split="val", cities=["SanFrancisco"])


def test_a_sample(vigor_root):
    index = load_index(vigor_root, split="test")
    sample = samples(index)[3]
    camera = sample.pop("camera")
    assert (camera.kind, float(camera.heading), camera.extent) == ("panorama", 0, (360, 90, 90))
    assert {name: (tuple(value.shape), value.dtype) for name, value in sample.items()} == {
        "query": ((3, 64, 128), torch.uint8),
        "satellite": ((3, 64, 64), torch.uint8),
        "mask": ((1, 64, 64), torch.uint8),
        "position": ((2,), torch.float32),
        "heading": ((), torch.float32),
        "metres_per_pixel": ((), torch.float32),
        "city": ((), torch.int64),
        "corner": ((2,), torch.float64),
        "index": ((), torch.int64),
    }
    np.testing.assert_allclose(sample["position"], index.position[3, 0] / 10)
    assert sample["metres_per_pixel"] == pytest.approx(0.149291 * np.cos(np.radians(40.7)) * 10, rel=1e-4)
    whole = np.asarray(Image.open(vigor_root / index.satellite_path(index.satellite[3, 0])))
    np.testing.assert_allclose(sample["satellite"].numpy().mean((1, 2)), whole.mean((0, 1)), atol=0.5)  # RGB, not BGR
    assert set(np.unique(sample["mask"])) > {0, 255}  # the share of foreground, smooth at the edges


def test_no_masks_are_needed_without_use_mask(vigor_root, tmp_path):
    shutil.copytree(vigor_root, tmp_path / "v")
    for city in VIGOR_CITIES:
        shutil.rmtree(tmp_path / "v" / city / "point_prompt_mask")
    index = load_index(tmp_path / "v", split="test")
    assert "mask" not in samples(index, use_mask=False)[0]
    with pytest.raises(UserError, match=r"_mask\.tif: no such file"):
        samples(index)[0]


def test_semi_positives_that_leave_the_panorama_outside_are_never_a_label(vigor_root):
    index = load_index(vigor_root, split="test")
    index.position[:, 2] = (700, 20)
    pairs = samples(index, pos_only=False).pairs
    assert set(pairs[:, 1]) <= {0, 1, 3}
    assert len(pairs) == index.inside[:, [0, 1, 3]].sum()
    training = samples(index, pos_only=False, training=True)
    positions = np.stack([training[epoch, i]["position"] for epoch in range(8) for i in range(len(index))])
    assert (positions < 64).all()
    is_positive = np.isclose(positions, np.tile(index.position[:, 0] / 10, (8, 1))).all(1).reshape(8, -1)
    has_others = index.inside[:, [1, 3]].any(1)
    assert is_positive[:, ~has_others].all()
    assert 0.35 < is_positive[:, has_others].mean() < 0.65  # half of them


def test_headings_of_evaluation_depend_on_the_panorama_and_the_seed_alone(vigor_root):
    index = load_index(vigor_root, split="test")
    first, fewer = samples(index, ANY_HEADING), samples(index.select(np.arange(5, 10)), ANY_HEADING)
    assert [first[i]["heading"] for i in range(5, 10)] == [fewer[i]["heading"] for i in range(5)]
    other = samples(index, ANY_HEADING, seed=1)
    assert [first[i]["heading"] for i in range(5)] != [other[i]["heading"] for i in range(5)]
    training = samples(index, ANY_HEADING, training=True)
    assert training[0, 3]["heading"] != training[1, 3]["heading"]
    headings = np.array([sample["heading"] for sample in samples(index, replace(SMALL_VIEW, ori_noise=20.0))])
    assert (abs(headings) <= 21.5).all() and abs(headings).max() > 10  # whole columns of 2.8 degrees


def test_rolling_a_panorama():
    panorama = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None], (32, 64, 3))  # north, bearing 0, at 32
    turned, heading = roll_panorama(panorama, 90.0)
    assert heading == 90 and turned[0, 32, 0] == 48  # the centre is bearing 90
    turned, heading = roll_panorama(panorama, -178.0)
    assert heading == -180 and turned[0, 32, 0] == 0


def test_cropped_panoramas_are_samples_with_their_extent(vigor_root, tmp_path):
    """48 rows of the stored 128 (1.4 degrees each): 40 degrees above and 27.5 below the horizon."""
    shutil.copytree(vigor_root, tmp_path / "v")
    index = load_index(tmp_path / "v", split="test").select(np.arange(2))
    whole = samples(index)[1]
    for row in range(2):
        path = index.root / index.panorama_path(row)
        image = np.asarray(Image.open(path))
        top, bottom = (round(image.shape[0] * share) for share in (50 / 180, 117.5 / 180))
        Image.fromarray(image[top:bottom]).save(path, quality=100, subsampling=0)
    view = replace(SMALL_VIEW, vertical=(40.0, 27.5))
    for training in (False, True):
        sample = samples(index, view, training=training)[1]
        assert sample["query"].shape == (3, *view.panorama_px) and sample["camera"].extent == (360, 40, 27.5)
    assert sample["satellite"].equal(whole["satellite"])
    with pytest.raises(UserError, match="--vertical"):
        samples(index)[0]


def test_orientations_turn_panoramas_as_their_publisher_does(vigor_root, tmp_path):
    """CCVPE rolls the panorama to the right by angle / 360 of its width."""
    angles = np.random.default_rng(0).uniform(0, 360, 24)
    angles[:3] = 0, 90, 270
    np.save(tmp_path / "angles.npy", angles)
    fixed = {"orientation_file": str(tmp_path / "angles.npy")}
    plain, turned = opened(vigor_root), opened(vigor_root, ANY_HEADING, **fixed)
    for i, angle in enumerate(angles):
        sample = turned[i]
        assert torch.equal(sample["query"], torch.roll(plain[i]["query"], round(angle / 360 * 128), 2))
        assert abs((float(sample["heading"]) + angle + 180) % 360 - 180) <= 360 / 128 / 2 + 1e-3
    assert float(turned[1]["heading"]) == -90  # a panorama rolled to the right by a quarter has west in its centre
    semi = opened(vigor_root, pos_only=False, **fixed)
    assert all(semi[i]["heading"] == turned[int(row)]["heading"] for i, (row, _) in enumerate(semi.pairs))
    with pytest.raises(UserError, match=r"angles\.npy.* val"):
        opened(vigor_root, split="val", **fixed)


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda p: np.save(p, np.zeros(23)), r"float64 of shape \(23,\)"),
        (lambda p: np.save(p, np.zeros((24, 2))), r"float64 of shape \(24, 2\)"),
        (lambda p: np.save(p, np.full(24, "north")), r"<U5 of shape \(24,\)"),
        (lambda p: np.save(p, np.array([0.0] * 23 + [np.nan])), "entry 23"),
        (lambda p: p.write_text("0 90 180"), "not an .npy file"),
        (lambda p: p.write_bytes(b""), "not an .npy file"),
        (lambda p: np.savez(p.open("wb"), a=np.zeros(24)), "an archive"),
        (lambda p: None, "No such file"),
    ],
)
def test_a_wrong_orientation_file_is_refused(tmp_path, write, says):
    path = tmp_path / "angles.npy"
    write(path)
    with pytest.raises(UserError, match=says) as error:
        read_orientations(path, 24)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def _with_fault(vigor_root, tmp_path, fault):
    shutil.copytree(vigor_root, tmp_path / "v")
    index = load_index(tmp_path / "v", split="test")
    paths = {
        "panorama": tmp_path / "v" / index.panorama_path(0),
        "satellite": tmp_path / "v" / index.satellite_path(index.satellite[0, 0]),
        "mask": tmp_path / "v" / index.mask_path(index.satellite[0, 0]),
    }
    path = paths[fault[0]]
    fault[1](path)
    return samples(index), path


def _directory(path):
    path.unlink()
    path.mkdir()


def _giant(path):
    Image.new("L", (64, 32)).save(path, format="PNG")
    data = bytearray(path.read_bytes())
    data[16:24] = (200_000).to_bytes(4, "big") + (100_000).to_bytes(4, "big")
    path.write_bytes(data)


FAULTS = {
    "missing panorama": (("panorama", lambda p: p.unlink()), "no such file"),
    "truncated JPEG": (("panorama", lambda p: p.write_bytes(p.read_bytes()[:-200])), "cannot be decoded"),
    "truncated PNG": (("satellite", lambda p: p.write_bytes(p.read_bytes()[:-2000])), "cannot be decoded"),
    "empty satellite": (("satellite", lambda p: p.write_bytes(b"")), "the file is empty"),
    "satellite of another size": (
        ("satellite", lambda p: Image.new("RGB", (512, 512)).save(p)),
        "512 x 512 px",
    ),
    "panorama of another shape": (
        ("panorama", lambda p: Image.new("RGB", (300, 200)).save(p)),
        "300 x 200 px",
    ),
    "directory": (("panorama", _directory), "Is a directory"),
    "text as mask": (("mask", lambda p: p.write_text("no image")), "cannot be decoded"),
    "truncated mask": (("mask", lambda p: p.write_bytes(p.read_bytes()[:-200])), "cannot be decoded"),
    "mask of another size": (("mask", lambda p: Image.new("L", (64, 64)).save(p)), "64 x 64 px"),
    "header of a giant": (("panorama", lambda p: _giant(p)), "cannot be decoded"),
}


@pytest.mark.parametrize(("name", "workers"), [*((name, 0) for name in FAULTS), ("truncated JPEG", 1)])
def test_a_bad_image_is_one_line_that_names_it(vigor_root, tmp_path, name, workers):
    fault, says = FAULTS[name]
    dataset, path = _with_fault(vigor_root, tmp_path, fault)
    with pytest.raises(UserError) as error:
        list(evaluation_loader(dataset, 2, workers))
    assert str(path) in str(error.value) and says in str(error.value) and "\n" not in str(error.value)


def _change_line(text, old, new):
    assert old in text
    return text.replace(old, new, 1)


LIST_FAULTS = {
    "cut short": (lambda t: t[: t.index("\n") - 30] + t[t.index("\n") :], r"line 1: 1[0-2] words, expected 13"),
    "unknown satellite": (
        lambda t: _change_line(t, "satellite_4", "satellite_5"),
        r"line 1: satellite 'satellite_5.*' is not in satellite_list",
    ),
    "no number": (lambda t: _change_line(t, " -", " x"), r"line \d+: could not convert"),
    "a name as long as a book": (lambda t: "x" * 300 + t, r"line 1: x+\.\.\. is 3\d\d characters long"),
    "after a blank line": (lambda t: "\n" + t[t.index(" ") :], "line 2: 12 words, expected 13"),
    "not a number": (lambda t: _change_line(t, t.split()[2], "nan"), r"line 1: an offset is not a finite number"),
}


@pytest.mark.parametrize("name", LIST_FAULTS)
def test_a_bad_label_is_one_line_that_names_it(vigor_root, tmp_path, name):
    shutil.copytree(vigor_root / "splits__corrected", tmp_path / "splits__corrected")
    path = tmp_path / "splits__corrected/NewYork/same_area_balanced_test__corrected.txt"
    change, message = LIST_FAULTS[name]
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match=message) as error:
        load_index(tmp_path, split="test")
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize(
    "name", ["satellite_41.1.png", "satellite_x_-87.png", "satellite_91.0_-87.0.png", "satellite_nan_0.png"]
)
def test_a_satellite_name_without_coordinates(vigor_root, tmp_path, name):
    shutil.copytree(vigor_root / "splits__corrected", tmp_path / "splits__corrected")
    with open(tmp_path / "splits__corrected/Seattle/satellite_list.txt", "a") as file:
        file.write(name + "\n")
    with pytest.raises(UserError, match=f"name '{name}'"):
        load_index(tmp_path, split="test")


def test_an_alpha_channel_is_no_foreground(vigor_root, tmp_path):
    opaque = Image.new("RGBA", (640, 640), (0, 0, 0, 255))
    dataset, _ = _with_fault(vigor_root, tmp_path, ("mask", opaque.save))
    assert not dataset[0]["mask"].any()


def test_missing_root_and_lists(vigor_root, tmp_path):
    with pytest.raises(UserError, match="nowhere: no such folder; pass VIGOR's with --dataset_root or VIGOR_ROOT"):
        load_index(tmp_path / "nowhere")
    with pytest.raises(UserError, match="splits__corrected: no such folder; is this VIGOR's top folder"):
        load_index(tmp_path)
    shutil.copytree(vigor_root / "splits__corrected", tmp_path / "splits__corrected")
    path = tmp_path / "splits__corrected/Seattle/satellite_list.txt"
    path.unlink()
    with pytest.raises(UserError, match=r"Seattle/satellite_list\.txt: No such file"):
        load_index(tmp_path)
    path.write_bytes(b"satellite_\xff\xfe.png\n")
    with pytest.raises(UserError, match=r"satellite_list\.txt: not a UTF-8 text"):
        load_index(tmp_path)
