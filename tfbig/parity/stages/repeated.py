"""Repeated rows of an embedding's gradient: summed in one of the two only (D59, V2)."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfbig import compat
from tfbig.parity.arrays import error
from tfbig.parity.causes import update as rows
from tfbig.parity.facts import Step
from tfbig.parity.stages.explanation import Explanation
from tfbig.training import surgery


def explain(
    step: Step,
    given: Sequence[Any],
    stock: Sequence[np.ndarray],
    moved: Callable[[Step, Sequence[Any], rows.Changed], list[np.ndarray]],
    where: str | None,
    out: Explanation,
) -> None:
    """D59: fit hands on repeated rows as they are (V2), and the loop sums them, or the reverse."""
    embeddings = [i for i in _embedded(step) if i < len(given) and given[i] is not None]
    if (
        len(step.gradients) != 1
        or not embeddings
        or compat.active("V2")
        or not compat.present("V2")
    ):
        return
    dense = [i for i in embeddings if not isinstance(given[i], tf.IndexedSlices)]
    repeated = [
        i
        for i in embeddings
        if i not in dense and len(np.unique(given[i].indices)) < len(np.asarray(given[i].indices))
    ]
    merged = [i for i in embeddings if i not in dense and i not in repeated]
    rows_in_fit = _embedding_rows(step)
    if not rows_in_fit or not (dense or merged):
        return
    # As fit has it: each row of the batch apart; its sum is known, so the first takes all of it.
    apart = list(given)
    for i in (*dense, *merged):
        tokens = rows_in_fit.get(i)
        if tokens is not None:
            apart[i] = tokens
    other = moved(step, apart, rows.Changed(""))
    if error(other, stock) > max(step.tolerance, 1e-4):
        path = step.model.trainable_variables[(dense or merged)[0]].path
        said = f"{path}: the loop's update differs by {error(other, stock):.2g} from fit's"
        out.add(step, rows.D59, said, where)


def _embedded(step: Step) -> list[int]:
    tables = [
        layer.embeddings
        for layer in surgery.flatten_layers(step.model)
        if isinstance(layer, keras.layers.Embedding)
    ]
    return [i for t in tables if (i := step.index(t)) is not None]


def _embedding_rows(step: Step) -> dict[int, tf.IndexedSlices]:
    """The sparse gradients of the tape itself, where it returned such."""
    found = {}
    for gradient in step.gradients:
        for source, value in zip(gradient.sources, gradient.given):
            i = step.index(source)
            if i is not None and isinstance(value, tf.IndexedSlices):
                found[i] = value
    return found
