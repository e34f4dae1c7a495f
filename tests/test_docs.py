"""What README and docs/ promise: commands that the scripts take, links that lead somewhere, one list of dependencies."""

import ast
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml
from children import PROJECT, script_module

ROOT = PROJECT
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SOURCES = [
    path
    for path in sorted(ROOT.rglob("*.py"))
    if not {"data", "runs", "tests"} & set(path.relative_to(ROOT).parts[:1])
    and not path.relative_to(ROOT).parts[0].startswith(".")
]
PACKAGE_OF = {"cv2": "opencv-python-headless", "PIL": "pillow", "yaml": "pyyaml"}  # where the import has another name


def code_blocks(page):
    """The indented blocks of a page, each as one text without the indent."""
    text = page.read_text("utf-8")
    return [re.sub(r"^    ", "", block, flags=re.M) for block in re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, flags=re.M)]


def commands():
    """(page, script or module, its flags) of every Python command of the pages' blocks, and of the README's text."""
    for page in PAGES:
        in_text = re.findall(r"`((?:python|torchrun) [^`]+)`", page.read_text("utf-8")) if page == PAGES[0] else []
        for block in [*code_blocks(page), *in_text]:
            for line in block.replace("\\\n", " ").splitlines():
                words = (
                    shlex.split(line.replace("$(", "").replace(")", ""), comments=True)
                    if re.match(r"(python|torchrun) ", line)
                    else []
                )
                for i, word in enumerate(words):
                    if word.endswith(".py") or (i and words[i - 1] == "-m"):
                        yield page.name, word.removesuffix(".py"), words[i + 1 :]
                        break


@pytest.mark.parametrize(
    ("page", "module", "flags"), [pytest.param(*case, id=" ".join(case[1:2] + tuple(case[2]))) for case in commands()]
)
def test_commands_are_ones_that_the_scripts_take(page, module, flags):
    script_module(module).build_parser().parse_args(flags)


def test_links_lead_to_files():
    for page in PAGES:
        text = page.read_text("utf-8")
        named = re.findall(r"\]\(([^)#]+)[^)]*\)", text) + re.findall(r"`((?:[\w.]+/)+[\w.]+\.(?:py|md|sh|png|yaml))`", text)
        for link in named:
            if not link.startswith("http"):
                assert (page.parent / link).exists() or (ROOT / link).exists(), f"{page.name} names {link}"


def test_the_layout_names_every_file():
    layout = (ROOT / "docs/CODE.md").read_text("utf-8").partition("## Where things are")[2].partition("\n## ")[0]
    words = set(re.findall(r"\w+", layout))
    for path in SOURCES:
        if path.name != "__init__.py":
            assert path.stem in words, f"the layout in docs/CODE.md leaves out {path.relative_to(ROOT)}"
    for folder in {path.parent for path in SOURCES} - {ROOT}:
        assert f"{folder.name}/" in layout, f"the layout in docs/CODE.md leaves out {folder.relative_to(ROOT)}/"


def test_one_list_of_dependencies():
    environment = yaml.safe_load((ROOT / "environment.yaml").read_text())
    assert environment["name"] == "crossview"
    assert {"pip": ["-r requirements.txt"]} in environment["dependencies"]
    plain = [word for word in environment["dependencies"] if isinstance(word, str)]
    assert sorted(word.partition("=")[0] for word in plain) == ["pip", "python"]
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    listed = {re.match(r"[\w-]+", line)[0].lower() for line in lines if line and not line.startswith("#")}
    ours = {path.stem for path in ROOT.glob("*.py")} | {path.parent.name for path in SOURCES}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in {name.partition(".")[0] for name in names} - ours - set(sys.stdlib_module_names):
                assert PACKAGE_OF.get(name, name) in listed, f"{path.name} imports {name}, which requirements.txt does not list"


def test_make_takes_another_python_and_another_place(tmp_path):
    def make(*words):
        return subprocess.run(["make", "-C", str(ROOT), *words], capture_output=True, text=True)

    dry = make("-n", "demo", "PYTHON=python3.99", f"VENV={tmp_path}/venv").stdout
    assert "python3.99 -m venv" in dry and f"{tmp_path}/venv/bin/python train_VIGOR.py" in dry and ".venv/" not in dry
    failed = make("install", "PYTHON=python3.99", f"VENV={tmp_path}/venv")
    assert failed.returncode and "make PYTHON=" in failed.stdout


def test_every_script_once_as_the_docs_have_it(tmp_path):
    """The block that needs no VIGOR, copied into a shell beside a copy of the code."""
    (block,) = [block for block in code_blocks(ROOT / "docs/README.md") if "--root data/tiny" in block]
    leave = shutil.ignore_patterns("data", "runs", ".*", "tests", "__pycache__")
    shutil.copytree(ROOT, tmp_path / "code", ignore=leave)
    shell = [sys.executable, str(ROOT / "tests/shell.py"), block]  # ten starts of Python would take longer than what they run
    done = subprocess.run(shell, cwd=tmp_path / "code", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (tmp_path / "code/runs/tiny").iterdir()
    assert (run / "best.pt").exists() and list((run / "results").glob("summary_*.json"))
    for folder in ("visualizations_loc", "visualizations_cross_attention", "visualizations_semi_positive"):
        assert list((run / folder).glob("*.png")), folder
