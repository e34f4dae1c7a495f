"""Flags of the picture scripts: network, pairs, output."""

import argparse
import re
from pathlib import Path

from common import flags
from common.errors import UserError
from common.settings import COUNT, RADIUS, Number
from common.view import BEND, IMAGE_PX, View
from common.words import in_words
from dataset.protocol import Protocol, Source
from engine.inference.asked import AS_TRAINED
from engine.run import made_folder
from engine.visualization.samples import Output, open_samples

LENS = ("hfov", "pitch", "roll", "intrinsics", "distortion")  # of a photograph, for `own_photograph`


def index_range(text):
    """'30' or '30-40' (both ends included) as a range."""
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if last < first:
        raise argparse.ArgumentTypeError(f"{text!r} is neither an index nor a range such as 30-40")
    return range(first, last + 1)


def add_samples(parser, network_needed=True, default=AS_TRAINED):
    """Add flags for the network and its pairs. Returns the group of which exactly one must be given.

    default: see `add_settings`.
    """
    group = parser.add_argument_group("what to draw")
    text = "a checkpoint, ours or published, a run folder, or 'pretrained'"
    text += "" if network_needed else "; your own images need none, see below"
    group.add_argument("--model_path", "--resume", required=network_needed, metavar="FILE", help=text)
    which = group.add_mutually_exclusive_group(required=True)
    text = "index in the list, as in the evaluation's CSV; several, or a range: 30-40"
    which.add_argument("--idx", "--img_idx", type=index_range, nargs="+", metavar="N", help=text)
    text = "the N largest errors in results/ beside the checkpoint, seen as in that evaluation"
    which.add_argument("--worst", type=COUNT, metavar="N", help=text)
    flags.add_settings(parser, Source, Protocol, View, default=default)
    return which


def add_circle(group, near, radius):
    """--near LAT LON and --radius M, with their help texts."""
    group.add_argument("--near", action=flags.Place, nargs=2, metavar=("LAT", "LON"), help=near)
    group.add_argument("--radius", type=RADIUS, metavar="M", help=radius)


def add_index_root(group):
    """The flag for the folder of city indexes."""
    root = "where indexes lie (default: search/index beside the checkpoint)"
    group.add_argument("--index_root", metavar="DIR", help=root)


def add_photograph(parser):
    """Flags for the camera of a user's photograph; a `View` has --hfov, --pitch and --roll."""
    about = "--hfov, --pitch (upwards) and --roll (clockwise) describe it; else EXIF's focal length is used"
    group = parser.add_argument_group("a photograph of your own", about)
    text, names = "in place of --hfov: focal lengths and principal point, pixels", ("FX", "FY", "CX", "CY")
    group.add_argument("--intrinsics", type=IMAGE_PX, nargs=4, metavar=names, help=text)
    text = "distortion of its lens, OpenCV's k1 k2 p1 p2 k3, or the first of them"
    group.add_argument("--distortion", type=BEND, nargs="+", metavar="K", help=text)


def read_lens(args):
    """{name: value} of the camera of a user's image: `LENS`, or a panorama's `vertical`. Raises UserError."""
    given = given_flags(args, *LENS, "vertical")
    if "hfov" in given:
        first, *further = given["hfov"]
        if further:
            raise UserError(f"--hfov {in_words(given['hfov'])}: a photograph has one field of view")
        given["hfov"] = first
    return given


def given_flags(args, *names):
    """{name: value} of those of some flags that are on the command line."""
    return {name: vars(args)[name] for name in names if vars(args).get(name) is not None}


def refuse_flags(args, names, reason):
    """Raises UserError if the command line has one of some flags that do not apply."""
    if unused := given_flags(args, *names):
        raise UserError(f"--{min(unused)} {reason}")


def add_output(parser, folder):
    """Flags for the pictures' folder, format and size. folder: name of the default, beside the checkpoint."""
    group = parser.add_argument_group("output")
    where = f"folder of the pictures (default: {folder}/ beside the checkpoint, or here without one)"
    group.add_argument("--output_dir", metavar="DIR", help=where)
    group.add_argument(
        "--dpi", type=Number(int, least=20, most=1200), default=150, metavar="N", help="dots per inch"
    )
    group.add_argument("--format", choices=("png", "pdf"), default="png", help="format of the pictures")
    flags.add_device(parser.add_argument_group("machine"))
    parser.set_defaults(folder=folder)


def read_samples(args, following=1):
    """The `Samples` that the flags name. following: number of pairs from each index on."""
    indices = (i for given in args.idx or [] for i in range(given.start, given.stop + following - 1))
    indices = list(dict.fromkeys(indices))
    given = given_flags(args, *Protocol.names(), *View.names())
    return open_samples(args.model_path, args.device, Source.pick(vars(args)), given, indices, args.worst)


def read_output(args):
    """The `Output` that the flags name."""
    beside = made_folder(args.model_path) if args.model_path else Path()
    return Output(args.output_dir or beside / args.folder, args.dpi, args.format)
