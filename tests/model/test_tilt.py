"""Estimating how photographs were tilted: what the estimate changes, and that a head learns to see it."""

from dataclasses import replace

import pytest
import torch

from common.camera import Pinhole, cut_photographs, mirrored, pinhole, tilted
from common.errors import UserError
from dataset.augment import PairChange, change_pair
from loss.criterion import TILT_WEIGHT, Criterion
from model.build import build_model
from model.checkpoint import load_model, save_checkpoint
from model.settings import ModelSettings
from model.tilt import TiltHead

SETTINGS = ModelSettings(
    network="light",
    camera="photo",
    tilt_noise=5.0,
    ori_noise=20.0,
    satellite_size=64,
    panorama_size=(64, 128),
    photo_width=64,
    use_mask=False,
    use_mixstyle=False,
)


def cameras(count=2):
    return torch.stack([pinhole(64, 64, hfov=70 + 5 * k, heading=30.0 * k, pitch=k, roll=-k) for k in range(count)])


def pair(count=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    views = (torch.randn(count, 3, 64, 64, generator=generator) for _ in range(2))
    return *views, {"metres_per_pixel": torch.full((count,), 0.6), "camera": cameras(count)}


def make(settings=SETTINGS, differences=(0.0, 0.0)):
    """A network whose tilt head, where it has one, says the same differences in degrees of every photograph."""
    torch.manual_seed(0)
    model = build_model(settings).eval()
    if model.tilt is not None:
        model.tilt.differences.bias.data = torch.tensor(differences) / 10
    return model


@pytest.mark.parametrize("network", ["light", "ground_plane"])
def test_photographs_are_matched_as_the_estimate_says(network):
    """Told wrong and mended, a photograph is answered as one whose camera is told right."""
    estimating = replace(SETTINGS, network=network)
    first, second, known = pair()
    model, plain = make(estimating, (3.0, -2.0)), make(replace(estimating, estimate_tilt=False))
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if not name.startswith("tilt.")})
    right = tilted(known["camera"], torch.tensor([3.0, -2.0]))
    with torch.no_grad():
        mended, wrong = model(first, second, **known), plain(first, second, **known)
        told = plain(first, second, **{**known, "camera": right})
    torch.testing.assert_close(mended.camera, right)
    torch.testing.assert_close(mended.heading_scores, told.heading_scores, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mended.logits, told.logits, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(mended.heading_scores, wrong.heading_scores, rtol=1e-2)
    torch.testing.assert_close(wrong.camera, known["camera"])


def test_a_search_s_templates_are_mended_too():
    photographs, _, known = pair()
    model, right = make(differences=(3.0, -2.0)), tilted(known["camera"], torch.tensor([3.0, -2.0]))
    with torch.no_grad():
        mended = model.describe_panorama(photographs, known["metres_per_pixel"], 4, known["camera"])
        model.tilt.differences.bias.zero_()
        torch.testing.assert_close(mended, model.describe_panorama(photographs, known["metres_per_pixel"], 4, right))
        assert not torch.allclose(mended, model.describe_panorama(photographs, known["metres_per_pixel"], 4, known["camera"]))


def test_one_photograph_in_several_images_is_mended_once_for_all():
    photographs, satellites, known = pair()
    pairs = torch.tensor([[0, 0], [0, 1], [1, 1]])
    with torch.no_grad():
        result = make(differences=(3.0, -2.0))(photographs, satellites, pairs=pairs, **known)
    torch.testing.assert_close(result.camera, tilted(known["camera"], torch.tensor([3.0, -2.0]))[[0, 0, 1]])


def test_a_network_estimates_where_it_was_told_wrong_and_says_so_in_its_settings():
    assert SETTINGS.estimate_tilt and not replace(SETTINGS, tilt_noise=0.0, estimate_tilt=None).estimate_tilt
    assert replace(SETTINGS, tilt_noise=0.0).estimate_tilt, "asked about tilts that are told right, the network is the same"
    assert not ModelSettings(network="light").estimate_tilt
    with pytest.raises(UserError, match="estimate_tilt True: panoramas"):
        ModelSettings(network="light", estimate_tilt=True)


@pytest.mark.parametrize(("before", "noise"), [(True, 0.0), (True, 3.0), (False, 0.0)])
def test_asked_about_other_tilts_a_checkpoint_is_the_network_that_it_was(before, noise, tmp_path):
    """Also one of before there was such a head, which was told tilts right or wrong."""
    plain = replace(SETTINGS, tilt_noise=noise, estimate_tilt=False)
    settings = plain.plain()
    if before:
        del settings["estimate_tilt"]
    save_checkpoint(tmp_path / "best.pt", {"settings": settings, "model": build_model(plain).state_dict()})
    model = load_model(tmp_path, tilt_noise=4.0).model
    assert model.tilt is None and model.settings.cameras.tilt_noise == 4


def test_the_loss_is_of_the_truth_in_degrees():
    result, batch = make(differences=(3.0, -2.0)), {}
    photographs, satellites, known = pair()
    result = result(photographs, satellites, **known)
    batch = {"position": torch.full((2, 2), 32.0), "heading": known["camera"][:, 0], "camera": known["camera"]}
    criterion = Criterion("infonce", 0.1, estimates_tilt=True)
    found = [
        criterion(result, {**batch, "tilt": known["camera"][:, 1:3] + torch.tensor(true)})["tilt_loss"].item() / TILT_WEIGHT
        for true in ((3.0, -2.0), (3.0, 2.0), (-3.0, -2.0))
    ]
    assert found == pytest.approx([0, (4 - 0.5) / 2, (6 - 0.5) / 2], abs=1e-4)
    assert "tilt_loss" not in Criterion("infonce", 0.1)(result, batch)


def test_a_mirrored_world_s_tilt_is_that_of_its_camera():
    photographs, satellites, known = pair()
    told, true = known["camera"], tilted(known["camera"], torch.tensor([1.5, -0.5]))
    batch = {"panorama": photographs, "satellite": satellites, "camera": told, "tilt": true[:, 1:3], "heading": told[:, 0]}
    batch |= {"position": torch.full((2, 2), 20.0), "metres_per_pixel": known["metres_per_pixel"]}
    change = PairChange(torch.tensor([True, False]), torch.tensor([900, 0]), torch.ones(2), torch.zeros(2, 2))
    changed = change_pair(batch, change)["tilt"]
    torch.testing.assert_close(changed[0], mirrored(true)[0, 1:3])
    torch.testing.assert_close(changed[1], true[1, 1:3])


def test_a_head_learns_to_see_a_tilt():
    """A world that is red above the horizon and green below it: pitch moves the edge, roll turns it."""
    torch.manual_seed(0)
    panorama = torch.zeros(1, 3, 64, 128)
    panorama[:, 0, :32], panorama[:, 1, 32:] = 1.0, 1.0
    told = torch.stack([pinhole(16, 16, hfov=70 + 2 * k, pitch=k % 3 - 1, roll=k // 3 - 1) for k in range(9)])
    head = TiltHead(3, 0.0)
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)

    def photographs():
        true = tilted(told, 10 * torch.rand(9, 2) - 5)
        return cut_photographs(panorama.expand(9, -1, -1, -1), true, (16, 16)), true

    for _ in range(250):
        seen, true = photographs()
        optimizer.zero_grad()
        (head(seen, told) - true)[:, 1:3].abs().mean().backward()
        optimizer.step()
    seen, true = photographs()
    with torch.no_grad():
        error, before = ((of - true)[:, 1:3].abs().mean(0) for of in (head(seen, told), told))
    assert (error < before / 2).all()


def test_the_estimate_takes_photographs_of_any_size():
    head = TiltHead(4, -0.4)
    for size in ((15, 20), (20, 15), (4, 4), (1, 1)):
        found = head(torch.randn(2, 4, *size), cameras())
        torch.testing.assert_close(found, cameras())
    assert Pinhole(found).pitch.tolist() == pytest.approx([0, 1])
