"""What makes one vector of a row of hidden states: the state of one token, or the mean of all.

A pooling is a part of `TextEncoder` and `VisionTransformer`. It has no weights.
"""

from typing import Any

import keras
from keras import ops

from tfbig.models.parts import precise


class Pooling(keras.layers.Layer):
    """One vector of a row of states: called on these, the padding mask and the token ids.

    A pooling uses what it needs of them.

    Shapes:
        `(batch, time, dim)`, and two of `(batch, time)` or None, in; `(batch, dim)` out.
    """

    def compute_output_shape(self, hidden_shape: Any, *args: Any, **kwargs: Any) -> Any:
        return (hidden_shape[0], hidden_shape[-1])


@keras.saving.register_keras_serializable("tfbig")
class FirstToken(Pooling):
    """The state of the first token stands for the row (BERT, ViT).

    >>> FirstToken()(ops.ones((2, 5, 16)), None).shape
    TensorShape([2, 16])
    """

    def call(self, hidden: Any, padding_mask: Any = None, token_ids: Any = None) -> Any:
        return hidden[:, 0]


@keras.saving.register_keras_serializable("tfbig")
class LastToken(Pooling):
    """The state of the last token that is no padding (embeddings by decoders).

    >>> hidden = ops.reshape(ops.arange(3.0), (1, 3, 1))
    >>> float(LastToken()(hidden, ops.array([[1, 1, 0]]))[0, 0])
    1.0
    """

    def call(self, hidden: Any, padding_mask: Any = None, token_ids: Any = None) -> Any:
        if padding_mask is None:
            return hidden[:, -1]
        slots = ops.arange(ops.shape(hidden)[1])
        return _states_at(hidden, ops.max(ops.cast(padding_mask, "int32") * slots, axis=1))


@keras.saving.register_keras_serializable("tfbig")
class EndToken(Pooling):
    """The state of the token that ends the text (CLIP), also where padding has the same id.

    Args:
        end_id: its id, of which the first counts; None: it is the highest id of the row, as in
            CLIP's own vocabulary.

    A row without it is given the state of its first token, as `transformers` does.

    >>> hidden = ops.reshape(ops.arange(4.0), (1, 4, 1))
    >>> float(EndToken(7)(hidden, None, ops.array([[5, 9, 7, 7]]))[0, 0])
    2.0
    """

    def __init__(self, end_id: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.end_id = end_id

    def call(self, hidden: Any, padding_mask: Any = None, token_ids: Any = None) -> Any:
        if token_ids is None:
            raise ValueError("EndToken finds the end by the token ids: use it in a TextEncoder.")
        ids = ops.cast(token_ids, "int32")
        ends = ids if self.end_id is None else ops.cast(ops.equal(ids, self.end_id), "int32")
        return _states_at(hidden, ops.argmax(ends, axis=1))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "end_id": self.end_id}


def _states_at(hidden: Any, slots: Any) -> Any:
    """One state of each row: `(batch, time, dim)` and `(batch,)` to `(batch, dim)`."""
    return ops.squeeze(ops.take_along_axis(hidden, slots[:, None, None], axis=1), 1)


@keras.saving.register_keras_serializable("tfbig")
class MeanToken(Pooling):
    """The mean over the tokens that are no padding (sentence-transformers, Reimers 2019).

    >>> hidden = ops.reshape(ops.arange(3.0), (1, 3, 1))
    >>> float(MeanToken()(hidden, ops.array([[1, 1, 0]]))[0, 0])
    0.5
    """

    def call(self, hidden: Any, padding_mask: Any = None, token_ids: Any = None) -> Any:
        if padding_mask is None:
            return ops.mean(hidden, axis=1)
        dtype = precise(hidden.dtype)
        weight = ops.cast(padding_mask, dtype)[..., None]
        # A row of nothing but padding has mean 0, not NaN.
        count = ops.maximum(ops.sum(weight, axis=1), 1)
        mean = ops.sum(ops.cast(hidden, dtype) * weight, axis=1) / count
        return ops.cast(mean, hidden.dtype)
