"""A training run from its first epoch to its last: when to validate, what to keep, how to stop and what to say."""

import sys
import time
from dataclasses import dataclass

import torch

from common.errors import UserError
from common.files import remove_leftovers
from common.geometry import REFERENCE_PX
from dataset.index import cities_unlike_vigor
from dataset.loader import EpochSampler, ReadableLoader
from dataset.negatives import NONE
from dataset.vigor import VigorDataset
from engine import distributed
from engine.batch import to_device
from engine.evaluation.calibration import HeatMap
from engine.evaluation.metrics import describe, distances
from engine.evaluation.prediction import estimate, predict
from engine.search.mining import mine, read_mined, write_mined
from engine.training import logging, loop
from engine.training.schedule import cosine_learning_rate, steps_of, validation_is_due
from engine.training.signals import StopRequest, Until
from engine.visualization.pictures import heat_maps_figure
from model.checkpoint import BEST, LATEST, save_checkpoint

MINED = "hard_negatives.npz"  # of a run folder
TEST_PROTOCOL = (
    "--val_on test: the best epoch is picked, and training ends, by the test list, as in the thesis; its errors of best.pt are "
    "therefore too good to compare with those of a network that has not seen them"
)
SLOW_ON_CPU = (
    "no GPU: at {} px a CPU needs seconds for each pair. --network light --satellite_size 128 --panorama_size 128 256 "
    "--batch_size 4 --epochs 8 learns in minutes; it is what make demo does"
)


@dataclass
class Data:
    """What a run learns from, and what it is measured on. `shown`: a few validation samples that the first process draws."""

    train_set: VigorDataset
    val_set: VigorDataset
    train_loader: ReadableLoader
    sampler: EpochSampler  # of the training loader, which is told the epoch and where in it to begin
    val_loader: ReadableLoader
    shown: dict | None


class Trainer:
    """A training run, in one of the processes that share it: epochs, validations, what is kept and what is said.

    folder: the run's, which nobody else writes to.
    settings: its `TrainingSettings`, which it reads and records.
    learner: where the run stands, and what it trains.
    objective: as `engine.training.loop.train_epoch` takes it.
    data: a `Data`.

    Raises UserError where an epoch would have no step.
    """

    def __init__(self, folder, settings, learner, objective, data):
        self.folder, self.settings, self.device = folder, settings, learner.precision.device
        self.optimisation, self.validation, self.saving = settings.optimisation, settings.validation, settings.saving
        self.learner, self.objective, self.data = learner, objective, data
        self.leads, self.processes = distributed.rank() == 0, distributed.world_size()
        self.steps = steps_of_epoch(self.optimisation, data.sampler)
        self.saved = True  # the last time that it was tried
        if self.leads:
            remove_leftovers(folder)
        self.log = logging.TrainingLog(folder if self.leads else None, self.run_step, self.saving.log_every, self.pairs)

    @property
    def run_step(self):
        """Steps since the run began."""
        return self.learner.progress.epoch * self.steps + self.learner.progress.step

    @property
    def pairs(self):
        """In one step, over all processes."""
        return self.settings.machine.batch_size * self.processes * self.optimisation.accumulate

    def say(self, line):
        """Print a line once, however many processes there are."""
        if self.leads:
            print(line, flush=True)

    def announce(self, resumed):
        """What this run is, in a few lines."""
        model, optimisation = self.learner.model, self.optimisation
        millions = sum(p.numel() for p in model.parameters()) / 1e6
        network = f"{model.settings.network} network, {millions:.{1 if millions > 1 else 3}f} M parameters"
        self.say(f"{self.folder}: {network}, on {self.device} in precision {self.learner.precision.name}")
        pairs = f"{len(self.data.train_set)} training and {len(self.data.val_set)} validation pairs"
        self.say(f"{pairs} ({self.validation.val_on}) of {self.settings.source.dataset_root}")
        parts = (("training", self.data.train_set, "train"), ("validation", self.data.val_set, self.validation.val_on))
        for what, dataset, split in parts:
            if cities := cities_unlike_vigor(dataset.index, self.settings.data.area, split):
                self.say(f"{what} pairs are of {', '.join(cities)}")
        self.say(
            f"{self.steps} steps an epoch, global batch {self.pairs} = {self.settings.machine.batch_size} pairs x "
            f"{self.processes} process(es) x {optimisation.accumulate} accumulated, learning rate {optimisation.learning_rate:g}"
        )
        if model.settings.use_mixstyle and model.settings.mixstyle_mix == "crossdomain":
            left = f"{self.data.sampler.left_over} of {len(self.data.train_set)} pairs an epoch"
            self.say(f"crossdomain: batches of two cities, half of each; {left} are left over and mixed as random does")
        if self.validation.val_on == "test":
            self.say(TEST_PROTOCOL)
        if self.device.type == "cpu" and model.settings.satellite_size > 256:
            self.say(SLOW_ON_CPU.format(model.settings.satellite_size))
        if resumed:
            self.say(f"resumed at epoch {self.learner.progress.number}, step {self.learner.progress.step}")

    def save(self, name):
        """Whether the first process could save; where it could not, the older file stays, and it says so."""
        done = True
        if self.leads:
            learner, path = self.learner, self.folder / name
            state = learner.state() if name == LATEST else {"model": learner.measured.state_dict()}
            common = {"settings": learner.model.settings.plain(), "args": self.settings.plain(), "processes": self.processes}
            try:
                save_checkpoint(path, common | state)
            except OSError as error:
                done, older = False, "the older one is kept" if path.exists() else "there is no older one"
                print(f"{path} cannot be saved: {error.strerror}; {older}", file=sys.stderr, flush=True)
        self.saved = distributed.broadcast(done)
        return self.saved

    def mine(self):
        """Look for hard negatives where that is due, and keep them in the run folder for whoever resumes within these epochs."""
        optimisation, progress, train_set = self.optimisation, self.learner.progress, self.data.train_set
        if not optimisation.hard_negatives or progress.epoch < optimisation.mine_every:
            return
        due = progress.epoch // optimisation.mine_every * optimisation.mine_every
        path = self.folder / MINED
        if progress.epoch > due or progress.step > 0:
            if (train_set.mined[:, 0] != NONE).any():
                return
            kept = read_mined(path, due, train_set.mined.shape)
            if kept is not None:
                train_set.mined[:] = torch.from_numpy(kept)
                return
        start, was_training = time.perf_counter(), self.learner.measured.training
        mine(self.learner.measured.eval(), train_set, self.device, self.folder / "mining", self.optimisation.seed)
        self.learner.measured.train(was_training)
        if self.leads:
            write_mined(path, due, train_set.mined.numpy())
        self.say(f"hard negatives searched for in {time.perf_counter() - start:.0f} s")

    def train_epoch(self, stop):
        """The rest of an epoch; true where it was stopped."""
        optimisation, progress, data = self.optimisation, self.learner.progress, self.data
        total, warmup = optimisation.epochs * self.steps, steps_of(optimisation.warmup, self.steps)
        base, save_every = optimisation.learning_rate, self.saving.save_every

        def after_step(values):
            self.log.step(self.run_step, values)
            if save_every and progress.step % save_every == 0 and progress.step < self.steps:
                self.save(LATEST)

        data.sampler.epoch, data.sampler.first_step = progress.epoch, progress.step * optimisation.accumulate
        self.mine()
        self.log.begin_epoch(f"epoch {progress.number} of {optimisation.epochs}", progress.step, self.steps)
        try:
            return loop.train_epoch(
                self.learner,
                data.train_loader,
                self.objective,
                seed=optimisation.seed,
                steps=self.steps,
                learning_rate=lambda step: cosine_learning_rate(step, total, base, warmup_steps=warmup),
                stop=stop,
                accumulate=optimisation.accumulate,
                after_step=after_step,
            )
        except loop.NonFiniteLoss as error:
            raise self.explain(error) from None
        finally:
            self.log.end_epoch()

    def explain(self, error):
        """A NonFiniteLoss with the way out, after its samples were written down."""
        path, best = self.folder / "non_finite_loss.txt", self.folder / BEST
        if self.leads:
            names = [self.data.train_set.index.panorama_path(row) for row, _ in self.data.train_set.pairs[error.indices]]
            logging.write_non_finite(path, error, names)
        start = f" and --init {best}" if best.exists() else ""
        return UserError(f"{error}. {path} names the samples. Try a lower --learning_rate{start}")

    def validate(self, stop):
        """Errors on the validation part, in pixels at 512 and metres, as a flat dict; None where it was stopped."""
        model, settings = self.learner.measured, self.learner.model.settings
        distributed.broadcast_buffers(model)
        table = predict(model, Until(self.data.val_loader, stop), self.device, settings.temperature, "validating")
        if distributed.any_of(stop):
            return None
        table = distributed.gather_table(table)
        error_px = distances(table["row"], table["col"], table["true_row"], table["true_col"])
        pixels = describe(error_px * (REFERENCE_PX / settings.satellite_size))
        metres = describe(error_px * table["metres_per_pixel"])
        errors = {
            f"val_{name}_{unit}": part[name] for unit, part in (("px", pixels), ("m", metres)) for name in ("mean", "median")
        }
        self.log.validation(self.run_step, errors, self.draw_heat_maps(model) if self.leads else None)
        return errors

    def draw_heat_maps(self, model):
        """The heat maps of a few validation samples as one figure."""
        temperature, shown = model.settings.temperature, self.data.shown
        _, estimates = estimate(model.eval(), to_device(shown, self.device), temperature, HeatMap(temperature, "as trained"))
        return heat_maps_figure(shown["satellite"].permute(0, 2, 3, 1).numpy(), estimates)

    def finish_epoch(self, stop):
        """Validate where it is due, keep the best, write the log; true where it was stopped, before anything was kept."""
        progress = self.learner.progress
        row = {
            "epoch": progress.number,
            "learning_rate": self.learner.optimizer.param_groups[0]["lr"],
            **progress.means(),
        }
        if validation_is_due(progress.number, self.optimisation.epochs, self.validation.val_every):
            self.save(LATEST)  # whoever is killed from here on need not repeat the last steps
            errors = self.validate(stop)
            if errors is None:
                return True
            row |= errors
            gained = errors["val_mean_px"] < progress.best - self.validation.min_delta
            if gained and self.save(BEST):
                progress.best = errors["val_mean_px"]
            progress.since_best = 0 if gained else progress.since_best + 1
        progress.start_epoch(row)
        self.save(LATEST)
        if self.leads:
            logging.write_log(self.folder, progress.log)
        self.say(", ".join(f"{name} {value:.4g}" for name, value in row.items()))
        return False

    def fit(self):
        """Train until the last epoch, the end of patience, or a request to stop, which ends the process."""
        progress, patience = self.learner.progress, self.validation.patience
        with StopRequest() as stop:
            while progress.epoch < self.optimisation.epochs and progress.since_best < patience:
                if self.train_epoch(stop) or self.finish_epoch(stop):
                    self.save(LATEST)
                    where = f"stopped in epoch {progress.number} after step {progress.step} of {self.steps}"
                    self.say(f"{where}; continue with: {distributed.launcher()} train_VIGOR.py --resume {self.folder}")
                    raise SystemExit(stop.exit_status if self.saved else 1)
        if not self.saved:
            raise UserError(f"the end of this run is not saved; make room, then: python train_VIGOR.py --resume {self.folder}")
        if progress.since_best >= patience:
            self.say(f"stopped early: {patience} validations without a gain of {self.validation.min_delta} px")
        self.say(f"best mean validation error: {progress.best:.2f} px at {REFERENCE_PX}")
        source = self.settings.source
        data = f"--dataset_root {source.dataset_root}" + (f" --cache_root {source.cache_root}" if source.cache_root else "")
        self.say(f"evaluate with: python eval_VIGOR.py --model_path {self.folder / BEST} {data}")


def steps_of_epoch(optimisation, sampler):
    """Updates of the weights in an epoch. Raises UserError where there would be none."""
    steps = min(sampler.steps // optimisation.accumulate, optimisation.max_steps or sampler.steps)
    if steps == 0:
        raise UserError(f"--accumulate {optimisation.accumulate}: an epoch has only {sampler.steps} batches")
    return steps
