"""The light network: where its features lie, what its parts add up to, images of any size."""

import pytest
import torch
from children import SMALL_VIEW, make_network, random_inputs

from efficientnet_pytorch.lite import ConvNorm
from model.backbones import make_backbone
from model.light import GROUPS, STRIDES
from model.matching.ground_plane import feature_shift


def make(**settings):
    return make_network(network="light", **{"use_mask": False} | settings)


def noise_of(height, width):
    """Two satellite images."""
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["efficientnet_lite0", "thin"])
@pytest.mark.parametrize("circular", [True, False])
def test_features_lie_where_the_shift_says(name, circular):
    """A dot in an image, seen through kernels that are all alike: the middle of what it moves, in cells."""
    branch = make_backbone(name).eval()
    branch.circular = circular
    for entry, parameter in branch.named_parameters():
        value = 0.01 if entry.endswith("0.weight") else 1.0 if entry.endswith("weight") else 0.0
        torch.nn.init.constant_(parameter, value)
    row, col = 251, 323
    image = torch.zeros(1, 3, 512, 640)  # wider than what a cell of stride 32 sees
    image[..., row, col] = 1.0
    for stride, feature in branch(image).items():
        seen = feature[0].detach().sum(0)
        rows, cols = (torch.arange(side) + 0.5 + branch.shift * feature_shift(stride) for side in seen.shape)
        middle = (seen.sum(1) * rows).sum() / seen.sum(), (seen.sum(0) * cols).sum() / seen.sum()
        # A kernel that is wider than its stride sees the dot from more than one cell.
        close = pytest.approx([row + 0.5, col + 0.5], abs=stride / 6)
        assert [float(x) * stride for x in middle] == close


def test_folded_batch_norm_is_batch_norm():
    torch.manual_seed(0)
    layer = ConvNorm(3, 8, 3, 2).eval()
    conv, norm = layer
    for value in (norm.weight, norm.running_var):
        torch.nn.init.uniform_(value, 0.5, 2)
    torch.nn.init.normal_(norm.bias), torch.nn.init.normal_(norm.running_mean)
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(layer(x), norm(conv(x)).clamp(0, 6), rtol=1e-4, atol=1e-5)


def test_group_scores_add_up_to_the_maps():
    model = make()
    found = model(random_inputs(2))
    for stride in STRIDES:
        scores = found.group_scores[stride]
        assert scores.shape == (2, GROUPS, 64 // stride, 64 // stride)
        torch.testing.assert_close(scores.sum(1, keepdim=True), found.maps[stride])
        assert found.templates[stride].shape[1] == model.matching.channels[stride]


@pytest.mark.parametrize("noise", [0.0, 180.0])
@pytest.mark.parametrize("size", [(64, 64), (96, 40), (61, 75)])
def test_images_of_any_size(size, noise):
    model, inputs = make(heading_bins=4), random_inputs(2, satellite=noise_of(*size), heading_noise=noise)
    logits = model(inputs).logits
    assert logits.shape == (2, *size) and logits.isfinite().all()
    # What the image is continued with does not move what it shows: rows and columns stay where they are.
    spare = (0, -size[1] % 8, 0, -size[0] % 8)
    larger = torch.nn.functional.pad(inputs.satellite, spare, mode="replicate")
    again = model(inputs._replace(satellite=larger)).logits
    torch.testing.assert_close(again[:, : size[0], : size[1]], logits, rtol=1e-4, atol=1e-4)


def test_what_lies_far_away_says_nothing():
    """The same place in a larger image has the same logits, away from the edges: positions are not learnt."""
    model, large = make(matching_radius=8.0), random_inputs(2, satellite=noise_of(256, 256))
    part = model(large._replace(satellite=large.satellite[..., 64:192, 32:160])).logits
    whole = model(large).logits[:, 64:192, 32:160]
    torch.testing.assert_close(part[:, 56:72, 56:72], whole[:, 56:72, 56:72], rtol=1e-3, atol=1e-3)


def test_a_mask_counts():
    model, inputs = make(use_mask=True), random_inputs(2)
    full, none = (model(inputs._replace(mask=torch.full((2, 1, 64, 64), x))).logits for x in (1.0, 0.0))
    assert (full - none).abs().max() > 1e-3


def test_the_sky_is_cut_off_and_the_rest_stays_where_it_is():
    """What is cut off above does not matter; a panorama that is given without it is answered alike."""
    model, inputs = make(), random_inputs(2)
    rows = model.rows_cut(inputs.camera, SMALL_VIEW.panorama_size[0])
    assert rows == 16  # 45 of 180 degrees of 64 rows
    other = inputs.query.clone()
    other[:, :, :rows] = 7.0
    torch.testing.assert_close(model(inputs._replace(query=other)).logits, model(inputs).logits)
    cropped = type(inputs.camera)(inputs.camera.values, top=45.0)
    found = model(inputs._replace(query=inputs.query[:, :, rows:], camera=cropped)).logits
    torch.testing.assert_close(found, model(inputs).logits, rtol=1e-4, atol=1e-4)
