"""Models of timm as backbones, by their names alone."""

import pytest
import timm
import torch
from children import call, draw_a_pair, refusal

from common.errors import UserError
from model.backbones import make_backbone
from model.checkpoint import load_model

# Convolutions that pad evenly, patches, a transformer, and TensorFlow's padding.
MODELS = {"test_resnet": -1, "test_convnext": 0, "test_vit": 0, "tf_efficientnet_lite0": 1}


@pytest.mark.parametrize("name", MODELS)
def test_features_have_all_strides_and_wrap_around(name):
    backbone = make_backbone(f"timm:{name}").eval()
    assert backbone.shift == MODELS[name] and backbone.strides == (2, 4, 8, 16, 32)
    backbone.keep_until(8)
    backbone.eval().circular = True
    image = torch.randn(1, 3, 72, 128)
    with torch.no_grad():
        features, rolled = backbone(image), backbone(image.roll(32, -1))
    for stride, x in features.items():
        assert x.shape == (1, backbone.channels[stride], 72 // stride, 128 // stride)
        if name != "test_vit":  # whose tokens know their column
            torch.testing.assert_close(rolled[stride], x.roll(32 // stride, -1), rtol=0, atol=1e-5)
    backbone.train()
    sum(x.sum() for x in backbone(image).values()).backward()
    assert [n for n, p in backbone.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize(("name", "shift"), [("efficientnet_lite0", -1), ("tf_efficientnet_lite0", 1)])
def test_features_lie_where_the_shift_says(name, shift):
    """With equal positive weights, a feature's gradient lies evenly around the place that it sees."""
    backbone = make_backbone(f"timm:{name}")
    assert backbone.shift == shift
    for parameter in backbone.parameters():
        torch.nn.init.constant_(parameter, 1e-2)
    for module in backbone.eval().modules():
        if isinstance(module, torch.nn.Conv2d):
            module.weight.data.fill_(1 / module.weight[0].numel())
        elif isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.fill_(1)
            module.bias.data.fill_(0)
    image = torch.full((1, 3, 256, 256), 0.5, requires_grad=True)
    for stride in (4, 8):
        (grad,) = torch.autograd.grad(backbone(image)[stride][..., 128 // stride, 128 // stride].sum(), image)
        seen = grad.sum((0, 1, 2))
        place = float((seen * (torch.arange(256) + 0.5)).sum() / seen.sum())
        centre = (128 // stride + 0.5) * stride
        assert abs(place - centre - shift * (stride - 1) / 2) < 0.25


def test_input_is_normalised_as_the_model_wants_it():
    """Black and white of ImageNet's normalisation become -1 and 1 for a model trained so."""
    backbone, seen = make_backbone("timm:test_vit"), []
    backbone.trunk.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    for grey in (0.0, 1.0):
        backbone(((grey - mean) / std).view(1, 3, 1, 1).expand(1, 3, 32, 64))
    torch.testing.assert_close(torch.stack([x.mean() for x in seen]), torch.tensor([-1.0, 1.0]))


def test_what_cannot_be_a_backbone_is_named(tmp_path):
    for name in ("no_such_model", "swin_tiny_patch4_window7_224"):
        with pytest.raises(UserError, match=f"--backbone timm:{name}"):
            make_backbone(f"timm:{name}")
    with pytest.raises(UserError, match="nowhere"):
        make_backbone("timm:test_resnet").load_public_weights(tmp_path / "nowhere.pth")


def test_weights_of_a_file_fill_the_model(tmp_path):
    file = tmp_path / "weights.pth"
    whole = timm.create_model("test_resnet")
    torch.save(whole.state_dict(), file)
    backbone = make_backbone("timm:test_resnet")
    backbone.keep_until(8)
    backbone.load_public_weights(file)
    own, theirs = backbone.trunk.state_dict(), whole.state_dict()
    assert own and all(torch.equal(value, theirs[name]) for name, value in own.items())


@pytest.mark.slow
def test_a_model_that_no_code_names_trains_evaluates_searches_and_draws(vigor_root, tmp_path):
    data = f"--dataset_root {vigor_root} --device cpu"
    sizes = (
        "--satellite_size 64 --panorama_size 64 128 --batch_size 4 --num_workers 0 --epochs 1 --max_steps 2"
    )
    how = "--network light --backbone timm:test_vit --backbone_weights none --freeze_backbone"
    call("train_VIGOR", f"{data} {sizes} {how} --runs_root {tmp_path}")
    (run,) = tmp_path.iterdir()
    call("eval_VIGOR", f"--model_path {run} {data} --limit 2 --calibrate 0 --num_workers 0")
    call("search_VIGOR", f"--model_path {run} {data} --city Seattle --evaluate --limit 1 --calibrate 1")
    draw_a_pair(f"--model_path {run} {data} --idx 0", tmp_path)
    call("visualize_attention", f"--resume {run} {data} --img_idx 0 --dpi 20")
    assert load_model(run).settings.backbone == "timm:test_vit"


@pytest.mark.slow
def test_a_frozen_backbone_stays_and_a_slow_one_moves_less(vigor_root, tmp_path, capsys):
    data = (
        f"--dataset_root {vigor_root} --device cpu --satellite_size 64 --panorama_size 64 128 --batch_size 4"
    )
    how = "--network light --backbone timm:test_resnet --backbone_weights none --num_workers 0 --ema 0"
    ends = {}
    for name, flag in {"frozen": "--freeze_backbone", "slow": "--backbone_lr_factor 0.01", "": ""}.items():
        call("train_VIGOR", f"{data} {how} --epochs 1 --max_steps 2 {flag} --runs_root {tmp_path}/r{name}")
        (run,) = (tmp_path / f"r{name}").iterdir()
        ends[name] = load_model(run).network.state_dict()
    torch.manual_seed(0)
    moved = {}
    for name, end in ends.items():
        trunk = [key for key in end if ".trunk." in key and key.endswith(".weight")]
        moved[name] = sum(float((end[key] - ends["frozen"][key]).abs().sum()) for key in trunk)
        norms = [key for key in end if ".trunk." in key and key.endswith("running_mean")]
        assert (name == "frozen") == all(float(end[key].abs().sum()) == 0 for key in norms)
    assert 0 < moved["slow"] < 0.1 * moved[""]
    both = f"{data} {how} --freeze_backbone --backbone_lr_factor 0.1"
    assert "--backbone_lr_factor 0.1" in refusal("train_VIGOR", both, capsys)
