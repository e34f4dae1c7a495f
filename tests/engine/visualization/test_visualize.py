"""The picture scripts as a user runs them, on small networks of random weights."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from children import SMALL_VIEW, call, make_network, refusal, save_network, to_published
from PIL import Image

from common import geometry
from common.camera import panorama
from dataset.index import KINDS, load_index
from dataset.protocol import Source
from engine.inference.decode import locate
from engine.visualization import explain
from engine.visualization.explain import attention_figures
from engine.visualization.samples import open_samples
from model.checkpoint import load_model
from model.interface import Inputs

pytestmark = pytest.mark.slow
HALF = replace(SMALL_VIEW, ori_noise=180.0, FoV=180.0)
PHOTO = replace(SMALL_VIEW, camera="photo", ori_noise=180.0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, vigor_root):
    """`plain`, as published; `ground` and `light`, any heading, half the view; `photo`, not evaluated."""
    runs = tmp_path_factory.mktemp("runs")
    ground = make_network(HALF, network="ground_plane", use_mask=False, heading_bins=4)
    light = make_network(HALF, network="light", heading_bins=4)
    networks = {"plain": (make_network(), SMALL_VIEW), "ground": (ground, HALF), "light": (light, HALF)}
    networks["photo"] = make_network(PHOTO, network="light", heading_bins=4), PHOTO
    for name, (network, view) in networks.items():
        (runs / name).mkdir()
        save_network(runs / name, network, view)
    flags = f"--dataset_root {vigor_root} --num_workers 0 --calibrate 4 --pos_only False --device cpu"
    for name in ("plain", "ground", "light"):
        call("eval_VIGOR", f"--model_path {runs / name} {flags}")
    return runs


@pytest.fixture
def common(vigor_root):
    return f"--dataset_root {vigor_root} --device cpu --dpi 20"


@pytest.fixture(scope="module")
def index(vigor_root):
    return load_index(vigor_root, "samearea", "test")


def numbers(report, name):
    """The numbers in the line of a report that begins with a name."""
    (line,) = (line for line in report.split("\n") if line.startswith(f"{name}: "))
    return [float(number) for number in re.findall(r"-?\d+\.\d+", line.removeprefix(name))]


def table_of(run):
    return pd.read_csv(run / "results/per_image_results_samearea.csv")


@pytest.mark.parametrize("name", ["plain", "ground", "light"])
def test_errors_are_those_of_the_evaluation(runs, common, tmp_path, name, capsys):
    line = f"--model_path {runs / name} {common} --pos_only False --idx 3 5-7 --output_dir {tmp_path}"
    call("visualize_loc", line)
    out, table = capsys.readouterr().out, table_of(runs / name)
    for i in (3, 5, 6, 7):
        report, row = (tmp_path / f"samearea_test_{i:06d}.txt").read_text(), table.iloc[i]
        printed, _, about = report.partition("\n\n")
        assert printed in out and "checkpoint_sha256: " in about
        assert f"panorama: {row['panorama']}\n" in report and ", calibrated (" in report
        assert numbers(report, "error")[:2] == pytest.approx(row[["error_px", "error_m"]], abs=1e-3)
        place = numbers(report, "prediction (latitude, longitude)")
        assert place == pytest.approx(row[["latitude", "longitude"]], abs=2e-7)
        if name != "plain":
            columns = ["heading_deg", "true_heading_deg", "heading_error_deg"]
            assert numbers(report, "heading") == pytest.approx(row[columns], abs=0.01)


def test_fits_of_part_of_a_list_or_other_views_are_not_used(runs, common, vigor_root, tmp_path, capsys):
    (tmp_path / "best.pt").symlink_to(runs / "plain/best.pt")
    line = f"--model_path {tmp_path} --dataset_root {vigor_root} --num_workers 0 --limit 2 --device cpu"
    call("eval_VIGOR", line)
    call("visualize_loc", f"--model_path {tmp_path} {common} --idx 0")
    said = capsys.readouterr()
    assert "not calibrated" in said.out and "calibration.json" in said.err
    call("visualize_loc", f"--model_path {runs / 'plain'} {common} --idx 0 --FoV 90")
    said = capsys.readouterr()
    assert "not calibrated" in said.out and "FoV 90" in said.err


def test_pictures_are_drawn_over_the_files_own_pixels(runs, vigor_root, index, tmp_path):
    """Turned and cut as the network sees them; over the network's own images where the files are missing."""
    source = Source(dataset_root=str(vigor_root))
    samples = open_samples(runs / "ground", "cpu", source, {}, [3])
    sample = samples.dataset[3]
    street, satellite = samples.views(3, sample)
    stored = np.asarray(Image.open(vigor_root / index.panorama_image(3).path))
    shift = round(float(sample["heading"]) / 360 * stored.shape[1])
    np.testing.assert_array_equal(street, np.roll(stored, -shift, 1)[:, 64:192])
    assert satellite.shape == (640, 640, 3)
    third = np.asarray(Image.open(vigor_root / index.satellite_image(index.satellite[3, 2]).path))
    np.testing.assert_array_equal(samples.views(3, sample, kind=2)[1], third)
    lists_alone = replace(samples.dataset, index=replace(samples.dataset.index, root=tmp_path))
    missing = samples._replace(dataset=lists_alone).views(3, sample)
    assert [view.shape for view in missing] == [(64, 64, 3), (64, 64, 3)]
    photographs = open_samples(runs / "photo", "cpu", source, {}, [3])
    assert photographs.views(3, photographs.dataset[3])[0].shape == (480, 640, 3)


def test_the_worst_of_an_evaluation(runs, common, capsys):
    call("visualize_loc", f"--model_path {runs / 'ground'} {common} --worst 2 --format pdf")
    out, folder = capsys.readouterr().out, runs / "ground/visualizations_loc"
    worst = table_of(runs / "ground").nlargest(2, "error_m")
    names = [f"samearea_test_{i:06d}" for i in worst["index"]]
    files = sorted(f"{name}.{end}" for name in names for end in ("pdf", "txt"))
    assert sorted(path.name for path in folder.iterdir()) == files
    for name, error in zip(names, worst["error_m"], strict=True):
        assert f"{folder / name}.pdf" in out
        assert numbers((folder / f"{name}.txt").read_text(), "error")[1] == pytest.approx(error, abs=1e-3)
    line = f"--model_path {runs / 'ground'} {common} --worst 2 --seed 3"
    assert "--seed 3: " in refusal("visualize_loc", line, capsys)


def test_one_panorama_and_four_satellite_images(runs, common, index, tmp_path):
    line = f"--model_path {runs / 'plain'} {common} --idx 0-1 --output_dir {tmp_path}"
    call("visualize_semi_positive", line)
    table, outside = table_of(runs / "plain"), 0
    for i in range(2):
        report = (tmp_path / f"samearea_test_{i:06d}.txt").read_text()
        rows = table[table["panorama"] == index.panorama[i].decode()].set_index("kind")
        for kind, inside in zip(KINDS, index.inside[i], strict=True):
            outside += not inside
            errors = rows.loc[kind, ["error_px", "error_m"]] if inside else []
            assert numbers(report, kind) == pytest.approx(errors, abs=1e-3)
        assert len(numbers(report, "all four together")) == 2
    assert outside  # or this test shows less than it says


def test_what_a_network_looked_at(runs, common, tmp_path):
    line = f"--resume {runs / 'ground'} {common} --img_idx 2 --num_samples 2 --head 1 --output_dir {tmp_path}"
    call("visualize_attention", line)
    sheets = ("ground_plane", "layers", "layers_head01", "overview")
    names = [f"samearea_test_00000{i}_{sheet}" for i in (2, 3) for sheet in sheets]
    assert [path.stem for path in sorted(tmp_path.iterdir())] == names


def test_what_a_network_without_attention_looked_at(runs, common, vigor_root, capsys):
    samples = open_samples(runs / "light", "cpu", Source(dataset_root=str(vigor_root)), {}, [4])
    figures = attention_figures(samples, 4)
    assert sorted(figures) == ["ground_plane", "overview"]
    assert "no cross-attention" in figures["overview"].get_suptitle()
    cam = figures["overview"].axes[2].images[1].get_array()  # the axes stand in rows of two
    rows = len(cam) // 4  # the branch does not see the upper quarter
    assert cam[rows:].max() > 0 == cam[:rows].max()
    line = f"--resume {runs / 'light'} {common} --img_idx 2 --head 0"
    assert "--head 0: " in refusal("visualize_attention", line, capsys)


def test_a_published_checkpoint(common, tmp_path, capsys):
    state = make_network(backbone="efficientnet_b0").state_dict()
    args = {"panorama_size": [64, 128], "d_model": 16}
    torch.save({"model_state_dict": to_published(state), "args": args}, tmp_path / "best.pt")
    call("visualize_attention", f"--resume {tmp_path / 'best.pt'} {common} --img_idx 1")
    assert "8 are assumed" in capsys.readouterr().out
    made = sorted(path.name for path in (tmp_path / "visualizations_cross_attention").iterdir())
    assert made == ["samearea_test_000001_layers.png", "samearea_test_000001_overview.png"]


def test_grad_cam_by_hand(runs):
    network = load_model(runs / "plain").network
    generator = torch.Generator().manual_seed(1)
    shapes = {"query": (1, 3, 64, 128), "satellite": (1, 3, 64, 64), "mask": (1, 1, 64, 64)}
    images = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    inputs, kept = Inputs(camera=panorama()[None], **images), {}
    layer = network.panorama_backbone.last_layer
    hook = layer.register_forward_hook(lambda module, given, out: kept.update(feature=out))
    logits = network(inputs).logits
    hook.remove()
    row, col = locate(logits.detach(), network.settings.temperature)[0].tolist()
    (gradient,) = torch.autograd.grad(logits[0, int(row), int(col)], kept["feature"])
    expected = (gradient.mean((2, 3), keepdim=True) * kept["feature"]).sum(1).relu()[0].detach()
    found = explain.grad_cam(network, inputs, layer, (row, col))
    assert expected.max() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6 * float(expected.max()))


@pytest.fixture
def own(vigor_root, index, tmp_path):
    """Flags for pair 3 of the list as the user's own images: the panorama turned west, others enlarged."""
    satellite = index.satellite[3, 0]
    street = np.asarray(Image.open(vigor_root / index.panorama_image(3).path))
    Image.fromarray(np.roll(street, street.shape[1] // 4, 1)).save(tmp_path / "street.png")
    for name, file in {"tile": index.satellite_image(satellite), "mask": index.mask_image(satellite)}.items():
        image = Image.open(vigor_root / file.path)
        image.resize((1280, 1280), Image.Resampling.NEAREST).save(tmp_path / f"{name}.png")
    latitude, longitude = index.satellite_gps[satellite]
    files = f"--panorama {tmp_path}/street.png --satellite {tmp_path}/tile.png --output_dir {tmp_path}/out"
    return f"{files} --dpi 20 --device cpu", f"--satellite_center {latitude} {longitude}"


def test_two_images_of_ones_own(runs, own, tmp_path):
    """They are found where the evaluation has found the dataset's pair: rolled back to north, of any size."""
    images, centre = own
    mask = f"--mask {tmp_path}/mask.png --show_mask --heading -90"
    call("visualize_loc", f"--model_path {runs / 'plain'} {images} {centre} {mask}")
    report, table = (tmp_path / "out/own_street.txt").read_text(), table_of(runs / "plain")
    row = table[table["kind"] == "positive"].iloc[3]
    place = numbers(report, "prediction (row, col), px at 512")
    assert place == pytest.approx(row[["row_px", "col_px"]], abs=0.1)
    place = numbers(report, "prediction (latitude, longitude)")
    assert place == pytest.approx(row[["latitude", "longitude"]], abs=2e-7)
    assert "truth" not in report and "error" not in report and "-90°" in report
    assert re.search(r"^probability that the camera stood there: .*\d", report, re.M)
    assert (tmp_path / "out/own_street.png").stat().st_size > 10_000


def test_the_resolution_of_ones_own_satellite_image(runs, own, tmp_path, capsys):
    images, centre = own
    ground = f"--model_path {runs / 'ground'} {images}"
    assert "--metres_per_pixel" in refusal("visualize_loc", ground, capsys)
    call("visualize_loc", f"{ground} --metres_per_pixel 0.1 {centre}")
    report = (tmp_path / "out/own_street.txt").read_text()
    row, col = numbers(report, "prediction (row, col), px at 512")
    north, east = numbers(report, "prediction from the image's centre")
    assert (north, east) == pytest.approx(((256 - row) / 4, (col - 256) / 4), abs=0.01)  # 128 m over 512 px
    centre = [float(word) for word in centre.split()[1:]]
    place = geometry.mercator_px(*numbers(report, "prediction (latitude, longitude)"))
    south, right = np.subtract(place, geometry.mercator_px(*centre))
    metres = geometry.metres_per_pixel(centre[0])
    assert (-south, right) == pytest.approx(np.array([north, east]) / metres, abs=0.2)
    call("visualize_loc", f"--model_path {runs / 'plain'} {images}")
    report = (tmp_path / "out/own_street.txt").read_text()
    notes = [line for line in report.split("\n") if line.startswith("note: ")]
    assert len([note for note in notes if "no --" in note or "neither --" in note]) == 3
    assert " m north" not in report


@pytest.mark.parametrize("name", ["light", "plain"])
def test_a_cropped_panorama(runs, tmp_path, name):
    """Of CVUSA's size: 1232 x 224 px show 38.6 degrees above and 26.9 below the horizon."""
    rng = np.random.default_rng(0)
    for file, shape in (("crop", (224, 1232, 3)), ("tile", (640, 640, 3))):
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(tmp_path / f"{file}.png")
    files = f"--panorama {tmp_path}/crop.png --satellite {tmp_path}/tile.png --metres_per_pixel 0.11"
    how = f"--vertical 38.6 26.9 --heading 90 --output_dir {tmp_path} --dpi 20 --device cpu"
    call("visualize_loc", f"--model_path {runs / name} {files} {how}")
    assert numbers((tmp_path / "own_crop.txt").read_text(), "prediction (row, col), px at 512")
    assert (tmp_path / "own_crop.png").stat().st_size > 1000


OWN = "--panorama {pano} --satellite {tile}"


@pytest.mark.parametrize(
    ("script", "flags", "message"),
    [
        ("visualize_loc", "--idx 4 24", "--idx 24: "),
        ("visualize_loc", "--idx 7-3", "'7-3'"),
        ("visualize_loc", "", "one of the arguments"),
        ("visualize_loc", "--idx 1 --heading 3", "--heading "),
        ("visualize_loc", "--idx 1 --hfov 60", "--hfov 60"),
        ("visualize_loc", f"{OWN} --satellite_center -122.3 47.57", "47.57 -122.3"),
        ("visualize_loc", f"{OWN} --camera_height 2", "--camera_height"),
        ("visualize_loc", "--panorama nowhere.jpg", "--satellite"),
        ("visualize_loc", "--panorama {tile} --satellite {tile}", "640 x 640 px"),
        ("visualize_loc", "--panorama {pano} --satellite {pano}", "256 x 128 px"),
        ("visualize_loc", "--worst 2 --area crossarea", "summary_crossarea.json"),
        ("visualize_attention", "--img_idx 23 --num_samples 2", "--idx 24: "),
        ("visualize_attention", "--worst 1 --num_samples 2", "--num_samples "),
        ("visualize_attention", "--img_idx 0 --head 8", "--head 8: "),
        ("visualize_semi_positive", "--idx 99", "--idx 99: "),
    ],
)
def test_what_cannot_be_drawn_is_refused(runs, common, vigor_root, index, capsys, script, flags, message):
    tile, pano = vigor_root / index.satellite_image(0).path, vigor_root / index.panorama_image(0).path
    common = common if "--panorama" not in flags else "--device cpu"
    line = f"--model_path {runs / 'plain'} {common} {flags.format(tile=tile, pano=pano)}"
    assert message in refusal(script, line, capsys)


UNUSED = "area crossarea,split val,seed 3,labels gps,pos_only True,train_cities Delft,orientation_file x.npy"
UNUSED += ",dataset_root .,cache_root .,on_bad_image skip,satellite_size 64,panorama_size 64 128,tilt_noise 3"
UNUSED += ",aspect 4:3,photo_width 64,camera photo"


@pytest.mark.parametrize("flag", [*UNUSED.split(","), "hfov 60", "distortion 0.1"])
def test_flags_that_two_images_do_not_use_are_refused(flag, capsys):
    line = f"--panorama a.jpg --satellite b.png --{flag}"
    assert f"--{flag.split()[0]} " in refusal("visualize_loc", line, capsys)


def test_a_missing_image(runs, vigor_root, index, tmp_path, capsys):
    gone = index.panorama_image(0).path.split("/")[0]
    (tmp_path / gone).mkdir()
    for here in (*vigor_root.iterdir(), *(vigor_root / gone).iterdir()):
        if here.name not in (gone, "panorama"):
            (tmp_path / here.relative_to(vigor_root)).symlink_to(here)
    line = f"--model_path {runs / 'plain'} --dataset_root {tmp_path} --idx 0"
    assert str(tmp_path / index.panorama_image(0).path) in refusal("visualize_semi_positive", line, capsys)


def test_masks_where_there_are_none(runs, common, own, capsys):
    for line in (f"{common} --idx 0", f"{own[0]} --metres_per_pixel 0.1"):
        line = f"--model_path {runs / 'ground'} {line} --show_mask"
        assert "--show_mask: " in refusal("visualize_loc", line, capsys)
