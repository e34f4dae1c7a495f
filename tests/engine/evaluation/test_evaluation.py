"""eval_VIGOR.py from its command line: two networks with random weights, of ours, and a published one."""

import json
import shutil
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from children import call, run_group, script, to_published
from children import refusal as refusal_of
from matplotlib.figure import Figure

from common.files import file_hash
from engine.evaluation import calibration, evaluate, gallery
from model.build import build_model
from model.checkpoint import save_checkpoint
from model.settings import NETWORKS, ModelSettings

pytestmark = pytest.mark.usefixtures("thin")
SMALL = {"satellite_size": 64, "panorama_size": (64, 128), "d_model": 64, "n_layer": 1, "block_exp": 2}
ANY_HEADING = {"ori_noise": 180.0, "heading_bins": 8}
GROUND = {"network": "ground_plane", "matching_channels": 4, **ANY_HEADING}
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


def make_run(folder, seed, settings, **flags):
    torch.manual_seed(seed)
    model = build_model(ModelSettings(**SMALL, **settings))
    folder.mkdir()
    args = {"area": "samearea", "labels": "corrected", "pos_only": True, **flags}
    save_checkpoint(folder / "best.pt", {"settings": model.settings.plain(), "args": args, "model": model.state_dict()})
    return folder


@pytest.fixture(scope="module")
def data(vigor_root):
    return f"--dataset_root {vigor_root} --num_workers 0"


@pytest.fixture(scope="module")
def ground(data, tmp_path_factory):
    """A run for any heading, evaluated: (its folder, what the script printed)."""
    folder = make_run(tmp_path_factory.mktemp("runs") / "ground", 1, GROUND)
    return folder, run(f"--model_path {folder / 'best.pt'} {data}")


@pytest.fixture(scope="module", params=NETWORKS)
def evaluated(request, data, ground, tmp_path_factory):
    """A run of each network, evaluated; those that match on the ground for any heading."""
    if request.param == "ground_plane":
        return ground
    settings = {"network": request.param} | (ANY_HEADING if request.param == "light" else {})
    folder = make_run(tmp_path_factory.mktemp("runs") / request.param, 1, settings)
    return folder, run(f"--model_path {folder / 'best.pt'} {data}")


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory):
    """A run with published matching, not evaluated yet."""
    return make_run(tmp_path_factory.mktemp("runs") / "plain", 2, {})


def test_the_table(evaluated):
    table = rows(evaluated[0] / "results")
    assert len(table) == 24 and list(table["index"]) == list(range(24)) and set(table["kind"]) == {"positive"}
    assert table["city"].tolist() == [city for city in ("NewYork", "Seattle", "SanFrancisco", "Chicago") for _ in range(6)]
    error = np.hypot(table["row_px"] - table["true_row_px"], table["col_px"] - table["true_col_px"])
    np.testing.assert_allclose(table["error_px"], error, rtol=1e-6)
    np.testing.assert_allclose(table["error_thesis_m"], error * 0.1425, rtol=1e-6)
    np.testing.assert_allclose(np.hypot(table["longitudinal_m"], table["lateral_m"]), table["error_m"], rtol=1e-6)
    if "headings within ±180°" in evaluated[1]:
        turned = (table["heading_deg"] - table["true_heading_deg"] - table["heading_error_deg"]) % 360
        np.testing.assert_allclose(np.minimum(turned, 360 - turned), 0, atol=1e-3)
        assert table["heading_error_deg"].abs().max() <= 180 and table["true_heading_deg"].abs().max() > 90
    shares = table[["mass_within_1m", "mass_within_3m", "mass_within_5m", "region_calibrated"]]
    assert ((shares >= 0) & (shares <= 1)).all(axis=None) and (table["mass_within_1m"] < table["mass_within_5m"]).all()
    assert (table["density_at_truth_per_m2"] > 0).all() and (table["seconds"] > 0).all()


def test_metres_on_the_globe(evaluated):
    """The names carry coordinates: the predicted ones lie as far from the panorama's as the error says, on a sphere."""
    table = rows(evaluated[0] / "results")
    gps = table["panorama"].str.split(",", expand=True)[[1, 2]].astype(float).to_numpy().T
    latitude, longitude = np.radians(gps)

    def offset(other_latitude, other_longitude):
        """Metres north and east from the panorama to other coordinates in radians."""
        return 6_378_137 * (other_latitude - latitude), 6_378_137 * np.cos(latitude) * (other_longitude - longitude)

    north, east = offset(*np.radians(table[["latitude", "longitude"]].to_numpy().T))
    heading = np.radians(table["true_heading_deg"])
    np.testing.assert_allclose(table["error_m"], np.hypot(north, east), atol=0.15)  # the names are rounded to 0.1 m
    np.testing.assert_allclose(table["longitudinal_m"], north * np.cos(heading) + east * np.sin(heading), atol=0.15)
    np.testing.assert_allclose(table["lateral_m"], east * np.cos(heading) - north * np.sin(heading), atol=0.15)
    centre = table["satellite"].str.removesuffix(".png").str.split("_", expand=True)[[1, 2]].astype(float)
    np.testing.assert_allclose(table["centre_guess_m"], np.hypot(*offset(*np.radians(centre.to_numpy().T))), atol=0.15)


def expected_statistics(values):
    return {
        "mean": values.mean(),
        "median": values.median(),
        "std": values.std(ddof=0),
        "q25": values.quantile(0.25),
        "q75": values.quantile(0.75),
        "min": values.min(),
        "max": values.max(),
    }


def test_the_summary_is_that_of_the_table(evaluated):
    table, summary = rows(evaluated[0] / "results"), summary_of(evaluated[0] / "results")["summary"]
    angles = [name for name in ("heading_error_deg",) if name in table]
    assert list(summary) == ["all", "NewYork", "Seattle", "SanFrancisco", "Chicago"]
    for name, part in summary.items():
        chosen = table if name == "all" else table[table["city"] == name]
        assert part["pairs"] == len(chosen)
        found = {column: part[column] for column in UNITS}
        found |= {column: part[f"abs_{column}"] for column in ("longitudinal_m", "lateral_m", *angles)}
        for column, statistics in found.items():
            expected = expected_statistics(chosen[column].abs())
            assert {key: statistics[key] for key in expected} == pytest.approx(expected, rel=1e-12), column
        for column in UNITS:
            for of in ("mean", "median"):
                low, high = part[column][f"{of}_95"]
                assert low <= part[column][of] <= high and part[column]["min"] <= low and high <= part[column]["max"]
        for d in (1, 3, 5, 10):
            assert part["recall"][f"{d}_m"] == pytest.approx((chosen["error_m"] <= d).mean())
        for d in (1, 5, 10) if angles else ():
            assert part["abs_heading_error_deg"][f"within_{d}_deg"] == (chosen["heading_error_deg"].abs() <= d).mean()
        covered = part["calibration"]["calibrated"]["coverage"]
        assert covered["0.5"] == (chosen["region_calibrated"] <= 0.5).mean()
        ece = np.mean([abs(covered[f"{p / 10:.1f}"] - p / 10) for p in range(1, 10)])
        assert part["calibration"]["calibrated"]["expected_calibration_error"] == pytest.approx(ece)


def test_all_places_give_the_same_numbers(ground, tmp_path, monkeypatch):
    """CSV, JSON, text, terminal, and the legends of the figures, which are drawn again for that."""
    folder, said = ground
    results = shutil.copytree(folder / "results", tmp_path / "results")
    legends = {}

    def savefig(figure, path, **options):
        legends[path.name] = "\n".join(text.get_text() for legend in figure.legends for text in legend.get_texts())

    monkeypatch.setattr(Figure, "savefig", savefig)
    run(f"--model_path {folder} --redraw --output_dir {results}")
    summary, text = summary_of(results)["summary"], (results / "localization_errors_samearea.txt").read_text()
    for name, part in summary.items():
        errors = part["error_m"]
        assert f"{name}: mean {errors['mean']:.2f} m, median {errors['median']:.2f} m" in legends["CED_samearea.png"]
        block = text.split(f"\n{name}: {part['pairs']} pairs\n")[1].split("\n\n")[0]
        for unit in UNITS:
            numbers = f"mean {part[unit]['mean']:8.3f}  median {part[unit]['median']:8.3f}  std {part[unit]['std']:8.3f}"
            assert numbers in block
        (line,) = [line.split() for line in said.splitlines() if line.split()[:1] == [name]]
        assert line[1:4] == [str(part["pairs"]), f"{errors['mean']:.2f}", f"{errors['median']:.2f}"]
    for unit, name in (("px at 512", "px"), ("m", "m")):
        mean = summary["all"][f"error_{name}"]["mean"]
        assert f"mean {mean:.2f} {unit}\n" in legends[f"Error_Histogram_{name}_samearea.png"]
    for part in summary["all"]["calibration"].values():
        error = f"expected calibration error {100 * part['expected_calibration_error']:.1f} %"
        assert error in legends["calibration_samearea.png"].replace("\n", " ") and error in said and error in text
    ced, table = pd.read_csv(results / "CED_samearea.csv").set_index("error_m"), rows(results)
    for metres in (1.0, 21.35, 25.0):
        assert ced.loc[metres, "all"] == pytest.approx((table["error_m"] <= metres).mean(), abs=1e-6)
    assert ced.columns.tolist() == list(summary) and ced.index[-1] == 25


def test_what_it_says_of_itself(ground):
    folder, said = ground
    context = summary_of(folder / "results")["context"]
    assert said.startswith("samearea test, 24 pairs (positives), headings within ±180°, FoV 360°\n")
    assert (context["ori_noise_deg"], context["area"], context["published"]) == (180, "samearea", False)
    assert context["checkpoint_sha256"] == file_hash(folder / "best.pt")
    (fit,) = json.loads((folder / "calibration.json").read_text())["fits"]
    assert context["temperatures"] == {"calibrated": fit["temperature"], "training": 0.1} and fit["pairs"] == 6
    assert f"heat map at temperature {fit['temperature']:.4g} (fitted on 6 validation pairs" in said
    assert {path.name for path in (folder / "results").iterdir()} == {
        "CED_samearea.csv",
        "CED_samearea.png",
        "Error_Histogram_m_samearea.png",
        "Error_Histogram_px_samearea.png",
        "calibration_samearea.png",
        "gallery_samearea.npz",
        "gallery_samearea.png",
        "localization_errors_samearea.txt",
        "per_image_results_samearea.csv",
        "summary_samearea.json",
    }


def same_tables(one, other):
    """Equal to 1e-4 px and to what that means for the other columns, `seconds` aside."""
    one, other = one.drop(columns="seconds"), other.drop(columns="seconds")
    pixels = [name for name in one if name.endswith("_px")]
    np.testing.assert_allclose(one[pixels], other[pixels], rtol=0, atol=1e-4)
    pd.testing.assert_frame_equal(one, other, rtol=1e-3, atol=1e-4)


def test_batch_sizes_and_repetition(evaluated, data, tmp_path, monkeypatch):
    monkeypatch.setattr("engine.evaluation.results._draw", lambda *arguments: None)
    monkeypatch.setattr(gallery, "collect", lambda *arguments: {})
    monkeypatch.setattr(calibration, "describe_fit", None)  # the stored fit serves
    first = rows(evaluated[0] / "results")
    for size, pairs in ((8, 24), (1, 10)):
        flags = f"--batch_size {size} --limit {pairs} --output_dir {tmp_path / str(size)}"
        run(f"--model_path {evaluated[0]} {data} {flags}")
        same_tables(first[:pairs], rows(tmp_path / str(size)))


def test_two_processes_give_the_same_files(evaluated, data, tmp_path):
    """15 pairs in batches of 2: the processes have seven and eight of them."""
    flags = f"--model_path {evaluated[0]} {data} --batch_size 2 --limit 15 --output_dir {tmp_path / 'results'}"
    said = run_group(tmp_path / "out", 2, script, "eval_VIGOR", flags)
    assert said.count("results are in") == 1 and "15 of 24 pairs" in said
    same_tables(rows(evaluated[0] / "results")[:15], rows(tmp_path / "results"))


def test_other_conditions(ground, data, vigor_root, tmp_path):
    """A narrower view, known headings and heights, semi-positives, the first pairs only; each is said in every report."""
    flags = f"--ori_noise 0 --FoV 90 --camera_height 1.6 --pos_only False --limit 5 --output_dir {tmp_path}"
    said = run(f"--model_path {ground[0]} {data} {flags}")
    table, record = rows(tmp_path), summary_of(tmp_path)
    assert (table["true_heading_deg"] == 0).all() and record["context"]["FoV_deg"] == 90
    lines = (vigor_root / "splits__corrected/NewYork/same_area_balanced_test__corrected.txt").read_text().split("\n")
    offsets = [np.abs(np.array(line.split()[1:]).reshape(4, 3)[:, 1:].astype(float)) for line in lines if line]
    kinds = [i for four in offsets for i in range(4) if (four[i] < 320).all()][:5]
    assert table["kind"].tolist() == [f"semi-positive {i}" if i else "positive" for i in kinds]
    in_list = record["context"]["pairs_in_list"]
    expected = (
        f"samearea test, 5 of {in_list} pairs (positives and semi-positives), headings within ±0°, FoV 90°, cameras 1.6 m high"
    )
    assert said.startswith(expected + "\n") and expected in (tmp_path / "localization_errors_samearea.txt").read_text()
    assert set(record["summary"]) == {"all", "NewYork", *table["kind"]} and in_list > 24
    assert record["summary"]["positive"]["pairs"] == kinds.count(0)
    fits = json.loads((ground[0] / "calibration.json").read_text())["fits"]
    assert [(fit["FoV_deg"], fit["pairs"]) for fit in fits] == [(360, 6), (90, 5)]


def test_the_validation_part_and_no_calibration(plain, data, tmp_path):
    said = run(f"--model_path {plain} {data} --split val --area crossarea --calibrate 0 --output_dir {tmp_path}")
    assert "crossarea val, " in said and "heat map at temperature 0.1 (not calibrated)" in said
    assert (tmp_path / "per_image_results_crossarea_val.csv").exists() and not (plain / "calibration.json").exists()


def test_redrawing_needs_no_network(ground, tmp_path):
    results = shutil.copytree(ground[0] / "results", tmp_path / "results")
    before = {path.name: path.read_bytes() for path in results.iterdir()}
    for path in results.glob("*.png"):
        path.unlink()
    said = run(f"--model_path gone.pt --redraw --output_dir {results}")
    assert said.split("\n")[:8] == ground[1].split("\n")[:8]
    assert {path.name: path.read_bytes() for path in results.iterdir()} == before


def test_an_evaluation_that_called_its_errors_along_and_across(ground, tmp_path):
    """It is drawn again and compared under today's names."""
    results = shutil.copytree(ground[0] / "results", tmp_path / "results")
    csv, record = results / "per_image_results_samearea.csv", summary_of(results)
    csv.write_text(csv.read_text().replace("longitudinal_m,lateral_m", "along_m,across_m", 1))
    record["context"]["csv_sha256"] = file_hash(csv)
    for part in record["summary"].values():
        part["abs_along_m"], part["abs_across_m"] = part.pop("abs_longitudinal_m"), part.pop("abs_lateral_m")
    (results / "summary_samearea.json").write_text(json.dumps(record))
    assert run(f"--model_path gone.pt --redraw --output_dir {results}").split("\n")[:8] == ground[1].split("\n")[:8]
    assert "24 pairs in common" in run(f"--compare {results} {ground[0]} --output_dir {tmp_path}")


def test_redrawing_and_comparing_need_one_whole_evaluation(ground, tmp_path, capsys):
    assert "no summary_*.json; evaluate first" in refusal(f"--model_path x.pt --redraw --output_dir {tmp_path}", capsys)
    results = shutil.copytree(ground[0] / "results", tmp_path / "results")
    csv = results / "per_image_results_samearea.csv"
    csv.write_text(csv.read_text().replace("NewYork", "Newark"))
    assert "is not the file that summary_samearea.json was computed from" in refusal(f"--compare {tmp_path}", capsys)
    (results / "summary_samearea.json").write_text("{}")
    assert "no finished evaluation (KeyError" in refusal(f"--compare {results}", capsys)


def test_comparison(ground, plain, data, tmp_path):
    """The second evaluation has the first 16 pairs: they are matched by name, and the differences are those of the pairs."""
    run(f"--model_path {plain} {data} --limit 16 --batch_size 3")
    said = run(f"--compare {ground[0]} {plain / 'best.pt'} {ground[0]} --output_dir {tmp_path}")
    assert "16 pairs in common, of 24, 16, 24" in said and "not the same ori_noise_deg: 180.0, 0.0, 180.0" in said
    table = pd.read_csv(tmp_path / "comparison_samearea.csv")
    assert table["run"].tolist() == ["ground (1)", "plain", "ground (3)"] and set(table["pairs"]) == {16}
    pairs = rows(ground[0] / "results").merge(rows(plain / "results"), on=["panorama", "satellite"])
    np.testing.assert_allclose(table["mean_m"][:2], [pairs["error_m_x"].mean(), pairs["error_m_y"].mean()])
    difference = pairs["error_m_y"] - pairs["error_m_x"]
    assert table["mean_difference_m"][1] == pytest.approx(difference.mean())
    spread = 1.96 * difference.std(ddof=0) / 4
    assert table["mean_difference_high_m"][1] == pytest.approx(difference.mean() + spread, abs=0.2 * spread)
    assert table["mean_difference_low_m"][1] == pytest.approx(difference.mean() - spread, abs=0.2 * spread)
    assert (table.filter(like="difference").iloc[2] == 0).all()
    assert (tmp_path / "comparison_samearea.png").exists() and (tmp_path / "comparison_samearea.txt").read_text() in said


@pytest.mark.parametrize("with_args", [True, False])
def test_a_published_run_folder(with_args, data, tmp_path):
    torch.manual_seed(3)
    model = build_model(ModelSettings(**{**SMALL, "n_layer": 2}))
    torch.save({"epoch": 41, "model_state_dict": to_published(model.state_dict()), "args": {}}, tmp_path / "best.pt")
    if with_args:
        args = {"area": "crossarea", "pos_only": "False", "training": "True", "ori_noise": 180, "panorama_size": [64, 128]}
        (tmp_path / "args.yaml").write_text(yaml.safe_dump(args))
    said = run(f"--model_path {tmp_path} {data} --limit 2")
    area = "crossarea" if with_args else "samearea"
    context = summary_of(tmp_path / "results", area)["context"]
    assert context["published"] and context["ori_noise_deg"] == 0 and context["pos_only"]
    assert list(context["temperatures"]) == ["calibrated", "training", "published"]
    assert "heat map at temperature 0.1 (as trained)" in said
    assert "heat map at temperature 1 (as the published code shows its map)" in said
    table = rows(tmp_path / "results", area)
    assert (table["true_heading_deg"] == 0).all() and "heading_deg" not in table
    assert len({*table["region_calibrated"], *table["region_training"], *table["region_published"]}) > 2


def test_a_stop_leaves_nothing_that_looks_finished(ground, data, tmp_path, monkeypatch, capsys):
    """While predicting, and while writing over an older evaluation, which then stays as it was."""
    results = shutil.copytree(ground[0] / "results", tmp_path / "results")
    before = {path.name: path.read_bytes() for path in results.iterdir()}

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="130"):
        patch.setattr(evaluate, "make_table", stop)
        run(f"--model_path {ground[0]} {data} --limit 2 --output_dir {tmp_path / 'new'}")
    assert list((tmp_path / "new").iterdir()) == []
    assert capsys.readouterr().err.endswith(": stopped\n")

    def full_disk(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("engine.evaluation.curves.gallery_figure", full_disk)
    error = refusal(f"--model_path {ground[0]} {data} --output_dir {results}", capsys)
    assert f"{results}: cannot be written (No space left on device); --output_dir chooses another place" in error
    assert {path.name: path.read_bytes() for path in results.iterdir()} == before


def test_another_evaluation_is_not_written_over(ground, data, tmp_path, capsys):
    """A whole one stays, whatever is asked of the same network next; one that --limit cut short makes room for it."""
    results = shutil.copytree(ground[0] / "results", tmp_path / "results")
    before = (results / "summary_samearea.json").read_bytes()
    common = f"--model_path {ground[0]} {data} --output_dir {results}"
    for flags in ("--limit 2", "--ori_noise 20", "--FoV 90", "--pos_only False"):
        assert "is of samearea test, 24 pairs (positives), headings within ±180°" in refusal(f"{common} {flags}", capsys)
    assert (results / "summary_samearea.json").read_bytes() == before
    other = results / "summary_samearea_val.json"  # of another folder, as where --dataset_root was forgotten
    record = summary_of(results)
    record["context"] |= {"split": "val", "pairs": 99, "pairs_in_list": 99}
    other.write_text(json.dumps(record))
    assert f"{other} is of samearea val, 99 pairs" in refusal(f"{common} --split val", capsys)
    other.unlink()
    run(f"{common} --split val --limit 2")
    run(f"{common} --split val --limit 3 --ori_noise 20")
    assert summary_of(results)["context"]["pairs"] == 24 and len(rows(results, "samearea_val")) == 3


def test_what_cannot_be_evaluated(ground, vigor_root, data, tmp_path, capsys):
    best = ground[0] / "best.pt"
    (tmp_path / "cut.pt").write_bytes(best.read_bytes()[:100_000])
    torch.save({"weights": torch.ones(3)}, tmp_path / "foreign.pt")
    (tmp_path / "file").write_text("no folder")
    empty = tmp_path / "empty"
    shutil.copytree(vigor_root / "splits__corrected", empty / "splits__corrected")
    for path in empty.rglob("*_test_*"):
        path.write_text("")
    nothing = f"{empty / 'splits__corrected'}: the lists for samearea test name no panorama"
    for flags, message in (
        (f"--model_path {tmp_path / 'cut.pt'} {data}", "cut.pt: no readable checkpoint"),
        (f"--model_path {tmp_path / 'foreign.pt'} {data}", "foreign.pt holds a dict with weights: neither a checkpoint of this"),
        (f"--model_path {tmp_path} {data}", "best.pt: no such checkpoint"),
        (f"--model_path {best} --dataset_root {empty}", nothing),
        (f"--model_path {best} {data} --output_dir {tmp_path / 'file'}", "file: cannot be made (File exists); --output_dir"),
        (f"--model_path {best} {data} --output_dir /proc/results", "/proc/results: cannot be made"),
        (f"--model_path {best} {data} --split val --orientation_file x.npy", "cannot serve for val"),
    ):
        assert message in refusal(flags, capsys), flags


def test_a_network_whose_numbers_broke(data, tmp_path, capsys):
    run = make_run(tmp_path / "broken", 4, {})
    saved = torch.load(run / "best.pt", weights_only=True)
    saved["model"]["decoder.head.0.weight"][:] = torch.nan
    torch.save(saved, run / "best.pt")
    assert "not finite on the validation pairs" in refusal(f"--model_path {run} {data} --limit 2", capsys)
    message = "pair 0: the prediction is not a finite number"
    assert message in refusal(f"--model_path {run} {data} --limit 2 --calibrate 0", capsys)
    assert list((run / "results").iterdir()) == [] and not (run / "calibration.json").exists()
