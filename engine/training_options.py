"""The flags of training, in groups; those that other scripts have too are in `engine.options`."""

from engine.options import (
    add_data_source,
    at_least,
    boolean,
    duration,
    field_of_view,
    heading_noise,
    multiple_of_32,
    positive,
    probability,
)


def add_data(parser):
    """Flags about the pairs: which, at what size, how augmented."""
    group = parser.add_argument_group("data")
    add_data_source(group, orientation_file=False)
    group.add_argument(
        "--area",
        choices=("samearea", "crossarea"),
        default="samearea",
        help="samearea: all cities train and test; crossarea: New York and Seattle train",
    )
    group.add_argument(
        "--pos_only", type=boolean, default=True, metavar="BOOL", help="False: half of the samples use a semi-positive"
    )
    group.add_argument(
        "-f", "--FoV", type=field_of_view, default=360.0, metavar="DEG", help="degrees of the panorama that are kept"
    )
    group.add_argument("--ori_noise", type=heading_noise, default=0.0, metavar="DEG", help="headings within +- degrees; 180: any")
    group.add_argument(
        "--satellite_size", type=multiple_of_32, default=512, metavar="PX", help="side of satellite image and heat map"
    )
    group.add_argument(
        "--panorama_size",
        type=multiple_of_32,
        nargs=2,
        default=[320, 640],
        metavar=("H", "W"),
        help="pixels of the whole panorama",
    )
    group.add_argument(
        "--augment",
        choices=("none", "photometric", "full"),
        default="full",
        help="of the training pairs: colours alone, or both views moved as one world too",
    )


def add_network(parser):
    """Flags about the network; their names are those of its settings."""
    group = parser.add_argument_group("network")
    group.add_argument("--d_model", type=at_least(8), default=320, metavar="N", help="channels of the fusion block's tokens")
    group.add_argument("--n_layer", type=at_least(1), default=2, metavar="N", help="cross-attention layers")
    group.add_argument("--num_heads", type=at_least(1), default=8, metavar="N", help="attention heads; must divide d_model")
    group.add_argument("--block_exp", type=at_least(1), default=4, metavar="N", help="expansion of the fusion block's MLPs")
    group.add_argument("--vert_anchors", type=at_least(1), metavar="N", help="rows of tokens (default: satellite size / 32)")
    group.add_argument("--horz_anchors", type=at_least(1), metavar="N", help="columns of tokens (default: satellite size / 32)")
    group.add_argument(
        "--dropout_rate", type=at_least(0.0, float, below=1.0), default=0.3, metavar="P", help="dropout in the decoder"
    )
    group.add_argument("--use_mask", type=boolean, default=True, metavar="BOOL", help="give the decoder the semantic mask")
    group.add_argument("--use_mixstyle", type=boolean, default=True, metavar="BOOL", help="MixStyle after blocks 4 and 9")
    group.add_argument("--mixstyle_p", type=probability, default=0.3, metavar="P", help="probability of mixing")
    group.add_argument("--mixstyle_alpha", type=positive, default=0.1, metavar="A", help="of Beta(A, A), which draws the mixture")
    group.add_argument("--mixstyle_mix", choices=("random", "crossdomain"), default="random", help="which samples mix")
    group.add_argument(
        "--backbone_weights", default="imagenet", metavar="SOURCE", help="imagenet (downloaded once), none, or a file"
    )
    group = parser.add_argument_group(
        "matching", "ground_plane is recommended; published, the default, is the thesis's and fits its checkpoints"
    )
    group.add_argument(
        "--matching",
        choices=("published", "ground_plane"),
        default="published",
        help="how panorama features meet satellite features: pixel by pixel, or projected to the ground and correlated",
    )
    group.add_argument("--camera_height", type=positive, default=2.5, metavar="M", help="metres above the street")
    group.add_argument("--matching_radius", type=positive, default=20.0, metavar="M", help="metres of ground around the camera")
    group.add_argument("--matching_channels", type=at_least(1), default=32, metavar="N", help="channels that are correlated")
    group.add_argument(
        "--heading_bins",
        type=at_least(4),
        default=36,
        metavar="N",
        help="headings tried on the full circle where --ori_noise is not 0",
    )


def add_optimisation(parser):
    """Flags of the loss, the optimizer and the protocol of training."""
    group = parser.add_argument_group("optimisation")
    group.add_argument(
        "-l", "--learning_rate", type=positive, default=8e-5, metavar="LR", help="of AdamW; falls along a cosine to 1e-6"
    )
    group.add_argument("--weight_decay", type=at_least(0.0, float), default=2e-3, metavar="WD", help="of AdamW")
    group.add_argument("--epochs", type=at_least(1), default=120, metavar="N", help="at most so many")
    group.add_argument(
        "--warmup",
        type=duration,
        default="0",
        metavar="T",
        help="linear rise of the rate at first: epochs (0.5), or steps (500steps)",
    )
    group.add_argument(
        "--accumulate", type=at_least(1), default=1, metavar="N", help="batches in one step, an update of the weights"
    )
    group.add_argument(
        "--ema",
        type=at_least(0.0, float, below=1.0),
        default=0.0,
        metavar="DECAY",
        help="validate and keep a moving average of the weights, 0.999 say; 0: the weights themselves",
    )
    group.add_argument(
        "--loss", choices=("infonce", "cross_entropy", "focal"), default="infonce", help="between heat map and target"
    )
    group.add_argument("--temperature", type=positive, default=0.1, metavar="T", help="of InfoNCE, and of the heat map it trains")
    group.add_argument("--max_steps", type=at_least(1), metavar="N", help="end each epoch after so many steps")
    group.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="of every random draw")
    group = parser.add_argument_group("validation")
    group.add_argument(
        "--val_every", type=at_least(1), metavar="N", help="epochs (default: every third up to 30, then every one)"
    )
    group.add_argument(
        "--val_on",
        choices=("val", "test"),
        default="val",
        help="the part held out of the training list, or, as in the thesis, the test list itself",
    )
    group.add_argument("--patience", type=at_least(1), default=7, metavar="N", help="validations without a gain before stopping")
    group.add_argument(
        "--min_delta", type=at_least(0.0, float), default=0.01, metavar="PX", help="what counts as a gain, pixels at 512"
    )


def add_run(parser):
    """Flags about a run's folder: where it is, what it starts from, how often it is saved."""
    group = parser.add_argument_group("run")
    group.add_argument("--runs_root", default="runs/VIGOR", metavar="DIR", help="where run folders are made")
    start = group.add_mutually_exclusive_group()
    start.add_argument("--resume", metavar="RUN", help="continue a run folder, or its latest.pt, with the settings it has")
    start.add_argument(
        "--init",
        metavar="FILE",
        help="start from a checkpoint's weights, ours or published; its network settings hold where no flag says otherwise",
    )
    group.add_argument(
        "--save_every",
        type=at_least(0),
        default=1000,
        metavar="N",
        help="steps between saves within an epoch; 0: at its end only",
    )
    group.add_argument("--log_every", type=at_least(1), default=20, metavar="N", help="steps between points in TensorBoard")


def add_speed(group):
    """Flags of training's speed against its exactness."""
    group.add_argument(
        "--amp",
        choices=("auto", "bf16", "fp16", "off"),
        default="auto",
        help="precision of the forward pass; auto: bf16 on a GPU that has it, else float32",
    )
    group.add_argument(
        "--tf32", type=boolean, default=True, metavar="BOOL", help="on a GPU, let float32 products round their inputs to 10 bits"
    )
    group.add_argument("--compile", action="store_true", help="on a GPU, compile the network: minutes at the start, faster steps")
    group.add_argument("--deterministic", action="store_true", help="the same bits in every run on a GPU too; slower")
