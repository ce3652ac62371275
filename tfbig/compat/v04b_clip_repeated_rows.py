"""V4b: clipping looks at the repeated rows of an embedding's gradient one by one.

Four unit rows of one token are a gradient of 4, clipped to 1. Clipped as four rows their norm is 2,
and `clipnorm=1` or `global_clipnorm=1` moves SGD(1.0) by 2; each row is within `clipvalue=1`, which
moves it by 4. It is V2 at another place: with the rows merged first both are right.
"""

import keras
import tensorflow as tf

from tfbig.compat import ask, trial

SUMMARY = "clipping looks at the repeated rows of an embedding's gradient one by one"
WHEN = ""
MEND = "tfbig.compat.fixed(), or tfbig.training.Loop"


def meets(model: keras.Model) -> bool:
    """Whether an embedding and clipping come together."""
    return ask.embeds(model) and ask.clips(model)


def present() -> bool:
    """Whether a gradient clipped to 1 moves the weight by more."""
    return measured(clipnorm=1.0) > 1.5


@trial.traceless()
def measured(**clip: float) -> float:
    """How far SGD(1.0) moves along four unit rows of one token, clipped."""
    table = keras.Variable([[0.0]])
    rows = tf.IndexedSlices(tf.ones((4, 1)), tf.constant([0, 0, 0, 0]), tf.constant([1, 1]))
    keras.optimizers.SGD(1.0, **clip).apply([rows], [table])
    return -float(table[0, 0])
