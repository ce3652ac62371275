"""V25: `optimizer.stateless_apply` does not work on TensorFlow.

The functional form of an update, documented for every backend, is a ValueError here.
"""

import keras
import tensorflow as tf

from tfbig.compat import trial

SUMMARY = "optimizer.stateless_apply is an error on TensorFlow"
WHEN = "if you call optimizer.stateless_apply"
MEND = "optimizer.apply(gradients, variables), which assigns; or KERAS_BACKEND=jax"


def meets(model: keras.Model) -> bool:
    """Always: it hinges on what you call."""
    return True


def present() -> bool:
    """Whether it fails."""
    return measured() == "ValueError"


@trial.traceless()
def measured() -> str:
    """The error of one functional update of one weight."""
    weight = keras.Variable([1.0])
    optimizer = keras.optimizers.SGD()
    optimizer.build([weight])
    state = [variable.value for variable in optimizer.variables]
    return trial.error(lambda: optimizer.stateless_apply(state, [tf.ones(1)], [weight.value]))
