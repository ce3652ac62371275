"""The stack of blocks that every big network is made of.

A block is an attention and a feed-forward (in a decoder with a cross-attention between them), each
on a branch beside the stream of hidden states. How a branch joins the stream is a part, too:
`PreNorm` (GPT-2, Llama), `PostNorm` (BERT), `SandwichNorm` (Gemma 2).
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfbig.models.masks import key_mask
from tfbig.models.parts import Composite, clone, serialized


@keras.saving.register_keras_serializable("tfbig")
class PreNorm(Composite, keras.layers.Layer):
    """`x + dropout(branch(norm(x)))`.

    Args:
        norm: a part, copied.
        dropout: of what the branch adds.

    >>> join = PreNorm(keras.layers.LayerNormalization())
    >>> x = ops.ones((1, 2, 4))
    >>> join.after(x, join.before(x)).shape
    TensorShape([1, 2, 4])
    """

    def __init__(self, norm: Any, dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.norm = clone(norm, "norm")
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy)

    def build(self, input_shape: Any) -> None:
        self.norm.build(input_shape)
        self.built = True

    def before(self, x: Any) -> Any:
        """What the branch gets."""
        return self.norm(x)

    def after(self, x: Any, branch: Any, training: bool | None = None) -> Any:
        """The stream and the branch's output together."""
        return x + self.dropout(branch, training=training)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "dropout": self.dropout.rate,
            **serialized(norm=self.norm),
        }


@keras.saving.register_keras_serializable("tfbig")
class PostNorm(PreNorm):
    """`norm(x + dropout(branch(x)))`, as the first Transformer and BERT have it."""

    def before(self, x: Any) -> Any:
        """What the branch gets."""
        return x

    def after(self, x: Any, branch: Any, training: bool | None = None) -> Any:
        """The stream and the branch's output together."""
        return self.norm(x + self.dropout(branch, training=training))


@keras.saving.register_keras_serializable("tfbig")
class SandwichNorm(PreNorm):
    """`x + dropout(norm2(branch(norm1(x))))`: Gemma 2."""

    def __init__(self, norm: Any, dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(norm, dropout, **kwargs)
        self.norm_after = clone(norm, "norm_after")

    def build(self, input_shape: Any) -> None:
        self.norm_after.build(input_shape)
        super().build(input_shape)

    def after(self, x: Any, branch: Any, training: bool | None = None) -> Any:
        """The stream and the branch's output together."""
        return x + self.dropout(self.norm_after(branch), training=training)


@keras.saving.register_keras_serializable("tfbig")
class Block(Composite, keras.layers.Layer):
    """One layer of a Transformer.

    Args:
        attention: a part: to the tokens themselves.
        feed_forward: a part.
        join: a part, copied for each branch: `PreNorm`, `PostNorm` or `SandwichNorm`.
        cross_attention: a part: to a memory; None where there is none.

    Call:
        x: `(batch, time, dim)`.
        visible, bias, positions, cache: as in `Attention`.
        memory, memory_visible: for the cross-attention.

    >>> from tfbig.models.attention import Attention
    >>> from tfbig.models.feed_forward import FeedForward
    >>> norm = keras.layers.LayerNormalization()
    >>> Block(Attention(2, 8), FeedForward(32), PreNorm(norm))(ops.ones((2, 5, 16))).shape
    TensorShape([2, 5, 16])
    """

    def __init__(
        self,
        attention: Any,
        feed_forward: Any,
        join: Any,
        cross_attention: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.attention = clone(attention, "attention")
        self.attention_join = clone(join, "attention_join")
        self.cross_attention = clone(cross_attention, "cross_attention")
        self.cross_join: Any = None if cross_attention is None else clone(join, "cross_join")
        self.feed_forward = clone(feed_forward, "feed_forward")
        self.feed_forward_join = clone(join, "feed_forward_join")

    def build(self, x_shape: Any, memory_shape: Any = None, **shapes: Any) -> None:
        self.attention.build(x_shape)
        if self.cross_attention is not None:
            self.cross_attention.build(x_shape, memory_shape or x_shape)
            self.cross_join.build(x_shape)
        self.feed_forward.build(x_shape)
        self.attention_join.build(x_shape)
        self.feed_forward_join.build(x_shape)
        self.built = True

    def call(
        self,
        x: Any,
        memory: Any = None,
        visible: Any = None,
        memory_visible: Any = None,
        bias: Any = None,
        positions: Any = None,
        cache: Any = None,
        training: bool | None = None,
    ) -> Any:
        branch = self.attention(
            self.attention_join.before(x),
            visible=visible,
            bias=bias,
            positions=positions,
            cache=cache,
            training=training,
        )
        x = self.attention_join.after(x, branch, training)
        if self.cross_attention is not None:
            branch = self.cross_attention(
                self.cross_join.before(x),
                memory,
                visible=memory_visible,
                cache=cache,
                training=training,
            )
            x = self.cross_join.after(x, branch, training)
        branch = self.feed_forward(self.feed_forward_join.before(x), training=training)
        return self.feed_forward_join.after(x, branch, training)

    def compute_output_shape(self, x_shape: Any, *args: Any, **kwargs: Any) -> Any:
        return x_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            **serialized(
                attention=self.attention,
                feed_forward=self.feed_forward,
                join=self.attention_join,
                cross_attention=self.cross_attention,
            ),
        }


@keras.saving.register_keras_serializable("tfbig")
class Transformer(Composite, keras.layers.Layer):
    """`num_layers` copies of a block, one after the other, named `block_0`, `block_1`, ...

    Args:
        block: the block that is copied; or several, taken in turn (Gemma 2: one that sees a window,
            one that sees all).
        num_layers: the number of blocks.
        norm: a part after the last block, or None.
        position_bias: a part that all attentions share (`RelativeBias`), or None.

    Call:
        x: `(batch, time, dim)`.
        positions: `(batch or 1, time)`, for rotary positions.
        padding_mask: `(batch, keys)`, 1 on tokens; `keys` is the cache's length where there is one.
        segment_ids: `(batch, time)`: tokens see those of the same number only.
        memory, memory_padding_mask: what a decoder reads, `(batch, keys, dim)` and `(batch, keys)`.
        cache: a `KeyValueCache`.

    Returns:
        `(batch, time, dim)`.

    >>> from tfbig.models.attention import Attention
    >>> from tfbig.models.feed_forward import FeedForward
    >>> norm = keras.layers.LayerNormalization()
    >>> block = Block(Attention(2, 8), FeedForward(32), PreNorm(norm))
    >>> stack = Transformer(block, num_layers=3, norm=norm)
    >>> stack(ops.ones((2, 5, 16))).shape, stack.blocks[2].name
    (TensorShape([2, 5, 16]), 'block_2')
    """

    def __init__(
        self,
        block: Any,
        num_layers: int,
        norm: Any = None,
        position_bias: Any = None,
        name: str = "transformer",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        pattern = list(block) if isinstance(block, Sequence) else [block]
        self.num_layers = num_layers
        self.pattern_length = len(pattern)
        self.blocks = [
            clone(pattern[number % len(pattern)], f"block_{number}") for number in range(num_layers)
        ]
        if len(self.blocks) < len(pattern):
            raise ValueError(
                f"num_layers is {num_layers}, fewer than the {len(pattern)} blocks given."
            )
        self.norm = clone(norm, "norm")
        self.position_bias = clone(position_bias, "position_bias")

    def build(self, x_shape: Any, memory_shape: Any = None, **shapes: Any) -> None:
        for block in self.blocks:
            block.build(x_shape, memory_shape)
        if self.norm is not None:
            self.norm.build(x_shape)
        if self.position_bias is not None:
            self.position_bias.build()
        self.built = True

    def call(
        self,
        x: Any,
        memory: Any = None,
        positions: Any = None,
        padding_mask: Any = None,
        segment_ids: Any = None,
        memory_padding_mask: Any = None,
        cache: Any = None,
        training: bool | None = None,
    ) -> Any:
        time = ops.shape(x)[1]
        if positions is None:
            positions = (ops.arange(time) if cache is None else cache.slots(time))[None]
        bias = None
        if self.position_bias is not None:
            slots = ops.arange(time) if cache is None else cache.slots(time)
            bias = self.position_bias(slots, ops.arange(time if cache is None else cache.length))
        visible = key_mask(padding_mask, segment_ids)
        memory_visible = key_mask(memory_padding_mask, None)
        for block in self.blocks:
            x = block(
                x,
                memory,
                visible=visible,
                memory_visible=memory_visible,
                bias=bias,
                positions=positions,
                cache=cache,
                training=training,
            )
        return x if self.norm is None else self.norm(x)

    def compute_output_shape(self, x_shape: Any, *args: Any, **kwargs: Any) -> Any:
        return x_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_layers": self.num_layers,
            "block": serialized(blocks=self.blocks[: self.pattern_length])["blocks"],
            **serialized(norm=self.norm, position_bias=self.position_bias),
        }
