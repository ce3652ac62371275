"""What a recipe is: data, a network, what it minimises, how it is judged, what to expect."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras

from tfbig.data import Split


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One application on real data. A recipe is a file with a `RECIPE` in it.

    Attributes:
        name: of the recipe and of its file.
        summary: one line.
        data: from a seed to the split data.
        model: from the data to a compiled model, which takes raw features.
        epochs, batch_size: of training.
        score: from targets and predictions to named scores with intervals.
        expected: for each score, the range in which it fell over the seeds that were tried.
    """

    name: str
    summary: str
    data: Callable[[int], Split]
    model: Callable[[Split], keras.Model]
    epochs: int
    batch_size: int
    score: Callable[[Any, Any], Mapping[str, Any]]
    expected: Mapping[str, tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class TextRecipe:
    """An application on text, which is a stream and no table: it trains and judges by itself.

    Attributes:
        name: of the recipe and of its file.
        summary: one line.
        train: takes `output`, `size`, `data`, `model`, `driver`, `epochs`, `batch_size`,
            `learning_rate`, `seed`, `verbose`.
        evaluate: takes `model`, `data`, `seed`; returns a score and what was scored.
        first_batch: from a seed, and a saved model's path or None, to a compiled model and
            `(inputs, targets, weights)`.
    """

    name: str
    summary: str
    train: Callable[..., Any]
    evaluate: Callable[..., Any]
    first_batch: Callable[..., Any]
