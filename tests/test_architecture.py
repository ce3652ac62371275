"""Imports run one way, by room; Keras's privates stay in their two files; files stay readable."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "tfbig"

MIDDLE = {"techniques", "scale", "generation", "interop", "parity", "data", "models"}
BASE = {"training", "compat"}
ALLOWED = {
    "cli": {"recipes"} | MIDDLE | BASE,
    "recipes": MIDDLE | BASE,
    "techniques": BASE,
    "scale": BASE | {"models"},
    "generation": BASE | {"models"},
    "interop": BASE | {"models"},
    "parity": BASE | {"interop"},
    "data": set(),
    "models": set(),
    "training": {"compat"},
    "compat": set(),
}
PRIVATE = {"training/surgery.py"}


def imported(source):
    """(line, module) of each import, those inside functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{name.name}") for name in node.names)


def wrong_imports(path, source):
    """What a file of the package (`room/file.py`) may not import."""
    room, wrong = path.split("/")[0], []
    for line, module in imported(source):
        parts = module.split(".")
        if parts[0] == "tensorflow" and room == "models":
            wrong.append((line, module))
        if parts[0] != "tfbig" or "/" not in path:
            continue
        target = parts[1] if len(parts) > 1 else "__init__"
        if room == "techniques" and target == room and parts[2:] != [path.split("/")[1][:-3]]:
            wrong.append((line, module))
        elif target != room and target not in ALLOWED[room]:
            wrong.append((line, module))
    return wrong


def privates(path, source):
    """Where a file uses what Keras does not export."""
    if path in PRIVATE or path.startswith("compat/"):
        return []
    found = [(line, m) for line, m in imported(source) if "keras.src" in m]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if not own and not node.attr.startswith("__"):
                found.append((node.lineno, node.attr))
    return found


FILES = sorted(p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES)
def test_imports_run_one_way(path):
    assert not wrong_imports(path, (PACKAGE / path).read_text())


@pytest.mark.parametrize("path", FILES)
def test_privates_stay_in_their_files(path):
    # Python's own: the only leading underscore that import machinery offers.
    assert not [f for f in privates(path, (PACKAGE / path).read_text()) if f[1] != "_registration"]


@pytest.mark.parametrize("path", FILES)
def test_files_open_with_what_they_are_and_are_read_in_a_sitting(path):
    source = (PACKAGE / path).read_text()
    assert ast.get_docstring(ast.parse(source)), "no module docstring"
    assert len(source.splitlines()) <= 350


@pytest.mark.parametrize("path", FILES)
def test_public_things_have_docstrings(path):
    tree = ast.parse((PACKAGE / path).read_text())
    public = [n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
    missing = [n.name for n in public if not n.name.startswith("_") and not ast.get_docstring(n)]
    assert not missing


def test_the_tests_see_what_is_wrong():
    assert wrong_imports("models/a.py", "import tensorflow as tf")
    assert wrong_imports("data/a.py", "def f():\n    from tfbig.models import x")
    assert wrong_imports("training/a.py", "from tfbig import parity")
    assert wrong_imports("parity/a.py", "import tfbig.cli.main")
    assert wrong_imports("techniques/lora.py", "from tfbig.techniques import pruning")
    assert not wrong_imports("cli/a.py", "from tfbig.recipes import load")
    assert privates("training/a.py", "from keras.src import tree")
    assert privates("models/a.py", "model._loss_tracker")
    assert not privates("models/a.py", "self._x = 1")
    assert not privates("compat/a.py", "import keras.src.trainers")
