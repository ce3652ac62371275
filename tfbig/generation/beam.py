"""Beam search: the likeliest texts as wholes, not token by token, as `transformers` defines it.

At each step every beam is continued by every token, and the `num_beams` best unfinished texts go
on. A finished text is scored by its log-probability over `length ** length_penalty`, its end token
counted. (Graves, 2012, arXiv:1211.3711; the length penalty: Wu et al., 2016, arXiv:1609.08144, in
the simpler form that `transformers` has.)

The best continuations of all beams are found on the device; which go on is decided by plain Python.
Left out: beam sampling, groups of diverse beams, constraints, samplers on the scores but for
forbidden tokens.
"""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfbig.generation.forbidden import Forbidden, forbidden_steps
from tfbig.generation.ids import id_set, whole
from tfbig.generation.prompts import batch_of
from tfbig.generation.session import Session
from tfbig.generation.tokens import vocabulary_of

NOTHING = Forbidden(())


@dataclass(frozen=True)
class Beam:
    """A finished text.

    Args:
        ids: the new ids, without that which ended it.
        score: its log-probability over `length ** length_penalty`.
        reason: why it ended: "length" or "eos".
    """

    ids: list[int]
    score: float
    reason: str


@dataclass
class Beams:
    """The beams of one prompt.

    Args:
        count: how many.
        max_new_tokens: where all end.
        length_penalty: see `beam_search`.
        early_stopping: see `beam_search`.
        eos_ids: which end one.
    """

    count: int
    max_new_tokens: int
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    eos_ids: frozenset[int] = frozenset()
    running: list[list[int]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    finished: list[Beam] = field(default_factory=list)
    done: bool = False

    def __post_init__(self) -> None:
        # One beam counts at first: otherwise all of them would be the same.
        self.running = [[] for _ in range(self.count)]
        self.scores = [0.0] + [-math.inf] * (self.count - 1)

    def advance(self, candidates: Sequence[tuple[float, int, int]]) -> list[int]:
        """One more token.

        Args:
            candidates: the best continuations, best first: (log-probability, beam, token).

        Returns:
            For each beam that goes on, the beam that it continues; its token stands at the end of
            `running`.

        >>> beams = Beams(count=2, max_new_tokens=3, eos_ids=frozenset({9}))
        >>> beams.advance([(-0.5, 0, 4), (-1.0, 0, 9), (-1.5, 0, 5), (-2.0, 0, 6)])
        [0, 0]
        >>> beams.running, beams.finished
        ([[4], [5]], [Beam(ids=[], score=-1.0, reason='eos')])
        """
        length = len(self.running[0]) + 1
        last = length == self.max_new_tokens
        parents, running, scores = [], [], []
        for rank, (score, beam, token) in enumerate(candidates):
            if score == -math.inf:
                break  # of a beam that does not count
            ended = token in self.eos_ids
            if not ended:
                parents.append(beam)
                running.append([*self.running[beam], token])
                scores.append(score)
            # Those beyond the first `count` are there only so that enough go on.
            if (ended or last) and rank < self.count and not self.done:
                ids = self.running[beam] + ([] if ended else [token])
                final = score / length**self.length_penalty
                self.finished.append(Beam(ids, final, "eos" if ended else "length"))
        self.finished.sort(key=lambda beam: -beam.score)
        del self.finished[self.count :]
        missing = self.count - len(parents)
        parents += [0] * missing
        self.running = (running + [[0] * length] * missing)[: self.count]
        self.scores = (scores + [-math.inf] * missing)[: self.count]
        self.done = self.done or last or self._none_better(length)
        return parents[: self.count]

    def _none_better(self, length: int) -> bool:
        if len(self.finished) < self.count:
            return False
        if self.early_stopping is True:
            return True
        longest = self.early_stopping == "never" and self.length_penalty > 0
        hoped = self.max_new_tokens if longest else length
        return self.scores[0] / hoped**self.length_penalty <= self.finished[-1].score


def beam_search(
    model: keras.Model,
    prompts: Any,
    *,
    num_beams: int = 4,
    max_new_tokens: int = 128,
    length_penalty: float = 1.0,
    early_stopping: bool | str = False,
    eos_ids: Iterable[int] = (),
    start_ids: Sequence[int] | None = None,
    jit_compile: bool = False,
    forbidden: Iterable[int] = (),
    forbidden_first: Iterable[int] = (),
) -> list[list[Beam]]:
    """The likeliest continuations of each prompt.

    Args:
        model: a `CausalLM` or a `Seq2Seq`.
        prompts: see `tfbig.generation.generate`.
        num_beams: how many texts are followed at once; 4 is usual in translation.
        max_new_tokens: how many tokens at most.
        length_penalty: the exponent of the length by which a log-probability is divided: above 0
            longer texts gain, 0 leaves it.
        early_stopping: True: end when `num_beams` texts are finished; False: when the best
            unfinished one would not be better at its present length; "never": when it could not
            be better at any length.
        eos_ids: ids of which each ends a text.
        start_ids: with which the decoder of a Seq2Seq begins.
        jit_compile: whether XLA compiles the model; see `decoding.decoding_of`.
        forbidden: ids that no text has; the others' probabilities stay as they are.
        forbidden_first: ids with which no text begins, either.

    Returns:
        For each prompt its finished texts, the best first, `num_beams` at most.

    Raises:
        ValueError: if a prompt or a number is not as it should be; it says which.
        TypeError: if the model is another network.
        FloatingPointError: if the logits are NaN.

    >>> from tfbig.models import language_model
    >>> model = language_model(50, num_layers=1, num_heads=2, hidden_dim=8)
    >>> (beams,) = beam_search(model, [[1, 2, 3]], num_beams=2, max_new_tokens=4)
    >>> [len(beam.ids) for beam in beams], beams[0].score >= beams[1].score
    ([4, 4], True)
    """
    vocabulary = vocabulary_of(model)
    num_beams = whole("num_beams", num_beams)
    max_new_tokens = whole("max_new_tokens", max_new_tokens)
    if num_beams < 1:
        raise ValueError(f"num_beams is 1 or more, and was {num_beams}.")
    if not isinstance(length_penalty, Real) or not math.isfinite(length_penalty):
        raise ValueError(f"length_penalty is a number, and was {length_penalty!r}.")
    if early_stopping not in (True, False, "never"):
        raise ValueError(f'early_stopping is True, False or "never", and not {early_stopping!r}.')
    ends = id_set(eos_ids, vocabulary, "eos_ids")
    masks = forbidden_steps(forbidden, forbidden_first, vocabulary)
    batch = batch_of(model, prompts, max_new_tokens, start_ids)
    all_beams = [
        Beams(num_beams, max_new_tokens, length_penalty, early_stopping, ends)
        for _ in range(batch.size)
    ]
    # Each beam may end in each of the end tokens: as many more, and enough go on.
    count = min(max(2, 1 + len(ends)) * num_beams, num_beams * vocabulary)
    finds = [_best(count, num_beams, mask) for mask in masks]
    session = Session(model, batch, max_new_tokens, jit_compile)
    session.reorder(np.repeat(np.arange(batch.size), num_beams))
    for number in range(max_new_tokens):
        scores = tf.constant([beams.scores for beams in all_beams], tf.float32)
        best = [array.numpy().tolist() for array in finds[min(number, 1)](session.logits, scores)]
        if any(math.isnan(values[0]) for values in best[0]):
            raise FloatingPointError(f"The logits are NaN at new token {number}.")
        rows = [
            row * num_beams + parent
            for row, beams in enumerate(all_beams)
            for parent in beams.advance(list(zip(*(a[row] for a in best), strict=True)))
        ]
        if all(beams.done for beams in all_beams):
            break
        session.reorder(rows)
        session.step(np.array([ids[-1] for beams in all_beams for ids in beams.running], np.int32))
    return [beams.finished for beams in all_beams]


@functools.lru_cache(maxsize=16)
def _best(count: int, num_beams: int, forbidden: Forbidden) -> Callable[..., tuple[Any, Any, Any]]:
    """The best continuations of each prompt's beams, compiled."""

    def best(logits: Any, scores: Any) -> tuple[Any, Any, Any]:
        return best_continuations(logits, scores, count, num_beams, forbidden)

    return tf.function(best, autograph=False)


def best_continuations(
    logits: Any, scores: Any, count: int, num_beams: int, forbidden: Forbidden = NOTHING
) -> tuple[Any, Any, Any]:
    """The `count` likeliest continuations of each prompt.

    Args:
        logits: `(prompts x num_beams, vocabulary)`.
        scores: `(prompts, num_beams)`, log-probabilities so far.
        forbidden: the tokens that are no continuation.

    Returns:
        Log-probabilities, beams and tokens, each `(prompts, count)`, the best first.

    >>> logits = ops.log(ops.array([[0.25, 0.75], [0.5, 0.5]]))
    >>> found = best_continuations(logits, ops.array([[0.0, -1.0]]), 3, 2)
    >>> [[round(float(v), 2) for v in values[0]] for values in found]
    [[-0.29, -1.39, -1.69], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    vocabulary = logits.shape[-1]
    each = forbidden(ops.log_softmax(ops.cast(logits, "float32"), axis=-1), None)
    each = ops.reshape(each, (-1, num_beams, vocabulary))
    together = ops.reshape(each + scores[..., None], (-1, num_beams * vocabulary))
    best, places = ops.top_k(together, count)
    return best, places // vocabulary, places % vocabulary
