"""Draws mini-VIGOR: a small synthetic VIGOR in exactly VIGOR's layout, for those who do not have the real one.

    python -m dataset.mini_vigor --root data/mini_vigor
    python -m dataset.mini_vigor --root /tmp/tiny --panoramas 6 --panorama_width 128

The same seed gives the same bytes, whatever --workers. A set that was cut off is completed; a finished one is left alone.
"""

from common import flags
from dataset.mini_vigor.writer import CITIES, Drawing, make


def build_parser():
    """The command line."""
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("which folder and cities")
    group.add_argument(
        "--root", default="data/mini_vigor", metavar="DIR", help="new, empty, or begun with the same settings"
    )
    group.add_argument(
        "--cities",
        nargs="+",
        choices=CITIES,
        default=list(CITIES),
        metavar="CITY",
        help="which of VIGOR's four",
    )
    flags.add_settings(parser, Drawing)
    group = parser.add_argument_group("machine")
    group.add_argument(
        "--workers", type=flags.COUNT, default=2, metavar="N", help="processes; they do not change the result"
    )
    return parser


def main(args):
    """Run the command."""
    make(**vars(args))


if __name__ == "__main__":
    flags.run_script(main, build_parser())
