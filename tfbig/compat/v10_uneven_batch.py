"""V10: with several replicas, a batch that they cannot share equally fails or is weighted wrong.

As the first batch it fails: Keras adds the shares up to learn their shapes, and they differ
(InvalidArgumentError). As a later one, the usual last batch of an epoch, it passes in silence, and
each replica's mean counts the same: of targets 1, 1 | 4 the gradient is that of 2.5, not of their
mean 2. The loss that `fit` reports is right, for it is weighted by the number of examples.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfbig.compat import ask, replicas, trial

SUMMARY = "with several replicas a batch of unequal shares fails or is weighted wrong"
WHEN = "if a batch, the last one included, is no multiple of the replicas"
MEND = "dataset.batch(n, drop_remainder=True), with n a multiple of the replicas"


def meets(model: keras.Model) -> bool:
    """Whether there are several replicas."""
    return ask.replicas(model) > 1


def present() -> bool:
    """Whether the weight moves by another number than the mean of the examples tells."""
    return replicas.measured("V10") != {"later": 1.0, "first": ""}


def measured(strategy: tf.distribute.Strategy) -> dict[str, Any]:
    """The weight after 4 + 3 examples, by hand 0.25 * 2 * 2 = 1; and the error of 3 alone."""
    y = np.array([0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 4.0])[:, None]
    model = replicas.line(strategy, lambda: keras.optimizers.SGD(0.25))
    model.fit(np.ones_like(y), y, batch_size=4, shuffle=False, verbose=0)
    later = round(float(model.get_weights()[0][0, 0]), 5)
    model = replicas.line(strategy, lambda: keras.optimizers.SGD(0.25))
    first = trial.error(lambda: model.fit(np.ones((3, 1)), y[4:], batch_size=3, verbose=0))
    return {"later": later, "first": first}
