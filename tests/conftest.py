"""Folders in VIGOR's layout that tests share."""

import os

import numpy as np
import pytest
import torch
from children import CITY_GPS, end_all, spare_figures
from filelock import FileLock
from PIL import Image
from tile_server import TileServer

from common import geometry
from common.parallel import keep_freed_memory
from dataset.mini_vigor import writer

# Tests run side by side, and PyTorch's waiting threads take each other's cores.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # for commands that tests start
keep_freed_memory()

OWN_GPS = {"Leiden": (52.16, 4.49), "Delft": (52.01, 4.36)}
LONGEST = "test_page test_export test_docs test_hosts test_tour test_resume test_distributed test_writers "
LONGEST += "test_doors test_evaluation test_mini_vigor test_searcher test_track test_coarse test_visualize "
LONGEST += "test_worlds test_network test_cities test_speed test_pretrained test_devices test_masks test_timm"


def pytest_collection_modifyitems(items):
    """The longest files first: a worker runs a file of tests whole, so that what they share is made once."""
    rank = {name: number for number, name in enumerate(LONGEST.split())}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


def noise(rng, rows, cols, scale, *channels, most=256):
    """An image of random squares, `scale` px wide."""
    values = rng.integers(0, most, (rows, cols, *channels), np.uint8)
    return values.repeat(scale, 0).repeat(scale, 1)


def write_city(root, city, gps, panoramas, rng):
    """A city of noise at (latitude, longitude): four satellite images, panoramas near the first's middle."""
    centre_row, centre_col = geometry.mercator_px(*gps)
    corners = (0, 0), (0, 320), (320, 0), (320, 320)
    tiles = [geometry.latitude_longitude(centre_row + r, centre_col + c) for r, c in corners]
    names = [f"satellite_{a:.12f}_{b:.12f}.png" for a, b in tiles]
    for folder in ("panorama", "satellite", "point_prompt_mask"):
        (root / city / folder).mkdir(parents=True)
    for name in names:
        image = noise(rng, 20, 20, 32, 3)
        Image.fromarray(image).save(root / city / "satellite" / name, compress_level=1)
        file = root / city / "point_prompt_mask" / name.replace(".png", "_mask.tif")
        Image.fromarray(noise(rng, 20, 20, 32, most=2) * 255).save(file, compression="tiff_lzw")
    lines = []
    for i in range(panoramas):
        offset = rng.uniform(-150, 150, 2)
        gps = geometry.latitude_longitude(centre_row + offset[0], centre_col + offset[1])
        name = f"{city[:4]}{i:018d},{gps[0]:.6f},{gps[1]:.6f},.jpg"
        Image.fromarray(noise(rng, 8, 16, 16, 3)).save(root / city / "panorama" / name, quality=90)
        words = [name]
        for (latitude, longitude), satellite in zip(tiles, names, strict=True):
            row, col = geometry.gps_to_position(*gps, latitude, longitude)
            words += [satellite, f"{row - 320:.2f}", f"{320 - col:.2f}"]
        lines.append(" ".join(words))
    splits = root / "splits__corrected" / city
    splits.mkdir(parents=True)
    parts = {"same_area_balanced_train": lines[::2], "same_area_balanced_test": lines[1::2]}
    (splits / "satellite_list.txt").write_text("\n".join(names) + "\n")
    for name, part in (parts | {"pano_label_balanced": lines}).items():
        (splits / f"{name}__corrected.txt").write_text("\n".join(part) + "\n")


def write_root(root, cities):
    """Cities, {name: (latitude, longitude)}, of 12 panoramas each."""
    rng = np.random.default_rng(0)
    for city, gps in cities.items():
        write_city(root, city, gps, 12, rng)
    return root


@pytest.fixture(autouse=True, scope="session")
def no_figures():
    """Evaluations draw figures where a test asks for `drawn_figures` alone."""
    spare_figures()


@pytest.fixture
def drawn_figures(monkeypatch):
    """Evaluations in this process draw their figures."""
    monkeypatch.setattr("children.figures_are_drawn", True)


@pytest.fixture(autouse=True)
def nothing_outlives_its_test():
    """The processes that a test starts, and their children, end with it."""
    yield
    end_all()


@pytest.fixture(scope="session")
def vigor_root(tmp_path_factory):
    """A small folder in VIGOR's layout: four cities of noise, 12 panoramas each. Copy it to change it."""
    return write_root(tmp_path_factory.mktemp("vigor"), CITY_GPS)


@pytest.fixture
def server():
    """A server of map tiles on this machine."""
    served = TileServer()
    yield served
    served.close()


@pytest.fixture(scope="session")
def seattle(tmp_path_factory):
    """A mini-VIGOR of one small city, drawn once for all of pytest's processes. Read only."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    small = {"panoramas": 8, "panorama_width": 256, "seed": 3, "workers": 1, "progress": False}
    with FileLock(folder / "seattle.lock"):
        return writer.make(folder / "seattle", cities=("Seattle",), **small)


@pytest.fixture(scope="session")
def own_root(tmp_path_factory):
    """The same, of two cities that are not VIGOR's."""
    return write_root(tmp_path_factory.mktemp("own"), OWN_GPS)
