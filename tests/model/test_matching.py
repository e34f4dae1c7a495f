"""Ground-plane matching: where templates put what a camera sees, and what correlating them means."""

import itertools
import math

import pytest
import torch
from children import make_network, random_inputs

from common import geometry
from common.camera import Panorama
from model.interface import Inputs, resize
from model.matching import ground_plane as G
from model.matching import hypotheses as H
from model.matching.correlation import correlate, correlate_by_products
from model.matching.ground_plane import STRIDES
from model.settings import NetworkSettings

CHANNELS = {32: 5, 16: 4, 8: 3, 4: 6, 2: 2}
NORTH = Panorama(torch.zeros(2, 1))
METRES = torch.tensor([0.56, 0.5])


@pytest.mark.parametrize("latitude", [0.0, 40.7, 47.6])
@pytest.mark.parametrize(("bearing", "distance"), [(0, 6), (90, 8), (-135, 11), (179, 5), (30, 9)])
def test_a_mark_in_the_panorama_lands_in_its_cell(latitude, bearing, distance):
    height, width, camera_height = 256, 512, 2.5
    row = geometry.elevation_to_row(-math.degrees(math.atan2(camera_height, distance)), height)
    col = geometry.bearing_to_column(bearing, width)
    rows, cols = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    apart = torch.minimum((cols - col).abs(), width - (cols - col).abs())  # across the seam as well
    feature = torch.exp(-((rows - row)[:, None] ** 2 / 2 + apart[None] ** 2 / 8))[None, None]
    metres_per_cell = torch.tensor([geometry.metres_per_pixel(latitude) * 4])
    cell_distance, cell_bearing = G.template_cells(metres_per_cell, 30)
    depression = G.seen_below(cell_distance, torch.tensor(camera_height))
    x, y, _ = NORTH[:1].project(cell_bearing[:, None], depression[:, None])
    template = G.sample_view(feature, x, y, (height, width), wraps=True)[0, 0, 0]
    weight = template / template.sum()
    steps = torch.arange(-30, 31) * metres_per_cell
    north, east = -(weight.sum(1) * steps).sum(), (weight.sum(0) * steps).sum()
    angle = math.radians(bearing)
    expected = distance * math.cos(angle), distance * math.sin(angle)
    assert (north.item(), east.item()) == pytest.approx(expected, abs=0.15)
    assert cell_distance[0, 30, 33].item() == pytest.approx(3 * metres_per_cell.item())


def _slow_correlation(satellite, template):
    B, _, H, W = satellite.shape
    n = template.shape[-1]
    result = torch.zeros(B, template.shape[2], H, W)
    for row, col, i, j in itertools.product(range(H), range(W), range(n), range(n)):
        r, c = row + i - n // 2, col + j - n // 2
        if 0 <= r < H and 0 <= c < W:
            result[:, :, row, col] += torch.einsum("bc,bck->bk", satellite[:, :, r, c], template[..., i, j])
    return result


@pytest.mark.parametrize("function", [correlate, correlate_by_products])
@pytest.mark.parametrize(("K", "n"), [(1, 3), (1, 9), (3, 5)])
def test_correlations_and_their_gradients_are_those_of_a_slow_loop(function, K, n):
    torch.manual_seed(0)
    given = [torch.randn(2, 3, *shape, requires_grad=True) for shape in ((7, 9), (K, n, n))]
    weight, results = torch.randn(2, K, 7, 9), []
    for correlation in (function, _slow_correlation):
        value = correlation(*given)
        results.append((value, *torch.autograd.grad((value * weight).sum(), given)))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-4)


def _matching(shift=0, **options):
    """Ground-plane matching of features that lie where their index says, unless there is a shift."""
    torch.manual_seed(0)
    settings = NetworkSettings(vert_anchors=4, horz_anchors=4, matching_channels=8, **options)
    return G.GroundPlaneMatching(CHANNELS, settings, shift).eval()


def _features(size=128):
    query = {s: torch.randn(2, CHANNELS[s], size // s, 2 * size // s) for s in STRIDES}
    return query, {s: torch.randn(2, CHANNELS[s], size // s, size // s) for s in STRIDES}


def _match(matching, query, satellite, camera=NORTH, noise=0.0, size=(128, 256)):
    return matching(query, satellite, METRES[: len(camera)], camera, matching.hypotheses(noise), size)


def test_mirroring_a_pair_mirrors_its_maps():
    matching, (query, satellite) = _matching(), _features()
    maps = _match(matching, query, satellite, NORTH.turned(30)).maps
    flipped = [{stride: x.flip(-1) for stride, x in features.items()} for features in (query, satellite)]
    mirrored = _match(matching, *flipped, NORTH.turned(30).mirrored()).maps
    for stride in maps:
        assert torch.allclose(mirrored[stride], maps[stride].flip(-1), atol=1e-4)


def test_turning_the_panorama_by_a_bin_moves_the_scores_to_the_next_bin():
    matching, (query, satellite) = _matching(heading_bins=8), _features()  # bins of one column at stride 32
    scores = _match(matching, query, satellite, noise=180.0).heading_scores
    # The centre looks one column further clockwise: contents move one left, the heading grows by a bin.
    query = {stride: x.roll(-32 // stride, -1) for stride, x in query.items()}
    turned = _match(matching, query, satellite, noise=180.0).heading_scores
    assert torch.allclose(turned.roll(-1, 1), scores, atol=1e-3)
    assert not torch.allclose(turned, scores, atol=1e-1)
    told = _match(matching, query, satellite, NORTH.turned(360 / 8), noise=180.0).heading_scores
    assert torch.allclose(told, scores, atol=1e-3), "headings are relative to the prior"


def test_cells_beside_the_view_take_no_part():
    """A panorama of the north half: what lies south of the satellite image's row 19 is behind the camera."""
    matching, (query, satellite) = _matching(), _features()
    view = {s: x[..., x.shape[-1] // 4 : 3 * x.shape[-1] // 4] for s, x in query.items()}
    south = {stride: x.clone() for stride, x in satellite.items()}
    south[4][..., 20:, :] = 7.0
    camera = Panorama(torch.zeros(2, 1), span=180.0)
    before, after = (_match(matching, view, x, camera, size=(128, 128)).maps[4] for x in (satellite, south))
    assert torch.allclose(before[..., :19, :], after[..., :19, :], atol=1e-4)
    assert not torch.allclose(before[..., 20:, :], after[..., 20:, :], atol=1e-2)


def test_cells_below_the_crop_take_no_part():
    """From 20 degrees below the horizon, 2.5 m up, the ground begins 6.9 m away; a panorama sees it all."""
    matching, (query, _) = _matching(), _features()
    adapted = matching.adapt("panorama", query)[4]
    hypotheses, (distance, _, _) = matching.hypotheses(), matching.cells(4, METRES)
    whole = matching.template(4, adapted, METRES, NORTH, hypotheses, (128, 256))[:, :, 0]
    camera = Panorama(torch.zeros(2, 1), top=40.0, bottom=20.0)
    cropped = matching.template(4, adapted[:, :, :11], METRES, camera, hypotheses, (44, 256))[:, :, 0]
    near = distance < 2.5 / math.tan(math.radians(20.1))
    seen = (distance > 2.5 / math.tan(math.radians(19.9))) & (distance < matching.radii[4])
    assert near.any() and (cropped.abs().sum(1)[near] == 0).all() and (whole.abs().sum(1)[near] > 0).all()
    assert (cropped.abs().sum(1)[seen] > 0).all()


def test_planes_above_the_ground_are_what_a_lower_camera_sees_as_ground():
    """A point 1 m above a cell is seen from 2.5 m where the cell itself is seen from 1.5 m."""
    matching, query = _matching(planes=(1.0, 4.0)), torch.randn(2, 8, 32, 64)

    def template(height, query=query):
        hypotheses = matching.hypotheses(camera_height=height)
        return matching.template(4, query, METRES, NORTH, hypotheses, (128, 256))[:, :, 0]

    ground, lower = template(2.5), template(1.5)
    with torch.no_grad():
        matching.raised["4"].weight[:8, :, 0, 0] = 2 * torch.eye(8)  # of the first plane; the other stays 0
    torch.testing.assert_close(template(2.5), ground + 2 * lower)
    with torch.no_grad():
        matching.raised["4"].weight.copy_(matching.raised["4"].weight.roll(8, 0))
    above = template(2.5) - ground  # 4 m up: above the horizon, so in the panorama's upper half
    near = matching.cells(4, METRES)[0][:, None].expand_as(above) < 6
    other = torch.cat((-query[:, :, :16], query[:, :, 16:]), 2)
    assert above[near].abs().max() > 1e-3
    torch.testing.assert_close((template(2.5, other) - ground)[near], -above[near])


def test_cells_that_are_not_trusted_weigh_less():
    """The confidence is read where the cell is seen, and the weights still sum to one."""
    matching, query = _matching(cell_confidence=True), torch.rand(2, 8, 32, 64) + 1
    place = METRES, NORTH, matching.hypotheses(), (128, 256), 0
    even = matching._template(4, query, *place)[1][:, 0, 0]
    with torch.no_grad():
        matching.confidence["4"].weight[0, 0] = 1.0
        matching.confidence["4"].bias[:] = -20.0
    query[:, 0] = 0.0
    query[:, 0, :, 32:48] = 40.0  # from north to east
    trusted = matching._template(4, query, *place)[1][:, 0, 0]
    _, bearing, _ = matching.cells(4, METRES)
    inside, outside = (bearing > 6) & (bearing < 84), (bearing < -6) | (bearing > 96)
    torch.testing.assert_close(trusted.sum((1, 2)), torch.ones(2))
    assert trusted[outside].sum() < 1e-6 and (trusted[inside] >= even[inside]).all()


def test_hypotheses_cover_the_prior_and_heights_go_by_equal_factors():
    within_20 = [-20, -10, 0, 10, 20]
    headings = {(0, 36): [0], (20, 36): within_20, (15, 36): within_20, (180, 4): [-180, -90, 0, 90]}
    for (noise, bins), expected in headings.items():
        assert H.heading_hypotheses(noise, bins).tolist() == expected
    heights = {(2.5, 1): [2.5], (2, 1.3): [2 / 1.3, 2, 2.6], (2, 1.44): [2 / 1.44, 2 / 1.2, 2, 2.4, 2.88]}
    for given, expected in heights.items():
        settings = NetworkSettings(camera_height=given[0], height_factor=given[1])
        assert H.height_hypotheses(settings)[0].tolist() == pytest.approx(expected)


def test_strides_that_fit_with_different_headings_count_less_than_those_that_agree():
    scores = {4: torch.zeros(1, 2, 1, 2), 2: torch.zeros(1, 2, 2, 4)}
    scores[4][0, 0] = scores[2][0, 0, :, :2] = scores[2][0, 1, :, 2:] = 3.0  # on the left both like the first
    joint, agreement = H.agreement_of(scores)
    alone = [H.log_mean(resize(x, (2, 4)), 1) for x in scores.values()]
    torch.testing.assert_close(sum(alone) + agreement, joint.exp().mean(1, keepdim=True).log())
    assert agreement[..., 0].min() > 0.5 and agreement[..., -1].max() < -0.5
    one = {stride: x[:, :1] for stride, x in scores.items()}
    assert not H.agreement_of(one)[1].any()


def test_the_prior_of_heights_counts_once_over_all_strides_and_not_in_training(monkeypatch):
    matching = _matching(heading_bins=4, height_factor=1.44)
    monkeypatch.setattr(matching, "adapt", lambda view, features: features)
    usual, even = matching.hypotheses(180.0, usual_height=True), matching.hypotheses(180.0)
    share = usual.height_prior.exp() / 5
    assert share.tolist() == pytest.approx([0.005, 0.005, 0.98, 0.005, 0.005])
    assert usual.template_prior.tolist() == usual.height_prior.repeat_interleave(4).tolist()
    assert not even.height_prior.any()
    assert not matching.hypotheses(180.0, 3.0, usual_height=True).height_prior.any()
    features = {s: torch.zeros(1, 8, 128 // s, 128 // s) for s in STRIDES}
    query = {s: torch.zeros(1, 8, 128 // s, 256 // s) for s in STRIDES}
    found = matching(query, features, METRES[:1], NORTH[:1], usual, (128, 256))  # whose scores are all 0
    prior = found.height_scores[0, :, 0, 0] * len(STRIDES)
    torch.testing.assert_close(prior - prior[2], usual.height_prior - usual.height_prior[2])
    network = make_network(network="ground_plane", height_factor=1.44)
    given = Inputs(None, NORTH[:1], None, usual_height=True)
    assert not network.train().hypotheses_of(given).height_prior.any()
    assert network.eval().hypotheses_of(given).height_prior.any()


def test_each_height_has_the_templates_of_a_camera_that_high():
    matching, query = _matching(heading_bins=4, height_factor=1.44), torch.randn(2, 8, 32, 64)
    hypotheses = matching.hypotheses(180.0)
    found = matching.template(4, query, METRES, NORTH, hypotheses, (128, 256)).unflatten(2, (5, 4))
    assert hypotheses.template_headings.tolist() == [-180, -90, 0, 90] * 5
    for k, height in enumerate(hypotheses.heights.tolist()):
        known = matching.template(4, query, METRES, NORTH, matching.hypotheses(180.0, height), (128, 256))
        torch.testing.assert_close(found[:, :, k], known)
        assert k == 2 or not torch.allclose(found[:, :, 2], known, atol=1e-2)


@pytest.mark.parametrize("noise", [0.0, 180.0])
def test_a_satellite_image_that_fits_one_height_tells_it(noise, monkeypatch):
    """In one place the satellite image shows the ground of a camera 3 m above it that looks east or north."""
    matching, metres = _matching(heading_bins=4, height_factor=1.44), METRES[:1]
    query = {s: torch.nn.functional.normalize(torch.randn(1, 8, 128 // s, 256 // s), dim=1) for s in STRIDES}
    monkeypatch.setattr(matching, "adapt", lambda view, features: features)
    hypotheses = matching.hypotheses(noise, 3.0)
    template = matching.template(4, query[4], metres, NORTH[:1], hypotheses, (128, 256))[:, :, -1]
    row, col, half = 18, 13, template.shape[-1] // 2  # the template: (1, 8, n, n)
    padded = torch.zeros(1, 8, 32 + 2 * half, 32 + 2 * half)
    template = torch.nn.functional.normalize(template, dim=1)
    padded[..., row : row + 2 * half + 1, col : col + 2 * half + 1] = template
    satellite = {s: torch.zeros(1, 8, 128 // s, 128 // s) for s in STRIDES}
    satellite[4] = padded[..., half : half + 32, half : half + 32]
    found = _match(matching, query, satellite, NORTH[:1], noise)
    assert found.height_scores.shape == (1, 5, 32, 32)
    assert divmod(int(found.maps[4].argmax()), 32) == (row, col)
    assert found.heights[found.height_scores[0, :, row, col].argmax()].item() == pytest.approx(3.0)
    if noise:
        assert found.headings[found.heading_scores[0, :, row, col].argmax()] == 90
        mean = (found.heading_scores.exp().mean(1) - found.height_scores.exp().mean(1)).abs().max()
        assert mean < 1e-3 * found.height_scores.exp().mean(1).max(), "both are marginals of one distribution"
    else:
        assert found.heading_scores is None


GIVEN = {"logits", "camera"}
ON_THE_GROUND = {"heading_scores", "headings", "heights", "maps", "templates"}


@pytest.mark.parametrize(
    ("network", "given"), [("published", GIVEN), ("ground_plane", GIVEN | ON_THE_GROUND)]
)
def test_what_both_ways_of_matching_give(network, given):
    model = make_network(network=network, heading_bins=4)
    found = model(random_inputs(1, heading_noise=180.0))
    assert {name for name, value in found._asdict().items() if value is not None} == given
    assert model.matching.has_templates == (network == "ground_plane")


def test_cells_are_those_of_the_templates():
    distance, bearing, shift = _matching(shift=1).cells(4, torch.tensor([0.5]))
    at = distance.shape[-1] // 2
    assert shift == 3 / 8
    assert distance[0, at, at].item() == pytest.approx(math.hypot(shift, shift) * 2.0)
    assert distance[0, at, at + 5].item() == pytest.approx(math.hypot(shift, 5 + shift) * 2.0)
    assert bearing[0, at + 5, at].item() == pytest.approx(math.degrees(math.atan2(shift, -5 - shift)))
