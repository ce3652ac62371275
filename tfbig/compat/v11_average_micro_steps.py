"""V11: with gradient accumulation, the moving average of the weights moves at every micro-step.

A weight that goes 1, 2, 3 in three updates has with momentum 0.5 the average 1, 1.5, 2.25. With
four micro-steps to an update Keras averages twelve times and ends at 2.46875.
"""

import keras
import tensorflow as tf

from tfbig.compat import ask, trial

SUMMARY = "with gradient accumulation the average of the weights moves at every micro-step"
WHEN = ""
MEND = "ema_momentum=m ** (1 / steps): the same horizon, though not the same average"


def meets(model: keras.Model) -> bool:
    """Whether an average and accumulation come together."""
    return any(o.use_ema and o.gradient_accumulation_steps for o in ask.optimizers(model))


def present() -> bool:
    """Whether the average is another than that of three updates."""
    return abs(measured() - 2.25) > 0.01


@trial.traceless()
def measured() -> float:
    """The average of a weight that is 1, 2, 3 after three updates of four micro-steps."""
    weight = keras.Variable([0.0])
    optimizer = keras.optimizers.SGD(
        1.0, use_ema=True, ema_momentum=0.5, gradient_accumulation_steps=4
    )
    for _ in range(12):
        optimizer.apply([tf.constant([-1.0])], [weight])
    return float(optimizer._model_variables_moving_average[0][0])
