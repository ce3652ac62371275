"""Positions that are added: learned, sinusoidal, and T5's relative bias of attention.

Rotary positions, which turn queries and keys, stand in `rotary.py`.
"""

import math
from typing import Any

import keras
from keras import ops


def sinusoids(positions: Any, dim: int, dtype: str = "float32", longest: float = 10_000.0) -> Any:
    """Sines in the first half of the dimensions, cosines in the second (Vaswani et al., 2017).

    The paper interleaves them, which is the same up to the order of the dimensions; Marian and
    Whisper store halves.

    Args:
        positions: `(..., time)`.
        dim: the number of dimensions, even.
        longest: the longest wave is 2 pi times it (nearly, for the paper's own spacing).

    Returns:
        `(..., time, dim)`.

    >>> [round(float(v), 3) for v in sinusoids(ops.array([1]), 4)[0]]
    [0.841, 0.01, 0.54, 1.0]
    """
    half = dim // 2
    frequencies = ops.array([longest ** (-i / half) for i in range(half)], dtype)
    angles = ops.cast(positions, dtype)[..., None] * frequencies
    return ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1)


def relative_buckets(
    distance: Any, num_buckets: int = 32, max_distance: int = 128, bidirectional: bool = True
) -> Any:
    """The bucket of each distance (Raffel et al., 2020, arXiv:1910.10683, appendix).

    Half of the buckets hold one distance each, the rest grow as the logarithm up to `max_distance`,
    beyond which all share the last. With `bidirectional`, one half is for keys after the query.

    Args:
        distance: key slot minus query slot, int32.

    Returns:
        int32, as `distance`.

    >>> ops.convert_to_numpy(relative_buckets(ops.array([-200, -20, -3, 0, 3]))).tolist()
    [15, 10, 3, 0, 19]
    """
    start = ops.zeros_like(distance)
    if bidirectional:
        num_buckets //= 2
        start = ops.where(distance > 0, num_buckets, 0)
        distance = ops.abs(distance)
    else:
        distance = ops.maximum(-distance, 0)
    exact = num_buckets // 2
    # At least `exact`, so that no logarithm of zero is taken where the other branch counts.
    ratio = ops.cast(ops.maximum(distance, exact), "float32") / exact
    growth = ops.log(ratio) / math.log(max_distance / exact) * (num_buckets - exact)
    far = ops.minimum(exact + ops.cast(growth, "int32"), num_buckets - 1)
    return ops.cast(start, "int32") + ops.where(distance < exact, distance, far)


@keras.saving.register_keras_serializable("tfbig")
class LearnedPositions(keras.layers.Layer):
    """A vector for each position, learned (or given, and `trainable=False`).

    Args:
        max_length: how many positions there are.
        hidden_dim: of the vectors.
        offset: added to each position: RoBERTa's tables begin with two rows that no token has.
        initializer: of the vectors.

    Shapes:
        positions `(batch or 1, time)` in, `(batch or 1, time, hidden_dim)` out.

    >>> LearnedPositions(8, 4)(ops.arange(3)[None]).shape
    TensorShape([1, 3, 4])
    """

    def __init__(
        self,
        max_length: int,
        hidden_dim: int,
        offset: int = 0,
        initializer: Any = "uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.max_length = max_length
        self.hidden_dim = hidden_dim
        self.offset = offset
        self.initializer = keras.initializers.get(initializer)

    def build(self, *shapes: Any) -> None:
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(self.max_length + self.offset, self.hidden_dim),
            initializer=self.initializer,
        )

    def call(self, positions: Any) -> Any:
        time = positions.shape[-1]
        # Under JAX an unknown time is a symbol, which cannot be compared.
        if isinstance(time, int) and time > self.max_length:
            raise ValueError(
                f"The row has {time} positions, and there are vectors of {self.max_length}: cut it."
            )
        return ops.take(self.embeddings, positions + self.offset, axis=0)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape, self.hidden_dim)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "max_length": self.max_length,
            "hidden_dim": self.hidden_dim,
            "offset": self.offset,
            "initializer": keras.initializers.serialize(self.initializer),
        }


def max_positions(front: Any) -> int | None:
    """How many positions a front reads at most, or None where it has learned no positions.

    >>> from tfbig.models.token_fronts import TokenFront
    >>> max_positions(TokenFront(9, 4, LearnedPositions(8, 4))), max_positions(TokenFront(9, 4))
    (8, None)
    """
    positions = front.positions
    return positions.max_length if isinstance(positions, LearnedPositions) else None


@keras.saving.register_keras_serializable("tfbig")
class SinusoidalPositions(keras.layers.Layer):
    """`sinusoids` of the positions: nothing is learned, and there is no longest row.

    Args:
        hidden_dim: of the vectors, even.

    >>> SinusoidalPositions(4)(ops.arange(3)[None]).shape
    TensorShape([1, 3, 4])
    """

    def __init__(self, hidden_dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hidden_dim = hidden_dim

    def call(self, positions: Any) -> Any:
        return ops.cast(sinusoids(positions, self.hidden_dim), self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape, self.hidden_dim)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "hidden_dim": self.hidden_dim}


@keras.saving.register_keras_serializable("tfbig")
class RelativeBias(keras.layers.Layer):
    """T5's positions: a number for each head and distance, added to the scores of attention.

    A stack has one and shares it among its blocks.

    Args:
        num_heads: of the attention.
        num_buckets: of distances; 32 is T5's.
        max_distance: from which on all distances share a bucket; 128 is T5's.
        bidirectional: whether keys may come after the query: True in an encoder.

    Shapes:
        slots `(queries,)` and `(keys,)` in, `(1, heads, queries, keys)` out.

    >>> RelativeBias(2)(ops.arange(3), ops.arange(5)).shape
    TensorShape([1, 2, 3, 5])
    """

    def __init__(
        self,
        num_heads: int,
        num_buckets: int = 32,
        max_distance: int = 128,
        bidirectional: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.num_buckets = num_buckets
        self.max_distance = max_distance
        self.bidirectional = bidirectional

    def build(self, *shapes: Any) -> None:
        self.embeddings = self.add_weight(
            name="embeddings", shape=(self.num_buckets, self.num_heads), initializer="uniform"
        )

    def call(self, query_slots: Any, key_slots: Any) -> Any:
        distance = key_slots[None, :] - query_slots[:, None]
        buckets = relative_buckets(
            distance, self.num_buckets, self.max_distance, self.bidirectional
        )
        bias = ops.take(self.embeddings, buckets, axis=0)
        return ops.transpose(bias, (2, 0, 1))[None]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "num_buckets": self.num_buckets,
            "max_distance": self.max_distance,
            "bidirectional": self.bidirectional,
        }
