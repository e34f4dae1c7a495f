"""Measure a trained network on VIGOR: per-image errors, a summary, CED curve, histograms, calibration, failure gallery.

    python eval_VIGOR.py --model_path runs/VIGOR/<run>/best.pt --batch_size 8
    python eval_VIGOR.py --model_path runs/samearea/pos/27.75/best.pt --dataset_root /data/VIGOR    # a published checkpoint
    torchrun --nproc_per_node 4 eval_VIGOR.py --model_path runs/VIGOR/<run>/best.pt                 # four GPUs, the same files
    python eval_VIGOR.py --model_path runs/VIGOR/<run>/best.pt --redraw                             # the figures again
    python eval_VIGOR.py --compare runs/VIGOR/<run> runs/VIGOR/<other run>                          # finished evaluations

Everything goes to results/ beside the checkpoint, where a finished evaluation under other conditions is not replaced. What
--area, --train_cities, --test_cities, --ori_noise, --FoV and --labels leave open follows the run.
"""

from pathlib import Path

from common import flags
from common.device import pick_device
from engine import distributed
from engine.evaluation.comparison import RESULTS, compare, results_folder, write_comparison
from engine.evaluation.conditions import Asked, Conditions, Source
from engine.evaluation.evaluate import evaluate
from engine.evaluation.report import compact_report
from engine.evaluation.results import prepare_folder, redraw
from model.checkpoint import checkpoint_file, load_model


def build_parser():
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("task").add_mutually_exclusive_group(required=True)
    group.add_argument(
        "--model_path", metavar="FILE", help="evaluate a checkpoint, of ours or published, or a run folder's best.pt"
    )
    group.add_argument(
        "--compare", nargs="+", metavar="RUN", help="compare finished evaluations: run folders, the first against the rest"
    )
    flags.add_settings(parser, Source, Asked)
    group = parser.add_argument_group("what to measure")
    group.add_argument("--limit", type=flags.COUNT, metavar="N", help="only the first N pairs")
    group.add_argument(
        "--calibrate",
        type=flags.COUNT_OR_NONE,
        default=500,
        metavar="N",
        help="validation pairs to fit the heat map's temperature on, at most --limit; kept beside the checkpoint; 0: as trained",
    )
    group = parser.add_argument_group("results")
    group.add_argument("--output_dir", metavar="DIR", help="default: results/ beside the checkpoint")
    group.add_argument("--redraw", action="store_true", help="draw the figures of a finished evaluation again; needs no network")
    group = parser.add_argument_group("machine")
    flags.add_batches(group, batch_size=8)
    flags.add_device(group)
    return parser


def main(args):
    asked, source = Asked.pick(vars(args)), Source.pick(vars(args))
    split = asked.split or "test"
    if args.compare:
        table, errors, notes, context = compare(args.compare, asked.area, split)
        output = Path(args.output_dir or results_folder(args.compare[0]))
        prepare_folder(output)
        print(write_comparison(output, table, errors, notes, context), end="")
        print(f"table and figure are in {output}")
        return
    output = Path(args.output_dir or checkpoint_file(args.model_path).parent / RESULTS)
    if args.redraw:
        print(compact_report(*redraw(output, asked.area, split)), end="")
        print(f"figures are in {output}")
        return
    with distributed.processes(pick_device(args.device)) as device:
        loaded = load_model(args.model_path, device, **asked.overrides)
        portions = {name: getattr(args, name) for name in ("batch_size", "num_workers", "limit", "calibrate")}
        if text := evaluate(loaded, Conditions.of(loaded, asked), source, output, device, **portions):
            print(text, end="")
            print(f"results are in {output}")


if __name__ == "__main__":
    flags.run_script(main, build_parser())
