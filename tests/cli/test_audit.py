"""`tfbig audit`, and the programs that verbs take."""

import json
import subprocess
import sys

import pytest

from tfbig import compat
from tfbig.cli import common
from tfbig.cli.main import UsageError, main

PROGRAM = """
import keras

def build():
    layers = [keras.layers.Embedding(3, 2), keras.layers.Dense(1)]
    model = keras.Sequential(layers, name="words")
    model.compile(keras.optimizers.{optimizer}, "mse")
    return model

if __name__ == "__main__":
    raise SystemExit("trains")
"""


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes a program; the folders that it makes importable are forgotten afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path])

    def write(text, name="program.py"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def test_help_loads_no_tensorflow():
    code = (
        "import sys; from tfbig.cli.main import main; status = main(['tfbig', 'audit', '--help']);"
        "assert not {'tensorflow', 'keras'} & set(sys.modules); sys.exit(status)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0 and "--program" in result.stdout, result.stderr


@pytest.mark.parametrize(
    ("optimizer", "certain", "status"),
    [
        ("SGD()", [], 0),
        ("Adam()", ["V2"], 0),  # which compat.fixed() mends
        ("SGD(use_ema=True, gradient_accumulation_steps=2)", ["V11"], 1),
    ],
)
def test_status_tells_whether_something_unfixed_is_met(optimizer, certain, status, written, capsys):
    command = ["tfbig", "audit", f"--program={written(PROGRAM.format(optimizer=optimizer))}"]
    assert main([*command, "--json"]) == status
    findings = json.loads(capsys.readouterr().out)
    assert [f["id"] for f in findings if not f["when"]] == certain
    assert set(findings[0]) == {"id", "summary", "when", "mend", "fixed"}
    assert main(command) == status
    out = capsys.readouterr().out
    assert ("words meets:" in out) == bool(certain)
    assert "It depends on you:" in out and "if you compile a model a second time" in out
    assert ("-> no fix, but: ema_momentum" in out) == bool(status)


def test_without_a_program_all_defects_are_listed(monkeypatch, capsys):
    monkeypatch.setattr(compat, "present", lambda name: name != "V1")
    assert main(["tfbig", "audit"]) == 0
    out = capsys.readouterr().out
    assert f"of {len(compat.DEFECTS)} known defects" in out and "has not V1" in out
    assert "  V4b  clipping" in out and "  V1 " not in out
    assert main(["tfbig", "audit", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["id"] for row in rows] == list(compat.DEFECTS)
    assert [row["id"] for row in rows if not row["present"]] == ["V1"]


def test_a_program_finds_what_stands_at_its_side(written):
    written("import keras\nmodel = keras.Sequential([])\nmodel.compile()", "beside_it.py")
    path = written("import dataclasses\nimport beside_it\ndef build(): return beside_it.model")
    module = common.program(path)
    assert module.__name__ == "tfbig_program_program"
    assert common.build(module) is module.beside_it.model


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n1 / 0", "does not run: line 2: ZeroDivisionError: division by zero"),
        ("def build(:", "does not run: line 1: SyntaxError: invalid syntax"),
        ("import no_such_package", "does not run: line 1: ModuleNotFoundError: No module named"),
        ("raise SystemExit", "does not run: line 1: SystemExit"),
        ("model = 3", r"defines no build\(\)"),
        ("build = 3", r"defines no build\(\)"),
        ("def build():\n    {}['a']", r"build\(\) of program.py fails: line 2: KeyError: 'a'"),
        ("def build(x): pass", r"build\(\) of program.py fails: TypeError: .*argument: 'x'"),
        ("def build(): return 3", r"build\(\) of program.py returns a int, not a keras.Model"),
        (
            "import keras\ndef build(): return keras.Sequential([])",
            "returns a model that is not compiled",
        ),
    ],
)
def test_wrong_programs_get_one_line_and_status_2(text, message, written, capsys):
    import re

    assert main(["tfbig", "audit", f"--program={written(text)}"]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and "Traceback" not in error and error.count("\n") == 1


def test_wrong_paths(written, tmp_path):
    with pytest.raises(UsageError, match="there is no file nowhere.py"):
        common.program("nowhere.py")
    with pytest.raises(UsageError, match="there is no file"):
        common.program(str(tmp_path))
    with pytest.raises(UsageError, match=r"--program ends in \.py"):
        common.program(written("", "program.txt"))
