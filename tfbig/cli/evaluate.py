"""tfbig evaluate --model=runs/diagnosis/model.keras --recipe=diagnosis
tfbig evaluate --model=runs/language/model.keras --recipe=language
tfbig evaluate --model=smollm2 --recipe=language --data=FILE or FOLDER

Of a language model: its perplexity and its bits per byte.
"""

import json
import sys
from typing import TYPE_CHECKING

from absl import flags

from tfbig.cli import common
from tfbig.cli.main import UsageError

if TYPE_CHECKING:
    from tfbig.recipes.recipe import Recipe, TextRecipe

FLAGS = flags.FlagValues()
common.define_recipe(FLAGS)
flags.DEFINE_string(
    "model",
    None,
    "a saved model, .keras; for language also smollm2, a Hugging Face folder or a .gguf file",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "data",
    None,
    "language: a file or folder of text, or a .jsonl file of conversations; by default what was "
    "held out of the training",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "seed",
    None,
    "of the split; by default that of the training, from run.json beside the model",
    flag_values=FLAGS,
)
flags.DEFINE_bool("json", False, "print JSON", flag_values=FLAGS)


def run(values: flags.FlagValues) -> int:
    """Scores a saved model on the held-out part of a recipe's data, or on a text."""
    recipe = common.recipe(values.recipe)
    from tfbig.recipes.recipe import TextRecipe

    if isinstance(recipe, TextRecipe):
        return _on_text(recipe, values)
    if values.data:
        raise UsageError(f"the recipe {recipe.name} takes no --data")
    return _on_examples(recipe, values)


def _on_text(recipe: "TextRecipe", values: flags.FlagValues) -> int:
    if not values.model:
        raise UsageError("--model is missing: FILE.keras, smollm2, a folder or a .gguf file")
    with common.mendable():
        score, judged = recipe.evaluate(values.model, values.data, values.seed)
    if values.json:
        print(json.dumps(score.as_dict()))
        return 0
    print(judged)
    for name, value in score.as_dict().items():
        print(f"{name:14s} {value:.4f}" if isinstance(value, float) else f"{name:14s} {value}")
    return 0


def _on_examples(recipe: "Recipe", values: flags.FlagValues) -> int:
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
