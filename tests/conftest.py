"""Folders in VIGOR's layout that tests share."""

import os

import numpy as np
import pytest
import torch
from children import end_all, small_figures
from PIL import Image

from common import geometry
from common.parallel import keep_freed_memory

# Tests run side by side, and PyTorch's waiting threads take each other's cores.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # for commands that tests start
keep_freed_memory()

# Of the real Chicago list: what every reader of labels has to take.
REAL_LINE = (
    "KcuqJn_PuuZq3GERzhqG5Q,41.854423,-87.682638,.jpg "
    "satellite_41.8543505796211_-87.68282621216503.png -71.0 -141.0 "
    "satellite_41.8543505796211_-87.68238562277327.png -74.0 188.0 "
    "satellite_41.85467865207374_-87.68282621216503.png 256.0 -138.0 "
    "satellite_41.85467865207374_-87.68238562277327.png 254.0 190.0"
)
CITY_GPS = {
    "NewYork": (40.7, -74.0),
    "Seattle": (47.6, -122.3),
    "SanFrancisco": (37.7, -122.4),
    "Chicago": (41.8, -87.6),
}
OWN_GPS = {"Leiden": (52.16, 4.49), "Delft": (52.01, 4.36)}


# A worker runs a file of tests whole, so that what its tests share is made once. The longest files start
# first.
LONGEST = (
    "test_page",
    "test_export",
    "test_resume",
    "test_evaluation",
    "test_docs",
    "test_distributed",
    "test_mini_vigor",
)
LONGEST += (
    "test_searcher",
    "test_visualize",
    "test_network",
    "test_cities",
    "test_speed",
    "test_pretrained",
    "test_masks",
)


def pytest_collection_modifyitems(items):
    """The longest first."""
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


def write_city(root, city, gps, panoramas, rng):
    """A city of noise images at (latitude, longitude): four satellite images, panoramas in the middle of the
    first.
    """
    centre_row, centre_col = geometry.mercator_px(*gps)
    tiles = [
        geometry.latitude_longitude(centre_row + r, centre_col + c)
        for r, c in ((0, 0), (0, 320), (320, 0), (320, 320))
    ]
    names = [f"satellite_{a:.12f}_{b:.12f}.png" for a, b in tiles]
    for folder in ("panorama", "satellite", "point_prompt_mask"):
        (root / city / folder).mkdir(parents=True)
    for name in names:
        image = np.kron(rng.integers(0, 256, (20, 20, 3), np.uint8), np.ones((32, 32, 1), np.uint8))
        Image.fromarray(image).save(root / city / "satellite" / name, compress_level=1)
        mask = np.kron(rng.integers(0, 2, (20, 20), np.uint8) * 255, np.ones((32, 32), np.uint8))
        file = root / city / "point_prompt_mask" / name.replace(".png", "_mask.tif")
        Image.fromarray(mask).save(file, compression="tiff_lzw")
    lines = []
    for i in range(panoramas):
        offset = rng.uniform(-150, 150, 2)
        gps = geometry.latitude_longitude(centre_row + offset[0], centre_col + offset[1])
        name = f"{city[:4]}{i:018d},{gps[0]:.6f},{gps[1]:.6f},.jpg"
        image = np.kron(rng.integers(0, 256, (8, 16, 3), np.uint8), np.ones((16, 16, 1), np.uint8))
        Image.fromarray(image).save(root / city / "panorama" / name, quality=90)
        words = [name]
        for (latitude, longitude), satellite in zip(tiles, names, strict=True):
            row, col = geometry.gps_to_position(*gps, latitude, longitude)
            words += [satellite, f"{row - 320:.2f}", f"{320 - col:.2f}"]
        lines.append(" ".join(words))
    splits = root / "splits__corrected" / city
    splits.mkdir(parents=True)
    (splits / "satellite_list.txt").write_text("\n".join(names) + "\n")
    (splits / "same_area_balanced_train__corrected.txt").write_text("\n".join(lines[::2]) + "\n")
    (splits / "same_area_balanced_test__corrected.txt").write_text("\n".join(lines[1::2]) + "\n")
    (splits / "pano_label_balanced__corrected.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture(autouse=True, scope="session")
def coarse_figures():
    """Figures of evaluations in this process are coarse."""
    small_figures()


@pytest.fixture(autouse=True)
def nothing_outlives_its_test():
    """The processes that a test starts, and their children, end with it."""
    yield
    end_all()


@pytest.fixture(scope="session")
def vigor_root(tmp_path_factory):
    """A small folder in VIGOR's layout: four cities of noise, 12 panoramas each. Copy it to change it."""
    return write_root(tmp_path_factory.mktemp("vigor"), CITY_GPS)


@pytest.fixture(scope="session")
def own_root(tmp_path_factory):
    """The same, of two cities that are not VIGOR's."""
    return write_root(tmp_path_factory.mktemp("own"), OWN_GPS)


def write_root(root, cities):
    """Cities, {name: (latitude, longitude)}, of 12 panoramas each."""
    rng = np.random.default_rng(0)
    for city, gps in cities.items():
        write_city(root, city, gps, 12, rng)
    return root
