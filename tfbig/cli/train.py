"""tfbig train --recipe=diagnosis --driver=both --output=runs/diagnosis
tfbig train --recipe=language --size=tiny                    from scratch, on Python's own library
tfbig train --recipe=language --data=FOLDER                  from scratch, on your texts
tfbig train --recipe=language --model=smollm2 --data=FOLDER or CHATS.jsonl      to fine-tune

CHATS.jsonl has a conversation a line, as {"messages": [{"role": "user", "content": "..."}, ...]};
only the assistant's answers are learnt.
"""

import sys
from typing import Any

from absl import flags

from tfbig.cli import common
from tfbig.cli.main import UsageError

FLAGS = flags.FlagValues()
common.define_recipe(FLAGS)
flags.DEFINE_enum(
    "driver", "both", ["fit", "loop", "both"], "who trains; both: from one seed", flag_values=FLAGS
)
flags.DEFINE_integer(
    "epochs",
    None,
    "how often each example is seen; the recipe's own by default",
    lower_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "batch_size",
    None,
    "examples in a step; the recipe's own by default",
    lower_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_integer("seed", 0, "of the split, the weights and the order", flag_values=FLAGS)
flags.DEFINE_string(
    "output",
    None,
    "the folder for the model, its history and its pictures; runs/RECIPE by default, and "
    "runs/RECIPE_tuned with --model",
    flag_values=FLAGS,
)
# For recipes on text.
_OF_TEXT = ("size", "data", "model", "learning_rate")
flags.DEFINE_string(
    "size",
    None,
    "language: the one dial, tiny (the default), small, medium, large, or the number of layers",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "data",
    None,
    "language: a folder of texts, or a .jsonl file of conversations; Python's library by default",
    flag_values=FLAGS,
)
common.define_language_model(FLAGS)
flags.DEFINE_float(
    "learning_rate",
    None,
    "language: at its peak; by default what the size says, or that of fine-tuning",
    flag_values=FLAGS,
)


def run(values: flags.FlagValues) -> int:
    """Trains a recipe and writes what came of it."""
    recipe = common.recipe(values.recipe)
    from tfbig.recipes.recipe import TextRecipe

    arguments: dict[str, Any] = {
        "driver": values.driver,
        "epochs": values.epochs,
        "batch_size": values.batch_size,
        "seed": values.seed,
        "verbose": "auto" if sys.stdout.isatty() else 0,
    }
    of_text = {name: values[name].value for name in _OF_TEXT if values[name].value is not None}
    if isinstance(recipe, TextRecipe):
        if "model" in of_text and "size" in of_text:
            raise UsageError("--size is of a new model, and --model names one that is there")
        folder = f"runs/{recipe.name}" + ("_tuned" if "model" in of_text else "")
        with common.mendable():
            recipe.train(output=values.output or folder, **arguments, **of_text)
        return 0
    if of_text:
        raise UsageError(f"the recipe {recipe.name} takes no --{next(iter(of_text))}")
    from tfbig.recipes import run as runs

    runs.train(recipe, output=values.output or f"runs/{recipe.name}", **arguments)
    return 0
