"""Shared parts of command lines: flags made from settings, named groups, errors and exit statuses."""

import argparse
import errno
import os
import re
import signal
import sys
from contextlib import contextmanager, suppress
from dataclasses import fields

from common.errors import UserError, missing_package
from common.settings import (
    CORES,
    COUNT,
    DATASET_ROOT,
    DEVICE,
    NUM_WORKERS,
    THREADS,
    WORKERS,
    names_cities,
    read_place,
)
from common.words import in_words

_REFUSED = (  # by the system, of a path or a disk, wherever the error comes from
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),
    *(errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP),
)


class Place(argparse.Action):
    """A flag's two words LAT LON as (latitude, longitude) in degrees."""

    def __call__(self, parser, namespace, words, option_string=None):
        try:
            setattr(namespace, self.dest, read_place(*words))
        except argparse.ArgumentTypeError as fault:
            raise argparse.ArgumentError(self, str(fault)) from None


def add_settings(parser, *kinds, descriptions=None, default=None, leave_out=()):
    """A flag for every setting of some `Settings` classes; returns {heading: group}, in the settings' order.

    Flags that are not given are missing from the namespace.
    descriptions: {group: text below its heading}.
    default: text that the help shows as every setting's default, or {name: text} for some of them; for the
    others, the help shows the setting's own default.
    leave_out: names of settings that get no flag.
    """
    groups = {}
    for part in (part for kind in kinds for part in fields(kind) if part.name not in leave_out):
        about = part.metadata
        name, check = about["group"], about["check"]
        if name not in groups:
            groups[name] = parser.add_argument_group(name, (descriptions or {}).get(name))
        names = [*([about["short"]] if about["short"] else []), f"--{part.name}"]
        inherited = default.get(part.name) if isinstance(default, dict) else default
        shown = inherited or ("" if part.default is None or part.default is False else in_words(part.default))
        help = about["help"] + (f" (default: {shown})" if shown else "")
        how = {"type": check, "metavar": about["metavar"] or check.unit, "nargs": about["count"]}
        if part.default is False:
            how = {"action": "store_true"}
        if check.names:
            how = {"choices": check.names, "nargs": about["count"]}
        how["help"] = argparse.SUPPRESS if about["hidden"] else help
        groups[name].add_argument(*names, default=argparse.SUPPRESS, **how)
    return groups


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults, except where there is nothing to show, and keeps the examples' lines."""

    def _get_help_string(self, action):
        default = action.default
        if default == [] or any(default is nothing for nothing in (None, False, argparse.SUPPRESS)):
            return action.help
        return f"{action.help} (default: {in_words(default)})"


def make_parser(page):
    """A parser from a script's own docstring: a description, its example commands, further paragraphs."""
    description, examples, *closing = page.strip().split("\n\n")
    spec = getattr(sys.modules["__main__"], "__spec__", None)  # IPython's %run leaves none in a second run
    module = getattr(spec, "name", "").removesuffix(".__main__")
    return argparse.ArgumentParser(
        prog=f"python -m {module}" if module and f"python -m {module}" in page else None,
        description="\n\n".join([description, *closing]),
        epilog=f"examples:\n{examples}",
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )


def add_dataset_root(group):
    """Add --dataset_root, the same in every script."""
    group.add_argument("--dataset_root", metavar="DIR", help=DATASET_ROOT)


def add_batches(group, batch_size):
    """Add --batch_size and --num_workers."""
    text = "pairs in one forward pass, of each process"
    group.add_argument("-b", "--batch_size", type=COUNT, default=batch_size, metavar="N", help=text)
    group.add_argument("--num_workers", type=WORKERS, default=CORES, metavar="N", help=NUM_WORKERS)


def add_workers(group):
    """Add --workers, the number of images that a command processes at a time."""
    cores = os.cpu_count() or 1
    group.add_argument("--workers", type=THREADS, default=cores, metavar="N", help="images at a time")


def add_device(group):
    """Add --device."""
    group.add_argument("--device", default="auto", help=DEVICE)


def read_words(parser, words=None):
    """The namespace of a command line's words. Empty words are refused; a repeated city counts once.

    An empty word is usually a shell variable that is not set.
    """
    words, flag = sys.argv[1:] if words is None else words, "a value"
    for word in words:
        name, is_whole, value = word.partition("=")
        flag = f"argument {name}" if re.match("--?[a-zA-Z]", name) else flag
        if not word.strip() or (is_whole and name.startswith("--") and not value.strip()):
            parser.error(f"{flag}: '' is empty; give a value, or leave the flag out")
    args = parser.parse_args(words)
    for name, value in vars(args).items():
        if isinstance(value, list) and names_cities(name):
            setattr(args, name, list(dict.fromkeys(value)))
    return args


def run_script(main, parser, words=None):
    """Parse the words of the command line, by default the process's own, and run.

    A UserError, a lack of memory or Ctrl-C becomes one line on stderr and exit status 2, or 130; SIGTERM
    counts as Ctrl-C, with status 143. If nobody reads the output any more, as after `| head`, the script ends
    silently with status 141, as in a shell. Characters that the output's encoding lacks are escaped.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # see `common`
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with suppress(AttributeError):  # of a stream that a program has put in place
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            args = read_words(parser, words)
        except SystemExit:
            sys.stdout.flush()  # of --help, while a reader that left is noticed
            raise
        with _interrupted_by(signal.SIGTERM):
            result = main(args)
            sys.stdout.flush()
            return result
    except KeyboardInterrupt as stop:
        print(f"{parser.prog}: stopped", file=sys.stderr)
        raise SystemExit(128 + (stop.args or (signal.SIGINT,))[0]) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
        raise SystemExit(141) from None
    except Exception as error:
        line = fault(error)
        if line is None:
            raise
        print(f"{parser.prog}: error: {line}", file=sys.stderr)
        raise SystemExit(2) from None


@contextmanager
def _interrupted_by(number):
    """Within the block, a signal by its number raises KeyboardInterrupt(number), as Ctrl-C raises its own."""
    owner = os.getpid()

    def interrupt(number, frame):
        if os.getpid() == owner:
            raise KeyboardInterrupt(number)
        signal.signal(number, signal.SIG_DFL)  # a forked process, which ends as its own kind does
        os.kill(os.getpid(), number)

    try:
        before = signal.signal(number, interrupt)
    except ValueError:  # signals belong to the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(number, before or signal.SIG_DFL)


def fault(error):
    """One line for a UserError, a system error, a missing package or a lack of memory, with the way out.

    None for other errors.
    """
    text = str(error)
    if isinstance(error, UserError):
        return text
    if line := missing_package(error):
        return line
    if isinstance(error, OSError) and error.errno in _REFUSED:
        return ": ".join(str(part) for part in (error.filename, error.strerror) if part)
    if text.startswith("Symlink loop from "):  # a RuntimeError of pathlib, before Python 3.13
        return f"{text.partition(' from ')[2]}: a loop of symbolic links"
    if type(error).__name__ == "OutOfMemoryError":
        says = text.partition("\n")[0].partition(" GPU ")[0]
        return f"{says} A smaller --batch_size needs less; training's --accumulate makes up for it"
    if "DefaultCPUAllocator" in text:
        says = text.partition("DefaultCPUAllocator: ")[2].partition(" Error code")[0]
        return f"{says} A smaller --batch_size or --satellite_size needs less"
    if "DataLoader worker" in text and "shared memory" in text:
        says = "a loader's process ran out of shared memory (/dev/shm). Fewer --num_workers or a smaller"
        return f"{says} --batch_size need less; Docker grants more with --shm-size 8g or --ipc host"
    return None
