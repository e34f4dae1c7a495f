"""Write a network as ONNX, for programs without PyTorch, with its conventions in a JSON file beside it.

    python -m model.export --model_path runs/VIGOR/<run> --output light.onnx
    python -m model.export --model_path runs/VIGOR/<run> --output wide.onnx --satellite_px 128 256   # light: any size

Batches of any size; images of the sizes given. docs/EXPORT.md localizes with it in twenty lines of NumPy.
"""

import json
import warnings
from pathlib import Path

import torch
from torch import nn

from common import flags
from common.camera import NAMES, CameraRange
from common.errors import UserError
from common.files import replacing
from efficientnet_pytorch.utils import normalise
from model.checkpoint import load_model
from model.matching.ground_plane import FINEST

OPSET = 18


class Exported(nn.Module):
    """A network from uint8 images to its logits, and the scores of its headings where it has several."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, panorama, satellite, mask=None, metres_per_pixel=None, camera=None):
        """panorama, satellite: (B, 3, ., .) uint8 · mask: (B, 1, ., .) uint8 · metres_per_pixel: (B,) · camera: (B, 12).

        All but the images may be None.
        """
        mask = None if mask is None else mask.float() / 255
        known = {"metres_per_pixel": metres_per_pixel, "camera": camera}
        result = self.model(normalise(panorama), normalise(satellite), mask, **known)
        return result.logits if result.heading_scores is None else (result.logits, result.heading_scores)


def export(loaded, path, satellite_px=None):
    """Write the network of a `Loaded`, on the CPU, as ONNX, and its conventions beside it as .json; gives these as a dict.

    satellite_px: (height, width) of satellite images where not those of training; the light network takes any. Raises UserError.
    """
    model, settings = loaded.model, loaded.settings
    size = satellite_px or model.satellite_size
    if not model.any_size and size != model.satellite_size:
        raise UserError(
            f"--satellite_px {size[0]} {size[1]}: this network takes {settings.satellite_size} x {settings.satellite_size}"
        )
    inputs = {
        "panorama": torch.zeros(2, 3, *model.view_size, dtype=torch.uint8),
        "satellite": torch.zeros(2, 3, *size, dtype=torch.uint8),
        "mask": torch.zeros(2, 1, *size, dtype=torch.uint8) if settings.use_mask else None,
        "metres_per_pixel": torch.full((2,), 0.11 * 640 / settings.satellite_size) if model.matching.has_templates else None,
        "camera": settings.cameras.draw(torch.full((2, CameraRange.DRAWS), 0.5))[1] if settings.cameras else None,
    }
    inputs = {name: value for name, value in inputs.items() if value is not None}
    headings = getattr(model.matching, "headings", torch.zeros(1)).tolist()
    outputs = ["logits", "heading_scores"][: min(len(headings), 2)]
    batch = torch.export.Dim("batch", min=1)
    with replacing(path) as beside, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "# The axis name")  # one name for every input's batch is what is meant
        torch.onnx.export(
            Exported(model).eval(),
            kwargs=inputs,
            f=str(beside),
            input_names=list(inputs),
            output_names=outputs,
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes={name: {0: batch} for name in inputs},
            external_data=False,
            verbose=False,
        )
    conventions = _conventions(loaded, inputs, headings)
    with replacing(Path(path).with_suffix(".json")) as beside:
        beside.write_text(json.dumps(conventions, indent=2, ensure_ascii=False) + "\n")
    return conventions


def _conventions(loaded, inputs, headings):
    settings = loaded.settings
    relative = ", relative to the heading in camera" if settings.cameras else ""
    says = {
        "camera": f"float32, of each photograph: {', '.join(NAMES)}. Degrees: bearing of the axis as far as known, upwards, "
        "clockwise; focal lengths and principal point in widths and heights of the image; OpenCV's distortion",
        "panorama": "uint8 RGB, a photograph"
        if settings.cameras
        else f"uint8 RGB, zenith to nadir, the {settings.FoV:g} degrees about the centre; a column further right is seen "
        "further clockwise"
        + (
            ", north in the centre" if settings.ori_noise == 0 else f", the centre within {settings.ori_noise:g} degrees of north"
        ),
        "satellite": "uint8 RGB, north up",
        "mask": "uint8, 255 where a camera may stand, 0 elsewhere",
        "metres_per_pixel": "float32, of the satellite image at this size",
    }
    known = {name: {"shape": ["batch", *value.shape[1:]], "is": says[name]} for name, value in inputs.items()}
    outputs = {
        "logits": "float32, (batch, height, width), one per satellite pixel; divided by the temperature, their softmax over all "
        "pixels is the heat map. Pixel i covers [i, i + 1); its centre is i + 0.5; rows grow to the south, columns to the east"
    }
    if len(headings) > 1:
        outputs["heading_scores"] = (
            f"float32, (batch, heading, row, column), cells of {FINEST} px: log-likelihoods of the true bearing of the "
            f"street image's centre, degrees clockwise from north{relative}"
        )
    return {
        "network": settings.network,
        "checkpoint_sha256": loaded.sha256,
        "inputs": known,
        "outputs": outputs,
        "temperature": settings.temperature,
        "headings_deg": headings,
        "normalisation": "inside the network: hand over uint8",
    }


def build_parser():
    """The command line."""
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("files")
    group.add_argument("--model_path", required=True, metavar="RUN", help="a run folder or its best.pt, ours or published")
    group.add_argument(
        "--output", required=True, metavar="FILE", help="the .onnx file to write; its conventions go to .json beside"
    )
    group = parser.add_argument_group("sizes")
    group.add_argument(
        "--satellite_px",
        type=flags.Number(int, least=32),
        nargs=2,
        metavar=("H", "W"),
        help="of satellite images (default: as trained); other sizes are for the light network",
    )
    return parser


def main(args):
    """Run the command."""
    if Path(args.output).suffix != ".onnx":
        raise UserError(f"--output {args.output}: expected a name that ends in .onnx")
    loaded = load_model(args.model_path)
    conventions = export(loaded, args.output, args.satellite_px and tuple(args.satellite_px))
    shapes = ", ".join(f"{name} {' x '.join(map(str, about['shape']))}" for name, about in conventions["inputs"].items())
    megabytes = Path(args.output).stat().st_size / 1e6
    print(f"{args.output}: {conventions['network']} network, {megabytes:.2f} MB, takes {shapes}")
    print(f"{Path(args.output).with_suffix('.json')}: what goes in and what comes out")


if __name__ == "__main__":
    flags.run_script(main, build_parser())
