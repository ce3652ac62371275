"""tfbig train --recipe=diagnosis --driver=both --output=runs/diagnosis"""

import sys

from absl import flags

from tfbig.cli import common

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
    "the folder for the model, its history and its pictures; runs/RECIPE by default",
    flag_values=FLAGS,
)


def run(values: flags.FlagValues) -> int:
    """Trains a recipe and writes what came of it."""
    recipe = common.recipe(values.recipe)
    from tfbig.recipes import run as runs

    runs.train(
        recipe,
        driver=values.driver,
        epochs=values.epochs,
        batch_size=values.batch_size,
        seed=values.seed,
        output=values.output or f"runs/{recipe.name}",
        verbose="auto" if sys.stdout.isatty() else 0,
    )
    return 0
