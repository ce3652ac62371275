"""What a language model is trained on and judged by: documents, or conversations.

Both come as one small type: batches to train on, batches to be judged by, texts to show. Documents
go through token shards on the disk; conversations, which are few, are held in memory.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tfbig.data import (
    Documents,
    DocumentSplit,
    EncodedConversations,
    TokenShards,
    TokensInMemory,
    conversation_rows,
    encode_conversations,
    evaluation_rows,
    folder_documents,
    packed,
    python_documents,
    read_conversations,
    split_documents,
    steps_per_epoch,
    train_byte_bpe,
    write_shards,
)
from tfbig.interop.tokenizer import SpecialTokens, Tokenizer

if TYPE_CHECKING:
    import tensorflow as tf

END = "<|endoftext|>"
HELD_OUT = 0.1
# Beginnings of held-out texts that are shown with what the model makes of them.
_SAMPLES, _SAMPLE_TOKENS = 3, 16


class LanguageData(Protocol):
    """A training side and a held-out side, as batches of rows."""

    @property
    def description(self) -> str:
        """The counts, to be printed."""

    @property
    def tokens(self) -> int:
        """Of the training side."""

    @property
    def held_out_bytes(self) -> int | None:
        """Of the text that is judged; None where only parts of it are."""

    def batches(self, length: int, batch_size: int, seed: int) -> "tf.data.Dataset":
        """Batches to train on, without end."""

    def steps_per_epoch(self, length: int, batch_size: int) -> int:
        """How many batches are a pass over the training side."""

    def held_out(self, length: int, batch_size: int) -> "tf.data.Dataset":
        """Batches in which each token to be judged has weight 1 once."""

    def prompts(self) -> list[list[int]]:
        """Beginnings of held-out texts, as ids, to be continued."""


@dataclass(frozen=True)
class TextData:
    """Documents.

    Attributes:
        train: token shards; None where nothing is to be trained.
        judged: the held-out documents' tokens.
        held_out_bytes: of their text, in UTF-8.
        start_id: the token before a document's first.
        description: the counts, to be printed.
    """

    train: TokenShards | None
    judged: TokenShards | TokensInMemory
    held_out_bytes: int
    start_id: int
    description: str

    @property
    def tokens(self) -> int:
        """Of the training side."""
        return self.train.tokens if self.train else 0

    def batches(self, length: int, batch_size: int, seed: int) -> "tf.data.Dataset":
        """See `LanguageData`."""
        assert self.train
        return packed(self.train, length, batch_size, seed, epochs=None, start_id=self.start_id)

    def steps_per_epoch(self, length: int, batch_size: int) -> int:
        """See `LanguageData`."""
        assert self.train
        return steps_per_epoch(self.train, length, batch_size)

    def held_out(self, length: int, batch_size: int) -> "tf.data.Dataset":
        """See `LanguageData`. Windows overlap by half: all but a document's first have context."""
        return evaluation_rows(self.judged, length, batch_size, start_id=self.start_id)

    def prompts(self) -> list[list[int]]:
        """See `LanguageData`."""
        enough = np.flatnonzero(self.judged.sizes > _SAMPLE_TOKENS)
        chosen = (
            enough[np.linspace(0, len(enough) - 1, _SAMPLES).astype(int)] if len(enough) else []
        )
        starts = self.judged.starts[chosen]
        beginnings = (self.judged.gather(np.arange(s, s + _SAMPLE_TOKENS)) for s in starts)
        return [[self.start_id, *map(int, ids)] for ids in beginnings]


@dataclass(frozen=True)
class ConversationData:
    """Conversations, judged by the tokens of their answers.

    Attributes:
        train, judged: the two sides.
        chats: the held-out conversations' first messages, as ids up to where the model answers.
        description: the counts, to be printed.
    """

    train: EncodedConversations
    judged: EncodedConversations
    chats: Sequence[list[int]]
    description: str
    held_out_bytes: None = None

    @property
    def tokens(self) -> int:
        """Of the training side."""
        return sum(map(len, self.train.ids))

    def batches(self, length: int, batch_size: int, seed: int) -> "tf.data.Dataset":
        """See `LanguageData`."""
        return conversation_rows(self.train, length, batch_size, seed, epochs=None)[0]

    def steps_per_epoch(self, length: int, batch_size: int) -> int:
        """See `LanguageData`."""
        return conversation_rows(self.train, length, batch_size)[1]

    def held_out(self, length: int, batch_size: int) -> "tf.data.Dataset":
        """See `LanguageData`."""
        return conversation_rows(self.judged, length, batch_size)[0]

    def prompts(self) -> list[list[int]]:
        """See `LanguageData`."""
        return list(self.chats)


def documents_of(data: str | Path | None) -> Documents:
    """The corpus of `--data`: a folder or a file; the Python standard library without it."""
    return python_documents() if data is None else folder_documents(data)


def split_of(data: str | Path | None, seed: int) -> DocumentSplit:
    """The corpus, a tenth of its documents held out."""
    return split_documents(documents_of(data), HELD_OUT, seed)


def is_conversations(data: str | Path | None) -> bool:
    """Whether `--data` is a file of conversations.

    >>> is_conversations("chats.jsonl"), is_conversations("folder")
    (True, False)
    """
    return data is not None and Path(data).suffix == ".jsonl"


def byte_level_tokenizer(texts: Iterable[str], vocabulary_size: int) -> Tokenizer:
    """A tokenizer trained on these texts; its one special token stands between documents.

    >>> tokenizer = byte_level_tokenizer(["the cat sat on the mat"], 300)
    >>> tokenizer.special.eos_id, tokenizer.decode(tokenizer.encode("a cat"))
    (0, 'a cat')
    """
    backend = train_byte_bpe(texts, vocabulary_size, (END,))
    end = backend.token_to_id(END)
    assert end is not None  # it was asked for
    return Tokenizer(backend, SpecialTokens(bos_id=end, eos_id=end, pad_id=end), frozenset({end}))


def encoder(tokenizer: Tokenizer) -> Callable[[str], list[int]]:
    """A function from a text to its ids, in which special tokens are neither added nor found.

    A document that says "<|endoftext|>" does not end there. The tokenizer itself is not changed.

    >>> tokenizer = byte_level_tokenizer(["the cat sat on the mat"], 300)
    >>> 0 in encoder(tokenizer)(END)
    False
    """
    backend = type(tokenizer.backend).from_str(tokenizer.backend.to_str())
    backend.encode_special_tokens = True
    return lambda text: backend.encode(text, add_special_tokens=False).ids


def end_and_start(tokenizer: Tokenizer) -> tuple[int, int]:
    """The token after a document, and the one before it: "beginning" if there is one, else "end".

    Raises:
        ValueError: if the tokenizer has no end token.
    """
    end = tokenizer.special.eos_id
    if end is None:
        raise ValueError(
            "The tokenizer has no end token (eos), which closes a document: add one to its "
            "tokenizer_config.json."
        )
    return end, end if tokenizer.special.bos_id is None else tokenizer.special.bos_id


def text_data(split: DocumentSplit, tokenizer: Tokenizer, folder: Path) -> TextData:
    """Both sides as token shards below a folder; what is there and unchanged is reused."""
    end, start = end_and_start(tokenizer)
    encode = encoder(tokenizer)
    digest = hashlib.sha256(tokenizer.backend.to_str().encode()).hexdigest()
    train, judged = (
        write_shards(
            documents,
            encode,
            folder / side,
            eos_id=end,
            vocabulary_size=tokenizer.vocabulary_size,
            tokenizer_hash=digest,
        )
        for side, documents in (("train", split.train), ("held_out", split.held_out))
    )
    description = (
        f"{split.describe()}\n{train.tokens} tokens to train on, {judged.tokens} held out, "
        f"{train.bytes / train.tokens:.2f} bytes in a token"
    )
    return TextData(train, judged, judged.bytes, start, description)


def judged_text(documents: Documents, tokenizer: Tokenizer) -> TextData:
    """Documents that are only judged, in memory."""
    end, start = end_and_start(tokenizer)
    encode = encoder(tokenizer)
    ids, size = [], 0
    for _, text in documents:
        ids.append([*encode(text), end])
        size += len(text.encode())
    tokens = sum(map(len, ids))
    description = f"{len(ids)} documents, {size} bytes, {tokens} tokens"
    return TextData(None, TokensInMemory(ids, end), size, start, description)


def conversation_data(
    path: str | Path, tokenizer: Tokenizer, length: int, seed: int
) -> ConversationData:
    """A file of conversations, a tenth of them (at least one) held out.

    Raises:
        ValueError: if there is but one, or as in `read_conversations`, `encode_conversations`.
    """
    conversations = read_conversations(path)
    if len(conversations) < 2:
        raise ValueError(f"{str(path)!r} has one conversation: one to learn, one to be judged by.")
    order = np.random.default_rng(seed).permutation(len(conversations))
    out = max(1, round(HELD_OUT * len(order)))
    judged = [conversations[i] for i in order[:out]]

    # All at once: each call starts a process, in which the template is rendered.
    whole = dict(zip(map(repr, conversations), tokenizer.encode_chats(conversations), strict=True))

    def encode_chat(messages: Any) -> tuple[list[int], list[bool]]:
        # Not among them where it did not fit, and turns were left out.
        encoded = whole.get(repr(messages)) or tokenizer.encode_chat(messages)
        return encoded[0], [bool(answer) for answer in encoded[1]]

    train = encode_conversations((conversations[i] for i in order[out:]), encode_chat, length)
    held_out = encode_conversations(judged, encode_chat, length)
    asked = [_question(messages) for messages in judged[:_SAMPLES]]
    chats = [
        tokenizer.encode(tokenizer.apply_chat_template(messages), add_special_tokens=False)
        for messages in asked
        if messages
    ]
    description = f"To train on: {train.describe()}\nHeld out: {held_out.describe()}"
    return ConversationData(train, held_out, chats, description)


def _question(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """What comes before the first answer."""
    roles = [message["role"] for message in messages]
    return messages[: roles.index("assistant")]
