"""Flags of the scripts that measure and draw: which network, which pairs, seen how."""

from common import flags
from dataset.index import AREAS, LABELS, SPLITS
from dataset.vigor import ON_BAD_IMAGE
from engine.evaluation.conditions import Source


def add_data(parser):
    """Where the data comes from, and the conditions; what is not given stays None."""
    group = parser.add_argument_group("data")
    flags.add_dataset_root(group)
    group.add_argument(
        "--labels", choices=LABELS, help="splits__corrected, positions from the file names, or splits (default: as trained)"
    )
    group.add_argument("--cache_root", metavar="DIR", help="small copies of the images, made by python -m dataset.cache")
    group.add_argument(
        "--on_bad_image",
        choices=ON_BAD_IMAGE,
        default="error",
        help="stop at an unreadable image, or drop its pairs and count them",
    )
    group.add_argument(
        "--orientation_file", metavar="NPY", help="fixed headings of the test list: degrees as CCVPE publishes them"
    )
    group.add_argument("--area", choices=AREAS, help="default: the area that the network was trained for")
    group.add_argument("--split", choices=SPLITS, help="which part (default: test)")
    group.add_argument(
        "--pos_only",
        type=flags.BOOLEAN,
        metavar="BOOL",
        help="False: also the semi-positives that contain the panorama, each behind its positive (default: True)",
    )
    group.add_argument(
        "--ori_noise", type=flags.HEADING_NOISE, metavar="DEG", help="headings within +- degrees (default: as trained)"
    )
    group.add_argument(
        "-f", "--FoV", type=flags.FIELD_OF_VIEW, metavar="DEG", help="degrees of the panorama that are kept (default: as trained)"
    )
    group.add_argument(
        "--seed", type=flags.COUNT_OR_NONE, metavar="N", help="of the headings, with each panorama's name (default: 0)"
    )


def read_source(args):
    """The `Source` that the flags of `add_data` name."""
    return Source(args.dataset_root, args.cache_root, args.on_bad_image)


def read_conditions(args):
    """The conditions that the flags of `add_data` name, None where they leave one open, as `Conditions.of` takes them."""
    names = {"ori_noise": "ori_noise_deg", "FoV": "FoV_deg"}
    wanted = ("area", "split", "labels", "pos_only", "ori_noise", "FoV", "seed", "orientation_file")
    return {names.get(name, name): getattr(args, name) for name in wanted}
