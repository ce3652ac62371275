"""Prompts, checked and as the arrays that the compiled functions take."""

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfbig.generation.decoding import bucket
from tfbig.models import LearnedPositions, Seq2Seq


@dataclass(frozen=True, eq=False)
class Batch:
    """What a generation begins with.

    Args:
        inputs: for `Decoding.prefill`.
        history: `(batch, length)` int32: the ids of each row in the cache's slots. A slot without
            one has an id that the row has anyway, so a penalty for repetition needs no mask.
        first_slot: of the first new token.
    """

    inputs: dict[str, np.ndarray]
    history: np.ndarray
    first_slot: int

    @property
    def size(self) -> int:
        """The number of rows."""
        return len(self.history)

    @property
    def length(self) -> int:
        """The slots of the cache."""
        return self.history.shape[1]


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
    if _integer("max_new_tokens", max_new_tokens) < 1:
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
    time = bucket(longest)
    ids = np.array([[row[0]] * (time - len(row)) + row for row in rows], np.int32)
    starts = np.array([time - len(row) for row in rows], np.int32)
    history = _history(ids, bucket(time + max_new_tokens))
    return Batch({"token_ids": ids, "starts": starts}, history, time)


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
        longest, room = max(map(len, rows)), _room(model.front)
        if room is not None and longest > room:
            raise ValueError(f"A prompt has {longest} ids, and the encoder {room} positions.")
        time = bucket(longest) if room is None else min(bucket(longest), room)
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


def checked_ids(prompts: Any, vocabulary_size: int, what: str = "prompt") -> list[list[int]]:
    """Lists of ids, each with one at least, all in the vocabulary.

    Raises:
        ValueError: if they are not.

    >>> checked_ids([[1, 2], [3]], 10)
    [[1, 2], [3]]
    """
    if isinstance(prompts, (str, bytes)) or not isinstance(prompts, Iterable):
        raise ValueError(f"The prompts are lists of token ids, and not {prompts!r:.80}.")
    rows = []
    for number, prompt in enumerate(prompts):
        name = f"{what} {number}" if what == "prompt" else what
        if isinstance(prompt, (str, bytes)) or not isinstance(prompt, Iterable):
            raise ValueError(
                f"{name} is {prompt!r:.80}, and not a list of token ids: give [[1, 2], [3]] for "
                f"two prompts, or texts to generate_text()."
            )
        row = [_integer(f"An id of {name}", i) for i in prompt]
        if not row:
            raise ValueError(f"{name} is empty: give one id at least, such as that of the start.")
        check_vocabulary(row, vocabulary_size, name)
        rows.append(row)
    if not rows:
        raise ValueError("There are no prompts: give one at least.")
    return rows


def check_vocabulary(ids: Iterable[int], vocabulary_size: int, what: str) -> None:
    """Raises ValueError if an id is not in the vocabulary.

    >>> check_vocabulary([3], 3, "eos_ids")
    Traceback (most recent call last):
    ValueError: eos_ids has the id 3, and the model's vocabulary is 0 to 2: is the tokenizer ...
    """
    for i in ids:
        if not 0 <= i < vocabulary_size:
            raise ValueError(
                f"{what} has the id {i}, and the model's vocabulary is 0 to {vocabulary_size - 1}: "
                f"is the tokenizer that of another model?"
            )


def _integer(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{name} is a whole number, and was {value!r:.80}.") from None


def _room(front: Any) -> int | None:
    """How many positions a front has learned, or None where there is no limit."""
    positions = front.positions
    return positions.max_length if isinstance(positions, LearnedPositions) else None


def _check_room(front: Any, prompt: int, new: int) -> None:
    room = _room(front)
    if room is not None and prompt + new > room:
        raise ValueError(
            f"The prompt has {prompt} ids and max_new_tokens is {new}, together {prompt + new}; "
            f"the model has learned {room} positions. Cut the prompt, or ask for "
            f"{max(room - prompt, 0)} tokens at most."
        )
