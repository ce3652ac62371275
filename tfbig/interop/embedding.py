"""One vector for each text: `embed`.

A sentence encoder says itself how (its pooling); of any other network over text the vector is the
mean of the last hidden states over the text's tokens, as Reimers and Gurevych (2019,
arXiv:1908.10084) take it. For a `CausalLM` that is a usable start and no more: it was not trained
for it. Left out: prompts before the text (E5, Instructor), dense layers after the pooling.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfbig.interop.padding import pad
from tfbig.models import MeanToken, TextEncoder, UnitLength
from tfbig.models.language_model import LanguageModel
from tfbig.models.positions import max_positions


def embed(
    model: keras.Model,
    tokenizer: Any,
    texts: Sequence[str],
    batch_size: int = 32,
    max_tokens: int | None = None,
) -> np.ndarray:
    """The vectors of some texts.

    Args:
        model: a `TextEncoder`, such as MiniLM, or a `CausalLM` or `MaskedLM`.
        tokenizer: that of the model; anything with `encode_batch`, as
            `tfbig.interop.tokenizer.Tokenizer`.
        texts: any strings.
        batch_size: texts at once. Texts of like length go together, so that little is padding.
        max_tokens: a longer text is cut to it; an end token such as [SEP] stays. None: to the
            positions that the model has learned, if it has learned any.

    Returns:
        `(texts, dim)` float32, in the order of the texts.

    Raises:
        ValueError: if the network makes no vectors of text, a text has no tokens, or a number is
            not 1 or more.

    >>> from tokenizers import Tokenizer as Backend, models, pre_tokenizers
    >>> from tfbig.interop.tokenizer import Tokenizer
    >>> from tfbig.models import language_model
    >>> backend = Backend(models.WordLevel({"hello": 0, "world": 1}))
    >>> backend.pre_tokenizer = pre_tokenizers.Whitespace()
    >>> model = language_model(2, num_layers=1, num_heads=2, hidden_dim=8)
    >>> embed(model, Tokenizer(backend), ["hello world", "hello"]).shape
    (2, 8)
    """
    if batch_size < 1 or (max_tokens is not None and max_tokens < 1):
        raise ValueError(
            f"batch_size and max_tokens are 1 or more, and were {batch_size} and {max_tokens}."
        )
    _check(model)
    rows = _cut(tokenizer, texts, _shorter(max_tokens, max_positions(model.front)))
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
    vectors = np.zeros((len(rows), model.front.hidden_dim), "float32")
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        # Any id will do: the mask hides it.
        token_ids, padding_mask = pad([rows[number] for number in chosen], pad_id=0)
        pooled = _pooled(model, {"token_ids": token_ids, "padding_mask": padding_mask})
        vectors[chosen] = keras.ops.convert_to_numpy(keras.ops.cast(pooled, "float32"))
    return vectors


def cosines(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The cosine of the angle between one vector and each of others.

    Args:
        one: `(dim,)`.
        others: `(count, dim)`.

    Returns:
        `(count,)`, from -1 to 1; 0 for a vector of zeros, which has no direction.

    >>> cosines(np.array([3.0, 4.0]), np.array([[6.0, 8.0], [-4.0, 3.0], [0.0, 0.0]])).tolist()
    [1.0, 0.0, 0.0]
    """
    lengths = np.linalg.norm(one) * np.linalg.norm(others, axis=1)
    return others @ one / np.where(lengths > 0, lengths, 1)


def _check(model: keras.Model) -> None:
    if not isinstance(model, (TextEncoder, LanguageModel)):
        raise ValueError(
            f"Vectors of text are made by a TextEncoder, a CausalLM or a MaskedLM, and this is a "
            f"{type(model).__name__}."
        )
    head = model.head if isinstance(model, TextEncoder) else None
    if head is not None and not isinstance(head, UnitLength):
        raise ValueError(
            f"{model.name!r} ends in a {type(head).__name__} and gives no vectors of text: take "
            f"the checkpoint without it."
        )


def _pooled(model: Any, inputs: dict[str, np.ndarray]) -> Any:
    if isinstance(model, LanguageModel):
        return MeanToken()(model.hidden(inputs, training=False), inputs["padding_mask"])
    out = model(inputs, training=False)
    return out if model.pooling is not None else MeanToken()(out, inputs["padding_mask"])


def _shorter(one: int | None, other: int | None) -> int | None:
    return min((n for n in (one, other) if n is not None), default=None)


def _cut(tokenizer: Any, texts: Sequence[str], longest: int | None) -> list[list[int]]:
    """The ids of each text, as many as may be."""
    if isinstance(texts, str):
        raise ValueError(f"texts is a list of texts, and was one: give [{texts[:40]!r}].")
    # What the tokenizer puts around a text; its last id ends every text, or none.
    around, *rows = tokenizer.encode_batch(["", *texts])
    for number, ids in enumerate(rows):
        if not ids:
            raise ValueError(f"Text {number} ({texts[number]!r:.60}) has no tokens.")
        if longest is not None and len(ids) > longest:
            end = around[-1:] if ids[-1:] == around[-1:] else []
            rows[number] = [*ids[: longest - len(end)], *end]
    return rows
