"""ONNX: the numbers of PyTorch, for any batch, and an example that needs neither PyTorch nor this project."""

import json
import re
import textwrap
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from children import PROJECT, call, refusal, thin_network
from engine.batch import forward
from engine.evaluation.prediction import locate

from model.build import build_model
from model.checkpoint import save_checkpoint
from model.settings import ModelSettings

SMALL = ModelSettings(satellite_size=64, panorama_size=(64, 128), d_model=16, num_heads=2, n_layer=1)
ANY_HEADING = {"ori_noise": 180.0, "heading_bins": 4}


def make(folder, **settings):
    """A network, and its checkpoint in a folder."""
    torch.manual_seed(0)
    model = build_model(replace(SMALL, **settings)).eval()
    if settings["network"] == "light":
        torch.nn.init.normal_(model.head.convolutions[-2].weight, std=0.1)
    save_checkpoint(folder / "best.pt", {"settings": model.settings.plain(), "model": model.state_dict()})
    if model.tilt is not None:
        torch.nn.init.normal_(model.tilt.differences.weight)
    return model


@pytest.fixture(scope="module")
def light(tmp_path_factory):
    """A light network, and the folder that holds its export."""
    folder = tmp_path_factory.mktemp("light")
    model = make(folder, network="light")
    call("model.export", f"--model_path {folder} --output {folder}/light.onnx")
    return model, folder


def draw(model, B, size=(64, 64)):
    generator = torch.Generator().manual_seed(B)
    shapes = {"panorama": (B, 3, *model.view_size), "satellite": (B, 3, *size), "mask": (B, 1, *size)}
    batch = {name: torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for name, shape in shapes.items()}
    if model.settings.cameras:
        batch["camera"] = model.settings.cameras.draw(torch.rand(B, 7, generator=generator))[1]
    return batch | {"metres_per_pixel": torch.linspace(1.0, 1.15, B)}


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({"network": "light"}, (64, 64)),
        ({"network": "light", **ANY_HEADING, "height_factor": 1.3, "FoV": 180.0, "use_mask": False}, (64, 104)),
        ({"network": "light", "camera": "photo", "photo_width": 64, "tilt_noise": 5.0, **ANY_HEADING}, (64, 64)),
        ({"network": "ground_plane"}, (64, 64)),
    ],
    ids=["light", "light, any heading and height", "light, photographs", "ground_plane"],
)
def test_it_gives_the_numbers_of_pytorch(settings, size, light, tmp_path, monkeypatch):
    if settings == {"network": "light"}:
        model, folder = light
    else:
        thin_network(monkeypatch.setattr)
        model, folder = make(tmp_path, **settings), tmp_path
        call("model.export", f"--model_path {folder} --output {folder}/light.onnx --satellite_px {size[0]} {size[1]}")
    session = onnxruntime.InferenceSession(folder / "light.onnx")
    conventions = json.loads((folder / "light.json").read_text())
    names = [one.name for one in session.get_inputs()]
    assert names == list(conventions["inputs"]) and ("mask" in names) == model.settings.use_mask
    assert [one.name for one in session.get_outputs()] == list(conventions["outputs"])
    for B in (1, 3):
        batch = {name: value for name, value in draw(model, B, size).items() if name in names}
        found = session.run(None, {name: value.numpy() for name, value in batch.items()})
        with torch.inference_mode():
            result = forward(model, batch)
        expected = [result.logits, result.heading_scores][: len(found)]
        for one, other in zip(found, expected, strict=True):
            assert np.abs(one - other.numpy()).max() < 1e-4 * float(other.std())
    if "ori_noise" in settings:
        assert conventions["headings_deg"] == [-180, -90, 0, 90] and len(found) == 2


def test_the_example_in_the_docs(light, tmp_path, monkeypatch):
    """With onnxruntime and NumPy alone it finds the place that the evaluation would."""
    model, folder = light
    for name in ("light.onnx", "light.json"):
        (tmp_path / name).symlink_to(folder / name)
    (block,) = re.findall(
        r"(?:^    .*\n|^\n(?=    ))+", (PROJECT / "docs/EXPORT.md").read_text("utf-8").partition("## Example")[2], re.M
    )
    lines = textwrap.dedent(block).strip().splitlines()
    assert len(lines) <= 20 and {line.split()[1] for line in lines if line.startswith("import")} == {
        "json",
        "numpy",
        "onnxruntime",
    }
    batch = draw(model, 1)
    for name in ("panorama", "satellite", "mask"):
        np.save(tmp_path / f"{name}.npy", batch[name][0].permute(1, 2, 0).numpy())
    monkeypatch.chdir(tmp_path)
    names = {}
    exec("\n".join(lines), names)
    with torch.inference_mode():
        result = forward(model, batch | {"metres_per_pixel": torch.tensor([names["metres_per_pixel"]])})
    expected = locate(result.logits, model.settings.temperature)[0].tolist()
    assert (names["row"], names["col"]) == pytest.approx(expected, abs=1e-2)
    assert names["heat_map"].sum() == pytest.approx(1, abs=1e-4)


def test_what_cannot_be_exported(tmp_path, capsys):
    make(tmp_path, network="ground_plane")
    line = f"--model_path {tmp_path} --output {tmp_path}/light"
    assert "light: expected a name that ends in .onnx" in refusal("model.export", line, capsys)
    said = refusal("model.export", f"{line}.onnx --satellite_px 64 96", capsys)
    assert "--satellite_px 64 96: this network takes 64 x 64" in said
    assert not list(tmp_path.glob("*.onnx")) and not list(tmp_path.glob("*.json"))
