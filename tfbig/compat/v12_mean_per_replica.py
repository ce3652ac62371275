"""V12: a `compute_loss` of one's own that takes a mean trains too fast on several replicas.

Gradients are summed over the replicas, so each must divide its mean by their number. Keras's losses
do; the documented override of `compute_loss` by `ops.mean` does not, and with two replicas both the
update and the printed loss are twice what they should be, in silence.
"""

import keras
import numpy as np
import tensorflow as tf

from tfbig.compat import ask, replicas

SUMMARY = "a mean in one's own compute_loss counts once for each replica"
WHEN = "if your compute_loss takes a mean by itself"
MEND = "return loss / tf.distribute.get_strategy().num_replicas_in_sync from compute_loss"


def meets(model: keras.Model) -> bool:
    """Whether a `compute_loss` that is not Keras's runs on several replicas."""
    own = type(model).compute_loss is not keras.Model.compute_loss
    return own and ask.replicas(model) > 1


def present() -> bool:
    """Whether two replicas move twice as far as one."""
    return replicas.measured("V12") == [1.0, 2.0]


class MeanLoss(keras.Model):
    """What a user would write, from the documented example."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean((y - y_pred) ** 2)


def measured(strategy: tf.distribute.Strategy) -> list[float]:
    """The weight and the loss of one step towards y = 1: by hand 0.25 * 2 = 0.5, and 1."""
    model = replicas.line(strategy, lambda: keras.optimizers.SGD(0.25), None, MeanLoss)
    ones = np.ones((2, 1))
    loss = model.fit(ones, ones, batch_size=2, verbose=0).history["loss"][0]
    return [round(float(v), 5) for v in (model.get_weights()[0][0, 0], loss)]
