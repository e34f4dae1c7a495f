"""Flags -> a run that is ready to train: new, resumed, or started from another network's weights."""

import copy
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import numpy as np
import torch

from common.device import pick_device
from common.errors import UserError
from common.files import locked
from dataset.loader import evaluation_loader, training_loader
from dataset.protocol import Protocol, open_data
from efficientnet_pytorch.weights import find_faults
from engine import distributed, run
from engine.inference.temperatures import conditions_key, find_temperature
from engine.search.mining import new_table
from engine.training.logging import opening_lines
from engine.training.optimisation import BatchNormWarmUp, MovingAverage, Precision
from engine.training.settings import TrainingSettings
from engine.training.state import Data, TrainingState
from engine.training.teacher import Teacher
from engine.training.trainer import Trainer, steps_of_epoch
from loss.criterion import Criterion
from model.build import build_model
from model.checkpoint import LATEST, checkpoint_file, load_model, read_checkpoint


@contextmanager
def training_run(given, resume=None, init=None):
    """Gives a run's `Trainer` in a `with` block, which joins torchrun's processes and locks the run's folder.

    A run resumes from a folder or its latest.pt, or starts from the checkpoint `init`. Raises UserError.
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
            settings = TrainingSettings.resume(given, saved["args"])
        else:
            initial = load_model(init) if init else None
            settings = TrainingSettings.start(given, initial, init)
        device = stack.enter_context(distributed.processes(pick_device(settings.machine.device)))
        if saved and saved["processes"] != distributed.world_size():
            then, now = saved["processes"], distributed.world_size()
            raise UserError(f"{file}: a run of {then} processes cannot resume with {now}; start {then}")
        trainer = _make_trainer(stack, settings, device, folder, saved, initial)
        stack.callback(trainer.log.close)
        for line in opening_lines(trainer, bool(saved)):
            trainer.say(line)
        yield trainer


def _lock(stack, folder):
    if distributed.rank() == 0:
        stack.enter_context(locked(folder, "is training in"))


def _make_trainer(stack, settings, device, folder, saved, initial):
    machine, optimisation = settings.machine, settings.optimisation
    if device.type == "cuda":
        run.configure_gpu(machine.tf32, machine.deterministic)
    elif machine.compile:
        raise UserError("--compile is for GPUs; leave it out, or choose one with --device")
    network = _make_network(settings, initial, bool(saved))
    with distributed.first():
        settings = replace(settings, source=settings.source.found())
    data = _make_data(settings, device, network)
    steps_of_epoch(optimisation, data.sampler)  # raises before a folder is made
    state = _make_state(settings, network, device)
    if saved:
        state.restore(saved)
    search_stride = network.matching.search_stride if network.matching.has_templates else None
    augmentation, estimates_tilt = settings.augmentation, settings.network.estimate_tilt
    tolerances = augmentation.label_tolerance, augmentation.heading_tolerance
    predicted = search_stride, estimates_tilt
    criterion = Criterion(optimisation.loss, settings.network.temperature, *predicted, *tolerances)
    if distributed.rank() == 0 and not folder:
        name = run.run_name(settings.lists.area, settings.network, optimisation.weight_decay)
        folder = run.create_folder(settings.saving.runs_root, name)
        _lock(stack, folder)
        run.write_args(folder, settings.plain())
    teacher = _make_teacher(settings, state, saved, initial) if optimisation.distill else None
    return Trainer(distributed.broadcast(folder), settings, state, criterion, data, teacher)


def _make_network(settings, initial, resumed):
    """The network with the initial weights of its settings; a resumed run loads its own later."""
    torch.manual_seed(settings.optimisation.seed)  # of the initial weights
    network = build_model(settings.network)
    if initial:
        weights, own = initial.network.state_dict(), network.state_dict()
        expected = {name: value.shape for name, value in own.items()}
        # A tilt head starts without effect, so a network without one is as good a start.
        head = {name: expected.pop(name) for name in own if name.startswith("tilt.")}
        if fault := find_faults(weights, expected, optional=head):
            raise UserError(f"{settings.init} does not fit the network that the flags describe: {fault}")
        network.load_state_dict({**own, **weights})
    elif not resumed:
        with distributed.first():  # which may download them
            for backbone in network.backbones:
                backbone.load_public_weights(settings.optimisation.backbone_weights)
    if settings.optimisation.freeze_backbone:
        for backbone in network.backbones:
            backbone.freeze()
    return network


def _make_teacher(settings, state, saved, initial):
    """The teacher of self-distillation, with the calibration of the run's initial network, if it has one."""
    temperature = settings.network.temperature
    if saved:
        temperature = saved["teacher_temperature"]
    elif initial:
        key = conditions_key(initial, Protocol.pick(initial.data, {"pos_only": True}), initial.view)
        temperature = find_temperature(initial, key)
    return Teacher(state.average.network, settings.training_view, temperature)


def _make_data(settings, device, network):
    """The training and validation pairs, and this process's loaders for its share of them."""
    machine, optimisation, network_settings = settings.machine, settings.optimisation, settings.network
    view, use_mask = settings.view, network_settings.use_mask
    train = Protocol(**settings.lists.plain(), split="train", seed=optimisation.seed)
    train_set = open_data(settings.source, train, view, use_mask, training=True)
    if optimisation.hard_negatives:
        if not network.matching.has_templates:
            way_out = "--negatives works with any network"
            says = f"the {network_settings.network} network has no templates to search with"
            raise UserError(f"--hard_negatives {optimisation.hard_negatives}: {says}; {way_out}")
        train_set.mined = new_table(len(train_set), optimisation.hard_negatives)
    validation = replace(train, split=settings.validation.val_on, pos_only=True)
    try:
        val_set = open_data(settings.source, validation, view, use_mask)
    except UserError as error:
        if validation.split == "test":
            raise
        raise UserError(f"{error}; --val_on test trains without a validation part") from None
    part = distributed.rank(), distributed.world_size()
    loading = {"workers": machine.num_workers, "pin_memory": device.type == "cuda", "part": part}
    two_cities = network_settings.use_mixstyle and network_settings.mixstyle_mix == "crossdomain"
    batch_size, seed = machine.batch_size, optimisation.seed
    train_loader, sampler = training_loader(train_set, batch_size, seed, two_cities=two_cities, **loading)
    val_loader = evaluation_loader(val_set, batch_size, **loading)
    shown = None
    if part[0] == 0:
        few = copy.copy(val_set)
        few.pairs = val_set.pairs[np.linspace(0, len(val_set) - 1, min(8, len(val_set))).astype(int)]
        (shown,) = evaluation_loader(few, 8, workers=0)
    return Data(train_set, val_set, train_loader, sampler, val_loader, shown)


def _make_state(settings, network, device):
    """The network on its device, with its optimizer."""
    optimisation = settings.optimisation
    network.to(device, memory_format=torch.channels_last)
    model = distributed.data_parallel(network, device)
    rate, decay = optimisation.learning_rate, optimisation.weight_decay
    model = torch.compile(model) if settings.machine.compile else model
    groups = _parameter_groups(network, optimisation.backbone_lr_factor)
    optimizer = torch.optim.AdamW(groups, rate, weight_decay=decay, fused=True)
    average = None
    if optimisation.ema:
        average = MovingAverage(network, optimisation.ema, trained=optimisation.adapt)
    warm_up, precision = None if settings.init else BatchNormWarmUp(network), settings.machine.amp
    return TrainingState(network, model, optimizer, Precision(precision, device), average, warm_up)


def _parameter_groups(network, factor):
    """The optimizer's parameter groups: the network's, and the backbones' with a share of the rate."""
    if factor == 1:
        return network.parameters()
    pretrained = {
        parameter for backbone in network.backbones for parameter in backbone.pretrained.parameters()
    }
    others = [parameter for parameter in network.parameters() if parameter not in pretrained]
    slow = [parameter for parameter in network.parameters() if parameter in pretrained]
    return [{"params": others}, {"params": slow, "factor": factor}]
