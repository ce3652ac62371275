"""Whose labels? Tells which label each prediction was compared with, from the loss's gradient."""

import dataclasses

import numpy as np
import tensorflow as tf
from keras import ops

from tfbig.parity.arrays import Arrays
from tfbig.parity.facts import Part, Step
from tfbig.parity.replay import Forward, Head
from tfbig.training import anatomy

MOST_EXAMPLES = 256


def other_labels(
    step: Step, part: Part, replay: Forward, head: Head, deltas: Arrays
) -> tuple[str, float] | None:
    """Whether each example was given the label of another one (D02).

    The gradient of the loss by the prediction i depends on nothing but the label that i was given.
    It is computed for each of the n labels, and the one that fits is taken.

    Returns:
        The evidence and the factor of the loss, or `None`.
    """
    n, y, p = len(part.batch), head.y, head.y_pred
    if n > MOST_EXAMPLES or not tf.is_tensor(y) or not tf.is_tensor(p) or deltas[0] is None:
        return None
    if anatomy.mask(p) is not None:
        return None
    ends = anatomy.logits(p)
    table = np.empty((n, *ends.shape), "float64")  # (label, example, ...)
    for j in range(n):
        with replay.tape:
            label = ops.repeat(y[j : j + 1], n, axis=0)
            value = dataclasses.replace(head, y=label).value()
        gradient = replay.tape.gradient(value, ends)
        if gradient is None:
            return None
        table[j] = np.asarray(gradient, "float64")
    aim = np.asarray(deltas[0], "float64").reshape(n, -1)
    table = table.reshape(n, n, -1)
    for factor in (1.0, float(n)):
        distance = np.linalg.norm(table * factor - aim[None], axis=-1)  # (label, example)
        size = np.linalg.norm(aim) / np.sqrt(n)
        chosen = distance.argmin(axis=0)
        if (distance.min(axis=0) > 10 * step.tolerance * max(size, 1e-12)).any():
            continue
        labels = np.asarray(y, "float64").reshape(n, -1)
        wrong = int((labels[chosen] != labels).any(axis=1).sum())
        if not wrong:
            return None
        said = f"{wrong} of {n} predictions are compared with the label of another example"
        return said, factor
    return None
