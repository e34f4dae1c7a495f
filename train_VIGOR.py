r"""Train a network that finds a panorama inside a satellite image.

    python train_VIGOR.py --area samearea --batch_size 10 --learning_rate 8e-5 --epochs 120 --d_model 320 --n_layer 2 \
        --use_mask True --use_mixstyle True --mixstyle_mix random
    python train_VIGOR.py --satellite_size 128 --panorama_size 128 256 --backbone_weights none --matching ground_plane \
        --batch_size 4 --learning_rate 1e-3 --augment photometric --epochs 4 --val_every 4      # minutes, on mini-VIGOR
    python train_VIGOR.py --resume runs/VIGOR/<run>
    torchrun --nproc_per_node 8 train_VIGOR.py --area samearea

Everything that a run leaves lies in runs/VIGOR/<time>_...: settings, checkpoints, log. More in docs/TRAINING.md.
"""

import copy
import sys
from pathlib import Path

from engine import checkpoint, options, run, training_options

# torch and what stands on it is imported by the functions that use it: --help and a wrong flag need not wait for it.

# The rest would change the run.
FREE_ON_RESUME = {"resume", "epochs", "patience", "num_workers", "device", "dataset_root", "cache_root", "on_bad_image"}
FREE_ON_RESUME |= {"save_every", "log_every"}
TEST_PROTOCOL = (
    "--val_on test: the best epoch is picked, and training ends, by the test list, as in the thesis; its errors of best.pt are "
    "therefore too good to compare with those of a network that has not seen them"
)

SLOW_ON_CPU = (
    "no GPU: at {} px a CPU needs seconds for each pair. --satellite_size 128 --panorama_size 128 256 --matching ground_plane "
    "--batch_size 4 --learning_rate 1e-3 --augment photometric learns in minutes; it is what make demo does"
)


def user_errors():
    """What a user can put right: one line and no traceback."""
    from dataset.images import DataError
    from efficientnet_pytorch.utils import BackboneWeightsError
    from engine.training import NonFiniteLoss
    from model import CheckpointError

    return DataError, BackboneWeightsError, CheckpointError, run.RunError, NonFiniteLoss


def build_parser():
    parser = options.make_parser(__doc__.split("\n")[0], __doc__.split("\n\n")[1])
    training_options.add_data(parser)
    training_options.add_network(parser)
    training_options.add_optimisation(parser)
    training_options.add_run(parser)
    training_options.add_speed(options.add_machine(parser, batch_size=10))
    return parser


def make_dataset(args, split):
    """One split as the flags describe it; validation as evaluation will do it."""
    from dataset.vigor import open_split

    return open_split(
        args.dataset_root,
        args.area,
        split,
        vars(args),
        **options.data_source(args),
        ori_noise=args.ori_noise,
        pos_only=args.pos_only or split != "train",
        training=split == "train",
        seed=args.seed,
    )


def read_run(args, processes):
    """(folder, settings, state) of the run to resume."""
    from model.published import CheckpointError, read_checkpoint

    path = Path(args.resume)
    path = path / "latest.pt" if path.is_dir() else path
    saved = read_checkpoint(path)
    if "progress" not in saved:
        raise CheckpointError(f"{path}: holds weights but nothing to resume from; a run's latest.pt does")
    if saved["processes"] != processes:
        raise run.RunError(f"{path}: a run of {saved['processes']} processes cannot go on with {processes}; start as many")
    return path.parent, options.resumed(args, saved["args"], FREE_ON_RESUME), saved


def make_model(args, saved):
    """The network with the weights that the flags ask for; with `--init` the settings that no flag names are its too."""
    import torch

    from efficientnet_pytorch.utils import find_faults, load_backbone_weights
    from engine import distributed
    from model import DEFAULT_SETTINGS, CheckpointError, build_model, load_model

    initial = None
    if args.init and not saved:
        initial, settings = load_model(args.init)
        for name in DEFAULT_SETTINGS.keys() - args.given:
            setattr(args, name, settings[name])
    torch.manual_seed(args.seed)  # of the initial weights
    try:
        model = build_model({name: vars(args)[name] for name in DEFAULT_SETTINGS if vars(args).get(name) is not None})
    except ValueError as error:
        raise run.RunError(str(error)) from None
    if initial:
        state = initial.state_dict()
        if fault := find_faults(state, {name: value.shape for name, value in model.state_dict().items()}):
            raise CheckpointError(f"{args.init} does not fit the network that the flags describe: {fault}")
        model.load_state_dict(state)
    elif not saved:
        with distributed.first():  # which may download them
            for backbone in (model.panorama_backbone, model.satellite_backbone):
                load_backbone_weights(backbone, args.backbone_weights)
    return model


def make_learner(args, model, device, precision, saved):
    """The network on its device, with its optimizer and where it stands."""
    import torch

    from engine import distributed
    from engine.training import Learner, MovingAverage

    model.to(device, memory_format=torch.channels_last)
    network = distributed.data_parallel(model, device)
    learner = Learner(
        model,
        torch.compile(network) if args.compile else network,
        torch.optim.AdamW(model.parameters(), args.learning_rate, weight_decay=args.weight_decay, fused=True),
        precision.scaler,
        MovingAverage(model, args.ema) if args.ema else None,
    )
    if saved:
        learner.restore(saved)
    return learner


def make_batch_losses(args, precision):
    """What `train_epoch` takes: augment a batch, run the network in its precision, and compare in float32."""
    from dataset.augment import augment
    from engine.batch import forward
    from loss.heatmap import gaussian_target, heading_place_loss, make_loss

    loss = make_loss(args.loss, args.temperature)

    def batch_losses(network, batch):
        batch = augment(batch, args.augment, args.FoV)
        with precision.autocast():
            result = forward(network, batch)
        size, ground = result.logits.shape[-1], result.ground_plane
        losses = {"location_loss": loss(result.logits, gaussian_target(batch["position"], size))}
        if ground is not None and ground.heading_scores is not None:
            scores = ground.heading_scores, ground.headings
            losses["heading_loss"] = heading_place_loss(*scores, batch["position"], batch["heading"], size)
        return {"loss": sum(losses.values()), **losses}

    return batch_losses


def validation_is_due(epoch, args):
    """Whether to validate after this epoch (counted from 1); always after the last."""
    every = args.val_every or (3 if epoch <= 30 else 1)
    return epoch % every == 0 or epoch == args.epochs


def make_picture(val_set, count=8):
    """picture(model, device, temperature): the heat maps of the same few validation samples, drawn small."""
    import numpy as np

    from dataset.loader import evaluation_loader
    from engine.batch import to_device
    from engine.prediction import predict_batch, probability_map
    from engine.watching import heat_map_strip

    few = copy.copy(val_set)
    few.pairs = val_set.pairs[np.linspace(0, len(val_set) - 1, min(count, len(val_set))).astype(int)]
    (batch,) = evaluation_loader(few, count, workers=0)

    def picture(model, device, temperature):
        model.eval()
        result, table = predict_batch(model, to_device(batch, device), temperature)
        positions = [np.stack([table[row], table[col]], 1) for row, col in (("true_row", "true_col"), ("row", "col"))]
        probabilities = probability_map(result.logits, temperature).cpu().numpy()
        return heat_map_strip(batch["satellite"].permute(0, 2, 3, 1).numpy(), probabilities, *positions)

    return picture


def run_name(args):
    """What a new run folder is called, after its time."""
    return (
        f"{args.area}_nL{args.n_layer}_T{args.temperature:g}_wd{args.weight_decay:g}"
        f"_useMask{args.use_mask}_useMixStyle{args.use_mixstyle}_mix_{args.mixstyle_mix}"
    )


class Run:
    """A training run, in one of the processes that share it."""

    def __init__(self, args, device):
        from dataset.index import find_root
        from dataset.loader import evaluation_loader, training_loader
        from engine import distributed, training, watching

        self.device, self.part = device, (distributed.rank(), distributed.world_size())
        self.leads = self.part[0] == 0
        saved = None
        if args.resume:
            self.folder, args, saved = read_run(args, self.part[1])
        if device.type == "cuda":
            run.configure_gpu(args.tf32, args.deterministic)
        elif args.compile:
            raise run.RunError("--compile is for GPUs; leave it out, or choose one with --device")
        model = make_model(args, saved)
        with distributed.first():
            args.dataset_root = str(find_root(args.dataset_root))
        self.args = args
        self.train_set, self.val_set = make_dataset(args, "train"), make_dataset(args, args.val_on)
        loading = {"workers": args.num_workers, "pin_memory": device.type == "cuda", "part": self.part}
        self.train_loader, self.batches = training_loader(self.train_set, args.batch_size, args.seed, **loading)
        self.val_loader = evaluation_loader(self.val_set, args.batch_size, **loading)
        self.steps = min(self.batches.steps // args.accumulate, args.max_steps or self.batches.steps)
        if self.steps == 0:
            raise run.RunError(f"--accumulate {args.accumulate}: an epoch has only {self.batches.steps} batches")
        self.precision = training.Precision(args.amp, device)
        self.learner = make_learner(args, model, device, self.precision, saved)
        self.record = {name: value for name, value in vars(args).items() if name not in ("given", "resume")}
        if self.leads and not saved:
            self.folder = run.create_folder(args.runs_root, run_name(args))
            run.write_args(self.folder, self.record)
        self.folder = distributed.share(self.folder if self.leads else None)
        if self.leads:
            checkpoint.remove_leftovers(self.folder)
        self.saved = True  # the last time that it was tried
        self.watcher = watching.Watcher(self.folder if self.leads else None, self.run_step, args.log_every, self.pairs)
        self.picture = make_picture(self.val_set) if self.leads else None

    @property
    def run_step(self):
        """Steps since the run began."""
        return self.learner.progress.epoch * self.steps + self.learner.progress.step

    @property
    def pairs(self):
        """In one step, over all processes."""
        return self.args.batch_size * self.part[1] * self.args.accumulate

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
        self.say(
            f"{len(self.train_set)} training and {len(self.val_set)} validation pairs ({args.val_on}) of {args.dataset_root}"
        )
        self.say(
            f"{self.steps} steps an epoch, global batch {self.pairs} = {args.batch_size} pairs x {self.part[1]} process(es) x "
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
        from engine import distributed

        done = True
        if self.leads:
            learner, path = self.learner, self.folder / name
            state = learner.state() if name == "latest.pt" else {"model": learner.measured.state_dict()}
            common = {"settings": learner.model.settings, "args": self.record, "processes": self.part[1]}
            try:
                checkpoint.save(path, common | state)
            except OSError as error:
                done, older = False, "the older one is kept" if path.exists() else "there is no older one"
                print(f"{path} cannot be saved: {error.strerror}; {older}", file=sys.stderr, flush=True)
        self.saved = distributed.share(done)
        return self.saved

    def train_epoch(self, stop):
        """The rest of an epoch; true where it was stopped."""
        from engine import training
        from engine.watching import write_non_finite

        args, progress = self.args, self.learner.progress
        total, warmup = args.epochs * self.steps, options.steps_of(args.warmup, self.steps)

        def after_step(values):
            self.watcher.step(self.run_step, values)
            if args.save_every and progress.step % args.save_every == 0 and progress.step < self.steps:
                self.save("latest.pt")

        self.batches.epoch, self.batches.first_step = progress.epoch, progress.step * args.accumulate
        self.watcher.begin_epoch(progress.epoch, progress.step, self.steps)
        try:
            return training.train_epoch(
                self.learner,
                self.train_loader,
                make_batch_losses(args, self.precision),
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
                names = [self.train_set.index.panorama_path(row) for row, _ in self.train_set.pairs[error.indices]]
                write_non_finite(path, error, names)
            start = f" and --init {best}" if best.exists() else ""
            error.args = (f"{error}. {path} names the samples. Try a lower --learning_rate{start}",)
            raise
        finally:
            self.watcher.end_epoch()

    def validate(self, stop):
        """Errors on the validation part, in pixels at 512 and metres, as a flat dict; None where it was stopped."""
        from engine import distributed
        from engine.metrics import describe, distances
        from engine.prediction import predict
        from engine.training import Until

        model, temperature = self.learner.measured, self.args.temperature
        distributed.share_buffers(model)
        table = predict(model, Until(self.val_loader, stop), self.device, temperature, "validating")
        if distributed.any_of(stop):
            return None
        table = distributed.gather_table(table)
        error_px = distances(table["row"], table["col"], table["true_row"], table["true_col"])
        pixels, metres = describe(error_px * (512 / self.args.satellite_size)), describe(error_px * table["metres_per_pixel"])
        errors = {
            f"val_{name}_{unit}": part[name] for unit, part in (("px", pixels), ("m", metres)) for name in ("mean", "median")
        }
        self.watcher.validation(self.run_step, errors, self.picture(model, self.device, temperature) if self.leads else None)
        return errors

    def finish_epoch(self, stop):
        """Validate where it is due, keep the best, write the log; true where it was stopped, before anything was kept."""
        from engine.training import epoch_means
        from engine.watching import write_log

        args, progress = self.args, self.learner.progress
        row = {
            "epoch": progress.epoch + 1,
            "learning_rate": self.learner.optimizer.param_groups[0]["lr"],
            **epoch_means(progress),
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
            write_log(self.folder, progress.log)
        self.say(", ".join(f"{name} {value:.4g}" for name, value in row.items()))
        return False

    def fit(self):
        """Train until the last epoch, the end of patience, or a request to stop, which ends the process."""
        from engine import distributed

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


def main(args):
    from engine import distributed

    with distributed.processes(run.pick_device(args.device)) as device:
        job = Run(args, device)
        try:
            job.fit()
        finally:
            job.watcher.close()


if __name__ == "__main__":
    options.run_script(main, build_parser(), user_errors)
