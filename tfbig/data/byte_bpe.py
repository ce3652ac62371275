"""Byte-level byte-pair encoding, trained on one's own text by the package `tokenizers`.

Sennrich et al. 2016 on bytes, as in GPT-2 (Radford et al. 2019): the first tokens are the 256
bytes, so every text has tokens, no token is unknown, and decoding gives the text back exactly.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def train_byte_bpe(
    texts: Iterable[str],
    vocabulary_size: int,
    special_tokens: tuple[str, ...] = ("<|endoftext|>",),
) -> "Tokenizer":
    """Trains a tokenizer; the same texts give the same one.

    Args:
        texts: read once, one at a time. Of the training side only: merges learned on held-out text
            would make its tokens fewer, and its score better than it is.
        vocabulary_size: at most so many tokens, the special ones and the 256 bytes among them.
            A small corpus may have fewer pairs to merge: ask `get_vocab_size()`.
        special_tokens: get the ids 0, 1, ... They are not looked for in text that is encoded
            (`encode_special_tokens`): a document that says "<|endoftext|>" does not end there.
            `tokenizers` does not save this setting: set it again on a tokenizer that was loaded.

    Returns:
        The tokenizer: `encode(text).ids`, `decode(ids)`, `token_to_id`, `save(path)`.

    Raises:
        ImportError: if `tokenizers` is not installed.
        ValueError: if the vocabulary has no room for the bytes and the special tokens.

    >>> tokenizer = train_byte_bpe(["the cat sat on the mat"] * 9, vocabulary_size=300)
    >>> tokenizer.encode("the").ids == [tokenizer.token_to_id("the")]
    True
    >>> tokenizer.decode(tokenizer.encode("übel ☂").ids)
    'übel ☂'
    """
    try:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    except ImportError as error:
        raise ImportError(
            'To train a tokenizer takes the package tokenizers: pip install "tfbig[interop]"'
        ) from error
    if vocabulary_size < 256 + len(special_tokens):
        raise ValueError(
            f"A byte-level vocabulary holds 256 bytes and {len(special_tokens)} special tokens: "
            f"vocabulary_size must be at least {256 + len(special_tokens)}, and was "
            f"{vocabulary_size}."
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=list(special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.encode_special_tokens = True
    return tokenizer
