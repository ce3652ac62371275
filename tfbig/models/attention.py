"""Attention with many, few or one key/value head, to itself or to a memory.

One layer serves every network: what differs between families (rotary positions, norms of queries
and keys, soft-capped or unscaled scores, who sees whom) is a part that is passed in. The papers:
Vaswani et al., 2017 (arXiv:1706.03762); one key/value head: Shazeer, 2019 (arXiv:1911.02150);
groups: Ainslie et al., 2023 (arXiv:2305.13245); query and key norms: Henry et al., 2020
(arXiv:2010.04245).

The scores of a whole row are held in memory, `heads x queries x keys` of them.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfbig.models.cache import KeyValueCache
from tfbig.models.masks import Everywhere, both
from tfbig.models.parts import Composite, clone, precise, serialized
from tfbig.models.scores import DotProduct

PROJECTIONS = ("query", "key", "value", "output")


def attention_weights(scores: Any, bias: Any, mask: Any) -> Any:
    """The softmax over keys, in float32 at least.

    Args:
        scores: `(..., queries, keys)`.
        bias: added to the scores, or None.
        mask: True where a query may look, or None. A query that may look nowhere looks everywhere.

    >>> weights = attention_weights(ops.zeros((1, 2)), None, ops.array([[True, False]]))
    >>> ops.convert_to_numpy(weights).tolist()
    [[1.0, 0.0]]
    """
    scores = ops.cast(scores, precise(scores.dtype))
    if bias is not None:
        scores = scores + ops.cast(bias, scores.dtype)
    if mask is not None:
        scores = ops.where(mask, scores, ops.cast(-1e30, scores.dtype))
    if scores.shape[-1] == 1:  # the same, where Keras's softmax warns
        return ops.exp(scores - ops.logsumexp(scores, axis=-1, keepdims=True))
    return ops.softmax(scores, axis=-1)


@keras.saving.register_keras_serializable("tfbig")
class Attention(Composite, keras.layers.Layer):
    """Projects to queries, keys and values, mixes the values by attention weights, projects back.

    Args:
        num_heads: query heads.
        head_dim: dimensions of each head.
        num_key_value_heads: heads of keys and values, a divisor of `num_heads`; None: as many.
        biases: the projections that have one, of "query", "key", "value", "output".
        rotary: a part that turns queries and keys by their positions, or None.
        score: a part: queries and keys to scores; by default `DotProduct()`.
        sees: a part: which slots a query sees; by default `Everywhere()`.
        norm: a part that is copied for queries and for keys, over each head's dimensions; or None.
        dropout: of the attention weights.
        initializer: of the projections.

    Call:
        x: `(batch, time, dim)`.
        memory: `(batch, keys, any dim)`: what keys and values are made of; by default x.
        visible: True where a query may look, broadcast to `(batch, heads, time, keys)`. (Not
            `mask`, which Keras fills and hands on by rules of its own.)
        bias: added to the scores, the same shape.
        positions: `(batch or 1, time)` for the rotary part; by default the slots.
        cache: a `KeyValueCache`.

    Returns:
        `(batch, time, dim)`.

    >>> attention = Attention(num_heads=4, head_dim=8, num_key_value_heads=2)
    >>> attention(ops.ones((2, 5, 32))).shape, attention.key.kernel.shape
    (TensorShape([2, 5, 32]), TensorShape([32, 16]))
    """

    def __init__(
        self,
        num_heads: int,
        head_dim: int,
        num_key_value_heads: int | None = None,
        biases: Sequence[str] = (),
        rotary: Any = None,
        score: Any = None,
        sees: Any = None,
        norm: Any = None,
        dropout: float = 0.0,
        initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.num_key_value_heads = num_key_value_heads or num_heads
        self.biases = tuple(biases)
        if num_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_heads ({num_heads}) is a multiple of num_key_value_heads, "
                f"and that is {num_key_value_heads}: each key head serves as many query heads."
            )
        if unknown := set(self.biases) - set(PROJECTIONS):
            raise ValueError(f"biases: {sorted(unknown)} are none of {PROJECTIONS}.")
        self.rotary = rotary
        self.score = score or DotProduct(dtype=self.dtype_policy, name="score")
        self.sees = sees or Everywhere()
        self.initializer = keras.initializers.get(initializer)
        self.query_norm = clone(norm, "query_norm")
        self.key_norm = clone(norm, "key_norm")
        self.query = self._projection("query", num_heads * head_dim)
        self.key = self._projection("key", self.num_key_value_heads * head_dim)
        self.value = self._projection("value", self.num_key_value_heads * head_dim)
        # An identity that taps can see: (batch, key/value heads, group, queries, keys).
        self.weights_of = keras.layers.Identity(name="weights", dtype=self.dtype_policy)
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy)
        # Now and not in build(): an initializer draws its seed when it is made.
        self.output_start = clone(self.initializer)

    def _projection(self, name: str, units: int, start: Any = None) -> keras.layers.Dense:
        return keras.layers.Dense(
            units,
            use_bias=name in self.biases,
            kernel_initializer=start or clone(self.initializer),
            name=name,
            dtype=self.dtype_policy,
        )

    def build(self, x_shape: Any, memory_shape: Any = None, **shapes: Any) -> None:
        dim = x_shape[-1]
        memory_dim = dim if memory_shape is None else memory_shape[-1]
        self.query.build((None, None, dim))
        self.key.build((None, None, memory_dim))
        self.value.build((None, None, memory_dim))
        self.output_projection = self._projection("output", dim, self.output_start)
        self.output_projection.build((None, None, self.num_heads * self.head_dim))
        for norm in (self.query_norm, self.key_norm):
            if norm is not None:
                norm.build((None, None, None, self.head_dim))
        # They have no weights, but in build() a layer learns its path, by which taps find it.
        for layer in (self.score, self.weights_of, self.dropout):
            layer.build((None, None, None, None, None))
        self.built = True

    def call(
        self,
        x: Any,
        memory: Any = None,
        visible: Any = None,
        bias: Any = None,
        positions: Any = None,
        cache: KeyValueCache | None = None,
        training: bool | None = None,
    ) -> Any:
        time = ops.shape(x)[1]
        slots = ops.arange(time) if cache is None else cache.slots(time)
        if positions is None and memory is None:
            positions = slots[None]
        query = self._heads(self.query(x), self.num_heads, self.query_norm, positions)
        if memory is None:
            keys, values = self._keys_and_values(x, positions)
            if cache is not None:
                keys, values = cache.extend(self.path, keys, values)
            visible = both(visible, self.sees.mask(slots, ops.arange(ops.shape(keys)[1])))
        elif cache is None:
            keys, values = self._keys_and_values(memory, None)
        else:
            keys, values = cache.once(self.path, lambda: self._keys_and_values(memory, None))
        groups = (self.num_key_value_heads, self.num_heads // self.num_key_value_heads)
        query = ops.reshape(query, (-1, time, *groups, self.head_dim))
        weights = attention_weights(
            self.score(query, keys), _grouped(bias, groups), _grouped(visible, groups)
        )
        weights = self.weights_of(ops.cast(weights, self.compute_dtype))
        weights = self.dropout(weights, training=training)
        mixed = ops.einsum("bhgqk,bkhd->bqhgd", weights, values)
        return self.output_projection(
            ops.reshape(mixed, (-1, time, self.num_heads * self.head_dim))
        )

    def _keys_and_values(self, x: Any, positions: Any) -> tuple[Any, Any]:
        heads = self.num_key_value_heads
        keys = self._heads(self.key(x), heads, self.key_norm, positions)
        return keys, self._heads(self.value(x), heads, None, None)

    def _heads(self, x: Any, heads: int, norm: Any, positions: Any) -> Any:
        x = ops.reshape(x, (-1, ops.shape(x)[1], heads, self.head_dim))
        if norm is not None:
            x = norm(x)
        if self.rotary is not None and positions is not None:
            x = self.rotary(x, positions)
        return x

    def compute_output_shape(self, x_shape: Any, *args: Any, **kwargs: Any) -> Any:
        return x_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "head_dim": self.head_dim,
            "num_key_value_heads": self.num_key_value_heads,
            "biases": list(self.biases),
            "dropout": self.dropout.rate,
            **serialized(
                rotary=self.rotary,
                score=self.score,
                sees=self.sees,
                norm=self.query_norm,
                initializer=self.initializer,
            ),
        }


def _grouped(x: Any, groups: tuple[int, int]) -> Any:
    """`(batch, heads or 1, ...)` as `(batch, key/value heads, group, ...)`, either possibly 1."""
    if x is None or len(x.shape) < 3:
        return x
    heads = x.shape[1]
    split = (1, 1) if heads == 1 else groups
    return ops.reshape(x, (-1, *split, *ops.shape(x)[2:]))
