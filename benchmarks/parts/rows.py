"""A row of the table: one training and its evaluation, in a folder of its own, by one process at a time."""

import json
import shutil
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import train_VIGOR
from benchmarks.parts.catalogue import NAMED, flags_of, full_set_up
from common.errors import UserError
from common.files import file_hash, locked, replacing
from dataset.cache import MANIFEST, WHAT
from dataset.loader import evaluation_loader
from dataset.manifest import read_manifest
from engine import run
from engine.evaluation.conditions import Conditions, Source
from engine.evaluation.prediction import predict
from engine.evaluation.table import make_table
from model.checkpoint import BEST, LATEST, load_model

BATCH = 4  # pairs in an update
PREDICTIONS, RECORD, LOG = "predictions.csv", "row.json", "log.txt"  # of a row's folder
SETTINGS = "settings.json"  # of a network's folder: what all of its rows have in common


@dataclass(frozen=True)
class Row:
    """Which row of the table. part: its name."""

    network: str
    area: str
    part: str
    seed: int

    def folder(self, output):
        """Where the row lies in the folder of the table."""
        return Path(output) / self.network / self.area / self.part / f"seed{self.seed}"

    def is_complete(self, output):
        """Whether it is done: its predictions are written last, and whole."""
        return (self.folder(output) / PREDICTIONS).exists()

    def __str__(self):
        return f"{self.network} {self.area} {self.part} seed {self.seed}"


@dataclass(frozen=True)
class Length:
    """How long every row trains: the learning rate falls over these epochs of so many updates."""

    epochs: int
    max_steps: int

    @classmethod
    def of(cls, steps, batches):
        """So many updates in as few epochs as can be, where an epoch has `batches`. UserError where they do not divide."""
        epochs = -(-steps // batches)
        if steps % epochs:
            raise UserError(
                f"--steps {steps}: an epoch has {batches} batches, and {epochs} epochs cannot share these steps; "
                f"take {steps // epochs * epochs}"
            )
        return cls(epochs, steps // epochs)


@dataclass(frozen=True)
class Work:
    """Where and how rows are made.

    output: the table's folder.
    source: the pairs, a `Source` with a cache.
    sizes: {'satellite_size': px, 'panorama_size': (height, width)}.
    length: a `Length`.
    device, num_workers: of training and evaluation; `device` is a torch device.
    """

    output: Path
    source: Source
    sizes: dict
    length: Length
    device: object
    num_workers: int

    def command(self, row):
        """The words that follow train_VIGOR.py."""
        length = {"epochs": self.length.epochs, "max_steps": self.length.max_steps, "val_every": self.length.epochs}
        places = {"dataset_root": self.source.dataset_root, "cache_root": self.source.cache_root}
        places |= {"runs_root": row.folder(self.output), "device": self.device, "num_workers": self.num_workers}
        given = flags_of(NAMED[row.part], row.network) | {"area": row.area, "seed": row.seed, "batch_size": BATCH}
        given |= self.sizes | length | places
        return [word for name, value in given.items() for word in (f"--{name}", *_words(value))]

    def shared(self, network):
        """What all rows of a network have in common."""
        data = read_manifest(Path(self.source.cache_root) / MANIFEST, WHAT)["files_sha256"]
        steps = self.length.epochs * self.length.max_steps
        sizes = {name: " ".join(_words(value)) for name, value in self.sizes.items()}
        return {"steps": steps, "epochs": self.length.epochs, "batch_size": BATCH, "data": data[:12], **sizes} | full_set_up(
            network
        )

    def hold(self, network):
        """Write down what the rows of a network have in common. Raises UserError where the folder holds others."""
        path, shared = Path(self.output) / network / SETTINGS, self.shared(network)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as beside:
                beside.write_text(json.dumps(shared, indent=2) + "\n")
        held = json.loads(path.read_text())
        if differing := [f"{name} {held.get(name)}, not {value}" for name, value in shared.items() if held.get(name) != value]:
            raise UserError(f"{path.parent} holds rows of {'; '.join(differing)}; choose another --output_dir")

    def make(self, row):
        """Train and evaluate a row: its record, a dict, or None where it is complete already.

        Whatever an interrupted try has left is removed first. Raises `common.files.Taken` where another process makes this row,
        and UserError where training or evaluation does.
        """
        folder = row.folder(self.output)
        with locked(folder, "is making a row in"):
            if row.is_complete(self.output):
                return None
            _empty(folder)
            start = time.perf_counter()
            with open(folder / LOG, "w", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
                train_VIGOR.main(train_VIGOR.build_parser().parse_args(self.command(row)))
                trained = time.perf_counter()
                (run_folder,) = (path for path in folder.iterdir() if path.is_dir())
                if not (run_folder / BEST).exists():
                    raise UserError(f"{run_folder}: training left no {BEST}; its validation gave no number")
                table = self.evaluate(run_folder)
            end = time.perf_counter()
            record = {
                "command": self.command(row),
                "training_s": round(trained - start, 1),
                "evaluation_s": round(end - trained, 1),
                "mean_m": float(table["error_m"].mean()),
                "median_m": float(table["error_m"].median()),
                "checkpoint_sha256": file_hash(run_folder / BEST),
                "git_revision": run.git_revision(),
            }
            (run_folder / LATEST).unlink()  # a finished row is never resumed, and it is most of a row's size
            with replacing(folder / RECORD) as beside:
                beside.write_text(json.dumps(record, indent=2) + "\n")
            with replacing(folder / PREDICTIONS) as beside:
                table.to_csv(beside, index=False, float_format="%.10g")
        return record

    def evaluate(self, run_folder):
        """The test list as a run's best network sees it: the columns of eval_VIGOR.py's CSV that need no calibration."""
        loaded = load_model(run_folder, self.device)
        dataset = self.source.open(Conditions.of(loaded), loaded.settings)
        loader = evaluation_loader(dataset, 2 * BATCH, self.num_workers, self.device.type == "cuda")
        table = make_table(dataset, predict(loaded.model, loader, self.device, loaded.settings.temperature))
        if not np.isfinite(table["error_m"]).all():
            raise UserError(f"{run_folder}: predictions are not finite numbers; the training went wrong")
        return table


def _words(value):
    return [str(one) for one in value] if isinstance(value, (tuple, list)) else [str(value)]


def _empty(folder):
    """Remove everything in a folder but hidden files, its lock among them."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif not path.name.startswith(".") or path.suffix == ".tmp":
            path.unlink()


def time_left(rows, output):
    """Seconds that the rows that are not complete would take this machine, one after the other; None where nothing is known.

    A row is taken to need what complete rows of its network and part did, or else those of its network.
    """
    known, left = {}, []
    for row in rows:
        if not row.is_complete(output):
            left.append(row)
            continue
        record = json.loads((row.folder(output) / RECORD).read_text())
        for key in ((row.network, row.part), row.network):
            known.setdefault(key, []).append(record["training_s"] + record["evaluation_s"])
    seconds = [known.get((row.network, row.part)) or known.get(row.network) for row in left]
    return None if None in seconds else float(sum(np.mean(each) for each in seconds))
