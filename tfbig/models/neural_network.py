"""The founding document's network: a few dense layers, and nothing else.

x (batch, features) -> Dense 10 relu -> Dense 10 relu -> Dense 1 sigmoid -> (batch, 1)
"""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import keras


@keras.saving.register_keras_serializable("tfbig")
class NeuralNetwork(keras.Model):
    """Dense layers in the attributes `dense1`, `dense2`, ...: by default 10, 10 and 1 units.

    Args:
        hidden_units: the width of each hidden layer; the default is the founding document's.
            Without any (`()`) it is logistic regression.
        outputs: the number of outputs: 1 for two classes or one number, else one for each class.
        activation: of the hidden layers: a name, a registered function or None.
        output_activation: `"sigmoid"` for two classes, `"softmax"` for several, `"linear"` or None
            for regression.
        **kwargs: of `keras.Model`: `name`, `dtype`, `trainable`.

    Shapes:
        `(batch, ..., features)` in, `(batch, ..., outputs)` out.

    Raises:
        ValueError: if a width or `outputs` is not a positive integer, or Keras has no such
            activation.

    >>> import numpy as np
    >>> network = NeuralNetwork()
    >>> network(np.zeros((4, 30))).shape[1], network.count_params()
    (1, 431)
    >>> NeuralNetwork(hidden_units=(64,), outputs=10, output_activation="softmax").dense2.units
    10
    """

    def __init__(
        self,
        hidden_units: Sequence[int] = (10, 10),
        outputs: int = 1,
        activation: Any = "relu",
        output_activation: Any = "sigmoid",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(hidden_units, Sequence) or isinstance(hidden_units, str):
            raise ValueError(
                f"hidden_units is a tuple of widths, and it is {hidden_units!r}: "
                f"write (10,) for one hidden layer, () for none."
            )
        self.hidden_units = tuple(_width(units, "hidden_units") for units in hidden_units)
        # Not `outputs`: in Keras that attribute is a model's symbolic outputs.
        self.outputs_count = _width(outputs, "outputs")
        self.activation = keras.activations.get(activation)
        self.output_activation = keras.activations.get(output_activation)
        for number, units in enumerate((*self.hidden_units, self.outputs_count), start=1):
            last = number > len(self.hidden_units)
            layer = keras.layers.Dense(
                units,
                activation=self.output_activation if last else self.activation,
                name=f"dense{number}",
                dtype=self.dtype_policy,
            )
            setattr(self, f"dense{number}", layer)

    @property
    def dense_layers(self) -> list[keras.layers.Dense]:
        """All layers, first to last."""
        return [getattr(self, f"dense{n}") for n in range(1, len(self.hidden_units) + 2)]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        for layer in self.dense_layers:
            layer.build(input_shape)
            input_shape = (*input_shape[:-1], layer.units)
        self.built = True

    def call(self, x: Any) -> Any:
        for layer in self.dense_layers:
            x = layer(x)
        return x

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.outputs_count)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "hidden_units": list(self.hidden_units),
            "outputs": self.outputs_count,
            "activation": keras.activations.serialize(self.activation),
            "output_activation": keras.activations.serialize(self.output_activation),
        }


def _width(units: Any, argument: str) -> int:
    # True is an Integral, too.
    if not isinstance(units, Integral) or isinstance(units, bool) or units < 1:
        raise ValueError(f"{argument}: a width is a positive integer, and one is {units!r}.")
    # A tuner's NumPy integer does not fit into a config.
    return int(units)
