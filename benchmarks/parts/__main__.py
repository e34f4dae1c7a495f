"""What each part of a network gives: trains and measures it with one part changed at a time, against the full set-up.

    python -m benchmarks.parts
    python -m benchmarks.parts --parts full no_mixstyle crossdomain --areas crossarea --seeds 5
    python -m benchmarks.parts --network light ground_plane published --seeds 1
    python -m benchmarks.parts --summarise

A row of the table is a network, an area, a part and a seed: one training and its evaluation on the test list. Rows come seed by
seed and area by area, so that a table that was stopped is of use; the same command goes on with it, and never makes a complete
row again. Several processes may work on one table. parts.csv, parts.md and parts.png are written at the start and at the end.
Another budget, or other data, wants another --output_dir.
"""

import json
import sys
from pathlib import Path

from tqdm import tqdm

from benchmarks.parts.catalogue import PARTS, parts_of
from benchmarks.parts.figure import draw
from benchmarks.parts.rows import BATCH, SETTINGS, Length, Row, Work, time_left
from benchmarks.parts.table import markdown, read_rows, summarise
from common import flags
from common.device import pick_device
from common.errors import UserError
from common.files import Taken, replacing
from dataset.cache import MANIFEST, WHAT, make_cache
from dataset.index import AREAS, find_root
from dataset.manifest import read_manifest
from engine.evaluation.conditions import Conditions, Source
from model.settings import NETWORKS, ModelSettings


def build_parser():
    """The command line."""
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("rows")
    names, networks = [part.name for part in PARTS], list(NETWORKS)
    group.add_argument(
        "--network", nargs="+", choices=networks, metavar="NAME", help=f"of {', '.join(networks)} (default: light)"
    )
    text = f"of {', '.join(names)} (default: all of light; full, no_mixstyle and no_mask of the others)"
    group.add_argument("--parts", nargs="+", choices=names, metavar="PART", help=text)
    group.add_argument("--areas", nargs="+", choices=AREAS, metavar="AREA", help="one area alone (default: both)")
    group.add_argument("--seeds", type=flags.COUNT, default=3, metavar="N", help="0 to N - 1")
    text = f"updates of {BATCH} pairs in every row, over which the learning rate falls; one with --ori_noise 180 takes longer"
    group.add_argument("--steps", "--budget", type=flags.COUNT, default=300, metavar="N", help=text)
    group = parser.add_argument_group("data")
    flags.add_dataset_root(group)
    text = "copies of its images at these sizes, made first where they are missing (default: the data's folder, _<size> behind)"
    group.add_argument("--cache_root", metavar="DIR", help=text)
    group.add_argument("--satellite_size", type=flags.PIXELS, default=128, metavar="PX", help="side of satellite images")
    group.add_argument(
        "--panorama_size", type=flags.PIXELS, nargs=2, metavar=("H", "W"), help="pixels of panoramas (default: 128 256)"
    )
    group = parser.add_argument_group("results")
    group.add_argument("--output_dir", default="runs/parts", metavar="DIR", help="rows, table and figure")
    group.add_argument("--summarise", action="store_true", help="only write table and figure of the rows that are there")
    group = parser.add_argument_group("machine")
    text = f"{flags.NUM_WORKERS}, so that as many processes as cores may share a table, with OMP_NUM_THREADS=1"
    group.add_argument("--num_workers", type=flags.COUNT_OR_NONE, default=0, metavar="N", help=text)
    flags.add_device(group)
    return parser


def open_source(dataset_root, cache_root, satellite_size, panorama_size):
    """The `Source` of all rows; data and cache are made where they are missing. Raises UserError."""
    root = find_root(dataset_root)
    cache = Path(cache_root) if cache_root else root.with_name(f"{root.name}_{satellite_size}")
    if not (read_manifest(cache / MANIFEST, WHAT) or {}).get("complete"):
        print(f"{cache}: making copies of {root}'s images at these sizes", flush=True)
        make_cache(root, cache, workers=2, satellite_size=satellite_size, panorama_size=tuple(panorama_size))
    return Source(dataset_root=str(root), cache_root=str(cache))


def shortest_epoch(source, areas, sizes):
    """Batches in an epoch of the area that has fewest."""
    settings = ModelSettings(network="light", **sizes)
    seen = {"labels": "corrected", "pos_only": True, "ori_noise_deg": 0.0, "FoV_deg": 360.0}
    lists = [source.open(Conditions(area, "train", **seen), settings, training=True) for area in areas]
    return max(1, min(len(pairs) for pairs in lists) // BATCH)


def make_rows(work, rows):
    """Make those rows that nobody else makes, a line for each. Raises UserError at the end where some failed."""
    failed, taken = [], 0
    for row in rows:
        if row.is_complete(work.output):
            continue
        try:
            record = work.make(row)
        except Taken:
            taken += 1
            continue
        except UserError as error:
            failed.append(str(error))
            print(f"{row}: failed: {error}", flush=True)
            continue
        if record:
            seconds, done = time_left(rows, work.output), sum(each.is_complete(work.output) for each in rows)
            errors = f"mean {record['mean_m']:.2f} m, median {record['median_m']:.2f} m"
            took = f"{record['training_s']:.0f} + {record['evaluation_s']:.0f} s"
            left = "" if seconds is None else f", {tqdm.format_interval(seconds)} left"
            print(f"{done} of {len(rows)}: {row}: {errors}, {took}{left}", flush=True)
    if taken:
        print(f"{taken} rows were with other processes")
    if failed:
        raise UserError(f"{len(failed)} rows failed; the first: {failed[0]}")


def write_table(output):
    """parts.csv, parts.md and parts.png of the complete rows; False where there are none. Raises UserError."""
    rows = read_rows(output)
    if not rows:
        return False
    table = summarise(rows)
    shared = {network: json.loads((output / network / SETTINGS).read_text()) for network in table["network"].unique()}
    with replacing(output / "parts.csv") as beside:
        table.to_csv(beside, index=False, float_format="%.6g")
    with replacing(output / "parts.md") as beside:
        beside.write_text(markdown(table, shared), "utf-8")
    with replacing(output / "parts.png") as beside:
        draw(table).savefig(beside, dpi=150, format="png")
    return True


def main(args):
    """Run the command."""
    output, networks, areas = Path(args.output_dir), args.network or ["light"], args.areas or AREAS
    if args.summarise:
        if not write_table(output):
            raise UserError(f"{output}: no complete row is here")
        print(f"table and figure are in {output}")
        return
    device = pick_device(args.device)
    sizes = {"satellite_size": args.satellite_size, "panorama_size": tuple(args.panorama_size or (128, 256))}
    source = open_source(args.dataset_root, args.cache_root, **sizes)
    length = Length.of(args.steps, shortest_epoch(source, areas, sizes))
    work = Work(output, source, sizes, length, device, args.num_workers)
    rows = [
        Row(network, area, part.name, seed)
        for seed in range(args.seeds)
        for area in areas
        for network in networks
        for part in parts_of(network, args.parts)
    ]
    for network in networks:
        work.hold(network)
    done = sum(row.is_complete(output) for row in rows)
    print(f"{output}: {len(rows)} rows, {done} of them complete; {length.epochs} epochs of {length.max_steps} steps each")
    write_table(output)
    try:
        make_rows(work, rows)
    except (KeyboardInterrupt, SystemExit):
        print("stopped; the same command goes on", file=sys.stderr)
        raise
    finally:
        if write_table(output):
            print(f"table and figure are in {output}")


if __name__ == "__main__":
    flags.run_script(main, build_parser())
