"""where: one way to choose layers and variables.

Freezing, LoRA, pruning, quantizing, decay masks and taps all ask "which?". The answer is a
predicate or a regular expression on the path: `where="dense[12]"`, `where=lambda layer:
layer.count_params() > 1000`. A regular expression is searched for in the path, so `"dense1"` means
any path with it, and `"^encoder/.*kernel$"` is exact.
"""

import re
from collections.abc import Callable
from typing import Any

import keras

from tfbig.training import surgery

Where = str | Callable[[Any], bool]


def layers(model: keras.Layer, where: Where = "") -> list[keras.Layer]:
    """The layers inside a model, at any depth, that are meant.

    Args:
        model: a model, or a layer with layers in it.
        where: a predicate on the layer, or a regular expression on its path; all by default.

    Returns:
        The layers, in the order in which the model holds them.

    Raises:
        ValueError: if none is meant: a misspelt path must not silently choose nothing.

    >>> model = keras.Sequential([keras.layers.Dense(2, name="a"), keras.layers.Dense(1, name="b")])
    >>> [layer.name for layer in layers(model, "b")]
    ['b']
    """
    return _chosen(surgery.flatten_layers(model), where, path, "layer")


def variables(model: keras.Layer, where: Where = "") -> list[keras.Variable]:
    """The weights of a model that are meant. Arguments, result and error: see `layers`.

    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="a")], name="net")
    >>> [v.path for v in variables(model, "bias$")]
    ['net/a/bias']
    """
    return _chosen(model.weights, where, lambda v: v.path, "variable")


def path(layer: keras.Layer) -> str:
    """Where a layer lives, such as `encoder/dense1`; before it is built, its name."""
    return layer.path or layer.name


def _chosen(things: list, where: Where, path_of: Callable[[Any], str], kind: str) -> list:
    meant = where if callable(where) else (lambda thing: re.search(where, path_of(thing)))
    chosen = [thing for thing in things if meant(thing)]
    if not chosen:
        there = ", ".join(path_of(thing) for thing in things[:8])
        raise ValueError(f"where={where!r} means no {kind} of the model. There are: {there} ...")
    return chosen
