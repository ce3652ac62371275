"""What several verbs share: the flags and the files that they take."""

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from absl import flags

from tfbig import recipes
from tfbig.cli import main

if TYPE_CHECKING:
    import keras

    from tfbig.recipes.recipe import Recipe


def define_recipe(values: flags.FlagValues) -> None:
    """Defines `--recipe`."""
    flags.DEFINE_string("recipe", "diagnosis", "see tfbig recipes", flag_values=values)


def define_model(values: flags.FlagValues) -> None:
    """Defines `--model`."""
    flags.DEFINE_string("model", None, "a saved model, .keras", flag_values=values)


def define_program(values: flags.FlagValues) -> None:
    """Defines `--program`."""
    flags.DEFINE_string("program", None, "Python that defines build()", flag_values=values)


def recipe(name: str) -> "Recipe":
    """The recipe of a flag."""
    try:
        return recipes.load(name)
    except ValueError as error:
        raise main.UsageError(str(error)) from error


def model(path: str | None) -> "keras.Model":
    """The model of a flag. Keras's safe mode: no code in the file is run."""
    if not path:
        raise main.UsageError("--model=FILE.keras is missing")
    if not Path(path).is_file():
        raise main.UsageError(
            f"there is no file {path}; tfbig train writes model.keras to --output"
        )
    if Path(path).suffix != ".keras":
        raise main.UsageError(f"--model ends in .keras, and is {path}")
    import keras

    try:
        return keras.models.load_model(path)
    except (ValueError, TypeError, OSError) as error:
        raise main.UsageError(f"{path} cannot be read as a .keras model: {error}") from error


def program(path: str) -> ModuleType:
    """The user's own program, run as far as its definitions: it is not `__main__`.

    Its folder is importable, as when Python runs it, so it finds the modules at its side.

    Args:
        path: of a file that defines `build()`.
    """
    file = Path(path).resolve()
    if not file.is_file():
        raise main.UsageError(f"there is no file {path}")
    if file.suffix != ".py":
        raise main.UsageError(f"--program ends in .py, and is {path}")
    # Under a name of ours: a program called json.py must not become everybody's json.
    spec = importlib.util.spec_from_file_location(f"tfbig_program_{file.stem}", file)
    assert spec and spec.loader  # which Python has for every .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise main.UsageError(f"{path} does not run: {_where(error, file)}") from error
    if not callable(vars(module).get("build")):
        raise main.UsageError(f"{path} defines no build(), which returns a compiled model")
    return module


def build(module: ModuleType) -> "keras.Model":
    """The compiled model of a program."""
    import keras

    file = Path(str(module.__file__))
    try:
        model = module.build()
    except (Exception, SystemExit) as error:
        raise main.UsageError(f"build() of {file.name} fails: {_where(error, file)}") from error
    if not isinstance(model, keras.Model):
        raise main.UsageError(
            f"build() of {file.name} returns a {type(model).__name__}, not a keras.Model"
        )
    if not model.compiled:
        raise main.UsageError(f"build() of {file.name} returns a model that is not compiled")
    return model


def _where(error: BaseException, file: Path) -> str:
    """An error in one line, with the last line of the file that it came by."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file)]
    if isinstance(error, SyntaxError):
        lines = [error.lineno]
    at = f"line {lines[-1]}: " if lines else ""
    text = " ".join(str(error).split())
    return f"{at}{type(error).__name__}" + (f": {text}" if text else "")
