"""Find where in a whole city a street image was taken: every place is compared, the best ones are looked at in detail.

    python search_VIGOR.py --model_path runs/VIGOR/<run> --city Seattle --idx 30
    python search_VIGOR.py --model_path runs/VIGOR/<run> --idx 30 --near 47.618 -122.318 --radius 200        # around a guess
    python search_VIGOR.py --model_path runs/VIGOR/<run> --city Seattle --panorama street.jpg --heading 90
    python search_VIGOR.py --city Seattle --photo phone.jpg --near 47.618 -122.318                    # a photograph of your own
    python search_VIGOR.py --model_path runs/VIGOR/<run> --evaluate                         # recall over the test list
    torchrun --nproc_per_node 4 search_VIGOR.py --model_path runs/VIGOR/<run> --evaluate

The first search of a city makes an index of its satellite images, which lies in search/ beside the checkpoint and serves all
later ones; it is completed where it was cut off, and where images were added. Pictures, reports and GeoJSON, which any map opens,
go to search/ as well. docs/SEARCH.md has more.
"""

from dataclasses import replace
from pathlib import Path

from common import flags
from common.device import pick_device
from common.errors import UserError
from engine import distributed
from engine.evaluation.conditions import AskedPanoramas, Conditions, Source
from engine.search.evaluate import evaluate_search
from engine.search.searcher import POOL
from engine.search.setup import FOLDER, calibrate, open_search
from engine.search.single import own_query, search_for
from engine.visualization.flags import add_output, add_photograph, index_range, read_lens, read_output
from engine.visualization.search import SHOWN, search_figure
from model.checkpoint import load_model, pretrained_for

ALL = "all"


def build_parser():
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("what to search for, and by what")
    group.add_argument(
        "--model_path",
        metavar="FILE",
        help="a checkpoint of a light or ground_plane network, or its run folder; without it the repository's, for a photograph "
        "or a panorama of your own whose --heading is not given the one for those",
    )
    which = group.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--idx",
        type=index_range,
        nargs="+",
        metavar="N",
        help="index among the list's panoramas of the cities; several, or 30-40",
    )
    which.add_argument("--panorama", metavar="FILE", help="a panorama of your own, twice as wide as high")
    which.add_argument("--photo", metavar="FILE", help="a photograph of your own; see below")
    which.add_argument("--evaluate", action="store_true", help="search for all panoramas of the list and measure")
    group.add_argument(
        "--heading",
        type=flags.BEARING,
        metavar="DEG",
        help="true bearing of your image's centre; without it north, or not known; of a photograph within 20 degrees",
    )
    group = parser.add_argument_group("where")
    group.add_argument("--city", nargs="+", metavar="CITY", help="of those that the list has panoramas of, or all, the default")
    group.add_argument(
        "--near", action=flags.Place, nargs=2, metavar=("LAT", "LON"), help="a guess, degrees; nothing further is searched"
    )
    group.add_argument("--radius", type=flags.POSITIVE, metavar="M", help="metres around the guess (default: 200)")
    flags.add_settings(parser, Source, AskedPanoramas)
    group = parser.add_argument_group("how")
    group.add_argument("--top", type=flags.COUNT, default=SHOWN, metavar="N", help="places to tell")
    group.add_argument("--pool", type=flags.COUNT, default=POOL, metavar="N", help="cells to look at in detail, at least --top")
    group.add_argument("--index_root", metavar="DIR", help="where indexes lie (default: search/index beside the checkpoint)")
    group.add_argument("--rebuild", action="store_true", help="make the indexes anew")
    group.add_argument("--limit", type=flags.COUNT, metavar="N", help="of --evaluate: only N panoramas, evenly spread")
    group.add_argument(
        "--calibrate",
        type=flags.COUNT_OR_NONE,
        default=100,
        metavar="N",
        help="of --evaluate: validation panoramas to fit the probabilities on, kept beside the checkpoint; 0: as they are",
    )
    add_photograph(parser)
    add_output(parser, FOLDER)
    return parser


def main(args):
    own_needs = [(name, "photo") for name in ("intrinsics", "distortion")]
    if args.photo is None:
        own_needs.append(("heading", "panorama"))
    for name, needs in (("radius", "near"), ("limit", "evaluate"), *own_needs):
        if getattr(args, name) is not None and not getattr(args, needs):
            raise UserError(f"--{name} needs --{needs}")
    if args.evaluate and args.near:
        raise UserError("--near is for single panoramas; --evaluate draws guesses of its own")
    asked, source = AskedPanoramas.pick(vars(args)), Source.pick(vars(args))
    with distributed.processes(pick_device(args.device)) as device:
        if args.photo:  # of one's own: what flags tell of its camera is no range of photographs
            asked = replace(asked, hfov=None, pitch=None, roll=None)
        known = args.heading is not None or not (args.panorama or args.photo)
        shipped, options = (args.model_path, {}) if args.model_path else pretrained_for(args.photo is not None, known)
        loaded = load_model(shipped, device, **asked.overrides | options)
        conditions = Conditions.of(loaded, asked)
        own = None
        if file := args.panorama or args.photo:  # before an index is made for nothing
            lens = read_lens(args) if args.photo else {}
            query = own_query(args.panorama, args.photo, loaded.settings, args.heading, **lens)
            own = [(Path(file).name, f"own_{Path(file).stem}", *query)]
        cities = None if ALL in (args.city or [ALL]) else args.city
        with distributed.first():
            source = source.found()
            rebuild = args.rebuild and distributed.rank() == 0
            searcher, dataset = open_search(loaded, conditions, source, cities, device, args.index_root, rebuild)
        pool = max(args.pool, args.top)
        if args.evaluate:
            if args.calibrate:
                calibrate(searcher, conditions, source, pool, args.calibrate)
            output = read_output(args)
            if text := evaluate_search(searcher, dataset, conditions, output.folder, pool=pool, limit=args.limit):
                print(text, end="")
                print(f"results are in {output.folder}")
        elif distributed.rank() == 0:
            named = own or listed_panoramas(args, dataset, conditions, cities)
            search(args, searcher, dataset, conditions, named, pool)


def search(args, searcher, dataset, conditions, named, pool):
    """Search for single panoramas: a report, a picture and GeoJSON of each."""
    output = read_output(args)
    near = None if args.near is None else (*args.near, args.radius or 200.0)
    for title, name, sample, notes in named:
        found = search_for(searcher, dataset, sample, near, args.top, pool, notes)
        print(title)
        output.save_report(found.report, name)
        output.save_text(found.geojson, f"{name}.geojson")
        output.save_figure(search_figure(found, searcher.softness, title), name)


def listed_panoramas(args, dataset, conditions, cities):
    """(title, name of its files, sample, notes) of each panorama of the list that the flags name."""
    tag = "_".join([conditions.area, conditions.split, *(cities or ())])
    for i in (i for given in args.idx for i in given):
        if i >= len(dataset):
            raise UserError(f"--idx {i}: there are {len(dataset)} panoramas of these cities, 0 to {len(dataset) - 1}")
        panorama = dataset.index.panorama[dataset.pairs[i][0]].decode()
        yield f"{tag} {i}, {panorama}", f"{tag}_{i:06d}", dataset[i], []


if __name__ == "__main__":
    flags.run_script(main, build_parser())
