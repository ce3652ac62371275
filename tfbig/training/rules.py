"""Gradient rules: how the gradient of the objective is obtained from a batch.

A rule is called with `(model, batch)` and returns `loss, prediction, gradients`, the gradients
those of `model.optimizer.scale_loss(loss)`. The plain rule is `tfbig.training.gradient`; a rule may
wrap another, and so they compose.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfbig.training.step import gradient

GradientRule = Callable[[keras.Model, Any], tuple[tf.Tensor, Any, list]]


@keras.saving.register_keras_serializable("tfbig")
class Accumulation:
    """The gradient of a batch, computed in parts that are added up: less memory, the same step.

    Each part counts by its number of examples, so that an uneven last part gives the gradient of
    the whole batch too. (A mean of means does not: it weighs the examples of a small part more.)
    What sees the batch as a whole is not the same in parts: BatchNorm, and a loss that divides by
    the sum of a mask.

    Keras's `gradient_accumulation_steps` accumulates over batches; this divides one.

    Args:
        micro_batches: into how many parts a batch is cut; a batch smaller than that is cut into
            single examples.
        rule: how the gradient of a part is obtained.

    >>> import numpy as np
    >>> model = keras.Sequential([keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> batch = np.arange(10.0, dtype="float32").reshape(5, 2), np.ones((5, 1), "float32")
    >>> _, _, whole = gradient(model, batch)
    >>> _, _, parts = Accumulation(2)(model, batch)
    >>> bool(np.allclose(whole[0], parts[0], rtol=1e-6))
    True
    """

    def __init__(self, micro_batches: int, rule: GradientRule = gradient) -> None:
        if micro_batches < 1:
            raise ValueError(f"micro_batches must be at least 1, and is {micro_batches}.")
        self.micro_batches = micro_batches
        self.rule = rule

    def __call__(self, model: keras.Model, batch: Any) -> tuple[tf.Tensor, Any, list]:
        leaves = [leaf for leaf in keras.tree.flatten(batch) if leaf is not None]
        size = tf.shape(leaves[0])[0]
        parts: list[tuple] = []
        for part in range(self.micro_batches):
            begin = size * part // self.micro_batches
            end = size * (part + 1) // self.micro_batches
            if size_known := leaves[0].shape[0]:
                if size_known * part // self.micro_batches == (
                    size_known * (part + 1) // self.micro_batches
                ):
                    continue  # a batch of fewer examples than parts
            share = tf.cast(end - begin, "float32") / tf.cast(size, "float32")
            micro_batch = keras.tree.map_structure(
                lambda leaf, begin=begin, end=end: None if leaf is None else leaf[begin:end], batch
            )
            # One part after the other: their activations are not needed at the same time.
            with tf.control_dependencies([parts[-1][1]] if parts else []):
                loss, prediction, gradients = self.rule(model, micro_batch)
            parts.append((share, loss, prediction, gradients))
        loss = tf.add_n([tf.cast(share, loss.dtype) * loss for share, loss, _, _ in parts])
        prediction = tf.nest.map_structure(
            lambda *p: tf.concat(p, axis=0), *[prediction for _, _, prediction, _ in parts]
        )
        gradients = [
            _weighted_sum([share for share, _, _, _ in parts], column)
            for column in zip(*[gradients for _, _, _, gradients in parts], strict=True)
        ]
        return loss, prediction, gradients

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments; a rule inside must be serializable too."""
        config: dict[str, Any] = {"micro_batches": self.micro_batches}
        if self.rule is not gradient:
            config["rule"] = keras.saving.serialize_keras_object(self.rule)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Accumulation":
        """A rule from its constructor's arguments."""
        if "rule" in config:
            config = {**config, "rule": keras.saving.deserialize_keras_object(config["rule"])}
        return cls(**config)


def _weighted_sum(weights: list[tf.Tensor], gradients: tuple) -> Any:
    if any(g is None for g in gradients):
        return None
    if isinstance(gradients[0], tf.IndexedSlices):
        # The rows of all parts behind one another: whoever applies them merges what repeats.
        values = [g.values * tf.cast(w, g.values.dtype) for w, g in zip(weights, gradients)]
        rows = tf.concat([g.indices for g in gradients], axis=0)
        return tf.IndexedSlices(tf.concat(values, axis=0), rows, gradients[0].dense_shape)
    return tf.add_n([g * tf.cast(w, g.dtype) for w, g in zip(weights, gradients)])
