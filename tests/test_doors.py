"""What users say to the command lines, Python and the page: one line, the same reason and value at each."""

import io
import math
import os
import re

import numpy as np
import pytest
import torch
from children import SMALL, make_exif, make_network, refusal, save_network, script_module
from PIL import Image

from common.errors import UserError
from common.flags import read_words
from common.settings import Check
from dataset.given import check_given
from engine.app.forms import FIELDS, on_page, read_form
from engine.localizer import Localizer

SCRIPTS = "train_VIGOR eval_VIGOR search_VIGOR track_VIGOR app_VIGOR visualize_loc visualize_attention "
SCRIPTS += (
    "visualize_semi_positive dataset.city dataset.cache dataset.check dataset.masks dataset.mini_vigor "
)
SCRIPTS += "model.export benchmarks.real benchmarks.speed"
STREET = np.random.default_rng(0).integers(0, 256, (64, 128, 3), np.uint8)
ABOVE = np.random.default_rng(1).integers(0, 256, (128, 128, 3), np.uint8)
PAIR = {"panorama": STREET, "satellite": ABOVE, "metres_per_pixel": 0.5, "heading": 0.0}


@pytest.fixture(autouse=True)
def nothing_is_written(tmp_path_factory, monkeypatch):
    """What every door refuses leaves no file or folder where it was asked."""
    monkeypatch.chdir(folder := tmp_path_factory.mktemp("here"))
    yield
    assert not list(folder.iterdir())


def flags_of(name):
    """(parser, its flags that take values)."""
    parser = script_module(name).build_parser()
    return parser, [action for action in parser._actions if action.option_strings and action.nargs != 0]


def parse(parser, words, capsys):
    """The last line on stderr of a parser that has to refuse words with status 2."""
    with pytest.raises(SystemExit) as stop:
        read_words(parser, words)
    assert stop.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("script", SCRIPTS.split())
def test_no_flag_takes_what_is_no_number_or_without_end(script, capsys):
    """NaN, infinity, text, and numbers below or above all that can be meant, for every number of a script."""
    parser, actions = flags_of(script)
    for action in actions:
        check, flag = action.type, action.option_strings[-1]
        is_number = isinstance(check, Check) and re.match("a number|a whole number|a multiple", check.says)
        for value in ("nan", "inf", "-1e30", "1e30", "x") if is_number else ():
            count = action.nargs if isinstance(action.nargs, int) else 1
            line = parse(parser, [f"{flag}={value}"] if count == 1 else [flag, *[value] * count], capsys)
            assert flag in line and (value in line or value == "-1e30"), line
        assert check not in (int, float), f"{flag} has no bounds"


@pytest.mark.parametrize("script", SCRIPTS.split())
def test_no_flag_takes_an_empty_text(script, capsys):
    """As of a shell's variable that is not set."""
    parser, actions = flags_of(script)
    for action in actions:
        flag = action.option_strings[-1]
        for words in ([flag, ""], [f"{flag}="], [flag, " "]):
            assert flag in (line := parse(parser, words, capsys)) and "''" in line


PAIRS = "--model_path {net} --dataset_root {root}"
OWN = "--panorama {street} --satellite {street} --metres_per_pixel 0.5 --heading 0"
ASKED = {  # commands that work, whose files and folders are then replaced by others
    "train_VIGOR": f"{SMALL} --network light --max_steps 1 --dataset_root {{root}} --runs_root out",
    "eval_VIGOR": f"{PAIRS} --num_workers 0 --limit 2 --output_dir out",
    "search_VIGOR": f"{PAIRS} --city Seattle --idx 0 --output_dir out --index_root index",
    "track_VIGOR": f"{PAIRS} --city Seattle --frames {{table}} --output_dir out --index_root index",
    "app_VIGOR": PAIRS,
    "visualize_loc": f"--model_path {{net}} {OWN} --output_dir out",
    "visualize_attention": f"{PAIRS} --idx 0 --output_dir out",
    "visualize_semi_positive": f"{PAIRS} --idx 0 --output_dir out",
    "dataset.city": "--root out --city Own --panoramas {table} --imagery {street}",
    "dataset.cache": "--dataset_root {root} --cache_root out --workers 1",
    "dataset.check": "--dataset_root {root} --output findings.csv --workers 1",
    "dataset.masks": "--dataset_root {root} --osm {text} --folder other --workers 1",
    "dataset.mini_vigor": "--root out --panoramas 6 --workers 1",
    "model.export": "--model_path {net} --output net.onnx",
    "benchmarks.real": "--root {there} --table {table} --model_path {net}",
    "benchmarks.speed": "--dataset_root {root} --sizes 64 --networks light --repetitions 1",
}
READ = "dataset_root cache_root model_path frames panorama satellite mask panoramas imagery osm table"
WRITTEN = "runs_root output_dir index_root output"
WRONG = {"missing": READ, "text": f"{READ} {WRITTEN}", "long": f"{READ} {WRITTEN}", "empty": READ}
WRONG |= {"loop": f"{READ} {WRITTEN}", "folder": READ.replace("dataset_root", "output")}
WRONG |= {"pipe": f"model_path frames panorama satellite mask panoramas osm imagery table {WRITTEN}"}
NAMES = "city cities train_cities test_cities drive"  # which have no such one
# Flags that others of the command leave no use for, or that name what is made.
UNUSED = {"search_VIGOR": "panorama", "visualize_loc": "dataset_root cache_root train_cities test_cities"}
UNUSED |= {"app_VIGOR": "index_root", "dataset.mini_vigor": "frames panoramas"}
UNUSED |= {"benchmarks.real": "model_path output_dir", "dataset.city": "city"}
UNUSED |= {"dataset.cache": "cache_root", "dataset.check": "output"}


@pytest.fixture(scope="module")
def there(localizer, vigor_root, tmp_path_factory):
    """Files of kinds that may stand in each other's place."""
    folder = tmp_path_factory.mktemp("there")
    places = {name: folder / name for name in "text folder pipe loop empty street table".split()}
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to("loop")
    (folder / "empty").touch()
    (folder / "text").write_text("no such thing\n")
    (folder / "table").write_text(f"file,latitude,longitude,heading\n{folder}/street,47.6,-122.3,0\n")
    Image.fromarray(STREET).save(folder / "street", "PNG")
    places |= {"missing": folder / "no" / "such", "long": folder / ("x" * 300), "there": folder}
    return places | {"root": vigor_root, "net": localizer.checkpoint}


@pytest.mark.parametrize("script", SCRIPTS.split())
def test_files_and_names_that_are_not_what_they_should_be(script, there, capsys):
    """Each in one line that names it, with status 2, before anything is written."""
    parser, line = script_module(script).build_parser(), ASKED[script].format(**there)
    known = {action.option_strings[-1][2:]: action for action in parser._actions if action.option_strings}
    before = sorted(path.name for path in there["there"].rglob("*"))
    for name in UNUSED.get(script, "").split():
        del known[name]
    cases = [(name, there[kind]) for kind, names in WRONG.items() for name in names.split() if name in known]
    cases += [(name, "Atlantis") for name in NAMES.split() if name in known]
    for name, value in cases:
        said = refusal(script, f"{line} --{name} {value}", capsys)
        assert str(value)[-40:] in said and "Traceback" not in said, (name, said)
    assert sorted(path.name for path in there["there"].rglob("*")) == before


def test_lists_of_names_are_sets():
    parser = script_module("search_VIGOR").build_parser()
    words = "--model_path x --evaluate --city Seattle Chicago Seattle --train_cities A A B".split()
    args = read_words(parser, words)
    assert (args.city, args.train_cities) == (["Seattle", "Chicago"], ["A", "B"])


NUMBERS = {  # of one street and one satellite image: values that are refused, as a command line has them
    "heading": ("nan", "inf", "-361", "361", "north", "1e30"),
    "metres_per_pixel": ("nan", "inf", "0", "-1", "1e-9", "1e9", "much"),
    "hfov": ("nan", "inf", "0", "-1", "151", "wide"),
    "pitch": ("nan", "inf", "46", "-46", "up"),
    "roll": ("nan", "inf", "46", "-46", "left"),
    "vertical": ("nan 20", "0 20", "91 20", "-1 20", "up 20"),
    "centre": ("nan 0", "95 200", "inf 0", "north 0"),
}
CASES = [(name, text) for name, texts in NUMBERS.items() for text in texts]
KEYWORDS = {"centre": ("satellite_center", "satellite center"), "hfov": ("hfov", "a photograph's camera")}


def reason(line, value):
    """What follows a value in a message, without quotes and the hint behind."""
    assert value in line and "\n" not in line, line
    return line.replace("'", "").partition(f"{value} is not ")[2].partition(";")[0].strip()


@pytest.mark.parametrize(("name", "text"), CASES)
def test_each_door_gives_the_same_reason_by_its_own_name(name, text, capsys):
    words, (flag, field) = text.split(), KEYWORDS.get(name, (name, name.replace("_", " ")))
    value = next(word for word in words if word not in ("0", "20") or len(words) == 1 or word == words[0])
    parser = script_module("visualize_loc").build_parser()
    shell = parse(parser, ["--panorama", "a.jpg", f"--{flag}", *words], capsys)
    given = [float(word) if re.fullmatch("[-+.e0-9]+|-?nan|-?inf", word) else word for word in words]
    with pytest.raises(UserError) as python:
        Localizer(device="cpu").locate(**PAIR | {name: given if len(given) > 1 else given[0]})
    lines = {f"--{flag}": shell, name: str(python.value)}
    if name in ("pitch", "roll"):
        field, words = "a photograph's camera", ["60", *(["0"] if name == "roll" else []), *words]
    if name != "centre" or value != "95":
        with pytest.raises(UserError) as page:
            read_form(**{"lens" if "camera" in field else name: " ".join(words)})
        lines[field] = str(page.value).lower()
    assert all(called in line for called, line in lines.items()), lines
    number = (
        f"{float(value)}" if isinstance(given[words.index(value) if len(given) > 1 else 0], float) else value
    )
    reasons = {reason(shell, value), reason(str(python.value), number)}
    assert len(reasons) == 1 and reasons != {""}, lines


@pytest.fixture(scope="module")
def localizer(tmp_path_factory):
    """A Localizer with a small network of random weights."""
    small = {"network": "light", "use_mask": False, "heading_bins": 8, "matching_radius": 16.0}
    return Localizer(save_network(tmp_path_factory.mktemp("run"), make_network(**small)), device="cpu")


NAN = math.nan
BAD = [
    ({"metres_per_px": 0.1}, "metres_per_px.*metres_per_pixel"),
    ({"hvof": 60}, "hvof.*hfov"),
    ({"heading": True}, "heading True"),
    ({"heading": [1, 2]}, "heading 1 2"),
    ({"metres_per_pixel": None}, "metres_per_pixel"),
    ({"metres_per_pixel": 0.02}, "2.56 m"),
    ({"centre": "41.85, -87.68"}, "centre '41.85, -87.68'"),
    ({"centre": 41.85}, "centre 41.85"),
    ({"vertical": 38}, "vertical 38"),
    ({"panorama": ""}, "panorama ''"),
    ({"panorama": 5}, "panorama 5"),
    ({"panorama": np.zeros((0, 0, 3), np.uint8)}, "0 x 0 px"),
    ({"panorama": STREET / 255.0}, "panorama.*float64"),
    ({"panorama": torch.from_numpy(STREET) * 2.0}, "panorama.*from 0 to 1"),
    ({"satellite": np.zeros((1, 1), np.uint8)}, "1 x 1 px"),
    ({"panorama": None, "photo": STREET, "hfov": 60, "distortion": [NAN]}, "distortion nan|a photograph"),
]


@pytest.mark.parametrize(("known", "says"), BAD)
def test_what_python_gives_is_refused_in_one_line(localizer, known, says):
    with pytest.raises(UserError, match=says) as error:
        localizer.locate(**PAIR | known)
    assert "\n" not in str(error.value) and "--" not in str(error.value)


@pytest.mark.parametrize(
    "known", [{"distortion": [NAN]}, {"intrinsics": (700, 700, NAN, 5)}, {"distortion": [1e9]}]
)
def test_a_camera_s_numbers_are_finite_and_bounded(known):
    (name, numbers) = next(iter(known.items()))
    with pytest.raises(
        UserError, match=f"--{name} {'nan' if any(map(math.isnan, numbers)) else '1000000000.0'}"
    ):
        check_given(known)


SETTINGS = [("tta", 0), ("tta", True), ("tta", 2.5), ("FoV", NAN), ("FoV", 400), ("ori_noise", -1)]
SETTINGS += [("camera_height", math.inf), ("camera_height", 1e9), ("camera_height", ""), ("checkpoint", "")]
SETTINGS += [("checkpoint", 5), ("device", None), ("device", "gpu"), ("device", "meta")]


@pytest.mark.parametrize(("name", "value"), SETTINGS)
def test_a_localizer_s_own_arguments(localizer, name, value):
    with pytest.raises(UserError, match=f"^{name} {re.escape(str(value) or repr(value))}"):
        Localizer(**{"checkpoint": localizer.checkpoint, "device": "cpu", name: value})


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, NAN, "x", 1e9, True])
def test_batches_that_cannot_be(localizer, batch_size):
    with pytest.raises(UserError, match=f"batch_size {re.escape(repr(batch_size))}"):
        localizer.locate_many([PAIR], batch_size=batch_size)


@pytest.mark.parametrize("pairs", [PAIR, "ab", 5, [STREET], [None]])
def test_pairs_that_are_none(localizer, pairs):
    with pytest.raises(UserError, match="pair"):
        localizer.locate_many(pairs)


def test_a_drive_or_a_place_that_cannot_be(localizer):
    frames = [PAIR | {"centre": (41.85, -87.68)}] * 2
    for how in ((None, []), (frames, None), (frames, [(0, 0, NAN)]), (frames, [(1, 0, 0)], (1, 1, 1))):
        with pytest.raises(UserError, match=r"^(frames|motion)"):
            localizer.locate_sequence(*how)
    found = localizer.locate(**PAIR)
    for given in ((NAN, 0), ("a", 0), (0, 0, NAN), (0, 0, -1)):
        with pytest.raises(UserError, match=r"^(row|metres) "):
            found.probability_near(*given)
    with pytest.raises(UserError, match="too long"):
        Localizer("x" * 300, device="cpu")


def as_file(image):
    image.save(file := io.BytesIO(), "PNG")
    return file


GREY = np.repeat(STREET[..., :1], 3, -1)
WAYS = [
    lambda image: Image.fromarray(image),
    lambda image: as_file(Image.fromarray(image)),
    lambda image: as_file(Image.fromarray(image)).getvalue(),
    lambda image: torch.from_numpy(image),
    lambda image: torch.from_numpy(image).permute(2, 0, 1),
    lambda image: torch.from_numpy(image).permute(2, 0, 1)[None] / 255,
    lambda image: np.asfortranarray(image),
    lambda image: np.dstack([image, image[..., 0]]),
]


def test_what_a_user_of_python_expects_to_work(localizer):
    """Each answers as the array does; pairs may come from a generator, numbers as texts or of NumPy."""
    given = [PAIR | {"panorama": way(STREET), "satellite": way(ABOVE)} for way in WAYS]
    given += [PAIR | {"heading": "0", "metres_per_pixel": np.float32(0.5), "centre": ("41.85", "-87.68")}]
    greys = [GREY[..., 0], GREY[..., :1], Image.fromarray(GREY[..., 0])]
    given += [PAIR | {"panorama": grey} for grey in (GREY, *greys)]
    found = localizer.locate_many(pair for pair in [PAIR, *given])
    first, others, greys = found[0], found[1 : -len(greys) - 1], found[-len(greys) - 1 :]
    assert len(found) == len(given) + 1 and others[-1].latitude == pytest.approx(41.85, abs=0.01)
    for one in others:
        np.testing.assert_allclose(one.estimate.probability, first.estimate.probability, atol=1e-6)
    for one in greys:
        np.testing.assert_allclose(one.estimate.probability, greys[0].estimate.probability, atol=1e-6)
    assert "sha256" in first.network and first.network in first.words()[-1]


STORED = [  # format, its options, EXIF's orientation tag and the transposition that it undoes
    ("PNG", {}, 6, Image.Transpose.ROTATE_90),
    ("TIFF", {"compression": "tiff_lzw"}, 3, Image.Transpose.ROTATE_180),
    ("WEBP", {"lossless": True}, 8, Image.Transpose.ROTATE_270),
    ("JPEG", {"quality": 100, "subsampling": 0}, 2, Image.Transpose.FLIP_LEFT_RIGHT),
]


@pytest.mark.parametrize(("form", "options", "tag", "turn"), STORED)
def test_a_file_of_any_kind_is_answered_as_its_pixels(localizer, tmp_path, form, options, tag, turn):
    """Both images as they are to be shown, within half a pixel, whatever way they are stored."""
    files = {}
    for name in ("panorama", "satellite"):
        files[name] = tmp_path / f"{name}.{form.lower()}"
        Image.fromarray(PAIR[name]).transpose(turn).save(files[name], form, exif=make_exif(tag), **options)
    plain, found = localizer.locate_many([PAIR, PAIR | files])
    assert (found.row, found.col) == pytest.approx((plain.row, plain.col), abs=0.5)
    assert found.probability == pytest.approx(plain.probability, abs=0.01)


def test_an_extent_beyond_what_networks_learned_is_noted(localizer):
    for metres, noted in ((0.5, False), (0.1, True), (3.0, True)):
        found = localizer.locate(**PAIR | {"metres_per_pixel": metres})
        assert any(f"spans {128 * metres:.0f} m" in note for note in found.notes) == noted


def test_messages_on_the_page_name_its_fields_alone():
    line = on_page("a.jpg: no focal length; give --hfov, or leave --model_path out; --heading 9 would help")
    assert "--" not in line and FIELDS["heading"] in line and "model" not in line
    assert "--" not in on_page("no --mask: all counts as foreground")


def test_of_a_photograph_and_of_a_panorama(capsys):
    """A flag that does not apply is named, with what it was given for."""
    line = refusal("visualize_loc", "--photo a.jpg --satellite b.png --FoV 90", capsys)
    assert "--FoV" in line and "--photo" in line
