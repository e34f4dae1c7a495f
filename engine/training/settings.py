"""All settings of training besides the network's and the view's, with defaults, checks and help texts."""

from dataclasses import dataclass, fields, replace
from functools import partial

from common import flags
from common.camera import Pinhole
from common.errors import UserError
from common.settings import (
    BOOLEAN,
    CORES,
    COUNT,
    COUNT_OR_NONE,
    DEVICE,
    NOT_NEGATIVE,
    NUM_WORKERS,
    POSITIVE,
    SEED,
    SHARE,
    TEXT,
    WORKERS,
    Choice,
    Number,
    Settings,
    setting,
)
from common.view import HEADING_NOISE, View
from dataset.augment import MODES, MOVING
from dataset.index import VIGOR_RULE
from dataset.protocol import Lists, Source
from dataset.sets import NO_LABELS, view_of_set
from engine.training.optimisation import DURATION, PRECISIONS
from loss.heatmap import LOSSES
from model.settings import NetworkSettings, network_settings

_GROUPS = ("data", "optimisation", "validation", "run", "machine")
_data, _optim, _validation, _run, _machine = (partial(setting, group=name) for name in _GROUPS)
_AUGMENT = (
    "augmentation of training pairs; photometric: colours; full: also both views moved as one; strong: also "
    "tone, light and sharpness; textures: full, and each view through random convolutions"
)
_SCALE = "metres per pixel of training pairs are wrong by up to this factor"
_HARD = (
    "satellite images at the best wrong places of a search in its city that each query is compared with; "
    "either kind of negatives also adds a loss of the map that city searches use"
)
_NEGATIVES = "other satellite images of its batch that each query is compared with"
_LABEL_TOLERANCE = (
    "labels are inexact: about two thirds lie within this many metres of the truth, and a few anywhere; the "
    "loss sums the probability around them; 0: exact (default: the data's own, else exact)"
)
_HEADING_TOLERANCE = "labelled headings are right to this many degrees; 180: headings are not labelled"
_DISTILL = (
    "weight of self-distillation: the network sees some of the bearings in changed colours and learns from "
    "the moving average of its weights, which sees whole panoramas"
)
_ADAPT = (
    "adapt the network of --init to a place without labels, or with those of --label_tolerance, by "
    "self-distillation on the pairs where it is confident"
)
_RATE = "learning rate of AdamW, which falls along a cosine to 1e-6"
_EMA = "validate and keep a moving average of the weights, such as 0.999; 0: the weights themselves"
_WEIGHTS = "the backbones' first weights: imagenet (from a package, or downloaded once; timm's own for its "
_WEIGHTS += "models), none, or a file"
_VAL_ON = "the part held out of the training list, or, as in the thesis, the test list itself"
_VAL_EVERY = "epochs between validations (default: 3 up to epoch 30, then 1)"
_AMP = "precision of the forward pass; auto: bf16 on a GPU that has it, else float32"
_INIT = (
    "start from a checkpoint's weights, ours or published, or from 'pretrained', 'pretrained_any_heading' or "
    "'pretrained_photo'; its network settings hold unless flags say otherwise"
)


@dataclass(frozen=True)
class Augmentation(Settings):
    """Changes of training pairs, and the tolerance of their labels."""

    augment: str = _data("full", Choice(MODES), _AUGMENT)
    scale_noise: float = _data(1.0, Number(least=1, most=2), _SCALE, metavar="F")
    heading_error: float = _data(
        0.0, Number(least=0, most=45, unit="DEG"), "training headings are wrong by up to this many degrees"
    )
    cropped: float = _data(
        0.0, SHARE, "share of the batches whose panoramas are cropped above and below, at random"
    )
    label_tolerance: float = _data(None, NOT_NEGATIVE, _LABEL_TOLERANCE, metavar="M")
    heading_tolerance: float = _data(0.0, HEADING_NOISE, _HEADING_TOLERANCE, metavar="DEG")

    def __post_init__(self):
        super().__post_init__()
        if self.scale_noise > 1 and self.augment not in MOVING:
            says = f"--augment {self.augment} moves no views; choose {', '.join(MOVING)}"
            raise UserError(f"--scale_noise {self.scale_noise:g}: {says}")


@dataclass(frozen=True)
class Optimisation(Settings):
    """The loss, the optimizer and the length of training."""

    learning_rate: float = _optim(8e-5, POSITIVE, _RATE, metavar="LR", short="-l")
    weight_decay: float = _optim(2e-3, NOT_NEGATIVE, "weight decay of AdamW", metavar="WD")
    epochs: int = _optim(120, COUNT, "number of epochs at most", metavar="N", free=True)
    warmup: str = _optim("0", DURATION, "linear rise of the rate: epochs (0.5) or 500steps", metavar="T")
    accumulate: int = _optim(1, COUNT, "batches in one step, an update of the weights", metavar="N")
    ema: float = _optim(0.0, Number(least=0, below=1), _EMA, metavar="DECAY")
    negatives: int = _optim(0, COUNT_OR_NONE, _NEGATIVES, metavar="N")
    hard_negatives: int = _optim(0, COUNT_OR_NONE, _HARD, metavar="N")
    mine_every: int = _optim(4, COUNT, "epochs between two searches for hard negatives", metavar="N")
    distill: float = _optim(0.0, NOT_NEGATIVE, _DISTILL, metavar="W")
    adapt: bool = _optim(False, BOOLEAN, _ADAPT)
    loss: str = _optim("infonce", Choice(tuple(LOSSES)), "loss between heat map and target")
    max_steps: int = _optim(None, COUNT, "end each epoch after this many steps", metavar="N")
    seed: int = _optim(0, SEED, "seed of every random draw", metavar="N")
    backbone_weights: str = _optim("imagenet", TEXT, _WEIGHTS, metavar="SOURCE")
    backbone_lr_factor: float = _optim(1.0, SHARE, "share of the learning rate for backbones", metavar="F")
    freeze_backbone: bool = _optim(False, BOOLEAN, "keep the backbones' pretrained weights fixed")


@dataclass(frozen=True)
class Validation(Settings):
    """The pairs and times of validation, and early stopping."""

    val_every: int = _validation(None, COUNT, _VAL_EVERY, metavar="N")
    val_on: str = _validation("val", Choice(("val", "test")), _VAL_ON)
    patience: int = _validation(7, COUNT, "stop after N validations without a gain", metavar="N", free=True)
    min_delta: float = _validation(
        0.01, NOT_NEGATIVE, "least gain, pixels at 512 (nats without labels)", metavar="PX"
    )


@dataclass(frozen=True)
class Saving(Settings):
    """The folder of a run, and the intervals of saves and log points."""

    runs_root: str = _run("runs/VIGOR", TEXT, "folder of the run folders", metavar="DIR")
    save_every: int = _run(1000, COUNT_OR_NONE, "steps between saves; 0: one epoch", metavar="N", free=True)
    log_every: int = _run(20, COUNT, "steps between points in TensorBoard", metavar="N", free=True)


@dataclass(frozen=True)
class Machine(Settings):
    """Device, batch size, precision and determinism of a run."""

    batch_size: int = _machine(10, COUNT, "pairs in one forward pass of a process", metavar="N", short="-b")
    num_workers: int = _machine(CORES, WORKERS, NUM_WORKERS, metavar="N", free=True)
    device: str = _machine("auto", TEXT, DEVICE, metavar="DEVICE", free=True)
    amp: str = _machine("auto", Choice(PRECISIONS), _AMP)
    tf32: bool = _machine(True, BOOLEAN, "on a GPU, float32 products round inputs to 10 bits", metavar="BOOL")
    compile: bool = _machine(False, BOOLEAN, "on a GPU, compile the network: slow start, faster steps")
    deterministic: bool = _machine(False, BOOLEAN, "bit-identical runs on a GPU too; slower")


# Defaults of the light network: so few weights learn and forget fast.
LIGHT_RECIPE = {"learning_rate": 2e-3, "warmup": "50steps", "ema": 0.99}
ADAPTATION = {"labels": "none", "distill": 1.0, "learning_rate": 5e-4, "warmup": "50steps", "ema": 0.99}
NOT_IN_TRAINING = ("tta", "camera_height", "height_prior")  # fields of `View` that only evaluations have
KINDS = (Source, Lists, Augmentation, View, NetworkSettings, Optimisation, Validation, Saving, Machine)


@dataclass(frozen=True)
class TrainingSettings:
    """All settings of a run, resolved once and read-only. init: the checkpoint it starts from, or None."""

    source: Source
    lists: Lists
    augmentation: Augmentation
    view: View
    network: NetworkSettings
    optimisation: Optimisation
    validation: Validation
    saving: Saving
    machine: Machine
    init: str | None = None

    def __post_init__(self):
        optimisation = self.optimisation
        if optimisation.freeze_backbone and optimisation.backbone_lr_factor != 1:
            says = "a frozen backbone does not learn; leave it out"
            raise UserError(f"--backbone_lr_factor {optimisation.backbone_lr_factor:g}: {says}")
        self._check_teacher()
        for name in ("heading_error", "cropped", "heading_tolerance", "distill"):
            if given := getattr(self.augmentation, name, None) or getattr(optimisation, name, None):
                if self.network.network == "published":
                    raise UserError(f"--{name} {given:g}: the published network uses no camera")
                if name == "cropped" and self.view.photographs:
                    raise UserError(f"--cropped {given:g}: photographs are not cropped; leave it out")
        if self.lists.area == "crossarea":
            train = self.lists.train_cities or VIGOR_RULE["crossarea", "train"]
            test = self.lists.test_cities or VIGOR_RULE["crossarea", "test"]
            if both := [city for city in train if city in test]:
                way_out = "name others with --train_cities or --test_cities, or choose samearea"
                says = f"{both[0]} would train and test, with the same panoramas"
                raise UserError(f"--area crossarea: {says}; {way_out}")

    def _check_teacher(self):
        """Raises UserError for impossible settings of self-distillation and of training without labels."""
        given = self.optimisation
        if given.distill and not given.ema:
            raise UserError(f"--distill {given.distill:g}: the teacher is the moving average; add --ema 0.99")
        if given.adapt and not self.init:
            raise UserError("--adapt starts from a network's weights; add --init")
        if given.adapt and not given.distill:
            raise UserError("--distill 0: --adapt learns from its teacher; leave it out")
        if not self.unlabelled:
            return
        if not given.adapt:
            raise UserError("--labels none: nothing to learn from; --adapt --init RUN adapts a network")
        says = {
            "--label_tolerance": self.augmentation.label_tolerance is not None,
            "--negatives": given.negatives,
            "--hard_negatives": given.hard_negatives,
            "--pos_only False": not self.lists.pos_only,
            "--FoV": self.view.FoV < 360,
        }
        if names := [name for name, is_given in says.items() if is_given]:
            raise UserError(f"{names[0]} does not apply to --labels none; leave it out")

    @property
    def unlabelled(self):
        """Whether no label is used."""
        return self.lists.labels == NO_LABELS

    @property
    def training_view(self):
        """The view of training pairs, whose heading noise includes the tolerance of their labels."""
        noise = min(180.0, self.view.ori_noise + self.augmentation.heading_tolerance)
        return replace(self.view, ori_noise=noise)

    @classmethod
    def start(cls, given, initial=None, init=None):
        """A new run's settings: flags by name, else those of `initial`, the `Checkpoint` of `init`."""
        inherited = initial.view.plain() | initial.settings.plain() if initial else {}
        for name in ("vert_anchors", "horz_anchors"):
            inherited.pop(name, None)  # they follow from the satellite images' size
        if given.get("tilt_noise") and not inherited.get("estimate_tilt"):
            inherited.pop("estimate_tilt", None)  # the new tilts are not known, unlike those before
        photographs = (inherited | given).get("camera") == Pinhole.kind
        of_set = {} if photographs else view_of_set(given.get("dataset_root"))
        view, network = _view_and_network(inherited | of_set | given)
        recipe = LIGHT_RECIPE if network.network == "light" else {}
        if given.get("adapt"):
            labels = {"labels": "corrected"} if given.get("label_tolerance") is not None else {}
            recipe = recipe | ADAPTATION | labels
        return cls._of(view, network, recipe | given, init)

    @classmethod
    def resume(cls, given, saved):
        """A resumed run's settings: saved flags, and given ones that may differ. UserError for others."""
        run = cls._of(*_view_and_network(saved), saved, saved.get("init"))
        free = {part.name for kind in KINDS for part in fields(kind) if part.metadata["free"]}
        for name, then in run.plain().items():
            if name not in free and given.get(name, then) != then:
                says = f"differs from the run's {then}; leave it out, or start a new run without --resume"
                raise UserError(f"--{name} {given[name]} {says}")
        return cls._of(run.view, run.network, saved | given, run.init)

    @classmethod
    def _of(cls, view, network, values, init):
        made = {View: view, NetworkSettings: network}
        return cls(*(made[kind] if kind in made else kind.pick(values) for kind in KINDS), init)

    def plain(self):
        """Every setting by its flag's name, as args.yaml and checkpoints hold them."""
        parts = (getattr(self, part.name) for part in fields(self) if part.name != "init")
        values = {name: value for part in parts for name, value in part.plain().items()}
        camera_height = {"camera_height": self.network.camera_height}  # the view has a prior of that name
        return {"init": self.init} | values | camera_height


def _view_and_network(values):
    """The `View` and the `NetworkSettings` of a dict of flags; camera_height is the network's."""
    view = View.pick({name: value for name, value in values.items() if name not in NOT_IN_TRAINING})
    return view, network_settings(view, values)


def add_training(parser):
    """Add all flags of training; flags that are not given are missing from the namespace."""
    recipe = " ".join(f"--{name} {value}" for name, value in LIGHT_RECIPE.items())
    about = {"optimisation": f"light trains with {recipe} unless flags say otherwise"}
    for kinds, leave_out in ((KINDS[:3], ()), ((View,), NOT_IN_TRAINING), (KINDS[4:], ())):
        flags.add_settings(parser, *kinds, descriptions=about, leave_out=leave_out)
    start = parser.add_argument_group("start").add_mutually_exclusive_group()
    start.add_argument("--resume", metavar="RUN", help="continue a run, by its folder or its latest.pt")
    start.add_argument("--init", metavar="FILE", help=_INIT)
