"""A city of your own in VIGOR's layout: a table of panoramas or photographs and imagery in, a folder for every command out.

    python -m dataset.build --root data/Delft --city Delft --panoramas delft.csv --imagery delft_8cm.tif --osm delft.osm.pbf
    python -m dataset.build --root data/Delft --city Delft --panoramas delft.csv --imagery 'https://host/{z}/{x}/{y}.jpg'
    python -m dataset.build --root data/walk --city Walk --photos walk.csv --imagery delft_8cm.tif
    python train_VIGOR.py --dataset_root data/Delft --network light

The table is a CSV file with the columns file, latitude, longitude and heading (true bearing of the centre column, degrees), and
where known camera_height (metres), sequence and split (train or test); EXIF and XMP fill what a line leaves empty. That of
photographs may also say hfov, pitch and roll (degrees), fx, fy, cx and cy (pixels), k1, k2, p1, p2 and k3; heading is then that
of the optical axis. Where it was stopped, or a tile could not be had, the same command goes on. Several cities may share a root.
"""

import re
from pathlib import Path

from common import flags, settings
from common.errors import UserError
from common.files import replacing
from dataset.build import report
from dataset.build.imagery import open_imagery
from dataset.build.provider import REQUESTS_PER_SECOND, USER_AGENT, ZOOM
from dataset.build.table import read_table
from dataset.build.writer import Layout, build_city, check_extents, finish, map_positions
from dataset.masks.osm import KINDS, stated_box
from dataset.masks.writer import FOLDER, check_masks, write_masks

PICTURE = "build.png"
_TAKEN = ("splits", "splits__corrected", "tiles", "osm")  # names of a root's other folders


def build_parser():
    """The command line."""
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("what is built")
    group.add_argument("--root", required=True, metavar="DIR", help="the folder of the data set; other cities may lie in it")
    group.add_argument("--city", required=True, metavar="NAME", help="its folder: letters, digits, - and _")
    street = group.add_mutually_exclusive_group(required=True)
    street.add_argument("--panoramas", metavar="CSV", help="the table of panoramas")
    street.add_argument("--photos", metavar="CSV", help="or of photographs")
    text = "a file that GDAL opens, in any projection, or https://.../{z}/{x}/{y}.png ({-y}: from the south, {q}: quadkey)"
    group.add_argument("--imagery", required=True, metavar="SOURCE", help=text)
    text = "what imagery that is missing means: an error in the end, or panoramas that are left out"
    group.add_argument("--on_missing", choices=("error", "skip"), default="error", help=text)
    flags.add_settings(parser, Layout)
    group = parser.add_argument_group("grid", "of satellite images, half an image apart; the same everywhere on Earth")
    text = "the centre of some satellite image, to go on with the grid of another data set"
    group.add_argument("--through", action=flags.Place, nargs=2, metavar=("LAT", "LON"), help=text)
    group = parser.add_argument_group("tiles from an address")
    zoom = settings.Number(int, least=15, most=23)
    group.add_argument("--zoom", type=zoom, default=ZOOM, metavar="Z", help="of the tiles; they are resampled to VIGOR's 20")
    group.add_argument("--tile_cache", metavar="DIR", help="where tiles are kept as they came (default: tiles in the root)")
    group.add_argument(
        "--requests_per_second",
        type=settings.POSITIVE,
        default=REQUESTS_PER_SECOND,
        metavar="N",
        help="at most, all threads together",
    )
    group.add_argument("--user_agent", default=USER_AGENT, metavar="TEXT", help="who asks; some providers want an address there")
    group = parser.add_argument_group("semantic masks", "as of python -m dataset.masks")
    group.add_argument("--osm", nargs="+", metavar="FILE", help="OpenStreetMap extracts: write masks as well")
    group.add_argument(
        "--also", nargs="*", choices=tuple(KINDS), default=["area_highway"], metavar="KIND", help=f"of {' '.join(KINDS)}"
    )
    flags.add_workers(parser.add_argument_group("machine"))
    return parser


def main(args):
    """Run the command."""
    if not re.fullmatch(r"[\w-]+", args.city) or args.city.lower() in _TAKEN:
        raise UserError(f"--city {args.city}: letters, digits, - and _ alone, and not {', '.join(_TAKEN)}: it names a folder")
    panoramas = read_table(args.photos or args.panoramas, args.workers, photographs=bool(args.photos))
    if args.osm:  # before anything is fetched
        boxes = [stated_box(path) for path in args.osm]
        check_extents(panoramas, map_positions(panoramas), boxes, f"the extract {', '.join(args.osm)}")
        check_masks(args.root, args.city, args.osm, args.also)
    cache = Path(args.tile_cache or Path(args.root, "tiles"))
    polite = {"zoom": args.zoom, "requests_per_second": args.requests_per_second, "user_agent": args.user_agent}
    imagery = open_imagery(args.imagery, cache, **polite)
    if imagery.terms:
        print(imagery.terms)
    layout = Layout.pick(vars(args))
    options = {"through": args.through, "on_missing": args.on_missing, "workers": args.workers}
    built = build_city(args.root, args.city, panoramas, imagery, layout, **options)
    found = report.summary(built, imagery)
    text = list(report.lines(args.city, found, built.what))
    if args.osm:
        (masks,), notes = write_masks(args.root, osm=args.osm, cities=[args.city], also=args.also, workers=args.workers)
        found["masks"] = masks._asdict() | {"notes": notes}
        text += [*masks.lines(), *(f"{often} x {what}" for what, often in notes.items())]
    elif not (built.folder / FOLDER).is_dir():
        text.append(f"{args.city}: no masks; train with --use_mask False, or give --osm as well")
    with replacing(built.folder / PICTURE, durable=False) as beside:
        report.draw_map(built).savefig(beside, format="png", dpi=110)
    finish(built, found)
    print(*text, f"{built.folder}: complete; {PICTURE} shows its {built.what} and their parts", sep="\n")


if __name__ == "__main__":
    flags.run_script(main, build_parser())
