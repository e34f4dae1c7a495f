"""From flags to a run that is ready to train: new, resumed, or started from another's weights."""

import copy
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import numpy as np
import torch

from common.device import pick_device
from common.errors import UserError
from common.files import locked
from dataset.loader import evaluation_loader, training_loader
from efficientnet_pytorch.weights import find_faults, load_backbone_weights
from engine import distributed, run
from engine.evaluation.conditions import Conditions, photographs
from engine.search.mining import new_table
from engine.training.flags import TrainingSettings
from engine.training.loop import Objective
from engine.training.precision import Precision
from engine.training.state import Learner, MovingAverage
from engine.training.trainer import Data, Trainer, steps_of_epoch
from engine.training.warm_up import BatchNormWarmUp
from loss.criterion import Criterion
from model.build import build_model
from model.checkpoint import LATEST, checkpoint_file, load_model, read_checkpoint


@contextmanager
def training_run(given, resume=None, init=None):
    """Gives the `Trainer` of a run in a with block, which joins the processes of torchrun and keeps others out of its folder.

    given: flags by name, those on the command line · resume: a run folder or its latest.pt to go on with · init: a checkpoint
    to start from. Raises UserError.
    """
    with ExitStack() as stack:
        folder, saved, initial = None, None, None
        if resume:
            file = checkpoint_file(resume, LATEST)
            folder = file.parent
            if file.is_file():
                _lock(stack, folder)
            saved = read_checkpoint(file)
            if "progress" not in saved:
                raise UserError(f"{file}: holds weights but nothing to resume from; a run's {LATEST} does")
        elif init:
            initial = load_model(init)
        settings = TrainingSettings.resume(given, saved["args"]) if saved else TrainingSettings.start(given, initial, init)
        device = stack.enter_context(distributed.processes(pick_device(settings.machine.device)))
        if saved and saved["processes"] != distributed.world_size():
            then, now = saved["processes"], distributed.world_size()
            raise UserError(f"{file}: a run of {then} processes cannot go on with {now}; start as many")
        trainer = _make_trainer(stack, settings, device, folder, saved, initial)
        stack.callback(trainer.log.close)
        trainer.announce(bool(saved))
        yield trainer


def _lock(stack, folder):
    if distributed.rank() == 0:
        stack.enter_context(locked(folder, "is training in"))


def _make_trainer(stack, settings, device, folder, saved, initial):
    machine = settings.machine
    if device.type == "cuda":
        run.configure_gpu(machine.tf32, machine.deterministic)
    elif machine.compile:
        raise UserError("--compile is for GPUs; leave it out, or choose one with --device")
    model = _make_model(settings, initial, bool(saved))
    with distributed.first():
        settings = replace(settings, source=settings.source.found())
    data = _make_data(settings, device)
    steps_of_epoch(settings.optimisation, data.sampler)  # or no folder is made
    learner = _make_learner(settings, model, device)
    if saved:
        learner.restore(saved)
    search_stride = model.matching.search_stride if model.matching.has_templates else None
    criterion = Criterion(settings.optimisation.loss, settings.model.temperature, search_stride, settings.model.estimate_tilt)
    objective = Objective(
        criterion,
        learner.precision,
        settings.data.augment,
        settings.model.FoV,
        settings.model.cameras,
        settings.optimisation.negatives,
        settings.data.scale_noise,
    )
    if distributed.rank() == 0 and not folder:
        name = run.run_name(settings.data.area, settings.model, settings.optimisation.weight_decay)
        folder = run.create_folder(settings.saving.runs_root, name)
        _lock(stack, folder)
        run.write_args(folder, settings.plain())
    return Trainer(distributed.broadcast(folder), settings, learner, objective, data)


def _make_model(settings, initial, resumed):
    """The network with the weights that the settings ask for; those of a resumed run come later."""
    torch.manual_seed(settings.optimisation.seed)  # of the initial weights
    model = build_model(settings.model)
    if initial:
        state, own = initial.model.state_dict(), model.state_dict()
        expected = {name: value.shape for name, value in own.items()}
        # A head that estimates tilts starts by saying nothing, so a network without one is as good a start.
        head = {name: expected.pop(name) for name in own if name.startswith("tilt.")}
        if fault := find_faults(state, expected, optional=head):
            raise UserError(f"{settings.init} does not fit the network that the flags describe: {fault}")
        model.load_state_dict({**own, **state})
    elif not resumed:
        with distributed.first():  # which may download them
            for backbone in (model.panorama_backbone, model.satellite_backbone):
                load_backbone_weights(backbone, settings.optimisation.backbone_weights)
    return model


def _make_data(settings, device):
    """The training and validation pairs, and how this process loads its part of them."""
    data, model, machine, seed = settings.data, settings.model, settings.machine, settings.optimisation.seed
    seen = data.labels, data.pos_only, model.ori_noise, model.FoV, seed
    cities = {"train_cities": data.train_cities, "test_cities": data.test_cities}
    train = Conditions(data.area, "train", *seen, **cities, **photographs(model))
    train_set = settings.source.open(train, model, training=True)
    if settings.optimisation.hard_negatives:
        if model.network == "published":
            raise UserError("--hard_negatives: the published network has no templates to search with; --negatives works with any")
        train_set.mined = new_table(len(train_set), settings.optimisation.hard_negatives)
    val_set = settings.source.open(replace(train, split=settings.validation.val_on, pos_only=True), model)
    part = distributed.rank(), distributed.world_size()
    loading = {"workers": machine.num_workers, "pin_memory": device.type == "cuda", "part": part}
    two_cities = model.use_mixstyle and model.mixstyle_mix == "crossdomain"
    train_loader, sampler = training_loader(train_set, machine.batch_size, seed, two_cities=two_cities, **loading)
    val_loader = evaluation_loader(val_set, machine.batch_size, **loading)
    shown = None
    if part[0] == 0:
        few = copy.copy(val_set)
        few.pairs = val_set.pairs[np.linspace(0, len(val_set) - 1, min(8, len(val_set))).astype(int)]
        (shown,) = evaluation_loader(few, 8, workers=0)
    return Data(train_set, val_set, train_loader, sampler, val_loader, shown)


def _make_learner(settings, model, device):
    """The network on its device, with its optimizer."""
    optimisation = settings.optimisation
    model.to(device, memory_format=torch.channels_last)
    network = distributed.data_parallel(model, device)
    return Learner(
        model,
        torch.compile(network) if settings.machine.compile else network,
        torch.optim.AdamW(model.parameters(), optimisation.learning_rate, weight_decay=optimisation.weight_decay, fused=True),
        Precision(settings.machine.amp, device),
        MovingAverage(model, optimisation.ema) if optimisation.ema else None,
        None if settings.init else BatchNormWarmUp(model),
    )
