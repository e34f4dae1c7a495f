"""Strict types, settings and the one way to end."""

import argparse
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from children import PROJECT

from common import flags, settings
from common.errors import UserError
from common.files import replacing
from common.flags import add_settings, make_parser, run_script
from common.settings import Choice, Number, Settings, setting

PAGE = "A script.\n\n    python script.py\n"


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (settings.BEARING, ["-180", "3.5", "360"], ["nan", "1e300", "inf", "361", "north"]),
        (settings.POSITIVE, ["1e-9"], ["0", "-1", "nan", "inf"]),
        (settings.COUNT, ["1"], ["0", "1.5", "nan"]),
        (settings.PIXELS, ["32", "96"], ["0", "33", "-32"]),
        (Number(least=0, below=1), ["0", "0.99"], ["1", "-0.1"]),
        (settings.LATITUDE, ["47.57", "-85"], ["95", "nan"]),
        (settings.BOOLEAN, ["True", "False"], ["yes", "1", "", "truee"]),
    ],
)
def test_booleans_are_strict_and_numbers_finite_and_in_range(kind, good, bad):
    for text in good:
        assert kind.allows(kind(text))
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError, match="is not "):
            kind(text)


@pytest.mark.parametrize("words", ["-122.3 47.57", "nan 0", "95 200", "0 181", "north 0"])
def test_places_are_a_latitude_and_a_longitude(words, capsys):
    parser = make_parser(PAGE)
    parser.add_argument("--center", action=flags.Place, nargs=2)
    assert parser.parse_args("--center 47.57 -122.3".split()).center == (47.57, -122.3)
    with pytest.raises(SystemExit):
        parser.parse_args(["--center", *words.split()])
    line = capsys.readouterr().err
    assert "argument --center: " in line
    assert ("47.57 -122.3?" in line) == (words == "-122.3 47.57"), "a swap is named"


@dataclass(frozen=True)
class Some(Settings):
    """Settings of a test."""

    size: tuple = setting((3, 4), settings.COUNT, "sides", group="first", metavar=("H", "W"), count=2)
    rate: float = setting(0.5, settings.POSITIVE, "of learning", group="first", metavar="R", short="-r")
    kind: str = setting("a", Choice(("a", "b")), "which", group="second")
    fast: bool = setting(False, settings.BOOLEAN, "hurry", group="second")
    limit: int = setting(None, settings.COUNT, "at most", group="second", metavar="N")
    who: tuple = setting(None, settings.TEXT, "whose", group="second", metavar="NAME", count="+")


def test_settings_become_flags_and_flags_settings():
    parser = make_parser(PAGE)
    add_settings(parser, Some, descriptions={"second": "more about it"})
    assert vars(parser.parse_args([])) == {}
    given = vars(parser.parse_args("--size 5 6 -r 0.1 --kind b --fast --limit 7 --who x y".split()))
    some = Some.pick(given)
    assert some == Some((5, 6), 0.1, "b", True, 7, ("x", "y")) == Some.read(some.plain(), "test")
    assert Some.pick(given, {"rate": 2, "other": 3}).rate == 2
    assert Some.given({"rate": 2, "other": 3}) == {"rate": 2}
    plain = {"size": [3, 4], "rate": 0.5, "kind": "a", "fast": False, "limit": None, "who": ["x"]}
    assert Some(who=["x"]).plain() == plain
    with pytest.raises(UserError, match="unknown test settings: depth"):
        Some.read({"depth": 3}, "test")
    parser.add_argument("--reach", nargs=2, default=[3.0, 0], help="how far")
    page = parser.format_help()
    defaults = "sides (default: 3 4)", "of learning (default: 0.5)", "how far (default: 3 0)"
    for part in (*defaults, "more about it", "at most\n", "hurry\n"):
        assert part in page
    assert "--who NAME [NAME ...]" in page and "python script.py" in page


@pytest.mark.parametrize(
    ("ill", "says"),
    [
        ({"size": (3,)}, "size \\[3\\]: expected 2 values"),
        ({"rate": 0.0}, "rate 0.0: expected a number above 0"),
        ({"rate": None}, "rate None: expected a number above 0"),
        ({"kind": "c"}, "kind 'c': expected one of a, b"),
        ({"fast": 1}, "fast 1: expected True or False"),
        ({"who": ()}, "who \\[\\]: expected one or more values"),
        ({"who": "x"}, "who 'x': expected one or more values"),
        ({"limit": True}, "limit True: expected a whole number"),
    ],
)
def test_ill_settings_are_refused(ill, says):
    with pytest.raises(UserError, match=says):
        Some(**ill)


OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")
BUS_ERROR = RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. ... shared memory.")
FAULTS = [(None, "--batch_size"), (OUT_OF_MEMORY, "A smaller --batch_size"), (BUS_ERROR, "--shm-size")]


@pytest.mark.parametrize(("fault", "way_out"), FAULTS)
def test_too_little_memory_is_one_line_with_a_way_out(fault, way_out, capsys):
    def main(args):
        if fault:
            raise fault
        torch.empty(2**60)

    with pytest.raises(SystemExit):
        run_script(main, make_parser(PAGE), [])
    assert way_out in (line := capsys.readouterr().err) and line.count("\n") == 1


def test_only_a_user_error_becomes_a_line(capsys):
    def fail(args):
        raise UserError("disk.pt: no such file; choose another")

    with pytest.raises(SystemExit) as stop:
        run_script(fail, make_parser(PAGE), [])
    assert stop.value.code == 2
    assert capsys.readouterr().err.endswith("error: disk.pt: no such file; choose another\n")
    with pytest.raises(ZeroDivisionError):
        run_script(lambda args: 1 / 0, make_parser(PAGE), [])


REFUSED = OSError(36, "File name too long", "a" * 300), OSError(28, "No space left")


@pytest.mark.parametrize("error", REFUSED)
def test_what_the_system_refuses_is_a_line(error, capsys):
    def fail(args):
        raise error

    with pytest.raises(SystemExit) as stop:
        run_script(fail, make_parser(PAGE), [])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and error.strerror in said and said.count("\n") == 1


SENT = {signal.SIGTERM: 143, signal.SIGINT: 130}


@pytest.mark.parametrize("number", SENT)
def test_a_request_to_stop_cleans_up(number, tmp_path, capsys):
    def work(args):
        with replacing(tmp_path / "table.csv") as beside:
            beside.touch()
            os.kill(os.getpid(), number)
            time.sleep(60)

    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as stop:
        run_script(work, make_parser(PAGE), [])
    assert stop.value.code == SENT[number] and capsys.readouterr().err.count("\n") == 1
    assert os.listdir(tmp_path) == [] and signal.getsignal(number) is before


def test_characters_that_the_terminal_lacks_end_no_script():
    program = "from common.flags import *; run_script(lambda _: print('within \\xb15\\xb0'), "
    program += f"make_parser({PAGE!r}), [])"
    words = [sys.executable, "-c", program]
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    ended = subprocess.run(words, cwd=PROJECT, env=environment, capture_output=True, check=True)
    assert ended.stdout.startswith(b"within ") and ended.stderr == b""


@pytest.mark.slow
def test_ctrl_c_while_modules_load_leaves_no_traceback():
    pipe = subprocess.PIPE
    words = [sys.executable, "visualize_loc.py", "--help"]
    with subprocess.Popen(words, cwd=PROJECT, stdout=pipe, stderr=pipe) as process:
        maps = Path(f"/proc/{process.pid}/maps")
        while "libtorch" not in maps.read_text():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert b"Traceback" not in process.stderr.read()
    assert process.returncode in (-signal.SIGINT, 130)


def test_a_reader_of_the_help_that_leaves_ends_a_script_quietly():
    page = f"{PAGE!r} + 'long ' * 30_000"
    program = f"from common.flags import *; run_script(print, make_parser({page}), ['--help'])"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], cwd=PROJECT, stdout=pipe, stderr=pipe) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode in (0, 141)  # argparse itself may notice it


def test_a_reader_that_leaves_ends_a_script_quietly():
    """As in `python script.py | head -1`."""
    program = "from common.flags import *; run_script(lambda _: [print('line') for _ in range(10**5)], "
    program += f"make_parser({PAGE!r}), [])"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], cwd=PROJECT, stdout=pipe, stderr=pipe) as process:
        assert process.stdout.readline() == b"line\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
