"""Find where in a whole city a street image was taken: every place is compared, the best ones in detail.

    python search_VIGOR.py --model_path runs/VIGOR/<run> --city Seattle --idx 30
    python search_VIGOR.py --model_path runs/VIGOR/<run> --idx 30 --near 47.618 -122.318 --radius 200
    python search_VIGOR.py --model_path runs/VIGOR/<run> --city Seattle --panorama street.jpg --heading 90
    python search_VIGOR.py --city Seattle --panorama cropped.jpg --vertical 38.6 26.9 --heading 90
    python search_VIGOR.py --city Seattle --photo phone.jpg --near 47.618 -122.318
    python search_VIGOR.py --model_path runs/VIGOR/<run> --evaluate        # recall over the test list
    python search_VIGOR.py --fit_coarse                                    # descriptors, for:
    python search_VIGOR.py --idx 30 --coarse 200
    python search_VIGOR.py --city Seattle --queries photos.csv             # file, latitude, longitude, radius
    torchrun --nproc_per_node 4 search_VIGOR.py --model_path runs/VIGOR/<run> --evaluate

The first search of a city makes an index of its satellite images, in search/ beside the checkpoint, for all
later ones; an incomplete one is completed. Pictures, reports and GeoJSON, which any map opens, go to search/
as well. docs/SEARCH.md has more. Without flags of data and view, those of the network's training hold, but
the list is test.
"""

from pathlib import Path

from common import flags
from common.device import pick_device
from common.errors import UserError
from common.settings import BEARING, COUNT, COUNT_OR_NONE, Number
from common.view import View
from dataset.exif import read_header
from dataset.own import Needs, own_query
from dataset.protocol import Protocol, Source
from dataset.sets import view_of_set
from engine import distributed
from engine.inference.asked import AS_TRAINED, asked_protocol, asked_view
from engine.run import provenance
from engine.search.coarse import open_coarse
from engine.search.coarse_fit import load_coarse
from engine.search.evaluate import evaluate_search
from engine.search.queries import read_queries, search_table
from engine.search.searcher import POOL
from engine.search.setup import FOLDER, calibrate, fit_descriptors, open_search
from engine.search.single import search_for
from engine.visualization.flags import (
    LENS,
    add_circle,
    add_index_root,
    add_output,
    add_photograph,
    given_flags,
    index_range,
    read_lens,
    read_output,
    refuse_flags,
)
from engine.visualization.search import SHOWN, search_figure
from model.checkpoint import load_model, pretrained_for

ALL = "all"
CALIBRATE, RADIUS_M = 100, 200.0
OF_VIEW = ("FoV", "ori_noise", "camera_height", "height_prior")  # of a `View`, for images of one's own
OF_LIST = ("seed", "orientation_file")  # settings of a `Protocol` that do not


def build_parser():
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("what to search for, and with what")
    model = "a light or ground_plane network's checkpoint or run folder (default: the repository's network "
    model += "for the kind of image and what is known of its heading)"
    group.add_argument("--model_path", metavar="FILE", help=model)
    which = group.add_mutually_exclusive_group(required=True)
    listed = "index among the list's panoramas of the cities; several, or 30-40"
    which.add_argument("--idx", type=index_range, nargs="+", metavar="N", help=listed)
    whole = "a panorama of your own, twice as wide as high, or, with --vertical, cropped above and below"
    which.add_argument("--panorama", metavar="FILE", help=whole)
    which.add_argument("--photo", metavar="FILE", help="a photograph of your own; see below")
    table = "many images of your own: a CSV file with the column file and, optionally, latitude, longitude "
    table += "and radius (m) of a guess, and heading; the same command goes on where it stopped"
    which.add_argument("--queries", metavar="FILE", help=table)
    fit = "fit descriptors for --coarse to the network, on the training list"
    which.add_argument("--fit_coarse", action="store_true", help=fit)
    measure = "search for all panoramas of the list and measure"
    which.add_argument("--evaluate", action="store_true", help=measure)
    bearing = "true bearing of your image's centre, a photograph's within 20 degrees "
    bearing += "(default: north or unknown)"
    group.add_argument("--heading", type=BEARING, metavar="DEG", help=bearing)
    group = parser.add_argument_group("where")
    cities = f"cities to search, among those that the list has panoramas of, or {ALL} (default: {ALL})"
    group.add_argument("--city", nargs="+", metavar="CITY", help=cities)
    near = "a guess of the place, degrees; only what lies within --radius of it is searched"
    add_circle(group, near, f"metres around the guess (default: {RADIUS_M:g})")
    flags.add_settings(parser, Source, Protocol, View, default=AS_TRAINED, leave_out=("pos_only", "tta"))
    group = parser.add_argument_group("how")
    group.add_argument(
        "--top",
        type=Number(int, least=1, most=1000),
        metavar="N",
        help=f"results to report (default: {SHOWN})",
    )
    pool = "cells to match in detail, at least --top"
    group.add_argument("--pool", type=Number(int, least=1, most=10_000), default=POOL, metavar="N", help=pool)
    add_index_root(group)
    group.add_argument("--rebuild", action="store_true", help="make the indexes anew")
    coarse = "look only at the N squares of 9 m whose descriptors are nearest (default: at all)"
    group.add_argument("--coarse", type=COUNT, metavar="N", help=coarse)
    streets = "cameras stand on streets, by the data's masks: only these cells are searched"
    group.add_argument("--only_streets", action="store_true", help=streets)
    limit = "with --evaluate: only N panoramas, evenly spread"
    group.add_argument("--limit", type=COUNT, metavar="N", help=limit)
    calibrate = "with --evaluate: validation panoramas to fit the probabilities' temperatures on; the fit is "
    calibrate += f"kept beside the checkpoint; 0: as it is (default: {CALIBRATE})"
    group.add_argument("--calibrate", type=COUNT_OR_NONE, metavar="N", help=calibrate)
    add_photograph(parser)
    add_output(parser, FOLDER)
    return parser


def check_flags(args):
    """Raises UserError for a flag that does not apply to what is searched for."""
    own = "photo" if args.photo else "panorama" if args.panorama else "queries" if args.queries else None
    if own == "photo":
        refuse_flags(args, ["FoV"], "cuts panoramas; the field of view of a --photo is --hfov")
    cropped = *OF_VIEW, "vertical"
    used = {"photo": (*OF_VIEW, *LENS), "panorama": cropped, "queries": cropped, None: View.names()}[own]
    kind = f"--{own}" if own else "a list"
    refuse_flags(args, {*View.names(), *LENS} - {*used}, f"does not apply to {kind}")
    if own:
        refuse_flags(args, OF_LIST, f"is for panoramas of a list; it does not apply to --{own}")
    if own in (None, "queries"):
        refuse_flags(args, ["heading"], "is for your own image: give --panorama or --photo")
    if own == "queries":
        refuse_flags(args, ["near"], "is for single images; the table has a guess for each")
    if args.evaluate:
        refuse_flags(args, ["near", "radius", "top"], "is for single images; it does not apply to --evaluate")
    else:
        refuse_flags(args, ["limit", "calibrate"], "needs --evaluate")
    if args.fit_coarse:
        refuse_flags(args, ["coarse", "top"], "does not apply to --fit_coarse")
    if args.near is None and not own:
        refuse_flags(args, ["radius"], "needs --near")


def main(args):
    check_flags(args)
    own = args.panorama or args.photo or args.queries
    with distributed.processes(pick_device(args.device)) as device:
        model, changes = args.model_path, {}
        queries = read_queries(args.queries) if args.queries else []
        if model is None:
            with_heading = (
                [args.heading is not None] if not queries else ["heading" in q.words for q in queries]
            )
            model, changes = pretrained_for(args.photo is not None, all(with_heading) or not own)
        checkpoint = load_model(model, device)
        asked = given_flags(args, *OF_VIEW) if own else vars(args)
        of_set = {} if own else view_of_set(vars(args).get("dataset_root"))
        view = asked_view(checkpoint, changes | asked, of_set)
        single = own and not queries
        named = [own_image(args, checkpoint, view)] if single else None  # before an index is made
        cities = None if ALL in (args.city or [ALL]) else args.city
        output = None if args.fit_coarse else read_output(args)  # before an index is made, too
        with distributed.first():
            source = Source.pick(vars(args)).found()
        protocol = asked_protocol(checkpoint, vars(args), source)
        how = {"rebuild": args.rebuild, "streets": args.only_streets}
        opening = source, cities, device, args.index_root
        if args.fit_coarse:
            print(fit_descriptors(checkpoint, view, protocol, *opening, **how))
            return
        coarse = load_coarse(checkpoint, device) if args.coarse else None  # before an index is made
        searcher, dataset = open_search(checkpoint, view, protocol, *opening, **how)
        if coarse:
            searcher.coarse = open_coarse(coarse, args.coarse, searcher.cities)
        output.about = provenance(checkpoint, dataset.index, protocol, view)
        if args.evaluate:
            evaluate(args, searcher, checkpoint, dataset, protocol, source, output.folder)
        elif queries:
            search_all(args, searcher, queries, output)
        else:
            searcher.shared = distributed.world_size() > 1
            search(args, output, searcher, named or listed_panoramas(args, dataset, protocol, cities))


def evaluate(args, searcher, checkpoint, dataset, protocol, source, folder):
    """Search for all panoramas of the list: a summary, a table, a figure."""
    most = CALIBRATE if args.calibrate is None else args.calibrate
    if most:
        calibrate(searcher, checkpoint, protocol, source, args.pool, most, args.index_root)
    how = {"pool": args.pool, "limit": args.limit}
    if text := evaluate_search(searcher, checkpoint, dataset, protocol, folder, **how):
        print(text, end="")
        print(f"results are in {folder}")


def search_all(args, searcher, queries, output):
    """Search for a table of images: one table and one GeoJSON."""
    about = {name: value for name, value in output.about.items() if name not in ("command", "git_revision")}
    where = [city.name for city in searcher.cities], args.only_streets
    identity = repr((about, where, searcher.temperatures))
    how = {"radius": args.radius or RADIUS_M, "top": args.top or SHOWN, "pool": args.pool}
    name = f"{Path(args.queries).stem}_places"
    if says := search_table(searcher, queries, output.folder, name, identity, **how):
        print(says)


def search(args, output, searcher, named):
    """Search for single images: a report, a picture and GeoJSON of each."""
    top, own, radius = args.top or SHOWN, args.panorama or args.photo, args.radius or RADIUS_M
    near = None if args.near is None else (*args.near, radius)
    for title, name, sample, notes in named:
        if near is None and own:
            near, note = searcher.prior_of(read_header(own).place, radius)
            notes = [*notes, *filter(None, [note])]
        searched = search_for(searcher, sample, near, top, max(args.pool, top), notes)
        if searched is None:  # another process has it
            continue
        print(title)
        output.save_report(searched.report, name)
        output.save_geojson(searched.geojson, name)
        output.save_figure(search_figure(searched, searcher, title), name)


def own_image(args, checkpoint, view):
    """(title, name of its files, sample, notes) of the user's own image."""
    needs = Needs.of(checkpoint.network)
    known = read_lens(args) if args.photo else given_flags(args, "vertical")
    image = {"panorama": args.panorama, "photo": args.photo, "heading": args.heading}
    sample, notes = own_query(view, needs, **image, **known)
    file = Path(args.panorama or args.photo)
    return file.name, f"own_{file.stem}", sample, notes


def listed_panoramas(args, dataset, protocol, cities):
    """(title, name of its files, sample, notes) of each panorama of the list that the flags name."""
    tag = "_".join([protocol.area, protocol.split, *(cities or ())])
    for i in dict.fromkeys(i for given in args.idx for i in given):
        if i >= len(dataset):
            last = len(dataset) - 1
            raise UserError(f"--idx {i}: there are {len(dataset)} panoramas of these cities, 0 to {last}")
        panorama = dataset.index.panorama[dataset.pairs[i][0]].decode()
        yield f"{tag} {i}, {panorama}", f"{tag}_{i:06d}", dataset[i], []


if __name__ == "__main__":
    flags.run_script(main, build_parser())
