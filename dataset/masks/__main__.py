"""Semantic masks for VIGOR and for cities of one's own: where a camera may stand, by OpenStreetMap.

    python -m dataset.masks --dataset_root /data/VIGOR --osm ny.osm.pbf wa.osm.pbf ca.osm.pbf il.osm.pbf
    python -m dataset.masks --dataset_root /data/VIGOR --osm ny.osm.pbf --cities NewYork --also area_highway service
    python -m dataset.masks --dataset_root /data/VIGOR --osm il.osm.pbf --cities Chicago --method sam

Extracts of states and cities are to be had from Geofabrik and BBBike. Stopped half-way, the same command goes on where it was.
Masks that come from OpenStreetMap are its data: (c) OpenStreetMap contributors, Open Database License.
"""

from common import flags, settings
from common.errors import UserError
from dataset.index import find_root
from dataset.masks.osm import KINDS
from dataset.masks.writer import FOLDER, METHODS, PROMPTS, Prompted, write_masks
from dataset.sets import refuse_other_sets

SAM = "facebook/sam-vit-huge"


def build_parser():
    """The command line."""
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("which masks")
    flags.add_dataset_root(group)
    group.add_argument("--osm", nargs="+", metavar="FILE", help="OpenStreetMap extracts, .osm.pbf or .osm")
    group.add_argument("--cities", nargs="+", metavar="CITY", help="of the folder; default: all")
    group.add_argument("--folder", default=FOLDER, metavar="NAME", help="of the masks, in each city's folder")
    group = parser.add_argument_group("where a camera may stand")
    kinds = "; ".join(f"{name}: {what}" for name, what in KINDS.items())
    group.add_argument(
        "--also",
        nargs="*",
        choices=tuple(KINDS),
        default=["area_highway"],
        metavar="KIND",
        help=f"all that counts beside carriageways. {kinds}",
    )
    group.add_argument("--method", choices=METHODS, default="streets", help="streets as mapped, or Segment Anything with points")
    group = parser.add_argument_group("Segment Anything", "needs the package transformers; --method sam")
    text = f"on the Hugging Face Hub, or a local folder (default: {SAM})"
    group.add_argument("--sam_model", metavar="NAME", help=text)
    text = "points along OpenStreetMap's centre lines, or training panoramas' positions, never test panoramas' (default: osm)"
    group.add_argument("--prompts", choices=PROMPTS, help=text)
    text = "metres between points along a line (default: 8)"
    group.add_argument("--spacing", type=settings.POSITIVE, metavar="M", help=text)
    flags.add_device(group)
    flags.add_workers(parser.add_argument_group("machine"))
    return parser


def main(args):
    """Run the command."""
    root, prompted = find_root(args.dataset_root), None
    refuse_other_sets(root, "dataset.masks")
    if args.method != "sam":
        if asked := [name for name in ("sam_model", "prompts", "spacing") if getattr(args, name) is not None]:
            raise UserError(f"--{asked[0]} needs --method sam")
    else:
        try:
            from dataset.masks.sam import Segmenter  # an optional package, and of this method alone
        except ImportError:
            raise UserError("--method sam needs the package transformers: pip install transformers") from None
        model = args.sam_model or SAM
        prompted = Prompted(Segmenter(model, args.device).mask, model, args.prompts or "osm", args.spacing or 8.0)
    options = {name: getattr(args, name) for name in ("cities", "folder", "also", "workers")}
    reports, notes = write_masks(root, osm=args.osm or (), **options, prompted=prompted)
    for report in reports:
        print(*report.lines(), sep="\n")
    for what, often in notes.items():
        print(f"{often} x {what}")


if __name__ == "__main__":
    flags.run_script(main, build_parser())
