"""tfbig parity --recipe=diagnosis           our loop beside model.fit, on a recipe's first batch
tfbig parity --program=my_training.py     your loop beside model.fit, and why it differs

The program is Python that defines build(), which returns a compiled Keras model; batch(), which
returns (x, y) or (x, y, sample_weight); and its loop: train_step(model, x, y, sample_weight), which
takes one step, or train(model, x, y, epochs), a whole training. It is run as far as its
definitions, without what stands under `if __name__ == "__main__"`. A model with a train_step of its
own needs no other.

Exit status 1 where the loop differs.
"""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import flags

from tfbig.cli import common
from tfbig.cli.main import UsageError

FLAGS = flags.FlagValues()
common.define_recipe(FLAGS)
common.define_model(FLAGS)
common.define_program(FLAGS)
flags.DEFINE_integer("seed", 0, "of the split and of the weights", flag_values=FLAGS)
flags.DEFINE_integer(
    "steps", 3, "how often the batch of a program is replayed", lower_bound=1, flag_values=FLAGS
)
flags.DEFINE_integer("epochs", 2, "of a program's train", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer("batch_size", 32, "of fit beside train", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_bool("shuffle", True, "whether fit beside train shuffles", flag_values=FLAGS)
flags.DEFINE_bool("json", False, "print JSON", flag_values=FLAGS)


def run(values: flags.FlagValues) -> int:
    """Compares fit with the loop, or diagnoses a program's."""
    report = _diagnosed(values) if values.program else _compared(values)
    print(json.dumps(report.to_json()) if values.json else report)
    return 0 if report.matches else 1


def _compared(values: flags.FlagValues) -> Any:
    recipe = common.recipe(values.recipe)
    import keras

    from tfbig import parity
    from tfbig.recipes import run as runs
    from tfbig.recipes.recipe import TextRecipe

    keras.utils.set_random_seed(values.seed)
    if isinstance(recipe, TextRecipe):
        with common.mendable():
            model, batch = recipe.first_batch(values.seed, values.model)
        return parity.compare(model, *batch)
    split = recipe.data(values.seed)
    model = common.model(values.model) if values.model else recipe.model(split)
    return runs.gradients(recipe, model, split)


def _diagnosed(values: flags.FlagValues) -> Any:
    module = common.program(values.program)
    import keras

    from tfbig import parity

    keras.utils.set_random_seed(values.seed)
    model = common.build(module)
    given = _batch(module)
    loops = {name: vars(module).get(name) for name in ("train_step", "train")}
    if all(loops.values()):
        raise UsageError(f"{_name(module)} defines train_step and train: one of them is expected")
    own = type(model).train_step is not keras.Model.train_step
    if not any(loops.values()) and not own:
        raise UsageError(
            f"{_name(module)} defines no train_step(model, x, y, sample_weight) and no "
            f"train(model, x, y, epochs), and its model has no train_step of its own"
        )
    try:
        return parity.diagnose(
            model,
            *given,
            loop=loops["train_step"],
            train=loops["train"],
            steps=values.steps,
            epochs=values.epochs,
            batch_size=values.batch_size,
            shuffle=values.shuffle,
        )
    except parity.LoopError as error:
        raise UsageError(str(error)) from error


def _batch(module: ModuleType) -> tuple:
    batch = vars(module).get("batch")
    if not callable(batch):
        raise UsageError(f"{_name(module)} defines no batch(), which returns (x, y)")
    try:
        given = batch()
    except Exception as error:
        raise UsageError(f"batch() of {_name(module)} fails: {error!r}") from error
    if not isinstance(given, (tuple, list)) or len(given) not in (2, 3):
        raise UsageError(f"batch() of {_name(module)} returns (x, y) or (x, y, sample_weight)")
    return tuple(given)


def _name(module: ModuleType) -> str:
    return Path(str(module.__file__)).name
