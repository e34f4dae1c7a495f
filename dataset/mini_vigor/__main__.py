"""Draw mini-VIGOR: a small synthetic VIGOR in exactly VIGOR's layout, for use without the real data set.

    python -m dataset.mini_vigor --root data/mini_vigor
    python -m dataset.mini_vigor --root /tmp/tiny --panoramas 6 --panorama_width 128
    python -m dataset.mini_vigor --root data/drives --styles varied --drives 8 --frames 40 --spacing 4
    python -m dataset.mini_vigor --root data/phone --label_noise 4 --heading_noise 10 --outliers 0.05

The same seed gives the same bytes for any number of workers. The command completes an unfinished set and
leaves a finished one unchanged.
"""

from common import flags
from common.settings import THREADS
from dataset.mini_vigor.drives import Drives, make_drives
from dataset.mini_vigor.labels import LabelNoise, write_wrong_labels
from dataset.mini_vigor.writer import CITIES, Drawing, make


def build_parser():
    """The command line."""
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("which folder and cities")
    about = "new, empty, or begun with the same settings"
    group.add_argument("--root", default="data/mini_vigor", metavar="DIR", help=about)
    cities = {"choices": CITIES, "default": list(CITIES), "metavar": "CITY"}
    group.add_argument("--cities", nargs="+", **cities, help="some of VIGOR's four")
    flags.add_settings(parser, Drawing, Drives, LabelNoise)
    group, about = parser.add_argument_group("machine"), "processes; the result does not depend on them"
    group.add_argument("--workers", type=THREADS, default=2, metavar="N", help=about)
    return parser


def main(args):
    """Run the command."""
    given = vars(args)
    drives = Drives.pick(given)
    machine = {name: given[name] for name in ("cities", "workers")}
    make(args.root, **machine, **Drawing.given(given))
    if drives.drives:
        make_drives(args.root, Drawing.pick(given), drives, **machine)
    if (noise := LabelNoise.pick(given)).drawn:
        write_wrong_labels(args.root, args.cities, noise, Drawing.pick(given).seed)
        print(f"{args.root}/splits holds wrong labels, which --labels original reads")


if __name__ == "__main__":
    flags.run_script(main, build_parser())
