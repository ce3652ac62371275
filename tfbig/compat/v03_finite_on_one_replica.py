"""V3: with more than one replica, the loss scale looks for infinities on the first replica only.

`LossScaleOptimizer` skips a step whose gradients are not finite. It asks the first replica, in the
belief that the gradients are summed by then; they are summed later. With an infinity on the second
replica the step is taken, and the weight is -inf; with the same infinity on the first it is skipped
and the scale halved, as it should.
"""

import keras
import tensorflow as tf

from tfbig.compat import ask, replicas

SUMMARY = "the loss scale of float16 looks for infinite gradients on the first replica only"
WHEN = ""
MEND = 'keras.config.set_dtype_policy("mixed_bfloat16"), which needs no loss scale'


def meets(model: keras.Model) -> bool:
    """Whether a loss scale and several replicas come together."""
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    return scaled and ask.replicas(model) > 1


def present() -> bool:
    """Whether an infinity on the second replica reaches the weight."""
    return replicas.measured("V3") != [0.0]


def measured(strategy: tf.distribute.Strategy) -> list[float | str]:
    """A weight after a step of gradients 1 and infinity; 0 if it is skipped."""

    def optimizer():
        inner = keras.optimizers.SGD(1.0)
        return keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0)

    return replicas.update(strategy, optimizer, [[1.0], [float("inf")]])
