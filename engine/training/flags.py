"""Every setting of training that is not the network's: its default, what it may be, and what its flag says."""

from dataclasses import dataclass, fields
from functools import partial

from common import flags
from common.errors import UserError
from dataset.augment import MODES, MOVING
from dataset.index import AREAS, LABELS, VIGOR_RULE
from engine.evaluation.conditions import TEST_CITIES, TRAIN_CITIES, Source
from engine.training.precision import PRECISIONS
from engine.training.schedule import DURATION
from loss.heatmap import LOSSES
from model.settings import ModelSettings

_data, _optimisation, _validation, _run, _machine = (
    partial(flags.setting, group=name) for name in ("data", "optimisation", "validation", "run", "machine")
)


@dataclass(frozen=True)
class DataSettings(flags.Settings):
    """Which pairs, and how they are augmented."""

    labels: str = _data("corrected", flags.Choice(LABELS), "splits__corrected, positions from the file names, or splits")
    area: str = _data(
        "samearea",
        flags.Choice(AREAS),
        "samearea: a part of each city's panoramas trains, another tests; crossarea: New York and Seattle train, or "
        "--train_cities, with all of theirs",
    )
    train_cities: tuple = _data(None, flags.TEXT, f"{TRAIN_CITIES} (default: by --area)", metavar="CITY", count="+")
    test_cities: tuple = _data(
        None, flags.TEXT, f"{TEST_CITIES}, in later evaluations too (default: by --area)", metavar="CITY", count="+"
    )
    pos_only: bool = _data(True, flags.BOOLEAN, "False: half of the samples use a semi-positive", metavar="BOOL")
    augment: str = _data(
        "full",
        flags.Choice(MODES),
        "of the training pairs: colours alone; full: both views moved as one too; strong: and tone, light and sharpness of each; "
        "textures: full, and each seen through random convolutions",
    )
    scale_noise: float = _data(
        1.0, flags.Number(least=1, most=2), "in training, metres per pixel may be told wrong by that factor", metavar="F"
    )

    def __post_init__(self):
        super().__post_init__()
        if self.scale_noise > 1 and self.augment not in MOVING:
            way_out = f"choose {', '.join(MOVING)}"
            raise UserError(f"--scale_noise {self.scale_noise:g}: --augment {self.augment} moves no views; {way_out}")
        if self.area == "crossarea":
            train, test = (getattr(self, f"{part}_cities") or VIGOR_RULE[self.area, part] for part in ("train", "test"))
            if both := [city for city in train if city in test]:
                way_out = "name others with --train_cities or --test_cities, or choose samearea"
                raise UserError(f"--area crossarea: {both[0]} would train and test, with the same panoramas; {way_out}")


@dataclass(frozen=True)
class Optimisation(flags.Settings):
    """The loss, the optimizer and the length of training."""

    learning_rate: float = _optimisation(8e-5, flags.POSITIVE, "of AdamW; falls along a cosine to 1e-6", metavar="LR", short="-l")
    weight_decay: float = _optimisation(2e-3, flags.NOT_NEGATIVE, "of AdamW", metavar="WD")
    epochs: int = _optimisation(120, flags.COUNT, "at most so many", metavar="N", free=True)
    warmup: str = _optimisation("0", DURATION, "linear rise of the rate: epochs (0.5), or steps (500steps)", metavar="T")
    accumulate: int = _optimisation(1, flags.COUNT, "batches in one step, an update of the weights", metavar="N")
    ema: float = _optimisation(
        0.0,
        flags.Number(least=0, below=1),
        "validate and keep a moving average of the weights, 0.999 say; 0: the weights themselves",
        metavar="DECAY",
    )
    negatives: int = _optimisation(
        0, flags.COUNT_OR_NONE, "other satellite images of its batch that each panorama is to be told from", metavar="N"
    )
    hard_negatives: int = _optimisation(
        0,
        flags.COUNT_OR_NONE,
        "and satellite images at the best wrong places of a search over its city; where either is given, the map that cities are "
        "searched by has a loss of its own",
        metavar="N",
    )
    mine_every: int = _optimisation(4, flags.COUNT, "epochs between two such searches", metavar="N")
    loss: str = _optimisation("infonce", flags.Choice(tuple(LOSSES)), "between heat map and target")
    max_steps: int = _optimisation(None, flags.COUNT, "end each epoch after so many steps", metavar="N")
    seed: int = _optimisation(0, flags.COUNT_OR_NONE, "of every random draw", metavar="N")
    backbone_weights: str = _optimisation(
        "imagenet",
        flags.TEXT,
        "what the backbones start from: imagenet (downloaded once; of light in a package), none, or a file",
        metavar="SOURCE",
    )


@dataclass(frozen=True)
class Validation(flags.Settings):
    """When a run is measured, on what, and when that ends it."""

    val_every: int = _validation(None, flags.COUNT, "epochs (default: every third up to 30, then every one)", metavar="N")
    val_on: str = _validation(
        "val", flags.Choice(("val", "test")), "the part held out of the training list, or, as in the thesis, the test list itself"
    )
    patience: int = _validation(7, flags.COUNT, "validations without a gain before stopping", metavar="N", free=True)
    min_delta: float = _validation(0.01, flags.NOT_NEGATIVE, "what counts as a gain, pixels at 512", metavar="PX")


@dataclass(frozen=True)
class Saving(flags.Settings):
    """Where a run is kept, how often it is saved, how often it is heard of."""

    runs_root: str = _run("runs/VIGOR", flags.TEXT, "where run folders are made", metavar="DIR")
    save_every: int = _run(
        1000, flags.COUNT_OR_NONE, "steps between saves within an epoch; 0: at its end only", metavar="N", free=True
    )
    log_every: int = _run(20, flags.COUNT, "steps between points in TensorBoard", metavar="N", free=True)


@dataclass(frozen=True)
class Machine(flags.Settings):
    """What a run is computed on, in what portions, and how fast against how exactly."""

    batch_size: int = _machine(10, flags.COUNT, "pairs in one forward pass, of each process", metavar="N", short="-b")
    num_workers: int = _machine(flags.CORES, flags.COUNT_OR_NONE, flags.NUM_WORKERS, metavar="N", free=True)
    device: str = _machine("auto", flags.TEXT, flags.DEVICE, metavar="DEVICE", free=True)
    amp: str = _machine(
        "auto", flags.Choice(PRECISIONS), "precision of the forward pass; auto: bf16 on a GPU that has it, else float32"
    )
    tf32: bool = _machine(True, flags.BOOLEAN, "on a GPU, let float32 products round their inputs to 10 bits", metavar="BOOL")
    compile: bool = _machine(False, flags.BOOLEAN, "on a GPU, compile the network: minutes at the start, faster steps")
    deterministic: bool = _machine(False, flags.BOOLEAN, "the same bits in every run on a GPU too; slower")


# A tenth of a million weights learn fast and forget fast: what serves them best where no flag says otherwise.
LIGHT_RECIPE = {"learning_rate": 2e-3, "warmup": "50steps", "ema": 0.99}


@dataclass(frozen=True)
class TrainingSettings:
    """All that a run of training is told, resolved once, and never written to. `init`: the checkpoint that it starts from."""

    source: Source
    data: DataSettings
    model: ModelSettings
    optimisation: Optimisation
    validation: Validation
    saving: Saving
    machine: Machine
    init: str | None = None

    @classmethod
    def start(cls, given, initial=None, init=None):
        """A new run's. given: flags by name · initial: the `Loaded` network of `init`, whose settings stand in for flags."""
        inherited = initial.settings.plain() if initial else {}
        if given.get("tilt_noise") and not inherited.get("estimate_tilt"):
            inherited.pop("estimate_tilt", None)  # tilts that were told so far are not any more
        model = ModelSettings.pick(inherited, given)
        if model.network == "light":
            given = LIGHT_RECIPE | given
        return cls(*(model if kind is ModelSettings else kind.pick(given) for kind in KINDS), init)

    @classmethod
    def resume(cls, given, saved):
        """A resumed run's: the flags that it has saved, and the given ones that may differ.

        Raises UserError, by name, for any other flag whose value on the command line differs from the saved one.
        """
        run = cls(*(kind.pick(saved) for kind in KINDS), saved.get("init"))
        free = {part.name for kind in KINDS for part in fields(kind) if part.metadata["free"]}
        for name, then in run.plain().items():
            if name not in free and given.get(name, then) != then:
                raise UserError(
                    f"--{name} {given[name]} differs from the run's {then}; leave it out, or start a new run without --resume"
                )
        return cls(*(kind.pick(saved, given) for kind in KINDS), run.init)

    def plain(self):
        """Every flags.setting by its flag's name, as args.yaml and checkpoints hold them."""
        parts = self.source, self.data, self.model, self.optimisation, self.validation, self.saving, self.machine
        return {"init": self.init} | {name: value for part in parts for name, value in part.plain().items()}


KINDS = Source, DataSettings, ModelSettings, Optimisation, Validation, Saving, Machine


def add_training(parser):
    """Every flag of training; those that are not on the command line are not in the namespace."""
    recipe = " ".join(f"--{name} {value}" for name, value in LIGHT_RECIPE.items())
    about = f"light trains with {recipe}, where nothing else is given"
    flags.add_settings(parser, *KINDS, descriptions={"optimisation": about})
    start = parser.add_argument_group("start").add_mutually_exclusive_group()
    start.add_argument("--resume", metavar="RUN", help="continue a run folder, or its latest.pt, with the settings it has")
    start.add_argument(
        "--init",
        metavar="FILE",
        help="start from a checkpoint's weights, ours or published, or of the repository's networks, 'pretrained', "
        "'pretrained_any_heading' and 'pretrained_photo'; its network settings hold where no flag says otherwise",
    )
