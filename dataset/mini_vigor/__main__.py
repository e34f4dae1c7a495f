"""Draws mini-VIGOR: a small synthetic VIGOR in exactly VIGOR's layout, for use without the real data set.

    python -m dataset.mini_vigor --root data/mini_vigor
    python -m dataset.mini_vigor --root /tmp/tiny --panoramas 6 --panorama_width 128

The same seed gives the same bytes for any number of workers. The command completes an unfinished set and
leaves a finished one unchanged.
"""

from common import flags, settings
from dataset.mini_vigor.writer import CITIES, Drawing, make


def build_parser():
    """The command line."""
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("which folder and cities")
    text = "new, empty, or begun with the same settings"
    group.add_argument("--root", default="data/mini_vigor", metavar="DIR", help=text)
    text, every = "some of VIGOR's four", list(CITIES)
    group.add_argument("--cities", nargs="+", choices=CITIES, default=every, metavar="CITY", help=text)
    flags.add_settings(parser, Drawing)
    group, text = parser.add_argument_group("machine"), "processes; the result does not depend on them"
    group.add_argument("--workers", type=settings.COUNT, default=2, metavar="N", help=text)
    return parser


def main(args):
    """Run the command."""
    make(**vars(args))


if __name__ == "__main__":
    flags.run_script(main, build_parser())
