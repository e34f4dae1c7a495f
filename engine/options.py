"""Flags that several scripts share, and what makes a flag strict."""

import argparse
import os
import sys

from engine.run import RunError


def boolean(text):
    """True or False; anything else is refused."""
    if text in ("True", "true"):
        return True
    if text in ("False", "false"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")


def at_least(low, kind=int, below=None):
    """A type for argparse: a number of `kind` that is >= low, and < below where given."""

    def number(text):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not value >= low or (below is not None and not value < below):
            bounds = f">= {low}" + (f" and < {below}" if below is not None else "")
            raise argparse.ArgumentTypeError(f"{text!r} is not {'an integer' if kind is int else 'a number'} {bounds}")
        return value

    return number


def positive(text):
    """A float above zero."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def probability(text):
    """A float within [0, 1]."""
    value = at_least(0.0, float)(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not within 0 and 1")
    return value


def field_of_view(text):
    """Degrees within (0, 360]."""
    value = positive(text)
    if value > 360:
        raise argparse.ArgumentTypeError(f"{text!r} is more than 360 degrees")
    return value


def heading_noise(text):
    """Degrees within [0, 180]."""
    value = at_least(0.0, float)(text)
    if value > 180:
        raise argparse.ArgumentTypeError(f"{text!r} is more than 180 degrees, which already is any heading")
    return value


def multiple_of_32(text):
    """A positive multiple of 32: what five halvings need."""
    value = at_least(32)(text)
    if value % 32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a multiple of 32")
    return value


def duration(text):
    """'3' or '0.5' epochs, or '500steps', as it stands; `steps_of` reads it."""
    at_least(0.0, float)(text.removesuffix("steps"))
    return text


def steps_of(text, steps):
    """A `duration` in steps, where an epoch has `steps`."""
    return int(text.removesuffix("steps")) if text.endswith("steps") else round(float(text) * steps)


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults, except where there is nothing to show, and keeps the examples' lines."""

    def _get_help_string(self, action):
        if any(action.default is nothing for nothing in (None, False, argparse.SUPPRESS)):
            return action.help
        return super()._get_help_string(action)


def make_parser(description, examples):
    """A parser whose help opens with a sentence and ends with example commands."""
    return argparse.ArgumentParser(
        description=description, epilog=f"examples:\n{examples}", formatter_class=HelpFormatter, allow_abbrev=False
    )


def add_data_source(group, orientation_file=True):
    """Where the data comes from and how it is read, the same in every script; training takes no orientation file."""
    group.add_argument(
        "--dataset_root",
        metavar="DIR",
        help="VIGOR's folder; without it VIGOR_ROOT, else mini-VIGOR in data/mini_vigor, drawn on first use",
    )
    group.add_argument(
        "--labels",
        choices=("corrected", "gps", "original"),
        default="corrected",
        help="splits__corrected, positions from the file names, or splits",
    )
    group.add_argument("--cache_root", metavar="DIR", help="small copies of the images, made by python -m dataset.cache")
    group.add_argument(
        "--on_bad_image",
        choices=("error", "skip"),
        default="error",
        help="stop at an unreadable image, or drop its pairs and count them",
    )
    if orientation_file:
        group.add_argument(
            "--orientation_file", metavar="NPY", help="fixed headings of the test list: degrees as CCVPE publishes them"
        )


def add_conditions(group, areas, splits):
    """Which pairs a network is measured on, and how they are seen; those that stay None follow the run (`follow_run`)."""
    group.add_argument("--area", choices=areas, help="default: the area that the network was trained for")
    group.add_argument("--split", choices=splits, default="test", help="which part")
    group.add_argument(
        "--pos_only",
        type=boolean,
        default=True,
        metavar="BOOL",
        help="False: also the semi-positives that contain the panorama, each behind its positive",
    )
    group.add_argument(
        "--ori_noise", type=heading_noise, metavar="DEG", help="headings within +- degrees; default: as trained, 0 for published"
    )
    group.add_argument(
        "-f", "--FoV", type=field_of_view, metavar="DEG", help="degrees of the panorama that are kept; default: as trained"
    )
    group.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="of the headings, with each panorama's name")


def data_source(args):
    """The flags of `add_data_source` that `dataset.vigor.open_split` takes by name: all but --dataset_root."""
    names = ("labels", "cache_root", "on_bad_image", "orientation_file")
    return {name: getattr(args, name) for name in names if hasattr(args, name)}


def follow_run(args, settings):
    """Let the flags about data that are not on the command line follow the run: `settings` are those of `model.load_model`."""
    for name in ("area", "ori_noise", "labels"):
        if name not in args.given:
            setattr(args, name, settings[name])


def add_machine(parser, batch_size=None):
    """Flags about the machine rather than the experiment."""
    group = parser.add_argument_group("machine")
    if batch_size:
        group.add_argument(
            "-b",
            "--batch_size",
            type=at_least(1),
            default=batch_size,
            metavar="N",
            help="pairs in one forward pass, of each process",
        )
    group.add_argument(
        "--num_workers",
        type=at_least(0),
        default=min(os.cpu_count() or 1, 8),
        metavar="N",
        help="loader processes; 0 loads in the main one",
    )
    add_device(group)
    return group


def add_device(group):
    """The flag that says what to compute on."""
    group.add_argument("--device", default="auto", help="auto (a GPU where there is one), cpu, cuda or cuda:N")


def run_script(main, parser, errors, arguments=None):
    """Parse and run; an error of the user's kind, or Ctrl-C, becomes one line on stderr and exit status 2, or 130.

    errors: exception classes, or a function that gives them where naming them would import much.
    `args.given` is the set of flags that stand on the command line, as opposed to defaults.
    """
    args = parser.parse_args(arguments)
    unset = object()
    blank = argparse.Namespace(**{name: unset for name in vars(args)})  # argparse fills in no default where a value stands
    args.given = {name for name, value in vars(parser.parse_args(arguments, blank)).items() if value is not unset}
    try:
        return main(args)
    except KeyboardInterrupt:
        print(f"{parser.prog}: stopped", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        line = memory_fault(error)
        if not line and not isinstance(error, errors() if callable(errors) else errors):
            raise
        print(f"{parser.prog}: error: {line or error}", file=sys.stderr)
        raise SystemExit(2) from None


def memory_fault(error):
    """One line with the way out where an exception says that memory ran out, else None. PyTorch has three ways to say so."""
    text = str(error)
    first = text.splitlines()[0] if text else ""
    if type(error).__name__ == "OutOfMemoryError":
        return (
            f"{first.split(' GPU ')[0]} A smaller --batch_size needs less; with training's --accumulate it learns as a larger one"
        )
    if "DefaultCPUAllocator" in text:
        asked = text.partition("DefaultCPUAllocator: ")[2].partition(" Error code")[0]
        return f"{asked} A smaller --batch_size or --satellite_size needs less"
    if "DataLoader worker" in text and "shared memory" in text:
        return (
            "a loader's process ran out of shared memory (/dev/shm). Fewer --num_workers or a smaller --batch_size need less; "
            "Docker grants more with --shm-size 8g or --ipc host"
        )


def resumed(args, saved, free):
    """The settings of a resumed run: the saved ones, with the `free` flags of the command line.

    Raises RunError, by name, for any other flag whose value on the command line differs from the saved one.
    """
    merged = {**vars(args), **saved}
    for name in args.given:
        value = getattr(args, name)
        if name in free:
            merged[name] = value
        elif name in saved and saved[name] != value:
            raise RunError(
                f"--{name} {value} differs from the run's {saved[name]}; leave it out, or start a new run without --resume"
            )
    return argparse.Namespace(**merged)
