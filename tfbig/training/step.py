"""One step of training, by hand. This is the page to read, and to change.

    prediction = network(x)            1. forward propagation
    loss = J(prediction, y)            2. the loss
    gradient = dJ / d theta            3. back-propagation
    theta <- theta - alpha gradient    4. one step of descent
                                       5. and again, by the loop

`model.fit` does the same in Keras's own code, and shares nothing with this file but the network and
the loss. That both arrive at the same gradients is what `tfbig.parity` proves.

A *gradient rule* is a function like `gradient`: `(model, batch) -> loss, prediction, gradients`.
"""

from typing import Any

import keras
import tensorflow as tf

from tfbig.compat import update
from tfbig.training import surgery


def gradient(model: keras.Model, batch: Any) -> tuple[tf.Tensor, Any, list]:
    """The gradient of the model's loss on a batch, by automatic differentiation.

    Args:
        model: a compiled Keras model.
        batch: `x`, `(x, y)` or `(x, y, sample_weight)`, each of shape `(batch, ...)` or a nest of
            such.

    Returns:
        The loss, a scalar; the prediction; and for each trainable variable the gradient of the
        loss as the optimizer wants it, that is times its loss scale.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    with tf.GradientTape() as tape:
        prediction = surgery.forward(model, x, training=True)
        loss = surgery.compute_loss(model, x, y, prediction, sample_weight, training=True)
        surgery.build_optimizer(model)
        scaled_loss = model.optimizer.scale_loss(loss)
    return loss, prediction, tape.gradient(scaled_loss, model.trainable_variables)


def train_step(model: keras.Model, batch: Any, gradient_rule=gradient) -> dict[str, tf.Tensor]:
    """One step: the gradient of a batch, the update of the weights, the metrics so far.

    Args:
        model: a compiled Keras model.
        batch: see `gradient`.
        gradient_rule: how the gradient is obtained.

    Returns:
        The loss and the metrics, each averaged over the epoch so far.

    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.layers.Dense(1, kernel_initializer="ones")])
    >>> model.compile(keras.optimizers.SGD(0.1), loss="mse")
    >>> logs = train_step(model, (np.ones((4, 2), "float32"), np.zeros((4, 1), "float32")))
    >>> float(logs["loss"]), round(float(model.weights[0][0, 0]), 4)   # 1 - 0.1 * 2 * 2
    (4.0, 0.6)
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    loss, prediction, gradients = gradient_rule(model, batch)
    surgery.track_loss(model, loss, x)
    if model.trainable_variables:
        update.apply_gradients(model.optimizer, gradients, model.trainable_variables)
    return model.compute_metrics(x, y, prediction, sample_weight=sample_weight)


def test_step(model: keras.Model, batch: Any) -> dict[str, tf.Tensor]:
    """One step of evaluation: the loss and the metrics on a batch, with nothing learned.

    Args and Returns: see `train_step`.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    prediction = surgery.forward(model, x, training=False)
    loss = surgery.compute_loss(model, x, y, prediction, sample_weight, training=False)
    surgery.track_loss(model, loss, x)
    return model.compute_metrics(x, y, prediction, sample_weight=sample_weight)
