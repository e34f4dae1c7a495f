"""The house: four floors whose imports only go down, and a few counts that keep it tidy."""

import ast
import subprocess

import pytest
from children import PROJECT

FLOORS = {"common": 1, "efficientnet_pytorch": 1, "loss": 1, "dataset": 2, "model": 2, "engine": 3, "benchmarks": 4, "docs": 4}
APART = {"dataset", "model"}  # which do not know each other
AT_THE_TOP = {
    "app_VIGOR",
    "train_VIGOR",
    "eval_VIGOR",
    "search_VIGOR",
    "visualize_loc",
    "visualize_attention",
    "visualize_semi_positive",
}


def read_sources():
    """{module's name: its syntax tree} of every tracked or new Python file outside tests."""
    listing = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.py"], cwd=PROJECT, capture_output=True, text=True
    )
    names = listing.stdout.split() or [str(path.relative_to(PROJECT)) for path in PROJECT.rglob("*.py")]
    paths = [PROJECT / name for name in names if not name.startswith(("tests/", "data/", ".")) and (PROJECT / name).exists()]
    return {
        ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(path.read_text())
        for path in paths
    }


SOURCES = read_sources()


def imports(tree):
    """(line, module) of every import inside a tree that leads to a module of ours."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in SOURCES else node.module for name in inside]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name in SOURCES)


def floor(name):
    return 4 if name in AT_THE_TOP else FLOORS[name.partition(".")[0]]


def test_imports_only_go_down():
    for name, tree in SOURCES.items():
        for line, other in imports(tree):
            package, its = name.partition(".")[0], other.partition(".")[0]
            assert floor(other) <= floor(name), f"{name}, line {line}, imports {other}, which stands above it"
            assert {package, its} != APART, f"{name}, line {line}, imports {other}"


def test_no_file_imports_itself_by_way_of_others():
    below = {name: {other for _, other in imports(tree)} for name, tree in SOURCES.items()}
    done = set()

    def walk(name, way):
        assert name not in way, " -> ".join([*way, name])
        if name not in done:
            for other in below[name]:
                walk(other, [*way, name])
            done.add(name)

    for name in below:
        walk(name, [])


def functions(tree):
    return [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def test_imports_stand_at_the_top():
    """But for what is heavy and of one command: captum, TensorBoard, drawing mini-VIGOR."""
    late = {
        f"{name}:{node.lineno}"
        for name, tree in SOURCES.items()
        for function in functions(tree)
        for node in ast.walk(function)
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    assert len(late) <= 12, sorted(late)


def test_args_stay_in_scripts_and_flag_files():
    for name, tree in SOURCES.items():
        if floor(name) < 4 and not name.endswith("flags"):
            takers = [node.name for node in functions(tree) if "args" in [arg.arg for arg in node.args.args]]
            assert set(takers) <= {"main"}, f"{name}: {takers}"


def test_the_engine_s_rooms_are_folders():
    assert len(list((PROJECT / "engine").glob("*.py"))) <= 5


@pytest.mark.parametrize("folder", ["common", "dataset", "engine", "loss", "model"])
def test_tests_lie_where_the_code_lies(folder):
    assert list((PROJECT / "tests" / folder).rglob("test_*.py"))
