"""One generation: the prefill, step after step, and the prefill again where a cache becomes void.

A network may turn a row by other frequencies once it is longer than a border (`LongRotary`): the
keys in its cache are void then, and all tokens so far are computed anew. Which borders there are is
asked of the network's parts, so nothing here knows a family.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfbig.generation.decoding import decoding_of
from tfbig.generation.prompts import Batch
from tfbig.models import Seq2Seq
from tfbig.models.rotary import cache_borders


class Session:
    """The rows that are written, and what the device holds of them.

    Args:
        model: a `CausalLM` or a `Seq2Seq`.
        batch: what the rows begin with.
        max_new_tokens: how many tokens they get at most.
        jit_compile: see `decoding.decoding_of`.

    Attributes:
        logits: of the next token, `(rows, vocabulary)`.
        history: see `Batch`; with the tokens that came since.

    >>> from tfbig.generation.prompts import batch_of
    >>> from tfbig.models import language_model
    >>> model = language_model(10, 1, 1, 4)
    >>> session = Session(model, batch_of(model, [[1, 2], [3]], 4), 4)
    >>> session.step(np.array([5, 6]))
    >>> session.logits.shape, session.history[:, 63:65].tolist()
    (TensorShape([2, 10]), [[2, 5], [3, 6]])
    """

    def __init__(
        self, model: keras.Model, batch: Batch, max_new_tokens: int, jit_compile: bool = False
    ) -> None:
        self._decoding = decoding_of(model, jit_compile)
        writer = model.decoder if isinstance(model, Seq2Seq) else model.transformer
        self._borders = cache_borders(writer)
        self._batch = batch
        # Of each row, that of the batch which it came from.
        self._origins = np.arange(batch.size)
        self._left = max_new_tokens
        self._begin(batch)

    def _begin(self, batch: Batch) -> None:
        self.history = batch.history.copy()
        self._starts, self._slot = batch.starts, batch.first_slot
        inputs = tf.nest.map_structure(tf.constant, batch.inputs)
        self.logits, self._state = self._decoding.prefill(inputs, batch.length)

    def reorder(self, rows: Any) -> None:
        """Goes on with chosen rows, in a new order or several times: for beams."""
        rows = np.asarray(rows)
        self._origins, self._starts = self._origins[rows], self._starts[rows]
        self.history = self.history[rows]
        state = {"logits": self.logits, "state": self._state}
        state = self._decoding.reorder(state, tf.constant(rows))
        self.logits, self._state = state["logits"], state["state"]

    def step(self, ids: np.ndarray) -> None:
        """One more token for each row, `(rows,)`; `logits` are those of the next."""
        slot = self._slot
        self.history[:, slot] = ids
        self._slot, self._left = slot + 1, self._left - 1
        if self._borders.isdisjoint((slot - self._starts).tolist()):
            self.logits, self._state = self._decoding.step(
                tf.constant(ids, tf.int32), tf.constant(slot), self._state, self.history.shape[1]
            )
            return
        rows = zip(self.history, self._starts, strict=True)
        texts = [row[start : self._slot].tolist() for row, start in rows]
        self._begin(self._batch.continued(texts, self._origins, self._left))
