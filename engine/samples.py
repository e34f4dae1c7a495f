"""What the picture scripts share: their flags, the samples that they show, the numbers of a sample, and where pictures go.

PyTorch and the drawing are imported where they are used, so that --help does not wait for them.
"""

import argparse
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine import checkpoint, options, run
from engine.metrics import distances

REFERENCE_PX = 512  # errors in pixels are given at this satellite size


def index_range(text):
    """'30' or '30-40' (both ends included) as a range."""
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if last < first:
        raise argparse.ArgumentTypeError(f"{text!r} is neither an index, 0 or more, nor a range such as 30-40")
    return range(first, last + 1)


def add_samples(parser, areas, splits):
    """Flags that say which network and which samples. Returns the group of alternatives, of which one has to be given."""
    group = parser.add_argument_group("what to draw")
    group.add_argument(
        "--model_path", "--resume", required=True, metavar="FILE", help="a checkpoint, of ours or published, or a run folder"
    )
    which = group.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--idx",
        "--img_idx",
        type=index_range,
        nargs="+",
        metavar="N",
        help="index in the list, as in the evaluation's CSV; several, or a range: 30-40",
    )
    which.add_argument(
        "--worst",
        type=options.at_least(1),
        metavar="N",
        help="the N largest errors in results/ beside the checkpoint, under the conditions of that evaluation",
    )
    group = parser.add_argument_group("data")
    options.add_data_source(group)
    options.add_conditions(group, areas, splits)
    parser.set_defaults(labels=None)
    return which


def add_output(parser, folder):
    """Flags that say where pictures go, and how large they are. folder: the default's name, beside the checkpoint."""
    group = parser.add_argument_group("output")
    group.add_argument("--output_dir", metavar="DIR", help=f"default: {folder}/ beside the checkpoint")
    group.add_argument("--dpi", type=options.at_least(20), default=150, metavar="N", help="dots per inch")
    group.add_argument("--format", choices=("png", "pdf"), default="png", help="of the pictures")
    options.add_device(parser.add_argument_group("machine"))
    parser.set_defaults(folder=folder)


class HeatMap(NamedTuple):
    """How heat maps are shown: the temperature of their softmax, and what to call them."""

    temperature: float
    name: str


class Samples(NamedTuple):
    """A network and the samples of a list to show."""

    model: object
    settings: dict
    device: object
    heat_map: HeatMap
    dataset: object
    list_name: str  # such as samearea_test
    indices: list


def open_samples(args, load_model, open_split):
    """The network of args.model_path and the samples that the flags name.

    load_model and open_split: those of `model` and `dataset.vigor`. Raises RunError for an index beyond the list.
    """
    worst = read_worst(args) if args.worst else None
    model, settings, device = open_network(args, load_model)
    options.follow_run(args, settings)
    dataset = open_split(
        args.dataset_root,
        args.area,
        args.split,
        settings,
        ori_noise=args.ori_noise,
        pos_only=args.pos_only,
        seed=args.seed,
        **options.data_source(args),
    )
    heat_map = find_heat_map(
        args.model_path,
        settings,
        {
            "area": settings["area"],
            "labels": args.labels,
            "pos_only": args.pos_only,
            "ori_noise_deg": args.ori_noise,
            "FoV_deg": settings["FoV"],
        },
    )
    indices = list(worst) if worst else [i for given in args.idx for i in given]
    if max(indices) >= len(dataset):
        last = f"has {len(dataset)} pairs, 0 to {len(dataset) - 1}"
        raise run.RunError(f"--idx {max(indices)}: the {args.area} {args.split} list {last}")
    for i, name in (worst or {}).items():
        if panorama_name(dataset, i) != name:
            raise run.RunError(f"--worst: pair {i} was {name} in the evaluation; give its --dataset_root, or evaluate again")
    return Samples(model, settings, device, heat_map, dataset, f"{args.area}_{args.split}", indices)


def open_network(args, load_model):
    """(network, its settings, device) of args.model_path."""
    device = run.pick_device(args.device)
    model, settings = load_model(args.model_path, device, FoV=args.FoV)
    return model, settings, device


def read_worst(args):
    """{index: panorama's name} of the largest errors in metres of the stored evaluation, the largest first.

    The flags take the conditions of that evaluation. Raises RunError where they are given otherwise, where there is no
    evaluation, or where it measured another checkpoint.
    """
    from engine.calibration import checkpoint_hash
    from engine.evaluation import read_results

    table, _, context = read_results(beside(args.model_path, "results"), args.area, args.split)
    if context["checkpoint_sha256"] != checkpoint_hash(checkpoint_file(args.model_path)):
        raise run.RunError(f"--worst: results/ beside {args.model_path} measured another checkpoint; evaluate again")
    context |= {"ori_noise": context["ori_noise_deg"], "FoV": context["FoV_deg"]}
    for name in ("area", "split", "labels", "pos_only", "ori_noise", "FoV", "seed", "orientation_file"):
        if name in args.given and getattr(args, name) != context[name]:
            raise run.RunError(f"--{name} {getattr(args, name)}: the evaluation that --worst reads had {context[name]}")
        setattr(args, name, context[name])
        args.given.add(name)
    worst = table.sort_values("error_m", ascending=False, kind="stable")[: args.worst]
    return dict(zip(worst["index"].tolist(), worst["panorama"], strict=True))


def find_heat_map(model_path, settings, conditions):
    """The temperature that an evaluation has fitted for this checkpoint under these conditions, else that of the training."""
    from engine.calibration import checkpoint_hash, find_fit

    file = checkpoint_file(model_path)
    if fit := find_fit(file, checkpoint_hash(file), conditions):
        return HeatMap(fit["temperature"], f"heat map, calibrated (temperature {fit['temperature']:.3g})")
    return HeatMap(settings["temperature"], f"heat map as trained (temperature {settings['temperature']:g}), not calibrated")


def panorama_name(dataset, i):
    """File name of the panorama of a pair."""
    return dataset.index.panorama[dataset.pairs[i][0]].decode()


class Estimate(NamedTuple):
    """What the network says about a sample. Positions: (row, col) in pixels of the satellite tensor; None: not known."""

    probability: np.ndarray  # (S, S), summing to 1
    position: tuple
    truth: tuple | None
    metres_per_pixel: float | None
    heading: float | None  # predicted, degrees
    true_heading: float | None
    error_px: float | None  # at 512
    error_m: float | None


def estimate(model, batch, settings, heat_map):
    """The network's result for a batch on its device, and an `Estimate` of each sample.

    All come from `predict_batch`, as the evaluation's do. A truth or a resolution that is not known is NaN in the batch.
    """
    from engine.prediction import predict_batch, probability_map

    result, columns = predict_batch(model, batch, settings["temperature"])
    probability = probability_map(result.logits, heat_map.temperature).cpu().numpy()
    size = probability.shape[-1]
    estimates = []
    for k in range(len(probability)):
        values = {name: _known(column[k]) for name, column in columns.items()}
        position = values["row"], values["col"]
        truth = None if values["true_row"] is None else (values["true_row"], values["true_col"])
        metres = values["metres_per_pixel"]
        inside = truth is not None and 0 <= min(truth) and max(truth) < size
        error = float(distances(*position, *truth)) if inside else None
        estimates.append(
            Estimate(
                probability=probability[k],
                position=position,
                truth=truth if inside else None,
                metres_per_pixel=metres,
                heading=values.get("heading"),
                true_heading=values["true_heading"],
                error_px=None if error is None else error * REFERENCE_PX / size,
                error_m=None if error is None or metres is None else error * metres,
            )
        )
    return result, estimates


def _known(value):
    return None if np.isnan(value) else float(value)


def describe_error(one):
    """An error in words: pixels at 512 and, where the resolution is known, metres."""
    metres = "" if one.error_m is None else f", {one.error_m:.2f} m"
    return f"{one.error_px:.2f} px at {REFERENCE_PX}{metres}"


def beside(model_path, name):
    """A folder beside a checkpoint, which may be given as its run folder."""
    return checkpoint_file(model_path).parent / name


def checkpoint_file(model_path):
    """The file of a checkpoint that may be given as its run folder."""
    path = Path(model_path)
    return path / "best.pt" if path.is_dir() else path


def output_folder(args):
    """The folder that pictures go to, made where it is missing."""
    folder = Path(args.output_dir) if args.output_dir else beside(args.model_path, args.folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise run.RunError(f"{folder}: cannot be made ({error.strerror}); choose another place with --output_dir") from None
    return folder


def save_figure(figure, folder, name, args):
    """Write a figure as `<name>.<format>`, whole or not at all, and say where."""
    path = folder / f"{name}.{args.format}"
    with checkpoint.replacing(path) as unfinished:
        figure.savefig(unfinished, dpi=args.dpi, format=args.format)
    print(f"picture: {path}")


def save_report(text, folder, name):
    """Write a text report beside a figure, and print it."""
    with checkpoint.replacing(folder / f"{name}.txt") as unfinished:
        unfinished.write_text(text)
    print(text, end="")
