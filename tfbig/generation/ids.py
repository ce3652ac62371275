"""Token ids as a user gives them, checked. Nothing here needs a network."""

import operator
from collections.abc import Iterable
from typing import Any


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
        row = [whole(f"An id of {name}", i) for i in prompt]
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


def id_set(ids: Iterable[int], vocabulary_size: int | None, what: str) -> frozenset[int]:
    """Some ids, checked; of none, an empty set.

    Args:
        ids: in any order, from a generator if you like.
        vocabulary_size: None: not known yet.
        what: whose they are, for the message.

    Raises:
        ValueError: if they are no ids of the vocabulary.

    >>> sorted(id_set((i for i in [3, 2]), 10, "eos_ids"))
    [2, 3]
    >>> id_set(3, 10, "eos_ids")
    Traceback (most recent call last):
    ValueError: eos_ids is a list of token ids, such as [2], and was 3.
    """
    if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable):
        raise ValueError(f"{what} is a list of token ids, such as [2], and was {ids!r:.80}.")
    found = frozenset(whole(f"An id of {what}", i) for i in ids)
    # Where it is not known, all are in it but the negative ones.
    size = max(found, default=0) + 1 if vocabulary_size is None else vocabulary_size
    check_vocabulary(sorted(found), size, what)
    return found


def whole(name: str, value: Any) -> int:
    """A whole number as an `int`.

    Raises:
        ValueError: if it is none; True and False are none.

    >>> import numpy as np
    >>> whole("The seed", np.int64(3))
    3
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{name} is a whole number, and was {value!r:.80}.") from None
