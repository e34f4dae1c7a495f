"""Write a network as ONNX, for programs without PyTorch, with its conventions in a JSON file beside it.

    python -m model.export --model_path runs/VIGOR/<run> --output light.onnx
    python -m model.export --model_path runs/VIGOR/<run> --output wide.onnx --satellite_px 128 256  # if light

Batches may have any size; image sizes are fixed. docs/EXPORT.md shows how to localize with it in NumPy.
The packages of requirements/export.txt are needed.
"""

import json
import warnings
from pathlib import Path

import onnxruntime
import onnxscript  # noqa: F401 - of torch.onnx.export, which notices that it is missing after half a minute
import torch
from torch import nn

from common import flags, settings
from common.camera import Panorama, Pinhole
from common.errors import UserError
from common.files import replacing, try_writing
from common.geometry import view_columns
from efficientnet_pytorch.utils import normalise
from model.checkpoint import load_model
from model.interface import Inputs
from model.matching.ground_plane import FINEST

OPSET = 18
MOST_DIFFERENT = 1e-3  # outputs of an exported network, in standard deviations of PyTorch's
_GRAPH = 1_500_000  # bytes of a file beside its weights, at most
_CAMERA = (
    f"float32, of each photograph: {', '.join(Pinhole.NAMES)}. Degrees: bearing of the axis as far as known, "
    "upwards, clockwise; focal lengths and principal point in widths and heights; OpenCV's distortion"
)
_LOGITS = (
    "float32, (batch, height, width), one per satellite pixel; divided by the temperature, their softmax "
    "over all pixels is the heat map. Pixel i covers [i, i + 1); its centre is i + 0.5; rows grow to the "
    "south, columns to the east"
)
_SCORES = (
    f"float32, (batch, heading, row, column), cells of {FINEST} px: log-likelihoods of the true bearing of "
    "the query image's centre, degrees clockwise from north"
)


class Exported(nn.Module):
    """A network from uint8 images to logits and, if it tries several headings, their scores."""

    def __init__(self, network, view):
        super().__init__()
        self.network, self.view = network, view

    def forward(self, query, satellite, mask=None, metres_per_pixel=None, camera=None):
        """Logits, and heading scores if there are any, of uint8 images (B, channels, height, width).

        metres_per_pixel (B,) and camera (B, 12) of photographs, by `Pinhole.NAMES`, are None where unused.
        """
        if camera is None:
            width = self.view.panorama_size[1]
            start, stop = view_columns(self.view.FoV, width)
            north = query.new_zeros((query.shape[0], 1), dtype=torch.float32)
            camera = Panorama(north, 360 * (stop - start) / width, *self.view.vertical)
        else:
            camera = Pinhole(camera)
        mask = None if mask is None else mask.float() / 255
        images = normalise(query), camera, normalise(satellite)
        prior = {"heading_noise": self.view.ori_noise, "usual_height": self.view.usual_height}
        found = self.network(Inputs(*images, metres_per_pixel, mask, **prior))
        return found.logits if found.heading_scores is None else (found.logits, found.heading_scores)


def export(checkpoint, path, satellite_px=None):
    """Write the network of a `Checkpoint`, on the CPU, as ONNX, and its conventions as .json; returns these.

    satellite_px: (height, width) of satellite images, by default those of training; the light network takes
    any. Raises UserError, also if the written network answers differently.
    """
    network, view = checkpoint.network, checkpoint.view
    side = view.satellite_size
    size = satellite_px or (side, side)
    if not network.any_size and size != (side, side):
        raise UserError(f"--satellite_px {size[0]} {size[1]}: this network takes {side} x {side}")
    middle = torch.full((2, view.CAMERA_DRAWS), 0.5)
    inputs = {
        "query": torch.zeros(2, 3, *view.query_px, dtype=torch.uint8),
        "satellite": torch.zeros(2, 3, *size, dtype=torch.uint8),
        "mask": torch.zeros(2, 1, *size, dtype=torch.uint8) if checkpoint.settings.use_mask else None,
        "metres_per_pixel": torch.full((2,), 0.11 * 640 / side) if network.matching.has_templates else None,
        "camera": view.draw_cameras(middle)[1].values if view.photographs else None,
    }
    inputs = {name: value for name, value in inputs.items() if value is not None}
    hypotheses = network.hypotheses(view.ori_noise)
    headings = [0.0] if hypotheses is None else hypotheses.headings.tolist()
    batch = torch.export.Dim("batch", min=1)
    conventions, described = _conventions(checkpoint, inputs, headings), Path(path).with_suffix(".json")
    try_writing(described)  # exporting takes half a minute
    try_writing(path, _GRAPH + sum(value.nbytes for value in network.state_dict().values()))
    # The conventions are written last, so a network without them is recognizably incomplete.
    with replacing(described) as text, replacing(path) as beside, warnings.catch_warnings():
        text.write_text(json.dumps(conventions, indent=2, ensure_ascii=False) + "\n", "utf-8")
        warnings.filterwarnings("ignore", "# The axis name")  # all inputs intentionally share the batch's
        module = Exported(network, view).eval()
        torch.onnx.export(
            module,
            kwargs=inputs,
            f=str(beside),
            input_names=list(inputs),
            output_names=["logits", "heading_scores"][: min(len(headings), 2)],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes={name: {0: batch} for name in inputs},
            external_data=False,
            verbose=False,
        )
        if (apart := difference(beside, module, inputs)) > MOST_DIFFERENT:
            says = f"the exported network differs by {apart:.2g} standard deviations from PyTorch's"
            raise UserError(f"{path}: {says}; --backbone {checkpoint.settings.backbone} cannot be exported")
        described.unlink(missing_ok=True)
    return conventions


def difference(path, module, inputs):
    """The largest difference between ONNX Runtime's outputs and a module's, in standard deviations of these.

    path: the exported module. inputs: {name: tensor}, whose images are replaced by noise.
    """
    draw = torch.Generator().manual_seed(0)
    given = {
        name: torch.randint(256, x.shape, dtype=x.dtype, generator=draw) if x.dtype == torch.uint8 else x
        for name, x in inputs.items()
    }
    session = onnxruntime.InferenceSession(path)
    found = session.run(None, {name: x.numpy() for name, x in given.items()})
    with torch.inference_mode():
        expected = module(**given)
    expected = (expected,) if isinstance(expected, torch.Tensor) else expected
    pairs = zip(found, expected, strict=True)
    return max(float((torch.from_numpy(one) - other).abs().max() / other.std()) for one, other in pairs)


def _conventions(checkpoint, inputs, headings):
    view, network = checkpoint.view, checkpoint.settings
    if view.photographs:
        query, relative = "uint8 RGB, a photograph", ", relative to the heading in camera"
    else:
        top, bottom = view.vertical
        query = f"uint8 RGB, {top:g} degrees above to {bottom:g} below the horizon, {view.FoV:g} degrees "
        query += "about the centre; a column further right is seen further clockwise, "
        north = "north in the centre", f"the centre within {view.ori_noise:g} degrees of north"
        query, relative = query + north[view.ori_noise > 0], ""
    says = {
        "camera": _CAMERA,
        "query": query,
        "satellite": "uint8 RGB, north up",
        "mask": "uint8, 255 where a camera may stand, 0 elsewhere",
        "metres_per_pixel": "float32, of the satellite image at this size",
    }
    outputs = {"logits": _LOGITS}
    if len(headings) > 1:
        outputs["heading_scores"] = _SCORES + relative
    return {
        "network": network.network,
        "checkpoint_sha256": checkpoint.sha256,
        "inputs": {name: {"shape": ["batch", *x.shape[1:]], "is": says[name]} for name, x in inputs.items()},
        "outputs": outputs,
        "temperature": network.temperature,
        "headings_deg": headings,
        "normalisation": "inside the network: give uint8",
    }


def build_parser():
    """The command line."""
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("files")
    text = "a run folder or its best.pt, ours or published"
    group.add_argument("--model_path", required=True, metavar="RUN", help=text)
    text = "the .onnx file to write; its conventions go to .json beside it"
    group.add_argument("--output", required=True, metavar="FILE", help=text)
    group = parser.add_argument_group("sizes")
    text = "of satellite images (default: as trained); other sizes are for the light network"
    side = settings.Number(int, least=32, most=4096)
    group.add_argument("--satellite_px", type=side, nargs=2, metavar=("H", "W"), help=text)
    return parser


def main(args):
    """Run the command."""
    output = Path(args.output)
    if output.suffix != ".onnx":
        raise UserError(f"--output {output}: expected a name that ends in .onnx")
    conventions = export(load_model(args.model_path), output, args.satellite_px and tuple(args.satellite_px))
    inputs = conventions["inputs"].items()
    shapes = ", ".join(f"{name} {' x '.join(map(str, about['shape']))}" for name, about in inputs)
    megabytes = output.stat().st_size / 1e6
    print(f"{output}: {conventions['network']} network, {megabytes:.2f} MB, takes {shapes}")
    print(f"{output.with_suffix('.json')}: its inputs and outputs")


if __name__ == "__main__":
    flags.run_script(main, build_parser())
