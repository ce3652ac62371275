"""How good a language model is: perplexity and bits per byte, beside gzip and xz on the same text.

Perplexity is per token and depends on the tokenizer; bits per byte do not, so they can be compared
with other models and with compressors. An end token is counted for each document: who writes a text
down says where it ends, and gzip does so too.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfbig.data import bits_per_byte, gzip_bits_per_byte, xz_bits_per_byte
from tfbig.generation import generate_text, sampler_of
from tfbig.interop.tokenizer import Tokenizer
from tfbig.models import CausalLM
from tfbig.recipes.language_data import LanguageData

# Of the logits of a batch, float32: 128 MB, and as much again for what is computed of them.
_MOST_LOGITS = 2**25


class LanguageScore(NamedTuple):
    """What a model makes of a text.

    Attributes:
        nats: the sum of -ln p over all tokens that count.
        tokens: how many these are, end tokens too.
        bytes: of the text in UTF-8; None where only some of it counts, as a conversation's answers.
    """

    nats: float
    tokens: int
    bytes: int | None = None

    @property
    def nats_per_token(self) -> float:
        """The mean cross-entropy, the loss of training."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """Among how many equally likely tokens the model hesitates.

        >>> round(LanguageScore(nats=3 * math.log(8), tokens=3, bytes=9).perplexity, 6)
        8.0
        """
        return math.exp(min(self.nats_per_token, 700.0))  # of a model that diverged, not infinite

    @property
    def bits_per_byte(self) -> float | None:
        """None where bytes are not counted.

        >>> round(LanguageScore(nats=3 * math.log(8), tokens=3, bytes=9).bits_per_byte, 6)
        1.0
        """
        return None if self.bytes is None else bits_per_byte(self.nats, self.bytes)

    def as_dict(self) -> dict[str, float]:
        """The numbers by name, without those that are not known."""
        known = {"perplexity": self.perplexity, "bits_per_byte": self.bits_per_byte}
        counted = {"tokens": self.tokens, "bytes": self.bytes}
        return {k: v for k, v in {**known, **counted}.items() if v is not None}


def total_nats(model: keras.Model, dataset: Iterable[Any]) -> tuple[float, int]:
    """The weighted sum of -ln p of the targets, and the sum of the weights.

    Args:
        model: from `inputs` to logits `(batch, time, vocabulary)`.
        dataset: of `(inputs, targets, weights)` in batches of one shape, as
            `tfbig.data.evaluation_rows` gives them.

    >>> uniform = keras.Sequential([keras.layers.Embedding(4, 4, "zeros")])
    >>> ids = tf.constant([[1, 2, 3]])
    >>> nats, tokens = total_nats(uniform, [(ids, ids, tf.constant([[1.0, 1.0, 0.0]]))])
    >>> round(nats / math.log(4), 6), tokens
    (2.0, 2)
    """

    @tf.function(reduce_retracing=True)
    def of_batch(inputs: Any, targets: Any, weights: Any) -> tuple[Any, Any]:
        logits = tf.cast(model(inputs, training=False), tf.float32)
        nats = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
        # Where nothing counts, not even a NaN does.
        counted = tf.where(weights > 0, weights * nats, 0.0)
        return tf.reduce_sum(tf.cast(counted, tf.float64)), tf.reduce_sum(weights)

    nats = tokens = 0.0
    for batch in dataset:
        batch_nats, batch_tokens = of_batch(*batch)
        nats += float(batch_nats)
        tokens += float(batch_tokens)
    return nats, round(tokens)


def score(model: keras.Model, data: LanguageData, length: int) -> LanguageScore:
    """A model on the held-out side of its data.

    Args:
        model: a `CausalLM`.
        data: what it is judged by.
        length: places in a row, the context.

    Raises:
        ValueError: if the model does not predict next tokens.
    """
    check_is_language_model(model)
    batch_size = max(1, _MOST_LOGITS // (length * model.front.vocabulary_size))
    nats, tokens = total_nats(model, data.held_out(length, batch_size))
    return LanguageScore(nats, tokens, data.held_out_bytes)


def check_is_language_model(model: Any) -> None:
    """Raises ValueError if a model does not predict next tokens."""
    if not isinstance(model, CausalLM):
        raise ValueError(
            f"The recipe language is for models that predict the next token (CausalLM), and this "
            f"is a {type(model).__name__}."
        )


def continued(
    model: keras.Model, tokenizer: Tokenizer, data: LanguageData, seed: int
) -> list[tuple[str, str]]:
    """What a model makes of the beginnings of held-out texts, as pairs of texts."""
    prompts = data.prompts()
    if not prompts:
        return []
    sampler = sampler_of(temperature=0.8, top_k=40)
    texts = generate_text(model, tokenizer, prompts, max_new_tokens=64, sampler=sampler, seed=seed)
    return [(tokenizer.decode(p), t.text) for p, t in zip(prompts, texts, strict=True)]


def compressors(texts: list[str]) -> dict[str, float]:
    """Bits per byte of what everybody has: gzip on each file, xz on all of them as one stream."""
    return {
        "gzip -9, each file": gzip_bits_per_byte(texts),
        "xz -9e, all files": xz_bits_per_byte(texts),
    }


def show(of: LanguageScore, expected: tuple[float, float] | None, beside: dict[str, float]) -> str:
    """The score beside the range to expect and beside the compressors.

    >>> print(show(LanguageScore(3 * math.log(8), 3, 9), (0.5, 1.5), {"gzip": 2.5}))
    Held out: 3 tokens, 9 bytes; perplexity 8.00
                       bits per byte   expected
    this model             1.000       0.50 to 1.50
    gzip                   2.500
    """
    counted = f"{of.tokens} tokens" + ("" if of.bytes is None else f", {of.bytes} bytes")
    lines = [f"Held out: {counted}; perplexity {of.perplexity:.2f}"]
    if of.bits_per_byte is None:
        return lines[0]
    value = f"{'this model':22s} {of.bits_per_byte:.3f}"
    if expected:
        low, high = expected
        inside = low <= of.bits_per_byte <= high
        value += f"       {low:.2f} to {high:.2f}" + ("" if inside else "   <- outside")
    heading = f"{'':18s} bits per byte" + ("   expected" if expected else "")
    return "\n".join([*lines, heading, value, *(f"{n:22s} {b:.3f}" for n, b in beside.items())])
