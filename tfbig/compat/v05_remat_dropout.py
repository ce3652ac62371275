"""V5: a Dropout that is rematerialized draws another mask on the way back.

`keras.remat` runs the layer a second time to get its gradient, and by then the seed has moved on:
the loss saw one mask, the gradient is that of another. At x = 1 dropout's gradient is its output;
of 64 units about half come out different. Nothing is said.
"""

import keras
import numpy as np
import tensorflow as tf

from tfbig.compat import ask, trial

SUMMARY = "a rematerialized Dropout has the gradient of another mask than the loss saw"
WHEN = ""
MEND = "keep layers that draw random numbers outside of keras.remat and keras.RematScope"


def meets(model: keras.Model) -> bool:
    """Whether a rematerialized layer draws random numbers."""
    return any(map(ask.draws, ask.rematerialized(model)))


def present() -> bool:
    """Whether output and gradient differ."""
    output, gradient = measured()
    return not np.array_equal(output, gradient)


@trial.traceless()
def measured() -> tuple[np.ndarray, np.ndarray]:
    """Dropout's output at 64 ones, and its gradient there, which should be the same numbers."""
    dropout = keras.layers.Dropout(0.5, seed=1)
    x = tf.ones((1, 64))
    dropout.build(x.shape)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = keras.remat(lambda x: dropout(x, training=True))(x)
    return y.numpy()[0], tape.gradient(y, x).numpy()[0]
