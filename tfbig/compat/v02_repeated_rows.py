"""V2: optimizers square the repeated rows of an embedding's gradient one by one.

A token that occurs k times in a batch hands the optimizer k rows. Keras 3 on TensorFlow never adds
them, and Adam's second moment becomes the sum of the squares where it should be the square of the
sum. Five steps differ from PyTorch's by 3e-2; with the rows merged, by 3e-6. Wrong are Adam, AdamW,
RMSprop, Adagrad, Adafactor, Nadam, Adamax, Adadelta and Ftrl, and clipping; SGD and Lion are right.
"""

import contextlib
import functools
from collections.abc import Iterator

import keras
import tensorflow as tf
from keras.src.optimizers.base_optimizer import BaseOptimizer

from tfbig.compat import ask, trial, update

SUMMARY = "Adam and its kin square the repeated rows of an embedding's gradient one by one"
WHEN = ""
MEND = "tfbig.compat.fixed(), or tfbig.training.Loop"

# They never square a gradient.
_RIGHT = (keras.optimizers.SGD, keras.optimizers.Lion)


def meets(model: keras.Model) -> bool:
    """Whether an embedding and an optimizer that squares its gradient come together."""
    squares = any(not isinstance(o, _RIGHT) for o in ask.optimizers(model))
    return squares and ask.embeds(model)


@trial.traceless()
def present() -> bool:
    """Whether Adam moves further along two unit rows than along their sum.

    Adam's first step is lr * g / |g| = lr for any g; with g = 2 in the first moment and 1 + 1 in
    the second it is lr * 2 / sqrt(2).
    """
    table = keras.Variable([[0.0]])
    rows = tf.IndexedSlices(tf.ones((2, 1)), tf.constant([0, 0]), tf.constant([1, 1]))
    keras.optimizers.Adam(learning_rate=1.0).apply([rows], [table])
    return abs(float(table[0, 0])) > 1.2


@contextlib.contextmanager
def patched() -> Iterator[None]:
    """Merges the rows at the door of every Keras optimizer."""
    original = BaseOptimizer.apply

    @functools.wraps(original)
    def apply(self, grads, trainable_variables=None):
        merged = [update.merge_repeated_rows(g) for g in grads]
        return original(self, merged, trainable_variables)

    BaseOptimizer.apply = apply
    try:
        yield
    finally:
        BaseOptimizer.apply = original
