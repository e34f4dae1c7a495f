"""Estimating how photographs were tilted: what the estimate changes, and that a head learns to see it."""

from dataclasses import replace

import pytest
import torch
from children import SMALL_VIEW, make_network, save_network

from common.camera import Camera, cut_photographs, pinhole
from dataset.augment import PairChange, change_pair
from loss.criterion import Criterion
from model.checkpoint import load_model
from model.interface import Inputs
from model.tilt import TiltHead

VIEW = replace(SMALL_VIEW, camera="photo", tilt_noise=5.0, ori_noise=20.0)


def tilted(camera, pitch, roll):
    return camera.replace(pitch=camera.pitch + pitch, roll=camera.roll + roll)


def photographs(count=2):
    """`Inputs` of photographs that all differ."""
    generator = torch.Generator().manual_seed(0)
    query, satellite = (torch.randn(count, 3, 64, 64, generator=generator) for _ in range(2))
    cameras = [pinhole(64, 64, hfov=70 + 5 * k, heading=30.0 * k, pitch=k, roll=-k) for k in range(count)]
    return Inputs(query, Camera.stack(cameras), satellite, torch.full((count,), 0.6), heading_noise=20.0)


def make(differences=(0.0, 0.0), **settings):
    """A network whose tilt head, if any, estimates the same differences in degrees for every photograph."""
    settings = {"network": "light", "use_mask": False, "use_mixstyle": False} | settings
    network = make_network(VIEW, **settings)
    if network.tilt is not None:
        network.tilt.differences.bias.data = torch.tensor(differences) / 10
    return network


@pytest.mark.parametrize("network", ["light", "ground_plane"])
def test_photographs_are_matched_as_the_estimate_says(network):
    """A wrong prior and its correction give what the right one gives, also in pairs and in a search."""
    estimating = make((3.0, -2.0), network=network)
    plain = make(network=network, estimate_tilt=False)
    weights = estimating.state_dict()
    plain.load_state_dict({name: value for name, value in weights.items() if not name.startswith("tilt.")})
    given = photographs()
    right = tilted(given.camera, 3.0, -2.0)
    pairs = torch.tensor([[0, 0], [0, 1], [1, 1]])
    with torch.no_grad():
        corrected, wrong, known = estimating(given), plain(given), plain(given._replace(camera=right))
        of_pairs = estimating(given, pairs)
        templates = [
            of.encode_query(given.query, camera, given.metres_per_pixel, 4, of.hypotheses(20.0))
            for of, camera in ((estimating, given.camera), (plain, right), (plain, given.camera))
        ]
    torch.testing.assert_close(corrected.camera.values, right.values)
    torch.testing.assert_close(of_pairs.camera.values, right.values[[0, 0, 1]])
    torch.testing.assert_close(wrong.camera.values, given.camera.values)
    torch.testing.assert_close(corrected.heading_scores, known.heading_scores, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(corrected.logits, known.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(templates[0], templates[1], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(corrected.heading_scores, wrong.heading_scores, rtol=1e-2)
    assert not torch.allclose(templates[0], templates[2])


def test_under_another_view_a_checkpoint_is_the_network_that_it_was(tmp_path):
    for estimate in (False, True):
        network = make(estimate_tilt=estimate)
        found = load_model(save_network(tmp_path, network, replace(VIEW, tilt_noise=0.0)))
        assert (found.network.tilt is not None) == found.settings.estimate_tilt == estimate


def test_the_loss_is_of_the_truth_in_degrees():
    given, result = photographs(), make((3.0, -2.0))(photographs())
    batch = {"position": torch.full((2, 2), 32.0), "heading": given.camera.heading, "camera": given.camera}
    criterion = Criterion("infonce", 0.1, estimates_tilt=True)
    prior = torch.stack((given.camera.pitch, given.camera.roll), 1)
    found = [
        criterion(result, {**batch, "tilt": prior + torch.tensor(true)})["tilt_loss"].item()
        for true in ((3.0, -2.0), (3.0, 2.0), (-3.0, -2.0))
    ]
    assert found == pytest.approx([0, (4 - 0.5) / 2, (6 - 0.5) / 2], abs=1e-4)
    assert "tilt_loss" not in Criterion("infonce", 0.1)(result, batch)


def test_a_mirrored_world_s_tilt_is_that_of_its_camera():
    given = photographs()
    true = tilted(given.camera, 1.5, -0.5)
    batch = {"query": given.query, "satellite": given.satellite, "camera": given.camera}
    batch |= {"tilt": torch.stack((true.pitch, true.roll), 1), "metres_per_pixel": given.metres_per_pixel}
    batch |= {"position": torch.full((2, 2), 20.0), "heading": given.camera.heading}
    mirror = torch.tensor([True, False])
    changed = change_pair(batch, PairChange(mirror, torch.tensor([900, 0]), torch.ones(2), torch.zeros(2, 2)))
    mirrored = true.mirrored()
    assert changed["tilt"][0].tolist() == [float(mirrored.pitch[0]), float(mirrored.roll[0])]
    assert changed["tilt"][1].tolist() == [float(true.pitch[1]), float(true.roll[1])]


@pytest.mark.slow
def test_a_head_learns_to_see_a_tilt():
    """A world that is red above the horizon and green below it: pitch moves the edge, roll turns it."""
    torch.manual_seed(0)
    world = torch.zeros(1, 3, 64, 128)
    world[:, 0, :32], world[:, 1, 32:] = 1.0, 1.0
    prior = [pinhole(16, 16, hfov=70 + 2 * k, pitch=k % 3 - 1, roll=k // 3 - 1) for k in range(9)]
    prior, head = Camera.stack(prior), TiltHead(3, 0.0)
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)

    def take():
        true = tilted(prior, *(10 * torch.rand(2, 9) - 5))
        return cut_photographs(world.expand(9, -1, -1, -1), true, (16, 16)), true

    def errors(camera, true):
        apart = camera.pitch - true.pitch, camera.roll - true.roll
        return torch.stack([difference.abs().mean() for difference in apart])

    for _ in range(250):
        seen, true = take()
        optimizer.zero_grad()
        errors(head(seen, prior), true).mean().backward()
        optimizer.step()
    seen, true = take()
    with torch.no_grad():
        assert (errors(head(seen, prior), true) < errors(prior, true) / 2).all()


@pytest.mark.parametrize("size", [(15, 20), (20, 15), (4, 4), (1, 1)])
def test_the_estimate_takes_photographs_of_any_size_and_starts_at_the_prior(size):
    prior = photographs().camera
    found = TiltHead(4, -1)(torch.randn(2, 4, *size), prior)
    torch.testing.assert_close(found.values, prior.values)
