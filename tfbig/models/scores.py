"""How well a query fits a key: the part of attention before the softmax."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("tfbig")
class DotProduct(keras.layers.Layer):
    """`scale x query . key`.

    Args:
        scale: None for 1 / sqrt(head dim); 1.0 for T5, which does not scale.

    Shapes:
        queries `(batch, queries, key/value heads, group, dim)` and keys `(batch, keys, key/value
        heads, dim)` in; `(batch, key/value heads, group, queries, keys)` out. A group is the query
        heads that share a key head.

    >>> float(DotProduct()(2 * ops.ones((1, 1, 1, 1, 4)), ops.ones((1, 1, 1, 4)))[0, 0, 0, 0, 0])
    4.0
    """

    def __init__(self, scale: float | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale = scale

    def call(self, query: Any, key: Any) -> Any:
        scale = query.shape[-1] ** -0.5 if self.scale is None else self.scale
        return ops.einsum("bqhgd,bkhd->bhgqk", query * scale, key)

    def compute_output_shape(self, query_shape: Any, key_shape: Any) -> Any:
        batch, queries, heads, group, _ = query_shape
        return (batch, heads, group, queries, key_shape[1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.scale}


@keras.saving.register_keras_serializable("tfbig")
class SoftCappedDotProduct(DotProduct):
    """`cap tanh(score / cap)`: no score is larger than `cap` (Gemma 2, arXiv:2408.00118).

    Args:
        cap: the bound; 50 is Gemma 2's.
        scale: as in `DotProduct`.

    >>> q, k = 100 * ops.ones((1, 1, 1, 1, 4)), ops.ones((1, 1, 1, 4))
    >>> round(float(SoftCappedDotProduct(50.0)(q, k)[0, 0, 0, 0, 0]), 2)
    49.97
    """

    def __init__(self, cap: float, scale: float | None = None, **kwargs: Any) -> None:
        super().__init__(scale, **kwargs)
        self.cap = cap

    def call(self, query: Any, key: Any) -> Any:
        return soft_capped(super().call(query, key), self.cap)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "cap": self.cap}


def soft_capped(x: Any, cap: float) -> Any:
    """`cap tanh(x / cap)`.

    >>> round(float(soft_capped(ops.array(1.0), 30.0)), 4)
    0.9996
    """
    return cap * ops.tanh(x / cap)
