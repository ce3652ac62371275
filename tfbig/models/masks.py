"""Who sees whom: causal, sliding-window and bidirectional attention, padding, packed documents.

A mask is boolean, True where a query may look at a key, and broadcasts to
`(batch, heads, queries, keys)`. Rows and columns are counted in slots: the place in the array, or
in the key/value cache. The rule of an attention is a part: `Causal()`, `Causal(window=4096)`,
`Everywhere()`.
"""

from typing import Any

import keras
from keras import ops


class Sees:
    """A rule of who sees whom."""

    def mask(self, query_slots: Any, key_slots: Any) -> Any:
        """`(queries, keys)` of slot numbers `(queries,)` and `(keys,)`; None hides nothing."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """Keras's way to write it down."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Sees":
        """Keras's way to make it again."""
        return cls(**config)


@keras.saving.register_keras_serializable("tfbig")
class Everywhere(Sees):
    """Bidirectional: each query sees each key.

    >>> Everywhere().mask(ops.arange(2), ops.arange(3)) is None
    True
    """

    def mask(self, query_slots: Any, key_slots: Any) -> Any:
        """None: nothing is hidden."""
        return None


@keras.saving.register_keras_serializable("tfbig")
class Causal(Sees):
    """Each query sees itself and what came before it.

    Args:
        window: how many slots it sees, itself among them (Mistral, Gemma 2, Phi-3); None: all.

    >>> print(ops.convert_to_numpy(Causal(window=2).mask(ops.arange(3), ops.arange(3))).astype(int))
    [[1 0 0]
     [1 1 0]
     [0 1 1]]
    """

    def __init__(self, window: int | None = None) -> None:
        if window is not None and window < 1:
            raise ValueError(
                f"window: a query sees at least itself, so 1 or more, and not {window}."
            )
        self.window = window

    def mask(self, query_slots: Any, key_slots: Any) -> Any:
        """`(queries, keys)`, of slot numbers `(queries,)` and `(keys,)`."""
        ahead = query_slots[:, None] - key_slots[None, :]
        seen = ahead >= 0
        if self.window is not None:
            seen = ops.logical_and(seen, ahead < self.window)
        return seen

    def get_config(self) -> dict[str, Any]:
        """Keras's way to write it down."""
        return {"window": self.window}


def both(*masks: Any) -> Any:
    """What all of the masks allow; None hides nothing.

    >>> both(None, None) is None
    True
    """
    given = [mask for mask in masks if mask is not None]
    result = given.pop() if given else None
    for mask in given:
        result = ops.logical_and(result, mask)
    return result


def key_mask(padding_mask: Any, segment_ids: Any) -> Any:
    """The mask of a batch: no padding is seen, and no other document of a packed row.

    Args:
        padding_mask: `(batch, keys)`, 1 or True on tokens; or None.
        segment_ids: `(batch, time)`, the number of the document of each token; or None.

    Returns:
        `(batch, 1, 1 or time, keys)`, or None.

    >>> ops.convert_to_numpy(key_mask(None, ops.array([[1, 1, 2]])))[0, 0].astype(int).tolist()
    [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    """
    padding = segments = None
    if padding_mask is not None:
        padding = ops.cast(padding_mask, "bool")[:, None, None, :]
    if segment_ids is not None:
        segments = ops.equal(segment_ids[:, None, :, None], segment_ids[:, None, None, :])
    return both(padding, segments)


def positions_of(padding_mask: Any) -> Any:
    """The position of each token among those of its row that are no padding: left or right.

    Args:
        padding_mask: `(batch, time)`, 1 on tokens.

    Returns:
        `(batch, time)` int32; padding before the first token has position 0.

    >>> ops.convert_to_numpy(positions_of(ops.array([[0, 0, 1, 1, 1]])))[0].tolist()
    [0, 0, 0, 1, 2]
    """
    count = ops.cumsum(ops.cast(padding_mask, "int32"), axis=-1)
    return ops.maximum(count - 1, 0)
