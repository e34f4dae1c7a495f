"""Flags of the picture scripts: which network, which pairs, where pictures go."""

import argparse
import re
from pathlib import Path

from common import flags
from common.errors import UserError
from engine.evaluation.conditions import Asked, Source
from engine.visualization.samples import Output, open_samples
from model.checkpoint import checkpoint_file
from model.settings import ANGLE, HFOV


def index_range(text):
    """'30' or '30-40' (both ends included) as a range."""
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if last < first:
        raise argparse.ArgumentTypeError(f"{text!r} is neither an index, 0 or more, nor a range such as 30-40")
    return range(first, last + 1)


def add_samples(parser, network_needed=True):
    """Flags that say which network and which pairs. Returns the group of alternatives, of which one has to be given."""
    group = parser.add_argument_group("what to draw")
    group.add_argument(
        "--model_path",
        "--resume",
        required=network_needed,
        metavar="FILE",
        help="a checkpoint, ours or published, a run folder, or 'pretrained'"
        + ("" if network_needed else "; see below for going without"),
    )
    which = group.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--idx",
        "--img_idx",
        type=index_range,
        nargs="+",
        metavar="N",
        help="index in the list, as in the evaluation's CSV; several, or a range: 30-40",
    )
    which.add_argument(
        "--worst",
        type=flags.COUNT,
        metavar="N",
        help="the N largest errors in results/ beside the checkpoint, under the conditions of that evaluation",
    )
    flags.add_settings(parser, Source, Asked)
    return which


LENS = ("hfov", "pitch", "roll", "intrinsics", "distortion")  # flags of a photograph's camera, as `own_photograph` takes them


def add_photograph(parser):
    """Flags that tell the camera of a photograph of one's own; the fields of view and tilts of lists' photographs share names."""
    about = "EXIF's focal length and orientation are read; what is told here wins"
    group = parser.add_argument_group("a photograph of your own", about)
    group.add_argument(
        "--intrinsics",
        type=float,
        nargs=4,
        metavar=("FX", "FY", "CX", "CY"),
        help="in pixels of the photograph, in place of --hfov: focal lengths and principal point",
    )
    group.add_argument(
        "--distortion", type=float, nargs="+", metavar="K", help="of its lens, OpenCV's k1 k2 p1 p2 k3, or the first of them"
    )


def read_lens(args):
    """What flags tell of a photograph's camera, by the names of `LENS`; None: not told. Raises UserError."""
    told = {name: getattr(args, name, None) for name in LENS}
    if told["hfov"] is not None:
        if len(told["hfov"]) > 1:
            raise UserError(f"--hfov {' '.join(f'{one:g}' for one in told['hfov'])}: a photograph has one field of view")
        told["hfov"] = told["hfov"][0]
    return told


def read_view(*words):
    """What a form tells of a photograph's camera, as `read_lens` gives it: field of view and, where known, pitch and roll.

    Raises ArgumentTypeError.
    """
    if len(words) > 3:
        raise argparse.ArgumentTypeError(f"{' '.join(words)!r}: expected a field of view, a pitch and a roll, in degrees")
    checks = {"hfov": HFOV, "pitch": ANGLE, "roll": ANGLE}
    return {name: check(word) for (name, check), word in zip(checks.items(), words, strict=False)}


def add_output(parser, folder):
    """Flags that say where pictures go, and how large they are. folder: the default's name, beside the checkpoint."""
    group = parser.add_argument_group("output")
    group.add_argument("--output_dir", metavar="DIR", help=f"default: {folder}/ beside the checkpoint, or here without one")
    group.add_argument("--dpi", type=flags.Number(int, least=20), default=150, metavar="N", help="dots per inch")
    group.add_argument("--format", choices=("png", "pdf"), default="png", help="of the pictures")
    flags.add_device(parser.add_argument_group("machine"))
    parser.set_defaults(folder=folder)


def read_samples(args, following=1):
    """The `Samples` that the flags name; following: so many from each index on."""
    indices = [i for given in args.idx or [] for i in range(given.start, given.stop + following - 1)]
    source, asked = Source.pick(vars(args)), Asked.pick(vars(args))
    return open_samples(args.model_path, args.device, source, asked, indices, args.worst)


def read_output(args):
    """The `Output` that the flags name."""
    beside = checkpoint_file(args.model_path).parent if args.model_path else Path()
    return Output(args.output_dir or beside / args.folder, args.dpi, args.format)
