"""The network against the published one (`data/golden.npz`), and what a user of it relies on."""

import gzip
import json
import os
import urllib.error
import zlib
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from children import PROJECT, to_published

from common.errors import UserError
from efficientnet_pytorch.model import EfficientNet
from efficientnet_pytorch.utils import SameConv2d
from efficientnet_pytorch.weights import backbone_modules, load_backbone_weights
from model.build import build_model
from model.checkpoint import load_model, save_checkpoint
from model.published import BLOCKS, from_published
from model.settings import NETWORKS, ModelSettings

DATA = PROJECT / "tests/data"
SMALL = ModelSettings(satellite_size=64, panorama_size=(64, 128), d_model=64, num_heads=4, n_layer=1, block_exp=2)


def published_weights():
    """The published state dict, filled with numbers that each entry's own name seeds."""
    shapes = json.loads(gzip.decompress((DATA / "published_shapes.json.gz").read_bytes()))
    return {name: torch.from_numpy(np.asarray(filling(name, shape))) for name, shape in shapes.items()}


def filling(name, shape):
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if "pos_emb" in name:
        return noise * 0.2
    if len(shape) > 1:
        return noise * np.float32(np.sqrt(1.5 / np.prod(shape[1:])))
    if name.endswith("running_var"):
        return 1.0 + 0.1 * np.abs(noise)
    centred = name.endswith("running_mean") or (name.endswith(".bias") and shape != [1])
    return 0.05 * noise if centred else 1.0 + 0.1 * noise


def random_inputs(batch, settings, seed=0):
    draw = np.random.RandomState(seed)
    side = settings.satellite_size
    panorama = draw.standard_normal((batch, 3, *settings.panorama_size)).astype(np.float32)
    satellite = draw.standard_normal((batch, 3, side, side)).astype(np.float32)
    mask = (draw.random_sample((batch, 1, side, side)) > 0.5).astype(np.float32)
    return tuple(map(torch.from_numpy, (panorama, satellite, mask)))


@pytest.fixture(scope="module")
def published_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("published") / "best.pt"
    torch.save({"epoch": 41, "model_state_dict": published_weights(), "best_val_distance": 27.75, "args": {}}, path)
    return path


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return build_model(SMALL).eval()


def test_published_network(published_file):
    """golden.npz: every 7th logit, every 16th channel of `fused`, and every 3rd place of some channels of the features."""
    loaded = load_model(published_file)
    model = loaded.model
    assert model.settings == ModelSettings() and not model.training
    assert (loaded.area, loaded.labels, loaded.pos_only, loaded.published) == ("samearea", "corrected", True, True)
    assert loaded.assumed == ("num_heads",)
    seen = {}
    model.fusion.register_forward_hook(lambda module, inputs, output: seen.update(fused=output[0]))
    for name, backbone in (("panorama", model.panorama_backbone), ("satellite", model.satellite_backbone)):
        backbone.register_forward_hook(
            lambda module, inputs, output, name=name: seen.update({f"{name}_feature_{k}": output[s] for k, s in BLOCKS.items()})
        )
    with torch.inference_mode():
        logits = model(*random_inputs(2, model.settings, seed=2024)).logits
    golden = np.load(DATA / "golden.npz")
    assert np.abs(logits[:, ::7, ::7].numpy() - golden["logits"]).max() < 1e-3 * golden["logits_std"]
    assert np.abs(seen["fused"][:, ::16].numpy() - golden["fused"]).max() < 1e-3 * golden["fused_std"]
    features = [name for name in golden.files if "feature" in name]
    assert len(features) == 10
    for name in features:
        ours = seen[name][:1, : golden[name].shape[1], ::3, ::3].numpy()
        np.testing.assert_allclose(ours, golden[name], rtol=0, atol=1e-4, err_msg=name)


def test_size_of_the_network():
    unused_head = 2 * (1280 * 320 + 2 * 1280 + 1000 * 1280 + 1000)
    parameters = sum(parameter.numel() for parameter in build_model().parameters())
    assert round((parameters + unused_head) / 1e6, 1) == 32.7


def test_names_both_ways():
    published = published_weights()
    model = build_model()
    ours = from_published(published, model)
    back = to_published(ours)
    assert {name: value.shape for name, value in back.items()} == {name: value.shape for name, value in published.items()}
    assert all(value.equal(published[name]) for name, value in back.items() if not is_head(name))
    again = from_published(back, model)
    assert ours.keys() == model.state_dict().keys() and all(again[name].equal(value) for name, value in ours.items())


def is_head(name):
    return any(part in name for part in ("efficientnet._conv_head", "efficientnet._bn1", "efficientnet._fc"))


def test_every_misfit_is_named():
    published, model = published_weights(), build_model()
    del published["conv4.3.weight"]
    published["surplus"] = torch.zeros(1)
    published["grd_efficientnet._fc.bias"] = torch.zeros(7)
    with pytest.raises(ValueError, match=r"1 missing: conv4\.3\.weight; 1 unexpected: surplus; 1 misshapen: .*_fc\.bias \(7,\)"):
        from_published(published, model)


def test_published_settings_come_from_flags_and_weights(small, tmp_path):
    """A DataParallel file of another size, whose flags are strings in the args.yaml beside it, and in part wrong."""
    state = {f"module.{name}": value for name, value in to_published(small.state_dict()).items()}
    of_the_data = "area: crossarea\npos_only: 'False'\nori_noise: 180\nepochs: 120\n"
    (tmp_path / "args.yaml").write_text("num_heads: 4\nuse_mixstyle: 'False'\nd_model: 999\nuse_mask: 'False'\n" + of_the_data)
    torch.save({"model_state_dict": state}, tmp_path / "best.pt")
    loaded = load_model(tmp_path)
    model = loaded.model
    assert model.settings == replace(SMALL, panorama_size=(320, 640), use_mixstyle=False)
    assert (loaded.area, loaded.pos_only, model.settings.ori_noise) == ("crossarea", False, 0)  # headings were known
    assert loaded.assumed == ()
    assert all(value.equal(model.state_dict()[name]) for name, value in small.state_dict().items())
    (tmp_path / "args.yaml").write_text("use_mixstyle: maybe\n")
    with pytest.raises(UserError, match=r"best\.pt.*use_mixstyle 'maybe': expected True or False"):
        load_model(tmp_path)


def test_published_files_may_hold_numpy_numbers_and_a_namespace(small, tmp_path):
    args = Namespace(num_heads=4, FoV=360.0, use_mixstyle="True")
    file = {"model_state_dict": to_published(small.state_dict()), "args": args, "best_val_distance": np.float64(27.75)}
    torch.save(file, tmp_path / "best.pt")
    assert load_model(tmp_path).settings.num_heads == 4


def test_our_checkpoint(small, tmp_path):
    save_checkpoint(tmp_path / "best.pt", {"settings": small.settings.plain(), "model": small.state_dict(), "epoch": 3})
    model = load_model(tmp_path).model
    assert model.settings == small.settings and not model.training
    inputs = random_inputs(1, model.settings)
    assert model(*inputs).logits.equal(small(*inputs).logits)
    assert load_model(tmp_path, FoV=90).model.view_size == (64, 32) and model.settings.FoV == 360
    save_checkpoint(tmp_path / "bad.pt", {"settings": small.settings.plain(), "model": {"x": torch.zeros(1)}})
    with pytest.raises(UserError, match=r"bad\.pt does not fit.*missing.*1 unexpected: x"):
        load_model(tmp_path / "bad.pt")
    save_checkpoint(tmp_path / "bad.pt", {"settings": {"depth": 3}, "model": {}})
    with pytest.raises(UserError, match=r"bad\.pt.*unknown model settings: depth"):
        load_model(tmp_path / "bad.pt")


class _Code:
    def __reduce__(self):
        return os.mkdir, ("code_was_run",)


@pytest.mark.parametrize("kind", ["absent", "empty", "text", "cut", "code", "list", "foreign", "empty folder"])
def test_what_is_no_checkpoint_is_refused(kind, small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"{kind}.pt"
    if kind in ("empty", "text"):
        path.write_text("" if kind == "empty" else "epoch,loss\n1,0.5\n")
    elif kind == "cut":
        torch.save({"format": "cvm-vigor", "settings": {}, "model": small.state_dict()}, path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind in ("code", "list", "foreign"):
        content = {"code": {"model": _Code()}, "list": [1, 2], "foreign": {"state_dict": {"fc.weight": torch.zeros(2)}}}
        torch.save(content[kind], path)
    elif kind == "empty folder":
        path.mkdir()
    with pytest.raises(UserError, match=f"{kind}.pt") as caught:
        load_model(path)
    assert "\n" not in str(caught.value) and not Path("code_was_run").exists()


def test_wrong_settings_are_refused():
    for wrong, says in (
        ({"depth": 3}, "unknown model settings: depth; known are FoV"),
        ({"satellite_size": 256, "vert_anchors": 16}, "satellite_size 256: expected 32 x vert_anchors, which is 16"),
        ({"satellite_size": 100}, "satellite_size 100: expected a multiple of 32"),
        ({"use_mask": "False"}, "use_mask 'False': expected True or False"),
        ({"mixstyle_mix": "both"}, "mixstyle_mix 'both': expected one of random, crossdomain"),
        ({"network": "guess"}, "network 'guess': expected one of published"),
        ({"num_heads": 7}, "d_model 320: expected a multiple of num_heads, which is 7"),
        ({"FoV": 0}, "FoV 0: expected a number above 0 up to 360"),
        ({"panorama_size": [320]}, r"panorama_size \[320\]: expected 2 values, each a multiple of 32"),
        ({"d_model": True}, "d_model True: expected a whole number from 8"),
        ({"temperature": float("nan")}, "temperature nan: expected a number above 0"),
    ):
        with pytest.raises(UserError, match=says):
            ModelSettings.read(wrong)


def test_wrong_inputs_are_refused(small):
    panorama, satellite, mask = random_inputs(2, small.settings)
    for inputs, says in (
        ((panorama, satellite), "mask: none given"),
        ((panorama, satellite[..., :32], mask), r"satellite: .* 32\), expected \(2, 3, 64, 64\) \(32 x 2 anchors\)"),
        ((panorama, satellite, mask[:1]), r"mask: shape \(1, 1, 64, 64\), expected \(2, 1, 64, 64\)"),
        ((panorama[..., :64], satellite, mask), r"panorama: shape .*panorama_size \[64, 128\] within FoV 360"),
    ):
        with pytest.raises(ValueError, match=says):
            small(*inputs)


def test_other_settings_run_and_learn():
    """Without a mask, with half the field of view, at another size: logits of the satellite's size, a gradient everywhere."""
    torch.manual_seed(0)
    other = {"satellite_size": 96, "vert_anchors": None, "horz_anchors": None, "use_mask": False, "FoV": 180}
    model = build_model(replace(SMALL, **other, dropout_rate=0.0, use_mixstyle=False))
    panorama, satellite, _ = random_inputs(2, model.settings)
    result = model(panorama[..., 32:96], satellite)
    assert result.logits.shape == (2, 96, 96) and result.attention is None
    result.logits.flatten(1).log_softmax(1)[:, 1234].sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    assert not any(m.circular for m in model.modules() if isinstance(m, SameConv2d))


def test_evaluation_is_deterministic_and_each_sample_alone(small):
    inputs = random_inputs(3, small.settings)
    with torch.no_grad():
        batched = small(*inputs).logits
        assert small(*inputs).logits.equal(batched)
        for i in range(3):
            torch.testing.assert_close(small(*(x[i : i + 1] for x in inputs)).logits[0], batched[i], rtol=1e-4, atol=1e-5)


def test_attention(small):
    inputs = random_inputs(2, small.settings)
    with torch.no_grad():
        plain, asked = small(*inputs), small(*inputs, return_attention=True)
    torch.testing.assert_close(asked.logits, plain.logits, rtol=1e-4, atol=1e-5)
    assert plain.attention is None and len(asked.attention) == 1
    for weights in asked.attention[0]:
        assert weights.shape == (2, 4, 4, 4)
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 4, 4))
    same_panorama, satellite = torch.randn(1, 1, 64).expand(1, 4, 64), torch.randn(1, 4, 64)
    with torch.no_grad():
        weights = small.fusion.layers[0](same_panorama, satellite, return_attention=True)[2]
    torch.testing.assert_close(weights.satellite_to_panorama, torch.full((1, 4, 4, 4), 0.25))  # nothing to choose between
    torch.testing.assert_close(weights.panorama_to_satellite, weights.panorama_to_satellite[:, :, :1].expand(1, 4, 4, 4))
    assert weights.panorama_to_satellite.std() > 0.01


@pytest.mark.parametrize(("circular", "columns"), [(True, 32), (True, 96), (False, 32)])
def test_rolling_a_panorama_rolls_its_features(circular, columns):
    torch.manual_seed(0)
    backbone = EfficientNet(circular).eval()
    panorama = torch.randn(1, 3, 64, 256)
    with torch.no_grad():
        features, rolled = backbone(panorama), backbone(panorama.roll(columns, dims=-1))
    assert set(features) == {2, 4, 8, 16, 32}
    for stride, feature in features.items():
        expected = feature.roll(columns // stride, dims=-1)
        difference = (rolled[stride] - expected).abs().max() / expected.abs().max()
        assert difference < 1e-4 if circular else difference > 1e-2, f"stride {stride}"


@pytest.mark.parametrize(
    ("circular", "kernel", "size", "expected"),
    [  # each row of the input is 1, 2, ... and the kernel all ones: windows' sums by hand, times the rows inside
        (False, 3, 4, [[18, 21], [12, 14]]),  # padding (0, 1): columns 123, 34.; rows 3 and 2
        (True, 3, 4, [[18, 24], [12, 16]]),  # columns 123, 341
        (False, 5, 4, [[40, 36], [30, 27]]),  # padding (1, 2): columns .1234, 234..; rows 4 and 3
        (True, 5, 4, [[56, 48], [42, 36]]),  # columns 41234, 23412
        (False, 3, 5, [[6, 18, 18], [9, 27, 27], [6, 18, 18]]),  # padding (1, 1): columns .12, 234, 45.; rows 2, 3, 2
    ],
)
def test_same_padding_with_stride_2(circular, kernel, size, expected):
    convolution = SameConv2d(1, 1, kernel, stride=2, circular=circular)
    torch.nn.init.ones_(convolution.weight)
    image = torch.arange(1.0, size + 1).expand(1, 1, size, size)
    assert convolution(image)[0, 0].tolist() == expected


def test_backbone_weights(tmp_path, monkeypatch):
    prefix = "grd_efficientnet."
    public = {name.removeprefix(prefix): value for name, value in published_weights().items() if name.startswith(prefix)}
    torch.save(public, tmp_path / "b0.pth")
    backbone = EfficientNet()
    before = backbone.blocks[3].block[1][0].weight.clone()
    load_backbone_weights(backbone, "none")
    assert backbone.blocks[3].block[1][0].weight.equal(before)
    load_backbone_weights(backbone, tmp_path / "b0.pth")
    assert backbone.blocks[3].block[1][0].weight.equal(public["_blocks.3._depthwise_conv.weight"])
    assert len(set(backbone_modules().values())) == len(backbone_modules())

    torch.save(public | {"_blocks.3._bn1.bias": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth is not .*1 misshapen: _blocks\.3\._bn1\.bias \(2,\)"):
        load_backbone_weights(backbone, tmp_path / "other.pth")
    (tmp_path / "page.pth").write_text("<html>")
    for name, says in (("page.pth", "not a weight file"), ("gone.pth", "no such file")):
        with pytest.raises(UserError, match=f"{name}: {says}"):
            load_backbone_weights(backbone, tmp_path / name)

    def offline(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with pytest.raises(UserError, match=r"no network.*--backbone_weights FILE.*--backbone_weights none"):
        load_backbone_weights(backbone, "imagenet")


@pytest.mark.parametrize("network", NETWORKS)
def test_without_circular_padding_the_seam_is_an_edge(network, tmp_path):
    """In the first feature one column at the seam differs; the satellite image's branch does not."""
    torch.manual_seed(0)
    around = build_model(replace(SMALL, network=network)).eval()
    edged = build_model(replace(SMALL, network=network, circular_padding=False)).eval()
    edged.load_state_dict(around.state_dict())
    image = torch.randn(1, 3, 64, 128)
    with torch.no_grad():
        first, second = (model.panorama_backbone(image) for model in (around, edged))
        turned = edged.panorama_backbone(image.roll(32, -1))
        satellite = [model.satellite_backbone(image)[2] for model in (around, edged)]
    differing = (first[2] - second[2]).abs().amax((0, 1, 2)) > 1e-3
    assert differing.nonzero().tolist() == [[0] if network == "light" else [63]]  # Lite pads evenly, B0 to the right
    assert (turned[8] - second[8].roll(4, -1)).abs().max() > 1e-2 * second[8].abs().max()
    assert satellite[0].equal(satellite[1])
    save_checkpoint(tmp_path / "best.pt", {"settings": edged.settings.plain(), "args": {}, "model": edged.state_dict()})
    assert load_model(tmp_path).settings.circular_padding is False
    older = {name: value for name, value in around.settings.plain().items() if name != "circular_padding"}
    save_checkpoint(tmp_path / "best.pt", {"settings": older, "args": {}, "model": around.state_dict()})
    assert load_model(tmp_path).settings.circular_padding is True  # what all were trained with before
