"""A training run: epochs of steps, validations, saves, and its end.

fit          -> train_epoch, finish_epoch, until the last epoch, the end of patience, or a request to stop
train_epoch  -> train_step for each group of batches
train_step   -> losses of each batch, one update of the weights
"""

import math
import sys
import time
from dataclasses import replace

import numpy as np
import torch

from common.errors import UserError
from common.files import Unwritable, remove_leftovers, try_writing
from common.geometry import REFERENCE_PX
from common.view import FORMS
from dataset.augment import cut, hide_bearings, move, recolour
from dataset.negatives import NONE, choose_negatives, pair_up
from engine import distributed
from engine.figures.pictures import heat_maps_figure
from engine.inference.metrics import describe, distances
from engine.inference.predictor import Predictor, make_inputs, to_device
from engine.inference.reliability import as_trained
from engine.run import provenance
from engine.search.mining import mine, read_mined, write_mined
from engine.training import logging
from engine.training.optimisation import cosine_learning_rate, steps_of, validation_is_due
from engine.training.signals import EndOfLoader, StopRequest, Until, next_batch
from engine.training.step import NonFiniteLoss, train_step
from model.checkpoint import BEST, LATEST, save_checkpoint

MINED = "hard_negatives.npz"  # of a run folder


class Trainer:
    """A training run, in one of the processes that share it. Raises UserError for an epoch without a step.

    folder: of the run, locked by this process.
    settings, state, data: its `TrainingSettings`, its `TrainingState` and its `Data`.
    criterion: computes the losses of a prediction, a `loss.criterion.Criterion`.
    teacher: the `Teacher` of self-distillation, or None.
    """

    def __init__(self, folder, settings, state, criterion, data, teacher=None):
        self.folder, self.settings, self.device = folder, settings, state.precision.device
        self.optimisation, self.validation = settings.optimisation, settings.validation
        self.saving = settings.saving
        self.state, self.criterion, self.data, self.teacher = state, criterion, data, teacher
        self.leads, self.processes = distributed.rank() == 0, distributed.world_size()
        self.steps = steps_of_epoch(self.optimisation, data.sampler)
        self.saved = True  # whether the last attempt to save succeeded
        if self.leads:
            remove_leftovers(folder)
            self.provenance = provenance(index=data.train_set.index)  # it asks git, which takes a moment
        log_folder = folder if self.leads else None
        self.log = logging.TrainingLog(log_folder, self.run_step, self.saving.log_every, self.global_batch)

    @property
    def run_step(self):
        """Steps since the run began."""
        return self.state.progress.epoch * self.steps + self.state.progress.step

    @property
    def measure(self):
        """The name of the validation error by which the best weights are selected."""
        return "val_disagreement" if self.settings.unlabelled else "val_mean_px"

    @property
    def labels_median_m(self):
        """The median distance of validation labels from the truth; None: they are exact."""
        given, accuracy = self.settings.augmentation.label_tolerance, self.data.val_set.index.accuracy
        if given is None and accuracy is not None:
            given = float(np.nanmedian(accuracy))
        return given * math.sqrt(math.log(2)) if given else None

    @property
    def global_batch(self):
        """Pairs per optimizer step over all processes."""
        return self.settings.machine.batch_size * self.processes * self.optimisation.accumulate

    def say(self, line):
        """Print a line in the first process only."""
        if self.leads:
            print(line, flush=True)

    def fit(self):
        """Train until the last epoch, the end of patience, or a request to stop, which ends the process."""
        progress, patience = self.state.progress, self.validation.patience
        if self.leads:
            weights = sum(x.nbytes for x in self.state.network.state_dict().values())
            try_writing(self.folder / LATEST, weights * 4)  # AdamW's two averages, and that of the weights
        with StopRequest() as stop:
            if self.optimisation.adapt and self.run_step == 0 and progress.best == math.inf:
                self.measure_start(stop)
            while progress.epoch < self.optimisation.epochs and progress.since_best < patience:
                if self.train_epoch(stop) or self.finish_epoch(stop):
                    self.save(LATEST)
                    where = f"stopped in epoch {progress.number} after step {progress.step} of {self.steps}"
                    self.say(f"{where}; {self.way_on()}")
                    raise SystemExit(stop.exit_status if self.saved else 1)
        if not self.saved:
            raise UserError(f"the last steps of this run are not saved; make room, then {self.way_on()}")
        for line in logging.closing_lines(self):
            self.say(line)

    def way_on(self):
        """The command that continues a run which ended early."""
        if not (self.folder / LATEST).exists():
            return "start it again, since nothing has been saved"
        return f"continue with: {distributed.launcher()} train_VIGOR.py --resume {self.folder}"

    def measure_start(self, stop):
        """Validate and save the start of an adaptation; it stays unless a later network is better."""
        errors = self.validate(stop)
        if errors is not None and self.save(BEST):
            self.state.progress.best = errors[self.measure]
            self.say("before: " + ", ".join(f"{name} {value:.4g}" for name, value in errors.items()))

    def train_epoch(self, stop):
        """Train the rest of an epoch; true if a request `stop` of any process ended it after a step.

        Every random draw of a batch comes from (seed, epoch, batch of the epoch, rank).
        """
        optimisation, progress, data = self.optimisation, self.state.progress, self.data
        total, warmup = optimisation.epochs * self.steps, steps_of(optimisation.warmup, self.steps)
        data.sampler.epoch, data.sampler.first_step = progress.epoch, progress.step * optimisation.accumulate
        self.mine()
        batches = iter(data.train_loader)
        self.state.model.train()
        self.log.begin_epoch(f"epoch {progress.number} of {optimisation.epochs}", progress.step, self.steps)
        try:
            while progress.step < self.steps:
                start = time.perf_counter()
                group = [next_batch(batches, stop) for _ in range(optimisation.accumulate)]
                if any(isinstance(batch, EndOfLoader) for batch in group):
                    if not stop:
                        step = f"step {progress.step + 1} of {self.steps}"
                        raise RuntimeError(f"the loader ended before {step}")
                    return True
                base = optimisation.learning_rate
                rate = cosine_learning_rate(self.run_step, total, base, warmup_steps=warmup)
                seed, step = optimisation.seed, self.run_step
                values, pairs, stopping = train_step(self.state, group, self.losses, seed, step, rate, stop)
                progress.count(values, pairs, time.perf_counter() - start)
                self.log.step(self.run_step, {**values, "learning_rate": rate})
                save_every = self.saving.save_every
                if save_every and progress.step % save_every == 0 and progress.step < self.steps:
                    self.save(LATEST)
                if stopping:
                    return True
        except NonFiniteLoss as error:
            raise self.explain(error) from None
        finally:
            self.log.end_epoch()
        return False

    def losses(self, batch):
        """Augments a batch on the device and returns its losses by name; 'loss' is minimised."""
        settings, negatives = self.settings, self.optimisation.negatives
        compared = negatives or "others" in batch
        chosen = choose_negatives(batch, negatives) if compared else None
        change = settings.augmentation
        errors = change.scale_noise, change.heading_error, change.cropped
        moved = move(batch, change.augment, settings.view, *errors)
        batch = recolour(moved, change.augment)
        if self.teacher:
            batch = hide_bearings(batch, settings.view)
        batch = cut(batch, settings.view)
        shown, pairs, missing = pair_up(batch, chosen) if compared else (batch, None, None)
        with self.state.precision.autocast():
            found = self.state.model(make_inputs(shown, settings.training_view), pairs)
            if self.teacher:
                logits = found.logits.unflatten(0, (len(batch["position"]), -1))[:, 0]
                taught = self.teacher.losses(moved, logits, self.optimisation.distill)
        if not self.teacher:
            return self.criterion(found, batch, missing)
        losses = {} if settings.unlabelled else self.criterion(found, batch, missing)
        return {**losses, **taught, "loss": losses.get("loss", 0.0) + taught["distill_loss"]}

    def finish_epoch(self, stop):
        """Validate if it is due, save the best, write the log; true if it was stopped before that."""
        progress = self.state.progress
        rate = self.state.optimizer.param_groups[0]["lr"]
        row = {"epoch": progress.number, "learning_rate": rate, **progress.means()}
        if validation_is_due(progress.number, self.optimisation.epochs, self.validation.val_every):
            self.save(LATEST)  # a run that is killed from here on does not repeat the last steps
            errors = self.validate(stop)
            if errors is None:
                return True
            row |= errors
            gained = errors[self.measure] < progress.best - self.validation.min_delta
            if gained and self.save(BEST):
                progress.best = errors[self.measure]
            progress.since_best = 0 if gained else progress.since_best + 1
        progress.start_epoch(row)
        self.save(LATEST)
        if self.leads:
            logging.write_log(self.folder, progress.log)
        self.say(", ".join(f"{name} {value:.4g}" for name, value in row.items()))
        return False

    def validate(self, stop):
        """Errors on the validation part, in pixels at 512 and metres, as a flat dict; None if stopped.

        Without labels it is the disagreement of a pair's eight forms, in nats.
        """
        network, view, unlabelled = self.state.measured, self.settings.training_view, self.settings.unlabelled
        distributed.broadcast_buffers(network)
        predictor = Predictor(network, replace(view, tta=FORMS) if unlabelled else view, self.device)
        further = [_disagreement] if unlabelled else ()
        table = predictor.table(Until(self.data.val_loader, stop), "validating", further)
        if distributed.any_of(stop):
            return None
        table = distributed.gather_table(table)
        if unlabelled:
            errors = {"val_disagreement": float(table["disagreement"].mean())}
            self.log.validation(self.run_step, errors, None)
            return errors
        error_px = distances(table["row"], table["col"], table["true_row"], table["true_col"])
        pixels = describe(error_px * (REFERENCE_PX / view.satellite_size))
        metres = describe(error_px * table["metres_per_pixel"])
        units = (("px", pixels), ("m", metres))
        errors = {f"val_{name}_{unit}": part[name] for unit, part in units for name in ("mean", "median")}
        if self.labels_median_m:
            errors["val_labels_median_m"] = self.labels_median_m
        figure = None
        if self.leads:
            network.eval()
            shown = to_device(self.data.shown, self.device)
            _, estimates = predictor.estimates(shown, as_trained(self.settings.network))
            figure = heat_maps_figure(self.data.shown["satellite"].permute(0, 2, 3, 1).numpy(), estimates)
        self.log.validation(self.run_step, errors, figure)
        return errors

    def save(self, name):
        """Save in rank 0; whether that succeeded. On failure the older file stays, and a line is printed."""
        done = True
        if self.leads:
            state, path = self.state, self.folder / name
            content = state.state() if name == LATEST else {"model": state.measured.state_dict()}
            settings = {"settings": self.settings.network.plain(), "view": self.settings.view.plain()}
            if self.teacher:
                settings["teacher_temperature"] = self.teacher.temperature
            common = settings | {"args": self.settings.plain(), "processes": self.processes}
            common["provenance"] = self.provenance
            try:
                save_checkpoint(path, common | content)
            except Unwritable as error:
                done, older = False, "the older one is kept" if path.exists() else "there is no older one"
                print(f"{path} cannot be saved: {error.reason}; {older}", file=sys.stderr, flush=True)
        self.saved = distributed.broadcast(done)
        return self.saved

    def mine(self):
        """Search for hard negatives if that is due, and store them in the run folder for resuming."""
        optimisation, progress, train_set = self.optimisation, self.state.progress, self.data.train_set
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
        start, network = time.perf_counter(), self.state.measured
        was_training = network.training
        mine(network.eval(), train_set, self.device, self.folder / "mining", optimisation.seed)
        network.train(was_training)
        if self.leads:
            write_mined(path, due, train_set.mined.numpy())
        self.say(f"hard negatives searched for in {time.perf_counter() - start:.0f} s")

    def explain(self, error):
        """Write down the samples of a `NonFiniteLoss`; returns a UserError with the way out."""
        path, best = self.folder / "non_finite_loss.txt", self.folder / BEST
        if self.leads:
            dataset = self.data.train_set
            names = [dataset.index.panorama_image(row).path for row, _ in dataset.pairs[error.indices]]
            logging.write_non_finite(path, error, names)
        start = f" and --init {best}" if best.exists() else ""
        return UserError(f"{error}. {path} names the samples. Try a lower --learning_rate{start}")


def _disagreement(found, batch, position):
    return {"disagreement": found.disagreement}


def steps_of_epoch(optimisation, sampler):
    """Updates of the weights in an epoch. Raises UserError where there would be none."""
    steps = min(sampler.steps // optimisation.accumulate, optimisation.max_steps or sampler.steps)
    if steps == 0:
        raise UserError(f"--accumulate {optimisation.accumulate}: an epoch has only {sampler.steps} batches")
    return steps
