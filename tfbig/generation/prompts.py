"""Prompts, checked and as the arrays that the compiled functions take."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfbig.generation.decoding import bucket
from tfbig.generation.ids import checked_ids, whole
from tfbig.models import Seq2Seq
from tfbig.models.positions import max_positions


@dataclass(frozen=True, eq=False)
class Batch:
    """What a generation begins with.

    Args:
        inputs: for `Decoding.prefill`.
        history: `(batch, length)` int32: the ids of each row in the cache's slots. A slot without
            one has an id that the row has anyway, so a penalty for repetition needs no mask.
        first_slot: of the first new token.
        room: how many positions there are for a row; None for any number.
    """

    inputs: dict[str, np.ndarray]
    history: np.ndarray
    first_slot: int
    room: int | None = None

    @property
    def size(self) -> int:
        """The number of rows."""
        return len(self.history)

    @property
    def length(self) -> int:
        """The slots of the cache."""
        return self.history.shape[1]

    @property
    def starts(self) -> np.ndarray:
        """`(batch,)`: the slot of each row's first token."""
        return self.inputs.get("starts", np.zeros(self.size, np.int32))

    def continued(self, texts: Sequence[list[int]], origins: Any, max_new_tokens: int) -> "Batch":
        """A batch that begins with more tokens.

        Args:
            texts: the ids of each row so far, those that it began with among them.
            origins: `(texts,)`: of each, the row of this batch that it came from.
            max_new_tokens: how many are still to come.

        >>> from tfbig.models import language_model
        >>> batch = batch_of(language_model(10, 1, 1, 4), [[1, 2], [3]], max_new_tokens=4)
        >>> batch.continued([[3, 7, 7]], [1], 2).inputs["token_ids"][:, -4:].tolist()
        [[3, 3, 7, 7]]
        """
        if "starts" in self.inputs:
            return _padded_left(texts, max_new_tokens, self.room)
        ids = np.array(texts, np.int32)  # of a Seq2Seq, all as long
        inputs = {name: array[origins] for name, array in self.inputs.items()}
        history = _history(ids, bucket(ids.shape[1] + max_new_tokens))
        return Batch({**inputs, "decoder_token_ids": ids}, history, ids.shape[1], self.room)


def batch_of(
    model: keras.Model,
    prompts: Any,
    max_new_tokens: int,
    start_ids: Sequence[int] | None = None,
) -> Batch:
    """The batch for a model's prompts; see `tfbig.generation.generate` for what they may be.

    Raises:
        ValueError: if a prompt is empty, has an id that is not in the vocabulary, or leaves no
            room for the new tokens.

    >>> from tfbig.models import language_model
    >>> batch = batch_of(language_model(10, 1, 1, 4), [[1, 2], [3]], max_new_tokens=4)
    >>> batch.inputs["token_ids"][:, -2:].tolist(), batch.inputs["starts"].tolist(), batch.length
    ([[1, 2], [3, 3]], [62, 63], 96)
    """
    if whole("max_new_tokens", max_new_tokens) < 1:
        raise ValueError(f"max_new_tokens is 1 or more, and was {max_new_tokens}.")
    if not isinstance(model, Seq2Seq):
        if start_ids is not None:
            raise ValueError("start_ids are those of a Seq2Seq's decoder; a CausalLM has none.")
        return _causal(model, prompts, max_new_tokens)
    if start_ids is None:
        raise ValueError(
            "A Seq2Seq needs start_ids, with which its decoder begins: [0] for T5, the id of "
            "padding for Marian, those of the language and the task for Whisper."
        )
    return _seq2seq(model, prompts, max_new_tokens, start_ids)


def _causal(model: keras.Model, prompts: Any, max_new_tokens: int) -> Batch:
    rows = checked_ids(prompts, model.front.vocabulary_size)
    longest = max(map(len, rows))
    _check_room(model.front, longest, max_new_tokens)
    return _padded_left(rows, max_new_tokens, max_positions(model.front))


def _padded_left(rows: Sequence[list[int]], max_new_tokens: int, room: int | None) -> Batch:
    time = _time(max(map(len, rows)), room)
    ids = np.array([[row[0]] * (time - len(row)) + row for row in rows], np.int32)
    starts = np.array([time - len(row) for row in rows], np.int32)
    history = _history(ids, bucket(time + max_new_tokens))
    return Batch({"token_ids": ids, "starts": starts}, history, time, room)


def _time(longest: int, room: int | None) -> int:
    """The slots of the prompts: rounded up, but not beyond the positions that there are."""
    return bucket(longest) if room is None else min(bucket(longest), room)


def _seq2seq(model: Seq2Seq, prompts: Any, max_new_tokens: int, start_ids: Sequence[int]) -> Batch:
    start = checked_ids([start_ids], model.target_front.vocabulary_size, "start_ids")[0]
    _check_room(model.target_front, len(start), max_new_tokens)
    if isinstance(prompts, np.ndarray) and prompts.dtype.kind == "f":
        if prompts.ndim != 3 or not prompts.size:
            raise ValueError(
                f"Features are (batch, frames, channels), and these are {prompts.shape}."
            )
        inputs = {"encoder_features": prompts}
    else:
        rows = checked_ids(prompts, model.front.vocabulary_size)
        longest, room = max(map(len, rows)), max_positions(model.front)
        if room is not None and longest > room:
            raise ValueError(f"A prompt has {longest} ids, and the encoder {room} positions.")
        time = _time(longest, room)
        # On the right: the encoder counts its positions from the first slot.
        ids = np.array([row + [row[0]] * (time - len(row)) for row in rows], np.int32)
        mask = np.array([[1] * len(row) + [0] * (time - len(row)) for row in rows], np.int32)
        inputs = {"encoder_token_ids": ids, "encoder_padding_mask": mask}
    count = len(next(iter(inputs.values())))
    ids = np.array([start] * count, np.int32)
    history = _history(ids, bucket(len(start) + max_new_tokens))
    return Batch({**inputs, "decoder_token_ids": ids}, history, len(start))


def _history(ids: np.ndarray, length: int) -> np.ndarray:
    return np.pad(ids, [(0, 0), (0, length - ids.shape[1])], mode="edge")


def _check_room(front: Any, prompt: int, new: int) -> None:
    room = max_positions(front)
    if room is not None and prompt + new > room:
        raise ValueError(
            f"The prompt has {prompt} ids and max_new_tokens is {new}, together {prompt + new}; "
            f"the model has learned {room} positions. Cut the prompt, or ask for "
            f"{max(room - prompt, 0)} tokens at most."
        )
