"""Strict types, settings and the one way to end."""

import argparse
from dataclasses import dataclass

import pytest
import torch

from common import flags
from common.errors import UserError
from common.flags import Choice, Number, Settings, add_settings, make_parser, run_script, setting

PAGE = """A script.

    python script.py
"""


@pytest.mark.parametrize("text", ["yes", "1", "", "truee"])
def test_booleans_are_strict(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not True or False"):
        flags.BOOLEAN(text)
    assert flags.BOOLEAN("True") is True and flags.BOOLEAN("False") is False


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (flags.BEARING, ["-180", "3.5", "360"], ["nan", "1e300", "inf", "361", "north"]),
        (flags.POSITIVE, ["1e-9"], ["0", "-1", "nan", "inf"]),
        (flags.COUNT, ["1"], ["0", "1.5", "nan"]),
        (flags.PIXELS, ["32", "96"], ["0", "33", "-32"]),
        (Number(least=0, below=1), ["0", "0.99"], ["1", "-0.1"]),
        (flags.LATITUDE, ["47.57", "-85"], ["95", "nan"]),
    ],
)
def test_numbers_are_finite_and_in_range(kind, good, bad):
    for text in good:
        assert kind.allows(kind(text))
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError, match="is not a "):
            kind(text)


def place(words, capsys):
    """What a parser makes of two words, or its last line on stderr."""
    parser = make_parser(PAGE)
    parser.add_argument("--center", action=flags.Place, nargs=2)
    try:
        return parser.parse_args(["--center", *words.split()]).center
    except SystemExit:
        return capsys.readouterr().err.strip().split("\n")[-1]


def test_places(capsys):
    assert place("47.57 -122.3", capsys) == (47.57, -122.3)
    assert "'-122.3' is not a number from -85 up to 85; latitude comes first: 47.57 -122.3?" in place("-122.3 47.57", capsys)
    for words in ("nan 0", "95 200", "0 181", "north 0"):
        assert "argument --center: " in (line := place(words, capsys)) and "a latitude and a longitude, in degrees" in line


@dataclass(frozen=True)
class Some(Settings):
    """Settings of a test."""

    size: tuple = setting((3, 4), flags.COUNT, "sides", group="first", metavar=("H", "W"), count=2)
    rate: float = setting(0.5, flags.POSITIVE, "of learning", group="first", metavar="R", short="-r")
    kind: str = setting("a", Choice(("a", "b")), "which", group="second")
    fast: bool = setting(False, flags.BOOLEAN, "hurry", group="second")
    limit: int = setting(None, flags.COUNT, "at most", group="second", metavar="N")
    who: tuple = setting(None, flags.TEXT, "whose", group="second", metavar="NAME", count="+")


def test_settings_become_flags_and_flags_settings():
    parser = make_parser(PAGE)
    add_settings(parser, Some, descriptions={"second": "more about it"})
    assert vars(parser.parse_args([])) == {}
    given = vars(parser.parse_args("--size 5 6 -r 0.1 --kind b --fast --limit 7 --who x y".split()))
    assert Some.pick(given) == Some((5, 6), 0.1, "b", True, 7, ("x", "y")) and Some.pick(given, {"rate": 2, "other": 3}).rate == 2
    assert Some().plain() == {"size": [3, 4], "rate": 0.5, "kind": "a", "fast": False, "limit": None, "who": None}
    one = Some((5, 6), who=["x"])
    assert one.plain()["who"] == ["x"] and Some.pick(one.plain()) == one == Some((5, 6), who=("x",))
    page = parser.format_help()
    assert "sides (default: 3 4)" in page and "of learning (default: 0.5)" in page and "more about it" in page
    assert (
        "at most\n" in page
        and "whose\n" in page
        and "--who NAME [NAME ...]" in page
        and "hurry\n" in page
        and "python script.py" in page
    )


@pytest.mark.parametrize(
    ("ill", "says"),
    [
        ({"size": (3,)}, "size \\[3\\]: expected 2 values, each a whole number from 1"),
        ({"rate": 0.0}, "rate 0.0: expected a number above 0"),
        ({"rate": None}, "rate None: expected a number above 0"),
        ({"kind": "c"}, "kind 'c': expected one of a, b"),
        ({"fast": 1}, "fast 1: expected True or False"),
        ({"who": ()}, "who \\[\\]: expected one or more values, each a text"),
        ({"who": "x"}, "who 'x': expected one or more values, each a text"),
        ({"limit": True}, "limit True: expected a whole number from 1"),
    ],
)
def test_ill_settings_are_refused(ill, says):
    with pytest.raises(UserError, match=says):
        Some(**ill)


def _allocate_too_much(args):
    torch.empty(2**60)


def _overflow_the_gpu(args):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139.81 GiB ...")


def _lose_a_worker(args):
    raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. ... workers are out of shared memory.")


@pytest.mark.parametrize(
    ("main", "way_out"),
    [
        (_allocate_too_much, "--batch_size"),
        (_overflow_the_gpu, "2.00 GiB. A smaller --batch_size"),
        (_lose_a_worker, "--shm-size"),
    ],
)
def test_too_little_memory_is_one_line_with_a_way_out(main, way_out, capsys):
    with pytest.raises(SystemExit):
        run_script(main, make_parser(PAGE), [])
    assert way_out in (line := capsys.readouterr().err) and line.count("\n") == 1


def test_only_a_user_error_becomes_a_line(capsys):
    def fail(args):
        raise UserError("disk.pt: no such file; choose another")

    with pytest.raises(SystemExit) as stop:
        run_script(fail, make_parser(PAGE), [])
    assert stop.value.code == 2 and capsys.readouterr().err.endswith("error: disk.pt: no such file; choose another\n")
    with pytest.raises(ZeroDivisionError):
        run_script(lambda args: 1 / 0, make_parser(PAGE), [])


def test_a_form_is_read_by_the_same_checks():
    fields = {
        "heading": (flags.BEARING, " 30 "),
        "near": (flags.read_place, "47.6, -122.3"),
        "metres_per_pixel": (flags.POSITIVE, ""),
    }
    assert flags.read_form(**fields) == {"heading": 30.0, "near": (47.6, -122.3), "metres_per_pixel": None}
    for text, says in (("0", "'0' is not a number above 0"), ("1 2", "'1 2': expected one number")):
        with pytest.raises(UserError, match=f"metres per pixel {says}"):
            flags.read_form(metres_per_pixel=(flags.POSITIVE, text))


def test_a_page_names_fields_and_files_but_no_folders():
    line = flags.fault_on_page(UserError("/tmp/x/street.jpg: 3 x 4 px; give --metres_per_pixel, or cut"))
    assert line == "⚠ Street.jpg: 3 x 4 px; give *metres per pixel*, or cut"
    assert flags.fault_on_page(ValueError("a mistake of ours")) is None
