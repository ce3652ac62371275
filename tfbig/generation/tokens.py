"""New tokens after prompts, on ids: `generate`; and `next_ids`, the loop behind it.

Per token two compiled functions run, the model's step and the sampler; logits stay on the device,
and only the chosen ids come back to decide who has ended. Rows that have ended are computed on
until the last one has. Left out: speculative decoding, a loop on the device, batching of requests
that come and go.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfbig.generation.decoding import decoding_of
from tfbig.generation.forbidden import Forbidden, forbidden_steps
from tfbig.generation.ids import checked_ids, id_set, whole
from tfbig.generation.prompts import Batch, batch_of
from tfbig.generation.samplers import GREEDY, Chain, Sampler, drawn
from tfbig.generation.session import Session
from tfbig.models import Seq2Seq


@dataclass(frozen=True)
class Generated:
    """The continuation of a prompt.

    Args:
        ids: the new ids, without that or those that ended it.
        reason: why it ended: "length", "eos" or "stop".
    """

    ids: list[int]
    reason: str


def generate(
    model: keras.Model,
    prompts: Any,
    *,
    max_new_tokens: int = 128,
    sampler: Sampler = GREEDY,
    eos_ids: Iterable[int] = (),
    stop: Sequence[Sequence[int]] = (),
    seed: int | None = None,
    start_ids: Sequence[int] | None = None,
    jit_compile: bool = False,
    forbidden: Iterable[int] = (),
    forbidden_first: Iterable[int] = (),
) -> list[Generated]:
    """Continues each prompt.

    The first call for a size of batch and prompt traces the model, which takes seconds; sizes are
    rounded up (`decoding.bucket`), so few occur.

    Args:
        model: a `CausalLM` or a `Seq2Seq`.
        prompts: lists of token ids, of unequal lengths if need be. Of a Seq2Seq, what the encoder
            reads: the same, or an array of features `(batch, frames, channels)`.
        max_new_tokens: how many tokens at most.
        sampler: how a token is chosen; see `samplers`. By default the likeliest.
        eos_ids: ids of which each ends a row; those of the tokenizer.
        stop: lists of ids of which each ends a row.
        seed: 0 or more. The same seed gives the same ids: a token is drawn by a number that
            depends on the seed, the row and the step only. None: another each time, by NumPy's
            global state, which `keras.utils.set_random_seed` sets.
        start_ids: with which the decoder of a Seq2Seq begins.
        jit_compile: whether XLA compiles the model; see `decoding.decoding_of`.
        forbidden: ids that are never drawn; those of `tfbig.interop.generation_config`, say.
        forbidden_first: ids that are not the first new one, either.

    Returns:
        For each prompt the new ids and why it ended.

    Raises:
        ValueError: if a prompt or a number is not as it should be; it says which.
        TypeError: if the model is another network, or the sampler is none.
        FloatingPointError: if the logits are NaN.

    >>> from tfbig.models import language_model
    >>> model = language_model(50, num_layers=1, num_heads=2, hidden_dim=8)
    >>> one, two = generate(model, [[1, 2, 3], [4]], max_new_tokens=5)
    >>> len(one.ids), two.reason
    (5, 'length')
    """
    vocabulary = vocabulary_of(model)
    end_ids = id_set(eos_ids, vocabulary, "eos_ids")
    stop = list(stop) if isinstance(stop, Iterable) else stop
    ends = checked_ids(stop, vocabulary, "stop") if stop != [] else []
    tokens = next_ids(
        model,
        prompts,
        max_new_tokens,
        sampler,
        seed,
        start_ids,
        jit_compile,
        forbidden,
        forbidden_first,
    )
    rows: list[list[int]] = []
    reasons: list[str] = []
    for ids in tokens:
        rows, reasons = rows or [[] for _ in ids], reasons or ["" for _ in ids]
        for number, new in enumerate(ids):
            if reasons[number]:
                continue
            row = rows[number]
            if new in end_ids:
                reasons[number] = "eos"
                continue
            row.append(new)
            if found := [end for end in ends if row[-len(end) :] == end]:
                del row[-max(map(len, found)) :]
                reasons[number] = "stop"
        if all(reasons):
            break
    return [Generated(row, reason or "length") for row, reason in zip(rows, reasons, strict=True)]


def next_ids(
    model: keras.Model,
    prompts: Any,
    max_new_tokens: int,
    sampler: Sampler,
    seed: int | None = None,
    start_ids: Sequence[int] | None = None,
    jit_compile: bool = False,
    forbidden: Iterable[int] = (),
    forbidden_first: Iterable[int] = (),
) -> Iterator[list[int]]:
    """The next id of each row, step after step, `max_new_tokens` times; stop when you like.

    Args and Raises: see `generate`; errors are raised by this call, not by the first step.

    >>> from tfbig.models import language_model
    >>> model = language_model(50, num_layers=1, num_heads=2, hidden_dim=8)
    >>> [len(ids) for ids in next_ids(model, [[1, 2, 3], [4]], 3, GREEDY)]
    [2, 2, 2]
    """
    first, later = forbidden_steps(forbidden, forbidden_first, vocabulary_of(model))
    _check_sampler(sampler)
    batch = batch_of(model, prompts, max_new_tokens, start_ids)
    chances = uniforms(seed, batch.size, max_new_tokens)
    picks = _compiled(_allowing(first, sampler)), _compiled(_allowing(later, sampler))
    return _steps(model, batch, chances, picks, jit_compile)


def _allowing(forbidden: Forbidden, sampler: Sampler) -> Sampler:
    return Chain((forbidden, sampler)) if forbidden.ids else sampler


def _check_sampler(sampler: Any) -> None:
    if not callable(sampler):
        raise TypeError(
            f"The sampler is a function of logits and history, such as sampler_of(0.7), and was "
            f"{sampler!r:.80}."
        )
    try:
        hash(sampler)
    except TypeError:
        raise TypeError(
            f"The sampler is kept compiled, and {type(sampler).__name__} has no hash to find it "
            f"by: make it a frozen dataclass of numbers and tuples, or a function."
        ) from None


Pick = Callable[..., tf.Tensor]


def _steps(
    model: keras.Model,
    batch: Batch,
    chances: np.ndarray,
    picks: tuple[Pick, Pick],
    jit_compile: bool,
) -> Iterator[list[int]]:
    steps = chances.shape[1]
    session = Session(model, batch, steps, jit_compile)
    for number in range(steps):
        pick = picks[min(number, 1)]
        array = pick(
            session.logits, tf.constant(session.history), tf.constant(chances[:, number])
        ).numpy()
        if (array < 0).any():
            raise FloatingPointError(
                f"The logits of row {int(np.argmin(array))} are NaN, or all -inf, at new token "
                f"{number}: look at the weights, or for a sampler that leaves nothing."
            )
        yield array.tolist()
        if number + 1 < steps:
            session.step(array)


@functools.lru_cache(maxsize=16)
def _compiled(sampler: Sampler) -> Pick:
    """The sampler and the draw, compiled; the last few samplers are kept."""

    def pick(logits: Any, history: Any, chances: Any) -> Any:
        return drawn(sampler(ops.cast(logits, "float32"), history), chances)

    return tf.function(pick, autograph=False)


def uniforms(seed: int | None, rows: int, steps: int) -> np.ndarray:
    """The numbers by which tokens are drawn, `(rows, steps)` float32 in [0, 1).

    A row's numbers do not depend on how many rows and steps there are.

    Raises:
        ValueError: if the seed is negative or no whole number.

    >>> bool((uniforms(7, 2, 3) == uniforms(7, 4, 5)[:2, :3]).all())
    True
    """
    if seed is None:
        seed = int(np.random.randint(2**31))
    if whole("The seed", seed) < 0:
        raise ValueError(f"The seed is 0 or more, and was {seed}.")
    rngs = [np.random.default_rng((seed, row)) for row in range(rows)]
    return np.stack([rng.random(steps, dtype=np.float32) for rng in rngs])


def vocabulary_of(model: keras.Model) -> int:
    """How many tokens a model can write.

    Raises:
        TypeError: if it is neither a `CausalLM` nor a `Seq2Seq`.
    """
    decoding_of(model)
    front = model.target_front if isinstance(model, Seq2Seq) else model.front
    return front.vocabulary_size
