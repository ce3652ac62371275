"""What several verbs share: the flags and the files that they take."""

from pathlib import Path
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
