"""What a block does to each token by itself: two dense layers, gated or not.

Gated linear units: Shazeer, 2020 (arXiv:2002.05202): `GatedFeedForward(activation="silu")` is
SwiGLU, `activation="gelu"` GeGLU.
"""

from typing import Any

import keras
from keras import ops

from tfbig.models.parts import clone


@keras.saving.register_keras_serializable("tfbig")
def gelu_tanh(x: Any) -> Any:
    """GELU by its approximation with tanh (GPT-2's and Gemma's); Keras's "gelu" is the exact one.

    >>> round(float(gelu_tanh(ops.array(1.0))), 4), round(float(ops.gelu(1.0, False)), 4)
    (0.8412, 0.8413)
    """
    return ops.gelu(x, approximate=True)


@keras.saving.register_keras_serializable("tfbig")
def quick_gelu(x: Any) -> Any:
    """x sigmoid(1.702 x), CLIP's GELU.

    >>> round(float(quick_gelu(ops.array(1.0))), 4)
    0.8458
    """
    return x * ops.sigmoid(1.702 * x)


@keras.saving.register_keras_serializable("tfbig")
class FeedForward(keras.layers.Layer):
    """`down(dropout(activation(up(x))))`, and a dropout of that.

    Args:
        intermediate_dim: the width between the two layers.
        activation: a name of Keras's, or a registered function such as `gelu_tanh`.
        use_bias: of both layers.
        dropout: between them.
        initializer: of the kernels.
        output_dropout: of what comes out, where the attention's branch has none (DistilBERT); for
            both branches give it to the join.

    Shapes:
        `(..., dim)` in and out.

    >>> FeedForward(64)(ops.ones((2, 5, 16))).shape
    TensorShape([2, 5, 16])
    """

    inputs: tuple[str, ...] = ("up",)

    def __init__(
        self,
        intermediate_dim: int,
        activation: Any = "gelu",
        use_bias: bool = True,
        dropout: float = 0.0,
        initializer: Any = "glorot_uniform",
        output_dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.intermediate_dim = intermediate_dim
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.initializer = keras.initializers.get(initializer)
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy)
        self.output_dropout = keras.layers.Dropout(output_dropout, dtype=self.dtype_policy)
        for name in self.inputs:
            setattr(self, name, self._dense(name, intermediate_dim))
        # Now and not in build(): an initializer draws its seed when it is made.
        self.down_start = clone(self.initializer)

    def _dense(self, name: str, units: int, start: Any = None) -> keras.layers.Dense:
        return keras.layers.Dense(
            units,
            use_bias=self.use_bias,
            kernel_initializer=start or clone(self.initializer),
            name=name,
            dtype=self.dtype_policy,
        )

    def build(self, input_shape: Any) -> None:
        for name in self.inputs:
            getattr(self, name).build(input_shape)
        self.down = self._dense("down", input_shape[-1], self.down_start)
        self.down.build((*input_shape[:-1], self.intermediate_dim))
        self.built = True

    def call(self, x: Any, training: bool | None = None) -> Any:
        x = self.down(self.dropout(self.activation(self.up(x)), training=training))
        return self.output_dropout(x, training=training)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "intermediate_dim": self.intermediate_dim,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "dropout": self.dropout.rate,
            "output_dropout": self.output_dropout.rate,
            "initializer": keras.initializers.serialize(self.initializer),
        }


@keras.saving.register_keras_serializable("tfbig")
class GatedFeedForward(FeedForward):
    """`down(dropout(activation(gate(x)) * up(x)))`: SwiGLU by default, without biases.

    Args:
        intermediate_dim: the width of gate and up; for the parameters of an ungated layer take two
            thirds of its width.
        activation: of the gate.
        use_bias: of all three layers; False is what all families have.
        dropout: before the last layer.
        initializer: of the kernels.

    >>> GatedFeedForward(64)(ops.ones((2, 5, 16))).shape
    TensorShape([2, 5, 16])
    """

    inputs = ("gate", "up")

    def __init__(
        self,
        intermediate_dim: int,
        activation: Any = "silu",
        use_bias: bool = False,
        dropout: float = 0.0,
        initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(intermediate_dim, activation, use_bias, dropout, initializer, **kwargs)

    def call(self, x: Any, training: bool | None = None) -> Any:
        gated = self.activation(self.gate(x)) * self.up(x)
        x = self.down(self.dropout(gated, training=training))
        return self.output_dropout(x, training=training)
