"""Scores of a city's cells: inside one image, across blocks, within circles, by headings; the best cells."""

import math

import numpy as np
import pytest
import torch
from children import make_network
from worlds import CORNER, make_tiles

from common.camera import Panorama
from common.geometry import wrap_degrees
from common.view import View
from efficientnet_pytorch.utils import normalise
from engine.search import query
from engine.search.grid import CellGrid
from engine.search.index import open_index
from engine.search.query import Scored, Templates, best_cells, log_mass, make_templates, nms, restrict, scan
from model.interface import Inputs
from model.matching.correlation import correlate

VIEW = View(satellite_size=128, panorama_size=(128, 256))


class Pictures:
    """Images of noise, 128 px on a side."""

    satellite_size = 128

    def read(self, image):
        rng = np.random.default_rng(int(image.path))
        return np.kron(rng.integers(0, 256, (32, 32, 3), np.uint8), np.ones((4, 4, 1), np.uint8))


KNOWN = {"known heading": (0.0, 1.0), "any heading": (180.0, 1.0), "any height": (0.0, 1.6)}


@pytest.fixture(scope="module", params=KNOWN.values(), ids=KNOWN)
def world(request, tmp_path_factory):
    """(network, index of two images, the first one's prediction for a panorama, its templates)."""
    ori_noise, height_factor = request.param
    settings = {"use_mask": False, "use_mixstyle": False, "heading_bins": 6, "height_factor": height_factor}
    network = make_network(VIEW, network="light", **settings)
    for number in network.matching.radial_weight.values():
        torch.nn.init.normal_(number)
    tiles = make_tiles([(0, 0), (0, 640)])
    tiles.images = Pictures()
    index = open_index(tmp_path_factory.mktemp("index"), network, "abc", "Chicago", tiles, "cpu")
    query = normalise(torch.randint(0, 256, (1, 3, 128, 256), dtype=torch.uint8))
    satellite = torch.from_numpy(tiles.load(0))[None].permute(0, 3, 1, 2)
    metres = torch.tensor([index.grid.metres_per_pixel], dtype=torch.float32)
    camera = Panorama(torch.full((1, 1), 30.0))
    with torch.no_grad():
        inputs = Inputs(query, camera, normalise(satellite), metres, heading_noise=ori_noise)
        result = network(inputs)
    templates = make_templates(network, query, camera, index.grid, network.hypotheses(ori_noise))
    return network, index, result, templates


def whole(index, blocks):
    """The scores of a city as one array, cell (0, 0) first."""
    assert index.bounds == (0, 0, 32, 64)
    scores, headings = torch.full((2, 32, 64), -torch.inf)
    for block in blocks:
        height, width = block.score.shape
        window = slice(block.row, block.row + height), slice(block.col, block.col + width)
        scores[window], headings[window] = block.score, block.heading
    return scores, headings


def test_scores_are_those_inside_one_image(world):
    """Wherever a template does not leave the image; the other image lies to the east."""
    network, index, result, templates = world
    half = templates.kernel.shape[-1] // 2
    scores, headings = whole(index, scan(index, templates))
    assert torch.isfinite(scores).all()
    inside = slice(half, 32 - half), slice(half, 32 - half)
    expected = result.maps[4][0, 0][inside]
    assert expected.std() > 0.005, "the case says something"
    found = scores[inside] * network.settings.temperature  # in the units of the network's map
    torch.testing.assert_close(found, expected, rtol=0, atol=3e-5)  # the index's features are float16
    same = correlate(index.read(0, 0, 32, 32)[0][None], templates.kernel[None])[0]
    likely = same.logsumexp(0) - math.log(len(same))
    torch.testing.assert_close(scores[inside], likely[inside], rtol=0, atol=3e-5)
    if result.heading_scores is not None:
        best = wrap_degrees(result.headings[same.argmax(0)] + 30)
        assert (headings[inside] == best[inside]).float().mean() > 0.99


@pytest.mark.parametrize("block", [16, 30, 40])
def test_blocks_give_what_one_large_one_gives(world, monkeypatch, block):
    _, index, _, templates = world
    once, headings = whole(index, scan(index, templates))
    monkeypatch.setattr(query, "BLOCK", block)
    blocks = list(scan(index, templates))
    assert len(blocks) >= 2
    scores, again = whole(index, blocks)
    torch.testing.assert_close(scores, once, rtol=0, atol=2e-5)
    assert (again == headings)[torch.isfinite(once)].float().mean() > 0.99
    few = [(cell.row, cell.col) for cell in best_cells(blocks, 5, 3.0)]
    assert few == [(cell.row, cell.col) for cell in best_cells([Scored(0, 0, once, headings)], 5, 3.0)]


def test_nothing_outside_a_circle_is_scored(world):
    _, index, _, templates = world
    everywhere, _ = whole(index, scan(index, templates))
    scores, _ = whole(index, scan(index, templates, (10.0, 40.0, 6.0)))
    rows, cols = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    near = (torch.hypot(rows - 10, cols - 40) <= 6)[:32]
    torch.testing.assert_close(scores[near], everywhere[near], rtol=0, atol=2e-5)
    assert not torch.isfinite(scores[~near]).any()
    assert not list(scan(index, templates, (500.0, 500.0, 20.0)))


class Planted:
    """An index in which a single position looks like a kernel."""

    def __init__(self, kernel, row, col, side):
        self.grid = CellGrid(4, 128, tuple(CORNER), 41.85)
        self.bounds, half = (0, 0, side, side), kernel.shape[-1] // 2
        noise = torch.Generator().manual_seed(0)
        self.features = 0.01 * torch.randn(len(kernel), side + 200, side + 200, generator=noise)
        self.features[:, 100 + row - half : 101 + row + half, 100 + col - half : 101 + col + half] += kernel
        self.covered = torch.ones(self.features.shape[1:], dtype=torch.bool)

    def read(self, row, col, height, width):
        window = slice(100 + row, 100 + row + height), slice(100 + col, 100 + col + width)
        return self.features[(slice(None), *window)], self.covered[window]

    def windows(self, corners, side):
        features, covered = zip(*[self.read(row, col, side, side) for row, col in corners], strict=True)
        return torch.stack(features).permute(0, 2, 3, 1), torch.stack(covered)


def draw_kernel(headings):
    """A template that differs on each side, for a camera with each of the headings."""
    steps = torch.arange(-10, 11)
    bearing = torch.rad2deg(torch.atan2(steps[None, :].float(), -steps[:, None].float()))
    seen = torch.deg2rad(wrap_degrees(bearing - headings[:, None, None]))  # relative to the camera's centre
    near = torch.exp(-(steps[:, None] ** 2 + steps**2) / 40)
    return torch.stack([near * torch.cos(seen), near * torch.sin(seen), near * torch.cos(2 * seen)])


@pytest.mark.parametrize("place", [(255, 300), (246, 245), (256, 256), (500, 7), (0, 511)])
def test_a_place_and_its_heading_are_found_also_on_borders(place):
    headings = torch.arange(12) * 30.0 - 180
    templates = Templates(draw_kernel(headings), headings, torch.zeros(len(headings)))
    index = Planted(templates.kernel[:, 8], *place, 512)  # 60 degrees
    blocks = list(scan(index, templates))
    assert len(blocks) > 1
    best, second = best_cells(blocks, 2, 3.0)
    assert (best.row, best.col) == (place[0] + 0.5, place[1] + 0.5) and best.heading == 60
    assert math.hypot(best.row - second.row, best.col - second.col) > 3 and best.score > second.score


def test_blocks_that_no_image_covers_are_left_out():
    templates = Templates(draw_kernel(torch.zeros(1)), torch.zeros(1), torch.zeros(1))
    index = Planted(templates.kernel[:, 0], 10, 300, 512)
    index.covered[:, : 100 + 290] = False
    blocks = list(scan(index, templates))
    assert [(block.row, block.col) for block in blocks] == [(0, 256), (256, 256)]
    assert all((torch.isfinite(block.score) == (torch.arange(256) >= 34)).all() for block in blocks)


def test_nms_keeps_the_better_of_two_neighbours():
    numbers = [5.0, 5.5, 9.0, 4.2, 1.0]
    for most, kept in ((None, [5.0, 9.0, 1.0]), (2, [5.0, 9.0]), (0, [])):
        assert nms(numbers, lambda one, other: abs(one - other) < 1, most) == kept


def test_the_mass_of_cells_and_of_circles():
    score = torch.full((20, 20), -torch.inf)
    score[3, 4], score[15, 15] = math.log(3), 0.0
    block = Scored(100, 200, score, torch.zeros(20, 20))
    assert math.exp(log_mass([block, block], 1.0)) == pytest.approx(8)
    assert math.exp(log_mass([block], 0.5)) == pytest.approx(10)
    near = restrict(block, [(103.5, 204.5)], 2)
    assert math.exp(log_mass([near], 1.0)) == pytest.approx(3)
    assert log_mass([restrict(block, [(0, 0)], 2)], 1.0) == -math.inf and log_mass([], 1.0) == -math.inf
