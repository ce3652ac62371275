"""tfbig evaluate --model=runs/diagnosis/model.keras --recipe=diagnosis"""

import json

from absl import flags

from tfbig.cli import common

FLAGS = flags.FlagValues()
common.define_recipe(FLAGS)
common.define_model(FLAGS)
flags.DEFINE_integer("seed", 0, "of the split: the one of the training", flag_values=FLAGS)
flags.DEFINE_bool("json", False, "print JSON", flag_values=FLAGS)


def run(values: flags.FlagValues) -> int:
    """Scores a saved model on the held-out part of a recipe's data."""
    recipe = common.recipe(values.recipe)
    model = common.model(values.model)
    from tfbig.recipes import run as runs
    from tfbig.recipes import show

    split = recipe.data(values.seed)
    scores = runs.evaluate(recipe, model, split)
    if values.json:
        print(json.dumps({name: list(score) for name, score in scores.items()}))
    else:
        print(show.scores(scores, recipe.expected, len(split.x_test)))
    return 0
