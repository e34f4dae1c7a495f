"""The masks of a whole folder, from mini-VIGOR's own extract and by Segment Anything."""

import json
import os
import shutil

import numpy as np
import pytest

from common.errors import UserError
from common.flags import run_script
from dataset.images import read_mask
from dataset.index import load_index
from dataset.layout import mask_name
from dataset.lists import satellite_list
from dataset.masks.__main__ import build_parser, main
from dataset.masks.writer import MANIFEST, Prompted, write_masks

pytestmark = pytest.mark.slow
CITY = "Seattle"
AGREE = 0.985  # intersection over union that shifted masks do not reach


@pytest.fixture(scope="module")
def drawn(seattle, tmp_path_factory):
    """A mini-VIGOR of one city, with the masks that it drew and those from its extract."""
    root = shutil.copytree(seattle, tmp_path_factory.mktemp("masks") / "mini", copy_function=os.link)
    run(root, "--folder", "mapped")
    return root


@pytest.fixture
def root(drawn, tmp_path):
    """A copy of its lists, satellite images and extract."""
    for name in ("osm", "splits__corrected"):
        shutil.copytree(drawn / name, tmp_path / name)
    shutil.copytree(drawn / CITY / "satellite", tmp_path / CITY / "satellite")
    return tmp_path


def run(root, *flags, osm=None):
    words = ["--dataset_root", root, "--osm", osm or root / "osm" / f"{CITY}.osm.pbf", *flags]
    main(build_parser().parse_args([str(word) for word in words]))


def masks(root, folder):
    names = satellite_list(root / "splits__corrected" / CITY)
    return [read_mask(root / CITY / folder / mask_name(name), (640, 640)) > 0 for name in names]


def agreement(ones, others, shift=(0, 0)):
    """Intersection over union of all masks, the first ones shifted by whole pixels, without borders."""
    both = either = 0
    for one, other in zip(ones, others, strict=True):
        one, other = np.roll(one, shift, (0, 1))[3:-3, 3:-3], other[3:-3, 3:-3]
        both, either = both + (one & other).sum(), either + (one | other).sum()
    return both / either


def test_masks_agree_with_the_drawn_ones_and_shifted_by_two_pixels_they_do_not(drawn):
    mapped, true = masks(drawn, "mapped"), masks(drawn, "point_prompt_mask")
    assert agreement(mapped, true) > AGREE
    for shift in ((2, 0), (-2, 0), (0, 2), (0, -2), (2, 2), (-2, -2), (2, -2), (-2, 2)):
        assert agreement(mapped, true, shift) < AGREE


def test_the_report(drawn, capsys):
    run(drawn, "--folder", "mapped")
    text = capsys.readouterr().out
    count = len(satellite_list(drawn / "splits__corrected" / CITY))
    assert f"{CITY}: {count} masks, 0 of them written now" in text and "0 without any" in text
    assert "100.0% of 4 training panoramas stand on foreground" in text
    report = json.loads((drawn / CITY / "mapped" / MANIFEST).read_text())["report"]
    assert report["foreground"] == pytest.approx(np.mean(masks(drawn, "mapped")))


def test_an_interrupted_run_continues(root):
    run(root)
    place = root / CITY / "point_prompt_mask"
    first, second, *_ = sorted(place.glob("*.tif"))
    whole, untouched = first.read_bytes(), second.stat().st_mtime_ns
    first.write_bytes(whole[:20])
    (place / f".{second.name}.1.1.tmp").write_bytes(b"half")
    run(root)
    assert first.read_bytes() == whole and second.stat().st_mtime_ns == untouched
    assert not list(place.glob(".*.tmp"))


def test_masks_of_another_kind_are_not_mixed_in_and_others_are_not_touched(root, drawn):
    run(root)
    with pytest.raises(UserError, match=r"point_prompt_mask: holds masks .* not \['service'\]"):
        run(root, "--also", "service")
    with pytest.raises(UserError, match="holds something else than masks"):
        run(drawn)  # mini-VIGOR's own lie there


def test_a_full_disk_is_one_line_and_the_rest_stays(root, monkeypatch):
    def full(path, data, durable=False):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("dataset.masks.writer.write_bytes", full)
    with pytest.raises(UserError, match=r"mask\.tif: cannot be written \(No space .*same command"):
        run(root)
    assert not json.loads((root / CITY / "point_prompt_mask" / MANIFEST).read_text())["complete"]


def test_an_extract_is_needed_and_a_city_must_be_there(root):
    with pytest.raises(UserError, match=r"--osm is missing"):
        write_masks(root)
    with pytest.raises(UserError, match=r"--cities Delft: .* has lists of Seattle"):
        run(root, "--cities", "Delft")
    with pytest.raises(UserError, match=r"absent\.osm\.pbf: no such file.*--osm"):
        run(root, osm=root / "absent.osm.pbf")


def test_prompts_are_points_on_streets_and_never_test_panoramas(root):
    asked = {}

    def segment(image, points):
        assert image.shape == (640, 640, 3)
        asked[len(asked)] = points
        return np.full((640, 640), 255, np.uint8)

    extract = root / "osm" / f"{CITY}.osm.pbf"
    write_masks(root, osm=[extract], folder="points", prompted=Prompted(segment, "none"))
    run(root, "--folder", "streets")
    streets = masks(root, "streets")
    hits = [streets[i][tuple(np.floor(points).astype(int).T)] for i, points in asked.items() if len(points)]
    assert len(asked) == len(streets) and np.concatenate(hits).mean() > 0.99
    asked.clear()
    write_masks(root, folder="cameras", prompted=Prompted(segment, "none", prompts="panoramas"))
    train = [load_index(root, "samearea", split) for split in ("train", "val")]
    expected = {tuple(np.round(position, 2)) for index in train for position in index.position[:, 0]}
    assert {tuple(np.round(point, 2)) for points in asked.values() for point in points} == expected


@pytest.fixture(scope="module")
def sam_folder(tmp_path_factory):
    """A small Segment Anything with random weights, as a local folder."""
    transformers = pytest.importorskip("transformers")
    import torch

    torch.manual_seed(0)
    vision = dict(image_size=64, patch_size=16, window_size=2, global_attn_indexes=[1], num_pos_feats=8)
    vision |= dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, output_channels=16, mlp_dim=32)
    prompt = dict(hidden_size=16, image_size=64, patch_size=16, mask_input_channels=4)
    decoder = dict(hidden_size=16, mlp_dim=16, num_hidden_layers=1, num_attention_heads=2)
    configs = dict(vision_config=vision, prompt_encoder_config=prompt)
    config = transformers.SamConfig(**configs, mask_decoder_config=decoder | {"iou_head_hidden_dim": 16})
    folder = tmp_path_factory.mktemp("sam")
    transformers.SamModel(config).save_pretrained(folder)
    sizes = {"size": {"longest_edge": 64}, "pad_size": {"height": 64, "width": 64}}
    sizes |= {"mask_size": {"longest_edge": 16}, "mask_pad_size": {"height": 16, "width": 16}}
    transformers.SamProcessor(transformers.SamImageProcessor(**sizes)).save_pretrained(folder)
    return folder


def test_segment_anything_the_whole_way(root, sam_folder):
    run(root, "--method", "sam", "--sam_model", sam_folder, "--device", "cpu")
    found = masks(root, "point_prompt_mask")
    assert {mask.shape for mask in found} == {(640, 640)} and len({mask.tobytes() for mask in found}) > 1
    manifest = json.loads((root / CITY / "point_prompt_mask" / MANIFEST).read_text())
    assert manifest["complete"] and manifest["sam_model"] == str(sam_folder) and manifest["prompts"] == "osm"


def test_points_reach_the_network_where_they_lie(sam_folder):
    """As x and y, not y and x, which random weights would not show in the mask."""
    from dataset.masks.sam import Segmenter

    segmenter = Segmenter(sam_folder, "cpu")
    seen = []
    segmenter.model.prompt_encoder.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_points"]), with_kwargs=True
    )
    image = np.random.default_rng(0).integers(0, 256, (640, 640, 3), np.uint8)
    segmenter.mask(image, np.array([[100.0, 400.0], [200.0, 50.0]]))
    points = seen[0].reshape(-1, 2)[:2].numpy()  # x, y at the network's 64 px
    assert points == pytest.approx(np.array([[40, 10], [5, 20]]), abs=0.6)
    assert not segmenter.mask(image, np.zeros((0, 2))).any()


def test_a_model_that_cannot_be_loaded(root, tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(UserError, match=r"--sam_model .*nothing: cannot be loaded"):
        run(root, "--method", "sam", "--sam_model", tmp_path / "nothing", "--device", "cpu")


def test_prompts_of_a_list_that_cannot_be_read(root):
    """They would be none at all, and the masks empty; drawn masks only lack a number in the report."""
    path = root / "splits__corrected" / CITY / "same_area_balanced_train__corrected.txt"
    path.write_text(f"one word\n{path.read_text()}")
    with pytest.raises(UserError, match=rf"{path}, line 1"):
        write_masks(root, folder="cameras", prompted=Prompted(None, "none", prompts="panoramas"))
    _, notes = write_masks(root, osm=[root / "osm" / f"{CITY}.osm.pbf"], folder="streets")
    assert [f"{path}, line 1" in note for note in notes] == [True]


@pytest.mark.parametrize(("line", "flag"), [("--device cpu", "--device"), ("--spacing 3", "--spacing")])
def test_flags_of_segment_anything_need_it(root, line, flag, capsys):
    words = f"--dataset_root {root} --osm {root / 'osm' / CITY}.osm.pbf {line}".split()
    with pytest.raises(SystemExit):
        run_script(main, build_parser(), words)
    assert f"{flag} needs --method sam" in capsys.readouterr().err
