"""Draws mini-VIGOR: a small synthetic VIGOR in exactly VIGOR's layout, for use without the real data set.

    python -m dataset.mini_vigor --root data/mini_vigor
    python -m dataset.mini_vigor --root /tmp/tiny --panoramas 6 --panorama_width 128

The same seed gives the same bytes for any number of workers. The command completes an unfinished set and leaves a
finished one unchanged.
"""

from common import flags
from dataset.mini_vigor.writer import CITIES, Drawing, make


def build_parser():
    """The command line."""
    parser = flags.make_parser(__doc__)
    add = parser.add_argument_group("which folder and cities").add_argument
    add(
        "--root", default="data/mini_vigor", metavar="DIR", help="new, empty, or begun with the same settings"
    )
    add(
        "--cities",
        nargs="+",
        choices=CITIES,
        default=list(CITIES),
        metavar="CITY",
        help="some of VIGOR's four",
    )
    flags.add_settings(parser, Drawing)
    add = parser.add_argument_group("machine").add_argument
    add(
        "--workers",
        type=flags.COUNT,
        default=2,
        metavar="N",
        help="processes; any number gives the same result",
    )
    return parser


def main(args):
    """Run the command."""
    make(**vars(args))


if __name__ == "__main__":
    flags.run_script(main, build_parser())
