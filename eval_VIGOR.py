"""Measure a trained network on VIGOR: per-image errors, a summary, CED curve, histograms, calibration, failure gallery.

    python eval_VIGOR.py --model_path runs/VIGOR/<run>/best.pt --batch_size 8
    python eval_VIGOR.py --model_path runs/samearea/pos/27.75/best.pt --dataset_root /data/VIGOR    # a published checkpoint
    torchrun --nproc_per_node 4 eval_VIGOR.py --model_path runs/VIGOR/<run>/best.pt                 # four GPUs, the same files
    python eval_VIGOR.py --model_path runs/VIGOR/<run>/best.pt --redraw                             # the figures again
    python eval_VIGOR.py --compare runs/VIGOR/<run> runs/VIGOR/<other run>                          # finished evaluations

Everything goes to results/ beside the checkpoint, where a finished evaluation under other conditions is not replaced. What
--area, --ori_noise, --FoV and --labels leave open follows the run.
"""

import time
import zlib
from pathlib import Path

from dataset.index import AREAS, CITIES, KINDS, SPLITS, find_root
from engine import options, run


def build_parser():
    description, examples, closing = __doc__.strip().split("\n\n")
    parser = options.make_parser(f"{description}\n\n{closing}", examples)
    group = parser.add_argument_group("task").add_mutually_exclusive_group(required=True)
    group.add_argument(
        "--model_path", metavar="FILE", help="evaluate a checkpoint, of ours or published, or a run folder's best.pt"
    )
    group.add_argument(
        "--compare", nargs="+", metavar="RUN", help="compare finished evaluations: run folders, the first against the rest"
    )
    group = parser.add_argument_group("what to measure")
    options.add_conditions(group, AREAS, SPLITS)
    group.add_argument("--limit", type=options.at_least(1), metavar="N", help="only the first N pairs")
    group.add_argument(
        "--calibrate",
        type=options.at_least(0),
        default=500,
        metavar="N",
        help="validation pairs to fit the heat map's temperature on, at most --limit; kept beside the checkpoint; 0: as trained",
    )
    options.add_data_source(parser.add_argument_group("data"))
    parser.set_defaults(labels=None)
    group = parser.add_argument_group("results")
    group.add_argument("--output_dir", metavar="DIR", help="default: results/ beside the checkpoint")
    group.add_argument("--redraw", action="store_true", help="draw the figures of a finished evaluation again; needs no network")
    options.add_machine(parser, batch_size=8)
    return parser


def user_errors():
    from dataset.images import DataError
    from model import CheckpointError

    return DataError, CheckpointError, run.RunError


def make_dataset(args, settings, **changes):
    """The pairs that the flags and the network's settings describe; `changes` replace flags."""
    from dataset.vigor import open_split

    flags = {"area": args.area, "split": args.split, **options.data_source(args), **changes}
    return open_split(
        args.dataset_root, settings=settings, ori_noise=args.ori_noise, pos_only=args.pos_only, seed=args.seed, **flags
    )


def predict_all(model, dataset, args, device, temperature, description, map_columns):
    """The predictions of all processes for a dataset, in list order, in each of them."""
    from dataset.loader import evaluation_loader
    from engine import distributed
    from engine.prediction import predict

    part = distributed.rank(), distributed.world_size()
    loader = evaluation_loader(dataset, args.batch_size, args.num_workers, device.type == "cuda", part)
    return distributed.gather_table(predict(model, loader, device, temperature, description, map_columns))


def calibrate(model, settings, args, device, file, digest):
    """(temperature that calibrates the heat map, how it was found): the stored fit where it matches, else a new one."""
    import numpy as np

    from dataset.images import DataError
    from engine import calibration, distributed

    trained = settings["temperature"]
    wanted = min(args.calibrate, args.limit or args.calibrate)
    if not wanted:
        return trained, "not calibrated"
    try:
        dataset = make_dataset(args, settings, area=settings["area"], split="val", orientation_file=None)
    except DataError as error:
        raise DataError(f"{error}. It was wanted for calibration, which --calibrate 0 leaves out") from None
    names = dataset.index.panorama[dataset.pairs[:, 0]].tolist()
    wanted = min(wanted, len(names))
    conditions = {
        "area": settings["area"],
        "labels": args.labels,
        "pos_only": args.pos_only,
        "ori_noise_deg": args.ori_noise,
        "FoV_deg": settings["FoV"],
        "validation_list": f"{zlib.crc32(b' '.join(names)):08x}",
    }
    fit = distributed.share(calibration.find_fit(file, digest, conditions, wanted))
    if not fit:
        dataset.pairs = dataset.pairs[np.linspace(0, len(names) - 1, wanted).astype(int)]
        steps = trained * calibration.STEPS
        nll = predict_all(model, dataset, args, device, trained, "calibrating", calibration.nll_columns(steps))["nll"]
        fit = calibration.describe_fit(steps, nll, trained)
        if distributed.rank() == 0:
            calibration.store_fit(file, digest, conditions, fit)
    return fit["temperature"], calibration.say(fit)


def make_table(dataset, predictions):
    """One row a pair, in list order: names, truth and prediction at 512 px, predicted coordinates, errors, probabilities."""
    import numpy as np
    import pandas as pd

    from dataset import geometry
    from engine.metrics import along_across, distances, heading_errors

    index = dataset.index
    rows, kinds = dataset.pairs[predictions["index"]].T
    satellites = index.satellite[rows, kinds]
    to_512 = 512 / dataset.satellite_size
    table = pd.DataFrame(
        {
            "index": predictions["index"],
            "city": [CITIES[i] for i in index.city[rows]],
            "panorama": [name.decode() for name in index.panorama[rows]],
            "satellite": [name.decode() for name in index.satellite_name[satellites]],
            "kind": [KINDS[kind] for kind in kinds],
        }
    )
    for name in ("true_row", "true_col", "row", "col"):
        table[f"{name}_px"] = predictions[name].astype(float) * to_512
    positions = [table[name] for name in ("row_px", "col_px", "true_row_px", "true_col_px")]
    gps = index.satellite_gps[satellites].T
    table["latitude"], table["longitude"] = geometry.position_to_gps(*positions[:2], *gps, size_px=512)
    table["metres_per_pixel"] = geometry.metres_per_pixel(gps[0], 512)
    table["error_px"] = distances(*positions)
    table["error_m"] = table["error_px"] * table["metres_per_pixel"]
    table["error_thesis_m"] = table["error_px"] * geometry.THESIS_METRES_PER_PIXEL
    centre = np.full(len(table), 256.0)
    table["centre_guess_m"] = distances(centre, centre, *positions[2:]) * table["metres_per_pixel"]
    if "street_row" in predictions:
        street = [predictions[name].astype(float) * to_512 for name in ("street_row", "street_col")]
        table["street_guess_m"] = distances(*street, *positions[2:]) * table["metres_per_pixel"]
    along, across = along_across(*positions, predictions["true_heading"])
    table["along_m"], table["across_m"] = along * table["metres_per_pixel"], across * table["metres_per_pixel"]
    table["true_heading_deg"] = predictions["true_heading"]
    if "heading" in predictions:
        table["heading_deg"] = predictions["heading"]
        table["heading_error_deg"] = heading_errors(predictions["heading"], predictions["true_heading"])
    about_the_map = [name for name in predictions if name.startswith(("density_", "mass_", "region_"))]
    return table.assign(**{name: predictions[name] for name in about_the_map}, seconds=predictions["seconds"])


def evaluate(args, output, device):
    """Predict, measure and write; returns the text for the terminal, or '' in a process that is not the first."""
    from engine import calibration, distributed, evaluation, gallery
    from engine.prediction import probability_columns
    from model import load_model

    model, settings = load_model(args.model_path, device, FoV=args.FoV)
    options.follow_run(args, settings)
    with distributed.first():
        args.dataset_root = find_root(args.dataset_root)
    dataset = make_dataset(args, settings)
    in_list, dataset.pairs = len(dataset), dataset.pairs[: args.limit]
    conditions = {name: getattr(args, name) for name in ("area", "split", "labels", "pos_only", "limit", "orientation_file")}
    conditions |= {"ori_noise_deg": args.ori_noise, "FoV_deg": settings["FoV"], "pairs_in_list": in_list}
    if distributed.rank() == 0:
        evaluation.keep_other_evaluations(output, conditions)
        evaluation.prepare_folder(output)
    file = Path(args.model_path)
    file = file / "best.pt" if file.is_dir() else file
    digest = calibration.checkpoint_hash(file)
    calibrated, how = calibrate(model, settings, args, device, file, digest)
    temperatures = {"calibrated": calibrated, "training": settings["temperature"]}
    temperatures |= {"published": 1.0} if settings["published"] else {}
    start = time.perf_counter()
    maps = probability_columns(temperatures)
    predictions = predict_all(model, dataset, args, device, settings["temperature"], "evaluating", maps)
    seconds = time.perf_counter() - start
    if distributed.rank() > 0:
        return ""
    table = make_table(dataset, predictions)
    context = {
        "model_path": str(args.model_path),
        "checkpoint_sha256": digest,
        "published": settings["published"],
        **conditions,
        "seed": args.seed,
        "pairs": len(table),
        "pairs_skipped": len(dataset) - len(table),
        "satellite_size": settings["satellite_size"],
        "panorama_size": settings["panorama_size"],
        "dataset_root": str(dataset.index.root),
        "temperatures": temperatures,
        "calibration": how,
        "git_revision": run.git_revision(),
        "device": str(device),
        "processes": distributed.world_size(),
        "pairs_per_second": round(len(table) / seconds, 2),
    }
    shown = sorted({int(row) for rows in gallery.choose_cases(table["error_m"]) for row in rows})
    shown = table["index"].iloc[shown]
    pictures = gallery.collect(model, dataset, shown, device, settings["temperature"], calibrated, args.batch_size)
    return evaluation.compact_report(evaluation.write_results(output, table, context, pictures), context)


def main(args):
    from engine import comparison, evaluation

    if args.compare:
        table, errors, notes, context = comparison.compare(args.compare, args.area, args.split)
        output = Path(args.output_dir or comparison.results_folder(args.compare[0]))
        evaluation.prepare_folder(output)
        print(comparison.write_comparison(output, table, errors, notes, context), end="")
        print(f"table and figure are in {output}")
        return
    file = Path(args.model_path)
    output = Path(args.output_dir or (file if file.is_dir() else file.parent) / "results")
    if args.redraw:
        print(evaluation.compact_report(*evaluation.redraw(output, args.area, args.split)), end="")
        print(f"figures are in {output}")
        return
    from engine import distributed

    with distributed.processes(run.pick_device(args.device)) as device:
        if text := evaluate(args, output, device):
            print(text, end="")
            print(f"results are in {output}")


if __name__ == "__main__":
    options.run_script(main, build_parser(), user_errors)
