"""Tokens that are never drawn, or not as the first.

Marian forbids its padding, which it would write, for it was trained without it; Whisper forbids
tokens that are no speech, and an empty text. What a checkpoint says of it is read by
`tfbig.interop.generation_config`. Left out: forbidden sequences of several tokens.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from keras import ops

from tfbig.generation.ids import id_set


@dataclass(frozen=True)
class Forbidden:
    """Some tokens are never drawn.

    Args:
        ids: of the tokens; such as those that `tfbig.interop.generation_config` finds.

    Raises:
        ValueError: if one is not in the vocabulary, which shows when it is called.

    >>> ops.convert_to_numpy(Forbidden([1])(ops.array([[1.0, 3.0, 2.0]]), None)).tolist()
    [[1.0, -inf, 2.0]]
    """

    ids: Iterable[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", tuple(sorted(id_set(self.ids, None, "Forbidden"))))

    def __call__(self, logits: Any, history: Any) -> Any:
        if not self.ids:
            return logits
        vocabulary = logits.shape[-1]
        ids = id_set(self.ids, vocabulary, "Forbidden")
        allowed = [i not in ids for i in range(vocabulary)]
        return ops.where(ops.array(allowed), logits, ops.cast(-math.inf, logits.dtype))


def forbidden_steps(
    forbidden: Iterable[int], forbidden_first: Iterable[int], vocabulary_size: int
) -> tuple[Forbidden, Forbidden]:
    """What is forbidden at the first new token, and at those that follow.

    Raises:
        ValueError: if they are no ids of the vocabulary, or no token is left.

    >>> forbidden_steps([3], [1], 10)
    (Forbidden(ids=(1, 3)), Forbidden(ids=(3,)))
    """
    always = id_set(forbidden, vocabulary_size, "forbidden")
    first = always | id_set(forbidden_first, vocabulary_size, "forbidden_first")
    if len(first) == vocabulary_size:
        raise ValueError(f"All {vocabulary_size} tokens are forbidden, and one at least is needed.")
    return Forbidden(first), Forbidden(always)
