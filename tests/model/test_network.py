"""Networks against the published one (`data/golden.npz`), and what a user of them relies on."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from children import PROJECT, SMALL_VIEW, make_network, random_inputs
from golden import golden_weights
from torch.nn import functional as F

from common.camera import Camera, panorama
from common.errors import UserError
from common.view import View
from efficientnet_pytorch.utils import SameConv2d
from model import backbones
from model.backbones import make_backbone
from model.build import build_model
from model.checkpoint import load_model
from model.published import BLOCKS
from model.settings import NETWORKS, SIZES, NetworkSettings, network_settings


def part(inputs, rows):
    """Some rows of `Inputs`."""
    values = inputs._asdict().items()
    return inputs._replace(**{k: x[rows] for k, x in values if isinstance(x, (torch.Tensor, Camera))})


@pytest.fixture(scope="module")
def small():
    """The published network at a small size."""
    return make_network(d_model=64, num_heads=4)


@pytest.mark.slow
def test_published_network(tmp_path):
    """golden.npz: every 7th logit, every 16th channel of the fused map, every 3rd place of some features."""
    file = {"model_state_dict": golden_weights(), "best_val_distance": 27.75, "args": {}}
    torch.save(file, tmp_path / "best.pt")
    checkpoint = load_model(tmp_path)
    network = checkpoint.network
    assert checkpoint.settings == NetworkSettings() and checkpoint.view == View() and not network.training
    assert (checkpoint.data["area"], checkpoint.published) == ("samearea", True)
    assert checkpoint.assumed == ("num_heads",)
    seen = {}
    network.fusion.register_forward_hook(lambda module, inputs, output: seen.update(fused=output[0]))
    for view in ("panorama", "satellite"):

        def keep(module, inputs, output, view=view):
            seen.update({f"{view}_feature_{block}": output[stride] for block, stride in BLOCKS.items()})

        getattr(network, f"{view}_backbone").register_forward_hook(keep)
    with torch.inference_mode():
        logits = network(random_inputs(2, View(), seed=2024)).logits
    golden = np.load(PROJECT / "tests/data/golden.npz")
    assert np.abs(logits[:, ::7, ::7].numpy() - golden["logits"]).max() < 5e-6 * golden["logits_std"]
    assert np.abs(seen["fused"][:, ::16].numpy() - golden["fused"]).max() < 5e-6 * golden["fused_std"]
    features = [name for name in golden.files if "feature" in name]
    assert len(features) == 10
    for name in features:
        ours = seen[name][:1, : golden[name].shape[1], ::3, ::3].numpy()
        np.testing.assert_allclose(ours, golden[name], rtol=0, atol=1e-4, err_msg=name)


def test_sizes_of_the_networks():
    built = {name: build_model(NetworkSettings(network=name)) for name in ("published", "light")}
    count = {name: sum(p.numel() for p in network.parameters()) for name, network in built.items()}
    unused_head = 2 * (1280 * 320 + 2 * 1280 + 1000 * 1280 + 1000)
    assert round((count["published"] + unused_head) / 1e6, 1) == 32.7
    assert count["light"] < 0.2e6


def test_every_file_of_backbones_is_a_backbone():
    files = {path.stem for path in Path(backbones.__file__).parent.glob("*.py")}
    assert set(backbones.NAMES) == files - {"__init__", "interface", "of_timm"}
    for name in backbones.NAMES:
        made = make_backbone(name).eval()
        shapes = {stride: x.shape for stride, x in made(torch.randn(1, 3, 64, 128)).items()}
        assert shapes == {n: (1, made.channels[n], 64 // n, 128 // n) for n in made.strides}
        assert made.shift in (-1, 0, 1) and made.last_layer in list(made.modules())
    with pytest.raises(UserError, match="backbone 'vgg': expected one of efficientnet_b0"):
        NetworkSettings(backbone="vgg")


PAIRS = list(itertools.product(NETWORKS, ("efficientnet_b0", "efficientnet_lite0", "thin")))


@pytest.mark.parametrize(("network", "backbone"), PAIRS)
def test_each_network_learns_on_each_backbone(network, backbone):
    """A narrower view of another size, no mask: logits of the satellite's size, a gradient everywhere."""
    view = replace(SMALL_VIEW, satellite_size=96, FoV=180.0)
    settings = {"network": network, "backbone": backbone, "use_mask": False, "use_mixstyle": False}
    model = make_network(view, **settings, dropout_rate=0.0).train()
    result = model(random_inputs(2, view, mask=None))
    assert result.logits.shape == (2, 96, 96) and result.attention is None and result.camera.span == 180
    result.logits.flatten(1).log_softmax(1)[:, 1234].sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("size", SIZES)
def test_sizes_of_the_light_network(size):
    """Images that the coarsest stride does not divide; a padded image's answer is that of its own size."""
    model = make_network(network="light", backbone="thin", size=size).eval()
    view = replace(SMALL_VIEW, satellite_size=96, FoV=90.0, vertical=(38.6, 26.9))
    inputs = random_inputs(2, view)
    with torch.no_grad():
        assert model(inputs).logits.shape == (2, 96, 96)
        wide = inputs._replace(
            satellite=F.pad(inputs.satellite, (0, 8, 0, 8)), mask=F.pad(inputs.mask, (0, 8, 0, 8))
        )
        assert model(wide).logits.shape == (2, 104, 104)
    assert max(model.panorama_backbone.strides) == SIZES[size].context
    with pytest.raises(UserError, match="size m: the published network"):
        NetworkSettings(size="m")


@pytest.mark.parametrize(
    ("ill", "says"),
    [
        ({"depth": 3}, "unknown network settings: depth"),
        ({"use_mask": "False"}, "use_mask 'False': expected True or False"),
        ({"mixstyle_mix": "both"}, "mixstyle_mix 'both': expected one of random, crossdomain"),
        ({"network": "guess"}, "network 'guess': expected one of published"),
        ({"num_heads": 7}, "d_model 320: expected a multiple of num_heads, which is 7"),
        ({"d_model": True}, "d_model True: expected a whole number from 8"),
        ({"temperature": float("nan")}, "temperature nan: expected a number above 0"),
        ({"vert_anchors": 8}, "vert_anchors 8: expected horz_anchors"),
        ({"network": "light", "matching_channels": 12}, "matching_channels 12: .*a multiple of 8"),
        ({"estimate_tilt": True}, "estimate_tilt True: the published network"),
    ],
)
def test_wrong_settings_are_refused(ill, says):
    with pytest.raises(UserError, match=says):
        NetworkSettings.read(ill, "network")


def test_what_follows_from_a_view():
    photo = View(satellite_size=256, camera="photo", tilt_noise=3.0)
    level, light = replace(photo, tilt_noise=0.0), {"network": "light"}
    settings = network_settings(photo, light)
    assert (settings.satellite_size, settings.backbone) == (256, "efficientnet_lite0")
    assert settings.estimate_tilt and not network_settings(level, light).estimate_tilt
    assert network_settings(level, light | {"estimate_tilt": True}).estimate_tilt
    for view, given, says in (
        (View(satellite_size=256), {"vert_anchors": 16}, "--satellite_size 256: .*16"),
        (View(), light | {"estimate_tilt": True}, "--estimate_tilt True: panoramas"),
        (View(camera="photo"), {}, "--camera photo: the published network"),
    ):
        with pytest.raises(UserError, match=says):
            network_settings(view, given)


@pytest.mark.parametrize("network", NETWORKS)
def test_wrong_inputs_are_refused(network):
    model, inputs = make_network(network=network), random_inputs(2)
    wrong = {
        "mask: none given": {"mask": None},
        r"mask: shape \(1, 1, 64, 64\), expected \(2, 1, 64, 64\)": {"mask": inputs.mask[:1]},
        r"satellite: shape \(1, 3": {"satellite": inputs.satellite[:1]},
        "camera: 1 cameras, expected 2": {"camera": inputs.camera[:1]},
    }
    if network == "light":
        wrong |= {r"mask: shape .*64, 32\), expected \(2, 1, 64, 64\)": {"mask": inputs.mask[..., :32]}}
    else:
        wrong |= {r"satellite: .* 32\), expected \(2, 3, 64, 64\)": {"satellite": inputs.satellite[..., :32]}}
    if network != "published":
        wrong |= {"metres_per_pixel: none given": {"metres_per_pixel": None}}
    for says, given in wrong.items():
        with pytest.raises(ValueError, match=says):
            model(inputs._replace(**given))


@pytest.mark.parametrize("network", NETWORKS)
def test_pairs_are_what_each_would_be_alone(network):
    """Two panoramas, four satellite images, five pairs: each as if its two images had been given alone."""
    model = make_network(network=network, heading_bins=4, height_factor=1.3)
    inputs = random_inputs(4, heading_noise=180.0)
    inputs = inputs._replace(query=inputs.query[:2], camera=inputs.camera[:2])
    pairs = torch.tensor([[0, 0], [0, 3], [1, 2], [1, 0], [0, 3]])
    with torch.no_grad():
        result = model(inputs, pairs)
        assert len(result.camera) == 5 and model(inputs, pairs).logits.equal(result.logits)
        for i, (p, s) in enumerate(pairs.tolist()):
            one = part(inputs, slice(s, s + 1))
            one = one._replace(query=inputs.query[p : p + 1], camera=inputs.camera[p : p + 1])
            alone = model(one)
            torch.testing.assert_close(result.logits[i], alone.logits[0], atol=2e-5, rtol=1e-4)
            if network != "published":
                scores = result.heading_scores[i], alone.heading_scores[0]
                torch.testing.assert_close(*scores, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("network", ["light", "ground_plane"])
def test_a_heading_given_is_a_panorama_rolled(network):
    """A panorama whose centre looks east is answered as the same one rolled to north; headings follow."""
    model, inputs = make_network(network=network, heading_bins=4), random_inputs(2, heading_noise=180.0)
    east = inputs._replace(query=inputs.query.roll(-32, -1), camera=inputs.camera.turned(90.0))
    with torch.no_grad():
        here, there, wrong = (model(given) for given in (inputs, east, east._replace(camera=inputs.camera)))
    close = 0.1 if network == "light" else 1e-3  # the light network upsamples with an edge at the seam
    for name in ("logits", "heading_scores"):
        expected, found, other = (getattr(result, name) for result in (here, there, wrong))
        assert (found - expected).abs().max() < close * expected.std()
    assert (other - expected).abs().max() > 0.5 * expected.std()


def test_attention(small):
    inputs = random_inputs(2)
    with torch.no_grad():
        plain, asked = small(inputs), small(inputs._replace(return_attention=True))
    torch.testing.assert_close(asked.logits, plain.logits, rtol=1e-4, atol=1e-5)
    assert plain.attention is None and len(asked.attention) == 1
    for weights in asked.attention[0]:
        assert weights.shape == (2, 4, 4, 4)
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 4, 4))
    alike, satellite = torch.randn(1, 1, 64).expand(1, 4, 64), torch.randn(1, 4, 64)  # nothing to choose
    with torch.no_grad():
        weights = small.fusion.layers[0](alike, satellite, return_attention=True)[2]
    torch.testing.assert_close(weights.satellite_to_panorama, torch.full((1, 4, 4, 4), 0.25))
    across = weights.panorama_to_satellite
    torch.testing.assert_close(across, across[:, :, :1].expand(1, 4, 4, 4))
    assert across.std() > 0.01


@pytest.mark.parametrize("name", backbones.NAMES)
@pytest.mark.parametrize(("circular", "columns"), [(True, 32), (False, 32)])
def test_rolling_a_panorama_rolls_its_features(name, circular, columns):
    torch.manual_seed(0)
    backbone = make_backbone(name).eval()
    backbone.circular = circular
    image = torch.randn(1, 3, 64, 256)
    with torch.no_grad():
        features, rolled = backbone(image), backbone(image.roll(columns, dims=-1))
    for stride, feature in features.items():
        expected = feature.roll(columns // stride, dims=-1)
        difference = (rolled[stride] - expected).abs().max() / expected.abs().max()
        assert difference < 1e-4 if circular else difference > 1e-2, f"stride {stride}"


@pytest.mark.parametrize(
    ("circular", "kernel", "size", "expected"),
    [  # rows are 1, 2, ... and the kernel is all ones: sums of windows by hand, times the rows inside
        (False, 3, 4, [[18, 21], [12, 14]]),  # padding (0, 1): columns 123, 34.; rows 3 and 2
        (True, 3, 4, [[18, 24], [12, 16]]),  # columns 123, 341
        (False, 5, 4, [[40, 36], [30, 27]]),  # padding (1, 2): columns .1234, 234..; rows 4 and 3
        (True, 5, 4, [[56, 48], [42, 36]]),  # columns 41234, 23412
        (False, 3, 5, [[6, 18, 18], [9, 27, 27], [6, 18, 18]]),  # padding (1, 1): columns .12, 234, 45.
        (True, 3, 5, [[16, 18, 20], [24, 27, 30], [16, 18, 20]]),  # columns 512, 234, 451
    ],
)
def test_same_padding_with_stride_2(circular, kernel, size, expected):
    convolution = SameConv2d(1, 1, kernel, stride=2)
    convolution.circular = circular
    torch.nn.init.ones_(convolution.weight)
    image = torch.arange(1.0, size + 1).expand(1, 1, size, size)
    assert convolution(image)[0, 0].tolist() == expected


@pytest.mark.parametrize("name", backbones.NAMES)
def test_only_whole_panoramas_are_padded_around_their_seam(name):
    """The panorama's branch follows the batch's camera and the setting; the satellite image's has no seam."""
    network = "light" if name == "efficientnet_lite0" else "ground_plane"
    model, inputs = make_network(network=network, backbone=name), random_inputs(1)
    cut = inputs._replace(query=inputs.query[..., 32:96], camera=Camera.stack([panorama(span=180.0)]))
    with torch.no_grad():
        for given, circular in ((inputs, True), (cut, False), (inputs, True)):
            model(given)
            assert model.panorama_backbone.circular is circular and not model.satellite_backbone.circular
            layers = list(model.panorama_backbone.modules())[1:]
            assert {layer.circular for layer in layers if hasattr(layer, "circular")} == {circular}
        edged = make_network(network=network, backbone=name, circular_padding=False)
        edged(inputs)
    assert not edged.panorama_backbone.circular
