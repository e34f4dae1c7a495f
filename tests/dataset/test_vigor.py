"""Lists, splits and samples, on folders in VIGOR's exact layout."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from children import REAL_LINE, SMALL_VIEW
from PIL import Image

from common.errors import UserError
from dataset.index import load_index
from dataset.lists import VIGOR_CITIES, listed_images
from dataset.loader import evaluation_loader
from dataset.protocol import Protocol, Source, open_data, read_orientations
from dataset.vigor import VigorDataset

ANY_HEADING = replace(SMALL_VIEW, ori_noise=180.0)
LISTS = "splits__corrected"


def samples(index, view=SMALL_VIEW, use_mask=True, **options):
    return VigorDataset(index, view=view, use_mask=use_mask, **options)


def opened(root, view=SMALL_VIEW, **protocol):
    return open_data(Source(dataset_root=str(root)), Protocol(**protocol), view, use_mask=True)


def test_parts_have_their_sizes_and_share_no_panorama(vigor_root):
    for area in ("samearea", "crossarea"):
        parts = [load_index(vigor_root, area, split) for split in ("train", "val", "test")]
        train, val, test = (set(index.panorama.tolist()) for index in parts)
        assert len(train) + len(val) == len(test) == 24 and 0 < len(val) < 12
        assert area == "crossarea" or not (train & val or train & test or val & test)
    cities = [read_from(index) for index in parts[::2]]
    assert cities == [["NewYork", "Seattle"], ["SanFrancisco", "Chicago"]]


def test_the_validation_part_does_not_depend_on_the_rest_of_the_list(vigor_root, tmp_path):
    whole = set(load_index(vigor_root, split="val").panorama.tolist())
    shutil.copytree(vigor_root, tmp_path / "v")
    for path in tmp_path.glob(f"v/{LISTS}/*/same_area_balanced_train__corrected.txt"):
        path.write_text("\n".join(reversed(path.read_text().split("\n")[1:])))
    part = load_index(tmp_path / "v", split="val")
    assert set(part.panorama.tolist()) <= whole
    assert len(part) + len(load_index(tmp_path / "v", split="train")) == 20


def test_a_real_line(tmp_path):
    for city in VIGOR_CITIES:
        folder = tmp_path / LISTS / city
        folder.mkdir(parents=True)
        line = REAL_LINE if city == "Chicago" else ""
        (folder / "satellite_list.txt").write_bytes("\r\n".join(line.split()[1::3]).encode())
        (folder / "same_area_balanced_test__corrected.txt").write_bytes(line.encode() + b"\r\n")  # Windows
    index = load_index(tmp_path, split="test")
    panorama, satellites = REAL_LINE.split()[0], REAL_LINE.split()[1::3]
    assert index.panorama_image(0).path == f"Chicago/panorama/{panorama}"
    assert index.satellite_image(index.satellite[0, 2]).path.endswith(f"/{satellites[2]}")
    mask = index.mask_image(index.satellite[0, 0])
    assert mask.path.endswith("/" + satellites[0].replace(".png", "_mask.tif"))
    np.testing.assert_allclose(index.position[0], [[249, 461], [246, 132], [576, 458], [574, 130]])
    assert index.inside.all()
    by_name = load_index(tmp_path, split="test", labels="gps")
    np.testing.assert_allclose(by_name.position, index.position, atol=5.6)
    assert abs(by_name.position - index.position).max() > 0.1


def test_positions_by_name_agree_with_the_lists(vigor_root):
    lists, names = (load_index(vigor_root, "crossarea", "test", labels) for labels in ("corrected", "gps"))
    np.testing.assert_allclose(names.position, lists.position, atol=0.5)
    assert names.position.dtype == np.float32 and abs(names.position % 1).max() > 0.1  # sub-pixel


def test_blank_lines_windows_ends_and_a_byte_order_mark_do_no_harm(vigor_root, tmp_path):
    copy_lists(vigor_root, tmp_path)
    for path in tmp_path.glob("*/*/*.txt"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n\r\n"))
    index, changed = (load_index(root, split="test") for root in (vigor_root, tmp_path))
    for name in ("panorama", "satellite", "position", "satellite_name"):
        np.testing.assert_array_equal(getattr(index, name), getattr(changed, name))


def test_the_original_lists(vigor_root, tmp_path):
    shutil.copytree(vigor_root / LISTS, tmp_path / "splits")
    for path in (tmp_path / "splits").glob("*/*__corrected.txt"):
        path.rename(path.with_name(path.name.replace("__corrected", "")))
    assert len(load_index(tmp_path, split="test", labels="original")) == 24
    with pytest.raises(UserError, match=f"{LISTS}: no such folder; --labels original would read splits"):
        load_index(tmp_path, split="test")


def read_from(index):
    """The cities of an index's panoramas, in the order of its rows, by the folders of their paths."""
    return list(dict.fromkeys(index.panorama_image(row).path.split("/")[0] for row in range(len(index))))


def test_cities_are_those_of_the_folder(own_root, vigor_root, tmp_path):
    assert read_from(load_index(own_root, split="test")) == ["Delft", "Leiden"]
    for city in ("Delft", "Leiden"):
        assert f"{city}/satellite" in {image.path.rpartition("/")[0] for image in listed_images(own_root)}
    for root in (own_root, vigor_root):
        copy_lists(root, tmp_path)
    (tmp_path / LISTS / "notes").mkdir()  # which holds no list
    assert read_from(load_index(tmp_path, split="test")) == [*VIGOR_CITIES, "Delft", "Leiden"]
    assert read_from(load_index(tmp_path, "crossarea", "test")) == ["SanFrancisco", "Chicago"]


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


def test_parts_that_a_folder_does_not_have(own_root, vigor_root, tmp_path):
    shutil.rmtree(copy_lists(vigor_root, tmp_path) / "Chicago")
    assert read_from(load_index(tmp_path, split="test")) == ["NewYork", "Seattle", "SanFrancisco"]
    for root, area, split, cities, says in (
        (own_root, "crossarea", "train", None, "Delft, Leiden, but crossarea .*--train_cities and"),
        (own_root, "samearea", "test", ["Leiden", "Gouda"], "--test_cities Gouda: .*Delft, Leiden"),
        (tmp_path, "crossarea", "train", None, "NewYork, Seattle, SanFrancisco, but crossarea"),
        (tmp_path, "crossarea", "test", None, "NewYork, Seattle, SanFrancisco, but crossarea"),
        (vigor_root, "samearea", "val", ["SanFrancisco"], "none of 6 panoramas for samearea training"),
    ):
        with pytest.raises(UserError, match=says):
            load_index(root, area, split, cities=cities)


def test_a_sample(vigor_root):
    index = load_index(vigor_root, split="test")
    sample = samples(index)[3]
    camera = sample.pop("camera")
    assert (camera.kind, float(camera.heading), camera.extent) == ("panorama", 0, (360, 90, 90))
    shapes = {"query": (3, 64, 128), "satellite": (3, 64, 64), "mask": (1, 64, 64), "position": (2,)}
    shapes |= {"corner": (2,), "heading": (), "metres_per_pixel": (), "city": (), "index": ()}
    kinds = dict.fromkeys(shapes, torch.float32) | {"corner": torch.float64}
    kinds |= dict.fromkeys(("query", "satellite", "mask"), torch.uint8)
    kinds |= dict.fromkeys(("city", "index"), torch.int64)
    assert {name: tuple(value.shape) for name, value in sample.items()} == shapes
    assert {name: value.dtype for name, value in sample.items()} == kinds
    np.testing.assert_allclose(sample["position"], index.position[3, 0] / 10)
    assert sample["metres_per_pixel"] == pytest.approx(0.149291 * np.cos(np.radians(40.7)) * 10, rel=1e-4)
    whole = np.asarray(Image.open(vigor_root / index.satellite_image(index.satellite[3, 0]).path))
    colour = sample["satellite"].numpy().mean((1, 2))
    np.testing.assert_allclose(colour, whole.mean((0, 1)), atol=0.5)  # RGB, not BGR
    assert set(np.unique(sample["mask"])) > {0, 255}  # the share of foreground, smooth at the edges


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


def test_cropped_panoramas_are_samples_with_their_extent(vigor_root, tmp_path):
    """48 rows of the stored 128 (1.4 degrees each): 40 degrees above and 27.5 below the horizon."""
    shutil.copytree(vigor_root, tmp_path / "v")
    index = load_index(tmp_path / "v", split="test").select(np.arange(2))
    whole = samples(index)[1]
    for row in range(2):
        path = index.root / index.panorama_image(row).path
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
    assert float(turned[1]["heading"]) == -90  # rolled to the right by a quarter: west in its centre
    semi = opened(vigor_root, pos_only=False, **fixed)
    assert all(semi[i]["heading"] == turned[int(row)]["heading"] for i, (row, _) in enumerate(semi.pairs))
    with pytest.raises(UserError, match=r"angles\.npy.* val"):
        opened(vigor_root, split="val", **fixed)
    with pytest.raises(UserError, match="--orientation_file fixes headings of panoramas"):
        opened(vigor_root, replace(SMALL_VIEW, camera="photo"), **fixed)


WRONG_ANGLES = [
    (lambda p: np.save(p, np.zeros(23)), r"float64 of shape \(23,\)"),
    (lambda p: np.save(p, np.zeros((24, 2))), r"float64 of shape \(24, 2\)"),
    (lambda p: np.save(p, np.full(24, "north")), r"<U5 of shape \(24,\)"),
    (lambda p: np.save(p, np.array([0.0] * 23 + [np.nan])), "entry 23"),
    (lambda p: p.write_text("0 90 180"), "not an .npy file"),
    (lambda p: p.write_bytes(b""), "not an .npy file"),
    (lambda p: np.savez(p.open("wb"), a=np.zeros(24)), "an archive"),
    (lambda p: None, "no such file"),
]


@pytest.mark.parametrize(("write", "says"), WRONG_ANGLES)
def test_a_wrong_orientation_file_is_refused(tmp_path, write, says):
    path = tmp_path / "angles.npy"
    write(path)
    with pytest.raises(UserError, match=says) as error:
        read_orientations(path, 24)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def copy_lists(root, folder):
    """The folder of a copy of a root's lists."""
    return shutil.copytree(root / LISTS, folder / LISTS, dirs_exist_ok=True)


def _with_fault(vigor_root, tmp_path, kind, spoil):
    """Samples of a copy in which one of the first sample's files is spoilt, and that file."""
    index = load_index(shutil.copytree(vigor_root, tmp_path / "v"), split="test")
    satellite = index.satellite[0, 0]
    paths = {"panorama": index.panorama_image(0).path, "satellite": index.satellite_image(satellite).path}
    path = index.root / (paths | {"mask": index.mask_image(satellite).path})[kind]
    spoil(path)
    return samples(index), path


def _cut(count):
    return lambda path: path.write_bytes(path.read_bytes()[:-count])


def _giant(path):
    Image.new("L", (64, 32)).save(path, format="PNG")
    data = bytearray(path.read_bytes())
    data[16:24] = (200_000).to_bytes(4, "big") + (100_000).to_bytes(4, "big")
    path.write_bytes(data)


FAULTS = {
    "missing panorama": ("panorama", lambda p: p.unlink(), "no such file"),
    "truncated JPEG": ("panorama", _cut(200), "cannot be decoded"),
    "truncated PNG": ("satellite", _cut(2000), "cannot be decoded"),
    "empty satellite": ("satellite", lambda p: p.write_bytes(b""), "the file is empty"),
    "another size": ("satellite", lambda p: Image.new("RGB", (512, 512)).save(p), "512 x 512 px"),
    "another shape": ("panorama", lambda p: Image.new("RGB", (300, 200)).save(p), "300 x 200 px"),
    "directory": ("panorama", lambda p: (p.unlink(), p.mkdir()), "a folder"),
    "text as mask": ("mask", lambda p: p.write_text("no image"), "a text"),
    "truncated mask": ("mask", _cut(200), "unpack or download it again"),
    "mask of another size": ("mask", lambda p: Image.new("L", (64, 64)).save(p), "64 x 64 px"),
    "header of a giant": ("panorama", _giant, "unpack or download it again"),
    "missing mask": ("mask", lambda p: p.unlink(), "no such file"),
}


# With a loader's worker, one fault of the file system and one of the decoder.
FAULTY = [*((name, 0) for name in FAULTS), ("missing panorama", 1), ("truncated JPEG", 1)]


def test_masks_are_optional_and_an_alpha_channel_is_no_foreground(vigor_root, tmp_path):
    opaque = Image.new("RGBA", (640, 640), (0, 0, 0, 255))
    dataset, path = _with_fault(vigor_root, tmp_path, "mask", opaque.save)
    assert not dataset[0]["mask"].any()
    path.unlink()
    assert "mask" not in samples(dataset.index, use_mask=False)[0]


@pytest.mark.parametrize(("name", "workers"), FAULTY)
def test_a_bad_image_is_one_line_that_names_it(vigor_root, tmp_path, name, workers):
    kind, spoil, says = FAULTS[name]
    dataset, path = _with_fault(vigor_root, tmp_path, kind, spoil)
    with pytest.raises(UserError) as error:
        list(evaluation_loader(dataset, 2, workers))
    assert str(path) in str(error.value) and says in str(error.value) and "\n" not in str(error.value)


LIST, LABELS = "satellite_list.txt", "same_area_balanced_test__corrected.txt"
LIST_FAULTS = [  # what is changed into what
    (LABELS, r"^(.*).{30}$", r"\1", r"line 1: 1[0-2] words"),
    (LABELS, "satellite_4", "satellite_5", r"line 1: satellite 'satellite_5.*' is not in"),
    (LABELS, " -", " x", r"line \d+: could not convert"),
    (LABELS, "^", "x" * 300, r"line 1: x+\.\.\. is 3\d\d bytes long"),
    (LABELS, r"^\S+", r"\n", "line 2: 12 words"),
    (LABELS, r"png \S+", "png nan", r"line 1: an offset is not a finite number"),
    *((LIST, "^", f"{name}\n", f"'{name}'") for name in ("satellite_41.1.png", "satellite_x_-87.png")),
    *((LIST, "^", f"{name}\n", f"'{name}'") for name in ("satellite_91.0_-87.0.png", "satellite_nan_0.png")),
]


@pytest.mark.parametrize(("file", "old", "new", "says"), LIST_FAULTS)
def test_a_bad_list_is_one_line_that_names_it(vigor_root, tmp_path, file, old, new, says):
    path = copy_lists(vigor_root, tmp_path) / "NewYork" / file
    text, changes = re.subn(old, new, path.read_text(), count=1, flags=re.M)
    path.write_text(text)
    with pytest.raises(UserError, match=says) as error:
        load_index(tmp_path, split="test")
    assert changes and str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_missing_root_and_lists(vigor_root, tmp_path):
    path = copy_lists(vigor_root, tmp_path / "root") / "Seattle/satellite_list.txt"
    (tmp_path / "empty").mkdir()
    path.write_bytes(b"satellite_\xff\xfe.png\n")
    for name, says in (
        ("nowhere", "nowhere: no such folder; .* --dataset_root or VIGOR_ROOT"),
        ("empty", f"{LISTS}: no such folder; is this VIGOR's top folder"),
        ("root", r"satellite_list\.txt: not a UTF-8 text"),
    ):
        with pytest.raises(UserError, match=says):
            load_index(tmp_path / name)
    path.unlink()
    with pytest.raises(UserError, match=r"Seattle/satellite_list\.txt: No such file"):
        load_index(tmp_path / "root")
