"""Learner: a network with an objective, ready for `model.fit` and for the loop.

    learner = Learner(network, LabelSmoothing(Supervised("binary_crossentropy"), 0.1))
    learner.compile("adam", metrics=["accuracy"])
    learner.fit(x, y)            # or Loop(learner).fit(x, y)

A Learner overrides Keras's hooks `call`, `compute_loss`, `compute_metrics` and `predict_step`, and
leaves `train_step` alone: Keras stays the driver, and its gradients are an independent witness for
the loop's. Only a gradient rule takes the step over (`RuledLearner`); stock `fit` is then no
witness, and each rule is tested against a naive oracle.
"""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from tfbig.training.objective import Objective
from tfbig.training.rules import GradientRule
from tfbig.training.step import train_step


@keras.saving.register_keras_serializable("tfbig")
class Learner(keras.Model):
    """A network and what it is to minimise, as a Keras model.

    The prediction of the objective may be a dict; metrics, `predict` and `evaluate` see the bare
    prediction. `predict` calls the network alone.

    Args:
        network: a Keras model or layer.
        objective: see `tfbig.training.objective`.

    >>> import numpy as np
    >>> from tfbig.training import Supervised
    >>> learner = Learner(keras.layers.Dense(1), Supervised("mse"))
    >>> learner.compile("sgd")
    >>> history = learner.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
    >>> learner.predict(np.ones((4, 2)), verbose=0).shape
    (4, 1)
    """

    def __init__(self, network: keras.Layer, objective: Objective, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(objective, Objective):
            raise TypeError(
                f"A Learner minimises a tfbig.training.Objective, and was given {objective!r}. "
                f"For a Keras loss write Supervised(loss)."
            )
        self.network = network
        self.objective = objective
        # As an attribute of the model Keras tracks them: they are among its variables.
        self.objective_seeds = objective.seed_generators()

    def compile(self, optimizer: Any = "rmsprop", loss: Any = None, **kwargs: Any) -> None:
        """Keras's `compile`, without a loss: the objective is the loss.

        Raises:
            ValueError: if a loss is given.
        """
        if loss is not None:
            raise ValueError(
                "A Learner minimises its objective: call compile without a loss, or train the "
                "network itself."
            )
        super().compile(optimizer=optimizer, loss=None, **kwargs)

    def call(self, x: Any, training: bool = False) -> Any:
        return self.objective.forward(self.network, x, training)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> tf.Tensor:
        """The objective's loss, and what layers added (regularisation, `add_loss`)."""
        loss = self.objective.loss(x, y, y_pred, sample_weight)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        added = [ops.sum(extra) / replicas for extra in self.losses]
        return ops.sum(ops.stack([loss, *added])) if added else loss

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict:
        if y is None:  # nothing to compare with: the averages of the losses alone
            return self.get_metrics_result()
        return super().compute_metrics(x, y, self.objective.bare(y_pred), sample_weight)

    def predict_step(self, data: Any) -> Any:
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        return self.network(x, training=False)

    def get_compile_config(self) -> dict[str, Any]:
        config = super().get_compile_config()
        config.pop("loss", None)
        config.pop("loss_weights", None)
        return config

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "network": keras.saving.serialize_keras_object(self.network),
            "objective": keras.saving.serialize_keras_object(self.objective),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Learner":
        for part in ("network", "objective"):
            config[part] = keras.saving.deserialize_keras_object(config[part], custom_objects)
        return cls(**config)


@keras.saving.register_keras_serializable("tfbig")
class RuledLearner(Learner):
    """A Learner whose gradient is obtained by a rule of its own.

    `fit` and the loop both call its `train_step`; so their agreement proves nothing about the rule,
    and reports say so.

    Args:
        network: a Keras model or layer.
        objective: see `tfbig.training.objective`.
        gradient_rule: `(learner, batch) -> loss, prediction, gradients`, such as `Accumulation(4)`.
    """

    def __init__(
        self,
        network: keras.Layer,
        objective: Objective,
        gradient_rule: GradientRule,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, objective, **kwargs)
        self.gradient_rule = gradient_rule

    def train_step(self, batch: Any) -> dict[str, tf.Tensor]:
        return train_step(self, batch, self.gradient_rule)

    def get_config(self) -> dict[str, Any]:
        rule = keras.saving.serialize_keras_object(self.gradient_rule)
        return {**super().get_config(), "gradient_rule": rule}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "RuledLearner":
        rule = keras.saving.deserialize_keras_object(config["gradient_rule"], custom_objects)
        return super().from_config({**config, "gradient_rule": rule}, custom_objects)
