"""Ground-plane matching: where templates put what the panorama sees, and what correlating them means."""

import math

import pytest
import torch

from dataset import geometry
from model.ground_plane import GroundPlaneMatching, correlate, heading_hypotheses, sample_panorama, template_cells

CHANNELS = {16: 5, 9: 4, 4: 3, 2: 6, 0: 2}


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
    template = sample_panorama(feature, cell_bearing[:, None], depression, 360.0)[0, 0, 0]
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


def _matching(ori_noise=0.0, heading_bins=36, FoV=360):
    torch.manual_seed(0)
    settings = {
        "matching_radius": 20.0, "camera_height": 2.5, "satellite_size": 128, "panorama_size": [128, 256],
        "matching_channels": 8, "ori_noise": ori_noise, "heading_bins": heading_bins, "FoV": FoV, "temperature": 0.1,
    }  # fmt: skip
    return GroundPlaneMatching(CHANNELS, settings).eval()


def _features(size=128):
    strides = {16: 32, 9: 16, 4: 8, 2: 4}
    panorama = {key: torch.randn(2, CHANNELS[key], size // s, 2 * size // s) for key, s in strides.items()}
    return panorama, {key: torch.randn(2, CHANNELS[key], size // s, size // s) for key, s in strides.items()}


def test_mirroring_a_pair_mirrors_its_maps():
    matching = _matching()
    matching.shift = False  # of features against their pixels: the backbone's padding is not symmetric, these features are
    panorama, satellite = _features()
    metres_per_pixel = torch.tensor([0.56, 0.5])
    maps = matching(panorama, satellite, metres_per_pixel).maps
    flipped = [{key: x.flip(-1) for key, x in features.items()} for features in (panorama, satellite)]
    mirrored = matching(*flipped, metres_per_pixel).maps
    for key in maps:
        assert torch.allclose(mirrored[key], maps[key].flip(-1), atol=1e-4)


def test_turning_the_panorama_by_a_bin_moves_the_scores_to_the_next_bin():
    matching = _matching(ori_noise=180.0, heading_bins=64)  # bins of one column at stride 4
    panorama, satellite = _features()
    metres_per_pixel = torch.tensor([0.56, 0.5])
    scores = matching(panorama, satellite, metres_per_pixel).heading_scores
    # The centre looks one column further clockwise: contents move one column to the left, the heading grows by a bin.
    panorama[2] = panorama[2].roll(-1, -1)
    turned = matching(panorama, satellite, metres_per_pixel).heading_scores
    assert torch.allclose(turned.roll(-1, 1), scores, atol=1e-3)
    assert not torch.allclose(turned, scores, atol=1e-1)


def test_cells_outside_the_view_take_no_part():
    matching = _matching(FoV=180)
    panorama, satellite = _features()
    view = {key: x[..., x.shape[-1] // 4 : 3 * x.shape[-1] // 4] for key, x in panorama.items()}
    maps = matching(view, satellite, torch.tensor([0.56, 0.5])).maps
    south = {key: x.clone() for key, x in satellite.items()}
    matching.shift = False
    before = matching(view, satellite, torch.tensor([0.56, 0.5])).maps[2]
    south[2][..., 20:, :] = 7.0  # all that lies south of row 19 is behind the camera there
    after = matching(view, south, torch.tensor([0.56, 0.5])).maps[2]
    assert torch.allclose(before[..., :19, :], after[..., :19, :], atol=1e-4)
    assert not torch.allclose(before[..., 20:, :], after[..., 20:, :], atol=1e-2)
    assert maps[2].isfinite().all()


@pytest.mark.parametrize(
    ("noise", "bins", "expected"),
    [(0, 36, [0]), (20, 36, [-20, -10, 0, 10, 20]), (15, 36, [-20, -10, 0, 10, 20]), (180, 4, [-180, -90, 0, 90])],
)
def test_hypotheses_cover_the_prior(noise, bins, expected):
    assert heading_hypotheses(noise, bins).tolist() == expected
