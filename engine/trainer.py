"""A training run from its first epoch to its last: when to validate, what to keep, how to stop and what to say."""

import sys
from dataclasses import dataclass

import numpy as np

from engine import checkpoint, distributed, options, run, training, watching
from engine.batch import to_device
from engine.metrics import describe, distances
from engine.prediction import predict, predict_batch, probability_map

TEST_PROTOCOL = (
    "--val_on test: the best epoch is picked, and training ends, by the test list, as in the thesis; its errors of best.pt are "
    "therefore too good to compare with those of a network that has not seen them"
)

SLOW_ON_CPU = (
    "no GPU: at {} px a CPU needs seconds for each pair. --satellite_size 128 --panorama_size 128 256 --matching ground_plane "
    "--batch_size 4 --learning_rate 1e-3 --augment photometric learns in minutes; it is what make demo does"
)


def validation_is_due(epoch, args):
    """Whether to validate after this epoch (counted from 1); always after the last."""
    every = args.val_every or (3 if epoch <= 30 else 1)
    return epoch % every == 0 or epoch == args.epochs


@dataclass
class Data:
    """What a run learns from, and what it is measured on."""

    train_set: object
    val_set: object
    train_loader: object
    batches: object  # its sampler, which is told the epoch and where in it to begin
    val_loader: object
    shown: dict | None  # a batch of a few validation samples, whose heat maps the first process draws


def draw_heat_maps(batch, model, device, temperature):
    """The heat maps of a batch as one small picture, (H, W, 3) uint8."""
    model.eval()
    result, table = predict_batch(model, to_device(batch, device), temperature)
    positions = [np.stack([table[row], table[col]], 1) for row, col in (("true_row", "true_col"), ("row", "col"))]
    probabilities = probability_map(result.logits, temperature).cpu().numpy()
    return watching.heat_map_strip(batch["satellite"].permute(0, 2, 3, 1).numpy(), probabilities, *positions)


class Trainer:
    """A training run, in one of the processes that share it: epochs, validations, what is kept and what is said.

    args: every flag, those of a resumed run already in place. learner: where the run stands, and what it trains.
    batch_losses: as `engine.training.train_epoch` takes it. data: a Data. folder: of a run to go on with; None makes a new one.
    Raises RunError where an epoch would have no step.
    """

    def __init__(self, args, device, learner, precision, batch_losses, data, folder=None):
        self.args, self.device = args, device
        self.leads, self.processes = distributed.rank() == 0, distributed.world_size()
        self.learner, self.precision, self.batch_losses, self.data = learner, precision, batch_losses, data
        self.steps = min(data.batches.steps // args.accumulate, args.max_steps or data.batches.steps)
        if self.steps == 0:
            raise run.RunError(f"--accumulate {args.accumulate}: an epoch has only {data.batches.steps} batches")
        self.record = {name: value for name, value in vars(args).items() if name not in ("given", "resume")}
        if self.leads and not folder:
            folder = run.create_folder(args.runs_root, run.run_name(args))
            run.write_args(folder, self.record)
        self.folder = distributed.share(folder if self.leads else None)
        if self.leads:
            checkpoint.remove_leftovers(self.folder)
        self.saved = True  # the last time that it was tried
        self.watcher = watching.Watcher(self.folder if self.leads else None, self.run_step, args.log_every, self.pairs)

    @property
    def run_step(self):
        """Steps since the run began."""
        return self.learner.progress.epoch * self.steps + self.learner.progress.step

    @property
    def pairs(self):
        """In one step, over all processes."""
        return self.args.batch_size * self.processes * self.args.accumulate

    def say(self, line):
        """Print a line once, however many processes there are."""
        if self.leads:
            print(line, flush=True)

    def announce(self):
        """What this run is, in a few lines."""
        args, millions = self.args, sum(p.numel() for p in self.learner.model.parameters()) / 1e6
        self.say(
            f"{self.folder}: {millions:.1f} M parameters, {args.matching} matching, on {self.device} in precision "
            f"{self.precision.name}"
        )
        training_pairs, validation_pairs = len(self.data.train_set), len(self.data.val_set)
        self.say(f"{training_pairs} training and {validation_pairs} validation pairs ({args.val_on}) of {args.dataset_root}")
        self.say(
            f"{self.steps} steps an epoch, global batch {self.pairs} = {args.batch_size} pairs x {self.processes} process(es) x "
            f"{args.accumulate} accumulated, learning rate {args.learning_rate:g}"
        )
        if args.val_on == "test":
            self.say(TEST_PROTOCOL)
        if self.device.type == "cpu" and args.satellite_size > 256:
            self.say(SLOW_ON_CPU.format(args.satellite_size))
        if args.resume:
            self.say(f"resumed at epoch {self.learner.progress.epoch}, step {self.learner.progress.step}")

    def save(self, name):
        """Whether the first process could save; where it could not, the older file stays, and it says so."""
        done = True
        if self.leads:
            learner, path = self.learner, self.folder / name
            state = learner.state() if name == "latest.pt" else {"model": learner.measured.state_dict()}
            common = {"settings": learner.model.settings, "args": self.record, "processes": self.processes}
            try:
                checkpoint.save(path, common | state)
            except OSError as error:
                done, older = False, "the older one is kept" if path.exists() else "there is no older one"
                print(f"{path} cannot be saved: {error.strerror}; {older}", file=sys.stderr, flush=True)
        self.saved = distributed.share(done)
        return self.saved

    def train_epoch(self, stop):
        """The rest of an epoch; true where it was stopped."""
        args, progress, data = self.args, self.learner.progress, self.data
        total, warmup = args.epochs * self.steps, options.steps_of(args.warmup, self.steps)

        def after_step(values):
            self.watcher.step(self.run_step, values)
            if args.save_every and progress.step % args.save_every == 0 and progress.step < self.steps:
                self.save("latest.pt")

        data.batches.epoch, data.batches.first_step = progress.epoch, progress.step * args.accumulate
        self.watcher.begin_epoch(progress.epoch, progress.step, self.steps)
        try:
            return training.train_epoch(
                self.learner,
                data.train_loader,
                self.batch_losses,
                device=self.device,
                seed=args.seed,
                steps=self.steps,
                learning_rate=lambda step: training.cosine_learning_rate(step, total, args.learning_rate, warmup_steps=warmup),
                stop=stop,
                accumulate=args.accumulate,
                warm_up=None if args.init else training.BatchNormWarmUp(self.learner.model),
                after_step=after_step,
            )
        except training.NonFiniteLoss as error:
            path, best = self.folder / "non_finite_loss.txt", self.folder / "best.pt"
            if self.leads:
                names = [data.train_set.index.panorama_path(row) for row, _ in data.train_set.pairs[error.indices]]
                watching.write_non_finite(path, error, names)
            start = f" and --init {best}" if best.exists() else ""
            error.args = (f"{error}. {path} names the samples. Try a lower --learning_rate{start}",)
            raise
        finally:
            self.watcher.end_epoch()

    def validate(self, stop):
        """Errors on the validation part, in pixels at 512 and metres, as a flat dict; None where it was stopped."""
        model, temperature = self.learner.measured, self.args.temperature
        distributed.share_buffers(model)
        table = predict(model, training.Until(self.data.val_loader, stop), self.device, temperature, "validating")
        if distributed.any_of(stop):
            return None
        table = distributed.gather_table(table)
        error_px = distances(table["row"], table["col"], table["true_row"], table["true_col"])
        pixels, metres = describe(error_px * (512 / self.args.satellite_size)), describe(error_px * table["metres_per_pixel"])
        errors = {
            f"val_{name}_{unit}": part[name] for unit, part in (("px", pixels), ("m", metres)) for name in ("mean", "median")
        }
        picture = draw_heat_maps(self.data.shown, model, self.device, temperature) if self.leads else None
        self.watcher.validation(self.run_step, errors, picture)
        return errors

    def finish_epoch(self, stop):
        """Validate where it is due, keep the best, write the log; true where it was stopped, before anything was kept."""
        args, progress = self.args, self.learner.progress
        row = {
            "epoch": progress.epoch + 1,
            "learning_rate": self.learner.optimizer.param_groups[0]["lr"],
            **training.epoch_means(progress),
        }
        if validation_is_due(progress.epoch + 1, args):
            self.save("latest.pt")  # whoever is killed from here on need not repeat the last steps
            errors = self.validate(stop)
            if errors is None:
                return True
            row |= errors
            gained = errors["val_mean_px"] < progress.best - args.min_delta
            if gained and self.save("best.pt"):
                progress.best = errors["val_mean_px"]
            progress.since_best = 0 if gained else progress.since_best + 1
        progress.start_epoch(row)
        self.save("latest.pt")
        if self.leads:
            watching.write_log(self.folder, progress.log)
        self.say(", ".join(f"{name} {value:.4g}" for name, value in row.items()))
        return False

    def fit(self):
        """Train until the last epoch, the end of patience, or a request to stop, which ends the process."""
        self.announce()
        args, progress = self.args, self.learner.progress
        with run.StopRequest() as stop:
            while progress.epoch < args.epochs and progress.since_best < args.patience:
                if self.train_epoch(stop) or self.finish_epoch(stop):
                    self.save("latest.pt")
                    where = f"stopped in epoch {progress.epoch} after step {progress.step} of {self.steps}"
                    self.say(f"{where}; continue with: {distributed.launcher()} train_VIGOR.py --resume {self.folder}")
                    raise SystemExit(stop.exit_status if self.saved else 1)
        if not self.saved:
            raise run.RunError(f"the end of this run is not saved; make room, then: python train_VIGOR.py --resume {self.folder}")
        if progress.since_best >= args.patience:
            self.say(f"stopped early: {args.patience} validations without a gain of {args.min_delta} px")
        self.say(f"best mean validation error: {progress.best:.2f} px at 512")
        data = f"--dataset_root {args.dataset_root}" + (f" --cache_root {args.cache_root}" if args.cache_root else "")
        self.say(f"evaluate with: python eval_VIGOR.py --model_path {self.folder / 'best.pt'} {data}")
