"""Normalisation by the root mean square (Zhang and Sennrich, 2019, arXiv:1910.07467).

LayerNorm is `keras.layers.LayerNormalization`. Keras has an RMSNormalization too; it lacks Gemma's
form, in which the weight is stored as its distance from one.
"""

from typing import Any

import keras
from keras import ops

from tfbig.models.parts import Composite, clone, precise, serialized


def rms_normalized(x: Any, epsilon: float) -> Any:
    """x / sqrt(mean(x^2) + epsilon) over the last axis.

    >>> [round(float(v), 4) for v in rms_normalized(ops.array([[3.0, 4.0]]), 0.0)[0]]
    [0.8485, 1.1314]
    """
    return x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + epsilon)


@keras.saving.register_keras_serializable("tfbig")
class RMSNorm(keras.layers.Layer):
    """`(offset + weight) x / rms(x)`, in float32 at least.

    Args:
        epsilon: added to the mean square; 1e-6 is T5's, Qwen's and Gemma's, Llama 2 has 1e-5.
        offset: 0 for a weight that starts at one; 1 for Gemma, whose weight starts at zero.

    Shapes:
        `(..., dim)` in and out.

    >>> RMSNorm(epsilon=0.0)(ops.array([[3.0, 4.0]])).shape
    TensorShape([1, 2])
    """

    def __init__(self, epsilon: float = 1e-6, offset: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = epsilon
        self.offset = offset

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        start = keras.initializers.Constant(1.0 - self.offset)
        # Not autocast: the product is taken in float32.
        self.scale = self.add_weight(
            name="scale", shape=(input_shape[-1],), initializer=start, autocast=False
        )

    def call(self, x: Any) -> Any:
        dtype = precise(self.compute_dtype)
        scale = ops.cast(self.scale, dtype) + self.offset
        x = rms_normalized(ops.cast(x, dtype), self.epsilon)
        return ops.cast(x * scale, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self.epsilon, "offset": self.offset}


@keras.saving.register_keras_serializable("tfbig")
class NormThenDropout(Composite, keras.layers.Layer):
    """`dropout(norm(x))`: what T5 does after the last block of a stack.

    Args:
        norm: a part, copied.
        dropout: of what it puts out.

    Shapes:
        `(..., dim)` in and out.

    >>> NormThenDropout(RMSNorm(), 0.1)(ops.ones((2, 5, 16))).shape
    TensorShape([2, 5, 16])
    """

    def __init__(self, norm: Any, dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.norm = clone(norm, "norm")
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.norm.build(input_shape)
        self.built = True

    def call(self, x: Any, training: bool | None = None) -> Any:
        return self.dropout(self.norm(x), training=training)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "dropout": self.dropout.rate,
            **serialized(norm=self.norm),
        }
