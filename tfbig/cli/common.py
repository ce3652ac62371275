"""What several verbs share: the flags and the files that they take."""

import contextlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from absl import flags

from tfbig import recipes
from tfbig.cli import main
from tfbig.cli.quiet import start_keras

if TYPE_CHECKING:
    import keras

    from tfbig.recipes.recipe import Recipe, TextRecipe


def define_recipe(values: flags.FlagValues) -> None:
    """Defines `--recipe`."""
    flags.DEFINE_string("recipe", "diagnosis", "see tfbig recipes", flag_values=values)


def define_model(values: flags.FlagValues) -> None:
    """Defines `--model`."""
    flags.DEFINE_string("model", None, "a saved model, .keras", flag_values=values)


def define_program(values: flags.FlagValues) -> None:
    """Defines `--program`."""
    flags.DEFINE_string("program", None, "Python that defines build()", flag_values=values)


def define_language_model(values: flags.FlagValues) -> None:
    """Defines `--model` for the verbs that take a checkpoint."""
    flags.DEFINE_string(
        "model",
        None,
        "smollm2, minilm, a Hugging Face folder, a .gguf file, or a .keras file with its "
        "tokenizer's files beside it",
        flag_values=values,
    )


def define_dtype(values: flags.FlagValues) -> None:
    """Defines `--dtype`."""
    flags.DEFINE_enum(
        "dtype",
        None,
        ["float32", "bfloat16", "float16"],
        "in which the model computes and is kept in memory; float32 by default",
        flag_values=values,
    )


def recipe(name: str) -> "Recipe | TextRecipe":
    """The recipe of a flag."""
    if name in recipes.names():
        start_keras()
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
    start_keras()
    import keras

    try:
        return keras.models.load_model(path)
    except (ValueError, TypeError, OSError) as error:
        raise main.UsageError(f"{path} cannot be read as a .keras model: {error}") from error


def loaded(name: str | None, dtype: str | None = None) -> tuple["keras.Model", Any]:
    """The network and the tokenizer of `--model`.

    Args:
        name: as `define_language_model` says.
        dtype: as in `tfbig.interop.loading.load`.

    Returns:
        `(model, tokenizer)`; the tokenizer is None where there are no files of one.

    Raises:
        UsageError: if there is no such model, or its files are wrong.
        ImportError: if a package is missing, with the line that installs it.
    """
    if not name:
        raise main.UsageError("--model is missing: smollm2, a folder, or a .gguf file")
    from tfbig.interop import known

    with mendable():
        path = known.path_of(name)
        start_keras()
        from tfbig.interop.loading import load

        if path.suffix != ".keras":
            return load(path, dtype)
        if dtype is not None:
            raise main.UsageError(f"{path} has its dtype in it: --dtype is for checkpoints")
        return known.load_known(path)


def with_tokenizer(name: str | None, dtype: str | None = None) -> tuple["keras.Model", Any]:
    """As `loaded`, for a verb that needs the tokenizer."""
    model, tokenizer = loaded(name, dtype)
    if tokenizer is None:
        raise main.UsageError(
            f"{name} has no tokenizer: a tokenizer.json is expected beside the weights, as "
            f"AutoTokenizer.from_pretrained(...).save_pretrained(...) writes it"
        )
    return model, tokenizer


def lines(path: str) -> list[str]:
    """The lines of a text file, without their ends.

    Raises:
        UsageError: if it is not there, not UTF-8, or empty.
    """
    if not Path(path).is_file():
        raise main.UsageError(f"there is no file {path}")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise main.UsageError(f"{path} is no text in UTF-8: {error}") from error
    if not text:
        raise main.UsageError(f"{path} is empty")
    # Not `splitlines`, which cuts at a form feed, too.
    return text.removesuffix("\n").split("\n")


@contextlib.contextmanager
def mendable() -> Iterator[None]:
    """Within it, the errors of the library that a user can mend become a `UsageError`: one line.

    These are its `ValueError`s (of checkpoints, tokenizers, templates, arguments), and logits that
    are no numbers.

    >>> with mendable():
    ...     raise ValueError("model.safetensors is cut short.\\nDownload it again.")
    Traceback (most recent call last):
    tfbig.cli.main.UsageError: model.safetensors is cut short. Download it again.
    """
    try:
        yield
    except (ValueError, FloatingPointError) as error:
        raise main.UsageError(" ".join(str(error).split())) from error


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
    start_keras()
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
