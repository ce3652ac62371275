"""Objectives: what is minimised, as a value.

An objective says how the network is called in training and which scalar comes of it. A technique on
objectives takes one and returns one: `label_smoothing(Supervised("binary_crossentropy"), 0.1)`.
`Learner` puts an objective under a network.

Contract: `loss` returns a scalar that is divided by the number of replicas, as Keras's own losses
are, since gradients are summed over the replicas.
"""

import math
from typing import Any

import keras
import tensorflow as tf
from keras import ops


class Objective:
    """What is minimised. Subclass it, and override `loss`; `forward` too where needed."""

    def forward(self, network: keras.Layer, x: Any, training: bool) -> Any:
        """Calls the network, once.

        Args:
            network: inputs to outputs.
            x: the inputs, `(batch, ...)`.
            training: whether it is a step of training.

        Returns:
            The prediction: a tensor, or a dict of whatever `loss` needs, of which `bare` picks the
            part that metrics see. Here: the network's output.
        """
        return network(x, training=training)

    def bare(self, prediction: Any) -> Any:
        """What metrics see of a prediction. Here: all of it."""
        return prediction

    def loss(self, x: Any, y: Any, prediction: Any, sample_weight: Any) -> tf.Tensor:
        """The scalar to minimise, without the network's regularisation, which is added to it."""
        raise NotImplementedError

    def seed_generators(self) -> list[keras.random.SeedGenerator]:
        """The generators that the objective draws from: the Learner keeps and saves their state."""
        return []

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Objective":
        """An objective from its constructor's arguments."""
        return cls(**config)


@keras.saving.register_keras_serializable("tfbig")
class Supervised(Objective):
    """A Keras loss between the target and the prediction.

    Args:
        loss: a `keras.losses.Loss`, or its name.

    >>> import numpy as np
    >>> objective = Supervised("mean_squared_error")
    >>> float(objective.loss(None, np.ones((2, 1)), np.zeros((2, 1)), None))
    1.0
    """

    def __init__(self, loss: keras.losses.Loss | str) -> None:
        if isinstance(loss, dict):
            loss = keras.saving.deserialize_keras_object(loss)
        # Named by a string Keras returns a bare function, which neither reduces nor takes weights.
        if isinstance(loss, str):
            loss = _loss_class(loss)()
        if not isinstance(loss, keras.losses.Loss):
            raise ValueError(
                f"Supervised takes a keras.losses.Loss or its name, and was given {loss!r}."
            )
        self.loss_function = loss

    def loss(self, x: Any, y: Any, prediction: Any, sample_weight: Any) -> tf.Tensor:
        # As compile(loss=...) does: (batch,) beside (batch, 1) must not become (batch, batch).
        if len(ops.shape(y)) + 1 == len(ops.shape(prediction)) and ops.shape(prediction)[-1] == 1:
            y = ops.expand_dims(y, -1)
        return self.loss_function(y, prediction, sample_weight)

    def get_config(self) -> dict[str, Any]:
        return {"loss": keras.saving.serialize_keras_object(self.loss_function)}


@keras.saving.register_keras_serializable("tfbig")
class LabelSmoothing(Objective):
    """Softens the targets of another objective: y (1 - a) + a / C, for C classes.

    A network that is told "0.95" and not "1" does not drive its logits to infinity. Szegedy et al.,
    "Rethinking the Inception Architecture", 2016, section 7.

    Args:
        objective: whose targets are probabilities: one column, or one for each class.
        factor: a, from 0 (nothing changes) to 1 (nothing is told). 0.1 is the paper's.

    >>> smooth(ops.convert_to_tensor([[1.0], [0.0]]), 0.5).numpy().tolist()
    [[0.75], [0.25]]
    """

    def __init__(self, objective: Objective | dict, factor: float = 0.1) -> None:
        if isinstance(objective, dict):
            objective = keras.saving.deserialize_keras_object(objective)
        assert isinstance(objective, Objective)
        if not 0 <= factor <= 1:
            raise ValueError(f"factor must lie between 0 and 1, and is {factor}.")
        self.objective = objective
        self.factor = factor

    def forward(self, network: keras.Layer, x: Any, training: bool) -> Any:
        return self.objective.forward(network, x, training)

    def bare(self, prediction: Any) -> Any:
        return self.objective.bare(prediction)

    def seed_generators(self) -> list[keras.random.SeedGenerator]:
        return self.objective.seed_generators()

    def loss(self, x: Any, y: Any, prediction: Any, sample_weight: Any) -> tf.Tensor:
        return self.objective.loss(x, smooth(y, self.factor), prediction, sample_weight)

    def get_config(self) -> dict[str, Any]:
        return {
            "objective": keras.saving.serialize_keras_object(self.objective),
            "factor": self.factor,
        }


def smooth(y: tf.Tensor, factor: float) -> tf.Tensor:
    """Moves probabilities `(batch, classes)` towards 1 / classes; `(batch, 1)` towards 1 / 2."""
    if len(ops.shape(y)) < 2:
        y = ops.expand_dims(y, -1)
    classes = max(ops.shape(y)[-1], 2)
    y = ops.cast(y, keras.backend.floatx())
    return y * (1 - factor) + factor / classes


@keras.saving.register_keras_serializable("tfbig")
class NoisePrediction(Objective):
    """Asks the network for the noise that was mixed into its input (denoising diffusion).

    x_t = sqrt(a) x + sqrt(1 - a) noise for a random a in (0, 1); the network is given
    `{"x": x_t, "signal": a}` and returns the noise. Ho et al., "Denoising Diffusion Probabilistic
    Models", 2020, equation 14, with a drawn from the cosine schedule of Nichol and Dhariwal, 2021.

    The prediction is a dict, of the noise and of what the network thought it to be. There is no
    target `y`.

    Args:
        seed: of the noise.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def forward(self, network: keras.Layer, x: Any, training: bool) -> dict[str, tf.Tensor]:
        # In full precision, also where the network computes in half.
        x = ops.cast(x, keras.backend.floatx())
        shape = (ops.shape(x)[0], *([1] * (len(x.shape) - 1)))
        time = keras.random.uniform(shape, seed=self.seed_generator)  # (batch, 1, ...)
        noise = keras.random.normal(ops.shape(x), seed=self.seed_generator)
        signal = ops.cos(0.5 * math.pi * time) ** 2
        mixed = ops.sqrt(signal) * x + ops.sqrt(1 - signal) * noise
        predicted = network({"x": mixed, "signal": signal}, training=training)
        return {"noise": noise, "predicted": predicted}

    def bare(self, prediction: dict[str, tf.Tensor]) -> tf.Tensor:
        return prediction["predicted"]

    def seed_generators(self) -> list[keras.random.SeedGenerator]:
        return [self.seed_generator]

    def loss(self, x: Any, y: Any, prediction: Any, sample_weight: Any) -> tf.Tensor:
        error = keras.losses.MeanSquaredError()
        return error(prediction["noise"], prediction["predicted"], sample_weight)

    def get_config(self) -> dict[str, Any]:
        return {"seed": self.seed}


def _loss_class(name: str) -> type[keras.losses.Loss]:
    camel = "".join(part.capitalize() for part in name.replace(" ", "_").split("_"))
    found = {
        cls.lower(): getattr(keras.losses, cls)
        for cls in dir(keras.losses)
        if isinstance(getattr(keras.losses, cls), type)
    }.get({"mse": "meansquarederror", "mae": "meanabsoluteerror"}.get(name, camel.lower()))
    if found is None:
        raise ValueError(f"Unknown loss {name!r}: give a keras.losses.Loss.")
    return found
