"""eval_VIGOR.py from its command line: networks with random weights, of ours and a published one."""

import json
import shutil
from contextlib import redirect_stdout
from dataclasses import replace
from functools import cache
from io import StringIO

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from children import SMALL_VIEW, call, contents, make_network, run_group, save_network, script, to_published
from children import refusal as refusal_of
from matplotlib.figure import Figure

from common.camera import pinhole
from common.files import file_hash
from common.geometry import wrap_degrees
from dataset.cameras import write_cameras
from dataset.protocol import Protocol, Source, open_data
from engine.evaluation import gallery, results
from engine.evaluation.table import random_foreground
from engine.inference import temperatures
from model.build import build_model
from model.settings import NETWORKS, network_settings

ANY_HEADING = replace(SMALL_VIEW, ori_noise=180.0)
PHOTO = replace(SMALL_VIEW, camera="photo", ori_noise=20.0)
GROUND = {"matching_channels": 8, "heading_bins": 8}
KINDS = {  # view and settings of each network
    "published": (SMALL_VIEW, {}),
    "ground_plane": (ANY_HEADING, {"network": "ground_plane", **GROUND}),
    "light": (ANY_HEADING, {"network": "light", **GROUND}),
    "photo": (PHOTO, {"network": "light", **GROUND}),
}
CITIES = "NewYork", "Seattle", "SanFrancisco", "Chicago"
UNITS = ("error_px", "error_m", "error_thesis_m")


def run(line):
    """Run the script in this process; returns what it printed."""
    with redirect_stdout(StringIO()) as said:
        call("eval_VIGOR", line)
    return said.getvalue()


def refusal(line, capsys):
    """The last line on stderr of a command that has to be refused."""
    return refusal_of("eval_VIGOR", line, capsys)


def rows(folder, area="samearea"):
    return pd.read_csv(folder / f"per_image_results_{area}.csv")


def summary_of(folder, area="samearea"):
    return json.loads((folder / f"summary_{area}.json").read_text())


def make_run(folder, kind):
    view, settings = KINDS[kind]
    folder.mkdir()
    return save_network(folder, make_network(view, **settings), view)


def copy_of(run, folder):
    """A copy of a run's results, and the bytes of its files."""
    results = shutil.copytree(run[0] / "results", folder / "results")
    return results, contents(results)


@pytest.fixture(scope="module")
def data(vigor_root):
    return f"--dataset_root {vigor_root} --num_workers 0"


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """A function that gives (folder, printed text) of an evaluated network."""

    @cache
    def run_of(kind):
        folder = make_run(tmp_path_factory.mktemp("runs") / kind, kind)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("children.figures_are_drawn", kind == "ground_plane")
            return folder, run(f"--model_path {folder / 'best.pt'} {data}")

    return run_of


@pytest.fixture(params=NETWORKS)
def evaluated(request, runs):
    """(folder, printed text) of each network."""
    return runs(request.param)


@pytest.fixture
def ground(runs):
    """(folder, printed text) of the network that matches on the ground, for any heading."""
    return runs("ground_plane")


def test_the_table(evaluated):
    table = rows(evaluated[0] / "results")
    assert table["index"].tolist() == list(range(24)) and set(table["kind"]) == {"positive"}
    assert table["city"].tolist() == [city for city in CITIES for _ in range(6)]
    error = np.hypot(table["row_px"] - table["true_row_px"], table["col_px"] - table["true_col_px"])
    np.testing.assert_allclose(table["error_px"], error, rtol=1e-6)
    np.testing.assert_allclose(table["error_thesis_m"], error * 0.1425, rtol=1e-6)
    along_and_across = np.hypot(table["longitudinal_m"], table["lateral_m"])
    np.testing.assert_allclose(along_and_across, table["error_m"], rtol=1e-6)
    if "heading_deg" in table:
        turned = table["heading_deg"] - table["true_heading_deg"] - table["heading_error_deg"]
        np.testing.assert_allclose(wrap_degrees(turned), 0, atol=1e-3)
        assert table["heading_error_deg"].abs().max() <= 180 and table["true_heading_deg"].abs().max() > 90
    shares = table[["mass_within_1m", "mass_within_3m", "mass_within_5m", "region_calibrated"]]
    assert ((shares >= 0) & (shares <= 1)).all(axis=None)
    assert (table["mass_within_1m"] < table["mass_within_5m"]).all()
    assert (table["density_at_truth_per_m2"] > 0).all() and (table["seconds"] > 0).all()


def test_metres_on_the_globe(evaluated):
    """Names carry coordinates: predictions lie as far from a panorama's as the error says, on a sphere."""
    table = rows(evaluated[0] / "results")
    latitude, longitude = table["panorama"].str.split(",", expand=True)[[1, 2]].astype(float).to_numpy().T

    def offset(to_latitude, to_longitude):
        """Metres north and east from the panorama."""
        east = np.radians(to_longitude - longitude) * np.cos(np.radians(latitude))
        return 6_378_137 * np.radians(to_latitude - latitude), 6_378_137 * east

    north, east = offset(table["latitude"], table["longitude"])
    heading = np.radians(table["true_heading_deg"])
    centre = table["satellite"].str.removesuffix(".png").str.split("_", expand=True)[[1, 2]].astype(float)
    expected = {
        "error_m": np.hypot(north, east),
        "east_m": east,
        "north_m": north,
        "longitudinal_m": north * np.cos(heading) + east * np.sin(heading),
        "lateral_m": east * np.cos(heading) - north * np.sin(heading),
        "centre_guess_m": np.hypot(*offset(*centre.to_numpy().T)),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(table[name], values, atol=0.15)  # the names are rounded to 0.1 m


def test_the_summary_is_that_of_the_table(evaluated):
    table, summary = rows(evaluated[0] / "results"), summary_of(evaluated[0] / "results")["summary"]
    assert list(summary) == ["all", *CITIES]
    for name, part in summary.items():
        chosen = table if name == "all" else table[table["city"] == name]
        assert part["pairs"] == len(chosen)
        for column in {*UNITS, "longitudinal_m", "lateral_m", "heading_error_deg"} & set(table):
            found, values = part[column if column in UNITS else f"abs_{column}"], chosen[column].abs()
            expected = {of: getattr(values, of)() for of in ("mean", "median", "min", "max")}
            expected |= {"q25": values.quantile(0.25), "std": values.std(ddof=0)}
            assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-12), column
            for of in ("mean", "median") if column in UNITS else ():
                low, high = found[f"{of}_95"]
                assert found["min"] <= low <= found[of] <= high <= found["max"]
        for column in ("east_m", "north_m"):
            assert part[column]["mean"] == pytest.approx(chosen[column].mean(), rel=1e-12)
            low, high = part[column]["mean_95"]
            assert low <= part[column]["mean"] <= high
        for metres in (1, 3, 5, 10):
            assert part["recall"][f"{metres}_m"] == pytest.approx((chosen["error_m"] <= metres).mean())
        if "heading_error_deg" in table:
            within = (chosen["heading_error_deg"].abs() <= 10).mean()
            assert part["abs_heading_error_deg"]["within_10_deg"] == within
        covered = part["calibration"]["calibrated"]["coverage"]
        assert covered["0.5"] == (chosen["region_calibrated"] <= 0.5).mean()


def test_all_places_give_the_same_numbers(ground, drawn_figures, tmp_path, monkeypatch):
    """CSV, JSON, text, terminal, and the legends of the figures, which are drawn again for that."""
    (results, _), said, legends = copy_of(ground, tmp_path), ground[1], {}

    def savefig(figure, path, **options):
        texts = (text.get_text() for legend in figure.legends for text in legend.get_texts())
        legends[path.name] = " ".join(texts).replace("\n", " ")
        path.touch()

    monkeypatch.setattr(Figure, "savefig", savefig)
    run(f"--model_path {ground[0]} --redraw --output_dir {results}")
    summary, text = summary_of(results)["summary"], (results / "localization_errors_samearea.txt").read_text()
    for name, part in summary.items():
        mean, median = (part["error_m"][of] for of in ("mean", "median"))
        assert f"{name}: mean {mean:.2f} m, median {median:.2f} m" in legends["CED_samearea.png"]
        block = text.split(f"\n{name}: {part['pairs']} pairs\n")[1].split("\n\n")[0]
        for unit in UNITS:
            assert all(f"{of} {part[unit][of]:8.3f}" in block for of in ("mean", "median", "std"))
        (line,) = [line.split() for line in said.splitlines() if line.split()[:1] == [name]]
        assert line[1:4] == [str(part["pairs"]), f"{mean:.2f}", f"{median:.2f}"]
    for unit in ("px", "m"):
        mean = summary["all"][f"error_{unit}"]["mean"]
        assert f"mean {mean:.2f} {unit}" in legends[f"Error_Histogram_{unit}_samearea.png"]
    for part in summary["all"]["calibration"].values():
        error = f"expected calibration error {100 * part['expected_calibration_error']:.1f} %"
        assert all(error in place for place in (legends["calibration_samearea.png"], said, text))
    ced, table = pd.read_csv(results / "CED_samearea.csv").set_index("error_m"), rows(results)
    for metres in (1.0, 21.35, 25.0):
        assert ced.loc[metres, "all"] == pytest.approx((table["error_m"] <= metres).mean(), abs=1e-6)
    assert ced.columns.tolist() == list(summary) and ced.index[-1] == 25


def test_the_context(ground):
    folder, said = ground
    context = summary_of(folder / "results")["context"]
    assert said.startswith("samearea test, 24 pairs (positives), headings within ±180°, FoV 360°\n")
    assert (context["ori_noise"], context["area"], context["published"]) == (180, "samearea", False)
    assert context["checkpoint_sha256"] == file_hash(folder / "best.pt")
    (fit,) = json.loads((folder / "calibration.json").read_text())["fits"]
    temperature = fit["temperature"]
    assert context["temperatures"] == {"calibrated": temperature, "training": 0.1} and fit["pairs"] == 6
    assert f"heat map at temperature {temperature:.4g} (fitted on 6 validation pairs" in said
    figures = "CED", "Error_Histogram_m", "Error_Histogram_px", "calibration", "gallery"
    files = {f"{name}_samearea.png" for name in figures} | {"CED_samearea.csv", "gallery_samearea.npz"}
    files |= {"localization_errors_samearea.txt", "per_image_results_samearea.csv", "summary_samearea.json"}
    assert contents(folder / "results").keys() == files


def same_tables(one, other):
    """Equal to 1e-4 px and to what that means for the other columns, `seconds` aside."""
    one, other = one.drop(columns="seconds"), other.drop(columns="seconds")
    pixels = [name for name in one if name.endswith("_px")]
    np.testing.assert_allclose(one[pixels], other[pixels], rtol=0, atol=1e-4)
    pd.testing.assert_frame_equal(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_batch_sizes_and_repetition(evaluated, data, tmp_path, monkeypatch):
    monkeypatch.setattr(temperatures, "make_fit", None)  # the stored fit serves
    run(f"--model_path {evaluated[0]} {data} --batch_size 1 --limit 5 --output_dir {tmp_path}")
    same_tables(rows(evaluated[0] / "results")[:5], rows(tmp_path))


@pytest.mark.slow
def test_two_processes_give_the_same_files(ground, data, tmp_path):
    """15 pairs in batches of 2: the processes have seven and eight of them."""
    line = f"--model_path {ground[0]} {data} --batch_size 2 --limit 15 --output_dir {tmp_path / 'results'}"
    said = run_group(tmp_path / "out", 2, script, "eval_VIGOR", line)
    assert said.count("results are in") == 1 and "15 of 24 pairs" in said
    same_tables(rows(ground[0] / "results")[:15], rows(tmp_path / "results"))


@pytest.mark.slow
def test_other_views(ground, data, vigor_root, tmp_path):
    """A narrower view, known headings and heights, semi-positives, the first pairs; every report has them."""
    flags = f"--ori_noise 0 --FoV 90 --camera_height 1.6 --pos_only False --limit 5 --output_dir {tmp_path}"
    said = run(f"--model_path {ground[0]} {data} {flags}")
    table, record = rows(tmp_path), summary_of(tmp_path)
    assert (table["true_heading_deg"] == 0).all() and record["context"]["FoV"] == 90
    lists = vigor_root / "splits__corrected/NewYork/same_area_balanced_test__corrected.txt"
    words = np.array([line.split()[1:] for line in lists.read_text().splitlines()]).reshape(-1, 4, 3)
    inside = (np.abs(words[..., 1:].astype(float)) < 320).all(-1)
    kinds = inside.nonzero()[1][:5]
    assert table["kind"].tolist() == [f"semi-positive {i}" if i else "positive" for i in kinds]
    pairs = record["context"]["pairs_in_list"]
    expected = (
        f"samearea test, 5 of {pairs} pairs (positives and semi-positives), headings within ±0°, FoV 90°"
    )
    for text in (said, (tmp_path / "localization_errors_samearea.txt").read_text()):
        assert text.startswith(f"{expected}, cameras 1.6 m high\n")
    assert set(record["summary"]) == {"all", "NewYork", *table["kind"]} and pairs > 24
    assert record["summary"]["positive"]["pairs"] == (kinds == 0).sum()
    fits = json.loads((ground[0] / "calibration.json").read_text())["fits"]
    assert {(360, 6), (90, 5)} <= {(fit["FoV"], fit["pairs"]) for fit in fits}


@pytest.mark.slow
def test_photographs(data, vigor_root, tmp_path):
    """Cut out of panoramas as the view says, the priors of their headings within its noise of the truth."""
    folder = make_run(tmp_path / "run", "photo")
    said = run(f"--model_path {folder} {data} --hfov 70 --limit 8 --calibrate 0")
    assert "photographs 70° wide, pitch within ±5°" in said
    context, table = summary_of(folder / "results")["context"], rows(folder / "results")
    assert context["hfov"] == [70, 70] and context["camera"] == "photo" and "FoV" not in context
    assert table["true_heading_deg"].abs().max() > 90
    source, view = Source(dataset_root=str(vigor_root)), replace(PHOTO, hfov=(70.0,))
    samples = [open_data(source, Protocol(), view, use_mask=True)[i] for i in range(8)]
    assert table["true_heading_deg"].tolist() == pytest.approx([float(s["heading"]) for s in samples])
    prior = np.array([float(sample["camera"].heading) for sample in samples])
    noise = np.abs(wrap_degrees(prior - table["true_heading_deg"]))
    assert (noise <= PHOTO.ori_noise).all() and noise.max() > PHOTO.ori_noise / 2
    # Hypotheses are 360 / 8 degrees apart: those about the prior are the prior itself and one on each side.
    assert (np.abs(wrap_degrees(table["heading_deg"] - prior)) <= 45).all()


@pytest.mark.slow
def test_photographs_with_cameras_of_their_own(vigor_root, tmp_path, capsys):
    """Reports say what these cameras are like; flags of cut photographs do not apply to them."""
    root = shutil.copytree(vigor_root, tmp_path / "root")
    for city in root.glob("*/panorama"):
        camera = pinhole(128, 64, hfov=55.0, pitch=3.0)
        write_cameras(city.parent, {path.name: camera for path in city.iterdir()})
    folder = make_run(tmp_path / "run", "photo")
    line = f"--model_path {folder} --dataset_root {root} --num_workers 0 --limit 2 --calibrate 0"
    run(line)
    context = summary_of(folder / "results")["context"]
    assert (context["hfov"], context["pitch"], context["roll"]) == ([55, 55], 3, 0)
    assert "--hfov" in refusal(f"{line} --hfov 70", capsys)


@pytest.mark.slow
def test_the_validation_part_and_no_calibration(data, tmp_path):
    folder = make_run(tmp_path / "run", "published")
    said = run(f"--model_path {folder} {data} --split val --area crossarea --calibrate 0")
    assert "crossarea val, " in said and "heat map at temperature 0.1 (not calibrated)" in said
    assert said.count("heat map at temperature") == 1
    assert (folder / "results/per_image_results_crossarea_val.csv").exists()
    assert not (folder / "calibration.json").exists()


def test_redrawing_needs_no_network(ground, drawn_figures, tmp_path):
    results, before = copy_of(ground, tmp_path)
    for path in results.glob("*.png"):
        path.unlink()
    said = run(f"--model_path gone.pt --redraw --output_dir {results}")
    assert said.split("\n")[:8] == ground[1].split("\n")[:8]
    assert contents(results) == before


def test_redrawing_and_comparing_need_one_whole_evaluation(ground, tmp_path, capsys):
    error = refusal(f"--model_path x.pt --redraw --output_dir {tmp_path}", capsys)
    assert "no summary_*.json; evaluate first" in error
    results, _ = copy_of(ground, tmp_path)
    csv = results / "per_image_results_samearea.csv"
    csv.write_text(csv.read_text().replace("NewYork", "Newark"))
    error = refusal(f"--compare {tmp_path}", capsys)
    assert f"{csv} is not the file that summary_samearea.json was computed from" in error
    summary = results / "summary_samearea.json"
    changed = summary.read_text().replace('"pairs": 24', '"pairs": 25', 1)
    for text in (changed, "{}", "[]", '{"summary": {}, "context": "x"}'):
        summary.write_text(text)
        assert "summary_samearea.json: no finished evaluation" in refusal(f"--compare {tmp_path}", capsys)
    assert "--FoV" in refusal(f"--compare {ground[0]} --FoV 90", capsys)


@pytest.mark.slow
def test_compare(ground, data, tmp_path):
    plain = make_run(tmp_path / "plain", "published")
    run(f"--model_path {plain} {data} --limit 16 --calibrate 3")
    said = run(f"--compare {ground[0]} {plain / 'best.pt'} {ground[0]} --output_dir {tmp_path}")
    one, other = (
        summary_of(folder / "results")["context"]["checkpoint_sha256"] for folder in (ground[0], plain)
    )
    assert f"not the same checkpoint_sha256: {one[:12]}, {other[:12]}" in said and "git_revision" not in said
    assert "16 pairs in common, of 24, 16, 24" in said and "ori_noise: 180, 0, 180" in said
    table = pd.read_csv(tmp_path / "comparison_samearea.csv")
    assert set(table["pairs"]) == {16}
    assert table["run"].tolist() == ["ground_plane (1)", "plain", "ground_plane (3)"]
    pairs = rows(ground[0] / "results").merge(rows(plain / "results"), on=["panorama", "satellite"])
    np.testing.assert_allclose(table["mean_m"][:2], [pairs["error_m_x"].mean(), pairs["error_m_y"].mean()])
    difference = pairs["error_m_y"] - pairs["error_m_x"]
    mean, spread = difference.mean(), 1.96 * difference.std(ddof=0) / 4
    differences = table.filter(like="difference")
    assert differences["mean_difference_m"][1] == pytest.approx(mean)
    for end, sign in (("low", -1), ("high", 1)):
        expected = pytest.approx(mean + sign * spread, abs=0.2 * spread)
        assert differences[f"mean_difference_{end}_m"][1] == expected
    assert (differences.iloc[2] == 0).all()
    assert (tmp_path / "comparison_samearea.png").exists()
    assert (tmp_path / "comparison_samearea.txt").read_text() in said


@pytest.mark.slow
@pytest.mark.parametrize("with_args", [True, False])
def test_a_published_run_folder(with_args, data, tmp_path):
    torch.manual_seed(3)
    small = {"backbone": "efficientnet_b0", "d_model": 64, "block_exp": 2}
    state = to_published(build_model(network_settings(SMALL_VIEW, small)).state_dict())
    torch.save({"epoch": 41, "model_state_dict": state, "args": {}}, tmp_path / "best.pt")
    if with_args:
        args = {"area": "crossarea", "pos_only": "False", "training": "True", "ori_noise": 180}
        (tmp_path / "args.yaml").write_text(yaml.safe_dump(args | {"panorama_size": [64, 128]}))
    said = run(f"--model_path {tmp_path} {data} --limit 2")
    area = "crossarea" if with_args else "samearea"
    context, table = summary_of(tmp_path / "results", area)["context"], rows(tmp_path / "results", area)
    assert context["published"] and context["ori_noise"] == 0 and context["pos_only"]
    assert list(context["temperatures"]) == ["calibrated", "training", "published"]
    assert "heat map at temperature 0.1 (as trained)" in said
    assert "heat map at temperature 1 (as the published code shows its map)" in said
    assert (table["true_heading_deg"] == 0).all() and "heading_deg" not in table
    assert len({*table["region_calibrated"], *table["region_training"], *table["region_published"]}) > 2


@pytest.mark.slow
def test_a_stop_leaves_nothing_that_looks_finished(
    ground, drawn_figures, tmp_path, data, monkeypatch, capsys
):
    """While predicting, and on a full disk while writing over an older evaluation, which stays as it was."""
    results, before = copy_of(ground, tmp_path)

    def stop(*arguments):
        raise KeyboardInterrupt

    def full_disk(*arguments, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="130"):
        patch.setattr("engine.evaluation.evaluate.make_table", stop)
        run(f"--model_path {ground[0]} {data} --limit 2 --output_dir {tmp_path / 'new'}")
    assert not (tmp_path / "new").exists() and capsys.readouterr().err.endswith(": stopped\n")
    monkeypatch.setattr(Figure, "savefig", full_disk)
    error = refusal(f"--model_path {ground[0]} {data} --output_dir {results}", capsys)
    assert f"{results}: cannot be written (No space left on device); " in error and "--output_dir" in error
    assert contents(results) == before


@pytest.mark.slow
def test_another_evaluation_is_not_written_over(ground, data, tmp_path, capsys):
    """A whole one stays; one that --limit cut short is replaced."""
    results, before = copy_of(ground, tmp_path)
    line = f"--model_path {ground[0]} {data} --output_dir {results}"
    for flags in ("--limit 2", "--ori_noise 20", "--FoV 90", "--pos_only False"):
        assert "is of samearea test, 24 pairs (positives), " in refusal(f"{line} {flags}", capsys)
    assert contents(results) == before
    other = results / "summary_samearea_val.json"  # of another folder, as where --dataset_root was forgotten
    record = summary_of(results)
    record["context"] |= {"split": "val", "pairs": 99, "pairs_in_list": 99}
    other.write_text(json.dumps(record))
    assert f"{other} is of samearea val, 99 pairs" in refusal(f"{line} --split val", capsys)
    other.unlink()
    run(f"{line} --split val --limit 2")
    run(f"{line} --split val --limit 3 --ori_noise 20")
    assert summary_of(results)["context"]["pairs"] == 24 and len(rows(results, "samearea_val")) == 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--model_path {best} --dataset_root {tmp}", "{tmp}/splits__corrected: the lists for samearea test"),
        ("--model_path {best} {data} --output_dir /proc/results", "/proc/results: cannot be written"),
        ("--model_path {best} {data} --split val --orientation_file x.npy", "x.npy: "),
        ("--model_path {best} {data} --hfov 70", "--hfov 70: {best}"),
    ],
)
def test_what_cannot_be_evaluated(ground, vigor_root, data, tmp_path, capsys, flags, message):
    shutil.copytree(vigor_root / "splits__corrected", tmp_path / "splits__corrected")
    for path in tmp_path.rglob("*_test_*"):
        path.write_text("")
    names = {"best": ground[0] / "best.pt", "tmp": tmp_path, "data": data}
    assert message.format(**names) in refusal(flags.format(**names), capsys)


def test_a_network_whose_numbers_break(data, tmp_path, capsys):
    """Its weights are finite and its logits are not."""
    network = make_network()
    for layer in (0, 3):
        network.decoder.head[layer].weight.data.copy_(3e38 * network.decoder.head[layer].weight.sign())
    broken = save_network(tmp_path, network)
    error = refusal(f"--model_path {broken} {data} --limit 2", capsys)
    assert "not finite on the validation pairs" in error
    error = refusal(f"--model_path {broken} {data} --limit 2 --calibrate 0", capsys)
    assert "pair 0: the prediction is not a finite number" in error
    assert not (broken / "results").exists() and not (broken / "calibration.json").exists()


def test_a_random_street_pixel_lies_on_the_street():
    mask = torch.zeros(40, 1, 32, 32, dtype=torch.uint8)
    mask[1:, :, 4:8, 10:30] = 255
    position = random_foreground(mask, torch.arange(40))
    assert position[0].tolist() == [16, 16]  # no foreground: the middle
    assert ((position[1:] >= torch.tensor([4, 10])) & (position[1:] < torch.tensor([8, 30]))).all()
    assert abs(position[1:, 1].mean() - 20) < 3  # evenly along the street
    assert torch.equal(position[5:6], random_foreground(mask[5:6], torch.tensor([5])))


def test_cases_to_show(monkeypatch):
    monkeypatch.setattr(gallery, "CASES", 16)  # the figures of tests show fewer
    worst, median = gallery.choose_cases(np.arange(100.0)[::-1])
    assert worst.tolist() == list(range(16))
    assert median.tolist() == list(range(57, 41, -1)), "errors about the median, 49.5"
    worst, median = gallery.choose_cases([3.0, 1.0, 2.0])
    assert worst.tolist() == [0, 2, 1] and median.tolist() == [1, 2, 0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["light", "photo"])
def test_a_fit_of_the_reliability_is_used_from_then_on(data, tmp_path, monkeypatch, kind):
    folder = make_run(tmp_path / "run", kind)
    monkeypatch.setattr("engine.evaluation.reliability.LEAST", 12)
    said = run(f"--model_path {folder} {data} --reliability --limit 4 --copies 2")
    path = folder / temperatures.FILE
    assert "fitted on 12 pairs" in said and str(path) in said
    first = path.read_text()
    (fit,) = json.loads(first)["fits"]
    assert (fit["of"], fit["pairs"], fit["tta"]) == ("reliability", 12, 8)
    assert fit["camera"] == KINDS[kind][0].camera
    run(f"--model_path {folder} {data} --reliability --limit 4 --copies 2")
    assert path.read_text() == first, "the same draws give the same fit"
    said = run(f"--model_path {folder} {data} --limit 8 --tta 8")
    context = summary_of(folder / "results")["context"]
    assert context["calibration"] == "for each pair, fitted on 12" and "for each pair" in said
    assert path.read_text() == first, "no temperature was fitted"
    run(f"--model_path {folder} {data} --limit 8 --output_dir {tmp_path / 'one_form'}")
    assert "validation" in summary_of(tmp_path / "one_form")["context"]["calibration"], "it is of eight forms"


def test_flags_of_the_reliability(data, runs, capsys):
    folder, _ = runs("light")
    line = f"--model_path {folder} {data}"
    assert "--copies 3" in refusal(f"{line} --copies 3", capsys)
    assert "--output_dir there" in refusal(f"{line} --reliability --output_dir there", capsys)
    assert "--reliability" in refusal(f"{line} --reliability --redraw", capsys)
    assert "a fit needs" in refusal(f"{line} --reliability --limit 3", capsys)


def test_a_folder_that_another_process_has_just_removed_is_made_again(tmp_path, monkeypatch):
    """Two hosts try one missing folder at once: the first to end removes it before the second has written."""
    folder, write, asked = tmp_path / "two", results.try_writing, []

    def write_late(path, size):
        if not asked:
            path.parent.rmdir()
        asked.append(path)
        write(path, size)

    monkeypatch.setattr(results, "try_writing", write_late)
    results.prepare_folder(folder)
    assert len(asked) == 2 and not folder.exists()
