"""OpenCVL's layout, drawn small: positions of photographs, crops of aerial images, missing facts."""

import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from children import SMALL, call, centre_of_mass, light_at, open_pairs, refusal, run_folder
from extract import write_extract
from PIL import Image

from common.camera import pinhole
from common.errors import UserError
from common.view import View
from dataset.loader import collate
from dataset.masks.writer import write_masks
from dataset.negatives import holds_place
from dataset.opencvl import draw_parts
from engine.search.tiles import Tiles

SIZE = (32, 64)
VIEW = View(satellite_size=640, camera="photo", photo_width=SIZE[1], aspect="2:1")
BERLIN = "mapillary/cities/Germany/Berlin/tile_3/labels.json"
PARIS = "mapillary/cities/France/Paris/labels.json"
ZOD, WILD = "zod/frames/Norway/labels.json", "mapillary/in_the_wild_test/Chile/labels.json"
ABOVE, METRES = (700, 600), {"mapillary": 0.2, "zod": 0.15}  # (width, height), metres per pixel
# dx, dy, heading
PLACES = [(40.25, 21.5, 10.0), (-80.75, 100.0, 200.5), (0.0, 0.0, -30.0), (120.5, -140.25, 359.0)]

opened = partial(open_pairs, view=VIEW)


def write_labels(root, label, names, base, form):
    """Records of four photographs. names: image fields · base: folder of paths · form: key of records."""
    folder, records = (root / label).parent, []
    folder.mkdir(parents=True)
    for number, (dx, dy, heading) in enumerate(PLACES):
        ground, above = folder / f"ground {number}.jpg", folder / f"above_{number}.png"
        pixels = np.zeros((36, 60, 3), np.uint8)
        pixels[:, :30, 0] = 255
        Image.fromarray(pixels).save(ground, quality=95)
        light_at(ABOVE[1] / 2 - dy, ABOVE[0] / 2 + dx, ABOVE).save(above)
        paths = (str(path.relative_to(root / base)) for path in (ground, above))
        records.append(
            dict(zip(names, paths, strict=True)) | {"dx": dx, "dy": dy, "heading": heading, "drive_idx": 0}
        )
    (root / label).write_text(json.dumps(records if form is None else {"version": 1, form: records}))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Berlin trains, Berlin and Norway validate, Paris is the cross area, Chile the wild. Read only."""
    root = tmp_path_factory.mktemp("opencvl")
    usual = ("ground_image", "aerial_image")
    write_labels(root, BERLIN, usual, "mapillary/cities/Germany/Berlin/tile_3", None)
    write_labels(root, PARIS, ("mapil_image", "aerial_image"), "mapillary/cities/France/Paris", "images")
    write_labels(root, WILD, usual, "mapillary/in_the_wild_test/Chile", "labels")
    write_labels(root, ZOD, usual, "zod", "data")
    lists = {
        "train": [(BERLIN, n) for n in (0, 1, 2)] + [(ZOD, n) for n in (0, 1, 2)],
        "val": [(BERLIN, 3), (ZOD, 3)],
        "test_cross_area": [(PARIS, n) for n in range(4)],
        "test_in_the_wild": [(WILD, 2)],
    }
    (root / "splits").mkdir()
    for name, entries in lists.items():
        lines = [json.dumps({"label_file": label, "label_index": n, "dataset": "x"}) for label, n in entries]
        (root / "splits" / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    fields = {"mapillary": 70, "zod": 120}
    facts = {name: {"hfov": hfov, "metres_per_pixel": METRES[name]} for name, hfov in fields.items()}
    (root / "sources.json").write_text(json.dumps(facts))
    return root


def change(path, number, **values):
    """Change a record of a labels.json that is a list; None takes a field out."""
    records = json.loads(path.read_text())
    records[number] = {name: value for name, value in (records[number] | values).items() if value is not None}
    path.write_text(json.dumps(records))


@pytest.mark.parametrize(("area", "split"), [("crossarea", "train"), ("crossarea", "test")])
def test_the_camera_is_where_the_mark_is(root, area, split):
    dataset = opened(root, area, split)
    for row in range(len(dataset.index)):
        for kind in range(4):
            sample = dataset.pair(row, kind)
            seen = centre_of_mass(sample["satellite"][0].double().numpy())
            np.testing.assert_allclose(seen, sample["position"], atol=0.1)


def test_resolution_and_extent_are_of_the_image_itself(root):
    dataset = opened(root, "crossarea", "train")
    for row in range(len(dataset.index)):
        metres = METRES["zod" if b"zod" in dataset.index.panorama[row] else "mapillary"]
        side = round(72.96 / metres)
        assert dataset.index.crop[dataset.index.satellite[row], 2].tolist() == [side] * 4
        assert float(dataset[row]["metres_per_pixel"]) == pytest.approx(side * metres / 640, rel=1e-6)


def test_cameras_are_as_told(root):
    dataset = opened(root, "crossarea", "train")
    for row in range(len(dataset.index)):
        place = int(dataset.index.panorama[row].decode()[-5])
        hfov = 120 if b"zod" in dataset.index.panorama[row] else 70
        sample = dataset[row]
        expected = pinhole(60, 36, hfov=hfov, heading=PLACES[place][2])
        np.testing.assert_allclose(sample["camera"].values, expected.values, rtol=1e-6)
        assert float(sample["heading"]) == pytest.approx(float(sample["camera"].heading))
        assert sample["query"].shape == (3, *SIZE)
        assert sample["query"][0, :, :30].min() > 200 and sample["query"][0, :, 34:].max() < 60


def test_splits(root):
    def cities(area, split, *named):
        index = opened(root, area, split, cities=named or None).index
        return len(index), [index.cities[number] for number in np.unique(index.city)]

    assert cities("crossarea", "train") == (6, ["Berlin", "Norway"]) and cities("crossarea", "val")[0] == 2
    assert cities("crossarea", "test") == (4, ["Paris"])
    assert cities("samearea", "test") == (2, ["Berlin", "Norway"])
    assert cities("crossarea", "test", "in_the_wild") == (1, ["Chile"])
    assert cities("crossarea", "train", "Berlin") == (3, ["Berlin"])
    parts = (opened(root, "samearea", split) for split in ("train", "val"))
    train, val = (set(part.index.panorama) for part in parts)
    assert len(train | val) == 6 and not train & val
    with pytest.raises(UserError, match=r"no test_snow\.jsonl"):
        cities("crossarea", "test", "snow")
    with pytest.raises(UserError, match=r"--train_cities Rome: .* Berlin, Chile, Norway, Paris"):
        cities("crossarea", "train", "Rome")


def test_the_corrected_pose_counts_before_all_others(copy, capsys):
    label = copy / BERLIN
    raw = {"dx_mapilraw": 9, "dy_mapilraw": 9, "heading_mapilraw": 77}
    change(label, 0, dx_mast3rpnp=1, dy_mast3rpnp=2, heading_mast3rpnp=3, **raw)
    second = {"dx_mapilopensfm": 30, "dy_mapilopensfm": -20, "heading_mapilopensfm": 95}
    change(label, 1, heading=None, dx_mapilraw=5, dx_mast3rpnp=7, **second)
    index = opened(copy, "crossarea", "train", cities=["Berlin"]).index
    assert index.cameras.heading.tolist() == [3, 95, -30]
    said = capsys.readouterr().out
    assert "train.jsonl: " in said and "dx_mast3rpnp of 1, dx of 1, dx_mapilopensfm of 1" in said
    *corner, side = index.crop[index.satellite[1, 0]]
    place = index.position[1, 0] * side / 640 + corner
    assert place.tolist() == pytest.approx([300 + 20, 350 + 30], abs=1e-3)
    change(label, 2, dx="west")
    with pytest.raises(UserError, match=r"labels\.json, record 2: has no dx, dy and heading"):
        opened(copy, "crossarea", "train")


def test_a_record_s_own_facts_come_first_and_missing_ones_are_asked_for(copy):
    (copy / "sources.json").unlink()
    with pytest.raises(UserError, match=r"record \d: has no hfov, nor has .*sources\.json") as error:
        opened(copy, "crossarea", "val")
    assert "\n" not in str(error.value)
    change(copy / BERLIN, 3, hfov=90, metres_per_pixel=0.3)
    index = opened(copy, "crossarea", "val", cities=["Berlin"]).index
    assert float(index.cameras.fx[0]) == pytest.approx(0.5)
    assert index.metres_per_pixel(0) == pytest.approx(243 * 0.3 / 640)
    change(copy / BERLIN, 3, hfov=0)
    with pytest.raises(UserError, match=r"record 3: hfov 0"):
        opened(copy, "crossarea", "val", cities=["Berlin"])


def test_aerial_images_span_100_m_where_nothing_else_is_said(copy):
    """Of 700 px: a seventh of a metre to a pixel, so that 511 px are 72.96 m."""
    (copy / "sources.json").write_text(json.dumps({"mapillary": {"hfov": 70}}))
    index = opened(copy, "crossarea", "train", cities=["Berlin"]).index
    assert set(index.crop[:, 2].tolist()) == {511}
    assert index.metres_per_pixel(np.arange(12)) == pytest.approx(511 / 640 / 7)


@pytest.mark.parametrize("folder", ["mapillary", ""])
def test_images_of_mapillary_also_lie_in_its_folder_and_in_the_root(copy, folder):
    here, there = (copy / BERLIN).parent, copy / folder / "images"
    there.mkdir()
    for name in ("ground 0.jpg", "above_0.png"):
        (here / name).rename(there / name)
    change(copy / BERLIN, 0, ground_image="images/ground 0.jpg", aerial_image="images/above_0.png")
    dataset = opened(copy, "crossarea", "train", cities=["Berlin"])
    assert dataset.index.panorama[0].decode() == f"{folder}/images/ground 0.jpg".lstrip("/")
    light = dataset[0]["satellite"][0].double().numpy()
    seen = np.average(np.mgrid[:640, :640] + 0.5, axis=(1, 2), weights=[light] * 2)
    np.testing.assert_allclose(seen, dataset[0]["position"], atol=0.1)


def test_photographs_outside_their_image_are_left_out_and_counted(copy, capsys):
    change(copy / BERLIN, 0, dx=400)
    assert len(opened(copy, "crossarea", "train").index) == 5
    assert "train.jsonl: 1 photographs left out" in capsys.readouterr().out


def test_files_that_are_missing_are_named(copy):
    (copy / "mapillary/cities/France/Paris/above_1.png").unlink()
    with pytest.raises(UserError, match=r"Paris/above_1\.png: .*labels\.json, record 1"):
        opened(copy, "crossarea", "test")
    (copy / BERLIN).write_text("[1, 2")
    with pytest.raises(UserError, match=r"Berlin/tile_3/labels\.json: "):
        opened(copy, "crossarea", "train")
    (copy / "splits/val.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match=r"val\.jsonl, line 1: "):
        opened(copy, "samearea", "test")


def test_parts_lie_inside_and_hold_the_camera():
    for number in range(300):
        size, position = (600, 700), (number * 1.99, 699.9 - number * 2.3)
        parts = draw_parts(size, position, 0.15, f"photograph {number}")
        assert (parts[:, 2] == 486).all()
        assert ((parts[:, :2] >= 0) & (parts[:, :2] + parts[:, 2:] <= size)).all()
        assert ((position >= parts[:, :2]) & (position < parts[:, :2] + parts[:, 2:])).all()
    assert draw_parts((300, 400), (150, 200), 0.15, "small")[:, [0, 2]].tolist() == [[0, 300]] * 4


def test_the_cache_holds_all_lists(root, tmp_path, capsys):
    words = f"--dataset_root {root} --cache_root {tmp_path} --satellite_size 64 --panorama_size 32 64"
    assert "--use_mask False" in refusal("dataset.cache", words, capsys)
    call("dataset.cache", f"{words} --use_mask False")
    assert "not in the cache: " in (out := capsys.readouterr().out) and "no test_snow.jsonl" in out
    for area, split, cities in (("samearea", "train", None), ("crossarea", "test", ("in_the_wild",))):
        how = {"cities": cities, "satellite_size": 64}
        sample = opened(root, area, split, cache_root=tmp_path, **how)[0]
        other = opened(root, area, split, **how)[0]
        assert torch.equal(sample["position"], other["position"])
        assert abs(sample["query"].int() - other["query"].int()).float().mean() < 5


def test_masks_and_searches_need_degrees(root, tmp_path):
    extract = write_extract(tmp_path / "street.osm", np.array([[1e7, 1e7], [1e7, 1e7 + 900]]))
    with pytest.raises(UserError, match=r"masks from OpenStreetMap: latitude and longitude .* not known"):
        write_masks(root, osm=[extract])
    dataset = opened(root, "crossarea", "test")
    with pytest.raises(UserError, match=r"a search: latitude and longitude .* not known"):
        Tiles.of_city(dataset.index, 0, dataset.images)


@pytest.mark.slow
def test_training_evaluation_and_pictures_take_the_folder(root, tmp_path):
    words = f"{SMALL} --network light --camera photo --photo_width 64 --hfov 60 120 --use_mask False"
    words += f" --epochs 1 --ori_noise 180 --max_steps 1 --area crossarea --dataset_root {root}"
    call("train_VIGOR", f"{words} --runs_root {tmp_path / 'runs'}")
    run = run_folder(tmp_path / "runs")
    call("eval_VIGOR", f"--model_path {run} --dataset_root {root} --num_workers 0")
    table = pd.read_csv(run / "results/per_image_results_crossarea.csv")
    assert table["city"].tolist() == ["Paris"] * 4
    assert table["latitude"].isna().all() and table["error_m"].notna().all()
    assert table["metres_per_pixel"].tolist() == pytest.approx([365 * 0.2 / 512] * 4)
    for script in ("visualize_loc", "visualize_semi_positive"):
        words = f"--model_path {run} --dataset_root {root} --idx 1 --dpi 20"
        call(script, f"{words} --output_dir {tmp_path / script}")
    reports = [path.read_text() for path in tmp_path.glob("visualize*/*.txt")]
    assert len(reports) == 2 and not any("latitude" in report or "nan" in report for report in reports)


def test_an_image_of_another_file_holds_no_place(root):
    """Where degrees are not known, each file has a frame of its own."""
    samples = opened(root, "samearea", "train", training=True)
    batch = collate([samples[i] for i in range(len(samples))])
    names = samples.index.satellite_name[samples.index.satellite[samples.pairs[:, 0], 0]]
    holds = holds_place(batch, VIEW.satellite_size)
    assert len(set(names.tolist())) > 1 and holds.diagonal().all()
    assert not holds[torch.from_numpy(names[:, None] != names)].any()
