"""Write semantic masks, which mark where a camera may stand, from OpenStreetMap.

    python -m dataset.masks --dataset_root /data/VIGOR --osm ny.osm.pbf wa.osm.pbf ca.osm.pbf il.osm.pbf
    python -m dataset.masks --dataset_root /data/VIGOR --osm ny.osm.pbf --cities NewYork --also service
    python -m dataset.masks --dataset_root /data/VIGOR --osm il.osm.pbf --cities Chicago --method sam

Geofabrik and BBBike offer extracts of states and cities. The same command continues a stopped run.
The masks are OpenStreetMap data: (c) OpenStreetMap contributors, Open Database License. The packages of
requirements/city.txt are needed.
"""

from common import flags, settings
from common.errors import UserError
from dataset.masks.osm import add_also
from dataset.masks.writer import FOLDER, METHODS, PROMPTS, Prompted, write_masks
from dataset.roots import find_root

_OF_SAM = ("sam_model", "prompts", "spacing", "device")
SAM = "facebook/sam-vit-huge"


def build_parser():
    """The command line."""
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("which masks")
    flags.add_dataset_root(group)
    group.add_argument("--osm", nargs="+", metavar="FILE", help="OpenStreetMap extracts, .osm.pbf or .osm")
    group.add_argument("--cities", nargs="+", metavar="CITY", help="cities of the data set (default: all)")
    text = f"folder of the masks (default: {FOLDER} in each city; masks in a data set with its own layout)"
    group.add_argument("--folder", metavar="NAME", help=text)
    group = parser.add_argument_group("where a camera may stand")
    add_also(group)
    text = "draw the streets of the map, or segment images with Segment Anything"
    group.add_argument("--method", choices=METHODS, default="streets", help=text)
    group = parser.add_argument_group("Segment Anything", "--method sam, needs requirements/sam.txt")
    text = f"model on the Hugging Face Hub, or a local folder (default: {SAM})"
    group.add_argument("--sam_model", metavar="NAME", help=text)
    text = "points along OpenStreetMap's centre lines, or positions of training panoramas (default: osm)"
    group.add_argument("--prompts", choices=PROMPTS, help=text)
    text = "metres between points along a line (default: 8)"
    group.add_argument("--spacing", type=settings.POSITIVE, metavar="M", help=text)
    flags.add_device(group)
    parser.set_defaults(device=None)
    flags.add_workers(parser.add_argument_group("machine"))
    return parser


def main(args):
    """Run the command."""
    root, prompted = find_root(args.dataset_root), None
    if args.method == "sam":
        from dataset.masks.sam import Segmenter  # needs requirements/sam.txt

        model = args.sam_model or SAM
        segment = Segmenter(model, args.device or "auto").mask
        prompted = Prompted(segment, model, args.prompts or "osm", args.spacing or 8.0)
        if prompted.prompts == "panoramas" and (args.osm or args.spacing):
            unused = "--osm" if args.osm else "--spacing"
            raise UserError(f"{unused}: --prompts panoramas takes points from the lists, not from a map")
    elif given := [name for name in _OF_SAM if getattr(args, name) is not None]:
        raise UserError(f"--{given[0]} needs --method sam")
    options = {name: getattr(args, name) for name in ("cities", "folder", "also", "workers")}
    reports, notes = write_masks(root, osm=args.osm or (), **options, prompted=prompted)
    for report in reports:
        print(*report.lines(), sep="\n")
    for note, count in notes.items():
        print(f"{count} x {note}")


if __name__ == "__main__":
    flags.run_script(main, build_parser())
