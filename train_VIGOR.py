r"""Train a network that finds a panorama inside a satellite image.

    python train_VIGOR.py --area samearea --batch_size 10 --learning_rate 8e-5 --epochs 120 --d_model 320 --n_layer 2 \
        --use_mask True --use_mixstyle True --mixstyle_mix random
    python train_VIGOR.py --satellite_size 128 --panorama_size 128 256 --backbone_weights none --matching ground_plane \
        --batch_size 4 --learning_rate 1e-3 --augment photometric --epochs 4 --max_steps 110    # minutes, on mini-VIGOR
    python train_VIGOR.py --resume runs/VIGOR/<run>
    torchrun --nproc_per_node 8 train_VIGOR.py --area samearea

Everything that a run leaves lies in runs/VIGOR/<time>_...: settings, checkpoints, log. More in docs/TRAINING.md.
"""

import copy
from pathlib import Path

from engine import options, run, training_options

# torch and what stands on it is imported by the functions that use it: --help and a wrong flag need not wait for it.

# The other flags would change the run.
FREE_ON_RESUME = {"resume", "epochs", "patience", "num_workers", "device", "dataset_root", "cache_root", "on_bad_image"}
FREE_ON_RESUME |= {"save_every", "log_every"}


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


def make_data(args, device):
    """The training and validation pairs that the flags describe, and how this process loads its part of them."""
    import numpy as np

    from dataset.loader import evaluation_loader, training_loader
    from engine import distributed
    from engine.trainer import Data

    train_set, val_set = make_dataset(args, "train"), make_dataset(args, args.val_on)
    part = distributed.rank(), distributed.world_size()
    loading = {"workers": args.num_workers, "pin_memory": device.type == "cuda", "part": part}
    train_loader, batches = training_loader(train_set, args.batch_size, args.seed, **loading)
    val_loader = evaluation_loader(val_set, args.batch_size, **loading)
    shown = None
    if part[0] == 0:
        few = copy.copy(val_set)
        few.pairs = val_set.pairs[np.linspace(0, len(val_set) - 1, min(8, len(val_set))).astype(int)]
        (shown,) = evaluation_loader(few, 8, workers=0)
    return Data(train_set, val_set, train_loader, batches, val_loader, shown)


def make_trainer(args, device):
    """The run that the flags describe, or the one that they resume."""
    from dataset.index import find_root
    from engine import distributed, training
    from engine.trainer import Trainer

    folder, saved = None, None
    if args.resume:
        folder, args, saved = read_run(args, distributed.world_size())
    if device.type == "cuda":
        run.configure_gpu(args.tf32, args.deterministic)
    elif args.compile:
        raise run.RunError("--compile is for GPUs; leave it out, or choose one with --device")
    model = make_model(args, saved)
    with distributed.first():
        args.dataset_root = str(find_root(args.dataset_root))
    data = make_data(args, device)
    precision = training.Precision(args.amp, device)
    learner = make_learner(args, model, device, precision, saved)
    return Trainer(args, device, learner, precision, make_batch_losses(args, precision), data, folder)


def main(args):
    from engine import distributed

    with distributed.processes(run.pick_device(args.device)) as device:
        trainer = make_trainer(args, device)
        try:
            trainer.fit()
        finally:
            trainer.watcher.close()


if __name__ == "__main__":
    options.run_script(main, build_parser(), user_errors)
