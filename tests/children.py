"""What tests share: scripts in processes that a test may kill, small networks, batches, a real label."""

import importlib
import multiprocessing
import os
import resource
import signal
import socket
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from common import flags, geometry
from common.camera import Panorama
from common.view import View
from dataset.mini_vigor.looks import Appearance
from dataset.protocol import Protocol, Source, open_data
from engine.evaluation import gallery, results
from model.build import build_model
from model.checkpoint import save_checkpoint
from model.interface import Inputs
from model.published import HEAD, published_names
from model.settings import network_settings

_started = []
_context = multiprocessing.get_context("forkserver")
_preloaded = "train_VIGOR eval_VIGOR search_VIGOR engine.localizer torch._dynamo torch.utils.tensorboard"
_preloaded += " torch.distributed.run pytest"  # names that are found without the folder of the tests
_context.set_forkserver_preload(_preloaded.split())

PROJECT = Path(__file__).resolve().parent.parent
CITY_GPS = {"NewYork": (40.7, -74.0), "Seattle": (47.6, -122.3)}
CITY_GPS |= {"SanFrancisco": (37.7, -122.4), "Chicago": (41.8, -87.6)}
SMALL_VIEW = View(satellite_size=64, panorama_size=(64, 128), photo_width=64)
REAL_LINE = (  # of the real Chicago list: what every reader of labels has to take
    "KcuqJn_PuuZq3GERzhqG5Q,41.854423,-87.682638,.jpg "
    "satellite_41.8543505796211_-87.68282621216503.png -71.0 -141.0 "
    "satellite_41.8543505796211_-87.68238562277327.png -74.0 188.0 "
    "satellite_41.85467865207374_-87.68282621216503.png 256.0 -138.0 "
    "satellite_41.85467865207374_-87.68238562277327.png 254.0 190.0"
)
SMALL = (  # of training: networks of a few narrow layers, images of few pixels
    "--satellite_size 64 --panorama_size 64 128 --d_model 16 --num_heads 2 --backbone thin "
    "--backbone_weights none --batch_size 2 --num_workers 0 --val_every 1"
)
# Of drawn images, without noise, blur or tint.
_off = dict.fromkeys(("black", "grey", "haze", "blur", "sharpen", "noise"), 0)
PLAIN_LOOK = Appearance(gains=(1, 1, 1), gamma=1, contrast=1, detail=1, grain=1, quality=100, **_off)
figures_are_drawn = False


def spare_figures():
    """Evaluations in this process leave out their figures, which take longer than predicting.

    While `figures_are_drawn`, they draw them coarsely, with two cases.
    """
    results.DPI, gallery.CASES = 20, 2
    draw = results._figures
    results._figures = lambda *given: draw(*given) if figures_are_drawn else {}


def script_module(name):
    """The module of a script, or of a package that is run with -m."""
    module = importlib.import_module(name)
    return importlib.import_module(f"{name}.__main__") if hasattr(module, "__path__") else module


def call(name, line):
    """Run a script in this process, as its command line would."""
    module = script_module(name)
    flags.run_script(module.main, module.build_parser(), line.split())


def draw_a_pair(words, folder):
    """Draw the heat maps of one pair of a list by the words of a command; each script leaves one picture."""
    for script in ("visualize_loc", "visualize_semi_positive"):
        call(script, f"{words} --output_dir {folder / script} --dpi 20")
        assert len(list((folder / script).glob("*.png"))) == 1


def refusal(name, line, capsys):
    """The last line on stderr of a script in this process that has to refuse its arguments with status 2."""
    with pytest.raises(SystemExit) as stop:
        call(name, line)
    assert stop.value.code == 2
    return capsys.readouterr().err.strip().split("\n")[-1]


def start(output, function, *arguments, **environment):
    """A started process that calls a function of a test module; stdout and stderr go to the file `output`."""
    process = _context.Process(target=_run, args=(str(output), function, arguments, environment))
    process.start()
    _started.append(process)
    return process


def end_all():
    """Kill the started processes and what they left behind, such as loader workers of one that was killed."""
    while _started:
        process = _started.pop()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.join()


def start_script(output, name, line, patch=None, **environment):
    """A started process that runs a script as its command line would, after calling `patch`."""
    return start(output, script, name, line, patch, **environment)


def run_script(output, name, line, patch=None, status=0):
    """The output of a script that has to end with `status`; minus a signal's number where that killed it."""
    process = start_script(output, name, line, patch)
    process.join(300)
    said = output.read_text()
    assert process.exitcode == status, f"exit status {process.exitcode}, expected {status}\n{said}"
    return said


def run_group(output, size, function, *arguments):
    """Call a function in `size` processes that find each other as torchrun's do; all have to succeed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    common |= {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    outputs = [output.with_name(f"{output.name}.{rank}") for rank in range(size)]
    group = [start(outputs[rank], function, *arguments, RANK=str(rank), **common) for rank in range(size)]
    for process in group:
        process.join(120)
    said = "\n".join(path.read_text() for path in outputs)
    assert [process.exitcode for process in group] == [0] * size, said
    return said


@contextmanager
def files_end_at(size):
    """No file of this process can grow beyond so many bytes, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def wait_for(condition, process, seconds=60):
    """Wait until `condition()`, while the process lives."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.is_alive() and time.monotonic() < end, f"exit status {process.exitcode}"
        time.sleep(0.01)


def run_folder(runs):
    """The only folder in a folder of runs."""
    (folder,) = runs.iterdir()
    return folder


def _flatten(value, name=""):
    """Every leaf of nested dicts and lists, by path."""
    if isinstance(value, (dict, list, tuple)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {path: leaf for key, part in items for path, leaf in _flatten(part, f"{name}/{key}").items()}
    return {name: value}


def differences(a, b):
    """The leaves in which two checkpoints differ, but for times."""
    a, b = (_flatten(torch.load(path, weights_only=True)) for path in (a, b))
    assert a.keys() == b.keys()
    may_differ = "seconds", "pairs_per_second", "runs_root", "save_every"
    names = [name for name in a if not name.endswith(may_differ)]
    return [n for n in names if not (a[n].equal(b[n]) if torch.is_tensor(a[n]) else a[n] == b[n])]


def _run(output, function, arguments, environment):
    os.setsid()  # a group of its own, so that `end_all` finds its children too
    multiprocessing.set_start_method("fork", force=True)  # as in a process that a shell starts
    file = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    os.environ.update(environment)
    torch.set_num_threads(1)
    spare_figures()
    function(*arguments)


def script(name, line, patch=None):
    """What a started process does to run a script."""
    if patch:
        patch()
    call(name, line)


def make_network(view=SMALL_VIEW, **settings):
    """A network for a `View`, of random weights, in evaluation mode; a light one's head is not all zeros."""
    torch.manual_seed(0)
    small = {"backbone": "thin", "d_model": 16, "num_heads": 2, "n_layer": 1, "block_exp": 2}
    network = build_model(network_settings(view, small, settings)).eval()
    if network.settings.network == "light":
        torch.nn.init.normal_(network.head.convolutions[-2].weight, std=0.1)
    return network


def save_network(folder, network, view=SMALL_VIEW, **more):
    """Write a network's best.pt into a folder, which is given back. more: entries of the checkpoint."""
    content = {"settings": network.settings.plain(), "view": view.plain(), "model": network.state_dict()}
    save_checkpoint(folder / "best.pt", content | more)
    return folder


def to_published(state):
    """Our state dict under the published names, with zeros for the ImageNet head, which our network lacks."""
    names = published_names(state)
    published = {names[name]: value for name, value in state.items()}
    for name, shape in HEAD.items():
        counts = name.endswith("num_batches_tracked")
        published[name] = torch.zeros(shape, dtype=torch.int64 if counts else torch.float32)
    return published


def random_inputs(batch, view=SMALL_VIEW, seed=0, **given):
    """`Inputs` of noise for panoramas."""
    draw, side = np.random.RandomState(seed), view.satellite_size
    query = draw.standard_normal((batch, 3, *view.query_px)).astype(np.float32)
    satellite = draw.standard_normal((batch, 3, side, side)).astype(np.float32)
    mask = (draw.random_sample((batch, 1, side, side)) > 0.5).astype(np.float32)
    query, satellite, mask = map(torch.from_numpy, (query, satellite, mask))
    camera = Panorama(torch.zeros(batch, 1), view.FoV, *view.vertical)
    return Inputs(query, camera, satellite, torch.linspace(1.0, 1.15, batch), mask)._replace(**given)


def draw_batch(seed, B=2):
    """A batch of panoramas with a little structure: of random pixels alone all logits would be alike."""
    draw = torch.Generator().manual_seed(seed)

    def pixels(*shape):
        coarse = torch.rand(B, shape[0], shape[1] // 8, shape[2] // 8, generator=draw)
        return (torch.nn.functional.interpolate(coarse, shape[1:]) * 255).to(torch.uint8)

    batch = {"query": pixels(3, 64, 128), "satellite": pixels(3, 64, 64), "mask": pixels(1, 64, 64)}
    batch |= {"camera": Panorama(torch.zeros(B, 1)), "heading": torch.zeros(B), "index": torch.arange(B)}
    batch["position"] = torch.rand(B, 2, generator=draw) * 64
    return batch | {"metres_per_pixel": torch.full((B,), 1.1)}


def open_pairs(root, area="samearea", split="test", *, view=SMALL_VIEW, cities=None, **options):
    """The dataset of a split, as a command opens it.

    options: cache_root, labels, use_mask, training, and of the view.
    """
    cache_root = options.pop("cache_root", None)
    use_mask, training = (options.pop(name, False) for name in ("use_mask", "training"))
    lists = {"train_cities": cities, "test_cities": cities, "labels": options.pop("labels", "corrected")}
    source = Source(str(root), cache_root and str(cache_root))
    protocol = Protocol(area=area, split=split, **lists)
    return open_data(source, protocol, replace(view, **options), use_mask, training)


def light_at(row, col, size):
    """A black image of a size (width, height) with the light of one pixel, whose centre of mass is there."""
    light = np.zeros(size[::-1])
    (right, left), (down, top) = np.modf(col - 0.5), np.modf(row - 0.5)
    light[int(top) : int(top) + 2, int(left) : int(left) + 2] = np.outer((1 - down, down), (1 - right, right))
    return Image.fromarray(np.rint(255 * light).astype(np.uint8)).convert("RGB")


def centre_of_mass(light):
    """(row, col) of the light in (H, W)."""
    return np.average(np.indices(light.shape) + 0.5, axis=(1, 2), weights=[light] * 2)


def crop_panoramas(root):
    """The middle halves of a folder's panoramas, 45 degrees above and below the horizon, in their place."""
    for path in root.glob("*/panorama/*.jpg"):
        image = Image.open(path).convert("RGB")
        path.unlink()
        image.crop((0, image.height // 4, image.width, image.height // 4 * 3)).save(path)


def make_exif(orientation=None, focal=None, gps=None):
    """EXIF with the orientation's tag, the focal length for 35 mm film, and {tag: value} of GPS."""
    exif = Image.Exif()
    if orientation:
        exif[ExifTags.Base.Orientation] = orientation
    if focal:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = focal
    if gps:
        exif[ExifTags.IFD.GPSInfo] = gps
    return exif


def contents(root):
    """{relative path: bytes} of a folder's files."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def gaussian(row, col, sigma=1.5, size=64):
    """A heat map (size, size) about a position, summing to 1."""
    centres = np.arange(size) + 0.5
    values = np.exp(-((centres[:, None] - row) ** 2 + (centres - col) ** 2) / (2 * sigma**2))
    return values / values.sum()


def bearing_and_distance(from_row, from_col, to_row, to_col):
    """Bearing (degrees, [-180, 180)) and distance (pixels) of one position seen from another."""
    north, east = np.asarray(from_row) - to_row, np.asarray(to_col) - from_col
    return geometry.wrap_degrees(np.degrees(np.arctan2(east, north))), np.hypot(north, east)
