"""Measure a trained network on VIGOR: errors of each image, summary, CED curve, calibration, failure gallery.

    python eval_VIGOR.py --model_path runs/VIGOR/<run>/best.pt --batch_size 8
    python eval_VIGOR.py --model_path runs/samearea/pos/27.75/best.pt --dataset_root /data/VIGOR
    torchrun --nproc_per_node 4 eval_VIGOR.py --model_path runs/VIGOR/<run>/best.pt        # GPUs
    python eval_VIGOR.py --model_path runs/VIGOR/<run>/best.pt --redraw                    # figures
    python eval_VIGOR.py --compare runs/VIGOR/<run> runs/VIGOR/<other run>                 # finished ones
    python eval_VIGOR.py --model_path runs/VIGOR/<run> --reliability --dataset_root data/others
    python eval_VIGOR.py --model_path pretrained_any_heading --suspects --dataset_root data/MyCity

Everything goes to results/ beside the checkpoint, where a finished evaluation under other conditions is not
replaced. Without flags of data and view, those of the network's training hold, but the list is test and pairs
are positives.
"""

from functools import partial
from pathlib import Path

from common import flags
from common.device import pick_device
from common.errors import UserError
from common.settings import COUNT, COUNT_OR_NONE
from common.view import FORMS, View
from dataset.protocol import Protocol, Source
from dataset.sets import view_of_set
from engine import distributed
from engine.evaluation.comparison import RESULTS, compare, results_folder, write_comparison
from engine.evaluation.evaluate import evaluate
from engine.evaluation.reliability import calibrate
from engine.evaluation.report import compact_report
from engine.evaluation.results import prepare_folder, redraw
from engine.evaluation.suspects import find_suspects
from engine.inference.asked import AS_TRAINED, asked_protocol, asked_view
from engine.inference.decode import NEAR_M
from engine.inference.temperatures import fit_files
from engine.run import made_folder
from model.checkpoint import load_model

COPIES = 2  # harder forms of each pair of a fit of the reliability


def build_parser():
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("task").add_mutually_exclusive_group(required=True)
    help = "evaluate a checkpoint, ours or published, or a run folder's best.pt"
    group.add_argument("--model_path", metavar="FILE", help=help)
    help = "compare finished evaluations: run folders, the first against the rest"
    group.add_argument("--compare", nargs="+", metavar="RUN", help=help)
    flags.add_settings(parser, Source, Protocol, View, default=AS_TRAINED)
    group = parser.add_argument_group("what to measure")
    group.add_argument("--limit", type=COUNT, metavar="N", help="only the first N pairs")
    help = "validation pairs to fit the heat map's temperature on, at most --limit; the fit is kept beside "
    help += "the checkpoint; 0: as trained"
    group.add_argument("--calibrate", type=COUNT_OR_NONE, default=500, metavar="N", help=help)
    group = parser.add_argument_group("results")
    group.add_argument("--output_dir", metavar="DIR", help="folder (default: results/ beside the checkpoint)")
    help = "draw the figures of a finished evaluation again; needs no network"
    group.add_argument("--redraw", action="store_true", help=help)
    help = "instead of measuring, list districts and panoramas whose label, heading or metres per pixel the "
    help += "network contradicts, the most suspect first"
    group.add_argument("--suspects", action="store_true", help=help)
    group = parser.add_argument_group("machine")
    flags.add_batches(group, batch_size=8)
    flags.add_device(group)
    group = parser.add_argument_group("reliability")
    help = (
        "instead of measuring, fit how far the heat map of each pair is to be trusted, on pairs of the list, "
    )
    help += "which training must not have seen, as they are and in harder forms; kept where other fits are"
    group.add_argument("--reliability", action="store_true", help=help)
    help = "harder forms of each pair: other colours, scales and headings a little wrong, cropped panoramas"
    help += f" (default: {COPIES})"
    group.add_argument("--copies", type=COUNT_OR_NONE, metavar="N", help=help)
    return parser


def main(args):
    given = vars(args)
    tasks = [f"--{name}" for name in ("reliability", "suspects") if given[name]]
    if tasks and (args.compare or args.redraw):
        raise UserError(f"{tasks[0]} asks a network; --compare and --redraw read finished evaluations")
    if len(tasks) > 1:
        raise UserError("--suspects and --reliability are two tasks; give one of them")
    if args.compare or args.redraw:
        return show_finished(args, given)
    if args.reliability:
        return fit_reliability(args, given)
    if args.copies is not None:
        raise UserError(f"--copies {args.copies}: of --reliability, which is not given")
    output = Path(args.output_dir or made_folder(args.model_path) / RESULTS)
    with distributed.processes(pick_device(args.device)) as device:
        checkpoint = load_model(args.model_path, device)
        view = asked_view(checkpoint, given, view_of_set(given.get("dataset_root")))
        portions = {name: given[name] for name in ("batch_size", "num_workers", "limit")}
        task = find_suspects if args.suspects else partial(evaluate, calibrate=args.calibrate)
        source = Source.pick(given)
        protocol, where = asked_protocol(checkpoint, given, source), (source, output, device)
        if text := task(checkpoint, view, protocol, *where, **portions):
            print(text, end="")
            print(f"results are in {output}")


def fit_reliability(args, given):
    """Fit how far heat maps are to be trusted, with all eight forms where panoramas are whole."""
    if args.output_dir:
        raise UserError(f"--output_dir {args.output_dir}: --reliability keeps a fit and no results")
    device = pick_device(args.device)
    checkpoint, copies = load_model(args.model_path, device), COPIES if args.copies is None else args.copies
    forms = {"tta": FORMS} if given.get("FoV", checkpoint.view.FoV) == 360 else {}
    view, source = asked_view(checkpoint, forms | given), Source.pick(given)
    protocol = asked_protocol(checkpoint, given, source)
    how = device, args.batch_size, copies, args.limit
    pairs, near = calibrate(checkpoint, view, protocol, source, *how)
    says = f"fitted on {pairs} pairs, {100 * near:.0f} % of them found within {NEAR_M:g} m"
    print(f"{says}; kept in {fit_files(checkpoint)[-1]}")


def show_finished(args, given):
    """Compare finished evaluations, or draw the figures of one again."""
    task = "--compare" if args.compare else "--redraw"
    for name in (*Source.names(), *Protocol.names(), *View.names()):
        if name in given and name not in ("area", "split"):
            raise UserError(f"--{name}: {task} reads finished evaluations, to which it does not apply")
    area, split = given.get("area"), given.get("split", "test")
    if args.compare:
        table, errors, notes, context = compare(args.compare, area, split)
        output = Path(args.output_dir or results_folder(args.compare[0]))
        prepare_folder(output)
        print(write_comparison(output, table, errors, notes, context), end="")
        print(f"table and figure are in {output}")
        return
    output = Path(args.output_dir or made_folder(args.model_path) / RESULTS)
    print(compact_report(*redraw(output, area, split)), end="")
    print(f"figures are in {output}")


if __name__ == "__main__":
    flags.run_script(main, build_parser())
