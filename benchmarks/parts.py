"""Train and evaluate a network with one part changed at a time, and compare it with the full set-up.

    python -m benchmarks.parts
    python -m benchmarks.parts --parts full no_mixstyle crossdomain --areas crossarea --seeds 5
    python -m benchmarks.parts --network light ground_plane published --seeds 1
    python -m benchmarks.parts --summarise

A row of the table is a network, an area, a part and a seed: a run of train_VIGOR.py and one of eval_VIGOR.py.
The same command resumes an interrupted table and never repeats a finished row. Several processes may share a
table. It ends with parts.csv, parts.md and parts.png. Use one --output_dir for each length and each data set.
"""

import shutil
from contextlib import redirect_stderr, redirect_stdout
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pandas as pd

import eval_VIGOR
import train_VIGOR
from benchmarks.parts_table import CHANGES, RECIPES, draw, full_set_up, markdown, parts_of, summarise
from common import flags
from common.errors import UserError
from common.files import Taken, locked, replacing
from common.settings import COUNT, COUNT_OR_NONE, NUM_WORKERS, PIXELS
from dataset.index import AREAS, load_index
from dataset.manifest import read_manifest, read_own_manifest, write_manifest
from dataset.roots import find_root

BATCH = 4  # pairs in an update
PREDICTIONS = "predictions.csv"  # the last file that is written to a row's folder
SETTINGS, WHAT = "settings.json", "a table of parts"  # what all rows share, in the table's folder


class Row(NamedTuple):
    """A row of the table. part: one of `benchmarks.parts_table.CHANGES`."""

    network: str
    area: str
    part: str
    seed: int

    def folder(self, output):
        """Where the row lies in the table's folder."""
        return Path(output, self.network, self.area, self.part, f"seed{self.seed}")


def run(script, settings):
    """Run the `main` of a script with {flag: value or values}."""
    words = []
    for name, value in settings.items():
        words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    script.main(script.build_parser().parse_args(words))


def make_row(row, output, training, data):
    """Train and evaluate a row with {flag: value} for both scripts; returns whether it was still to be made.

    Raises `Taken` if another process makes this row, and UserError if training or evaluation does.
    """
    folder = row.folder(output)
    with locked(folder, "is making a row in"):
        if (folder / PREDICTIONS).exists():
            return False
        for path in folder.iterdir():  # left behind by an interrupted attempt
            if path.is_dir():
                shutil.rmtree(path)
        training = full_set_up(row.network) | CHANGES[row.part] | training | data
        training |= {"area": row.area, "seed": row.seed, "runs_root": folder}
        with open(folder / "log.txt", "w", 1, "utf-8") as log, redirect_stdout(log), redirect_stderr(log):
            run(train_VIGOR, training)
            (run_folder,) = (path for path in folder.iterdir() if path.is_dir())
            results = folder / "results"
            run(eval_VIGOR, data | {"model_path": run_folder, "output_dir": results, "calibrate": 0})
        with replacing(folder / PREDICTIONS) as beside:
            shutil.copyfile(results / f"per_image_results_{row.area}.csv", beside)
    return True


def make_rows(rows, output, training, data):
    """Make the rows that no other process makes. Raises UserError at the end if any of them failed."""
    failed = []
    for number, row in enumerate(rows, 1):
        try:
            if not make_row(row, output, training, data):
                continue
            error = pd.read_csv(row.folder(output) / PREDICTIONS)["error_m"]
            result = f"mean {error.mean():.2f} m, median {error.median():.2f} m"
        except Taken:
            result = "another process makes it"
        except UserError as error:
            failed.append(error)
            result = f"failed: {error}"
        print(f"{number} of {len(rows)}: {' '.join(map(str, row))}: {result}", flush=True)
    if failed:
        raise UserError(f"{len(failed)} of {len(rows)} rows failed; the first: {failed[0]}")


def read_rows(output):
    """The predictions of all finished rows, as `summarise` takes them, or None. Raises UserError."""
    tables = []
    for path in sorted(Path(output).glob(f"*/*/*/*/{PREDICTIONS}")):
        names = dict(zip(Row._fields, path.parts[-5:-1], strict=True))
        try:
            table = pd.read_csv(path).astype({"panorama": str, "satellite": str, "error_m": float})
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{path}: not the predictions of a row ({error}); delete it") from None
        columns = ["panorama", "satellite", "error_m", "heading_error_deg"]
        tables.append(table.reindex(columns=columns).assign(**names))
    return pd.concat(tables) if tables else None


def write_table(output):
    """Write parts.csv, parts.md and parts.png; returns whether any row is finished. Raises UserError."""
    data = read_rows(output)
    if data is None:
        return False
    table, settings = summarise(data), read_manifest(output / SETTINGS, WHAT) or {}
    table.to_csv(output / "parts.csv", index=False, float_format="%.6g")
    (output / "parts.md").write_text(markdown(table, settings), "utf-8")
    if table["difference_m"].notna().any():
        draw(table).savefig(output / "parts.png", dpi=150)
    print(f"table and figure are in {output}")
    return True


def epochs_of(steps, batches):
    """The fewest epochs of at most `batches` updates that share `steps` evenly. UserError if they cannot."""
    epochs = -(-steps // batches)
    if steps % epochs:
        raise UserError(f"--steps {steps}: not a multiple of {epochs} epochs; use {steps // epochs * epochs}")
    return epochs


def build_parser():
    """The command line."""
    parser = flags.make_parser(__doc__)
    group = parser.add_argument_group("rows")
    networks = {"choices": list(RECIPES), "default": ["light"], "metavar": "NAME"}
    text = f"networks to train, of {', '.join(RECIPES)}"
    group.add_argument("--network", nargs="+", **networks, help=text)
    text = f"changes, of {', '.join(CHANGES)} "
    text += "(default: all for light; full, no_mixstyle and no_mask for the others)"
    group.add_argument("--parts", nargs="+", choices=list(CHANGES), metavar="PART", help=text)
    areas = {"choices": AREAS, "default": AREAS, "metavar": "AREA"}
    group.add_argument("--areas", nargs="+", **areas, help=f"areas to train for, of {', '.join(AREAS)}")
    group.add_argument("--seeds", type=COUNT, default=3, metavar="N", help="seeds 0 to N - 1")
    text = f"updates of {BATCH} pairs in every row; the learning rate falls over them"
    group.add_argument("--steps", type=COUNT, default=300, metavar="N", help=text)
    group = parser.add_argument_group("data")
    flags.add_dataset_root(group)
    group.add_argument("--cache_root", metavar="DIR", help="small copies of the images, by dataset.cache")
    side = {"type": PIXELS, "default": 128, "metavar": "PX"}
    group.add_argument("--satellite_size", **side, help="side of satellite images")
    sides = {"type": PIXELS, "default": [128, 256], "metavar": ("H", "W")}
    group.add_argument("--panorama_size", nargs=2, **sides, help="height and width of panoramas")
    group = parser.add_argument_group("results")
    group.add_argument("--output_dir", default="runs/parts", metavar="DIR", help="rows, table and figure")
    text = "only write table and figure of finished rows"
    group.add_argument("--summarise", action="store_true", help=text)
    group = parser.add_argument_group("machine")
    text = f"{NUM_WORKERS}; with 0 and OMP_NUM_THREADS=1, start one process for each core"
    group.add_argument("--num_workers", type=COUNT_OR_NONE, default=0, metavar="N", help=text)
    flags.add_device(group)
    return parser


def main(args):
    """Run the command."""
    output = Path(args.output_dir)
    if args.summarise:
        if not write_table(output):
            raise UserError(f"{output}: no finished row; make some without --summarise")
        return
    root = find_root(args.dataset_root)
    epochs = epochs_of(args.steps, max(1, min(len(load_index(root, area)) for area in args.areas) // BATCH))
    training = {"epochs": epochs, "max_steps": args.steps // epochs, "val_every": epochs, "batch_size": BATCH}
    training |= {"satellite_size": args.satellite_size, "panorama_size": args.panorama_size}
    data = {"dataset_root": root, "device": args.device, "num_workers": args.num_workers}
    data |= {"cache_root": args.cache_root} if args.cache_root else {}
    settings = training | {"dataset_root": str(root.resolve())}
    if not read_own_manifest(output / SETTINGS, WHAT, settings):
        output.mkdir(parents=True, exist_ok=True)
        write_manifest(output / SETTINGS, settings, complete=True)
    parts = {network: parts_of(network, args.parts) for network in args.network}
    order = product(range(args.seeds), args.areas, args.network)
    rows = [Row(network, area, part, seed) for seed, area, network in order for part in parts[network]]
    print(f"{output}: {len(rows)} rows of {epochs} epochs of {training['max_steps']} steps each", flush=True)
    try:
        make_rows(rows, output, training, data)
    finally:
        write_table(output)


if __name__ == "__main__":
    flags.run_script(main, build_parser())
