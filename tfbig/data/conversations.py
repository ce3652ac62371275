"""Conversations to fine-tune a chat model on, with the loss on the answers only.

A conversation is a list of `{"role": ..., "content": ...}`, as in the chat files of OpenAI and of
Hugging Face. The model reads all of it and learns the assistant's turns alone (the loss masking of
instruction tuning, e.g. Zheng et al. 2023, Vicuna). How turns become tokens is the tokenizer's
chat template, which is handed in as `encode_chat`. Left out: tool calls and contents in parts.
"""

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfbig.data import rows

if TYPE_CHECKING:
    import tensorflow as tf

Message = dict[str, str]

_ROLES = ("system", "user", "assistant", "tool")
_EXPECTED = (
    'Expected is {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", '
    '"content": "..."}]} or that list alone.'
)


def read_conversations(path: str | os.PathLike[str]) -> list[list[Message]]:
    """Reads a JSON-lines file: on each line `{"messages": [...]}` or the list of messages.

    Other fields are passed over, empty lines too.

    Args:
        path: a file in UTF-8.

    Returns:
        The conversations; each message is `{"role": ..., "content": ...}`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a line is not a conversation with an answer, with its number; or if there is
            none at all.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "chat.jsonl")
    ...     _ = path.write_text('[{"role": "user", "content": "1+1?"}, '
    ...                         '{"role": "assistant", "content": "2"}]')
    ...     read_conversations(path)[0][1]
    {'role': 'assistant', 'content': '2'}
    """
    conversations = []
    for number, line in enumerate(Path(path).read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            conversations.append(_conversation(json.loads(line.decode())))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{str(path)!r}, line {number}: {error} {_EXPECTED}") from error
    if not conversations:
        raise ValueError(f"{str(path)!r} has no conversation. {_EXPECTED}")
    return conversations


def _conversation(line: Any) -> list[Message]:
    messages = line.get("messages") if isinstance(line, dict) else line
    if not isinstance(messages, list):
        raise ValueError("There is no list of messages.")
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict):
            raise ValueError(f"Message {number} is not an object.")
        if message.get("role") not in _ROLES:
            raise ValueError(
                f"Message {number} has the role {message.get('role')!r}, not one of "
                f"{', '.join(_ROLES)}."
            )
        if not isinstance(message.get("content"), str):
            raise ValueError(f"Message {number} has no content that is a string.")
        message["content"].encode()  # a lone surrogate is a ValueError here, with its place
    if not any(message["role"] == "assistant" for message in messages):
        raise ValueError("There is no message of the assistant, so nothing to learn.")
    return [{"role": message["role"], "content": message["content"]} for message in messages]


@dataclasses.dataclass(frozen=True)
class EncodedConversations:
    """Conversations as tokens, and what became of those that were too long.

    Attributes:
        ids: of each conversation that was kept.
        is_answer: for each of its tokens, whether it is to be learnt.
        shortened: how many lost their oldest turns.
        dropped: how many were left out, since no turn with its answer fits.
    """

    ids: tuple[list[int], ...]
    is_answer: tuple[list[bool], ...]
    shortened: int
    dropped: int

    def describe(self) -> str:
        """The counts in one line, to be printed."""
        tokens, answers = sum(map(len, self.ids)), sum(map(sum, self.is_answer))
        return (
            f"{len(self.ids)} conversations, {tokens} tokens, {answers} of them answers; "
            f"{self.shortened} cut from the left, {self.dropped} dropped as too long"
        )


def encode_conversations(
    conversations: Iterable[Sequence[Message]],
    encode_chat: Callable[[Sequence[Message]], tuple[Sequence[int], Sequence[bool]]],
    length: int,
) -> EncodedConversations:
    """Encodes conversations so that each fits in a row.

    Of one that is too long the oldest turns are left out, up to a message of the user; messages of
    the system that come first are kept. One that still does not fit is dropped.

    Args:
        conversations: lists of messages.
        encode_chat: gives the ids of a list of messages, and for each id whether it is an answer's.
        length: places in a row.

    Raises:
        ValueError: if none is left, or if `encode_chat` gives ids and mask of different lengths.

    >>> def encode_chat(messages):
    ...     return [9, *map(len, (m["content"] for m in messages))], [False, False, True]
    >>> chat = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]
    >>> encode_conversations([chat], encode_chat, length=8).ids
    ([9, 4, 1],)
    """
    rows.check_positive(length=length)
    kept = []
    shortened = dropped = 0
    for messages in conversations:
        for attempt, part in enumerate(_ever_shorter(list(messages))):
            ids, is_answer = map(list, encode_chat(part))
            if len(ids) != len(is_answer):
                raise ValueError(
                    f"encode_chat gave {len(ids)} ids and a mask of {len(is_answer)}: it must tell "
                    f"of each id whether it is an answer's."
                )
            # The first token is nobody's target, so a row holds one token more than its places.
            if len(ids) <= length + 1 and any(is_answer[1:]):
                kept.append((ids, list(map(bool, is_answer))))
                shortened += attempt > 0
                break
        else:
            dropped += 1
    if not kept:
        raise ValueError(
            f"None of {dropped} conversations has an answer that fits in {length} tokens: give a "
            f"greater length, or other conversations."
        )
    ids_of_all, masks = zip(*kept, strict=True)
    return EncodedConversations(ids_of_all, masks, shortened, dropped)


def _ever_shorter(messages: list[Message]) -> Iterator[list[Message]]:
    """The conversation, then what is left of it from each later message of the user on."""
    roles = [message["role"] for message in messages]
    head = next((i for i, role in enumerate(roles) if role != "system"), len(roles))
    yield messages
    for begin in range(head + 1, len(messages)):
        if roles[begin] == "user":
            yield messages[:head] + messages[begin:]


def conversation_rows(
    encoded: EncodedConversations,
    length: int,
    batch_size: int,
    seed: int = 0,
    epochs: int | None = 1,
) -> tuple["tf.data.Dataset", int]:
    """Batches to fine-tune on: each answer token is a target of weight 1 once in each epoch.

    No conversation is cut; several short ones share a row, each in its own segment. Which ones is
    drawn once; the order of the rows is drawn anew for each epoch.

    Args:
        encoded: by `encode_conversations`, for this length or a smaller one.
        length: places in a row.
        batch_size: rows in a batch; the last batch of an epoch is filled up with padding.
        seed: of what is drawn.
        epochs: how many lie in the dataset one after the other; None for no end.

    Returns:
        A dataset of `(inputs, targets, weights)` as that of `packed`, and how many batches are an
        epoch: the `steps_per_epoch` of `fit`.

    Raises:
        ValueError: if a conversation is longer than a row, or a number is below 1.

    >>> encoded = EncodedConversations(([9, 4, 1],), ([False, False, True],), 0, 0)
    >>> dataset, steps_per_epoch = conversation_rows(encoded, length=3, batch_size=1)
    >>> inputs, targets, weights = next(iter(dataset))
    >>> inputs["token_ids"].numpy().tolist(), targets.numpy().tolist(), weights.numpy().tolist()
    ([[9, 4, 0]], [[4, 1, 0]], [[0.0, 1.0, 0.0]])
    """
    rows.check_positive(length=length, batch_size=batch_size, epochs=epochs)
    longest = max(map(len, encoded.ids)) - 1
    if longest > length:
        raise ValueError(
            f"A conversation takes {longest} places, and a row has {length}: encode the "
            f"conversations for this length."
        )
    source = rows.TokensInMemory(encoded.ids, eos_id=0)  # no start token is ever put in
    is_answer = np.concatenate([np.array(mask, np.float32) for mask in encoded.is_answer])
    order = np.random.default_rng(seed).permutation(len(encoded.ids))
    sizes = source.sizes[order] - 1
    places, count = rows.whole_places(sizes, length)
    pieces = rows.Pieces(
        places=places,
        sources=source.starts[order] + 1,  # a conversation's first token is input only
        sizes=sizes,
        known=np.zeros_like(places),
        is_start=np.zeros_like(places, bool),
        rows=count,
    )
    steps = -(-count // batch_size)

    @functools.lru_cache(maxsize=2)
    def order_of(epoch: int) -> np.ndarray:
        return np.random.default_rng((seed, epoch)).permutation(count)

    def batch(number: int) -> tuple[np.ndarray, ...]:
        epoch, step = divmod(number, steps)
        chosen = order_of(epoch)[step * batch_size : (step + 1) * batch_size]
        *arrays, weights, sources = rows.make_batch(pieces, chosen, source, length, batch_size, 0)
        return *arrays, weights * is_answer[sources]

    total = None if epochs is None else epochs * steps
    return rows.as_dataset(batch, total, length, batch_size), steps
