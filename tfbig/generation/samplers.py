"""How the next token is chosen: from logits to the logits that may be drawn from, and the draw.

A sampler is called on logits `(batch, vocabulary)` and the ids of each row so far `(batch, any)`,
and returns logits; what may not be drawn is -inf. So samplers compose (`Chain`), and a function of
one's own is one too, if it reads its arguments only: it is compiled. Then `drawn` draws. All of it
is `keras.ops` and runs on every backend.

Sources: nucleus: Holtzman et al., 2020 (arXiv:1904.09751); min-p: Nguyen et al., 2024
(arXiv:2407.01082); repetition penalty: Keskar et al., 2019 (arXiv:1909.05858), as `transformers`
defines it. Left out: typical, eta and Mirostat sampling, penalties by count.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from keras import ops

Sampler = Callable[[Any, Any], Any]


def only_largest(logits: Any) -> Any:
    """The largest logit of each row (the first of equals); the others are -inf.

    >>> ops.convert_to_numpy(only_largest(ops.array([[1.0, 3.0, 3.0]]))).tolist()
    [[-inf, 3.0, -inf]]
    """
    largest = ops.cast(ops.argmax(logits, axis=-1), "int32")[..., None]
    return _keep(ops.arange(logits.shape[-1], dtype="int32") == largest, logits)


def tempered(logits: Any, temperature: float) -> Any:
    """`logits / temperature`; at 0 only the largest, which is the limit.

    >>> ops.convert_to_numpy(tempered(ops.array([[1.0, 3.0]]), 2.0)).tolist()
    [[0.5, 1.5]]
    """
    return only_largest(logits) if temperature == 0 else logits / temperature


def largest_k(logits: Any, k: int) -> Any:
    """The `k` largest logits, and those that equal the last of them.

    >>> ops.convert_to_numpy(largest_k(ops.array([[1.0, 3.0, 2.0]]), 2)).tolist()
    [[-inf, 3.0, 2.0]]
    """
    best, _ = ops.top_k(logits, min(k, logits.shape[-1]))
    return _keep(logits >= best[..., -1:], logits)


def nucleus(logits: Any, p: float) -> Any:
    """The fewest most likely tokens that have probability `p` together, and equals of the last.

    >>> logits = ops.log(ops.array([[0.5, 0.2, 0.3]]))
    >>> ops.convert_to_numpy(nucleus(logits, 0.7) > -math.inf).tolist()
    [[True, False, True]]
    """
    if p == 1:
        return logits
    probabilities = ops.softmax(logits, axis=-1)
    falling = ops.flip(ops.sort(probabilities, axis=-1), axis=-1)
    before = ops.cumsum(falling, axis=-1) - falling
    least = ops.min(ops.where(before < p, falling, 2.0), axis=-1, keepdims=True)
    return _keep(probabilities >= least, logits)


def likely_enough(logits: Any, p: float) -> Any:
    """The tokens at least `p` times as likely as the likeliest.

    >>> logits = ops.log(ops.array([[0.5, 0.2, 0.3]]))
    >>> ops.convert_to_numpy(likely_enough(logits, 0.5) > -math.inf).tolist()
    [[True, False, True]]
    """
    if p == 0:
        return logits
    return _keep(logits >= ops.max(logits, axis=-1, keepdims=True) + math.log(p), logits)


def less_repeated(logits: Any, history: Any, penalty: float) -> Any:
    """The logits of tokens that were there are divided by `penalty`; multiplied if negative.

    Args:
        logits: `(batch, vocabulary)`.
        history: `(batch, any)` the ids of each row so far, in any order and as often as you like.
        penalty: above 1 against repetition.

    >>> less = less_repeated(ops.array([[4.0, -4.0, 4.0]]), ops.array([[0, 1, 1]]), 2.0)
    >>> ops.convert_to_numpy(less).tolist()
    [[2.0, -8.0, 4.0]]
    """
    rows = ops.arange(history.shape[0], dtype="int32")[:, None] + ops.zeros_like(history)
    places = ops.reshape(ops.stack([rows, history], axis=-1), (-1, 2))
    there = ops.scatter_update(ops.zeros(logits.shape, "int32"), places, places[:, 0] * 0 + 1)
    return ops.where(there > 0, ops.where(logits > 0, logits / penalty, logits * penalty), logits)


def drawn(logits: Any, uniforms: Any) -> Any:
    """One id for each row: that in whose part of the probability the row's number falls.

    One number for a row, drawn outside, is all the chance there is. So a text depends on its own
    seed only, not on its neighbours, the backend or the device.

    Args:
        logits: `(batch, vocabulary)` float32; -inf is never drawn.
        uniforms: `(batch,)` in [0, 1).

    Returns:
        `(batch,)` int32; -1 where the logits hold no number to draw from (NaN, or all -inf).

    >>> logits = ops.log(ops.array([[0.25, 0.0, 0.75]] * 2))
    >>> ops.convert_to_numpy(drawn(logits, ops.array([0.24, 0.26]))).tolist()
    [0, 2]
    """
    probabilities = ops.softmax(logits, axis=-1)
    up_to = ops.cumsum(probabilities, axis=-1)
    reached = ops.logical_and(up_to > uniforms[:, None] * up_to[:, -1:], probabilities > 0)
    # A parallel sum may not rise everywhere: where its end falls short, the likeliest token.
    score = ops.where(ops.any(reached, axis=-1, keepdims=True), reached, probabilities)
    ids = ops.cast(ops.argmax(score, axis=-1), "int32")
    return ops.where(ops.isnan(up_to[:, -1]), -1, ids)


def _keep(kept: Any, logits: Any) -> Any:
    return ops.where(kept, logits, ops.cast(-math.inf, logits.dtype))


def _check(name: str, value: float, allowed: bool, expected: str) -> None:
    if not allowed:
        raise ValueError(f"{name} is {expected}, and was {value!r}.")


@dataclass(frozen=True)
class Greedy:
    """The likeliest token, always.

    >>> ops.convert_to_numpy(Greedy()(ops.array([[1.0, 3.0]]), None)).tolist()
    [[-inf, 3.0]]
    """

    def __call__(self, logits: Any, history: Any) -> Any:
        return only_largest(logits)


GREEDY = Greedy()


@dataclass(frozen=True)
class Temperature:
    """Divides the logits: above 1 flatter, below 1 steeper, 0 greedy.

    Args:
        value: the temperature.

    >>> Temperature(0.5)(ops.array([[1.0]]), None).numpy().tolist()
    [[2.0]]
    """

    value: float

    def __post_init__(self) -> None:
        allowed = 0 <= self.value < math.inf
        _check("The temperature", self.value, allowed, "0 (greedy) or a positive number")

    def __call__(self, logits: Any, history: Any) -> Any:
        return tempered(logits, self.value)


@dataclass(frozen=True)
class TopK:
    """Only the `k` likeliest tokens; see `largest_k`.

    Args:
        k: 1 or more; 1 is greedy, up to ties.

    >>> TopK(1)(ops.array([[1.0, 3.0]]), None).numpy().tolist()
    [[-inf, 3.0]]
    """

    k: int

    def __post_init__(self) -> None:
        allowed = isinstance(self.k, int) and self.k >= 1
        _check("top_k", self.k, allowed, "a whole number of tokens, 1 or more")

    def __call__(self, logits: Any, history: Any) -> Any:
        return largest_k(logits, self.k)


@dataclass(frozen=True)
class TopP:
    """Only the tokens of the nucleus; see `nucleus`.

    Args:
        p: in (0, 1]; 1 keeps all.

    >>> TopP(0.5)(ops.array([[1.0, 3.0]]), None).numpy().tolist()
    [[-inf, 3.0]]
    """

    p: float

    def __post_init__(self) -> None:
        _check("top_p", self.p, 0 < self.p <= 1, "a probability above 0 and at most 1")

    def __call__(self, logits: Any, history: Any) -> Any:
        return nucleus(logits, self.p)


@dataclass(frozen=True)
class MinP:
    """Only tokens that are not much less likely than the likeliest; see `likely_enough`.

    Args:
        p: in [0, 1]; 0 keeps all.

    >>> MinP(0.5)(ops.array([[1.0, 3.0]]), None).numpy().tolist()
    [[-inf, 3.0]]
    """

    p: float

    def __post_init__(self) -> None:
        _check("min_p", self.p, 0 <= self.p <= 1, "a probability from 0 to 1")

    def __call__(self, logits: Any, history: Any) -> Any:
        return likely_enough(logits, self.p)


@dataclass(frozen=True)
class RepetitionPenalty:
    """Against tokens of the prompt and of what was generated; see `less_repeated`.

    Args:
        penalty: 1 does nothing; 1.2 is the paper's.

    >>> RepetitionPenalty(2.0)(ops.array([[4.0, 4.0]]), ops.array([[1]])).numpy().tolist()
    [[4.0, 2.0]]
    """

    penalty: float

    def __post_init__(self) -> None:
        allowed = 0 < self.penalty < math.inf
        _check("The repetition penalty", self.penalty, allowed, "a positive number")

    def __call__(self, logits: Any, history: Any) -> Any:
        return less_repeated(logits, history, self.penalty)


@dataclass(frozen=True)
class Chain:
    """Several samplers, one after the other.

    Args:
        samplers: in the order in which they are applied.

    >>> Chain((Temperature(0.5), TopK(1)))(ops.array([[1.0, 3.0]]), None).numpy().tolist()
    [[-inf, 6.0]]
    """

    samplers: Sequence[Sampler]

    def __post_init__(self) -> None:
        object.__setattr__(self, "samplers", tuple(self.samplers))

    def __call__(self, logits: Any, history: Any) -> Any:
        for sampler in self.samplers:
            logits = sampler(logits, history)
        return logits


def sampler_of(
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float | None = None,
) -> Sampler:
    """The usual settings as one sampler, in the order in which `transformers` applies them.

    Args:
        temperature: 0 for greedy.
        top_k, top_p, min_p, repetition_penalty: None for none.

    Raises:
        ValueError: for a number out of its range.

    >>> sampler_of(0.7, top_k=40)
    Chain(samplers=(Temperature(value=0.7), TopK(k=40)))
    """
    settings: list[tuple[Callable[[Any], Sampler], Any]] = [
        (RepetitionPenalty, repetition_penalty),
        (Temperature, temperature),
        (TopK, top_k),
        (TopP, top_p),
        (MinP, min_p),
    ]
    return Chain([kind(value) for kind, value in settings if value is not None])
