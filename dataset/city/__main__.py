"""Build a city in VIGOR's layout, which all commands read, from imagery and a table of street images.

    python -m dataset.city --root data/nl --city Delft --panoramas delft.csv --imagery delft.tif --osm nl.pbf
    python -m dataset.city --root data/nl --city Delft --panoramas delft.csv --imagery 'https://a/{z}/{x}/{y}'
    python -m dataset.city --root data/walk --city Walk --photos walk.csv --imagery delft.tif
    python train_VIGOR.py --dataset_root data/nl --network light

The table is a CSV file with the columns file, latitude, longitude and heading (true bearing of the centre
column, degrees) and, optionally, accuracy (of the place, metres), camera_height (metres), sequence and split
(train or test); EXIF and XMP replace empty values. A table of photographs may also have hfov, pitch and roll
(degrees), fx, fy, cx and cy (pixels), k1, k2, p1, p2 and k3; its heading is that of the optical axis. The
same command continues a stopped run. A root may hold several cities. The packages of requirements/city.txt
are needed.
"""

import re
from pathlib import Path

from common import flags, settings
from common.errors import UserError
from common.files import replacing, resumable
from dataset.city import report
from dataset.city.imagery import open_imagery
from dataset.city.provider import REQUESTS_PER_SECOND, USER_AGENT, ZOOM
from dataset.city.table import read_table
from dataset.city.writer import GRID, Layout, build_city, check_extents
from dataset.lists import LABEL_FOLDERS
from dataset.masks.osm import add_also, stated_box
from dataset.masks.writer import FOLDER, check_masks, make_manifest, write_masks

PICTURE = "build.png"
_TAKEN = (*(folder for folder, _ in LABEL_FOLDERS.values()), "tiles", "osm")  # a root's other folders


def build_parser():
    """The command line."""
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("what is built")
    group.add_argument("--root", required=True, metavar="DIR", help="folder of the data set")
    group.add_argument("--city", required=True, metavar="NAME", help="name: letters, digits, - and _")
    street = group.add_mutually_exclusive_group(required=True)
    street.add_argument("--panoramas", metavar="CSV", help="table of panoramas")
    street.add_argument("--photos", metavar="CSV", help="table of photographs")
    text = "a file that GDAL opens, or https://.../{z}/{x}/{y}.png ({-y}: rows from the south, {q}: quadkey)"
    group.add_argument("--imagery", required=True, metavar="SOURCE", help=text)
    text = "for missing imagery: end with an error, or leave out the panoramas that need it"
    group.add_argument("--on_missing", choices=("error", "skip"), default="error", help=text)
    group = flags.add_settings(parser, Layout)[GRID]
    text = "centre of a satellite image of another data set, whose grid this city continues "
    text += "(default: a grid that is the same everywhere on Earth)"
    group.add_argument("--through", action=flags.Place, nargs=2, metavar=("LAT", "LON"), help=text)
    group = parser.add_argument_group("tiles from an address")
    text = "zoom of the tiles, which are resampled to VIGOR's 20"
    zoom = {"type": settings.Number(int, least=15, most=23), "default": ZOOM}
    group.add_argument("--zoom", **zoom, metavar="Z", help=text)
    text = "folder that keeps downloaded tiles (default: tiles in the root)"
    group.add_argument("--tile_cache", metavar="DIR", help=text)
    rate = {"type": settings.Number(above=0, most=1000), "default": REQUESTS_PER_SECOND}
    text = "limit for all threads together"
    group.add_argument("--requests_per_second", **rate, metavar="N", help=text)
    text = "name sent with each request; some providers want an e-mail address in it"
    group.add_argument("--user_agent", default=USER_AGENT, metavar="TEXT", help=text)
    group = parser.add_argument_group("semantic masks", "as written by python -m dataset.masks")
    text = "OpenStreetMap extracts; with them, masks are written too"
    group.add_argument("--osm", nargs="+", metavar="FILE", help=text)
    add_also(group)
    flags.add_workers(parser.add_argument_group("machine"))
    return parser


def main(args):
    """Run the command."""
    if not re.fullmatch(r"[\w-]+", args.city) or args.city.lower() in _TAKEN:
        raise UserError(f"--city {args.city}: expected letters, digits, - and _, not {', '.join(_TAKEN)}")
    panoramas = read_table(args.photos or args.panoramas, args.workers, photographs=bool(args.photos))
    manifest = make_manifest(args.osm, args.also) if args.osm else None
    if args.osm:  # before anything is downloaded
        boxes = [stated_box(path) for path in args.osm]
        check_extents(panoramas, boxes, f"the extract {', '.join(args.osm)}")
        check_masks(Path(args.root, args.city, FOLDER), manifest)
    cache = Path(args.tile_cache or Path(args.root, "tiles"))
    options = {name: getattr(args, name) for name in ("zoom", "requests_per_second", "user_agent")}
    imagery = open_imagery(args.imagery, cache, **options)
    if imagery.terms:
        print(imagery.terms)
    options = {name: getattr(args, name) for name in ("through", "on_missing", "workers")}
    built = build_city(args.root, args.city, panoramas, imagery, Layout.pick(vars(args)), **options)
    summary = report.summary(built, imagery)
    lines = list(report.lines(args.city, summary, built.kind))
    if args.osm:
        options = {"cities": [args.city], "also": args.also, "workers": args.workers, "manifest": manifest}
        (masks,), notes = write_masks(args.root, osm=args.osm, **options)
        summary["masks"] = masks._asdict() | {"notes": notes}
        lines += [*masks.lines(), *(f"{count} x {note}" for note, count in notes.items())]
    elif not (built.folder / FOLDER).is_dir():
        lines.append(f"{args.city}: no masks; train with --use_mask False, or give --osm")
    with resumable(built.folder):
        with replacing(built.folder / PICTURE, durable=False) as beside:
            report.draw_map(built).savefig(beside, format="png", dpi=110)
        built.finish(summary)
    print(*lines, f"{built.folder}: complete; {PICTURE} shows its {built.kind} and their parts", sep="\n")


if __name__ == "__main__":
    flags.run_script(main, build_parser())
