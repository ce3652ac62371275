"""Imports run one way, by room; Keras's privates stay in their files; files stay readable."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "tfbig"
FILES = sorted(p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.py"))

MIDDLE = {"techniques", "scale", "generation", "interop", "parity", "data", "models"}
BASE = {"training", "compat"}
# `__init__` is `import tfbig` itself.
ALLOWED = {
    "cli": {"recipes", "__init__"} | MIDDLE | BASE,
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
    "__init__.py": {"_registration"},
    "__main__.py": {"cli"},
    # By name and late, once Keras is there.
    "_registration.py": {"models", "training"},
}
# Packages that only these rooms import.
ONLY = {"absl": {"cli"}}

PRIVATES_ALLOWED = ("training/surgery.py", "training/anatomy.py", "compat/")
# Public in spite of the underscore, so that it cannot clash with a field.
NAMEDTUPLE = {"_asdict", "_fields", "_field_defaults", "_make", "_replace"}


def imported(path, source):
    """(line, module) of each import in a file, in functions and through importlib too."""
    package = ["tfbig", *path.split("/")[:-1]]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = package[: len(package) + 1 - node.level] if node.level else []
            base = [*up, *(node.module or "").split(".")] if node.module else up
            yield from ((node.lineno, ".".join([*base, name.name])) for name in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            # f"tfbig.recipes.{name}": what stands before the brace tells the room.
            first = (
                node.args[0].values[0] if isinstance(node.args[0], ast.JoinedStr) else node.args[0]
            )
            if isinstance(first, ast.Constant) and path != "__init__.py":
                yield node.lineno, first.value.rstrip(".")


def wrong_imports(path, source):
    """(line, module) of what a file (`room/file.py`) imports against the rules."""
    room, wrong = path.split("/")[0], []
    for line, module in imported(path, source):
        top, target, *rest = [*module.split("."), "__init__"]
        if top != "tfbig":
            foreign = room not in ONLY.get(top, {room})
            stdlib_or_keras = top == "keras" or top in sys.stdlib_module_names
            if foreign or (room == "models" and not stdlib_or_keras):
                wrong.append((line, module))
        elif target == room == "techniques":
            own = path.split("/")[1].removesuffix(".py")
            if own != "__init__" and rest[0] != own:
                wrong.append((line, module))
        elif target != room and target not in ALLOWED[room]:
            wrong.append((line, module))
    return wrong


def privates(path, source):
    """(line, name) of what a file uses that its owner does not export."""
    if path.startswith(PRIVATES_ALLOWED):
        return []
    found = [(n, "keras.src") for n, t in enumerate(source.splitlines(), 1) if "keras.src" in t]
    found += [(n, m) for n, m in imported(path, source) if m.startswith("keras.src")]
    for node in ast.walk(ast.parse(source)):
        name = of = None
        if isinstance(node, ast.Attribute):
            name, of = node.attr, node.value
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr"):
            of, name = node.args[0], getattr(node.args[1], "value", None)
        if not isinstance(name, str) or not name.startswith("_") or name.startswith("__"):
            continue
        own = isinstance(of, ast.Name) and of.id in ("self", "cls")
        if not own and name not in NAMEDTUPLE:
            found.append((node.lineno, name))
    return found


def without_docstring(path, source):
    """The module, classes and functions of a public module that do not say what they are."""
    tree = ast.parse(source)
    missing = [] if ast.get_docstring(tree) else [path]
    if path.split("/")[-1].removesuffix(".py").startswith("_") and not path.endswith("__init__.py"):
        return missing
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    public = [n for n in tree.body if isinstance(n, kinds) and not n.name.startswith("_")]
    return missing + [node.name for node in public if not ast.get_docstring(node)]


def test_every_room_has_its_rule():
    assert {path.split("/")[0] for path in FILES} <= set(ALLOWED)


# One test over all files, not one for each: emptying Keras between tests is what takes time.
@pytest.mark.parametrize("rule", [wrong_imports, privates, without_docstring])
def test_every_file_keeps_the_rule(rule):
    broken = {path: rule(path, (PACKAGE / path).read_text()) for path in FILES}
    assert not {path: found for path, found in broken.items() if found}


def test_files_are_read_in_a_sitting(record_property):
    lines = {path: len((PACKAGE / path).read_text().splitlines()) for path in FILES}
    long = {path: n for path, n in lines.items() if n > 300}
    if long:
        record_property("say", f"over 300 lines: {long}")
    assert max(lines.values()) <= 400, long


# The tests of the tests.

WRONG = [
    ("models/a.py", "import tensorflow as tf"),
    ("models/a.py", "def f():\n    import numpy as np"),
    ("models/a.py", "from tfbig.training import where"),
    ("data/a.py", "def f():\n    from tfbig.models import x"),
    ("compat/a.py", "from tfbig.training.surgery import x"),
    ("training/a.py", "from tfbig import parity"),
    ("training/a.py", "from tfbig import compat, models"),
    ("training/a.py", "from .. import parity"),
    ("training/a.py", "from ..parity.probe import Probe"),
    ("training/a.py", "import importlib\nimportlib.import_module('tfbig.models')"),
    ("scale/a.py", "from tfbig.generation import x"),
    ("parity/a.py", "import tfbig.cli.main"),
    ("parity/a.py", "from tfbig.models import NeuralNetwork"),
    ("parity/a.py", "from absl import flags"),
    ("recipes/a.py", "import tfbig"),
    ("recipes/a.py", "from tfbig import __version__"),
    ("recipes/a.py", "from tfbig.cli import main"),
    ("parity/a.py", "from importlib import import_module\nimport_module(f'tfbig.recipes.{x}')"),
    ("techniques/lora.py", "from tfbig.techniques import pruning"),
    ("techniques/lora.py", "from . import pruning"),
    ("techniques/lora.py", "import tfbig.techniques.pruning"),
    ("__init__.py", "from tfbig import models"),
    ("_registration.py", "import tfbig.parity"),
]


RIGHT = [
    ("cli/a.py", "import tfbig\nfrom absl import flags\nfrom tfbig import compat, parity"),
    ("cli/a.py", "from tfbig.recipes import load\nfrom tfbig.cli.main import UsageError"),
    ("recipes/a.py", "from tfbig.training import Loop\nfrom . import show"),
    ("parity/a.py", "def f():\n    from tfbig.interop import x"),
    ("generation/a.py", "from tfbig.models import x"),
    ("models/a.py", "import math\nimport keras\nfrom keras import ops\nfrom tfbig.models import b"),
    ("techniques/__init__.py", "from tfbig.techniques.lora import LoRA"),
    ("techniques/lora.py", "from tfbig.training import where"),
    ("techniques/lora/a.py", "from tfbig.techniques.lora.b import x"),
    ("__main__.py", "from tfbig.cli.main import main"),
]


def test_a_wrong_import_is_seen_and_a_right_one_is_not():
    assert [case for case in WRONG if not wrong_imports(*case)] == []
    assert [case for case in RIGHT if wrong_imports(*case)] == []


PRIVATE = [
    "from keras.src import tree",
    "from keras import src",
    "import keras.src.trainers",
    "importlib.import_module('keras.src')",
    "model._loss_tracker",
    "self.model._loss_tracker",
    "super()._get_own_losses()",
    "getattr(model, '_loss_tracker')",
]
OWN = ["self._x = cls._y", "x.__class__", "row._replace(a=1)", "_f()"]


def test_a_private_is_seen_and_what_is_ones_own_is_not():
    assert [source for source in PRIVATE if not privates("training/a.py", source)] == []
    assert [source for source in OWN if privates("training/a.py", source)] == []
    assert [
        s for s in PRIVATE if privates("training/surgery.py", s) or privates("compat/v.py", s)
    ] == []


def test_a_missing_docstring_is_seen():
    source = '"""What."""\ndef f(): pass\nclass A: pass\ndef _g(): pass'
    assert without_docstring("data/a.py", source) == ["f", "A"]
    assert without_docstring("data/_a.py", "def f(): pass") == ["data/_a.py"]
    assert without_docstring("data/__init__.py", "def f(): pass") == ["data/__init__.py", "f"]
