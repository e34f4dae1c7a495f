"""ONNX: the numbers of PyTorch, for any batch, and an example that needs neither PyTorch nor this project."""

import json
import re
import textwrap
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from children import PROJECT, SMALL_VIEW, call, make_network, refusal, save_network

from common.camera import Panorama, Pinhole
from engine.inference.decode import locate
from engine.inference.predictor import Predictor

pytestmark = pytest.mark.slow
CUT = replace(SMALL_VIEW, ori_noise=180.0, FoV=180.0, vertical=(50.0, 40.0))
PHOTO = replace(SMALL_VIEW, camera="photo", tilt_noise=5.0)
ANY_HEIGHT = {"network": "light", "heading_bins": 4, "height_factor": 1.3, "use_mask": False}
ANY_HEIGHT |= {"backbone": "timm:test_vit"}  # whose cells lie exactly east and west of the camera
CASES = {  # an export takes half a minute, so a few networks cover many features
    "light, any heading and height, a cut view": (ANY_HEIGHT, CUT, (64, 104)),
    "ground_plane, photographs, masks": ({"network": "ground_plane"}, PHOTO, (64, 64)),
}


@pytest.fixture(scope="module", params=CASES)
def exported(request, tmp_path_factory):
    """A network's `Predictor`, the folder that holds its export, and the size of its satellite images."""
    settings, view, size = CASES[request.param]
    network, folder = make_network(view, **settings), tmp_path_factory.mktemp("net")
    if network.tilt is not None:
        torch.nn.init.normal_(network.tilt.differences.weight)
    save_network(folder, network, view)
    line = f"--model_path {folder} --output {folder}/net.onnx --satellite_px {size[0]} {size[1]}"
    call("model.export", line)
    return Predictor(network, view, "cpu"), folder, size


def draw(view, B, size):
    """A batch of noise whose query images are cut already."""
    draw = torch.Generator().manual_seed(B)
    shapes = {"query": (B, 3, *view.query_px), "satellite": (B, 3, *size), "mask": (B, 1, *size)}
    batch = {k: torch.randint(0, 256, s, dtype=torch.uint8, generator=draw) for k, s in shapes.items()}
    camera = Panorama(torch.zeros(B, 1), view.FoV, *view.vertical)
    if view.photographs:
        camera = view.draw_cameras(torch.rand(B, view.CAMERA_DRAWS, generator=draw))[1]
    return batch | {"metres_per_pixel": torch.linspace(1.0, 1.15, B), "camera": camera}


def test_it_gives_the_numbers_of_pytorch(exported):
    predictor, folder, size = exported
    view, settings = predictor.view, predictor.settings
    session = onnxruntime.InferenceSession(folder / "net.onnx")
    conventions = json.loads((folder / "net.json").read_text())
    names = [given.name for given in session.get_inputs()]
    assert names == list(conventions["inputs"])
    assert ("mask" in names, "camera" in names) == (settings.use_mask, view.photographs)
    assert [given.name for given in session.get_outputs()] == list(conventions["outputs"])
    for B in (1, 3):
        batch = draw(view, B, size)
        arrays = {key: value.values if isinstance(value, Pinhole) else value for key, value in batch.items()}
        found = session.run(None, {key: arrays[key].numpy() for key in names})
        with torch.inference_mode():
            result = predictor(batch)
        expected = [result.logits, result.heading_scores][: len(found)]
        for given, other in zip(found, expected, strict=True):
            assert np.abs(given - other.numpy()).max() < 1e-4 * float(other.std())
    if view.ori_noise:
        assert conventions["headings_deg"] == [-180, -90, 0, 90] and len(found) == 2


def test_the_example_in_the_docs(exported, tmp_path, monkeypatch):
    """With onnxruntime and NumPy alone it finds the place that the evaluation would."""
    predictor, folder, size = exported
    if predictor.view.photographs:
        pytest.skip("the example is one of panoramas")
    for suffix in ("onnx", "json"):
        (tmp_path / f"light.{suffix}").symlink_to(folder / f"net.{suffix}")
    example = (PROJECT / "docs/EXPORT.md").read_text("utf-8").partition("## Example")[2]
    (block,) = re.findall(r"(?:^    .*\n|^\n(?=    ))+", example, re.M)
    lines = textwrap.dedent(block).strip().splitlines()
    imported = {line.split()[1] for line in lines if line.startswith("import")}
    assert len(lines) <= 20 and imported == {"json", "numpy", "onnxruntime"}
    batch = draw(predictor.view, 1, size)
    for name in ("query", "satellite", "mask"):
        np.save(tmp_path / f"{name}.npy", batch[name][0].permute(1, 2, 0).numpy())
    monkeypatch.chdir(tmp_path)
    names = {}
    exec("\n".join(lines), names)
    with torch.inference_mode():
        result = predictor(batch | {"metres_per_pixel": torch.tensor([names["metres_per_pixel"]])})
    expected = locate(result.logits, predictor.settings.temperature)[0].tolist()
    assert (names["row"], names["col"]) == pytest.approx(expected, abs=1e-2)
    assert names["heat_map"].sum() == pytest.approx(1, abs=1e-4)


def test_what_cannot_be_exported(tmp_path, capsys):
    save_network(tmp_path, make_network(network="ground_plane"))
    line = f"--model_path {tmp_path} --output {tmp_path}/light"
    assert "ends in .onnx" in refusal("model.export", line, capsys)
    assert "--satellite_px 64 96" in refusal("model.export", f"{line}.onnx --satellite_px 64 96", capsys)
    (tmp_path / "light.json").mkdir()  # what is written last is tried first
    assert "light.json" in refusal("model.export", f"{line}.onnx", capsys)
    assert not list(tmp_path.glob("*.onnx"))
