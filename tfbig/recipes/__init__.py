"""Applications on real data: one file each, and what is done with every one of them."""

import difflib
import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfbig.recipes.recipe import Recipe, TextRecipe

__all__ = ["load", "names"]

_NOT_RECIPES = {
    "files",
    "language_data",
    "language_plan",
    "language_scores",
    "language_sizes",
    "recipe",
    "run",
    "scores",
    "show",
}


def names() -> list[str]:
    """The names of all recipes. Loads none of them.

    >>> names()
    ['diagnosis', 'language']
    """
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _NOT_RECIPES)


def load(name: str) -> "Recipe | TextRecipe":
    """The recipe of that name.

    Raises:
        ValueError: if there is none; the message names the closest.
    """
    if name not in names():
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"There is no recipe {name!r}.{hint} Recipes: {', '.join(names())}.")
    return importlib.import_module(f"tfbig.recipes.{name}").RECIPE
