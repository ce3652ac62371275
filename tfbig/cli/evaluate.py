"""tfbig evaluate --model=runs/diagnosis/model.keras --recipe=diagnosis"""

import json
import sys

from absl import flags

from tfbig.cli import common

FLAGS = flags.FlagValues()
common.define_recipe(FLAGS)
common.define_model(FLAGS)
flags.DEFINE_integer(
    "seed",
    None,
    "of the split; by default that of the training, from run.json beside the model",
    flag_values=FLAGS,
)
flags.DEFINE_bool("json", False, "print JSON", flag_values=FLAGS)


def run(values: flags.FlagValues) -> int:
    """Scores a saved model on the held-out part of a recipe's data."""
    recipe = common.recipe(values.recipe)
    model = common.model(values.model)
    from tfbig.recipes import run as runs
    from tfbig.recipes import show

    trained = runs.seed_of(values.model)
    seed = values.seed if values.seed is not None else trained or 0
    if trained not in (None, seed) or (trained is None and values.seed is None):
        # Another seed is another split: rows that the model learnt from would count as held out.
        known = "is not known" if trained is None else f"was {trained}"
        print(
            f"tfbig: evaluate: the split is of seed {seed}, and the seed of the training {known}: "
            f"if they differ, the model has seen most of these rows",
            file=sys.stderr,
        )
    split = recipe.data(seed)
    scores = runs.evaluate(recipe, model, split)
    if values.json:
        print(json.dumps({name: list(score) for name, score in scores.items()}))
    else:
        print(show.scores(scores, recipe.expected, len(split.x_test)))
    return 0
