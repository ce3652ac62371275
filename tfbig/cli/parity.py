"""tfbig parity --recipe=diagnosis      (exit status 1 where the gradients differ)"""

import json

from absl import flags

from tfbig.cli import common

FLAGS = flags.FlagValues()
common.define_recipe(FLAGS)
common.define_model(FLAGS)
flags.DEFINE_integer("seed", 0, "of the split and of the weights", flag_values=FLAGS)
flags.DEFINE_bool("json", False, "print JSON", flag_values=FLAGS)


def run(values: flags.FlagValues) -> int:
    """Compares fit's gradients with the loop's, on a recipe's first batch."""
    recipe = common.recipe(values.recipe)
    import keras

    from tfbig.recipes import run as runs

    keras.utils.set_random_seed(values.seed)
    split = recipe.data(values.seed)
    model = common.model(values.model) if values.model else recipe.model(split)
    report = runs.gradients(recipe, model, split)
    print(json.dumps(report.to_json()) if values.json else report)
    return 0 if report.matches else 1
