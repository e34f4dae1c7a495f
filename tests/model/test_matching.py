"""Ground-plane matching: where templates put what the panorama sees, and what correlating them means."""

import math

import pytest
import torch

from common import geometry
from common.camera import Equirectangular
from model.matching import WAYS
from model.matching.correlation import correlate, correlate_by_products
from model.matching.ground_plane import (
    STRIDES,
    GroundPlaneMatching,
    heading_hypotheses,
    height_hypotheses,
    sample_view,
    template_cells,
)
from model.settings import ModelSettings

CHANNELS = {32: 5, 16: 4, 8: 3, 4: 6, 2: 2}


@pytest.mark.parametrize("latitude", [0.0, 40.7, 47.6])
@pytest.mark.parametrize(("bearing", "distance"), [(0, 6.0), (90, 8.0), (-135, 11.0), (179.0, 5.0), (30, 9.0)])
def test_a_mark_in_the_panorama_lands_in_its_cell(latitude, bearing, distance):
    height, width, camera_height = 256, 512, 2.5
    row = geometry.elevation_to_row(-math.degrees(math.atan2(camera_height, distance)), height)
    col = geometry.bearing_to_column(bearing, width)
    rows, cols = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    apart = torch.minimum((cols - col).abs(), width - (cols - col).abs())  # across the seam as well
    feature = torch.exp(-((rows - row)[:, None] ** 2 / 2 + apart[None] ** 2 / 8))[None, None]
    metres_per_cell = torch.tensor([geometry.metres_per_pixel(latitude) * 4])
    cell_distance, cell_bearing, depression = template_cells(metres_per_cell, 30, camera_height)
    x, y, _ = Equirectangular().project(cell_bearing[:, None], depression[:, None])
    template = sample_view(feature, x, y, wraps=True)[0, 0, 0]
    weight = template / template.sum()
    steps = torch.arange(-30, 31) * metres_per_cell
    north, east = -(weight.sum(1) * steps).sum(), (weight.sum(0) * steps).sum()
    assert north.item() == pytest.approx(distance * math.cos(math.radians(bearing)), abs=0.15)
    assert east.item() == pytest.approx(distance * math.sin(math.radians(bearing)), abs=0.15)
    assert cell_distance[0, 30, 33].item() == pytest.approx(3 * metres_per_cell.item())


def _slow_correlation(satellite, template):
    B, _, H, W = satellite.shape
    n = template.shape[-1]
    result = torch.zeros(B, template.shape[2], H, W)
    for row in range(H):
        for col in range(W):
            for i in range(n):
                for j in range(n):
                    r, c = row + i - n // 2, col + j - n // 2
                    if 0 <= r < H and 0 <= c < W:
                        result[:, :, row, col] += torch.einsum("bc,bck->bk", satellite[:, :, r, c], template[..., i, j])
    return result


@pytest.mark.parametrize(("K", "n"), [(1, 3), (1, 9), (3, 5)])
def test_correlation_is_a_slow_loop(K, n):
    torch.manual_seed(0)
    satellite, template = torch.randn(2, 3, 7, 9), torch.randn(2, 3, K, n, n)
    assert torch.allclose(correlate(satellite, template), _slow_correlation(satellite, template), atol=1e-4)


def test_both_ways_of_correlating_agree():
    torch.manual_seed(0)
    satellite, template = torch.randn(2, 4, 32, 32), torch.randn(2, 4, 36, 21, 21)
    few = torch.cat([correlate(satellite, template[:, :, k : k + 1]) for k in range(36)], 1)  # by FFT
    assert torch.allclose(correlate(satellite, template), few, atol=2e-3)


@pytest.mark.parametrize(("K", "n", "H", "W"), [(1, 3, 7, 9), (1, 9, 20, 26), (3, 5, 7, 9), (2, 21, 16, 33)])
def test_correlation_by_products(K, n, H, W):
    """In a form that ONNX has; and what the gradients of the one by FFT, which are written by hand, have to be."""
    torch.manual_seed(0)
    satellite, template = torch.randn(2, 3, H, W, requires_grad=True), torch.randn(2, 3, K, n, n, requires_grad=True)
    found, expected = correlate(satellite, template), correlate_by_products(satellite, template)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    weight = torch.randn(2, K, H, W)
    for one, other in zip(
        *(torch.autograd.grad((x * weight).sum(), (satellite, template)) for x in (found, expected)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-4)


def _matching(**options):
    torch.manual_seed(0)
    sizes = {"satellite_size": 128, "panorama_size": (128, 256), "matching_channels": 8}
    settings = ModelSettings(**sizes, **options)
    return GroundPlaneMatching(CHANNELS, {}, settings).eval()


def _features(size=128):
    panorama = {s: torch.randn(2, CHANNELS[s], size // s, 2 * size // s) for s in STRIDES}
    return panorama, {s: torch.randn(2, CHANNELS[s], size // s, size // s) for s in STRIDES}


def test_mirroring_a_pair_mirrors_its_maps():
    matching = _matching()
    matching.shift = 0  # of features against their pixels: the backbone's padding is not symmetric, these features are
    panorama, satellite = _features()
    metres_per_pixel = torch.tensor([0.56, 0.5])
    maps = matching(panorama, satellite, metres_per_pixel).maps
    flipped = [{stride: x.flip(-1) for stride, x in features.items()} for features in (panorama, satellite)]
    mirrored = matching(*flipped, metres_per_pixel).maps
    for stride in maps:
        assert torch.allclose(mirrored[stride], maps[stride].flip(-1), atol=1e-4)


def test_turning_the_panorama_by_a_bin_moves_the_scores_to_the_next_bin():
    matching = _matching(ori_noise=180.0, heading_bins=64)  # bins of one column at stride 4
    panorama, satellite = _features()
    metres_per_pixel = torch.tensor([0.56, 0.5])
    scores = matching(panorama, satellite, metres_per_pixel).heading_scores
    # The centre looks one column further clockwise: contents move one column to the left, the heading grows by a bin.
    panorama[4] = panorama[4].roll(-1, -1)
    turned = matching(panorama, satellite, metres_per_pixel).heading_scores
    assert torch.allclose(turned.roll(-1, 1), scores, atol=1e-3)
    assert not torch.allclose(turned, scores, atol=1e-1)


def test_cells_outside_the_view_take_no_part():
    matching = _matching(FoV=180)
    panorama, satellite = _features()
    view = {s: x[..., x.shape[-1] // 4 : 3 * x.shape[-1] // 4] for s, x in panorama.items()}
    maps = matching(view, satellite, torch.tensor([0.56, 0.5])).maps
    south = {stride: x.clone() for stride, x in satellite.items()}
    matching.shift = 0
    before = matching(view, satellite, torch.tensor([0.56, 0.5])).maps[4]
    south[4][..., 20:, :] = 7.0  # all that lies south of row 19 is behind the camera there
    after = matching(view, south, torch.tensor([0.56, 0.5])).maps[4]
    assert torch.allclose(before[..., :19, :], after[..., :19, :], atol=1e-4)
    assert not torch.allclose(before[..., 20:, :], after[..., 20:, :], atol=1e-2)
    assert maps[4].isfinite().all()


@pytest.mark.parametrize(
    ("noise", "bins", "expected"),
    [(0, 36, [0]), (20, 36, [-20, -10, 0, 10, 20]), (15, 36, [-20, -10, 0, 10, 20]), (180, 4, [-180, -90, 0, 90])],
)
def test_hypotheses_cover_the_prior(noise, bins, expected):
    assert heading_hypotheses(noise, bins).tolist() == expected


@pytest.mark.parametrize(
    ("height", "factor", "expected"),
    [(2.5, 1, [2.5]), (2.0, 1.3, [2 / 1.3, 2, 2.6]), (2.0, 1.44, [2 / 1.44, 2 / 1.2, 2, 2.4, 2.88])],
)
def test_heights_tried_go_from_end_to_end_by_equal_factors(height, factor, expected):
    assert height_hypotheses(height, factor).tolist() == pytest.approx(expected)


def test_each_height_has_the_templates_of_a_camera_that_high():
    """Heights outermost, headings within, as `template_headings` says of each."""
    options = {"ori_noise": 180.0, "heading_bins": 4}
    matching, metres = _matching(**options, height_factor=1.44), torch.tensor([0.56, 0.5])
    panorama = torch.randn(2, 8, 32, 64)
    found = matching.template(4, panorama, metres).unflatten(2, (5, 4))
    assert matching.template_headings.tolist() == [-180, -90, 0, 90] * 5
    for k, height in enumerate(matching.heights.tolist()):
        known = _matching(**options, camera_height=height).template(4, panorama, metres)
        torch.testing.assert_close(found[:, :, k], known)
        assert k == 2 or not torch.allclose(found[:, :, 2], known, atol=1e-2)


@pytest.mark.parametrize("ori_noise", [0.0, 180.0])
def test_a_satellite_image_that_fits_one_height_tells_it(ori_noise):
    """Seen where the camera stands: the ground as a camera lays it out that stands 3 m above it and looks east, or north."""
    options = {"ori_noise": ori_noise, "heading_bins": 4}
    matching, metres = _matching(**options, height_factor=1.44), torch.tensor([0.56])
    panorama, satellite = ({stride: x[:1] for stride, x in features.items()} for features in _features())
    matching.adapt = lambda view, features: features if view == "satellite" else {s: panorama_of[s] for s in STRIDES}
    panorama_of = {s: torch.nn.functional.normalize(torch.randn(1, 8, 128 // s, 256 // s), dim=1) for s in STRIDES}
    template = _matching(**options, camera_height=3.0).template(4, panorama_of[4], metres)[:, :, -1]  # (1, 8, n, n)
    row, col, half = 18, 13, template.shape[-1] // 2
    padded = torch.zeros(1, 8, 32 + 2 * half, 32 + 2 * half)
    padded[..., row : row + 2 * half + 1, col : col + 2 * half + 1] = torch.nn.functional.normalize(template, dim=1)
    satellite = {s: torch.zeros(1, 8, 128 // s, 128 // s) for s in STRIDES} | {4: padded[..., half : half + 32, half : half + 32]}
    matched = matching(panorama, satellite, metres)
    assert matched.height_scores.shape == (1, 5, 32, 32)
    assert divmod(int(matched.maps[4].argmax()), 32) == (row, col)
    assert matched.heights[matched.height_scores[0, :, row, col].argmax()].item() == pytest.approx(3.0)
    if ori_noise:
        assert matched.headings[matched.heading_scores[0, :, row, col].argmax()] == 90
        mean = (matched.heading_scores.exp().mean(1) - matched.height_scores.exp().mean(1)).abs().max()
        assert mean < 1e-3 * matched.height_scores.exp().mean(1).max(), "both are marginals of one distribution"
    else:
        assert matched.heading_scores is None


def test_both_ways_keep_one_contract():
    """A map for every decoder stage at its activation's size; a finest map that speaks for itself only from templates."""
    panorama, satellite = _features()
    panorama[2], satellite[2] = torch.randn(2, 2, 64, 128), torch.randn(2, 2, 64, 64)
    stage_channels = {stride: 3 for stride in CHANNELS}
    settings = ModelSettings(satellite_size=128, panorama_size=(128, 256), ori_noise=180.0, heading_bins=4)
    for name, way in WAYS.items():
        matching = way(CHANNELS, stage_channels, settings)
        matched = matching(panorama, satellite, torch.tensor([0.56, 0.5]))
        for stride in CHANNELS:
            size = 256 // stride  # the decoder works at twice the features' size
            assert matched.map_for(stride, torch.randn(2, 3, size, size)).shape == (2, 1, size, size)
        assert matching.has_templates == (name == "ground_plane")
        assert matched.height_scores is None, "their height is known"
        for value in (matched.finest, matched.maps, matched.templates, matched.heading_scores):
            assert (value is not None) == matching.has_templates
    with pytest.raises(ValueError, match="metres_per_pixel: none given"):
        matching(panorama, satellite, None)
    torch.testing.assert_close(matched.map_for(2, torch.randn(2, 3, 32, 32)), matched.maps[4])  # stride 2 reuses stride 4's


def test_cells_are_those_of_the_templates():
    """The distances of `cells` are metres from the camera, whose cell lies half a feature's shift from the middle one."""
    matching = _matching()
    (distance, bearing, _), shift = matching.cells(4, torch.tensor([0.5]))
    middle = distance.shape[-1] // 2
    assert shift == 3 / 8
    assert distance[0, middle, middle].item() == pytest.approx(math.hypot(shift, shift) * 2.0)
    assert distance[0, middle, middle + 5].item() == pytest.approx(math.hypot(shift, 5 + shift) * 2.0)
    assert bearing[0, middle + 5, middle].item() == pytest.approx(math.degrees(math.atan2(shift, -5 - shift)))
