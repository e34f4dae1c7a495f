"""Draws mini-VIGOR: a small synthetic VIGOR in exactly VIGOR's layout, for those who do not have the real one.

    python -m dataset.mini_vigor --root data/mini_vigor
    python -m dataset.mini_vigor --root /tmp/tiny --panoramas 6 --panorama_width 128

The same seed gives the same bytes, whatever --workers. A set that was cut off is completed; a finished one is left alone.
"""

from common import flags
from dataset.mini_vigor.writer import CITIES, make


def build_parser():
    """The command line."""
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("what is drawn")
    group.add_argument("--root", default="data/mini_vigor", metavar="DIR", help="new, empty, or begun with the same settings")
    group.add_argument(
        "--panoramas", type=int, default=300, metavar="N", help="in each city, about as many satellite images; 2 or more"
    )
    group.add_argument("--panorama_width", type=int, default=512, metavar="PX", help="a multiple of 4 from 64 to 4096")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="another seed, other cities; 0 or more")
    group.add_argument("--cities", nargs="+", default=list(CITIES), metavar="CITY", help="which of VIGOR's four")
    group = parser.add_argument_group("machine")
    group.add_argument("--workers", type=int, default=2, metavar="N", help="processes; the result does not depend on them")
    return parser


def main(args):
    """Run the command."""
    make(args.root, args.panoramas, args.panorama_width, args.seed, args.workers, args.cities)


if __name__ == "__main__":
    flags.run_script(main, build_parser())
