"""What README and docs/ promise: commands and Python that run, links that work, one list of dependencies."""

import ast
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import yaml
from children import CITY_GPS, PROJECT, call, make_exif, make_network, run_folder, script_module, to_published
from PIL import Image
from rasterio.transform import from_bounds
from torch.distributed.run import get_args_parser as torchrun_parser

from common.geometry import mercator_px
from dataset.mini_vigor.extract import whole_degrees, write_extract
from engine.localizer import Localizer

ROOT = PROJECT
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "runs/pretrained/README.md"]
SOURCES = [
    path
    for path in sorted(ROOT.rglob("*.py"))
    if not {"data", "runs", "tests"} & set(path.relative_to(ROOT).parts[:1])
    and not path.relative_to(ROOT).parts[0].startswith(".")
]
PACKAGE_OF = {  # where the import has another name
    "cv2": "opencv-python-headless",
    "faiss": "faiss-cpu",
    "google_crc32c": "google-crc32c",
    "PIL": "pillow",
    "pillow_heif": "pillow-heif",
    "yaml": "pyyaml",
}

# Commands that no test here runs: they need several GPUs, the internet or other data sets, they install, they
# do not end, or they take long and tests/model/test_export.py and tests/benchmarks/ run them.
ONLY_READ = (
    """
make try
make demo
source .venv/bin/activate
export VIGOR_ROOT=/data/VIGOR
apt-get install chromium
python -m engine.app.examples
python -m docs.page
.venv/bin/python -m pytest -n 0 tests/model
bash benchmarks/gpu.sh <batch size> <loader processes>
srun python train_VIGOR.py --resume runs/VIGOR/<run>
python train_VIGOR.py --network light --backbone timm:vit_small_patch14_dinov2 --freeze_backbone
python train_VIGOR.py --dataset_root data/worlds_27 --cache_root data/worlds_27_512 --use_mask False \
--batch_size 4 --num_workers 0 --init pretrained --camera photo --panorama_size 256 512 --photo_width 96 \
--hfov 50 105 --pitch 6 --roll 2 --tilt_noise 6 --ori_noise 0 --height_factor 1 --heading_error 3 \
--scale_noise 1.06 --epochs 24 --max_steps 119 --val_every 12 --seed 5 --learning_rate 1.2e-3
python -m model.export --model_path runs/VIGOR/<run> --output light.onnx
python app_VIGOR.py
python app_VIGOR.py --model_path runs/VIGOR/<run> --dataset_root /data/VIGOR --cache_root /data/VIGOR_cache
python -m dataset.masks --dataset_root /data/VIGOR --osm il.osm.pbf --cities Chicago --method sam
python -m dataset.mini_vigor --root data/drives --cities Seattle --styles varied --seed 23 \
--panoramas 320 --drives 40
torchrun --nproc_per_node 2 search_VIGOR.py --city Seattle --idx 30
torchrun --nnodes 2 --nproc_per_node 8 --rdzv_backend c10d --rdzv_endpoint node1:29500 \
search_VIGOR.py --queries photos.csv
python search_VIGOR.py --idx 30 --coarse 200
python search_VIGOR.py --idx 30 --only_streets
python track_VIGOR.py --city Seattle --frames drive.csv --near 47.618 -122.318 --radius 300
python track_VIGOR.py --city Seattle --frames photos.csv --hfov 67
python track_VIGOR.py --dataset_root data/drives --evaluate --use odometry compass
python -m dataset.city --root data/Delft --city Delft --panoramas delft.csv \
--imagery 'https://host/{z}/{x}/{y}.jpg' --zoom 19
python train_VIGOR.py --dataset_root /data/KITTI --network light --camera photo --aspect 3:1 --hfov 80 \
--camera_height 1.65 --use_mask False --ori_noise 10
python eval_VIGOR.py --model_path runs/VIGOR/<run> --dataset_root /data/KITTI
python train_VIGOR.py --dataset_root /data/OpenCVL --network light --camera photo --hfov 60 120 \
--use_mask False --ori_noise 180 --area crossarea
python eval_VIGOR.py --model_path runs/VIGOR/<run> --dataset_root /data/OpenCVL --test_cities snow
python -m benchmarks.speed
python -m benchmarks.speed --networks light --sizes 128 --headings 36
python -m benchmarks.parts --dataset_root data/mini_vigor --cache_root data/mini_vigor_128
python -m benchmarks.parts --dataset_root data/mini_vigor --cache_root data/mini_vigor_128 \
--network ground_plane published --seeds 1 --steps 440
python -m benchmarks.real --download
python -m benchmarks.real
python -m benchmarks.real --model_path runs/VIGOR/<run> --each
python -m benchmarks.real --unknown_heading
python -m benchmarks.real --photo 90
python -m benchmarks.real --suspects --table data/pairs.csv
python train_VIGOR.py --dataset_root /data/CVUSA --network light --use_mask False
python eval_VIGOR.py --model_path runs/VIGOR/<run> --dataset_root /data/CVUSA
torchrun --nproc_per_node 8 train_VIGOR.py --network light
torchrun --nproc_per_node 8 train_VIGOR.py --area samearea
torchrun --nproc_per_node 8 train_VIGOR.py --resume runs/VIGOR/<run>
torchrun --nnodes 2 --nproc_per_node 8 --rdzv_backend c10d --rdzv_endpoint node1:29500 \
train_VIGOR.py --area samearea
""".replace("\\\n", "")
    .strip()
    .splitlines()
)
COMMAND = re.compile(
    r"(?:python|torchrun|make|source [\w.]+/\S+|export|pip|apt-get|bash|srun|\.venv/bin/python)"
    r"(?: |$)"
)


def code_blocks(text):
    """The indented blocks of a page, each as one text without the indent."""
    return [
        re.sub(r"^    ", "", block, flags=re.M)
        for block in re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, flags=re.M)
    ]


def commands_of_blocks(text):
    """Every command of a page's blocks."""
    last = None
    for block in code_blocks(text):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            if COMMAND.match(line):
                yield (last := re.sub(r"\s+#.*$", "", line))
            elif line.startswith("--"):  # flags with which the page says that a command goes on
                yield f"{last} {line}"


def examples():
    """Every command of the docstrings of modules, with which the pages of --help end."""
    for path in SOURCES:
        module = ast.parse(path.read_text("utf-8"))
        yield from commands_of_blocks(ast.get_docstring(module, clean=False) or "")


def command_lines():
    """(page, command) of every command of the pages' blocks, and of their text where it has flags."""
    for page in PAGES:
        text = page.read_text("utf-8")
        yield from ((page.name, line) for line in commands_of_blocks(text))
        for line in re.findall(r"`((?:python|torchrun) [^`]+)`", text):
            if "--" in line or page == PAGES[0]:
                yield page.name, re.sub(r"\s*\n\s*", " ", line)


def mentions():
    """Every module that a page's text names as `python -m ...`, without flags."""
    return sorted(
        {name for page in PAGES for name in re.findall(r"`python -m ([\w.]+)`", page.read_text("utf-8"))}
    )


def script_and_words(line):
    """(script or module, its words) of a command; None for one of the shell."""
    words = shlex.split(line)
    for i, word in enumerate(words):
        if word.endswith(".py") or (i and words[i - 1] == "-m" and "torchrun" not in words):
            return word.removesuffix(".py"), words[i + 1 :]
    return None


def tells_paths(line):
    """Whether a command is one of the shell or of pytest whose words name files of the repository."""
    return line.startswith("bash ") or " -m pytest " in line


LINES = list(dict.fromkeys(line for _, line in command_lines()))
ALL_LINES = list(dict.fromkeys([*LINES, *examples()]))
WITH_PATHS = [line for line in ALL_LINES if tells_paths(line)]
# Others of the shell, such as `export` and `pip install`, name nothing that the repository has.
TAKEN = [line for line in ALL_LINES if line not in WITH_PATHS]
TAKEN = [line for line in TAKEN if line.startswith("make ") or script_and_words(line)]


@pytest.mark.parametrize("line", TAKEN)
def test_commands_are_ones_that_the_scripts_take(line):
    words = shlex.split(line)
    if words[0] == "make":
        assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text()
        return
    if words[0] == "torchrun":
        torchrun_parser().parse_args(words[1:])
    script, words = script_and_words(line)
    script_module(script).build_parser().parse_args(words)


@pytest.mark.parametrize("line", WITH_PATHS)
def test_paths_that_commands_of_the_shell_name_exist(line):
    paths = [word for word in line.split()[1:] if "/" in word]
    assert paths and [path for path in paths if not (ROOT / path).exists()] == []


def test_few_commands_are_not_looked_at():
    left = {shlex.split(line)[0].partition("=")[0] for line in {*ALL_LINES} - {*TAKEN, *WITH_PATHS}}
    assert left <= {"source", "export", "pip", "apt-get"}


@pytest.mark.parametrize("name", mentions())
def test_modules_that_the_text_names_are_commands(name):
    script_module(name).build_parser()


def test_every_command_that_no_test_runs_stands_in_the_docs():
    assert set(ONLY_READ) <= set(LINES)


# Flags are made small where a command has them (`SMALL`), and added where it has not (`ADDED`).
SMALL = {
    "--satellite_size": "64",
    "--panorama_size": "64 128",
    "--photo_width": "64",
    "--panorama_width": "256",
    "--batch_size": "4",
    "--epochs": "1",
    "--max_steps": "1",
    "--val_every": "1",
    "--mine_every": "1",
    "--num_workers": "0",
    "--workers": "1",
    "--idx": "0",
    "--img_idx": "0",
    "--worst": "1",
    "--limit": "2",
    "--near": "47.6 -122.3",
}
ADDED = {
    "train_VIGOR": "--batch_size --epochs --max_steps --val_every --num_workers",
    "eval_VIGOR": "--limit --batch_size --num_workers",
    "visualize_loc": "--dpi 20",
    "visualize_attention": "--dpi 20",
    "visualize_semi_positive": "--dpi 20",
    "search_VIGOR": "--dpi 20",
    "dataset.mini_vigor": "--cities Seattle --panoramas 2 --panorama_width --workers",
    "dataset.cache": "--satellite_size --panorama_size --workers",
}
# Flags that make no other kind of command: places, and those that say how much.
ALIKE = "--root --dataset_root --cache_root --runs_root --learning_rate --weight_decay --seed --radius --dpi"
ALIKE = {*ALIKE.split(), "--panoramas", "--matching_radius", "--use_mixstyle", *SMALL}
ALIKE -= {"--idx", "--worst", "--near"}
THIN_NETWORK = "--d_model 16 --num_heads 2 --backbone thin --backbone_weights none"
OWN_CITIES = {"Delft", "holland", "walk"}  # names of folders in data/ that hold cities which are not VIGOR's


def read_flags(words):
    """{flag: [its values]} of a command line; a text 'a b' becomes values of the flags' own."""
    found = {}
    for word in words:
        if re.match(r"-+[A-Za-z]", word):
            found[word] = []
        else:
            found[list(found)[-1]].append(word)
    return found


def shrink(module, words):
    """A command line that does the same with less, as {flag: values}."""
    flags = read_flags([re.sub(r"^/data/", "data/", word) for word in words])
    added = ADDED.get(module, "")
    measures = "--evaluate" in flags or (module == "eval_VIGOR" and "--model_path" in flags)
    of_repository = "pretrained" in words or (module == "search_VIGOR" and "--model_path" not in flags)
    if module == "train_VIGOR" and not {"--init", "--resume"} & {*flags}:
        added += f" --satellite_size --panorama_size {THIN_NETWORK}"
    if module == "train_VIGOR" and "--resume" in flags:
        added = "--epochs 2"
    if module == "eval_VIGOR" and "--compare" in flags:
        added = ""
    if "--reliability" in flags:
        added, measures = "--num_workers 0 --limit --copies 1", False
    if "--suspects" in flags:  # a district needs 8 pairs
        added, measures = "--num_workers 0 --limit 8", False
    if module == "search_VIGOR" and "--evaluate" in flags:
        added += " --limit --city Seattle"
    if measures and of_repository:  # beside whose checkpoints a test leaves nothing
        added += " --calibrate 0"
    elif measures and "--calibrate" not in flags:
        added += " --calibrate 2"
    if module == "search_VIGOR" and of_repository:
        added += " --index_root index --output_dir found"
    more = read_flags(added.split())
    for name, values in flags.items():
        flags[name] = SMALL[name].split() if name in SMALL else more.get(name) or values
    for name, values in more.items():
        flags.setdefault(name, values or SMALL[name].split())
    return flags


def kind_of(module, flags):
    """What commands have in common that differ in numbers and files alone."""
    word = re.compile(r"[A-Za-z_]+").fullmatch
    kind = {(name, value) for name, values in flags.items() for value in ("", *filter(word, values))}
    return module, frozenset(pair for pair in kind if pair[0] not in ALIKE)


def commands_to_run():
    """(module, flags) of those that tests run: none all of whose flags and words stand in another's."""
    kinds = {}
    for line in LINES:
        if line not in ONLY_READ:
            assert script_and_words(line), f"{line}: neither a command of ours nor one of `ONLY_READ`"
            module, words = script_and_words(line)
            flags = shrink(module, words)
            kinds.setdefault(kind_of(module, flags), pytest.param(module, flags, id=line))
    parts = {(module, kind) for module, kind in kinds for m, k in kinds if module == m and kind < k}
    return [param for kind, param in kinds.items() if kind not in parts]


RUN = "runs/VIGOR/<run>"


@pytest.fixture(scope="module")
def world(vigor_root, own_root, tmp_path_factory):
    """A folder with everything that the pages' commands read, by their names. Read only."""
    folder = tmp_path_factory.mktemp("world")
    shutil.copytree(vigor_root, folder / "vigor")
    shutil.copytree(own_root, folder / "own")
    draw = np.random.default_rng(0)

    def image(name, width, height, **options):
        pixels = draw.integers(0, 256, (-(-height // 4), width // 4, 3), np.uint8)
        Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST).save(
            folder / name, **options
        )

    image("street.jpg", 256, 128)
    image("cropped.jpg", 800, 146)
    image("phone.jpg", 160, 120, exif=make_exif(focal=26))
    image("above.png", 640, 640)
    (folder / "walk").mkdir()
    for number in range(4):
        image(f"walk/{number + 1:04}.jpg", 256, 128)
    page = (ROOT / "docs/CITY.md").read_text("utf-8")
    for table in re.findall(r"((?:    file,.*\n)(?:    walk/.*\n)+)", page):
        header, line = table.split()
        name = "walk.csv" if "hfov" in header else "delft.csv"
        if "split" not in header:
            header, line = f"{header},split", f"{line},train"
        rows = [
            line.replace("0001", f"{number:04}").replace("52.0114", f"52.01{number}4")
            for number in range(1, 5)
        ]
        (folder / name).write_text("\n".join([header, *rows]) + "\n")
    box = from_bounds(4.34, 52.00, 4.38, 52.03, 64, 64)
    options = {"driver": "GTiff", "crs": "EPSG:4326", "transform": box, "dtype": "uint8"}
    with rasterio.open(folder / "delft_8cm.tif", "w", height=64, width=64, count=3, **options) as file:
        file.write(draw.integers(0, 256, (3, 64, 64), np.uint8))
    for name, gps in zip(
        ("ny", "wa", "ca", "il", "delft"), [*CITY_GPS.values(), (52.0124, 4.3584)], strict=True
    ):
        street = whole_degrees(np.array([[-4000.0, -4000.0], [4000.0, 4000.0]]) + mercator_px(*gps))
        write_extract(folder / f"{name}.osm.pbf", [({"highway": "residential"}, street)])
    (folder / "vigor/osm").mkdir()
    shutil.copy(folder / "wa.osm.pbf", folder / "vigor/osm/Seattle.osm.pbf")
    small = f"--satellite_size 64 --panorama_size 64 128 --dataset_root {folder}/vigor"
    call("dataset.cache", f"{small} --cache_root {folder}/cache_64 --workers 1")
    train = f"{small} {THIN_NETWORK} --network light --batch_size 4 --num_workers 0 --epochs 1 --max_steps 1"
    train += " --val_every 1"
    for name, more in (("<run>", ""), ("<before>", "--use_mask False")):
        call("train_VIGOR", f"{train} --runs_root {folder}/{name} {more}")
        shutil.copytree(run_folder(folder / name), folder / "runs/VIGOR" / name)
    measured = f"--dataset_root {folder}/vigor --limit 4 --calibrate 0 --num_workers 0"
    call("eval_VIGOR", f"--model_path {folder}/{RUN} {measured}")
    shutil.copytree(folder / RUN, folder / "runs/VIGOR/<another>")
    published = make_network(network="published", backbone="efficientnet_b0")
    (folder / "runs/samearea/pos/27.75").mkdir(parents=True)
    args = {"panorama_size": [64, 128]}
    saved = {"model_state_dict": to_published(published.state_dict()), "args": args}
    torch.save(saved, folder / "runs/samearea/pos/27.75/best.pt")
    return folder


def link(source, target, depth):
    """Folders down to a depth, and links to what is in them: a command can write beside what it reads."""
    if not (depth and source.is_dir()):
        return target.symlink_to(source)
    target.mkdir(parents=True)
    for path in source.iterdir():
        link(path, target / path.name, depth - 1)


@pytest.fixture
def folder(world, tmp_path, monkeypatch):
    """The folder in which a command runs, with files and runs by the pages' names."""
    for path in world.iterdir():
        if path.is_file():
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / "walk").symlink_to(world / "walk")
    link(world / "runs", tmp_path / "runs", 4)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VIGOR_ROOT", str(world / "vigor"))
    monkeypatch.setattr("engine.evaluation.reliability.LEAST", 4)  # pairs of a fit
    return tmp_path


def lay_out(module, flags, world):
    """Make what a command reads of `data/`, and take away what it makes itself."""
    words = [word for values in flags.values() for word in values]
    makes = {"dataset.cache": "--cache_root", "dataset.mini_vigor": "--root", "dataset.city": "--root"}
    makes, places = makes.get(module), ("--dataset_root", "--root")
    roots = {values[0] for name, values in flags.items() if name in places and name != makes}
    roots |= {"data/mini_vigor"} if any(word.startswith("data/mini_vigor/") for word in words) else set()
    for root in roots:
        name = root.removeprefix("data/")
        link(world / ("own" if name in OWN_CITIES else "vigor"), Path(root), 2)
        if module == "dataset.masks" and "--folder" not in flags:
            for masks in Path(root).glob("*/point_prompt_mask"):
                masks.unlink()
    for root in flags.get("--cache_root", []):
        if makes != "--cache_root":
            Path(root).symlink_to(world / "cache_64")
    if module == "eval_VIGOR" and "--compare" not in flags:
        shutil.rmtree(f"{RUN}/results")


@pytest.mark.slow
@pytest.mark.parametrize(("module", "flags"), commands_to_run())
def test_a_command_runs(module, flags, folder, world, capsys):
    lay_out(module, flags, world)
    before = {*folder.rglob("*")}
    call(module, " ".join(word for name, values in flags.items() for word in (name, *values)))
    assert capsys.readouterr().out.strip() or {*folder.rglob("*")} - before


def python_blocks():
    """The Python of the pages' blocks."""
    for page in PAGES:
        for block in code_blocks(page.read_text("utf-8")):
            text = "\n".join(
                line for line in re.sub(r"\\\n\s*", "", block).splitlines() if not COMMAND.match(line)
            )
            try:
                nodes = list(ast.walk(ast.parse(text)))
            except SyntaxError:
                continue
            if any(isinstance(node, (ast.Call, ast.Import)) for node in nodes):
                yield pytest.param(text, id=page.stem)


@pytest.mark.slow
@pytest.mark.parametrize("text", list(python_blocks()))
def test_python_runs(text, folder, world):
    if "light.onnx" in text:
        pytest.skip("tests/model/test_export.py runs it, and compares its numbers")
    text = text.replace("/data/", "data/").replace("cuda", "cpu")
    lay_out("", {"--dataset_root": ["data/VIGOR"]}, world)
    exec(re.sub(r"dataset\[\d+\]", "dataset[0]", text), {"Localizer": Localizer})


def test_links_lead_to_files():
    for page in PAGES:
        text = page.read_text("utf-8")
        named = re.findall(r"\]\(([^)#]+)[^)]*\)", text) + re.findall(
            r"`((?:[\w.]+/)+[\w.]+\.(?:py|md|sh|png|yaml))`", text
        )
        for link in named:
            if not link.startswith("http"):
                assert (page.parent / link).exists() or (ROOT / link).exists(), f"{page.name} names {link}"


def test_one_list_of_dependencies():
    environment = yaml.safe_load((ROOT / "environment.yaml").read_text())
    assert environment["name"] == "crossview"
    assert {"pip": ["-r requirements.txt"]} in environment["dependencies"]
    plain = [word for word in environment["dependencies"] if isinstance(word, str)]
    assert sorted(word.partition("=")[0] for word in plain) == ["pip", "python"]
    groups = re.findall(r"^-r (.*)", (ROOT / "requirements.txt").read_text(), re.M)
    assert sorted(groups) == sorted(f"requirements/{path.name}" for path in ROOT.glob("requirements/*"))
    lines = [line for group in groups for line in (ROOT / group).read_text().splitlines()]
    listed = {re.match(r"[\w-]+", line)[0].lower() for line in lines if not line.startswith("#")}
    ours = {path.stem for path in ROOT.glob("*.py")} | {path.parent.name for path in SOURCES}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in {name.partition(".")[0] for name in names} - ours - set(sys.stdlib_module_names):
                assert PACKAGE_OF.get(name, name) in listed, (
                    f"{path.name} imports {name}, which requirements.txt does not list"
                )


def test_make_takes_another_python_and_another_place(tmp_path):
    def make(*words):
        return subprocess.run(["make", "-C", str(ROOT), *words], capture_output=True, text=True)

    dry = make("-n", "demo", "PYTHON=python3.99", f"VENV={tmp_path}/venv").stdout
    assert (
        "python3.99 -m venv" in dry
        and f"{tmp_path}/venv/bin/python train_VIGOR.py" in dry
        and ".venv/" not in dry
    )
    failed = make("install", "PYTHON=python3.99", f"VENV={tmp_path}/venv")
    assert failed.returncode and "make PYTHON=" in failed.stdout
