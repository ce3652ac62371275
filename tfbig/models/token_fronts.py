"""What stands before a Transformer over text: token ids become `(batch, time, dim)`."""

from typing import Any

import keras
from keras import ops

from tfbig.models.parts import Composite, clone, serialized


@keras.saving.register_keras_serializable("tfbig")
class TokenFront(Composite, keras.layers.Layer):
    """The embedding of token ids, and what is added to it.

    Args:
        vocabulary_size: the number of tokens.
        hidden_dim: of the vectors.
        positions: a part that gives a vector for each position, or None (rotary, relative).
        token_types: how many types of tokens there are (BERT: 2), 0 for none.
        scale: of the token vectors (Gemma, Marian: sqrt(hidden_dim)).
        norm: a part for the sum, or None.
        dropout: of the sum.
        initializer: of the vectors.

    Call:
        token_ids: `(batch, time)` integers.
        positions: `(batch or 1, time)`; by default 0, 1, 2, ...
        type_ids: `(batch, time)`; by default 0.
        padding_mask: `(batch, time)`, 1 on tokens; for fronts that count by it.

    Returns:
        `(batch, time, hidden_dim)`.

    >>> TokenFront(100, 16)(ops.ones((2, 5), "int32")).shape
    TensorShape([2, 5, 16])
    """

    def __init__(
        self,
        vocabulary_size: int,
        hidden_dim: int,
        positions: Any = None,
        token_types: int = 0,
        scale: float = 1.0,
        norm: Any = None,
        dropout: float = 0.0,
        initializer: Any = "uniform",
        name: str = "front",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.vocabulary_size = vocabulary_size
        self.hidden_dim = hidden_dim
        self.token_types = token_types
        self.scale = scale
        self.initializer = keras.initializers.get(initializer)
        self.tokens = self._embedding("tokens", vocabulary_size)
        self.types = self._embedding("types", token_types) if token_types else None
        self.positions = clone(positions, "positions")
        self.norm = clone(norm, "norm")
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy)

    def _embedding(self, name: str, rows: int) -> keras.layers.Embedding:
        return keras.layers.Embedding(
            rows,
            self.hidden_dim,
            embeddings_initializer=clone(self.initializer),
            name=name,
            dtype=self.dtype_policy,
        )

    def build(self, *shapes: Any) -> None:
        for embedding in (self.tokens, self.types, self.positions):
            if embedding is not None:
                embedding.build((None, None))
        if self.norm is not None:
            self.norm.build((None, None, self.hidden_dim))
        self.built = True

    @property
    def table(self) -> Any:
        """The token vectors `(vocabulary_size, hidden_dim)`, for a tied head."""
        return ops.convert_to_tensor(self.tokens.embeddings)

    def default_positions(self, token_ids: Any, padding_mask: Any) -> Any:
        """The positions, `(batch or 1, time)`, where none are given."""
        return ops.arange(ops.shape(token_ids)[1])[None]

    def call(
        self,
        token_ids: Any,
        positions: Any = None,
        type_ids: Any = None,
        padding_mask: Any = None,
        training: bool | None = None,
    ) -> Any:
        x = self.tokens(token_ids) * self.scale
        if self.positions is not None:
            if positions is None:
                positions = self.default_positions(token_ids, padding_mask)
            x = x + self.positions(positions)
        if self.types is not None:
            x = x + self.types(ops.zeros_like(token_ids) if type_ids is None else type_ids)
        if self.norm is not None:
            x = self.norm(x)
        return self.dropout(x, training=training)

    def compute_output_shape(self, input_shape: Any, *args: Any, **kwargs: Any) -> Any:
        return (*input_shape, self.hidden_dim)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "hidden_dim": self.hidden_dim,
            "token_types": self.token_types,
            "scale": self.scale,
            "dropout": self.dropout.rate,
            **serialized(positions=self.positions, norm=self.norm, initializer=self.initializer),
        }


@keras.saving.register_keras_serializable("tfbig")
class CountingTokenFront(TokenFront):
    """A `TokenFront` whose positions count only tokens that are no padding (RoBERTa).

    So a text has the same positions with padding on the left and on the right. Padding has the
    position -1: with `LearnedPositions(offset=pad_id + 1)` that is the table's row of padding.

    Args:
        pad_id: the id of padding, for a batch without a padding mask.
        (others): as in `TokenFront`.

    >>> from tfbig.models.positions import LearnedPositions
    >>> front = CountingTokenFront(9, 4, LearnedPositions(8, 4, offset=2), pad_id=1)
    >>> ops.convert_to_numpy(front.default_positions(ops.array([[1, 5, 6, 1]]), None)).tolist()
    [[-1, 0, 1, -1]]
    """

    def __init__(self, *args: Any, pad_id: int = 1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pad_id = pad_id

    def default_positions(self, token_ids: Any, padding_mask: Any) -> Any:
        """The positions, `(batch, time)`, where none are given."""
        if padding_mask is None:
            padding_mask = ops.not_equal(token_ids, self.pad_id)
        is_token = ops.cast(padding_mask, "int32")
        return ops.cumsum(is_token, axis=-1) * is_token - 1

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "pad_id": self.pad_id}
