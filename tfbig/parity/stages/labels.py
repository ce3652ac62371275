"""Whose labels? Tells which label each prediction was compared with, from the loss's gradient.

The gradient of the loss by prediction i depends on nothing but the label that i was given. So it is
computed for each of the n labels, and the one that fits is the one that the loop took.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from keras import ops

from tfbig.parity.arrays import Arrays
from tfbig.parity.causes.scale import SCALE
from tfbig.parity.facts import Part, Step
from tfbig.parity.replay import Forward, Head

MOST_NUMBERS = 2**22  # of the table: n labels for n examples


def other_labels(
    step: Step, part: Part, replay: Forward, heads: Sequence[Head], deltas: Arrays
) -> tuple[str, float] | None:
    """Whether examples were given the labels of others (D02).

    Args:
        step: of the loop.
        part: the gradient in question.
        replay: its forward pass.
        heads: the outputs and their losses.
        deltas: the gradient of the loop's loss by each output.

    Returns:
        The evidence and the factor of the loss; `None` unless every prediction has a label.
    """
    n = len(part.batch)
    tables = [_table(n, replay, head, deltas) for head in heads]
    if any(table is None for table in tables):
        return None
    scale = step.applies[0].scale if step.applies else 1.0
    known = [v for row in SCALE if row.hypothesis for v, _ in row.hypothesis(step, part)]
    for factor in dict.fromkeys(scale * v for v in (1.0, 1 / scale, *known)):
        wrong = [_wrong(step, factor, *table) for table in tables if table is not None]
        if all(w is not None for w in wrong) and any(wrong):
            most = max(w for w in wrong if w is not None)
            said = f"{most} of {n} predictions are compared with the label of another example"
            return said, factor
    return None


def _table(
    n: int, replay: Forward, head: Head, deltas: Arrays
) -> tuple[np.ndarray, np.ndarray] | None:
    """The gradient by each prediction for each label, `(label, example, ...)`, and the loop's."""
    own = replay.deltas(head.value)
    leaf = next((i for i, d in enumerate(own) if d is not None), None)
    if leaf is None or not tf.is_tensor(head.y):
        return None
    aim = deltas[leaf]
    if aim is None or n * aim.size > MOST_NUMBERS:
        return None
    rows = []
    for j in range(n):
        label = dataclasses.replace(head, y=ops.repeat(head.y[j : j + 1], n, axis=0))
        rows.append(np.asarray(replay.deltas(label.value)[leaf], "float64").reshape(n, -1))
    return np.stack(rows), np.asarray(aim, "float64").reshape(n, -1)


def _wrong(step: Step, factor: float, table: np.ndarray, wanted: np.ndarray) -> int | None:
    """How many examples have another's label; `None` if some have nobody's."""
    distance = np.linalg.norm(factor * table - wanted, axis=-1)  # (label, example)
    size = float(np.linalg.norm(wanted)) / np.sqrt(len(wanted))
    if (distance.min(axis=0) > 10 * step.tolerance * max(size, 1e-12)).any():
        return None
    # Its own label, where it fits as well as any.
    at_home = np.diagonal(distance) <= distance.min(axis=0) + 10 * step.tolerance * size
    return int((~at_home).sum())
