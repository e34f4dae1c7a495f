"""The picture scripts as a user runs them, on small networks that were never trained."""

import functools
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from children import call, refusal, thin_network, to_published
from engine.batch import forward
from engine.evaluation.conditions import Asked, Source
from engine.evaluation.prediction import locate
from PIL import Image

from common import geometry
from dataset.index import KINDS, load_index
from engine.visualization import explain
from engine.visualization.samples import open_samples
from model.build import build_model
from model.checkpoint import load_model, save_checkpoint
from model.settings import ModelSettings

SMALL = ModelSettings(satellite_size=64, panorama_size=(64, 128), d_model=64, n_layer=1)


def save(folder, **settings):
    torch.manual_seed(0)
    model = build_model(replace(SMALL, **settings))
    folder.mkdir()
    save_checkpoint(folder / "best.pt", {"settings": model.settings.plain(), "model": model.state_dict()})


@pytest.fixture(scope="module", autouse=True)
def loading_once():
    """Scripts of this file share what they load: a checkpoint, of a thin network, is read and hashed once."""
    once = functools.cache(load_model)
    with pytest.MonkeyPatch.context() as patch:
        thin_network(patch.setattr)
        for place in ("eval_VIGOR", "engine.localizer", "engine.visualization.samples"):
            patch.setattr(f"{place}.load_model", once)
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory, vigor_root, loading_once):
    """Evaluated runs: `plain`, matching as published; `ground`, on the ground, any heading, half the view, no mask; `light`."""
    runs = tmp_path_factory.mktemp("runs")
    save(runs / "plain")
    save(runs / "ground", network="ground_plane", ori_noise=180.0, FoV=180, use_mask=False, heading_bins=4)
    save(runs / "light", network="light", ori_noise=180.0, FoV=180, heading_bins=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.evaluation.results._draw", lambda *given: None)  # its curves
        for name in ("plain", "ground", "light"):
            flags = f"--dataset_root {vigor_root} --num_workers 0 --calibrate 4 --pos_only False --device cpu"
            call("eval_VIGOR", f"--model_path {runs / name} {flags}")
    return runs


@pytest.fixture
def common(vigor_root):
    return f"--dataset_root {vigor_root} --device cpu --dpi 40"


def numbers(report, name):
    """The numbers in the line of a report that begins with a name."""
    (line,) = (line for line in report.split("\n") if line.startswith(f"{name}: "))
    return [float(number) for number in re.findall(r"-?\d+\.\d+", line.removeprefix(name))]


def table_of(run):
    return pd.read_csv(run / "results/per_image_results_samearea.csv")


@pytest.mark.parametrize("name", ["plain", "ground", "light"])
def test_errors_are_those_of_the_evaluation(runs, common, tmp_path, monkeypatch, name, capsys):
    monkeypatch.setattr("engine.visualization.samples.Output.save_figure", lambda *given: None)
    call("visualize_loc", f"--model_path {runs / name} {common} --pos_only False --idx 3 5-7 --output_dir {tmp_path}")
    out, table = capsys.readouterr().out, table_of(runs / name)
    for i in (3, 5, 6, 7):
        report, row = (tmp_path / f"samearea_test_{i:06d}.txt").read_text(), table.iloc[i]
        assert report in out and f"panorama: {row['panorama']}\n" in report
        assert numbers(report, "error")[:2] == pytest.approx(row[["error_px", "error_m"]], abs=1e-3)
        assert numbers(report, "prediction (latitude, longitude)") == pytest.approx(row[["latitude", "longitude"]], abs=2e-7)
        assert "heat map, calibrated (temperature " in report
        if name != "plain":
            heading = numbers(report, "heading")
            assert heading == pytest.approx(row[["heading_deg", "true_heading_deg", "heading_error_deg"]], abs=0.01)


def test_a_calibration_that_was_cut_short_is_not_shown_as_whole(runs, common, vigor_root, tmp_path, capsys):
    """`--limit` leaves a fit for the next evaluation; pictures that would take its word for it say that there is none."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "best.pt").symlink_to(runs / "plain/best.pt")
    call("eval_VIGOR", f"--model_path {run} --dataset_root {vigor_root} --num_workers 0 --limit 2 --device cpu")
    call("visualize_loc", f"--model_path {run} {common} --idx 0")
    said = capsys.readouterr()
    assert "heat map as trained (temperature 0.1), not calibrated" in said.out
    assert "calibration.json has no fit of a whole validation list for area samearea" in said.err
    call("visualize_loc", f"--model_path {runs / 'plain'} {common} --idx 0 --FoV 90")  # nor one under other conditions
    assert "has no fit" in (said := capsys.readouterr()).err and "FoV_deg 90" in said.err and "not calibrated" in said.out


def test_pictures_are_drawn_over_the_files_own_pixels(runs, vigor_root, tmp_path):
    """Turned and cut as the network sees them; over the network's own where there is a cache alone."""
    asked = Asked(FoV=180.0, ori_noise=180.0)
    samples = open_samples(runs / "ground", "cpu", Source(dataset_root=str(vigor_root)), asked, [3])
    sample, index = samples.dataset[3], samples.dataset.index
    panorama, satellite = samples.views(3, sample)
    stored = [
        np.asarray(Image.open(vigor_root / path))
        for path in (index.panorama_path(3), index.satellite_path(index.satellite[3, 2]))
    ]
    shift = round(float(sample["heading"]) / 360 * stored[0].shape[1])
    np.testing.assert_array_equal(panorama, np.roll(stored[0], -shift, 1)[:, 64:192])
    assert satellite.shape == (640, 640, 3)
    np.testing.assert_array_equal(samples.views(3, sample, kind=2)[1], stored[1])
    lists_alone = replace(index, root=tmp_path)
    samples = samples._replace(dataset=replace(samples.dataset, index=lists_alone))
    assert [view.shape for view in samples.views(3, sample)] == [(64, 64, 3), (64, 64, 3)]


def test_the_worst_of_an_evaluation(runs, common, capsys):
    call("visualize_loc", f"--model_path {runs / 'ground'} {common} --worst 2 --format pdf")
    out, folder = capsys.readouterr().out, runs / "ground/visualizations_loc"
    worst = table_of(runs / "ground").nlargest(2, "error_m")
    names = [f"samearea_test_{i:06d}" for i in worst["index"]]
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{name}.{end}" for name in names for end in ("pdf", "txt"))
    for name, error in zip(names, worst["error_m"], strict=True):  # semi-positives count, as in that evaluation
        assert f"picture: {folder / name}.pdf" in out
        assert numbers((folder / f"{name}.txt").read_text(), "error")[1] == pytest.approx(error, abs=1e-3)
    line = f"--model_path {runs / 'ground'} {common} --worst 2 --seed 3"
    assert "--seed 3: the evaluation that --worst reads had 0" in refusal("visualize_loc", line, capsys)


def test_one_panorama_and_four_satellite_images(runs, common, vigor_root, tmp_path):
    call("visualize_semi_positive", f"--model_path {runs / 'plain'} {common} --idx 0-1 --output_dir {tmp_path}")
    table, index = table_of(runs / "plain"), load_index(vigor_root, "samearea", "test")
    outside = 0
    for i in range(2):
        report = (tmp_path / f"samearea_test_{i:06d}.txt").read_text()
        rows = table[table["panorama"] == index.panorama[i].decode()].set_index("kind")
        for kind, inside in zip(KINDS, index.inside[i], strict=True):
            if inside:
                assert numbers(report, kind) == pytest.approx(rows.loc[kind, ["error_px", "error_m"]], abs=1e-3)
            else:
                assert f"{kind}: the panorama lies outside\n" in report
                outside += 1
        assert len(numbers(report, "all four together")) == 2
    assert outside  # or this test shows less than it says


def test_what_a_network_looked_at(runs, common, tmp_path):
    line = f"--resume {runs / 'ground'} {common} --img_idx 2 --num_samples 2 --head 3 --output_dir {tmp_path}"
    call("visualize_attention", line)
    sheets = ("ground_plane", "layers", "layers_head03", "overview")
    assert [path.stem for path in sorted(tmp_path.iterdir())] == [f"samearea_test_00000{i}_{s}" for i in (2, 3) for s in sheets]


def test_what_a_network_without_attention_looked_at(runs, common, tmp_path, monkeypatch, capsys):
    """Grad-CAM, templates and maps; the picture says that there is no cross-attention, and heads are refused."""
    titles, cams = [], []
    monkeypatch.setattr("engine.visualization.pictures.add_title", lambda figure, title: titles.append(title))
    monkeypatch.setattr("engine.visualization.pictures.draw_heat_map", lambda axes, values, *how, **more: cams.append(values))
    line = f"--resume {runs / 'light'} {common} --img_idx 2 --output_dir {tmp_path}"
    call("visualize_attention", line)
    assert [path.stem for path in sorted(tmp_path.iterdir())] == [
        f"samearea_test_000002_{s}" for s in ("ground_plane", "overview")
    ]
    assert "light network: no cross-attention" in titles[0]
    assert cams[0].shape == (8, 8)  # of a view of 64 x 64, stride 8: also the upper quarter, which the branch does not see
    assert cams[0][2:].max() > 0 == cams[0][:2].max()
    said = refusal("visualize_attention", f"{line} --head 0", capsys)
    assert "--head 0: the light network has no cross-attention; leave it out" in said


def test_a_published_checkpoint(runs, common, tmp_path, capsys):
    state = load_model(runs / "plain").model.state_dict()
    torch.save({"model_state_dict": to_published(state), "args": {"panorama_size": [64, 128]}}, tmp_path / "best.pt")
    call("visualize_attention", f"--resume {tmp_path / 'best.pt'} {common} --img_idx 1")
    out = capsys.readouterr().out
    assert "note: this published checkpoint does not say how many attention heads it has; 8 are assumed" in out
    made = sorted(path.name for path in (tmp_path / "visualizations_cross_attention").iterdir())
    assert made == ["samearea_test_000001_layers.png", "samearea_test_000001_overview.png"]


def test_grad_cam_by_hand(runs):
    model = load_model(runs / "plain").model
    generator = torch.Generator().manual_seed(1)
    shapes = {"panorama": (1, 3, 64, 128), "satellite": (1, 3, 64, 64), "mask": (1, 1, 64, 64)}
    batch = {name: torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for name, shape in shapes.items()}
    batch["metres_per_pixel"] = torch.tensor([1.1])
    kept = {}
    hook = model.panorama_backbone.blocks[-1].register_forward_hook(lambda module, given, out: kept.update(feature=out))
    logits = forward(model, batch).logits
    hook.remove()
    row, col = locate(logits.detach(), model.settings.temperature)[0].tolist()
    (gradient,) = torch.autograd.grad(logits[0, int(row), int(col)], kept["feature"])
    expected = (gradient.mean((2, 3), keepdim=True) * kept["feature"]).sum(1).relu()[0].detach()
    found = explain.grad_cam(model, batch, model.panorama_backbone.blocks[-1], (row, col))
    assert expected.max() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6 * float(expected.max()))


@pytest.fixture
def own(vigor_root, tmp_path):
    """Flags for pair 3 of the list as two images of the user's own: the panorama turned to the west, the satellite enlarged."""
    index = load_index(vigor_root, "samearea", "test")
    satellite = index.satellite[3, 0]
    panorama = np.asarray(Image.open(vigor_root / index.panorama_path(3)))
    Image.fromarray(np.roll(panorama, panorama.shape[1] // 4, 1)).save(tmp_path / "street.png")
    files = {"tile": index.satellite_path(satellite), "mask": index.mask_path(satellite)}
    for name, path in files.items():
        image = Image.open(vigor_root / path)
        image.resize((1280, 1280), Image.Resampling.NEAREST).save(tmp_path / f"{name}.png")
    latitude, longitude = index.satellite_gps[satellite]
    centre = f"--satellite_center {latitude} {longitude}"
    return f"--panorama {tmp_path}/street.png --satellite {tmp_path}/tile.png --output_dir {tmp_path}/out --dpi 40", centre


def test_two_images_of_ones_own(runs, own, tmp_path):
    """They are found where the evaluation has found the dataset's pair: rolled back to north, whatever the files' sizes."""
    images, centre = own
    call(
        "visualize_loc",
        f"--model_path {runs / 'plain'} {images} {centre} --mask {tmp_path}/mask.png --show_mask --heading -90",
    )
    report, table = (tmp_path / "out/own_street.txt").read_text(), table_of(runs / "plain")
    row = table[table["kind"] == "positive"].iloc[3]
    assert numbers(report, "prediction (row, col), px at 512") == pytest.approx(row[["row_px", "col_px"]], abs=0.1)
    assert numbers(report, "prediction (latitude, longitude)") == pytest.approx(row[["latitude", "longitude"]], abs=2e-7)
    assert "truth" not in report and "error" not in report and "panorama rolled by -90°" in report
    assert (tmp_path / "out/own_street.png").stat().st_size > 10_000


def test_the_resolution_of_ones_own_satellite_image(runs, own, tmp_path, monkeypatch, capsys):
    images, centre = own
    ground = f"--model_path {runs / 'ground'} {images}"
    assert "needs its resolution; give --metres_per_pixel" in refusal("visualize_loc", ground, capsys)
    call("visualize_loc", f"{ground} --metres_per_pixel 0.1 {centre}")
    report = (tmp_path / "out/own_street.txt").read_text()
    row, col = numbers(report, "prediction (row, col), px at 512")
    north, east = numbers(report, "prediction from the image's centre")
    assert (north, east) == pytest.approx(((256 - row) / 4, (col - 256) / 4), abs=0.01)  # 128 m over 512 px
    centre = [float(word) for word in centre.split()[1:]]
    place = geometry.mercator_px(*numbers(report, "prediction (latitude, longitude)"))
    south, right = np.subtract(place, geometry.mercator_px(*centre))
    assert (-south, right) == pytest.approx(np.array([north, east]) / geometry.metres_per_pixel(centre[0]), abs=0.2)
    monkeypatch.setattr("engine.visualization.samples.Output.save_figure", lambda *given: None)
    call("visualize_loc", f"--model_path {runs / 'plain'} {images}")
    report = (tmp_path / "out/own_street.txt").read_text()
    assert "nothing can be said in metres" in report and " m north" not in report
    assert "the whole satellite image counts as foreground" in report
    assert "no --heading: north is taken to be in the panorama's centre column" in report


@pytest.mark.parametrize(
    ("script", "flags", "message"),
    [
        ("visualize_loc", "--idx 4 24", "--idx 24: the samearea test list has 24 pairs, 0 to 23"),
        ("visualize_loc", "--idx 7-3", "'7-3' is neither an index, 0 or more, nor a range such as 30-40"),
        ("visualize_loc", "", "one of the arguments"),
        ("visualize_loc", "--idx 1 --heading 3", "--heading belongs to two images of your own"),
        ("visualize_loc", "--panorama {pano} --satellite {tile} --satellite_center -122.3 47.57", "comes first: 47.57 -122.3?"),
        ("visualize_loc", "--panorama {pano} --satellite {tile} --satellite_center nan 1", "'nan' is not a number from -85"),
        ("visualize_loc", "--panorama {pano} --satellite {tile} --satellite_center 95 200", "'95' is not a number from -85"),
        ("visualize_loc", "--panorama {pano} --satellite {tile} --heading nan", "'nan' is not a number from -360 up to 360"),
        ("visualize_loc", "--panorama {pano} --satellite {tile} --heading 1e300", "'1e300' is not a number from -360"),
        ("visualize_loc", "--panorama nowhere.jpg --satellite nowhere.png", "nowhere.jpg: no such file"),
        ("visualize_loc", "--panorama nowhere.jpg", "--panorama needs the --satellite image"),
        ("visualize_loc", "--panorama {tile} --satellite {tile}", "640 x 640 px, but a whole panorama is twice as wide as high"),
        ("visualize_loc", "--panorama {pano} --satellite {pano}", "256 x 128 px, but a satellite image is square"),
        ("visualize_loc", "--worst 2 --area crossarea", "no summary_crossarea.json; evaluate first"),
        ("visualize_attention", "--img_idx 23 --num_samples 2", "--idx 24: the samearea test list has 24 pairs"),
        ("visualize_attention", "--img_idx 0 --head 8", "--head 8: this network has 8 attention heads, 0 to 7"),
        ("visualize_semi_positive", "--idx 99", "--idx 99: the samearea test list has 24 pairs, 0 to 23"),
        ("visualize_semi_positive", "--idx 0 --output_dir {tile}", "choose another place with --output_dir"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(runs, common, vigor_root, capsys, script, flags, message):
    index = load_index(vigor_root, "samearea", "test")
    flags = flags.format(tile=vigor_root / index.satellite_path(0), pano=vigor_root / index.panorama_path(0))
    assert message in refusal(script, f"--model_path {runs / 'plain'} {common} {flags}", capsys)


def test_a_missing_image(runs, vigor_root, tmp_path, capsys):
    index = load_index(vigor_root, "samearea", "test")
    (tmp_path / "splits__corrected").symlink_to(vigor_root / "splits__corrected")
    assert f"{tmp_path / index.panorama_path(0)}: no such file" in refusal(
        "visualize_semi_positive", f"--model_path {runs / 'plain'} --dataset_root {tmp_path} --idx 0", capsys
    )


def test_masks_where_there_are_none(runs, common, capsys):
    line = f"--model_path {runs / 'ground'} {common} --idx 0 --show_mask"
    assert "--show_mask: this network was trained with use_mask False" in refusal("visualize_loc", line, capsys)
