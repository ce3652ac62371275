"""V6: a BatchNormalization that is rematerialized counts each batch twice.

The second run, on the way back, updates the moving statistics again. From 0 with momentum 0.5 and
a batch of mean 2 the moving mean is 1.5 where it should be 1. The gradient is right.
"""

import keras
import tensorflow as tf

from tfbig.compat import ask, trial

SUMMARY = "a rematerialized BatchNormalization counts each batch twice"
WHEN = ""
MEND = "keep BatchNormalization outside of keras.remat and keras.RematScope"


def meets(model: keras.Model) -> bool:
    """Whether a rematerialized layer normalizes over the batch."""
    return any(map(ask.normalizes, ask.rematerialized(model)))


def present() -> bool:
    """Whether the moving mean of one batch is more than its share of it."""
    return measured() > 1.25


@trial.traceless()
def measured() -> float:
    """The moving mean after one step, by hand 0.5 * 0 + 0.5 * 2 = 1."""
    norm = keras.layers.BatchNormalization(momentum=0.5)
    x = tf.constant([[1.0], [3.0]])
    norm.build(x.shape)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = keras.remat(lambda x: norm(x, training=True))(x)
    tape.gradient(y, x)
    return float(norm.moving_mean[0])
