"""The tokenizer of a model: text to ids and back, one small type for every family.

The work is done by `tokenizers` (an extra). Here stands what a training or generating program needs
besides: the special ids under fixed names, the ids at which an answer ends, padding, text as it
streams in, the chat template, and the mask of a conversation's answers. `load_tokenizer`
(`tokenizer_files`) and `tokenizer_from_gguf` (`tokenizer_gguf`) make one from files.

Left out: training a tokenizer, pairs of texts, truncation (cut the ids), token types. A file's
regular expressions run in-process: a hostile one can make `encode` slow, and nothing bounds that.
"""

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from tfbig.interop import chat, padding
from tfbig.interop.token_stream import TokenStream

# Above any model's embedding table; an id beyond it is a file's fault, not a big vocabulary.
LARGEST_VOCABULARY = 10_000_000


class TokenizerError(ValueError):
    """A tokenizer's files are wrong, or it cannot do what is asked with what it was given."""


@dataclass(frozen=True)
class SpecialTokens:
    """The ids of the special tokens, by role; None where the vocabulary has none.

    >>> SpecialTokens(eos_id=2).bos_id is None
    True
    """

    bos_id: int | None = None
    eos_id: int | None = None
    pad_id: int | None = None
    unk_id: int | None = None
    mask_id: int | None = None
    sep_id: int | None = None
    cls_id: int | None = None

    def items(self) -> Iterator[tuple[str, int]]:
        """The (role, id) of those that there are; a role is `"bos"`, `"eos"`, ..."""
        for one in fields(self):
            number = getattr(self, one.name)
            if number is not None:
                yield one.name.removesuffix("_id"), number


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """Text to ids and back.

    Args:
        backend: a `tokenizers.Tokenizer`; it is not to be changed any more.
        special: the ids of the special tokens.
        eos_ids: the ids at which an answer ends. A chat model has several: the end of the text and
            the end of the turn.
        chat_template: a jinja2 program (`tfbig.interop.chat`), or None.
        target: of a translation model, the tokenizer of the language it writes, used to decode;
            None where it is `backend`, too.
        chat_limits: what the template may use. To change one: `dataclasses.replace`.

    >>> from tokenizers import Tokenizer as Backend, models, pre_tokenizers
    >>> backend = Backend(models.WordLevel({"hello": 0, "world": 1, "?": 2}, unk_token="?"))
    >>> backend.pre_tokenizer = pre_tokenizers.Whitespace()
    >>> tokenizer = Tokenizer(backend, SpecialTokens(unk_id=2))
    >>> tokenizer.encode("hello world hello"), tokenizer.decode([1, 0])
    ([0, 1, 0], 'world hello')
    """

    backend: Any = field(repr=False)
    special: SpecialTokens = SpecialTokens()
    eos_ids: frozenset[int] = frozenset()
    chat_template: str | None = None
    target: Any = field(default=None, repr=False)
    chat_limits: chat.ChatLimits = chat.ChatLimits()

    def __post_init__(self) -> None:
        # A tokenizer.json may order every text to be cut and padded: MiniLM's, to 128 ids.
        for backend in filter(None, (self.backend, self.target)):
            backend.no_truncation()
            backend.no_padding()
        if self.vocabulary_size > LARGEST_VOCABULARY:
            raise TokenizerError(
                f"The tokenizer has the id {self.vocabulary_size - 1}, and none may pass "
                f"{LARGEST_VOCABULARY}: the file is damaged."
            )

    @functools.cached_property
    def vocabulary_size(self) -> int:
        """One more than the largest id: the rows that an embedding needs at least."""
        return 1 + max(self.backend.get_vocab(with_added_tokens=True).values(), default=-1)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """The ids of a text.

        Args:
            text: any string; special tokens that are spelled out in it are recognised.
            add_special_tokens: to add what the model expects around a text, such as BERT's [CLS]
                and [SEP] or Llama's <s>. Off for a chat template's text, which has them.

        Raises:
            TokenizerError: if it is no text, or the tokenizer's files fail on it.
        """
        return self.encode_batch([text], add_special_tokens)[0]

    def encode_batch(
        self, texts: Sequence[str], add_special_tokens: bool = True
    ) -> list[list[int]]:
        """The ids of each text, on all cores; see `encode`."""
        return [list(e.ids) for e in self._encodings(texts, add_special_tokens)]

    def _encodings(self, texts: Sequence[str], add_special_tokens: bool) -> list[Any]:
        for text in texts:
            if not isinstance(text, str):
                raise TokenizerError(f"A text is a str, and one is {text!r:.100}.")
        with foreign_errors("The text cannot be encoded"):
            return self.backend.encode_batch(list(texts), add_special_tokens=add_special_tokens)

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """The text of some ids.

        Args:
            ids: Python or NumPy integers. An id that has no token gives no text: a model's
                embedding often has more rows than its tokenizer has tokens.
            skip_special_tokens: to leave out what only the model is to see.

        Raises:
            TokenizerError: if one is negative (-100 marks a label that does not count).
        """
        with foreign_errors("The ids cannot be decoded"):
            numbers = [int(i) for i in ids]
            return (self.target or self.backend).decode(numbers, skip_special_tokens)

    def token_id(self, token: str) -> int:
        """The id of a token as the vocabulary spells it.

        Raises:
            TokenizerError: if the vocabulary has no such token.
        """
        found = self.backend.token_to_id(token)
        if found is None:
            raise TokenizerError(f"The vocabulary has no token {token!r}.")
        return found

    def id_token(self, number: int) -> str:
        """The token of an id as the vocabulary spells it.

        Raises:
            TokenizerError: if the vocabulary has no such id.
        """
        with foreign_errors(f"{number!r} is no id"):
            found = self.backend.id_to_token(number)
        if found is None:
            raise TokenizerError(
                f"The vocabulary has no id {number}: {self.vocabulary_size} tokens."
            )
        return found

    def stream(self, skip_special_tokens: bool = True) -> TokenStream:
        """A decoder that takes one id at a time; see `TokenStream`."""
        return TokenStream(lambda ids: self.decode(ids, skip_special_tokens))

    def pad(
        self,
        batch: Sequence[Sequence[int]],
        side: str = "right",
        length: int | None = None,
        pad_id: int | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """A batch of one length, filled with the padding token; see `tfbig.interop.padding`.

        Args:
            batch, side, length: as there.
            pad_id: to fill with; None: that of the padding token.

        Raises:
            TokenizerError: if there is no padding token, as in GPT-2, and no `pad_id`.
        """
        pad_id = self.special.pad_id if pad_id is None else pad_id
        if pad_id is None:
            raise TokenizerError(
                "The tokenizer has no padding token. Give pad_id=: where a network is given the "
                "mask, too, any id will do, such as tokenizer.special.eos_id."
            )
        return padding.pad(batch, pad_id, side, length)

    def apply_chat_template(
        self,
        messages: Sequence[chat.Message],
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The text that the model is given for a conversation.

        Encode it with `add_special_tokens=False`: a template writes its own.

        Args:
            messages: as in `tfbig.interop.chat.render`.
            add_generation_prompt: to end where the model is to answer.
            variables: what else the template may read, such as `tools`.

        Raises:
            TokenizerError: if the tokenizer has no chat template.
            tfbig.interop.chat.ChatTemplateError: see `tfbig.interop.chat.render`.
        """
        conversation = chat.Conversation(messages, add_generation_prompt)
        return self._render([conversation], variables)[0]

    def _render(
        self, conversations: Sequence[chat.Conversation], variables: Mapping[str, Any] | None
    ) -> list[str]:
        if self.chat_template is None:
            raise TokenizerError(
                "The tokenizer has no chat template: it is that of a base model, or its template "
                "is lost. Give one by dataclasses.replace(tokenizer, chat_template=...)."
            )
        special = {f"{role}_token": self.id_token(i) for role, i in self.special.items()}
        given = {**special, **(variables or {})}
        return chat.render_all(self.chat_template, conversations, given, self.chat_limits)

    def encode_chat(
        self, messages: Sequence[chat.Message], variables: Mapping[str, Any] | None = None
    ) -> tuple[list[int], list[int]]:
        """The ids of a conversation, and which of them the assistant wrote; see `encode_chats`."""
        return self.encode_chats([messages], variables)[0]

    def encode_chats(
        self,
        conversations: Sequence[Sequence[chat.Message]],
        variables: Mapping[str, Any] | None = None,
    ) -> list[tuple[list[int], list[int]]]:
        """What fine-tuning on answers needs; many conversations cost hardly more than one.

        An answer is the text that a turn of the assistant adds after the generation prompt, up to
        and with its end-of-turn token; where it has none, all of it. Found by rendering the
        conversation up to that turn, without and with it, so it works for every template that only
        appends.

        Args:
            conversations: each of them messages; see `apply_chat_template`.
            variables: as there.

        Returns:
            For each its ids, and a mask of the same length: 1 on the tokens of answers, else 0.

        Raises:
            tfbig.interop.chat.ChatTemplateError: if a template rewrites earlier turns (as those
                do that remove old reasoning), so that no part of the text is a turn's.
        """
        from tfbig.interop import chat_answers

        asked = [chat_answers.renderings_needed(messages) for messages in conversations]
        rendered = iter(self._render([one for some in asked for one in some], variables))
        texts = [[next(rendered) for _ in some] for some in asked]
        spans = [chat_answers.answer_spans(some) for some in texts]
        encodings = self._encodings([some[0] for some in texts], add_special_tokens=False)
        special = self.eos_ids | {i for _, i in self.special.items()}
        special |= {i for i, t in self.backend.get_added_tokens_decoder().items() if t.special}
        return [
            (list(e.ids), chat_answers.answer_mask(e.ids, e.offsets, some, special))
            for e, some in zip(encodings, spans, strict=True)
        ]

    def save(self, folder: str | Path) -> None:
        """Writes the files from which `load_tokenizer` and Transformers' AutoTokenizer load it.

        These are tokenizer.json, tokenizer_config.json and special_tokens_map.json, and
        tokenizer_target.json where there is a target, which only `load_tokenizer` reads.
        """
        from tfbig.interop import tokenizer_files

        tokenizer_files.save_tokenizer(self, Path(folder))


@contextlib.contextmanager
def foreign_errors(what: str) -> Iterator[None]:
    """Turns whatever is raised inside into a `TokenizerError` that tells `what`: a file, a task.

    `tokenizers` raises plain Exceptions, and a panic of its Rust code is a BaseException.

    >>> with foreign_errors("vocab.txt"):
    ...     raise Exception("no such token")
    Traceback (most recent call last):
    tfbig.interop.tokenizer.TokenizerError: vocab.txt: no such token
    """
    try:
        yield
    except (ImportError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        if isinstance(error, TokenizerError) and what in str(error):
            raise
        raise TokenizerError(f"{what}: {error}") from error


def require_tokenizers() -> Any:
    """The package `tokenizers`.

    Raises:
        ImportError: with the line that installs it.

    >>> require_tokenizers().__name__
    'tokenizers'
    """
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError('Tokenizers need an extra: pip install "tfbig[interop]"') from error
    return tokenizers
